# SPDX-License-Identifier: Apache-2.0
"""The transforms of a recording."""

from __future__ import annotations

import pytest

from cross4d_jepa_ros.bags import (
    MAX_PROBLEMS,
    Bag,
    BagWriter,
    message_class,
    moving_transforms,
    static_transforms,
)
from tests.bags.recorded import STORAGES

TF = 'tf2_msgs/msg/TFMessage'


def transforms(parent: str, child: str, second: int = 0):
    stamp = message_class('builtin_interfaces/msg/Time')(second, 0)
    header = message_class('std_msgs/msg/Header')(stamp, parent)
    vector = message_class('geometry_msgs/msg/Vector3')(1.0, 2.0, 3.0)
    turn = message_class('geometry_msgs/msg/Quaternion')(0.0, 0.0, 0.0, 1.0)
    transform = message_class('geometry_msgs/msg/Transform')(vector, turn)
    stamped = message_class('geometry_msgs/msg/TransformStamped')(header, child, transform)
    return message_class(TF)([stamped])


@pytest.mark.parametrize('storage', STORAGES)
def test_transforms(tmp_path, storage):
    with BagWriter(tmp_path / 'bag', storage=storage) as writer:
        writer.write('/tf_static', TF, 1, transforms('base_link', 'lidar'))
        writer.write('/robot/tf_static', TF, 2, transforms('base_link', 'camera'))
        writer.write('/tf_static', TF, 3, b'\x00\x01\x00\x00\xff\xff')
        for second in range(3):
            writer.write('/tf', TF, 4 + second, transforms('odom', 'base_link', second))
    with Bag(tmp_path / 'bag') as bag:
        static = static_transforms(bag)
        assert [x.child_frame_id for x in static] == ['lidar', 'camera']
        assert static[0].transform.translation.y == 2.0
        assert [x.header.stamp.sec for x in moving_transforms(bag)] == [0, 1, 2]
        assert len(bag.problems) == 1


def test_problems_are_said_once_and_not_without_end(tmp_path):
    with BagWriter(tmp_path / 'bag') as writer:
        for stamp in range(3 * MAX_PROBLEMS):
            writer.write('/tf', TF, stamp // 2, b'\x00\x01\x00\x00')
    with Bag(tmp_path / 'bag') as bag:
        list(moving_transforms(bag))
        assert len(bag.problems) == len(set(bag.problems)) == MAX_PROBLEMS + 1
        assert 'not listed' in bag.problems[-1]
