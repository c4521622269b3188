# SPDX-License-Identifier: Apache-2.0
"""The street's sensors as ROS messages with the stamps at which a recorder gets them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cross4d_jepa_ros.bags import message_class
from offline_training.street import camera, lidar
from offline_training.street.camera import Picture
from offline_training.street.lidar import SWEEP_S, LidarSweep
from offline_training.street.motion import Ego

START_NS = 1_700_000_000_000_000_000
ODOMETRY_S = 0.02
RECORDING_DELAY_S = 0.02

Array = NDArray[np.float64]
Entry = tuple[int, str, Any]  # bag stamp (ns), topic, message


def _stamp_ns(time_s: float) -> int:
    return START_NS + round(time_s * 1e9)


def _header(time_s: float, frame_id: str) -> Any:
    seconds, nanoseconds = divmod(_stamp_ns(time_s), 1_000_000_000)
    stamp = message_class('builtin_interfaces/msg/Time')(seconds, nanoseconds)
    return message_class('std_msgs/msg/Header')(stamp, frame_id)


def _vector(xyz: Array) -> Any:
    return message_class('geometry_msgs/msg/Vector3')(*(float(value) for value in xyz))


def _quaternion(turn: Array) -> Any:
    """Write a rotation (3, 3) of less than half a turn as x, y, z, w."""
    w = np.sqrt(max(0.0, 1.0 + np.trace(turn))) / 2
    x = (turn[2, 1] - turn[1, 2]) / (4 * w)
    y = (turn[0, 2] - turn[2, 0]) / (4 * w)
    z = (turn[1, 0] - turn[0, 1]) / (4 * w)
    parts = (float(value) for value in (x, y, z, w))
    return message_class('geometry_msgs/msg/Quaternion')(*parts)


def _transform(header: Any, child: str, translation: Array, turn: Array) -> Any:
    transform = message_class('geometry_msgs/msg/Transform')
    stamped = message_class('geometry_msgs/msg/TransformStamped')
    return stamped(header, child, transform(_vector(translation), _quaternion(turn)))


def static_tree() -> Any:
    """Build the TFMessage of /tf_static."""
    header = _header(0.0, 'base_link')
    tree = [_transform(header, 'lidar', np.array(lidar.POSITION), np.eye(3))]
    for name in camera.POSES:
        pose = camera.base_from_camera(name)
        tree.append(_transform(header, f'{name}_optical_frame', pose[:3, 3], pose[:3, :3]))
    return message_class('tf2_msgs/msg/TFMessage')(tree)


def odometry(ego: Ego, start_s: float) -> Iterator[Entry]:
    """Yield /tf and /odom of one sweep's duration."""
    pose_class = message_class('geometry_msgs/msg/Pose')
    point = message_class('geometry_msgs/msg/Point')
    twist = message_class('geometry_msgs/msg/Twist')
    zeros = np.zeros(36)
    for step in range(round(SWEEP_S / ODOMETRY_S)):
        time_s = start_s + step * ODOMETRY_S
        positions, turns = ego.pose(time_s + np.array([-0.01, 0.0, 0.01]))
        position, turn = positions[1], turns[1]
        header = _header(time_s, 'odom')
        stamped = _transform(header, 'base_link', position, turn)
        yield _stamp_ns(time_s), '/tf', message_class('tf2_msgs/msg/TFMessage')([stamped])
        velocity = turn.T @ (positions[2] - positions[0]) / 0.02
        spin = turns[0].T @ turns[2]
        turning = np.array(
            [spin[2, 1] - spin[1, 2], spin[0, 2] - spin[2, 0], spin[1, 0] - spin[0, 1]]
        ) / (2 * 0.02)
        pose = pose_class(point(*(float(value) for value in position)), _quaternion(turn))
        moving = message_class('nav_msgs/msg/Odometry')(
            header,
            'base_link',
            message_class('geometry_msgs/msg/PoseWithCovariance')(pose, zeros),
            message_class('geometry_msgs/msg/TwistWithCovariance')(
                twist(_vector(velocity), _vector(turning)), zeros
            ),
        )
        yield _stamp_ns(time_s), '/odom', moving


def clouds(sweep: LidarSweep, start_s: float) -> list[Entry]:
    """Build the cloud of points and, in the same order, that of their truth."""
    count = len(sweep.xyz)
    points = np.zeros(
        count,
        np.dtype(
            {
                'names': ['x', 'y', 'z', 'intensity', 'ring', 'time'],
                'formats': ['<f4', '<f4', '<f4', '<f4', '<u2', '<f4'],
                'offsets': [0, 4, 8, 12, 16, 20],
                'itemsize': 24,
            }
        ),
    )
    points['x'], points['y'], points['z'] = sweep.xyz.T
    points['intensity'], points['ring'], points['time'] = sweep.intensity, sweep.ring, sweep.time
    truth = np.zeros(
        count,
        np.dtype(
            {
                'names': ['class_id', 'instance', 'speed'],
                'formats': ['u1', '<u4', '<f4'],
                'offsets': [0, 4, 8],
                'itemsize': 12,
            }
        ),
    )
    truth['class_id'], truth['instance'] = sweep.class_id, sweep.instance
    truth['speed'] = sweep.speed
    # A sweep can be recorded only once it has been turned.
    recorded_ns = _stamp_ns(start_s + SWEEP_S)
    header = _header(start_s, 'lidar')
    return [
        (recorded_ns, '/lidar/points', _cloud(header, points)),
        (recorded_ns, '/lidar/truth', _cloud(header, truth)),
    ]


def _cloud(header: Any, points: NDArray[np.void]) -> Any:
    field = message_class('sensor_msgs/msg/PointField')
    datatypes = {
        '<f4': field.FLOAT32,
        '<u2': field.UINT16,
        '<u4': field.UINT32,
        '|u1': field.UINT8,
    }
    layout = points.dtype
    assert layout.names is not None and layout.fields is not None
    fields = [
        field(name, layout.fields[name][1], datatypes[layout[name].str], 1) for name in layout.names
    ]
    return message_class('sensor_msgs/msg/PointCloud2')(
        header,
        1,
        len(points),
        fields,
        False,
        layout.itemsize,
        layout.itemsize * len(points),
        points.view(np.uint8),
        True,
    )


def jpeg(picture: Picture) -> NDArray[np.uint8]:
    """Compress a picture: (bytes,)."""
    _, compressed = cv2.imencode('.jpg', picture.rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
    return compressed.reshape(-1).astype(np.uint8, copy=False)


def image(picture: Picture, time_s: float, name: str) -> list[Entry]:
    """Build one image and its camera_info."""
    header = _header(time_s, f'{name}_optical_frame')
    compressed = message_class('sensor_msgs/msg/CompressedImage')(
        header, 'rgb8; jpeg compressed bgr8', jpeg(picture)
    )
    projection = np.zeros((3, 4))
    projection[:, :3] = camera.matrix()
    info = message_class('sensor_msgs/msg/CameraInfo')(
        header,
        camera.HEIGHT,
        camera.WIDTH,
        'plumb_bob',
        np.array(camera.DISTORTION),
        camera.matrix().reshape(-1),
        np.eye(3).reshape(-1),
        projection.reshape(-1),
        0,
        0,
        message_class('sensor_msgs/msg/RegionOfInterest')(0, 0, 0, 0, False),
    )
    # Exposed, compressed and sent: the recorder has it some milliseconds later.
    recorded_ns = _stamp_ns(time_s + RECORDING_DELAY_S)
    return [
        (recorded_ns, f'/{name}/image_raw/compressed', compressed),
        (recorded_ns, f'/{name}/camera_info', info),
    ]
