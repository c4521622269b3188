# SPDX-License-Identifier: Apache-2.0
"""How far a camera is turned, by posts of several heights before a far wall."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cross4d_jepa_ros.doctor.cameras import projection
from cross4d_jepa_ros.doctor.turning import turn_of, turned, usual_mistake
from cross4d_jepa_ros.health import Level
from cross4d_jepa_ros.sensing.cameras import CameraModel
from cross4d_jepa_ros.sensing.frames import BODY_FROM_OPTICAL, CameraView

WIDTH, HEIGHT, FOCAL = 320, 240, 160.0
CAMERA = CameraModel(WIDTH, HEIGHT, FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2)
# Right: the camera is at the LiDAR and looks along its x axis.
RIGHT = np.linalg.inv(BODY_FROM_OPTICAL)
# Left and right column of each post, 6 m away, and its upper row; the wall is 20 m away.
POSTS = (
    *((20, 32, 90), (66, 76, 40), (99, 121, 120), (150, 158, 70)),
    *((199, 219, 100), (236, 244, 150), (290, 301, 60)),
)


def views(
    camera_from_lidar: np.ndarray, *, dark: bool = False
) -> list[tuple[SimpleNamespace, CameraView]]:
    """Two sweeps with the image that shows them, as the given extrinsics have it."""
    v, u = np.mgrid[4:240:4, 4:316:1].reshape(2, -1).astype(np.float32)
    pixels = np.full((HEIGHT, WIDTH, 3), 50, np.uint8)
    x = np.full(len(u), 20, np.float32)
    for left, right, top in POSTS:
        pixels[top:, left:right] = 50 if dark else 220
        x[(u >= left) & (u < right) & (v >= top)] = 6
    xyz = np.stack((x, (160 - u) / FOCAL * x, (120 - v) / FOCAL * x), axis=1)
    # Behind, where no image shows it, stands something else.
    xyz = np.concatenate((xyz, (xyz * (-1, 1, 1))[::5]), dtype=np.float32)
    sweep = SimpleNamespace(xyz=xyz, time_offset_ns=None)
    frame = SimpleNamespace(sweep=sweep, xyz_base=xyz, base_from_sensor=np.eye(4), stamp_ns=0)
    view = CameraView(0, pixels, 0, CAMERA, camera_from_lidar)
    frame.views = (view,)
    return [(SimpleNamespace(frame=frame), view)] * 2


@pytest.mark.parametrize(
    ('turn', 'wrong'),
    [
        ({}, ''),
        ({'yaw': 2.0}, 'degrees too far to the right (+- 0.5)'),
        ({'pitch': -5.0}, 'degrees too low (+- 0.5)'),
        ({'yaw': -1.5, 'pitch': 1.5}, 'degrees too far to the left (+- 0.5) and 1.'),
    ],
    ids=['right', 'yaw', 'pitch', 'both'],
)
def test_a_turned_camera_is_told_from_a_right_one(turn: dict[str, float], wrong: str) -> None:
    found = turn_of(views(turned(turn) @ RIGHT))

    assert found is not None
    assert wrong in found.wrong
    assert bool(found.wrong) == bool(wrong) != found.is_right
    for axis, degrees in found.degrees.items():
        if found.known(axis):
            assert degrees == pytest.approx(turn.get(axis, 0.0), abs=found.within[axis])


def test_a_dark_image_tells_nothing() -> None:
    assert turn_of(views(RIGHT, dark=True)) is None


@pytest.mark.parametrize(
    ('camera_from_lidar', 'words'),
    [
        (turned({'yaw': 90}) @ RIGHT, '90 degrees too far to the right'),
        (turned({'yaw': -90}) @ RIGHT, '90 degrees too far to the left'),
        (turned({'yaw': 180}) @ RIGHT, 'turned by 180 degrees'),
        (np.linalg.inv(RIGHT), 'it is inverted'),
        (BODY_FROM_OPTICAL @ RIGHT, 'of the body frame (x forward)'),
    ],
    ids=['right', 'left', 'back', 'inverted', 'body'],
)
def test_usual_mistakes_are_told_apart(camera_from_lidar: np.ndarray, words: str) -> None:
    assert words in usual_mistake(views(camera_from_lidar))


@pytest.mark.parametrize(
    ('camera_from_lidar', 'dark', 'level', 'words'),
    [
        (RIGHT, False, Level.OK, 'edges meet'),
        (turned({'yaw': 2}) @ RIGHT, False, Level.WARN, 'wrong extrinsics: the points lie 2.0'),
        (turned({'yaw': 90}) @ RIGHT, False, Level.ERROR, 'wrong extrinsics: '),
        (RIGHT, True, Level.WARN, 'cannot tell from these images whether'),
    ],
    ids=['right', 'turned', 'sideways', 'dark'],
)
def test_the_verdict_claims_what_the_images_show(
    tmp_path: Path, camera_from_lidar: np.ndarray, dark: bool, level: Level, words: str
) -> None:
    frames: Any = [made for made, _ in views(camera_from_lidar, dark=dark)]
    finding, figures = projection('/camera', 0, frames, tmp_path / 'picture.png')

    assert finding.level == level, finding.sentence
    assert words in finding.sentence
    assert set(figures) == {'coverage', 'edge_distance_px', 'edge_chance_px'}
