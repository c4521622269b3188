# SPDX-License-Identifier: Apache-2.0
"""Damaged bytes as they lie in a bag or come over the wire: refused there, or read like any other.

ROS itself deserialises in C: that it neither dies nor takes memory is tested here, too.
"""

from __future__ import annotations

import random
from array import array
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nav_msgs.msg import Odometry
from rclpy.serialization import deserialize_message, serialize_message
from rosbags.typesys import Stores, get_typestore
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2, PointField

from tests.malformed import messages
from tests.malformed.mutations import damaged
from tests.malformed.readers import (
    SMALL_FACTOR,
    read_camera_info,
    read_cloud,
    read_image,
    read_pose,
)
from tests.malformed.verdicts import NO_WARNINGS, bulk, verdict
from tests.tries import TRIED, tries

pytestmark = NO_WARNINGS

TYPES = {
    'PointCloud2': (PointCloud2, messages.cloud(), read_cloud),
    'Image': (Image, messages.image(), read_image),
    'CompressedImage': (CompressedImage, messages.packed('png'), read_image),
    'CameraInfo': (CameraInfo, messages.camera_info(), read_camera_info),
    'Odometry': (Odometry, messages.odometry(), read_pose),
}
SEEDS, PER_SEED = 12, 50
STORE = get_typestore(Stores.ROS2_JAZZY)


def as_ros(plain: Any, message: Any) -> Any:
    """Fill a ROS message from a plain object."""
    for name, value in vars(plain).items():
        if isinstance(value, SimpleNamespace):
            as_ros(value, getattr(message, name))
        elif isinstance(value, bytes):
            setattr(message, name, array('B', value))
        elif name == 'fields':
            message.fields = [as_ros(field, PointField()) for field in value]
        else:
            setattr(message, name, value)
    return message


def as_bag(plain: Any, msgtype: str) -> Any:
    """Make a message of the bag library from a plain object; only of what TF holds."""
    fields = {}
    for name, (kind, content) in STORE.fielddefs[msgtype][1]:
        value = getattr(plain, name)
        if isinstance(value, list):
            fields[name] = [as_bag(item, content[0][1]) for item in value]
        elif isinstance(value, SimpleNamespace):
            fields[name] = as_bag(value, content)
        else:
            fields[name] = value
        assert kind
    return STORE.types[msgtype](**fields)


def attack_bytes(kind: str, name: str, raw: bytes, deserialise: Any, read: Any) -> None:
    """Damage, deserialise, read; only the deserialiser may raise whatever it likes."""
    tried = reached = 0

    def one(draw: random.Random) -> None:
        nonlocal tried, reached
        tried += 1
        bad = raw[:4] + damaged(raw[4:], draw)

        def parsed() -> Any:
            try:
                return deserialise(bad)
            except Exception:
                return None

        message = verdict(f'{kind} CDR', parsed, (), SMALL_FACTOR * len(bad), bad)
        if message is not None:
            reached += 1
            TRIED[f'{kind} CDR'] -= 1  # counts as what it is read as
            read(message, bad, **({} if read is read_pose else {'size': len(bad)}))

    @settings(max_examples=tries(SEEDS))
    @given(seed=st.integers(0, 2**32 - 1))
    def attack(seed: int) -> None:
        bulk(seed, one, PER_SEED)

    attack()
    assert tried >= tries(SEEDS) * PER_SEED * 9 // 10
    assert tried // 10 < reached < tried, name


@pytest.mark.parametrize('kind', [*TYPES, 'TFMessage'])
def test_damaged_bytes_of_a_bag(kind: str) -> None:
    if kind == 'TFMessage':
        name, read = 'tf2_msgs/msg/TFMessage', read_pose
        raw = bytes(STORE.serialize_cdr(as_bag(messages.tf(), name), name))
    else:
        cls, plain, read = TYPES[kind]
        name = f'{cls.__module__.split(".")[0]}/msg/{kind}'
        raw = serialize_message(as_ros(plain, cls()))
    attack_bytes(kind, name, raw, lambda bad: STORE.deserialize_cdr(bad, name), read)


@pytest.mark.parametrize('kind', list(TYPES))
def test_damaged_bytes_of_the_wire(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    cls, plain, read = TYPES[kind]
    raw = serialize_message(as_ros(plain, cls()))
    attack_bytes(kind, kind, raw, lambda bad: deserialize_message(bad, cls), read)
    capfd.readouterr()  # what the middleware says about each
