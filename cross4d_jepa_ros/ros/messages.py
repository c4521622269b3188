# SPDX-License-Identifier: Apache-2.0
"""Perception to messages. Every cloud carries the header of the sweep that it answers."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import PointCloud2, PointField

from cross4d_jepa_ros.pipeline import Perception
from cross4d_jepa_ros.sensing.point_clouds import axis_fields, structured_view

_DATATYPES = {
    'float32': PointField.FLOAT32,
    'float64': PointField.FLOAT64,
    'uint8': PointField.UINT8,
}
UNKNOWN_COLOUR = (110, 110, 110)


def answer_clouds(
    names: Collection[str],
    sweep: PointCloud2,
    perception: Perception,
    palette: Sequence[Sequence[int]],
) -> dict[str, PointCloud2]:
    """Turn a perception into the messages of the given outputs, as far as it has their arrays.

    Args:
        names: Of `~/output/…`.
        sweep: The message that is answered.
        perception: The answer.
        palette: RGB of each class.

    """
    answers = {}
    class_id, probability = perception.class_id, perception.probability
    if class_id is not None and probability is not None:
        if 'segmentation' in names:
            answers['segmentation'] = segmentation_cloud(sweep, class_id, probability)
        if 'segmentation_rgb' in names:
            answers['segmentation_rgb'] = coloured_cloud(sweep, palette_colours(class_id, palette))
    tokens, embedding = perception.token_xyz, perception.token_embedding
    if 'embeddings' in names and tokens is not None and embedding is not None:
        answers['embeddings'] = embedding_cloud(sweep.header, tokens, embedding)
    if 'embeddings_rgb' in names and perception.embedding_rgb is not None:
        answers['embeddings_rgb'] = coloured_cloud(sweep, perception.embedding_rgb)
    pooled = perception.frame_embedding
    if 'frame_embedding' in names and pooled is not None:
        origin = np.zeros((1, 3), dtype=np.float32)
        answers['frame_embedding'] = embedding_cloud(sweep.header, origin, pooled[None])
    return answers


def segmentation_cloud(
    sweep: PointCloud2, class_id: NDArray[np.uint8], probability: NDArray[np.float32]
) -> PointCloud2:
    """Label every point of a sweep, in its order.

    Args:
        sweep: The message that is answered; its coordinates, height and width are kept.
        class_id: (P,) index into the model's classes, 255 for unknown.
        probability: (P,) of that class.

    """
    return _point_cloud(sweep, [('class_id', class_id), ('probability', probability)])


def coloured_cloud(sweep: PointCloud2, rgb: NDArray[np.uint8]) -> PointCloud2:
    """Colour every point of a sweep with (P, 3) RGB, packed into one float as RViz reads it."""
    packed = rgb.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], dtype=np.uint32)
    return _point_cloud(sweep, [('rgb', packed.astype(np.uint32).view(np.float32))])


def palette_colours(
    class_id: NDArray[np.uint8], palette: Sequence[Sequence[int]]
) -> NDArray[np.uint8]:
    """Map (P,) class ids to (P, 3) RGB; 255 is grey."""
    table = np.full((256, 3), UNKNOWN_COLOUR, dtype=np.uint8)
    table[: len(palette)] = palette
    return table[class_id]


def embedding_cloud(
    header: Any, xyz: NDArray[np.float32], embedding: NDArray[np.float32]
) -> PointCloud2:
    """Publishable form of (M, D) embeddings at (M, 3) positions in the sweep's frame."""
    width = embedding.shape[1]
    dtype = np.dtype([('x', '<f4'), ('y', '<f4'), ('z', '<f4'), ('embedding', '<f4', (width,))])
    points = np.empty(len(xyz), dtype)
    for axis, name in enumerate('xyz'):
        points[name] = xyz[:, axis]
    points['embedding'] = embedding
    return _message(header, points, height=1, width=len(xyz), is_dense=True)


def coordinates(points: NDArray[np.void]) -> list[NDArray[Any]]:
    """Take x, y and z of every point, flat: float64 where the sweep has them so, else float32.

    Raises:
        MalformedCloud: There are points without these fields.

    """
    if points.size == 0:
        return [np.zeros(0, '<f4')] * 3
    columns = [points[name].reshape(-1) for name in axis_fields(points)]
    wide = any(column.dtype.str[1:] == 'f8' for column in columns)
    with np.errstate(invalid='ignore'):  # of a NaN that signals
        return [column.astype('<f8' if wide else '<f4') for column in columns]


def _point_cloud(sweep: PointCloud2, columns: Sequence[tuple[str, NDArray[Any]]]) -> PointCloud2:
    xyz = coordinates(structured_view(sweep))
    coordinate = xyz[0].dtype
    wide = coordinate == np.float64
    step = coordinate.itemsize
    names, formats, offsets = list('xyz'), [coordinate.str] * 3, [0, step, 2 * step]
    for position, (name, column) in enumerate(columns):
        names.append(name)
        formats.append(column.dtype.str)
        offsets.append(3 * step + 4 * position)
    layout: Any = {
        'names': names,
        'formats': formats,
        'offsets': offsets,
        'itemsize': 3 * step + 4 * len(columns) + (4 if wide and len(columns) == 1 else 0),
    }
    points = np.zeros(len(xyz[0]), np.dtype(layout))
    for axis, values in zip('xyz', xyz, strict=True):
        points[axis] = values
    for name, column in columns:
        points[name] = column
    is_dense = all(bool(np.isfinite(values).all()) for values in xyz)
    return _message(sweep.header, points, height=sweep.height, width=sweep.width, is_dense=is_dense)


def _message(
    header: Any, points: NDArray[Any], *, height: int, width: int, is_dense: bool
) -> PointCloud2:
    message = PointCloud2(height=height, width=width, is_bigendian=False, is_dense=is_dense)
    message.header = header
    assert points.dtype.fields is not None
    for name, (dtype, offset, *_) in points.dtype.fields.items():
        message.fields.append(
            PointField(
                name=name,
                offset=offset,
                datatype=_DATATYPES[dtype.base.name],
                count=int(np.prod(dtype.shape)) if dtype.shape else 1,
            )
        )
    message.point_step = points.dtype.itemsize
    message.row_step = message.point_step * (width if height else 0)
    # Assigning anything but array.array to `data` is checked byte by byte.
    data = array('B')
    data.frombytes(points.view(np.uint8).data if points.size else b'')
    message.data = data
    return message
