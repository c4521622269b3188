# SPDX-License-Identifier: Apache-2.0
"""Reads one message of each kind and asserts what must hold of whatever comes of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from cross4d_jepa_ros.sensing.cameras import BadCalibration, CameraModel
from cross4d_jepa_ros.sensing.images import MalformedImage, decode_image
from cross4d_jepa_ros.sensing.point_clouds import CloudConfig, CloudDecoder, MalformedCloud
from cross4d_jepa_ros.sensing.transforms import TransformBuffer, TransformError
from tests.malformed.messages import STAMP_NS, odometry, tf
from tests.malformed.mutations import size_of
from tests.malformed.verdicts import verdict

# Bytes of arrays for a byte of the message, as docs/reliability.md promises.
CLOUD_FACTOR = 80
IMAGE_FACTOR = 5
BYTES_PER_PIXEL = 12
# Of messages without a payload: their numbers as Python objects.
SMALL_FACTOR = 40

_STAMPS = np.array([STAMP_NS, STAMP_NS + 50_000_000])
_MOUNTED = tf()
_DRIVE = [odometry(STAMP_NS + step * 100_000_000, x=step / 2) for step in range(-1, 2)]
_POINTS = np.random.default_rng(0).uniform((-9, -9, -1), (9, 9, 30), (40, 3)).astype(np.float32)


def read_cloud(message: Any, what: object = '', *, size: int | None = None) -> Any:
    decoder = CloudDecoder(CloudConfig())
    most = CLOUD_FACTOR * (size_of(message) if size is None else size)
    sweep = verdict('PointCloud2', lambda: decoder.decode(message), (MalformedCloud,), most, what)
    if isinstance(sweep, MalformedCloud):
        return sweep
    count = len(sweep.index)
    assert sweep.xyz.shape == (count, 3)
    assert (np.abs(sweep.xyz) <= 1e6).all()
    assert sweep.point_count == sweep.height * sweep.width >= count
    assert (np.diff(sweep.index) > 0).all()
    assert not count or 0 <= sweep.index[0] <= sweep.index[-1] < sweep.point_count
    for column in (sweep.intensity, sweep.ring, sweep.time_offset_ns):
        assert column is None or column.shape == (count,)
    if sweep.intensity is not None:
        assert ((sweep.intensity >= 0) & (sweep.intensity <= 1)).all()
    if sweep.time_offset_ns is not None:
        assert (np.abs(sweep.time_offset_ns) <= 2_000_000_001).all()
    assert 1 <= sweep.intensity_ceiling <= 65535
    return sweep


def read_image(message: Any, what: object = '', *, size: int | None = None) -> Any:
    kind = 'Image' if hasattr(message, 'encoding') else 'CompressedImage'
    size = size_of(message) if size is None else size
    most = IMAGE_FACTOR * size
    if kind == 'CompressedImage':
        data = bytes(message.data)
        pixels = int.from_bytes(data[16:20], 'big') * int.from_bytes(data[20:24], 'big')
        if data.startswith(b'\xff\xd8'):
            pixels = 1024 * size
        most += BYTES_PER_PIXEL * min(pixels, 8256 * size, 100_000_000)
    image = verdict(kind, lambda: decode_image(message), (MalformedImage,), most, what)
    if not isinstance(image, MalformedImage):
        assert image.dtype == np.uint8
        assert image.ndim == 3
        assert image.shape[2] == 3
        assert image.flags.c_contiguous
        assert image.flags.writeable
    return image


def read_camera_info(message: Any, what: object = '', *, size: int | None = None) -> Any:
    def both() -> list[CameraModel]:
        models = []
        for rectified in (False, True):
            model = CameraModel.from_camera_info(message, rectified=rectified)
            uv, seen = model.project(_POINTS)
            assert np.isfinite(uv[seen]).all()
            assert (uv[seen] >= 0).all()
            assert (uv[seen] <= (model.width - 1, model.height - 1)).all()
            models.append(model)
        return models

    most = SMALL_FACTOR * (size_of(message) if size is None else size)
    return verdict('CameraInfo', both, (BadCalibration,), most, what)


def read_pose(message: Any, what: object = '', *, static: bool = False) -> TransformBuffer:
    """Feed a TFMessage or Odometry between good ones, and look poses up."""

    def feed() -> TransformBuffer:
        buffer = good_transforms()
        if hasattr(message, 'transforms'):
            buffer.add_tf_message(message, static=static)
        else:
            buffer.add_odometry(message)
        assert len(buffer.last_rejection) < 2000
        for target, source in (('odom', 'camera'), ('lidar', 'base')):
            assert set(buffer.moving_ancestors(target)) <= set(buffer.frames())
            try:
                poses = buffer.lookup_many(target, source, _STAMPS, max_extrapolation_ns=10**8)
            except TransformError as error:
                assert len(str(error)) < 5000
                continue
            assert np.isfinite(poses).all()
            assert np.abs(poses[:, :3, :3] @ poses[:, :3, :3].mT - np.eye(3)).max() < 1e-6
        return buffer

    kind = 'TFMessage' if hasattr(message, 'transforms') else 'Odometry'
    buffer: TransformBuffer = verdict(kind, feed, (), SMALL_FACTOR * size_of(message), what)
    assert bool(buffer.rejected) == buffer.last_rejection.startswith('The transform')
    return buffer


def good_transforms() -> TransformBuffer:
    """A drive of a fifth of a second, and a camera at the LiDAR."""
    buffer = TransformBuffer()
    buffer.add_tf_message(_MOUNTED, static=True)
    for place in _DRIVE:
        buffer.add_odometry(place)
    return buffer
