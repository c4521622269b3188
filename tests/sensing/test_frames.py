# SPDX-License-Identifier: Apache-2.0
"""Sweeps end up upright, on the ground, at one instant, with the right pixel for every point."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cross4d_jepa_ros.sensing.extrinsics import load_extrinsics
from cross4d_jepa_ros.sensing.frames import (
    FrameAssembler,
    FrameConfig,
    NoTransform,
    camera_info_topic,
    is_rectified,
)
from cross4d_jepa_ros.sensing.ground import estimate_ground_z
from cross4d_jepa_ros.sensing.poses import matrix_from_quaternion
from cross4d_jepa_ros.sensing.transforms import TransformBuffer

STAMP = 1_700_000_000_000_000_000
MS = 10**6
OPTICAL_FROM_BODY = matrix_from_quaternion([0, 0, 0], [0.5, -0.5, 0.5, 0.5])


def header(stamp_ns: int, frame_id: str) -> SimpleNamespace:
    sec, nanosec = divmod(stamp_ns, 10**9)
    return SimpleNamespace(stamp=SimpleNamespace(sec=sec, nanosec=nanosec), frame_id=frame_id)


def points(
    xyz: Any, *, time_s: Any = None, frame_id: str = 'lidar', stamp_ns: int = STAMP
) -> SimpleNamespace:
    columns = [np.asarray(xyz, np.float32)]
    names = list('xyz')
    if time_s is not None:
        columns.append(np.asarray(time_s, np.float32)[:, None])
        names.append('time')
    data = np.hstack(columns).astype(np.float32)
    fields = [
        SimpleNamespace(name=name, offset=4 * i, datatype=7, count=1)
        for i, name in enumerate(names)
    ]
    step = 4 * len(names)
    return SimpleNamespace(
        header=header(stamp_ns, frame_id),
        height=1,
        width=len(data),
        fields=fields,
        is_bigendian=False,
        point_step=step,
        row_step=step * len(data),
        data=data.tobytes(),
        is_dense=True,
    )


def picture(stamp_ns: int, width: int = 100, height: int = 80) -> SimpleNamespace:
    return SimpleNamespace(
        header=header(stamp_ns, 'camera'),
        height=height,
        width=width,
        encoding='rgb8',
        is_bigendian=0,
        step=3 * width,
        data=bytes(3 * width * height),
    )


def calibration() -> SimpleNamespace:
    return SimpleNamespace(
        header=header(STAMP, 'camera'),
        width=100,
        height=80,
        distortion_model='plumb_bob',
        d=[0.0] * 5,
        k=[100.0, 0, 50, 0, 100, 40, 0, 0, 1],
        r=[1.0, 0, 0, 0, 1, 0, 0, 0, 1],
        p=[100.0, 0, 50, 0, 0, 100, 40, 0, 0, 0, 1, 0],
        binning_x=0,
        binning_y=0,
        roi=SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0, do_rectify=False),
    )


def moving_at(speed: float, *, yaw_rate: float = 0.0) -> TransformBuffer:
    """Odometry of the LiDAR, x = speed * t, from 0.5 s before the stamp to 0.5 s after."""
    transforms = TransformBuffer()
    for step in range(-50, 51):
        seconds = step / 100
        half = yaw_rate * seconds / 2
        pose = SimpleNamespace(
            position=SimpleNamespace(x=speed * seconds, y=0.0, z=0.0),
            orientation=SimpleNamespace(x=0.0, y=0.0, z=np.sin(half), w=np.cos(half)),
        )
        transforms.add_odometry(
            SimpleNamespace(
                header=header(STAMP + step * 10 * MS, 'odom'),
                child_frame_id='lidar',
                pose=SimpleNamespace(pose=pose),
            )
        )
    return transforms


def street(height: float, seed: int = 0) -> np.ndarray:
    """Ground at -height with things standing on it, seen from the origin."""
    rng = np.random.default_rng(seed)
    ground = rng.uniform((-25, -25, -0.03), (25, 25, 0.03), (3000, 3)) - (0, 0, height)
    walls = rng.uniform((8, -20, 0), (8.3, 20, 6), (1500, 3)) - (0, 0, height)
    return np.vstack([ground, walls]).astype(np.float32)


@pytest.mark.parametrize('height', [0.4, 1.73, 3.2])
def test_ground_is_found_below_the_sensor(height: float) -> None:
    assert estimate_ground_z(street(height)) == pytest.approx(-height, abs=0.05)


def test_no_ground_is_no_guess() -> None:
    rng = np.random.default_rng(1)
    assert estimate_ground_z(rng.uniform(-6, 6, (3000, 3)).astype(np.float32)) is None
    assert estimate_ground_z(np.zeros((0, 3), np.float32)) is None


def test_points_stand_on_the_ground() -> None:
    assembler = FrameAssembler(FrameConfig(), TransformBuffer())
    frame = assembler.assemble(points(street(1.73)), [], views=False)

    assert np.median(frame.xyz_base[:3000, 2]) == pytest.approx(0, abs=0.05)
    assert frame.base_from_sensor[2, 3] == pytest.approx(1.73, abs=0.05)
    assert assembler.notes.keys() == {'ego_motion'}


def test_given_height_is_taken_and_a_lost_ground_is_noted() -> None:
    up = [[5.0, 0, 3.0], [6.0, 0, 4.0]]
    given = FrameAssembler(FrameConfig(base_height_m=2.0), TransformBuffer())
    measured = FrameAssembler(FrameConfig(), TransformBuffer())

    assert given.assemble(points(up), [], views=False).xyz_base[0, 2] == pytest.approx(5.0)
    assert measured.assemble(points(up), [], views=False).xyz_base[0, 2] == pytest.approx(3.0)
    assert 'base_height' in measured.notes['ground']


def test_tilted_sensor_is_turned_upright_by_the_base_frame() -> None:
    pitch = np.deg2rad(20)
    base_from_lidar = matrix_from_quaternion(
        [1.0, 0, 1.5], [0, np.sin(pitch / 2), 0, np.cos(pitch / 2)]
    )
    transforms = TransformBuffer()
    transforms.add_static('base_link', 'lidar', base_from_lidar)
    upright = street(0.0)
    seen = (upright - base_from_lidar[:3, 3]) @ base_from_lidar[:3, :3]
    assembler = FrameAssembler(FrameConfig(base_frame='base_link'), transforms)
    frame = assembler.assemble(points(seen), [], views=False)

    np.testing.assert_allclose(frame.xyz_base, upright, atol=0.06)
    back = (frame.xyz_base - frame.base_from_sensor[:3, 3]) @ frame.base_from_sensor[:3, :3]
    np.testing.assert_allclose(back, frame.sweep.xyz, atol=1e-4)


def test_optical_frame_without_a_base_frame_is_turned() -> None:
    assembler = FrameAssembler(FrameConfig(base_height_m=0.0), TransformBuffer())
    message = points([[1.0, 2.0, 3.0]], frame_id='depth_optical_frame')

    np.testing.assert_allclose(
        assembler.assemble(message, [], views=False).xyz_base, [[3, -1, -2]], atol=1e-6
    )


def test_missing_base_frame_names_the_knobs() -> None:
    assembler = FrameAssembler(FrameConfig(base_frame='base_link'), TransformBuffer())
    with pytest.raises(NoTransform, match=r"'lidar' to base_frame 'base_link'.*extrinsics_file"):
        assembler.assemble(points([[1.0, 0, 0]]), [], views=False)


@pytest.mark.parametrize(
    ('sweep_stamp', 'times'),
    [
        ('start', np.linspace(0, 0.1, 50)),
        ('end', np.linspace(-0.1, 0, 50)),
        ('middle', np.linspace(-0.05, 0.05, 50)),
    ],
)
def test_motion_within_the_sweep_is_undone(sweep_stamp: str, times: np.ndarray) -> None:
    """A wall 10 m ahead at the stamp, seen while driving 20 m/s and turning."""
    speed, yaw_rate = 20.0, 0.5
    wall = np.stack([np.full(50, 10.0), np.linspace(-5, 5, 50), np.zeros(50)], axis=1)
    seen = []
    for point, seconds in zip(wall, times, strict=True):
        angle = yaw_rate * seconds
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        seen.append([*(point[:2] - (speed * seconds, 0)) @ turn, 0])
    config = FrameConfig(base_height_m=0.0)
    config = FrameConfig(
        cloud=type(config.cloud)(sweep_stamp=sweep_stamp), base_height_m=0.0, deskew=True
    )
    assembler = FrameAssembler(config, moving_at(speed, yaw_rate=yaw_rate))
    frame = assembler.assemble(points(seen, time_s=times), [], views=False)

    np.testing.assert_allclose(frame.xyz_base, wall, atol=2e-3)
    np.testing.assert_allclose(frame.sweep.xyz, seen, atol=1e-5)
    assert assembler.ego_motion == 'odometry'
    assert frame.fixed_from_base is not None
    as_seen = FrameAssembler(
        FrameConfig(cloud=config.cloud, base_height_m=0.0, deskew=False), moving_at(speed)
    ).assemble(points(seen, time_s=times), [], views=False)
    assert np.abs(as_seen.xyz_base - wall).max() > 0.5


def test_missing_ego_motion_over_the_sweep_is_noted() -> None:
    times = np.linspace(0, 0.1, 20)
    message = points(np.ones((20, 3)), time_s=times, stamp_ns=STAMP + 2000 * MS)
    assembler = FrameAssembler(FrameConfig(base_height_m=0.0), moving_at(10.0))
    frame = assembler.assemble(message, [], views=False)

    assert frame.fixed_from_base is None
    assert assembler.ego_motion == 'none'
    assert 'max_extrapolation' in assembler.notes['ego_motion']
    assert 'no ego-motion over them' in assembler.notes['deskew']


def test_view_contains_the_motion_between_sweep_and_image() -> None:
    """The point 10 m ahead at the sweep is 9 m ahead of the image taken 50 ms later at 20 m/s."""
    transforms = moving_at(20.0)
    transforms.add_static('lidar', 'camera', np.linalg.inv(OPTICAL_FROM_BODY))
    assembler = FrameAssembler(
        FrameConfig(base_height_m=0.0), transforms, None, ['/camera/image_raw']
    )
    assembler.set_camera_info(calibration(), 0)
    frame = assembler.assemble(points([[10.0, 1.0, 0.5]]), [picture(STAMP + 50 * MS)], views=True)
    (view,) = frame.views
    camera = frame.xyz_base @ view.camera_from_base[:3, :3].T + view.camera_from_base[:3, 3]

    np.testing.assert_allclose(camera, [[-1.0, -0.5, 9.0]], atol=1e-4)
    uv, inside = view.camera.project(camera.astype(np.float32))
    assert inside.all()
    np.testing.assert_allclose(uv, [[50 - 100 / 9, 40 - 50 / 9]], atol=1e-2)


@pytest.mark.parametrize(
    ('prepare', 'words'),
    [
        (lambda a, t: None, 'no CameraInfo for image0'),
        (lambda a, t: a.set_camera_info(calibration(), 0), "camera frame 'camera'"),
    ],
)
def test_unusable_image_is_noted_and_the_sweep_goes_on(prepare: Any, words: str) -> None:
    transforms = TransformBuffer()
    assembler = FrameAssembler(FrameConfig(base_height_m=0.0), transforms, None, ['/image'])
    prepare(assembler, transforms)
    frame = assembler.assemble(points([[1.0, 0, 0]]), [picture(STAMP)], views=True)

    assert frame.views == ()
    assert words in assembler.notes['image0']
    assert 'extrinsics_file' in assembler.notes['image0']


def test_half_a_jpeg_and_a_foreign_size_are_noted() -> None:
    transforms = TransformBuffer()
    transforms.add_static('lidar', 'camera', np.eye(4))
    assembler = FrameAssembler(FrameConfig(base_height_m=0.0), transforms, None, ['/image'])
    assembler.set_camera_info(calibration(), 0)
    broken = picture(STAMP)
    broken.data = broken.data[:50]
    for message in (broken, picture(STAMP, width=70, height=80)):
        frame = assembler.assemble(points([[1.0, 0, 0]]), [message], views=True)
        assert frame.views == ()
        assert assembler.notes['image0']
    assert assembler.assemble(points([[1.0, 0, 0]]), [picture(STAMP, 50, 40)], views=True).views


def test_calibration_file_serves_without_camera_info_and_tf(tmp_path: Path) -> None:
    path = tmp_path / 'extrinsics.yaml'
    path.write_text(
        'cam0:\n'
        '  rostopic: /right/image_raw\n'
        '  camera_model: pinhole\n'
        '  intrinsics: [100, 100, 50, 40]\n'
        '  distortion_model: none\n'
        '  resolution: [100, 80]\n'
        '  T_cam_lidar: [[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0.5], [0, 0, 0, 1]]\n'
    )
    topics = ['/left/image_raw/compressed', '/right/image_raw/compressed']
    assembler = FrameAssembler(
        FrameConfig(base_height_m=0.0), TransformBuffer(), load_extrinsics(path), topics
    )
    frame = assembler.assemble(points([[10.0, 0, 0]]), [picture(STAMP), picture(STAMP)], views=True)

    assert [view.camera_index for view in frame.views] == [1]
    np.testing.assert_allclose(frame.views[0].camera_from_base[2], [1, 0, 0, 0.5], atol=1e-9)
    assert 'no CameraInfo for image0' in assembler.notes['image0']


@pytest.mark.parametrize(
    ('image', 'info'),
    [
        ('/camera/image_raw', '/camera/camera_info'),
        ('/camera/image_raw/compressed', '/camera/camera_info'),
        ('/a/b/image_rect_color', '/a/b/camera_info'),
        ('/image', '/camera_info'),
    ],
)
def test_camera_info_topic_by_rule(image: str, info: str) -> None:
    assert camera_info_topic(image) == info


def test_rectified_images_are_known_by_name() -> None:
    assert is_rectified('/cam/image_rect_color/compressed')
    assert is_rectified('/cam/image_rect')
    assert not is_rectified('/rectangle/image_raw')


def test_a_wheel_or_an_arm_is_no_world() -> None:
    """Joints below or beside the LiDAR move it in nothing, whichever comes first."""
    transforms = moving_at(10.0)
    turn = SimpleNamespace(x=0.0, y=0.0, z=0.0, w=1.0)
    shift = SimpleNamespace(x=1.0, y=0.0, z=0.0)
    joints = [
        SimpleNamespace(
            header=header(STAMP, parent),
            child_frame_id=child,
            transform=SimpleNamespace(translation=shift, rotation=turn),
        )
        for parent, child in (('lidar', 'a_wheel'), ('odom', 'b_other_robot'))
    ]
    only_joints = TransformBuffer()
    for buffer in (transforms, only_joints):
        buffer.add_tf_message(SimpleNamespace(transforms=joints), static=False)
    assembler = FrameAssembler(FrameConfig(base_height_m=0.0), transforms)
    alone = FrameAssembler(FrameConfig(base_height_m=0.0), only_joints)

    assert transforms.moving_ancestors('lidar') == ['odom']
    assert assembler.assemble(points([[1.0, 0, 0]]), [], views=False).fixed_from_base is not None
    assert assembler.ego_motion == 'odometry'
    assert alone.assemble(points([[1.0, 0, 0]]), [], views=False).fixed_from_base is None
    assert alone.ego_motion == 'none'


def test_refused_transforms_are_part_of_the_reason() -> None:
    transforms = TransformBuffer()
    pose = SimpleNamespace(
        position=SimpleNamespace(x=0.0, y=0.0, z=0.0),
        orientation=SimpleNamespace(x=0.0, y=0.0, z=0.0, w=1.0),
    )
    transforms.add_odometry(
        SimpleNamespace(
            header=header(STAMP, 'odom'), child_frame_id='', pose=SimpleNamespace(pose=pose)
        )
    )
    assembler = FrameAssembler(FrameConfig(base_height_m=0.0), transforms)
    assembler.assemble(points([[1.0, 0, 0]]), [], views=False)

    assert 'a frame name is empty' in assembler.notes['ego_motion']


def test_calibration_for_another_topic_is_named(tmp_path: Path) -> None:
    path = tmp_path / 'extrinsics.yaml'
    path.write_text(
        'cam0: {rostopic: /cam0/image_raw, camera_model: pinhole, intrinsics: [9, 9, 5, 4], '
        'distortion_model: none, resolution: [100, 80]}'
    )
    assembler = FrameAssembler(
        FrameConfig(base_height_m=0.0), TransformBuffer(), load_extrinsics(path), ['/cam/image_raw']
    )
    assembler.assemble(points([[1.0, 0, 0]]), [picture(STAMP)], views=True)

    assert 'the one given is for /cam0/image_raw' in assembler.notes['image0']
