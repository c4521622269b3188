# SPDX-License-Identifier: Apache-2.0
"""Damaged and foreign mcap files; every one is made here."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from mcap.records import Chunk
from mcap.stream_reader import StreamReader
from mcap.writer import CompressionType, IndexType
from mcap.writer import Writer as McapWriter
from rosbags.typesys import Stores, get_typestore

from cross4d_jepa_ros.bags import (
    BadBag,
    Bag,
)
from tests.bags.recorded import (
    IMAGE,
    START_NS,
    image,
    nanosecs,
    read_damaged,
    storage_of,
    write_images,
)


@pytest.mark.parametrize('share', [0.15, 0.5, 0.9, 0.999])
def test_truncated_mcap(tmp_path, share):
    path = write_images(tmp_path / 'bag')
    storage = storage_of(path)
    data = storage.read_bytes()
    storage.write_bytes(data[: int(len(data) * share)])
    with Bag(path) as bag:
        indices = nanosecs(bag)
        assert indices == list(range(len(indices)))
        assert 200 * share - 3 <= len(indices) <= 200
        assert bag.topics['/image'].count == len(indices)
        cut = next(problem for problem in bag.problems if 'cut short' in problem)
        assert str(sum(topic.count for topic in bag.topics.values())) in cut


@pytest.mark.parametrize('length', [8, 9, 20, 100])
def test_mcap_cut_in_its_header(tmp_path, length):
    storage = storage_of(write_images(tmp_path / 'bag', count=3))
    storage.write_bytes(storage.read_bytes()[:length])
    with pytest.raises(BadBag, match='cut short'):
        Bag(storage)


def test_mcap_that_ends_in_zeros(tmp_path):
    """As after a power cut; read record by record they would take minutes."""
    storage = storage_of(write_images(tmp_path / 'bag', count=200))
    data = storage.read_bytes()
    with storage.open('r+b') as file:
        file.truncate(len(data) // 2)
        file.truncate(1 << 32)
    with Bag(storage) as bag:
        indices = nanosecs(bag)
        assert indices == list(range(len(indices)))
        assert 40 <= len(indices) < 100
        assert any('cut short or damaged' in problem for problem in bag.problems)


@pytest.mark.parametrize('compression', [CompressionType.ZSTD, CompressionType.LZ4])
def test_cut_mcap_with_compressed_chunks(tmp_path, compression):
    path = tmp_path / 'bag.mcap'
    with path.open('wb') as file:
        types = get_typestore(Stores.ROS2_JAZZY)
        write_mcap(file, types, range(100), chunk_size=100_000, compression=compression)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with Bag(path) as bag:
        indices = nanosecs(bag)
        assert indices == list(range(len(indices)))
        assert 44 <= len(indices) <= 50
        assert bag.topics['/image'].count == len(indices)


def test_damaged_chunk_of_mcap(tmp_path):
    path = tmp_path / 'bag.mcap'
    types = get_typestore(Stores.ROS2_JAZZY)
    with path.open('wb') as file:
        write_mcap(file, types, range(200), chunk_size=100_000)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle] ^= 0xFF
    path.write_bytes(data)
    with Bag(path) as bag:
        assert bag.problems == []  # the index is sound
        indices = nanosecs(bag)
        assert 180 <= len(indices) < 200
        assert indices == sorted(indices)
        assert {0, 199} <= set(indices)
        assert all('is damaged' in problem for problem in bag.problems)
        assert len(bag.problems) == 2  # where the index led no further, and which chunk it was
        list(bag.messages())
        assert len(bag.problems) == 2  # said once
        late = [m.bag_stamp_ns for m in bag.messages(start_ns=START_NS + 900_000_000)]
        assert late == [START_NS + index * 10_000_000 for index in indices if index >= 90]


def write_mcap(file, types, indices, *, stamps=None, profile='ros2', encoding='cdr', **options):
    options = {'compression': CompressionType.NONE, **options}
    writer = McapWriter(file, **options)
    writer.start(profile=profile)
    text = types.generate_msgdef(IMAGE, ros_version=2)[0].encode()
    schema = writer.register_schema(IMAGE, 'ros2msg', text)
    channel = writer.register_channel('/image', encoding, schema)
    for position, index in enumerate(indices):
        stamp_ns = START_NS + index * 10_000_000 if stamps is None else stamps[position]
        data = bytes(types.serialize_cdr(image(index), IMAGE))
        writer.add_message(channel, stamp_ns, data, stamp_ns)
    writer.finish()


@pytest.mark.parametrize(
    'options',
    [
        {'compression': CompressionType.ZSTD},
        {'compression': CompressionType.LZ4},
        {'use_chunking': False},
        {'use_summary_offsets': False, 'use_statistics': False},
        {'index_types': IndexType.NONE},
        {'index_types': IndexType.CHUNK},
        {'repeat_channels': False, 'repeat_schemas': False},
        {'enable_crcs': False},
        {'profile': ''},
    ],
)
def test_mcap_of_other_writers(tmp_path, options):
    path = tmp_path / 'other.mcap'
    with path.open('wb') as file:
        write_mcap(file, get_typestore(Stores.ROS2_JAZZY), range(40), **options)
    with Bag(path) as bag:
        assert nanosecs(bag) == list(range(40))
        assert bag.topics['/image'].count == 40
        assert bag.end_ns == START_NS + 390_000_000
        assert bag.problems == []


@pytest.mark.parametrize('use_chunking', [True, False])
def test_mcap_out_of_order(tmp_path, use_chunking):
    order = np.random.default_rng(0).permutation(60).tolist()
    path = tmp_path / 'shuffled.mcap'
    types = get_typestore(Stores.ROS2_JAZZY)
    with path.open('wb') as file:
        write_mcap(file, types, order, chunk_size=60_000, use_chunking=use_chunking)
    with Bag(path) as bag:
        # Without an index to sort by, each message still comes once.
        assert nanosecs(bag) == (sorted(order) if use_chunking else order)


def test_mcap_whose_index_lies(tmp_path):
    storage = storage_of(write_images(tmp_path / 'bag'))
    data = bytearray(storage.read_bytes())
    summary = struct.unpack('<Q', data[-28:-20])[0]
    for offset in range(summary, len(data) - 37, 37):
        data[offset] ^= 0x55
    storage.write_bytes(data)
    with Bag(storage) as bag:
        assert nanosecs(bag) == list(range(200))


def test_own_recordings_carry_checksums(tmp_path):
    storage = storage_of(write_images(tmp_path / 'bag', count=120))
    with storage.open('rb') as file:
        records = list(StreamReader(file, emit_chunks=True).records)
    chunks = [record for record in records if isinstance(record, Chunk)]
    assert len(chunks) > 1
    for chunk in chunks:
        assert chunk.uncompressed_crc == zlib.crc32(chunk.data)
    footer = records[-1]
    content = storage.read_bytes()
    assert footer.summary_crc == zlib.crc32(content[footer.summary_start : -12])


def test_a_damaged_name_in_the_index_of_mcap_is_noticed(tmp_path):
    """The library believes the index: the images would be on another topic."""
    storage = storage_of(write_images(tmp_path / 'bag', count=10))
    data = bytearray(storage.read_bytes())
    data[data.rindex(b'/image') + 1] ^= 1
    storage.write_bytes(data)
    with Bag(storage) as bag:
        assert nanosecs(bag) == list(range(10))
        assert any('the index of bag.mcap is damaged' in problem for problem in bag.problems)


def test_what_the_first_chunk_described_is_known_without_it(tmp_path):
    storage = storage_of(write_images(tmp_path / 'bag', count=120))
    data = bytearray(storage.read_bytes())
    data[2000] ^= 1
    storage.write_bytes(data)
    with Bag(storage) as bag:
        indices = nanosecs(bag)
        assert 0 < len(indices) < 120
        assert indices == list(range(120 - len(indices), 120))
        assert any('is damaged and left out' in problem for problem in bag.problems)


def test_mcap_random_damage_never_crashes(tmp_path):
    good = storage_of(write_images(tmp_path / 'bag', count=60)).read_bytes()
    read_damaged(good, tmp_path / 'damaged.mcap', seed=5, header=8, flips=12)


def test_ros1_recordings_name_the_converter(tmp_path):
    (tmp_path / 'old.bag').write_bytes(b'#ROSBAG V2.0\n' + bytes(100))
    for path in (tmp_path / 'old.bag', tmp_path):
        with pytest.raises(BadBag, match='rosbags-convert'):
            Bag(path)
    path = tmp_path / 'ros1.mcap'
    with path.open('wb') as file:
        write_mcap(
            file, get_typestore(Stores.ROS2_JAZZY), range(2), profile='ros1', encoding='ros1'
        )
    with pytest.raises(BadBag, match='rosbags-convert'):
        Bag(path)
