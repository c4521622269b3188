# SPDX-License-Identifier: Apache-2.0
"""Camera models against OpenCV's projections and hand-computed numbers."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from cross4d_jepa_ros.sensing.cameras import (
    BadCalibration,
    CameraModel,
    nearest_depth,
    unhidden,
)

K = (400.0, 0.0, 320.5, 0.0, 410.0, 238.5, 0.0, 0.0, 1.0)
P = (380.0, 0.0, 315.0, 0.0, 0.0, 380.0, 240.0, 0.0, 0.0, 0.0, 1.0, 0.0)
PLUMB_BOB = (-0.28, 0.07, 0.0008, -0.0006, 0.01)
RATIONAL = (0.4, -0.1, 0.0003, -0.0005, 0.02, 0.7, -0.05, 0.03)
FISHEYE = (-0.02, 0.004, -0.003, 0.0005)


def camera_info(
    region: tuple[int, int, int, int] = (0, 0, 0, 0), **changes: Any
) -> SimpleNamespace:
    """Return a CameraInfo; the region is x_offset, y_offset, width, height."""
    keys = ('x_offset', 'y_offset', 'width', 'height')
    roi = SimpleNamespace(**dict(zip(keys, region, strict=True)), do_rectify=False)
    base = {
        'width': 640,
        'height': 480,
        'distortion_model': 'plumb_bob',
        'd': [0.0] * 5,
        'k': np.array(K),
        'r': np.eye(3).ravel(),
        'p': np.array(P),
        'binning_x': 0,
        'binning_y': 0,
        'roi': roi,
    }
    return SimpleNamespace(**{**base, **changes})


@pytest.fixture(scope='module')
def points() -> np.ndarray:
    """(2000, 3) in front of the camera, within the field of view or a little outside."""
    rng = np.random.default_rng(0)
    xy = rng.uniform(-0.9, 0.9, (2000, 2))
    z = rng.uniform(0.2, 60.0, (2000, 1))
    return np.hstack([xy * z, z])


@pytest.mark.parametrize(
    ('model', 'coefficients'),
    [
        ('plumb_bob', PLUMB_BOB),
        ('plumb_bob', PLUMB_BOB[:4]),
        ('plumb_bob', (0.1, 0.02, 0.0, 0.0, 0.0)),
        ('radtan', PLUMB_BOB[:4]),
        ('rational_polynomial', RATIONAL),
        ('rational_polynomial', (*RATIONAL, 0.0, 0.0, 0.0, 0.0)),
        ('rational_polynomial', (*RATIONAL, *[0.0] * 6)),
        ('plumb_bob', ()),
        ('', ()),
    ],
)
def test_agrees_with_calib3d(
    model: str, coefficients: tuple[float, ...], points: np.ndarray
) -> None:
    camera = CameraModel.from_camera_info(
        camera_info(distortion_model=model, d=list(coefficients)), rectified=False
    )
    uv, inside = camera.project(points.astype(np.float32))
    expected = cv2.projectPoints(
        points.astype(np.float32).astype(np.float64),
        np.zeros(3),
        np.zeros(3),
        np.array(K).reshape(3, 3),
        np.array(coefficients or [0.0] * 4),
    )[0].reshape(-1, 2)
    assert uv.dtype == np.float32
    assert inside.sum() > 500
    np.testing.assert_allclose(uv[inside], expected[inside], atol=1e-3)
    # Whatever OpenCV puts into the image is seen, but for folded-back rays (none are this near).
    near = np.linalg.norm(points[:, :2] / points[:, 2:], axis=1) < 0.8
    within = ((expected >= 0.01) & (expected <= np.array([638.99, 478.99]))).all(axis=1)
    assert inside[near & within].all()
    assert not inside[((expected < -0.01) | (expected > np.array([639.01, 479.01]))).any(1)].any()


@pytest.mark.parametrize('name', ['equidistant', 'fisheye'])
@pytest.mark.parametrize('coefficients', [FISHEYE, (*FISHEYE, 0.0), (0.0,) * 4])
def test_agrees_with_fisheye(name: str, coefficients: tuple[float, ...]) -> None:
    rng = np.random.default_rng(1)
    theta, phi = rng.uniform(0, 1.5, 1000), rng.uniform(-math.pi, math.pi, 1000)
    rays = np.stack([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)], 1)
    xyz = rays * rng.uniform(2, 30, (1000, 1))
    xyz[0] = (0, 0, 3)
    info = camera_info(distortion_model=name, d=coefficients, width=1200, height=1200)
    info.k[[2, 5]] = 600.0
    camera = CameraModel.from_camera_info(info, rectified=False)
    uv, inside = camera.project(xyz)
    expected = cv2.fisheye.projectPoints(
        xyz.reshape(-1, 1, 3),
        np.zeros(3),
        np.zeros(3),
        info.k.reshape(3, 3),
        np.array(coefficients[:4]),
    )[0].reshape(-1, 2)
    assert camera.distortion == 'equidistant'
    assert inside.sum() > 900
    np.testing.assert_allclose(uv[inside], expected[inside], atol=2e-3)
    np.testing.assert_allclose(uv[0], (600, 600), atol=1e-3)


def test_pinhole_by_hand() -> None:
    camera = CameraModel(640, 480, 100.0, 200.0, 320.0, 240.0)
    xyz = np.array(
        [
            (0, 0, 5),  # the axis
            (1, -1, 2),  # u 320 + 50, v 240 - 100
            (0, 0, 0.05),  # too near
            (0, 0, -5),  # behind
            (-6.4, -2.4, 2),  # the centre of pixel (0, 0)
            (6.38, 2.39, 2),  # the centre of the last pixel
            (6.4, 2.4, 2),  # one further
            (np.nan, 0, 5),
            (0, np.inf, 5),
            (0, 0, np.inf),
        ]
    )
    uv, inside = camera.project(xyz)
    assert uv[:2].tolist() == [[320, 240], [370, 140]]
    assert uv[[2, 3, 7, 8]].tolist() == [[-1, -1]] * 4
    assert inside.tolist()[:9] == [True, True, False, False, True, True, False, False, False]
    assert np.isfinite(uv).all()


def test_no_points() -> None:
    uv, inside = CameraModel(640, 480, 1.0, 1.0, 0.0, 0.0).project(np.empty((0, 3), np.float32))
    assert uv.shape == (0, 2)
    assert inside.shape == (0,)


def test_nothing_folds_back_into_the_image() -> None:
    # r (1 - 0.3 r^2) grows up to r^2 = 1 / 0.9 and returns to the centre at r^2 = 1 / 0.3.
    camera = CameraModel(640, 480, 300.0, 300.0, 320.0, 240.0, 'plumb_bob', (-0.3, 0, 0, 0, 0))
    limit = math.sqrt(1 / 0.9)
    radii = np.array([0.0, 0.5, limit - 1e-6, limit + 1e-6, 1.5, math.sqrt(1 / 0.3), 4.0])
    xyz = np.stack([radii * 10, np.zeros(7), np.full(7, 10.0)], axis=1)
    assert camera.project(xyz)[1].tolist() == [True] * 3 + [False] * 4
    folded = cv2.projectPoints(
        xyz[5:6], np.zeros(3), np.zeros(3), np.diag([300.0, 300, 1]), np.array([-0.3, 0, 0, 0])
    )[0]
    assert abs(folded).max() < 1  # the trap: OpenCV puts this ray onto the image centre


@pytest.mark.parametrize(
    ('model', 'coefficients'),
    [
        ('plumb_bob', PLUMB_BOB),
        ('plumb_bob', (0.2, -0.1, 0.0, 0.0)),
        ('rational_polynomial', (0.1, -0.4, 0.0, 0.0, 0.05, 0.2, 0.1, 0.0)),
        ('rational_polynomial', (0.1, 0.1, 0.0, 0.0, 0.0, -0.5, 0.0, 0.0)),
        ('equidistant', (-0.3, 0.02, 0.0, 0.0)),
    ],
)
def test_limit_is_where_the_radius_stops_growing(
    model: str, coefficients: tuple[float, ...]
) -> None:
    camera = CameraModel(10**9, 10**9, 1e3, 1e3, 0.0, 0.0, model, coefficients)
    radii = np.linspace(0, 4, 40_001)
    uv, inside = camera.project(np.stack([radii, np.zeros_like(radii), np.ones_like(radii)], 1))
    if model == 'equidistant':
        t = np.arctan(radii)
        bent = t * (1 + coefficients[0] * t**2 + coefficients[1] * t**4)
    else:
        k = (*coefficients, *[0.0] * (8 - len(coefficients)))
        s = radii**2
        bent = radii * (1 + k[0] * s + k[1] * s**2 + k[4] * s**3)
        bent /= 1 + k[5] * s + k[6] * s**2 + k[7] * s**3
    turn = int(np.argmax(np.diff(bent) <= 0))
    last = len(inside) - 1 if not (np.diff(bent) <= 0).any() else turn
    assert np.abs(np.flatnonzero(uv[:, 0] != -1).max() - last) <= 1
    assert inside[1:last].sum() >= last - 2


def test_region_of_interest_then_binning() -> None:
    info = camera_info((100, 60, 400, 300), binning_x=2, binning_y=3)
    for rectified, fx, cx, cy in ((False, 400, 320.5, 238.5), (True, 380, 315, 240)):
        camera = CameraModel.from_camera_info(info, rectified=rectified)
        assert (camera.width, camera.height) == (200, 100)
        assert (camera.fx, camera.cx) == (fx / 2, (cx - 100) / 2)
        assert camera.cy == (cy - 60) / 3


@pytest.mark.parametrize('tz', [0.0, 0.003])
def test_fourth_column_of_a_rectified_matrix(tz: float, points: np.ndarray) -> None:
    matrix = np.array(P).reshape(3, 4)
    matrix[:, 3] = (-45.0, 12.0, tz)
    info = camera_info(p=matrix.ravel(), d=list(PLUMB_BOB))
    camera = CameraModel.from_camera_info(info, rectified=True)
    uv, inside = camera.project(points)
    homogeneous = np.hstack([points, np.ones((len(points), 1))]) @ matrix.T
    expected = homogeneous[:, :2] / homogeneous[:, 2:]
    assert camera.distortion == 'none'
    assert inside.sum() > 500
    np.testing.assert_allclose(uv[inside], expected[inside], atol=1e-3)


def test_fourth_column_with_region_and_binning(points: np.ndarray) -> None:
    matrix = np.array(P).reshape(3, 4)
    matrix[0, 3] = -45.0
    info = camera_info((100, 60, 0, 0), p=matrix.ravel(), binning_x=2, binning_y=2)
    camera = CameraModel.from_camera_info(info, rectified=True)
    assert (camera.width, camera.height) == (270, 210)  # an unset region reaches the far corner
    uv, inside = camera.project(points)
    full = np.hstack([points, np.ones((len(points), 1))]) @ matrix.T
    expected = (full[:, :2] / full[:, 2:] - (100, 60)) / 2
    assert inside.sum() > 300
    np.testing.assert_allclose(uv[inside], expected[inside], atol=1e-3)


def test_scaled(points: np.ndarray) -> None:
    camera = CameraModel(640, 480, 400.0, 410.0, 320.5, 238.5, 'plumb_bob', PLUMB_BOB)
    half = camera.scaled(320, 240)
    assert (half.width, half.height, half.fx, half.cy) == (320, 240, 200.0, 119.25)
    uv, inside = half.project(points)
    full = camera.project(points)[0]
    np.testing.assert_allclose(uv[inside] * 2, full[inside], atol=1e-3)
    assert camera.scaled(640, 480) is camera
    # A resized image is rounded to whole pixels: 375 / 2 = 187.5.
    assert CameraModel(1242, 375, 700.0, 700.0, 600.0, 170.0).scaled(621, 187).height == 187
    for size in ((320, 480), (640, 360), (320, 200), (0, 0)):
        with pytest.raises(BadCalibration):
            camera.scaled(*size)


def with_k(index: int, value: float) -> np.ndarray:
    k = np.array(K)
    k[index] = value
    return k


@pytest.mark.parametrize(
    ('changes', 'rectified', 'sentence'),
    [
        ({'k': [0.0] * 9}, False, 'not calibrated'),
        ({'k': [math.nan] * 9}, False, 'not calibrated'),
        ({'k': with_k(0, -400.0)}, False, 'not calibrated'),
        ({'k': with_k(4, 0.0)}, False, 'not calibrated'),
        ({'k': with_k(2, math.inf)}, False, 'not calibrated'),
        ({'k': [1.0] * 8}, False, '8 numbers in k'),
        ({'p': [0.0] * 12}, True, 'not calibrated'),
        ({'p': np.full(12, math.nan)}, True, 'not calibrated'),
        ({'p': np.zeros(0)}, True, '0 numbers in p'),
        ({'d': [math.nan] * 5}, False, 'not calibrated'),
        ({'d': [1e300] * 5}, False, 'not calibrated'),
        ({'d': [0.1] * 3}, False, 'takes 4 or 5 coefficients, not 3'),
        ({'d': [0.1] * 8}, False, 'takes 4 or 5 coefficients, not 8'),
        ({'d': [0.0] * 3}, False, 'takes 4 or 5 coefficients, not 3'),
        ({'distortion_model': 'rational_polynomial'}, False, 'takes 8 coefficients, not 5'),
        ({'distortion_model': 'rational_polynomial', 'd': [0.1] * 12}, False, 'thin prism'),
        ({'distortion_model': 'equidistant', 'd': [0.1] * 5}, False, 'only supported when zero'),
        ({'distortion_model': 'equidistant', 'd': []}, False, 'takes 4 coefficients, not 0'),
        ({'distortion_model': '', 'd': [0.1] * 5}, False, "distortion model ''"),
        ({'distortion_model': 'mei'}, False, "'mei' is not one of"),
        ({'width': 0}, False, 'region of interest'),
        ({'region': (700, 0, 0, 0)}, False, 'region of interest'),
    ],
)
def test_bad_calibration(changes: dict[str, Any], rectified: bool, sentence: str) -> None:
    with pytest.raises(BadCalibration, match=sentence):
        CameraModel.from_camera_info(camera_info(**changes), rectified=rectified)


def test_binning_to_nothing() -> None:
    with pytest.raises(BadCalibration, match='impossible size of 0 x 480'):
        CameraModel.from_camera_info(camera_info(binning_x=1000), rectified=False)


def test_rectified_images_need_no_distortion_model() -> None:
    info = camera_info(distortion_model='mei', d=[0.3], k=[0.0] * 9)
    camera = CameraModel.from_camera_info(info, rectified=True)
    assert (camera.fx, camera.distortion, camera.coefficients) == (380, 'none', ())


@pytest.mark.parametrize('coefficients', [(1e9,) * 8, (1e-300,) * 8, (-1e9, 1e9) * 4])
def test_absurd_coefficients_do_not_crash(
    coefficients: tuple[float, ...], points: np.ndarray
) -> None:
    camera = CameraModel(640, 480, 1.0, 1.0, 0.0, 0.0, 'rational_polynomial', coefficients)
    uv, inside = camera.project(points)
    assert uv.shape == (2000, 2)
    assert np.isfinite(uv[inside]).all()


def test_a_point_behind_another_in_its_cell_is_hidden() -> None:
    uv = np.array([[3, 3], [4, 5], [7, 7], [12, 3], [3, 12]], np.float32)
    depth = np.array([20, 5, 5.4, 20, 30], np.float32)

    assert unhidden(uv, depth, 10).tolist() == [False, True, True, True, True]
    assert unhidden(uv, depth, 1).all()


def test_what_counts_as_behind_grows_with_the_distance() -> None:
    uv = np.zeros((2, 2), np.float32)

    assert unhidden(uv, np.array([50.0, 52.9]), 8).all()
    assert not unhidden(uv, np.array([5.0, 5.6]), 8).all()


def test_cells_beside_and_above_count_where_asked_to() -> None:
    # One point in the middle of each of 3 x 3 cells, the nearest below the middle one.
    row, column = np.mgrid[:3, :3].reshape(2, -1)
    uv = np.stack((column, row), 1).astype(np.float32) * 10 + 5
    depth = np.array([9, 8, 7, 6, 5, 6, 4, 1, 4], np.float32)

    assert nearest_depth(uv, depth, 10).tolist() == depth.tolist()
    nearest = nearest_depth(uv, depth, 10, dilated=True)
    assert nearest.reshape(3, 3).tolist() == [[8, 7, 7], [5, 5, 5], [1, 1, 1]]


def test_no_points_are_no_trouble() -> None:
    assert unhidden(np.zeros((0, 2), np.float32), np.zeros(0), 8).shape == (0,)
