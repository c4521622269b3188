# SPDX-License-Identifier: Apache-2.0
"""Vehicles and people: sizes, ground contact, orientation, and what is drawn from the seed."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from offline_training.street.shapes.cars import KINDS, car
from offline_training.street.shapes.mesh import Mesh
from offline_training.street.shapes.people import person
from offline_training.street.textures.tiles import VARIANTS

SEEDS = range(25)


def bounds(mesh: Mesh) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    points = mesh.corners.reshape(-1, 3)
    return points.min(axis=0), points.max(axis=0)


def of_tile(mesh: Mesh, *tiles: str) -> NDArray[np.float32]:
    """Corners (T, 3, 3) of the triangles with one of the tiles."""
    wanted = [index for index, part in enumerate(mesh.parts) if part.tile in tiles]
    return mesh.corners[np.isin(mesh.part, wanted)]


def signed_volume(corners: NDArray[np.float32]) -> float:
    """Positive (m^3) where most triangles are counter-clockwise seen from outside."""
    a, b, c = corners.transpose(1, 0, 2)
    return float(np.einsum('ij,ij->', a, np.cross(b, c))) / 6


def normals(corners: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])


def people(seed: int) -> list[Mesh]:
    return [person(np.random.default_rng(seed), phase) for phase in (None, 0.0, 0.25, 0.6)]


@pytest.fixture(scope='module')
def cars() -> list[Mesh]:
    return [car(np.random.default_rng(seed)) for seed in SEEDS]


@pytest.fixture(scope='module')
def everyone() -> list[list[Mesh]]:
    return [people(seed) for seed in SEEDS]


def test_parts_are_valid_and_finite(cars: list[Mesh], everyone: list[list[Mesh]]) -> None:
    for mesh in [*cars, *(mesh for poses in everyone for mesh in poses)]:
        assert np.isfinite(mesh.corners).all()
        assert np.isfinite(mesh.uv).all()
        assert np.linalg.norm(normals(mesh.corners), axis=1).min() > 1e-8
        assert set(mesh.part) == set(range(len(mesh.parts)))
        for part in mesh.parts:
            assert 0 <= part.variant < VARIANTS[part.tile]
            assert all(0 <= channel <= 1 for channel in part.tint)
            assert 0.05 <= part.reflectivity <= 0.8


def test_cars_have_the_size_of_cars(cars: list[Mesh]) -> None:
    for mesh in cars:
        low, high = bounds(mesh)
        assert 3.6 < high[0] - low[0] < 6.5
        assert 1.7 < high[1] - low[1] < 2.6
        assert 1.3 < high[2] < 3.2
        assert low[2] == pytest.approx(0, abs=1e-6)
        assert low[:2] + high[:2] == pytest.approx([0, 0], abs=1e-5)
        assert 300 <= len(mesh.corners) <= 900


def test_all_kinds_of_car_are_drawn(cars: list[Mesh]) -> None:
    heights = np.array([bounds(mesh)[1][2] for mesh in cars])
    lengths = np.array([np.ptp(mesh.corners[..., 0]) for mesh in cars])
    assert len(KINDS) == 6
    assert heights.max() - heights.min() > 0.6
    assert lengths.max() - lengths.min() > 1.2


def test_cars_face_forwards_on_four_wheels(cars: list[Mesh]) -> None:
    for mesh in cars:
        assert of_tile(mesh, 'headlight')[..., 0].min() > 1.2
        assert of_tile(mesh, 'taillight')[..., 0].max() < -1.2
        assert normals(of_tile(mesh, 'grille'))[:, 0].min() > 0
        wheels = of_tile(mesh, 'wheel')
        sides = np.sign(wheels.mean(axis=1)[:, :2])
        assert len(np.unique(sides, axis=0)) == 4
        assert (normals(wheels)[:, 1] * wheels[:, 0, 1]).min() > 0
        assert of_tile(mesh, 'tyre')[..., 2].min() == pytest.approx(0, abs=1e-6)


def test_panes_lie_outside_the_body_and_look_outwards(cars: list[Mesh]) -> None:
    for mesh in cars:
        glass, body = of_tile(mesh, 'glass'), of_tile(mesh, 'car_body')
        from_middle = glass.mean(axis=1) - (0, 0, 1.0)
        assert (normals(glass) * from_middle).sum(axis=1).min() > 0
        side = np.abs(normals(glass)[:, 1]) > np.abs(normals(glass)[:, 0])
        assert {-1, 1} == set(np.sign(glass[side].mean(axis=1)[:, 1]))
        assert len(glass) >= 8
        assert glass[..., 2].max() < body[..., 2].max()


def test_people_have_the_size_of_people(everyone: list[list[Mesh]]) -> None:
    heights = []
    for poses in everyone:
        for mesh in poses:
            low, high = bounds(mesh)
            heights.append(high[2])
            assert low[2] == pytest.approx(0, abs=1e-6)
            assert 1.05 < high[2] < 2.05
            assert 0.25 < high[1] - low[1] < 0.9
            assert high[0] - low[0] < 1.2
            assert np.abs(low[:2] + high[:2]).max() < 0.8
            assert 300 <= len(mesh.corners) <= 700
    assert min(heights) < 1.5 < 1.75 < max(heights)


def test_people_look_forwards(everyone: list[list[Mesh]]) -> None:
    for poses in everyone:
        for mesh in poses:
            face = of_tile(mesh, 'face')
            assert face[..., 0].mean() > 0.03
            assert normals(face)[:, 0].min() > 0
            assert face[..., 2].mean() > 0.8 * bounds(mesh)[1][2]


def test_shapes_are_outside_out(cars: list[Mesh], everyone: list[list[Mesh]]) -> None:
    for mesh in cars:
        assert signed_volume(of_tile(mesh, 'car_body')) > 3
    for poses in everyone:
        assert all(0.01 < signed_volume(mesh.corners) < 0.3 for mesh in poses)


def test_same_seed_same_shape_other_seed_other_shape() -> None:
    for draw in (car, lambda random: person(random, None), lambda random: person(random, 0.3)):
        first, again, other = (draw(np.random.default_rng(seed)) for seed in (4, 4, 5))
        assert np.array_equal(first.corners, again.corners)
        assert np.array_equal(first.uv, again.uv)
        assert first.parts == again.parts
        assert first.parts != other.parts
        assert bounds(first)[1] != pytest.approx(bounds(other)[1], abs=1e-3)


def test_phase_moves_the_same_person(everyone: list[list[Mesh]]) -> None:
    for poses in everyone:
        standing, first, second, _ = poses
        for mesh in poses:
            assert mesh.parts == standing.parts
            assert np.array_equal(mesh.part, standing.part)
        assert np.abs(first.corners - second.corners).max() > 0.15
        assert bounds(first)[1][2] == pytest.approx(bounds(second)[1][2], abs=0.12)


def test_half_a_cycle_swaps_the_feet() -> None:
    random = np.random.default_rng
    now, later = (of_tile(person(random(6), phase), 'plain') for phase in (0.1, 0.6))
    left = now[now.mean(axis=1)[:, 1] > 0].mean(axis=(0, 1))
    right = later[later.mean(axis=1)[:, 1] < 0].mean(axis=(0, 1))
    assert left * (1, -1, 1) == pytest.approx(right, abs=1e-4)


def test_drawing_a_person_takes_as_much_randomness_in_every_phase() -> None:
    generators = [np.random.default_rng(8) for _ in range(3)]
    for random, phase in zip(generators, (None, 0.0, 0.7), strict=True):
        person(random, phase)
    assert len({random.random() for random in generators}) == 1
