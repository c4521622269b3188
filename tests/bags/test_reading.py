# SPDX-License-Identifier: Apache-2.0
"""Reading sound recordings, and folders that lack something; every one is made here."""

from __future__ import annotations

import shutil
import sqlite3

import numpy as np
import pytest
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from cross4d_jepa_ros.bags import (
    BadBag,
    Bag,
    BagMessage,
    BagWriter,
    message_class,
)
from tests.bags.recorded import (
    IMAGE,
    START_NS,
    STORAGES,
    STRING,
    image,
    nanosecs,
    storage_of,
    write_images,
)

SUFFIX = {'mcap': 'mcap', 'sqlite3': 'db3'}


@pytest.mark.parametrize('storage', STORAGES)
def test_everything_written_is_read_in_order(tmp_path, storage):
    path = write_images(tmp_path / 'bag', storage)
    with Bag(path) as bag:
        assert bag.problems == []
        assert {name: (t.msgtype, t.count) for name, t in bag.topics.items()} == {
            '/image': (IMAGE, 200),
            '/text': (STRING, 20),
        }
        assert (bag.start_ns, bag.end_ns) == (START_NS, START_NS + 1_990_000_000)
        messages = list(bag.messages())
        stamps = [message.bag_stamp_ns for message in messages]
        assert len(messages) == 220
        assert stamps == sorted(stamps)
        assert nanosecs(bag) == list(range(200))
        texts = [bag.deserialise(message).data for message in bag.messages(['/text'])]
        assert texts == [f'text {index}' for index in range(0, 200, 10)]
        assert bag.problems == []


@pytest.mark.parametrize('storage', STORAGES)
def test_a_storage_file_alone_is_enough(tmp_path, storage):
    path = storage_of(write_images(tmp_path / 'bag', storage, 20))
    with Bag(path) as bag:
        assert nanosecs(bag) == list(range(20))
        assert bag.problems == []


@pytest.mark.parametrize('storage', STORAGES)
@pytest.mark.parametrize('start', [0, 1, 777_000_000, 1_990_000_000, 5_000_000_000])
def test_start_leaves_out_earlier_messages(tmp_path, storage, start):
    with Bag(write_images(tmp_path / 'bag', storage)) as bag:
        got = [
            m.bag_stamp_ns - START_NS for m in bag.messages(['/image'], start_ns=START_NS + start)
        ]
    assert got == [index * 10_000_000 for index in range(200) if index * 10_000_000 >= start]


@pytest.mark.parametrize('storage', STORAGES)
def test_iterators_are_independent(tmp_path, storage):
    with Bag(write_images(tmp_path / 'bag', storage, 30)) as bag:
        one, other = bag.messages(['/image']), bag.messages(['/image'])
        pairs = [(next(one), next(other)) for _ in range(30)]
        assert all(a == b for a, b in pairs)
        assert next(one, None) is None


@pytest.mark.parametrize('storage', STORAGES)
def test_unknown_and_no_topics_yield_nothing(tmp_path, storage):
    with Bag(write_images(tmp_path / 'bag', storage, 5)) as bag:
        assert list(bag.messages(['/nothing'])) == []
        assert list(bag.messages([])) == []


@pytest.mark.parametrize('storage', STORAGES)
def test_raw_bytes_pass_through(tmp_path, storage):
    raw = get_typestore(Stores.ROS2_JAZZY).serialize_cdr(message_class(STRING)('abc'), STRING)
    with BagWriter(tmp_path / 'bag', storage=storage) as writer:
        writer.write('/text', STRING, 5, bytes(raw))
    with Bag(tmp_path / 'bag') as bag:
        assert list(bag.messages()) == [BagMessage('/text', STRING, 5, bytes(raw))]


@pytest.mark.parametrize('storage', STORAGES)
def test_recorded_qos(tmp_path, storage):
    with BagWriter(tmp_path / 'bag', storage=storage) as writer:
        writer.add_topic('/sensor', STRING, best_effort=True)
        writer.add_topic('/map', STRING, transient_local=True)
        for topic in ('/sensor', '/map', '/plain'):
            writer.write(topic, STRING, 1, message_class(STRING)(''))
    with Bag(tmp_path / 'bag') as bag:
        qos = {n: (t.offered_best_effort, t.transient_local) for n, t in bag.topics.items()}
    assert qos == {'/sensor': (True, False), '/map': (False, True), '/plain': (None, False)}


def test_numbered_qos_of_older_recorders(tmp_path):
    with BagWriter(tmp_path / 'bag', storage='sqlite3') as writer:
        writer.write('/a', STRING, 1, message_class(STRING)(''))
    with sqlite3.connect(storage_of(tmp_path / 'bag')) as database:
        database.execute(
            'UPDATE topics SET offered_qos_profiles = ?',
            (
                '- history: 1\n  depth: 5\n  reliability: 2\n  durability: 1\n'
                '  deadline: {sec: 0, nsec: 0}\n  lifespan: {sec: 0, nsec: 0}\n'
                '  liveliness: 1\n  liveliness_lease_duration: {sec: 0, nsec: 0}\n'
                '  avoid_ros_namespace_conventions: false\n',
            ),
        )
    with Bag(tmp_path / 'bag') as bag:
        assert bag.topics['/a'].offered_best_effort is True
        assert bag.topics['/a'].transient_local is True


@pytest.mark.parametrize('storage', STORAGES)
def test_empty_bag(tmp_path, storage):
    with BagWriter(tmp_path / 'bag', storage=storage) as writer:
        writer.add_topic('/image', IMAGE)
    with Bag(tmp_path / 'bag') as bag:
        assert bag.topics['/image'].count == 0
        assert list(bag.messages()) == []
        assert (bag.start_ns, bag.end_ns) == (0, 0)
        assert bag.problems == []


