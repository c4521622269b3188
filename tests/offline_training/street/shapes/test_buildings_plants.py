# SPDX-License-Identifier: Apache-2.0
"""Houses, plants and street furniture: sizes, footing, budgets, and draws that differ."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from numpy.typing import NDArray

from offline_training.street.shapes.buildings import building, garden_wall, shelter
from offline_training.street.shapes.furniture import (
    bollard,
    lamp_post,
    sign_post,
    traffic_light,
    tube,
    utility_pole,
)
from offline_training.street.shapes.mesh import Mesh, Part
from offline_training.street.shapes.plants import bush, grass_tufts, hedge, tree
from offline_training.street.textures.tiles import VARIANTS

Make = Callable[[np.random.Generator], Mesh]

HOUSE = partial(building, width=11.0, depth=8.0)
WALL = partial(garden_wall, length=5.0)
HEDGE = partial(hedge, length=5.0)
TUFTS = partial(grass_tufts, length=3.0, width=1.0)
SEEDS = range(20)

# Shape, fewest and most triangles, lowest and highest top (m), half of the largest extent (m).
SHAPES = [
    pytest.param(HOUSE, 100, 800, 3.0, 30.0, 9.0, id='building'),
    pytest.param(WALL, 24, 400, 0.5, 1.65, 2.5, id='garden_wall'),
    pytest.param(shelter, 20, 250, 1.2, 3.0, 2.5, id='shelter'),
    pytest.param(tree, 1200, 3000, 2.8, 12.0, 5.0, id='tree'),
    pytest.param(bush, 200, 520, 0.4, 2.4, 1.6, id='bush'),
    pytest.param(HEDGE, 500, 650, 0.5, 2.3, 2.9, id='hedge'),
    pytest.param(TUFTS, 40, 400, 0.05, 0.4, 1.7, id='grass_tufts'),
    pytest.param(lamp_post, 30, 200, 2.8, 10.0, 3.2, id='lamp_post'),
    pytest.param(traffic_light, 30, 200, 2.6, 6.5, 4.0, id='traffic_light'),
    pytest.param(sign_post, 20, 100, 2.0, 3.6, 0.5, id='sign_post'),
    pytest.param(bollard, 30, 150, 0.8, 1.1, 0.2, id='bollard'),
    pytest.param(utility_pole, 30, 200, 6.0, 9.0, 1.6, id='utility_pole'),
]
MAKERS = [pytest.param(shape.values[0], id=shape.id) for shape in SHAPES]


def _normals(mesh: Mesh) -> NDArray[np.float64]:
    corners = mesh.corners.astype(np.float64)
    return np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]) / 2


@pytest.mark.parametrize(('make', 'fewest', 'most', 'lowest', 'highest', 'reach'), SHAPES)
def test_sizes_and_budgets(
    make: Make, fewest: int, most: int, lowest: float, highest: float, reach: float
) -> None:
    for seed in SEEDS:
        mesh = make(np.random.default_rng(seed))
        assert fewest <= len(mesh.corners) <= most
        low, high = mesh.corners.min(axis=(0, 1)), mesh.corners.max(axis=(0, 1))
        assert lowest <= high[2] <= highest
        assert np.abs([low[0], high[0]]).max() <= reach
        assert -2.01 <= low[2] <= 0.0  # reaches the ground, or a little into it


@pytest.mark.parametrize('make', MAKERS)
def test_surfaces_are_in_the_atlas(make: Make) -> None:
    for seed in SEEDS:
        mesh = make(np.random.default_rng(seed))
        assert mesh.part.min() >= 0
        assert mesh.part.max() < len(mesh.parts)
        for part in mesh.parts:
            assert 0 <= part.variant < VARIANTS[part.tile]
            assert 0.05 <= part.reflectivity <= 0.8
            assert all(0 <= channel <= 1 for channel in part.tint)


@pytest.mark.parametrize('make', MAKERS)
def test_triangles_have_an_area_and_texture(make: Make) -> None:
    for seed in SEEDS:
        mesh = make(np.random.default_rng(seed))
        assert mesh.corners.shape == (*mesh.uv.shape[:2], 3)
        assert np.isfinite(mesh.uv).all()
        assert np.linalg.norm(_normals(mesh), axis=1).min() > 1e-7


@pytest.mark.parametrize('make', MAKERS)
def test_a_seed_is_a_shape(make: Make) -> None:
    first, again, other = (make(np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.corners, again.corners)
    np.testing.assert_array_equal(first.uv, again.uv)
    assert first.parts == again.parts
    assert (
        first.corners.shape != other.corners.shape
        or np.abs(first.corners - other.corners).max() > 0.01
    )
    assert first.parts != other.parts


@pytest.mark.parametrize('width', [5.0, 9.0, 17.0])
def test_a_building_fronts_on_the_sidewalk(width: float) -> None:
    for seed in SEEDS:
        mesh = building(np.random.default_rng(seed), width, 8.0)
        flat = np.abs(mesh.corners[..., 1]).max(axis=1) < 1e-4
        normals = _normals(mesh)[flat]
        towards = normals[normals[:, 1] < 0]
        # The house itself stands on y = 0; a lower wing may stand back.
        assert -towards[:, 1].sum() > 0.55 * width * 2.5
        low, high = mesh.corners.min(axis=(0, 1)), mesh.corners.max(axis=(0, 1))
        assert low[1] >= -1.5
        assert 8.0 <= high[1] <= 8.8
        assert low[0] == pytest.approx(-width / 2, abs=0.8)
        assert high[0] == pytest.approx(width / 2, abs=0.8)
        assert low[2] == pytest.approx(-2.0)


def test_buildings_enclose_space() -> None:
    for seed in SEEDS:
        mesh = HOUSE(np.random.default_rng(seed))
        volume = (mesh.corners.mean(axis=1) * _normals(mesh)).sum() / 3
        assert volume > 11.0 * 8.0 * 2.0  # negative if faces looked inwards


@pytest.mark.parametrize('make', [lamp_post, traffic_light, sign_post, bollard, utility_pole])
def test_posts_are_thin(make: Make) -> None:
    for seed in SEEDS:
        corners = make(np.random.default_rng(seed)).corners
        foot = corners.reshape(-1, 3)
        foot = foot[foot[:, 2] < 0.1]
        assert 0.025 <= np.abs(foot[:, 0]).max() <= 0.2


def test_crowns_of_trees_do_not_hang_into_the_road() -> None:
    for seed in SEEDS:
        points = tree(np.random.default_rng(seed)).corners.reshape(-1, 3)
        low = points[points[:, 2] < 1.8]
        assert np.hypot(low[:, 0], low[:, 1]).max() < 2.0


def test_a_hedge_is_opaque() -> None:
    for seed in SEEDS:
        mesh = HEDGE(np.random.default_rng(seed))
        sides = [mesh.corners[i] for i in np.flatnonzero(np.abs(_normals(mesh)[:, 1]) > 0.5)]
        spans = [np.ptp(side[:, 0]) for side in sides]
        assert max(spans) > 4.5  # its core runs all along it


def test_a_tube_is_round_and_closed() -> None:
    part = Part('metal', 0, (0.5, 0.5, 0.5), 0.5)
    mesh = tube(np.outer([0.0, 1.0, 2.0], [0, 0, 1]), 0.1, part, sides=24)
    volume = (mesh.corners.mean(axis=1) * _normals(mesh)).sum() / 3
    assert volume == pytest.approx(np.pi * 0.1**2 * 2.0, rel=0.02)
