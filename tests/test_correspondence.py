# SPDX-License-Identifier: Apache-2.0
"""Which points a camera sees, at which pixel and with which weight; all numbers by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from cross4d_jepa_ros.correspondence import LEAST_WEIGHT, Correspondence, correspond
from cross4d_jepa_ros.sensing.cameras import CameraModel
from cross4d_jepa_ros.sensing.frames import BODY_FROM_OPTICAL
from cross4d_jepa_ros.sensing.poses import invert

CAMERA = CameraModel(width=120, height=80, fx=100, fy=100, cx=60, cy=40)
CAMERA_FROM_BASE = invert(BODY_FROM_OPTICAL)
MS = 1_000_000


def at(*seen: tuple[float, float, float]) -> NDArray[np.float32]:
    """Points in the base frame that are seen at u, v and that far in front of the camera."""
    u, v, depth = np.array(seen).T
    optical = np.stack(((u - 60) * depth / 100, (v - 40) * depth / 100, depth, 1 + 0 * u))
    return (BODY_FROM_OPTICAL @ optical)[:3].T.astype(np.float32)


def found(xyz: NDArray[np.float32], offset_ns: int = 0, **changes: Any) -> Correspondence:
    return correspond(xyz, CAMERA, CAMERA_FROM_BASE, offset_ns, **{'patch_px': 16.0, **changes})


def test_points_find_their_pixels_and_their_depth() -> None:
    behind = np.array([[-5, 0, 0]], np.float32)
    xyz = np.concatenate((at((30, 20, 5)), behind, at((70.25, 50.5, 8), (300, 20, 5))))

    result = found(xyz)

    assert result.point.tolist() == [0, 2]
    assert result.point.dtype == np.int64
    np.testing.assert_allclose(result.uv, [(30, 20), (70.25, 50.5)], atol=1e-4)
    np.testing.assert_allclose(result.depth, [5, 8], rtol=1e-6)
    assert result.weight.tolist() == [1, 1]
    kinds = {array.dtype for array in (result.uv, result.depth, result.weight)}
    assert kinds == {np.dtype(np.float32)}


@pytest.mark.parametrize(
    ('near', 'far', 'hidden'),
    [
        ((41, 41, 10), (43, 43, 10.39), False),  # 10 m x 1.02 + 0.2 m = 10.4 m
        ((41, 41, 10), (43, 43, 10.41), True),  # the same cell, pixels 40 to 43
        ((41, 41, 10), (47, 43, 12), True),  # the next cell on the right
        ((41, 41, 10), (37, 43, 12), True),  # on the left
        ((41, 41, 10), (43, 47, 12), True),  # below the near one
        ((41, 41, 10), (47, 47, 12), True),  # below and on the right
        ((41, 41, 10), (43, 37, 12), False),  # above it: how the ground lies
        ((41, 41, 10), (48, 43, 12), False),  # two cells away
        ((41, 41, 10), (43, 48, 12), False),
    ],
)
def test_a_point_is_hidden_by_a_nearer_one_beside_or_above_it(
    near: tuple[float, float, float], far: tuple[float, float, float], hidden: bool
) -> None:
    assert found(at(far, near)).point.tolist() == ([1] if hidden else [0, 1])


def test_the_ground_does_not_hide_itself() -> None:
    # Rings of a LiDAR 1.8 m above the ground, 0.4 degrees apart; the camera is 1.5 m above it.
    down = np.deg2rad(np.arange(2.4, 20, 0.4))
    ring_m, turn = 1.8 / np.tan(down)[:, None], np.deg2rad(np.arange(-10, 10, 0.2))[None]
    height = np.full((len(down), turn.size), -1.5)
    xyz = np.stack((ring_m * np.cos(turn), ring_m * np.sin(turn), height), -1).reshape(-1, 3)
    camera = CameraModel(width=1200, height=600, fx=700, fy=700, cx=600, cy=100)

    seen = correspond(xyz.astype(np.float32), camera, CAMERA_FROM_BASE, 0, patch_px=16)

    assert len(seen.point) > 0.9 * len(xyz)


def test_what_lies_outside_the_border_still_hides() -> None:
    xyz = at((1.5, 40, 5), (2, 42, 9), (117.5, 40, 5), (117, 40, 5), (60, 77.5, 5), (60, 1.5, 5))

    assert found(xyz).point.tolist() == [3]
    assert found(xyz[1:]).point.tolist() == [0, 2]


def test_nearer_points_than_the_least_depth_neither_count_nor_hide() -> None:
    xyz = at((40, 40, 0.9), (41, 41, 4))

    assert found(xyz).point.tolist() == [1]
    assert found(xyz, min_depth_m=0.2).point.tolist() == [0]


def test_a_patch_with_two_things_in_it_weighs_less() -> None:
    # Patches of 16 pixels begin at -0.5: u = 15.4 is in the first, u = 15.6 in the second.
    xyz = at((3, 3, 10), (15.4, 15.4, 11), (15.6, 3, 20))

    weight = found(xyz).weight

    np.testing.assert_allclose(weight, [np.exp(-1 / 1), np.exp(-1 / 1.1), 1], rtol=1e-4)
    alone = found(xyz, patch_px=8.0)
    np.testing.assert_allclose(alone.weight, 1, rtol=1e-4)


def test_hidden_points_do_not_make_a_patch_mixed() -> None:
    result = found(at((3, 3, 10), (2.5, 2.5, 60)))

    assert result.point.tolist() == [0]
    assert result.weight.tolist() == [1]


def test_no_weight_is_zero() -> None:
    weight = found(at((3, 13, 2), (14, 3, 90))).weight

    assert weight[0] == np.float32(LEAST_WEIGHT)
    assert 0 < weight[1] < 1


@pytest.mark.parametrize('offset_ms', [-50, -7, 0, 15, 50])
def test_late_images_weigh_less(offset_ms: int) -> None:
    weight = found(at((30, 20, 5)), offset_ms * MS).weight

    np.testing.assert_allclose(weight, [np.exp(-((offset_ms / 30) ** 2))], rtol=1e-6)


def test_each_point_has_its_own_time() -> None:
    xyz = at((30, 20, 5), (200, 20, 5), (60, 20, 5), (90, 20, 5))
    offsets = np.array([0, 70, 40, 90]) * MS

    result = found(xyz, 70 * MS, time_offset_ns=offsets)

    assert result.point.tolist() == [2, 3]
    np.testing.assert_allclose(result.weight, [np.exp(-1), np.exp(-4 / 9)], rtol=1e-6)


@pytest.mark.parametrize('offset_ms', [-51, 51, 100_000])
def test_images_that_are_too_late_teach_nothing(offset_ms: int) -> None:
    result = found(at((30, 20, 5)), offset_ms * MS)

    assert [len(result.point), result.uv.shape, len(result.depth)] == [0, (0, 2), 0]


@pytest.mark.parametrize('xyz', [np.zeros((0, 3), np.float32), -np.ones((7, 3), np.float32)])
def test_nothing_in_front_of_the_camera(xyz: NDArray[np.float32]) -> None:
    result = found(xyz, time_offset_ns=np.zeros(len(xyz), np.int64))

    assert [len(result.point), len(result.weight)] == [0, 0]


@pytest.mark.parametrize(
    ('distortion', 'coefficients'),
    [('plumb_bob', (-0.3, 0.08, 0.001, -0.0005, 0.0)), ('equidistant', (-0.02, 0.004, 0, 0))],
)
def test_the_lens_bends(distortion: str, coefficients: tuple[float, ...]) -> None:
    xyz = at((20, 15, 4), (95, 65, 6))
    camera = replace(CAMERA, distortion=distortion, coefficients=coefficients)
    matrix = np.array([[100, 0, 60], [0, 100, 40], [0, 0, 1]], float)
    optical = (CAMERA_FROM_BASE[:3, :3] @ xyz.T).T.astype(float)[:, None]
    project = cv2.projectPoints if distortion == 'plumb_bob' else cv2.fisheye.projectPoints
    zero = np.zeros((3, 1))
    expected, _ = project(optical, zero, zero, matrix, np.array(coefficients, float))

    result = correspond(xyz, camera, CAMERA_FROM_BASE, 0, patch_px=16)

    np.testing.assert_allclose(result.uv, expected.reshape(-1, 2), atol=1e-3)


def test_ego_motion_moves_the_pixels() -> None:
    xyz = at((60, 60, 10))  # 2 m below the camera
    forward = np.eye(4)
    forward[0, 3] = -2  # the vehicle comes 2 m nearer until the image is taken

    result = correspond(xyz, CAMERA, CAMERA_FROM_BASE @ forward, 20 * MS, patch_px=16)

    np.testing.assert_allclose(result.uv, [(60, 65)], atol=1e-4)  # 40 + 100 x 2 / 8
    np.testing.assert_allclose(result.depth, [8], rtol=1e-6)


def test_the_order_of_the_points_changes_nothing() -> None:
    draw = np.random.default_rng(0)
    xyz = draw.uniform((0, -20, -5), (40, 20, 5), (3000, 3)).astype(np.float32)
    order = draw.permutation(len(xyz))

    straight, shuffled = found(xyz), found(xyz[order])

    assert 100 < len(straight.point) < 1000
    back = np.argsort(order[shuffled.point])
    np.testing.assert_array_equal(order[shuffled.point][back], straight.point)
    np.testing.assert_array_equal(shuffled.weight[back], straight.weight)
    np.testing.assert_array_equal(shuffled.uv[back], straight.uv)
