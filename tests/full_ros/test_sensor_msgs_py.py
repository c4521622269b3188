# SPDX-License-Identifier: Apache-2.0
"""Our decoder and the one of ROS read the same clouds alike, where theirs reads them at all."""

from __future__ import annotations

import sys
from array import array

import numpy as np
import pytest
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

from cross4d_jepa_ros.ros import messages
from cross4d_jepa_ros.sensing.point_clouds import CloudConfig, CloudDecoder, structured_view
from tests.bench import cloud

point_cloud2 = pytest.importorskip('sensor_msgs_py.point_cloud2', reason='no sensor_msgs_py here')

FORMATS = {1: 'i1', 2: 'u1', 3: 'i2', 4: 'u2', 5: 'i4', 6: 'u4', 7: 'f4', 8: 'f8'}


def scattered(datatype: int, *, big_endian: bool) -> PointCloud2:
    """Make 40 points with gaps between the fields and the given type for `intensity`."""
    order = '>' if big_endian else '<'
    names = ('y', 'intensity', 'x', 'ring', 'z')
    types = (7, datatype, 7, 4, 7)
    offsets, step = [], 2
    for kind in types:
        offsets.append(step)
        step += np.dtype(FORMATS[kind]).itemsize + 3
    dtype = np.dtype(
        {
            'names': names,
            'formats': [order + FORMATS[kind] for kind in types],
            'offsets': offsets,
            'itemsize': step,
        }
    )
    rng = np.random.default_rng(datatype)
    points = np.zeros(40, dtype)
    for name in names:
        points[name] = rng.integers(0, 100, 40)
    points['x'][3] = np.nan
    message = PointCloud2(
        header=Header(frame_id='lidar'),
        height=1,
        width=40,
        point_step=step,
        row_step=40 * step,
        is_bigendian=big_endian,
        is_dense=False,
    )
    message.fields = [
        PointField(name=name, offset=offset, datatype=kind, count=1)
        for name, offset, kind in zip(names, offsets, types, strict=True)
    ]
    message.data = array('B', points.tobytes())
    return message


@pytest.mark.parametrize('datatype', FORMATS)
@pytest.mark.parametrize('big_endian', [False, True])
def test_every_datatype_and_endianness(datatype: int, big_endian: bool) -> None:
    message = scattered(datatype, big_endian=big_endian)
    ours = structured_view(message).reshape(-1)
    untouched = bytes(message.data)
    # Theirs swaps big-endian data in place, so it gets a copy.
    copy = scattered(datatype, big_endian=big_endian)
    theirs = point_cloud2.read_points(copy, skip_nans=False).reshape(-1)

    for name in ours.dtype.names:
        np.testing.assert_array_equal(ours[name], theirs[name])
    assert bytes(message.data) == untouched


def test_the_points_that_are_kept() -> None:
    message = cloud(10**9, 500, invalid=20)
    message.is_dense = False
    sweep = CloudDecoder(CloudConfig()).decode(message)
    theirs = point_cloud2.read_points_numpy(message, ['x', 'y', 'z'], skip_nans=True)

    np.testing.assert_array_equal(sweep.xyz, theirs)


def test_it_reads_what_we_publish() -> None:
    sweep = cloud(10**9, 50)
    class_id = np.arange(50, dtype=np.uint8) % 7
    probability = np.linspace(0, 1, 50, dtype=np.float32)
    answer = messages.segmentation_cloud(sweep, class_id, probability)
    theirs = point_cloud2.read_points(answer, skip_nans=False)

    np.testing.assert_array_equal(theirs['class_id'], class_id)
    np.testing.assert_array_equal(theirs['probability'], probability)
    np.testing.assert_array_equal(theirs['x'], structured_view(sweep)['x'].reshape(-1))


def test_we_read_what_it_makes() -> None:
    xyz = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)
    message = point_cloud2.create_cloud_xyz32(Header(frame_id='lidar'), xyz)

    np.testing.assert_array_equal(CloudDecoder(CloudConfig()).decode(message).xyz, xyz)
    assert sys.byteorder == 'little'
