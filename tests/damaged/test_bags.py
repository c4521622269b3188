# SPDX-License-Identifier: Apache-2.0
"""Damaged recordings: what is read of them was recorded, and what is missing is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
from mcap.writer import CompressionType
from mcap.writer import Writer as McapWriter
from rosbags.typesys import Stores, get_typestore

from cross4d_jepa_ros.bags import BadBag, Bag, BagWriter, message_class
from tests.damaged.damage import Trials, try_damaged
from tests.tiny_recording import START_NS

TEXT = 'std_msgs/msg/String'
COUNT = 24
UNCHECKED = 'unchecked'


def text(number: int) -> Any:
    return message_class(TEXT)(f'{number} ' * (3 + number % 5))


def recorded(path: Path, storage: Literal['mcap', 'sqlite3']) -> Path:
    """Record as this package does; returns the storage file."""
    with BagWriter(path, storage=storage) as bag:
        for number in range(COUNT):
            bag.write(f'/text_{number % 2}', TEXT, START_NS + number, text(number))
    return next(file for file in path.iterdir() if file.suffix in ('.mcap', '.db3'))


def recorded_in_chunks(path: Path, compression: CompressionType) -> Path:
    """Record as others do, in chunks of four messages or so."""
    types = get_typestore(Stores.ROS2_JAZZY)
    definition = types.generate_msgdef(TEXT, ros_version=2)[0].encode()
    with path.open('wb') as file:
        writer = McapWriter(file, chunk_size=200, compression=compression)
        writer.start(profile='ros2')
        schema = writer.register_schema(TEXT, 'ros2msg', definition)
        channels = [writer.register_channel(f'/text_{n}', 'cdr', schema) for n in range(2)]
        for number in range(COUNT):
            raw, at_ns = bytes(types.serialize_cdr(text(number), TEXT)), START_NS + number
            writer.add_message(channels[number % 2], at_ns, raw, at_ns)
        writer.finish()
    return path


def read(path: Path) -> tuple[list[tuple[str, int, bytes]], list[str]]:
    """Read everything twice, in order and message by message."""
    with Bag(path) as bag:
        found = [(each.topic, each.bag_stamp_ns, each.raw) for each in bag.messages()]
        for topic in bag.topics:
            for number in range(0, COUNT, 5):
                at = bag.messages_at(topic, START_NS + number)
                found += [(each.topic, each.bag_stamp_ns, each.raw) for each in at]
        return found, bag.problems


def judged(path: Path, file: Path, *, usual: int, seed: int, has_checksums: bool = True) -> Trials:
    """Try damaged recordings: of `path`, by way of its storage `file`."""
    whole, problems = read(path)
    assert len(whole) == COUNT + 5 and not problems
    genuine = set(whole)

    def verdict() -> str:
        found, problems = read(path)
        said = ' '.join(problems)
        if not set(found) <= genuine and UNCHECKED not in said:
            return 'not what was recorded'
        if len(found) < len(whole) and not problems:
            return 'less than was recorded'
        return ''

    return try_damaged(file, verdict, BadBag, usual, seed=seed, may_change=not has_checksums)


def test_zeros_do_not_pass_for_an_empty_chunk(tmp_path: Path) -> None:
    """They read as a chunk without a checksum, and as records of nothing."""
    file = recorded(tmp_path / 'bag', 'mcap')
    good = file.read_bytes()
    for end in range(100, 1100, 9):
        file.write_bytes(good[:33] + bytes(end - 33) + good[end:])
        found, problems = read(file)
        assert len(found) == COUNT + 5 or problems, f'zeros up to byte {end}'


def test_own_recordings(tmp_path: Path) -> None:
    file = recorded(tmp_path / 'bag', 'mcap')
    assert judged(file, file, usual=400, seed=1).changed == 0


def test_folders(tmp_path: Path) -> None:
    file = recorded(tmp_path / 'bag', 'mcap')
    assert judged(tmp_path / 'bag', file, usual=300, seed=2).changed == 0


@pytest.mark.parametrize('compression', [CompressionType.NONE, CompressionType.ZSTD])
def test_recordings_in_chunks(tmp_path: Path, compression: CompressionType) -> None:
    file = recorded_in_chunks(tmp_path / 'bag.mcap', compression)
    assert judged(file, file, usual=400, seed=3).changed == 0


def test_sqlite_tells_damage_to_its_pages_only(tmp_path: Path) -> None:
    """A changed byte of a message looks like any other: the format has no checksum."""
    file = recorded(tmp_path / 'bag', 'sqlite3')
    trials = judged(file, file, usual=200, seed=4, has_checksums=False)
    assert trials.changed < 0.5 * sum(trials.tried.values())


def test_metadata(tmp_path: Path) -> None:
    """The storage itself says what is in it; the metadata only that something is missing."""
    recorded(tmp_path / 'bag', 'mcap')
    path = tmp_path / 'bag' / 'metadata.yaml'
    trials = try_damaged(path, lambda: read(tmp_path / 'bag')[0], BadBag, 100, seed=5)
    assert trials.same == sum(trials.tried.values())
