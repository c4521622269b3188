# SPDX-License-Identifier: Apache-2.0
"""The worst messages that ROS can carry, as real ROS messages, to be published to a real node."""

from __future__ import annotations

import struct
from array import array
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import PointStamped
from nav_msgs.msg import Odometry
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2, PointField
from std_msgs.msg import Header

MOST = 2**32 - 1
NAN, INF = float('nan'), float('inf')
LONG_NAME = 'x' * 1_000_000


def worst_messages(
    stamp_ns: int = 10**18, *, lidar: str = 'lidar', camera: str = 'camera', fixed: str = 'odom'
) -> list[tuple[str, Any]]:
    """Build one message of each kind of malice.

    Args:
        stamp_ns: Stamp of all of them but for those that are about stamps.
        lidar: Frame of the clouds, and child of the odometry.
        camera: Frame of the images.
        fixed: Frame that odometry and clicks are in.

    Returns:
        (name, message): PointCloud2, Image, CompressedImage, CameraInfo, Odometry, PointStamped.

    """
    return [
        *_clouds(_header(stamp_ns, lidar)),
        *_images(_header(stamp_ns, camera)),
        *_camera_infos(_header(stamp_ns, camera)),
        *_odometries(_header(stamp_ns, fixed), lidar),
        *_clicks(_header(stamp_ns, fixed)),
    ]


def _header(stamp_ns: int, frame_id: str) -> Header:
    sec, nanosec = divmod(stamp_ns, 10**9)
    return Header(stamp=Time(sec=sec, nanosec=nanosec), frame_id=frame_id)


def _cloud(header: Header, **changes: Any) -> PointCloud2:
    xyzi = np.ones((4, 4), '<f4')
    fields = [
        PointField(name=name, offset=4 * place, datatype=PointField.FLOAT32, count=1)
        for place, name in enumerate(('x', 'y', 'z', 'intensity'))
    ]
    layout: dict[str, Any] = {
        'header': header,
        'height': 1,
        'width': 4,
        'fields': fields,
        'point_step': 16,
        'row_step': 64,
        'data': array('B', xyzi.tobytes()),
    }
    return PointCloud2(**{**layout, **changes})


def _field(name: str = 'x', offset: int = 0, datatype: int = 7, count: int = 1) -> PointField:
    return PointField(name=name, offset=offset, datatype=datatype, count=count)


