# SPDX-License-Identifier: Apache-2.0
"""Answers repeat the coordinates of their sweep to the bit, whatever its layout."""

from __future__ import annotations

from array import array

import numpy as np
import pytest
from sensor_msgs.msg import PointCloud2, PointField

from cross4d_jepa_ros.ros import messages
from cross4d_jepa_ros.ros.answer_client import sent_sweep
from cross4d_jepa_ros.sensing.point_clouds import structured_view
from tests.bench import cloud, stamped

PALETTE = ((128, 64, 128), (0, 0, 142))


def odd_cloud(*, big_endian: bool, coordinate: str) -> PointCloud2:
    """Make 2 x 3 points with padded rows, z before x, and another endianness or width."""
    order = '>' if big_endian else '<'
    dtype = np.dtype(
        {
            'names': ['z', 'x', 'y'],
            'formats': [order + coordinate] * 3,
            'offsets': [3, 3 + int(coordinate[1]), 3 + 2 * int(coordinate[1])],
            'itemsize': 40,
        }
    )
    rows = np.zeros((2, 3), dtype)
    for axis, name in enumerate('xyz'):
        rows[name] = np.arange(6).reshape(2, 3) + 0.1 * axis
    rows['x'][1, 2] = np.nan
    data = b''.join(row.tobytes() + bytes(5) for row in rows)
    message = PointCloud2(height=2, width=3, point_step=40, row_step=125, is_bigendian=big_endian)
    datatype = PointField.FLOAT64 if coordinate == 'f8' else PointField.FLOAT32
    message.fields = [
        PointField(name=name, offset=dtype.fields[name][1], datatype=datatype, count=1)
        for name in dtype.names
    ]
    message.data = array('B', data)
    return stamped(message, 5 * 10**9 + 7, 'lidar')


@pytest.mark.parametrize('big_endian', [False, True])
@pytest.mark.parametrize('coordinate', ['f4', 'f8'])
def test_coordinates_header_and_shape_are_kept(big_endian: bool, coordinate: str) -> None:
    sweep = odd_cloud(big_endian=big_endian, coordinate=coordinate)
    class_id = np.array([0, 1, 255, 1, 0, 255], np.uint8)
    probability = np.linspace(0, 1, 6, dtype=np.float32)
    answer = messages.segmentation_cloud(sweep, class_id, probability)
    points = structured_view(answer)

    assert answer.header == sweep.header
    assert (answer.height, answer.width, answer.is_bigendian) == (2, 3, False)
    assert not answer.is_dense
    for axis in 'xyz':
        np.testing.assert_array_equal(points[axis], structured_view(sweep)[axis])
    np.testing.assert_array_equal(points['class_id'].reshape(-1), class_id)
    np.testing.assert_array_equal(points['probability'].reshape(-1), probability)
    assert len(answer.data) == answer.row_step * answer.height


def test_colours_are_packed_as_rviz_reads_them() -> None:
    rgb = messages.palette_colours(np.array([1, 0, 255], np.uint8), PALETTE)
    answer = messages.coloured_cloud(cloud(1, 3), rgb)
    packed = structured_view(answer)['rgb'].reshape(-1).view(np.uint32)

    assert rgb.tolist() == [[0, 0, 142], [128, 64, 128], [110, 110, 110]]
    assert [hex(value) for value in packed] == ['0x8e', '0x804080', '0x6e6e6e']


def test_embeddings_are_one_field_of_many_values() -> None:
    xyz = np.arange(6, dtype=np.float32).reshape(2, 3)
    embedding = np.arange(10, dtype=np.float32).reshape(2, 5)
    answer = messages.embedding_cloud(cloud(1).header, xyz, embedding)
    points = structured_view(answer)

    assert [(f.name, f.offset, f.datatype, f.count) for f in answer.fields] == [
        ('x', 0, PointField.FLOAT32, 1),
        ('y', 4, PointField.FLOAT32, 1),
        ('z', 8, PointField.FLOAT32, 1),
        ('embedding', 12, PointField.FLOAT32, 5),
    ]
    assert answer.point_step == 32
    np.testing.assert_array_equal(points['embedding'][0], embedding)
    np.testing.assert_array_equal(points['y'][0], xyz[:, 1])


def test_empty_cloud_is_answered_empty() -> None:
    sweep = cloud(1, 0)
    nothing = np.zeros(0, np.float32)
    answer = messages.segmentation_cloud(sweep, nothing.astype(np.uint8), nothing)

    assert (answer.height, answer.width, len(answer.data)) == (1, 0, 0)
    assert len(answer.fields) == 5


def test_fields_in_upper_case_and_empty_clouds_without_fields() -> None:
    sweep = cloud(1, 3)
    for field in sweep.fields:
        field.name = field.name.upper()
    class_id, probability = np.zeros(3, np.uint8), np.ones(3, np.float32)
    answer = messages.segmentation_cloud(sweep, class_id, probability)
    np.testing.assert_array_equal(structured_view(answer)['z'], structured_view(sweep)['Z'])
    bare = PointCloud2(height=1, width=0)
    answer = messages.segmentation_cloud(bare, class_id[:0], probability[:0])
    assert (answer.width, len(answer.fields)) == (0, 5)
    assert sent_sweep(bare).coordinates is not None


def test_cloud_without_coordinates_has_no_checksum() -> None:
    sweep = cloud(1, 3)
    sweep.fields = sweep.fields[2:]
    assert sent_sweep(sweep).coordinates is None
