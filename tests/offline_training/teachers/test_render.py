# SPDX-License-Identifier: Apache-2.0
"""Virtual pinholes around the sensor, the depth renders they see, and the pixels of the points."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from cross4d_jepa_ros.sensing.poses import matrix_from_quaternion, transform_points
from offline_training.logs.table import IndexedSweep
from offline_training.teachers.render import (
    DARKEST,
    HEIGHT,
    WIDTH,
    correspond_render,
    render,
    virtual_shots,
)

# The sensor is tilted by 20 degrees about y, and turned by 90 about z.
TILTED = matrix_from_quaternion((0.5, -0.2, 1.8), (0, math.sin(0.17), 0, math.cos(0.17)))
TURNED = matrix_from_quaternion((0, 0, 0), (0, 0, math.sqrt(0.5), math.sqrt(0.5)))
SENSOR = np.array((0.5, -0.2, 1.8), np.float32)


def row() -> IndexedSweep:
    return IndexedSweep(
        log='drive',
        topic='/points',
        frame_id='lidar',
        stamp_ns=1_700_000_000_123_456_789,
        message_ns=42,
        points=0,
        base_from_sensor=TILTED @ TURNED,
        fixed_from_base=None,
        stamp_from_knot=None,
        intensity_ceiling=1.0,
        shots=(),
        coverage=0.0,
        flags=(),
        segment=0,
        labels='',
    )


def around(degrees: float, distance: float, up: float = 0.0) -> NDArray[np.float32]:
    """One point (1, 3) as seen from the sensor, turned from x of the base frame to y."""
    turn = math.radians(degrees)
    way = (distance * math.cos(turn), distance * math.sin(turn), up)
    return (SENSOR + np.array([way], np.float32)).astype(np.float32)


def street(draw: np.random.Generator) -> NDArray[np.float32]:
    """A sweep of 64 beams over level ground and a round wall 30 m away."""
    turn, down = np.meshgrid(np.linspace(0, 2 * np.pi, 1800), np.deg2rad(np.linspace(-2, 24, 64)))
    distance = np.minimum(1.8 / np.sin(np.maximum(down, 1e-3)), 30 / np.cos(down))
    distance = distance + draw.normal(0, 0.01, distance.shape)
    flat = distance * np.cos(down)
    xyz = np.stack((flat * np.cos(turn), flat * np.sin(turn), -distance * np.sin(down)), -1)
    return (xyz.reshape(-1, 3) + SENSOR).astype(np.float32)


def test_four_upright_views_look_outwards_from_the_sensor() -> None:
    shots = virtual_shots(row())

    assert [shot.topic for shot in shots] == ['render:0', 'render:1', 'render:2', 'render:3']
    for number, shot in enumerate(shots):
        assert (shot.stamp_ns, shot.message_ns, shot.offset_ns) == (row().stamp_ns, 42, 0)
        ahead = transform_points(shot.camera_from_base, around(90 * number, 10, up=1))
        np.testing.assert_allclose(ahead, [(0, -1, 10)], atol=1e-5)


@pytest.mark.parametrize(('degrees', 'views'), [(10, {0}), (45, {0, 1}), (100, {1}), (-46.5, {3})])
def test_every_direction_is_in_a_view_and_seams_are_in_two(degrees: float, views: set[int]) -> None:
    point = around(degrees, 10)

    seen = {n for n, shot in enumerate(virtual_shots(row())) if shot_sees(point, n)}

    assert seen == views


def shot_sees(point: NDArray[np.float32], number: int) -> bool:
    return len(correspond_render(point, virtual_shots(row())[number]).point) == 1


def test_brightness_tells_the_depth() -> None:
    shot = virtual_shots(row())[0]
    # The point lies 0.5 pixels beside the centre of the image, as does pixel (63, 126).
    shade = {z: int(render(around(-0.1, z, -0.001 * z), shot)[63, 126, 0]) for z in (0.4, 5, 150)}

    # ln(5 / 0.5) / ln(100 / 0.5) = 0.4346 of the way from 255 to 32.
    assert shade == {0.4: 255, 5: 158, 150: DARKEST}


def test_a_point_covers_three_pixels_a_side_and_five_where_nothing_is() -> None:
    shot = virtual_shots(row())[0]
    far, near = around(-0.1, 20, -0.02), around(-0.1 - 3 * 0.46, 5, -0.005)

    alone = render(far, shot)
    both = render(np.concatenate((far, near)), shot)

    assert alone.shape == (HEIGHT, WIDTH, 3)
    assert alone.dtype == np.uint8
    assert (alone[..., :1] == alone).all()
    lit = np.argwhere(alone[..., 0])
    assert lit.min(axis=0).tolist() == [61, 124]
    assert lit.max(axis=0).tolist() == [65, 128]
    assert len(lit) == 25
    # The near point is three pixels to the right: between them each has its own 3 x 3.
    line = both[63, :, 0]
    assert len(set(line[125:128].tolist())) == 1
    assert len(set(line[128:132].tolist())) == 1
    assert line[127] < line[128]


def test_the_nearest_point_is_in_front_whatever_the_order() -> None:
    xyz = street(np.random.default_rng(0))
    shuffled = np.random.default_rng(1).permutation(xyz)

    for shot in virtual_shots(row()):
        np.testing.assert_array_equal(render(xyz, shot), render(shuffled, shot))


def test_visible_points_find_the_pixel_that_they_were_drawn_to() -> None:
    xyz = street(np.random.default_rng(0))
    seen = np.zeros(len(xyz), bool)
    for shot in virtual_shots(row()):
        found = correspond_render(xyz, shot)
        seen[found.point] = True
        assert (found.weight == 1).all()
        # Drawn alone, a point lights the pixel that it is said to belong to, and most of all.
        column, line = np.floor(found.uv + 0.5).astype(int).T
        picture = render(xyz[found.point], shot)[line, column, 0]
        np.testing.assert_array_equal(picture, render(xyz, shot)[line, column, 0])
        for n in range(0, len(found.point), 997):
            lit = np.argwhere(render(xyz[found.point[n : n + 1]], shot)[..., 0])
            assert np.abs(lit - (line[n], column[n])).max() <= 2

    assert seen.mean() > 0.95


def test_no_points_give_a_black_picture() -> None:
    shot = virtual_shots(row())[0]
    nothing = np.zeros((0, 3), np.float32)

    assert not render(nothing, shot).any()
    assert len(correspond_render(nothing, shot).point) == 0
