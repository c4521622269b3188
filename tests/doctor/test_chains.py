# SPDX-License-Identifier: Apache-2.0
"""Chains of frames, and where they break."""

from __future__ import annotations

import numpy as np
import pytest

from cross4d_jepa_ros.doctor.chains import Chains, base_frame
from cross4d_jepa_ros.health import Level
from cross4d_jepa_ros.sensing.transforms import TransformBuffer
from tests.tiny_recording import START_NS

ROBOT = Chains(
    [
        ('base_link', 'odom', '/tf'),
        ('imu', 'base_link', '/tf_static'),
        ('velodyne', 'imu', '/tf_static'),
        ('camera_link', 'base_link', '/tf_static'),
        ('camera_optical', '/camera_link', '/tf_static'),
        ('right_optical', 'stereo', '/tf_static'),
    ]
)


@pytest.mark.parametrize(
    ('target', 'source', 'chain'),
    [
        ('base_link', 'velodyne', 'base_link <- imu <- velodyne (/tf_static)'),
        (
            'camera_optical',
            '/velodyne',
            'camera_optical <- camera_link <- base_link <- imu <- velodyne (/tf_static)',
        ),
        ('odom', 'imu', 'odom <- base_link <- imu (/tf, /tf_static)'),
        ('imu', 'imu', 'imu'),
        ('right_optical', 'velodyne', ''),
    ],
)
def test_a_chain_is_written_frame_by_frame(target: str, source: str, chain: str) -> None:
    assert ROBOT.between(target, source) == chain
    assert bool(ROBOT.broken(target, source)) == (not chain)


@pytest.mark.parametrize(
    ('target', 'source', 'words'),
    [
        (
            'right_optical',
            'velodyne',
            'two trees, odom <- base_link <- imu <- velodyne and stereo <- right_optical: '
            "publish 'odom' to 'stereo'",
        ),
        ('camera_optical', 'velodyne_1', "'velodyne_1', no transform names it"),
        ('camera_optical', 'velodyne_1', "is it 'velodyne'? Then correct the driver's frame_id"),
        ('camera_optical', '', "breaks at '', no transform names it"),
    ],
)
def test_a_break_is_named(target: str, source: str, words: str) -> None:
    assert words in ROBOT.broken(target, source)


def test_images_stamped_with_the_body_of_the_camera_are_named() -> None:
    assert "below which hangs 'camera_optical'" in ROBOT.optical_hint('camera_link')
    assert not ROBOT.optical_hint('camera_optical')


def test_a_loop_of_frames_ends() -> None:
    loop = Chains([('a', 'b', '/tf'), ('b', 'a', '/tf')])
    assert loop.up('a') == ['a', 'b', 'a']
    assert 'no transform names it' in loop.broken('a', 'c')


@pytest.mark.parametrize(
    ('lean_deg', 'parameters'), [(0.0, {}), (2.0, {}), (20.0, {'base_frame': 'base_link'})]
)
def test_a_lidar_that_leans_gets_its_base_frame(
    lean_deg: float, parameters: dict[str, str]
) -> None:
    lean = np.radians(lean_deg)
    matrix = np.eye(4)
    matrix[1:3, 1:3] = [[np.cos(lean), -np.sin(lean)], [np.sin(lean), np.cos(lean)]]
    matrix[2, 3] = 1.5
    transforms = TransformBuffer()
    transforms.add_static('base_link', 'imu', np.eye(4))
    transforms.add_static('imu', 'velodyne', matrix)
    finding, found = base_frame(ROBOT, transforms, 'velodyne', START_NS)

    assert finding.level == Level.OK
    assert f'stands 1.50 m above it and leans by {lean_deg:.0f} degrees' in finding.sentence
    assert found == parameters


@pytest.mark.parametrize(
    ('sensor', 'level', 'words'),
    [
        ('', Level.ERROR, 'leaves frame_id of the sweeps empty'),
        ('stereo', Level.WARN, 'two trees, stereo and odom <- base_link'),
    ],
)
def test_a_lidar_beside_the_robots_tree_is_named(sensor: str, level: Level, words: str) -> None:
    finding, found = base_frame(ROBOT, TransformBuffer(), sensor, START_NS)
    assert (finding.level, found) == (level, {})
    assert words in finding.sentence
