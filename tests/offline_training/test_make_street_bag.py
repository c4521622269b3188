# SPDX-License-Identifier: Apache-2.0
"""The synthetic street: its messages, and that LiDAR, cameras and poses agree with each other."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from cross4d_jepa_ros.bags import Bag, moving_transforms, static_transforms
from offline_training.make_street_bag import VERSION, main, write_street_bag
from offline_training.street.camera import DISTORTION, HEIGHT, WIDTH, base_from_camera
from offline_training.street.camera import matrix as camera_matrix
from offline_training.street.classes import CLASS_NAMES
from offline_training.street.lidar import POSITION
from offline_training.street.messages import START_NS

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
    names = {2: 'u1', 4: 'u2', 6: 'u4', 7: 'f4'}
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
        '/lidar/truth': 10,
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
        near = np.hypot(got['x'], got['y']) < 6
        assert np.median(got['z'][near]) == pytest.approx(-POSITION[2], abs=0.25)


def test_truth_in_point_order(recording):
    assert recording.custom_data == {
        'generator': f'street {VERSION}',
        'seed': '3',
        'class_names': ','.join(CLASS_NAMES),
    }
    clouds, truths = decoded(recording, '/lidar/points'), decoded(recording, '/lidar/truth')
    class_of: dict[int, set] = {}
    moving = 0
    for cloud, truth in zip(clouds, truths, strict=True):
        assert (stamp_ns(truth), truth.width) == (stamp_ns(cloud), cloud.width)
        assert [field.name for field in truth.fields] == ['class_id', 'instance', 'speed']
        got, xyz = points(truth), points(cloud)
        assert got['class_id'].max() < len(CLASS_NAMES)
        for instance in np.unique(got['instance']):
            own = got['instance'] == instance
            class_of.setdefault(int(instance), set()).update(got['class_id'][own].tolist())
            speed = got['speed'][own]
            moving += len(speed) and speed.max() > 0.5
            if instance and CLASS_NAMES[got['class_id'][own][0]] == 'person':
                size = np.ptp([xyz[axis][own] for axis in 'xyz'], axis=1)
                assert (size < (1.5, 1.5, 2.2)).all()
    ground = class_of.pop(0)
    assert {CLASS_NAMES[one] for one in ground} == {'road', 'sidewalk', 'vegetation'}
    assert all(len(classes) == 1 for classes in class_of.values())
    assert {CLASS_NAMES[one] for classes in class_of.values() for one in classes} == {
        'building',
        'vegetation',
        'pole',
        'car',
        'person',
    }
    assert moving


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
            assert shape == (HEIGHT, WIDTH, 3)
            assert (info.height, info.width) == shape[:2]
            assert info.distortion_model == 'plumb_bob'
            assert np.array_equal(info.k.reshape(3, 3), camera_matrix())
            assert np.array_equal(info.d, DISTORTION)


def test_static_tree_is_the_one_that_is_rendered(recording):
    tree = {transform.child_frame_id: transform for transform in static_transforms(recording)}
    assert {transform.header.frame_id for transform in tree.values()} == {'base_link'}
    assert np.allclose(matrix(tree['lidar'])[:3, 3], POSITION)
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
        ahead = np.linalg.inv(matrix(moving[max(index - 1, 0)])) @ matrix(transform)
        # Straight ahead along the vehicle's own x axis, at the speed that the twist says.
        if index:
            assert ahead[0, 3] == pytest.approx(odom.twist.twist.linear.x * 0.02, abs=0.003)
            assert np.abs(ahead[1:3, 3]).max() < 0.005
            spin = odom.twist.twist.angular.z * 0.02
            assert np.arctan2(ahead[1, 0], ahead[0, 0]) == pytest.approx(spin, abs=0.002)


def test_same_seed_same_bytes_and_another_seed_another_town(tmp_path):
    shares = []
    for name, seed in (('one', 5), ('two', 5), ('three', 6)):
        write_street_bag(tmp_path / name / 'bag', seed, 0.1, beams=16, columns=64)
        with Bag(tmp_path / name / 'bag') as bag:
            truth = points(decoded(bag, '/lidar/truth')[0])
            shares.append(np.bincount(truth['class_id'], minlength=7) / len(truth))
    one, two = ((tmp_path / name / 'bag' / 'bag.mcap').read_bytes() for name in ('one', 'two'))
    assert one == two
    assert np.abs(shares[0] - shares[2]).max() > 0.03


def test_command(tmp_path, capsys, monkeypatch):
    called = []
    monkeypatch.setattr(
        'offline_training.make_street_bag.write_street_bag',
        lambda path, seed, seconds, **other: called.append((path, seed, seconds, other)) or 4,
    )
    out = tmp_path / 'out'
    assert main([str(out), '--seed', '2', '--seconds', '0.4', '--storage', 'sqlite3']) == 0
    assert called == [(out, 2, 0.4, {'storage': 'sqlite3', 'label_images': None})]
    assert '4 sweeps' in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([str(out), '--seconds', '-1'])
    assert 'not -1' in capsys.readouterr().err


def test_labels_of_images_say_what_the_images_show(tmp_path):
    write_street_bag(tmp_path / 'town', 0, 0.1, beams=8, columns=64, label_images=tmp_path / 'lit')
    images, labels = (sorted((tmp_path / 'lit' / name).iterdir()) for name in ('images', 'labels'))
    assert [path.stem for path in images] == [path.stem for path in labels]
    assert len(labels) == 2  # one of each camera
    for image, label in zip(images, labels, strict=True):
        shown = cv2.imread(str(label), cv2.IMREAD_UNCHANGED)
        assert shown.shape == cv2.imread(str(image)).shape[:2]
        assert (shown[0] == 255).any()  # sky
        assert {0, 2} <= set(np.unique(shown)) <= {*range(7), 255}  # road and buildings at least


def test_an_existing_folder_is_refused(tmp_path, capsys):
    assert main([str(tmp_path), '--seconds', '0.1']) == 2
    assert 'exists already' in capsys.readouterr().err


def test_an_interrupted_recording_leaves_nothing(tmp_path, capsys, monkeypatch):
    def full(*_):
        raise OSError('no space left')

    monkeypatch.setattr('offline_training.make_street_bag.make_town', full)
    assert main([str(tmp_path / 'bag'), '--seconds', '0.1']) == 2
    assert 'no space left' in capsys.readouterr().err
    assert not (tmp_path / 'bag').exists()


def test_sqlite3_storage(tmp_path):
    write_street_bag(tmp_path / 'bag', 0, 0.1, beams=8, columns=64, storage='sqlite3')
    with Bag(tmp_path / 'bag') as bag:
        assert (tmp_path / 'bag' / 'bag.db3').is_file()
        assert bag.topics['/lidar/points'].count == 1
