# SPDX-License-Identifier: Apache-2.0
"""Small well-formed messages of every kind that the node listens to, as plain objects."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np

STAMP_NS = 1_700_000_000_000_000_000
WIDTH, HEIGHT = 16, 12
_DTYPE = np.dtype(
    [
        *[(name, '<f4') for name in ('x', 'y', 'z', 'intensity')],
        *[('ring', '<u2'), ('pad', '<u2'), ('t', '<u4')],
    ]
)
_DATATYPES = {'f4': 7, 'f8': 8, 'u2': 4, 'u4': 6}


def header(stamp_ns: int = STAMP_NS, frame_id: str = 'lidar') -> SimpleNamespace:
    sec, nanosec = divmod(stamp_ns, 10**9)
    return SimpleNamespace(stamp=SimpleNamespace(sec=sec, nanosec=nanosec), frame_id=frame_id)


def cloud(stamp_ns: int = STAMP_NS, *, points: int = 12, seed: int = 0) -> SimpleNamespace:
    """Two rows of points with intensity, ring and time."""
    draw = np.random.default_rng(seed)
    rows = np.zeros((2, points // 2), _DTYPE)
    for name, low, high in (('x', 2, 20), ('y', -8, 8), ('z', -1.5, 2), ('intensity', 0, 200)):
        rows[name] = draw.uniform(low, high, rows.shape)
    rows['ring'] = np.arange(2)[:, None]
    rows['t'] = np.linspace(0, 9e7, rows.size).reshape(rows.shape)
    assert _DTYPE.fields is not None
    fields = [
        SimpleNamespace(name=name, offset=place, datatype=_DATATYPES[dtype.str[1:]], count=1)
        for name, (dtype, place) in _DTYPE.fields.items()
        if name != 'pad'
    ]
    return SimpleNamespace(
        header=header(stamp_ns),
        height=2,
        width=points // 2,
        fields=fields,
        is_bigendian=False,
        point_step=_DTYPE.itemsize,
        row_step=_DTYPE.itemsize * (points // 2),
        data=rows.tobytes(),
        is_dense=True,
    )


def picture(kind: str = 'rgb') -> np.ndarray:
    """A smooth (H, W, 3) or (H, W) picture."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    grey = (10 * x + 5 * y).astype(np.uint8)
    return np.stack([grey, 255 - grey, grey // 2], axis=2) if kind == 'rgb' else grey


ENCODINGS = {
    **dict.fromkeys(('rgb8', 'bgr8', '8UC3'), 3),
    **dict.fromkeys(('rgba8', 'bgra8', '32FC1'), 4),
    **dict.fromkeys(('mono8', '8UC1', 'bayer_rggb8', 'bayer_grbg8'), 1),
    **dict.fromkeys(('yuv422', 'yuv422_yuy2', 'mono16', '16UC1'), 2),
}


def image(encoding: str = 'rgb8', stamp_ns: int = STAMP_NS) -> SimpleNamespace:
    bytes_per_pixel = ENCODINGS[encoding]
    draw = np.random.default_rng(bytes_per_pixel)
    return SimpleNamespace(
        header=header(stamp_ns, 'camera'),
        height=HEIGHT,
        width=WIDTH,
        encoding=encoding,
        is_bigendian=0,
        step=WIDTH * bytes_per_pixel,
        data=draw.integers(0, 63, WIDTH * HEIGHT * bytes_per_pixel, np.uint8).tobytes(),
    )


def _encoded(suffix: str, pixels: np.ndarray, *options: int) -> bytes:
    return cv2.imencode(suffix, pixels, options)[1].tobytes()


PACKED = {
    'jpeg': _encoded('.jpg', picture()),
    'grey jpeg': _encoded('.jpg', picture('grey')),
    'progressive jpeg': _encoded('.jpg', picture(), cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    'restarting jpeg': _encoded('.jpg', picture(), cv2.IMWRITE_JPEG_RST_INTERVAL, 1),
    'png': _encoded('.png', picture()),
    '16UC1; png': _encoded('.png', picture('grey').astype(np.uint16) * 100),
    'rgb16; png': _encoded('.png', picture().astype(np.uint16) * 100),
    '1-bit png': _encoded('.png', picture('grey'), cv2.IMWRITE_PNG_BILEVEL, 1),
}


def packed(kind: str = 'jpeg', stamp_ns: int = STAMP_NS) -> SimpleNamespace:
    return SimpleNamespace(header=header(stamp_ns, 'camera'), format=kind, data=PACKED[kind])


def camera_info(model: str = 'plumb_bob') -> SimpleNamespace:
    coefficients = {'plumb_bob': 5, 'rational_polynomial': 8, 'equidistant': 4}
    return SimpleNamespace(
        header=header(STAMP_NS, 'camera'),
        width=WIDTH,
        height=HEIGHT,
        distortion_model=model,
        d=[0.1, -0.01, 0.001, 0.0, 0.01, 0.001, 0.0, 0.01][: coefficients[model]],
        k=[8.0, 0.0, 8.0, 0.0, 8.0, 6.0, 0.0, 0.0, 1.0],
        r=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
        p=[8.0, 0.0, 8.0, 0.0, 0.0, 8.0, 6.0, 0.0, 0.0, 0.0, 1.0, 0.0],
        binning_x=0,
        binning_y=0,
        roi=SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0, do_rectify=False),
    )


def _turn() -> SimpleNamespace:
    return SimpleNamespace(x=0.0, y=0.0, z=0.6, w=0.8)


def odometry(stamp_ns: int = STAMP_NS, x: float = 0.0) -> SimpleNamespace:
    pose = SimpleNamespace(position=SimpleNamespace(x=x, y=0.0, z=0.0), orientation=_turn())
    return SimpleNamespace(
        header=header(stamp_ns, 'odom'),
        child_frame_id='lidar',
        pose=SimpleNamespace(pose=pose, covariance=[0.0] * 36),
    )


def tf(
    stamp_ns: int = STAMP_NS, edges: tuple[tuple[str, str], ...] = (('lidar', 'camera'),)
) -> Any:
    return SimpleNamespace(
        transforms=[
            SimpleNamespace(
                header=header(stamp_ns, parent),
                child_frame_id=child,
                transform=SimpleNamespace(
                    translation=SimpleNamespace(x=0.1, y=0.2, z=0.3), rotation=_turn()
                ),
            )
            for parent, child in edges
        ]
    )


def click() -> SimpleNamespace:
    return SimpleNamespace(header=header(), point=SimpleNamespace(x=5.0, y=1.0, z=0.0))
