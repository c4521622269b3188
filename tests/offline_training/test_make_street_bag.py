# SPDX-License-Identifier: Apache-2.0
"""The synthetic street: its messages, and that LiDAR, cameras and poses agree with each other."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from cross4d_jepa_ros.bags import Bag, moving_transforms, static_transforms
from offline_training.make_street_bag import (
    DISTORTION,
    EGO_SPEED,
    IMAGE_HEIGHT,
    IMAGE_WIDTH,
    LIDAR_POSITION,
    START_NS,
    Boxes,
    Road,
    base_from_camera,
    camera_image,
    camera_matrix,
    ego_pose,
    lidar_sweep,
    main,
    pixel_rays,
    write_street_bag,
)

SMALL = {'beams': 16, 'columns': 256}


@pytest.fixture(scope='module')
def recording(tmp_path_factory):
    path = tmp_path_factory.mktemp('street') / 'bag'
    assert write_street_bag(path, 3, 1.0, **SMALL) == 10
    with Bag(path) as bag:
        yield bag


def decoded(bag: Bag, topic: str) -> list:
    return [bag.deserialise(message) for message in bag.messages([topic])]


def stamp_ns(message) -> int:
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


def matrix(transform) -> np.ndarray:
    """Pose of a TransformStamped, by the textbook formula."""
    shift, q = transform.transform.translation, transform.transform.rotation
    x, y, z, w = q.x, q.y, q.z, q.w
    pose = np.eye(4)
    pose[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    pose[:3, 3] = shift.x, shift.y, shift.z
    return pose


def points(cloud) -> np.ndarray:
    names = {1: 'i1', 4: 'u2', 7: 'f4'}
    layout = np.dtype(
        {
            'names': [field.name for field in cloud.fields],
            'formats': [names[field.datatype] for field in cloud.fields],
            'offsets': [field.offset for field in cloud.fields],
            'itemsize': cloud.point_step,
        }
    )
    return np.frombuffer(cloud.data, layout)


def test_topics(recording):
    assert {name: topic.count for name, topic in recording.topics.items()} == {
        '/tf_static': 1,
        '/tf': 50,
        '/odom': 50,
        '/lidar/points': 10,
        '/camera_left/image_raw/compressed': 10,
        '/camera_left/camera_info': 10,
        '/camera_right/image_raw/compressed': 10,
        '/camera_right/camera_info': 10,
    }
    assert recording.problems == []
    assert recording.topics['/tf_static'].transient_local
    assert recording.topics['/lidar/points'].offered_best_effort


def test_clouds(recording):
    for index, cloud in enumerate(decoded(recording, '/lidar/points')):
        assert stamp_ns(cloud) == START_NS + index * 100_000_000
        assert [field.name for field in cloud.fields] == [
            'x',
            'y',
            'z',
            'intensity',
            'ring',
            'time',
        ]
        got = points(cloud)
        assert len(got) == cloud.width > 1000
        assert cloud.row_step == cloud.point_step * cloud.width == len(cloud.data)
        xyz = np.stack([got['x'], got['y'], got['z']], axis=1)
        assert np.isfinite(xyz).all()
        assert np.linalg.norm(xyz, axis=1).max() < 101
        assert 0 <= got['intensity'].min() < got['intensity'].max() <= 1
        assert set(got['ring']) <= set(range(16))
        assert (np.diff(got['time']) >= 0).all()
        assert 0 <= got['time'].min() < 0.002
        assert 0.098 < got['time'].max() < 0.1
        # The ground lies a LiDAR's height below it and nothing lies lower.
        assert -LIDAR_POSITION[2] - 0.1 < np.percentile(got['z'], 1) < -LIDAR_POSITION[2] + 0.1


def test_images_and_calibration(recording):
    for side in ('left', 'right'):
        images = decoded(recording, f'/camera_{side}/image_raw/compressed')
        infos = decoded(recording, f'/camera_{side}/camera_info')
        for index, (image, info) in enumerate(zip(images, infos, strict=True)):
            late_ns = stamp_ns(image) - START_NS - index * 100_000_000
            assert 8_000_000 <= late_ns <= 15_000_000
            assert stamp_ns(info) == stamp_ns(image)
            assert image.header.frame_id == f'camera_{side}_optical_frame'
            shape = cv2.imdecode(np.asarray(image.data), cv2.IMREAD_COLOR).shape
            assert shape == (IMAGE_HEIGHT, IMAGE_WIDTH, 3)
            assert (info.height, info.width) == shape[:2]
            assert info.distortion_model == 'plumb_bob'
            assert np.array_equal(info.k.reshape(3, 3), camera_matrix())
            assert np.array_equal(info.d, DISTORTION)


def test_static_tree_is_the_one_that_is_rendered(recording):
    tree = {transform.child_frame_id: transform for transform in static_transforms(recording)}
    assert {transform.header.frame_id for transform in tree.values()} == {'base_link'}
    assert np.allclose(matrix(tree['lidar'])[:3, 3], LIDAR_POSITION)
    for name in ('camera_left', 'camera_right'):
        want = base_from_camera(name)
        assert np.allclose(matrix(tree[f'{name}_optical_frame']), want, atol=1e-6)
    forward = base_from_camera('camera_left')[:3, :3] @ [0, 0, 1]
    assert np.allclose(forward, [np.cos(np.deg2rad(28)), np.sin(np.deg2rad(28)), 0], atol=1e-6)


def test_poses(recording):
    moving = list(moving_transforms(recording))
    odometry = decoded(recording, '/odom')
    for index, (transform, odom) in enumerate(zip(moving, odometry, strict=True)):
        assert stamp_ns(transform) == stamp_ns(odom) == START_NS + index * 20_000_000
        assert (transform.header.frame_id, transform.child_frame_id) == ('odom', 'base_link')
        assert (odom.header.frame_id, odom.child_frame_id) == ('odom', 'base_link')
        position = odom.pose.pose.position
        assert np.allclose(matrix(transform)[:3, 3], [position.x, position.y, position.z])
        assert position.z == 0
        assert odom.twist.twist.linear.x == pytest.approx(EGO_SPEED, rel=0.1)
    ahead = np.linalg.inv(matrix(moving[0])) @ matrix(moving[-1])
    assert ahead[0, 3] == pytest.approx(EGO_SPEED * 0.98, rel=0.1)


def wall_ahead(distance: float, speed: float = 0.0) -> tuple[Road, Boxes]:
    """A straight stretch of road with one red wall across it."""
    road = Road(500.0)
    x = 55.0  # where the road bends least: an extremum of the sine is where it is parallel to x
    along = float(np.interp(x, road._x, road._arc))
    row = np.ones(1)
    boxes = Boxes(
        along=row * (along + distance),
        lateral=row * -1.75,
        speed=row * speed,
        half=np.array([[0.5, 3.0, 2.0]]),
        yaw=row * 0,
        colour=np.array([[1.0, 0.0, 0.0]]),
        reflectivity=row * 0.9,
    )
    return road, boxes


def seconds_at_bend() -> float:
    road = Road(500.0)
    return float(np.interp(55.0, road._x, road._arc)) / EGO_SPEED


def in_wall_frame(road, boxes, sweep, time_s: float, motion: bool = True) -> np.ndarray:
    """Points (N, 3) relative to the wall, as it and the car stood when each was fired."""
    since = sweep.time.astype(float) * motion
    position, yaw = ego_pose(road, time_s + since)
    cos, sin = np.cos(yaw), np.sin(yaw)
    x, y, z = (sweep.xyz + np.array(LIDAR_POSITION)).T
    odom = position[:, :2] + np.stack([cos * x - sin * y, sin * x + cos * y], axis=1)
    along = boxes.along[0] + boxes.speed[0] * (time_s + since)
    place, heading = road.pose(along, np.full(len(along), boxes.lateral[0]))
    cos, sin = np.cos(heading), np.sin(heading)
    x, y = (odom - place).T
    return np.stack([cos * x + sin * y, cos * y - sin * x, z - boxes.half[0, 2]], axis=1)


@pytest.mark.parametrize('speed', [0.0, 20.0])
def test_sweeps_are_distorted_by_the_motion_and_times_undo_it(speed):
    time_s = seconds_at_bend()
    road, boxes = wall_ahead(15.0 - speed * time_s, speed)
    sweep = lidar_sweep(road, boxes, time_s, np.random.default_rng(0), 32, 720)
    placed = in_wall_frame(road, boxes, sweep, time_s)
    wall = (np.abs(placed[:, 2]) < 1.9) & (np.abs(placed[:, 1]) < 2.9)
    wall &= np.abs(placed[:, 0]) < 3.0
    assert wall.sum() > 50
    assert np.abs(placed[wall, 0] + 0.5).max() < 0.08  # the front face; 15 mm of noise
    # The LiDAR looks forward at mid-sweep. Whoever ignores that misplaces the wall by what the
    # car and the wall have moved by then.
    undistorted = in_wall_frame(road, boxes, sweep, time_s, motion=False)
    moved = (speed - EGO_SPEED) * 0.05
    assert np.median(undistorted[wall, 0]) + 0.5 == pytest.approx(moved, abs=0.05)
    assert np.allclose(sweep.time[wall], 0.05, atol=0.005)
    assert np.median(sweep.intensity[wall]) == pytest.approx(0.9, abs=0.05)


def test_pixel_rays_invert_the_distortion():
    rays = pixel_rays()[::24, ::40].reshape(-1, 3).astype(np.float64)
    pixels, _ = cv2.projectPoints(
        rays, np.zeros(3), np.zeros(3), camera_matrix(), np.array(DISTORTION)
    )
    v, u = np.mgrid[0:IMAGE_HEIGHT:24, 0:IMAGE_WIDTH:40]
    assert np.allclose(pixels[:, 0], np.stack([u.ravel(), v.ravel()], axis=1), atol=0.02)


@pytest.mark.parametrize('name', ['camera_left', 'camera_right'])
def test_the_camera_sees_the_points_of_the_wall(name):
    road, boxes = wall_ahead(15.0)
    time_s = seconds_at_bend()
    image = camera_image(road, boxes, time_s, name, pixel_rays())
    red = (image[..., 0] > 60) & (image[..., 1] == 0)
    assert red.sum() > 200
    centre, yaw = boxes.pose(road, time_s)
    position, heading = ego_pose(road, np.array(time_s))
    odom_from_base = np.eye(4)
    odom_from_base[:2, :2] = [
        [np.cos(heading), -np.sin(heading)],
        [np.sin(heading), np.cos(heading)],
    ]
    odom_from_base[:3, 3] = position
    camera_from_odom = np.linalg.inv(odom_from_base @ base_from_camera(name))
    across, up = np.meshgrid(np.linspace(-2.9, 2.9, 30), np.linspace(-1.9, 1.9, 20))
    forward = np.array([np.cos(yaw[0]), np.sin(yaw[0]), 0])
    left = np.array([-np.sin(yaw[0]), np.cos(yaw[0]), 0])
    front = centre[0] - 0.5 * forward + across[..., None] * left + up[..., None] * [0, 0, 1]
    in_camera = front.reshape(-1, 3) @ camera_from_odom[:3, :3].T + camera_from_odom[:3, 3]
    pixels, _ = cv2.projectPoints(
        in_camera, np.zeros(3), np.zeros(3), camera_matrix(), np.array(DISTORTION)
    )
    u, v = np.round(pixels[:, 0]).astype(int).T
    seen = (u >= 0) & (u < IMAGE_WIDTH) & (v >= 0) & (v < IMAGE_HEIGHT)
    assert seen.sum() > 50
    assert red[v[seen], u[seen]].all()
    # And nothing but the wall is red: the projected outline covers it.
    outside = np.ones_like(red)
    outside[max(v.min() - 3, 0) : v.max() + 4, max(u.min() - 6, 0) : u.max() + 7] = False
    assert not red[outside].any()


def test_same_seed_same_bytes(tmp_path):
    for name, seed in (('one', 5), ('two', 5), ('three', 6)):
        write_street_bag(tmp_path / name / 'bag', seed, 0.2, beams=8, columns=64)
    one, two, three = (
        (tmp_path / name / 'bag' / 'bag.mcap').read_bytes() for name in ('one', 'two', 'three')
    )
    assert one == two
    assert one != three


def test_command(tmp_path, capsys, monkeypatch):
    called = []
    monkeypatch.setattr(
        'offline_training.make_street_bag.write_street_bag',
        lambda path, seed, seconds, storage: called.append((path, seed, seconds, storage)) or 4,
    )
    out = tmp_path / 'out'
    assert main([str(out), '--seed', '2', '--seconds', '0.4', '--storage', 'sqlite3']) == 0
    assert called == [(out, 2, 0.4, 'sqlite3')]
    assert '4 sweeps' in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([str(out), '--seconds', '-1'])
    assert 'not -1' in capsys.readouterr().err


def test_an_existing_folder_is_refused(tmp_path, capsys):
    assert main([str(tmp_path), '--seconds', '0.1']) == 2
    assert 'exists already' in capsys.readouterr().err


def test_sqlite3_storage(tmp_path):
    write_street_bag(tmp_path / 'bag', 0, 0.1, beams=8, columns=64, storage='sqlite3')
    with Bag(tmp_path / 'bag') as bag:
        assert (tmp_path / 'bag' / 'bag.db3').is_file()
        assert bag.topics['/lidar/points'].count == 1