@pytest.mark.parametrize(
    ('storage', 'mode'),
    [
        ('mcap', CompressionMode.FILE),
        ('mcap', CompressionMode.MESSAGE),
        ('mcap', CompressionMode.STORAGE),
        ('sqlite3', CompressionMode.FILE),
        ('sqlite3', CompressionMode.MESSAGE),
    ],
)
@pytest.mark.parametrize('metadata', [True, False])
def test_compressed(tmp_path, storage, mode, metadata):
    path = tmp_path / 'bag'
    types = get_typestore(Stores.ROS2_JAZZY)
    writer = Writer(path, version=9, storage_plugin=StoragePlugin[storage.upper()])
    writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        connection = writer.add_connection('/image', IMAGE, typestore=types)
        for index in range(20):
            raw = types.serialize_cdr(image(index, 5000), IMAGE)
            writer.write(connection, START_NS + index, raw)
    if not metadata:
        (path / 'metadata.yaml').unlink()
    with Bag(path) as bag:
        assert bag.topics['/image'].count == 20
        decoded = [bag.deserialise(message) for message in bag.messages()]
        assert len(bag.problems) == (0 if metadata else 1)
        alone = [bag.messages_at('/image', START_NS + index) for index in range(21)]
        assert alone == [*([message] for message in bag.messages()), []]
    for index, message in enumerate(decoded):
        assert np.array_equal(message.data, image(index, 5000).data)


def test_unpacked_files_are_removed(tmp_path, monkeypatch):
    folder = tmp_path / 'unpacked'
    folder.mkdir()
    monkeypatch.setattr('tempfile.tempdir', str(folder))
    types = get_typestore(Stores.ROS2_JAZZY)
    writer = Writer(tmp_path / 'bag', version=9, storage_plugin=StoragePlugin.MCAP)
    writer.set_compression(CompressionMode.FILE, CompressionFormat.ZSTD)
    with writer:
        connection = writer.add_connection('/image', IMAGE, typestore=types)
        writer.write(connection, 1, types.serialize_cdr(image(1), IMAGE))
    with Bag(tmp_path / 'bag'):
        assert any(folder.rglob('*.mcap'))
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize('storage', STORAGES)
@pytest.mark.parametrize(
    'metadata',
    [
        None,
        '',
        'rosbag2_bagfile_information: [1, 2',
        'rosbag2_bagfile_information:\n  relative_file_paths: 7\n',
        '\x00\xff\x00',
    ],
)
def test_bad_metadata(tmp_path, storage, metadata):
    path = write_images(tmp_path / 'bag', storage, 10)
    (path / 'metadata.yaml').unlink()
    if metadata is not None:
        (path / 'metadata.yaml').write_text(metadata)
    with Bag(path) as bag:
        assert nanosecs(bag) == list(range(10))
        assert bag.problems == ['metadata.yaml is missing or damaged: the storage itself was read']


def test_split_bag_and_a_missing_part(tmp_path):
    path = tmp_path / 'split'
    path.mkdir()
    names = [f'split_{part}.mcap' for part in (0, 2, 10)]
    for part, name in enumerate(names):
        with BagWriter(tmp_path / f'part{part}') as writer:
            for index in range(part * 5, part * 5 + 5):
                writer.write('/image', IMAGE, START_NS + index * 10_000_000, image(index))
        shutil.copy(storage_of(tmp_path / f'part{part}'), path / name)
    listed = '\n'.join(f'  - {name}' for name in names)
    (path / 'metadata.yaml').write_text(
        f'rosbag2_bagfile_information:\n  relative_file_paths:\n{listed}\n  message_count: 15\n'
    )
    with Bag(path) as bag:
        assert nanosecs(bag) == list(range(15))
        assert bag.topics['/image'].count == 15
        assert bag.problems == []
    (path / names[1]).unlink()
    with Bag(path) as bag:
        assert nanosecs(bag) == [*range(5), *range(10, 15)]
        assert bag.problems[0] == 'split_2.mcap is listed in metadata.yaml but absent'
        assert '15' in bag.problems[1]
        assert '10' in bag.problems[1]


def test_one_unreadable_part_costs_itself_only(tmp_path):
    path = write_images(tmp_path / 'bag', count=10)
    (path / 'metadata.yaml').unlink()
    (path / 'bag_1.mcap').write_bytes(b'')
    with Bag(path) as bag:
        assert nanosecs(bag) == list(range(10))
        assert any('bag_1.mcap was cut short' in problem for problem in bag.problems)


@pytest.mark.parametrize(
    ('name', 'content', 'sentence'),
    [
        ('a.mcap', b'', 'byte 0 of 0'),
        ('a.mcap', b'hello world, this is text', 'not a valid MCAP'),
        ('a.db3', b'SQLite format 3\0' + bytes(50), 'damaged'),
        ('a.txt', b'PK', 'neither'),
    ],
)
def test_what_is_no_recording(tmp_path, name, content, sentence):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadBag, match=sentence):
        Bag(tmp_path / name)


def test_missing_and_foreign_paths(tmp_path):
    with pytest.raises(BadBag, match='no recording'):
        Bag(tmp_path / 'nowhere')
    with pytest.raises(BadBag, match=r'no \.mcap or \.db3'):
        Bag(tmp_path)
    with sqlite3.connect(tmp_path / 'address_book.db3') as database:
        database.execute('CREATE TABLE people (name TEXT)')
    with pytest.raises(BadBag, match='topics'):
        Bag(tmp_path / 'address_book.db3')
