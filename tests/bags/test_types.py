# SPDX-License-Identifier: Apache-2.0
"""Messages and their definitions, sound and damaged."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from mcap.writer import Writer as McapWriter
from rosbags.typesys import Stores, get_typestore

from cross4d_jepa_ros.bags import (
    BadBag,
    Bag,
    BagMessage,
    BagWriter,
)
from tests.bags.recorded import IMAGE, STORAGES, image


@pytest.mark.parametrize('storage', STORAGES)
def test_a_message_that_does_not_deserialise(tmp_path, storage):
    good = bytes(get_typestore(Stores.ROS2_JAZZY).serialize_cdr(image(1), IMAGE))
    length = good.index(b'jpeg') + 8  # of the data array
    huge = good[:length] + b'\xff\xff\xff\x7f' + good[length + 4 :]
    with BagWriter(tmp_path / 'bag', storage=storage) as writer:
        for stamp, raw in enumerate([good, good[:50], b'', b'\x09\x09\x09\x09', huge, good]):
            writer.write('/image', IMAGE, stamp, raw)
    outcomes = []
    with Bag(tmp_path / 'bag') as bag:
        for message in bag.messages():
            try:
                bag.deserialise(message)
                outcomes.append('good')
            except BadBag as error:
                assert '/image' in str(error)
                outcomes.append('bad')
    assert outcomes == ['good', 'bad', 'bad', 'bad', 'bad', 'good']


def own_type(path: Path, definition: bytes) -> Path:
    """A recording of one message of a type that is not standard."""
    with path.open('wb') as file:
        writer = McapWriter(file)
        writer.start(profile='ros2')
        schema = writer.register_schema('my_robot/msg/Level', 'ros2msg', definition)
        channel = writer.register_channel('/level', 'cdr', schema)
        writer.add_message(channel, 7, b'\x00\x01\x00\x00' + struct.pack('<fb', 3.5, -2), 7)
        writer.finish()
    return path


def test_the_recorded_definition_is_used(tmp_path):
    with Bag(own_type(tmp_path / 'own.mcap', b'float32 volts\nint8 cell')) as bag:
        (level,) = bag.messages()
        decoded = bag.deserialise(level)
        assert (decoded.volts, decoded.cell) == (3.5, -2)
        assert bag.problems == []


def test_a_damaged_definition_leaves_the_standard_ones(tmp_path):
    with Bag(own_type(tmp_path / 'own.mcap', b'(((')) as bag:
        (level,) = bag.messages()
        with pytest.raises(BadBag, match='no definition of my_robot/msg/Level'):
            bag.deserialise(level)
        assert 'definitions in own.mcap' in bag.problems[0]
        raw = bytes(get_typestore(Stores.ROS2_JAZZY).serialize_cdr(image(1), IMAGE))
        assert bag.deserialise(BagMessage('/image', IMAGE, 8, raw)).format == 'jpeg'
