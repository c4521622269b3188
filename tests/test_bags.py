# SPDX-License-Identifier: Apache-2.0
"""Reading sound, damaged and unfinished recordings; every one is made here."""

from __future__ import annotations

import contextlib
import resource
import shutil
import sqlite3
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from mcap.records import Chunk
from mcap.stream_reader import StreamReader
from mcap.writer import CompressionType, IndexType
from mcap.writer import Writer as McapWriter
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from cross4d_jepa_ros.bags import (
    MAX_PROBLEMS,
    BadBag,
    Bag,
    BagMessage,
    BagWriter,
    message_class,
    moving_transforms,
    static_transforms,
)

START_NS = 1_600_000_000_000_000_000
IMAGE = 'sensor_msgs/msg/CompressedImage'
STRING = 'std_msgs/msg/String'
TF = 'tf2_msgs/msg/TFMessage'
STORAGES = ['mcap', 'sqlite3']
SUFFIX = {'mcap': 'mcap', 'sqlite3': 'db3'}


def image(index: int, size: int = 20_000):
    stamp = message_class('builtin_interfaces/msg/Time')(1_600_000_000, index)
    header = message_class('std_msgs/msg/Header')(stamp, 'camera')
    data = np.random.default_rng(index).integers(0, 256, size, dtype=np.uint8)
    return message_class(IMAGE)(header, 'jpeg', data)


def transforms(parent: str, child: str, second: int = 0):
    stamp = message_class('builtin_interfaces/msg/Time')(second, 0)
    header = message_class('std_msgs/msg/Header')(stamp, parent)
    vector = message_class('geometry_msgs/msg/Vector3')(1.0, 2.0, 3.0)
    turn = message_class('geometry_msgs/msg/Quaternion')(0.0, 0.0, 0.0, 1.0)
    transform = message_class('geometry_msgs/msg/Transform')(vector, turn)
    stamped = message_class('geometry_msgs/msg/TransformStamped')(header, child, transform)
    return message_class(TF)([stamped])


def write_images(path: Path, storage: str = 'mcap', count: int = 200) -> Path:
    """A recording of `count` images of 20 kB, 10 ms apart, and a text beside every tenth."""
    with BagWriter(path, storage=storage) as bag:
        for index in range(count):
            stamp_ns = START_NS + index * 10_000_000
            bag.write('/image', IMAGE, stamp_ns, image(index))
            if index % 10 == 0:
                bag.write('/text', STRING, stamp_ns + 5, message_class(STRING)(f'text {index}'))
    return path


def nanosecs(bag: Bag, topic: str = '/image') -> list[int]:
    """Indices of the readable images, each checked against what was written, and found alone."""
    found = []
    for message in bag.messages([topic]):
        decoded = bag.deserialise(message)
        index = decoded.header.stamp.nanosec
        assert np.array_equal(decoded.data, image(index).data)
        assert message.bag_stamp_ns == START_NS + index * 10_000_000
        found.append(index)
    for index in found[::-1]:
        (message,) = bag.messages_at(topic, START_NS + index * 10_000_000)
        assert bag.deserialise(message).header.stamp.nanosec == index
    return found


def storage_of(bag: Path) -> Path:
    return next(path for path in bag.iterdir() if path.suffix in {'.mcap', '.db3'})


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


@pytest.mark.parametrize('storage', STORAGES)
def test_a_full_disk_names_the_recording(tmp_path, storage):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(OSError, match='bag'), BagWriter(tmp_path / 'bag', storage=storage) as w:
            # The system itself refuses to write more; Python ignores the signal.
            resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, before[1]))
            for index in range(200):
                w.write('/image', IMAGE, START_NS + index * 10_000_000, image(index))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    # What was written before is still worth something.
    if storage == 'mcap':
        with Bag(tmp_path / 'bag') as bag:
            assert nanosecs(bag) == list(range(len(nanosecs(bag))))
            assert bag.problems


def test_mcap_random_damage_never_crashes(tmp_path):
    good = storage_of(write_images(tmp_path / 'bag', count=60)).read_bytes()
    random = np.random.default_rng(5)
    path = tmp_path / 'damaged.mcap'
    for _ in range(12):
        data = bytearray(good)
        for position in random.integers(8, len(data), 12):
            data[position] = random.integers(256)
        path.write_bytes(data[: random.integers(9, len(data) + 1)])
        read_all(path)


def test_sqlite_random_damage_never_crashes(tmp_path):
    good = storage_of(write_images(tmp_path / 'bag', 'sqlite3', 60)).read_bytes()
    random = np.random.default_rng(6)
    path = tmp_path / 'damaged.db3'
    for _ in range(12):
        data = bytearray(good)
        for position in random.integers(16, len(data), 40):
            data[position] = random.integers(256)
        path.write_bytes(data[: random.integers(17, len(data) + 1)])
        read_all(path)


def read_all(path: Path) -> None:
    """Read a damaged file to its end; only BadBag may come out."""
    try:
        bag = Bag(path)
    except BadBag:
        return
    with bag:
        for message in bag.messages():
            try:
                bag.deserialise(message)
            except BadBag:
                continue


@pytest.mark.parametrize('share', [0.3, 0.6, 0.95])
def test_truncated_sqlite(tmp_path, share):
    path = write_images(tmp_path / 'bag', 'sqlite3')
    storage = storage_of(path)
    data = storage.read_bytes()
    storage.write_bytes(data[: int(len(data) * share)])
    with Bag(path) as bag:
        indices = nanosecs(bag)
        assert indices == list(range(len(indices)))
        assert abs(len(indices) - 200 * share) < 20
        assert any('cut short or damaged' in problem for problem in bag.problems)


def test_damaged_page_of_sqlite_ends_it(tmp_path):
    path = write_images(tmp_path / 'bag', 'sqlite3')
    storage = storage_of(path)
    data = bytearray(storage.read_bytes())
    middle = len(data) // 2 // 4096 * 4096
    data[middle : middle + 5 * 4096] = bytes(5 * 4096)
    storage.write_bytes(data)
    with Bag(path) as bag:
        found = []
        for message in bag.messages(['/image']):
            with contextlib.suppress(BadBag):
                found.append(bag.deserialise(message).header.stamp.nanosec)
        assert len(found) >= 90
        assert found == sorted(set(found))
        assert any('damaged' in problem for problem in bag.problems)


def test_unfinished_sqlite_keeps_its_write_ahead_log(tmp_path):
    path = write_images(tmp_path / 'bag', 'sqlite3', 10)
    live = storage_of(path)
    database = sqlite3.connect(live)
    database.execute('PRAGMA journal_mode=WAL')
    raw = bytes(get_typestore(Stores.ROS2_JAZZY).serialize_cdr(image(10), IMAGE))
    topic = database.execute("SELECT id FROM topics WHERE name = '/image'").fetchone()[0]
    database.execute(
        'INSERT INTO messages (topic_id, timestamp, data) VALUES (?, ?, ?)',
        (topic, START_NS + 100_000_000, raw),
    )
    database.commit()
    killed = tmp_path / 'killed'
    killed.mkdir()
    for suffix in ('', '-wal'):
        shutil.copy(f'{live}{suffix}', killed / f'bag.db3{suffix}')
    database.close()
    with Bag(killed / 'bag.db3') as bag:
        assert nanosecs(bag) == list(range(11))


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


def test_writer_refuses(tmp_path):
    with pytest.raises(BadBag, match='exists already'), BagWriter(tmp_path):
        pass
    with BagWriter(tmp_path / 'bag') as writer, pytest.raises(BadBag, match='/text'):
        writer.write('/text', STRING, 1, message_class(STRING)(5))


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