def _clouds(header: Header) -> list[tuple[str, PointCloud2]]:
    frame = header.frame_id
    huge = np.full((4, 4), 3e38, '<f4')
    return [
        ('cloud of nothing at all', PointCloud2()),
        ('cloud promises 2^64 points', _cloud(header, height=MOST, width=MOST)),
        ('cloud promises 100 GB', _cloud(header, width=6_250_000_000 // 2, height=2)),
        ('cloud of 2^32-1 empty rows', _cloud(header, height=MOST, width=0, data=array('B'))),
        ('cloud of empty, endless rows', _cloud(header, height=0, width=MOST, data=array('B'))),
        ('cloud with a point step of 0', _cloud(header, point_step=0)),
        ('cloud with the largest steps', _cloud(header, point_step=MOST, row_step=MOST)),
        ('cloud field beyond the point', _cloud(header, fields=[_field(offset=MOST, count=MOST)])),
        ('cloud without fields', _cloud(header, fields=[])),
        ('cloud of an unknown datatype', _cloud(header, fields=[_field(datatype=255)])),
        ('cloud of one field, 500 times', _cloud(header, fields=[_field()] * 500)),
        ('cloud with an endless field name', _cloud(header, fields=[_field(LONG_NAME)])),
        ('cloud cut in half', _cloud(header, data=array('B', bytes(31)))),
        ('cloud of points at infinity', _cloud(header, data=array('B', huge.tobytes()))),
        ('cloud of NaN', _cloud(header, data=array('B', b'\xff' * 64))),
        ('cloud with an endless frame', _cloud(Header(stamp=header.stamp, frame_id=LONG_NAME))),
        ('cloud of the year 1901', _cloud(Header(stamp=Time(sec=-(2**31)), frame_id=frame))),
        ('cloud of time zero', _cloud(Header(frame_id=frame))),
    ]


def _images(header: Header) -> list[tuple[str, Image | CompressedImage]]:
    def raw(**changes: Any) -> Image:
        plain = {'header': header, 'encoding': 'rgb8', 'height': 2, 'width': 2, 'step': 6}
        return Image(**{**plain, 'data': array('B', bytes(12)), **changes})

    def packed(data: bytes, name: str = 'jpeg') -> CompressedImage:
        return CompressedImage(header=header, format=name, data=array('B', data))

    def png(width: int, height: int, length: int = 13) -> bytes:
        size = struct.pack('>I4sIIBBBBB', length, b'IHDR', width, height, 1, 0, 0, 0, 0)
        return b'\x89PNG\r\n\x1a\n' + size + bytes(4) + bytes(12)

    jpeg = b'\xff\xd8\xff\xc0\x00\x11\x08\xff\xff\xff\xff\x03' + bytes(9) + b'\xff\xda'
    return [
        ('image of nothing at all', Image()),
        ('image promises 2^64 pixels', raw(height=MOST, width=MOST, step=MOST)),
        ('image of an unknown encoding', raw(encoding=LONG_NAME)),
        ('image cut in half', raw(data=array('B', bytes(6)))),
        ('image with too short rows', raw(step=1)),
        ('compressed image of nothing', CompressedImage()),
        ('JPEG of two bytes', packed(b'\xff\xd8')),
        ('JPEG of 4 gigapixels', packed(jpeg)),
        ('PNG of 2^64 pixels', packed(png(MOST, MOST), 'png')),
        ('PNG with an endless chunk', packed(png(8, 8, MOST), 'png')),
    ]


def _camera_infos(header: Header) -> list[tuple[str, CameraInfo]]:
    def info(**changes: Any) -> CameraInfo:
        k = [100.0, 0.0, 50.0, 0.0, 100.0, 40.0, 0.0, 0.0, 1.0]
        plain = {'header': header, 'width': 100, 'height': 80, 'k': k}
        return CameraInfo(**{**plain, 'distortion_model': 'plumb_bob', 'd': [0.0] * 5, **changes})

    return [
        ('camera info of nothing at all', CameraInfo()),
        ('camera info of NaN', info(k=[NAN] * 9, d=[NAN] * 5)),
        ('camera info of infinities', info(k=[INF] * 9, p=[INF] * 12)),
        ('camera info binned to nothing', info(binning_x=MOST, binning_y=MOST)),
        ('camera info of 2^64 pixels', info(width=MOST, height=MOST)),
        ('camera info of endless distortion', info(d=[1e300] * 10_000)),
        ('camera info of an unknown model', info(distortion_model=LONG_NAME, d=[1.0] * 5)),
    ]


def _odometries(header: Header, child: str) -> list[tuple[str, Odometry]]:
    def odometry(child: str = child, x: float = 0.0, **turn: float) -> Odometry:
        message = Odometry(header=header, child_frame_id=child)
        message.pose.pose.position.x = x
        for axis, value in {'w': 1.0, **turn}.items():
            setattr(message.pose.pose.orientation, axis, value)
        return message

    return [
        ('odometry of nothing at all', Odometry()),
        ('odometry with a quaternion of 0', odometry(w=0.0)),
        ('odometry with a quaternion of NaN', odometry(x=0.0, y=NAN)),
        ('odometry at NaN', odometry(x=NAN)),
        ('odometry at 1e300', odometry(x=1e300)),
        ('odometry of a frame in itself', odometry(child=header.frame_id)),
        ('odometry of an endless frame', odometry(child=LONG_NAME)),
    ]


def _clicks(header: Header) -> list[tuple[str, PointStamped]]:
    def click(x: float, frame_id: str = header.frame_id) -> PointStamped:
        message = PointStamped(header=Header(stamp=header.stamp, frame_id=frame_id))
        message.point.x = x
        return message

    return [
        ('click of nothing at all', PointStamped()),
        ('click at NaN', click(NAN)),
        ('click at infinity', click(INF)),
        ('click at 1e308', click(1e308)),
        ('click in an endless frame', click(0.0, LONG_NAME)),
    ]
