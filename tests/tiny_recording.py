# SPDX-License-Identifier: Apache-2.0
"""Recordings of a few small messages, for tests of what reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cross4d_jepa_ros.bag_setup import BagSetup
from cross4d_jepa_ros.bags import BagWriter, message_class

START_NS = 1_700_000_000_000_000_000
MS = 1_000_000
POINTS, TRUTH, IMAGE, INFO = '/lidar', '/lidar/truth', '/camera/image_raw', '/camera/camera_info'
CLOUD_TYPE = 'sensor_msgs/msg/PointCloud2'
SETUP = BagSetup(points=POINTS, images=(IMAGE,), camera_infos=(INFO,), odometry='', extrinsics=None)
FORMATS = {'f4': 7, 'u1': 2, 'u4': 6}


def header(stamp_ns: int, frame_id: str) -> Any:
    stamp = message_class('builtin_interfaces/msg/Time')(*divmod(stamp_ns, 1_000_000_000))
    return message_class('std_msgs/msg/Header')(stamp, frame_id)


def cloud(stamp_ns: int, columns: dict[str, NDArray[Any]], *, frame_id: str = 'lidar') -> Any:
    """A PointCloud2 of one row with a field for each of the columns."""
    count = len(next(iter(columns.values())))
    layout = np.dtype([(name, values.dtype) for name, values in columns.items()])
    packed = np.zeros(count, layout)
    for name, values in columns.items():
        packed[name] = values
    field = message_class('sensor_msgs/msg/PointField')
    fields = [
        field(name, layout.fields[name][1], FORMATS[layout[name].str[1:]], 1)
        for name in layout.names
    ]
    size = layout.itemsize
    return message_class(CLOUD_TYPE)(
        header(stamp_ns, frame_id),
        1,
        count,
        fields,
        False,
        size,
        size * count,
        packed.view(np.uint8),
        True,
    )


def sweep(stamp_ns: int, xyz: NDArray[np.float32], **extra: NDArray[Any]) -> Any:
    return cloud(stamp_ns, {'x': xyz[:, 0], 'y': xyz[:, 1], 'z': xyz[:, 2], **extra})


def truth(stamp_ns: int, class_id: NDArray[np.uint8]) -> Any:
    count = len(class_id)
    columns = {
        'class_id': class_id,
        'instance': np.arange(count, dtype=np.uint32),
        'speed': np.zeros(count, np.float32),
    }
    return cloud(stamp_ns, columns)


def image(stamp_ns: int, pixels: NDArray[np.uint8]) -> Any:
    height, width = pixels.shape[:2]
    return message_class('sensor_msgs/msg/Image')(
        header(stamp_ns, 'camera'), height, width, 'rgb8', 0, 3 * width, pixels.reshape(-1)
    )


def camera_info(stamp_ns: int, width: int, height: int) -> Any:
    """A camera that looks 90 degrees wide, without distortion."""
    matrix = np.array([[width / 2, 0, width / 2], [0, width / 2, height / 2], [0, 0, 1]])
    return message_class('sensor_msgs/msg/CameraInfo')(
        header(stamp_ns, 'camera'),
        height,
        width,
        'plumb_bob',
        np.zeros(5),
        matrix.reshape(-1),
        np.eye(3).reshape(-1),
        np.hstack((matrix, np.zeros((3, 1)))).reshape(-1),
        0,
        0,
        message_class('sensor_msgs/msg/RegionOfInterest')(0, 0, 0, 0, False),
    )


def camera_at_lidar() -> Any:
    """Static transform that puts an optical frame at the LiDAR, looking along its x axis."""
    vector = message_class('geometry_msgs/msg/Vector3')(0.0, 0.0, 0.0)
    turn = message_class('geometry_msgs/msg/Quaternion')(-0.5, 0.5, -0.5, 0.5)
    transform = message_class('geometry_msgs/msg/Transform')(vector, turn)
    stamped = message_class('geometry_msgs/msg/TransformStamped')(
        header(START_NS, 'lidar'), 'camera', transform
    )
    return message_class('tf2_msgs/msg/TFMessage')([stamped])


def lidar_at(stamp_ns: int, x: float) -> Any:
    """Moving transform that puts the LiDAR x m along the first axis of a fixed frame."""
    vector = message_class('geometry_msgs/msg/Vector3')(x, 0.0, 0.0)
    turn = message_class('geometry_msgs/msg/Quaternion')(0.0, 0.0, 0.0, 1.0)
    transform = message_class('geometry_msgs/msg/Transform')(vector, turn)
    stamped = message_class('geometry_msgs/msg/TransformStamped')(
        header(stamp_ns, 'odom'), 'lidar', transform
    )
    return message_class('tf2_msgs/msg/TFMessage')([stamped])


def write(path: Path, messages: list[tuple[int, str, Any]], **notes: str) -> Path:
    """Write (bag stamp, topic, message) in the order of the stamps, behind a static transform."""
    with BagWriter(path) as bag:
        for key, value in notes.items():
            bag.note(key, value)
        bag.write('/tf_static', 'tf2_msgs/msg/TFMessage', START_NS, camera_at_lidar())
        for stamp_ns, topic, message in sorted(messages, key=lambda entry: entry[0]):
            bag.write(topic, message.__msgtype__, stamp_ns, message)
    return path
