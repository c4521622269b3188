# SPDX-License-Identifier: Apache-2.0
"""Recordings: read rosbag2 folders and files, damaged ones included, and write small ones.

The rosbags library reads what is sound; where it gives up, the storage is streamed from its start
for what is left, and `Bag.problems` says what is missing. Messages stay CDR until asked for. What
an mcap file has checksums for is compared with them; sqlite3 has none, nor have recorders that
leave them out: there a changed message looks like any other.
"""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import os
import shutil
import sqlite3
import struct
import tempfile
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal, Self

import zstandard
from mcap.opcode import Opcode
from mcap.records import Channel, Chunk, DataEnd, McapRecord, Message, Schema
from mcap.stream_reader import StreamReader, breakup_chunk
from rosbags import interfaces
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosbags.rosbag2.storage_mcap import McapWriter
from rosbags.typesys import Stores, get_typestore
from rosbags.typesys.store import Typestore

from cross4d_jepa_ros.reading import read_yaml

MAX_PROBLEMS = 100
# An mcap file's footer record and the magic behind it.
_MCAP_END = 37
_UNCHECKED = 'unchecked, as its checksum is lost'
TF_TYPE = 'tf2_msgs/msg/TFMessage'


class BadBag(ValueError):
    """A recording, or one message of it, cannot be read or written."""


def note(problems: list[str], sentence: str) -> None:
    """Add a sentence once; a badly damaged recording is cut off at `MAX_PROBLEMS` of them."""
    if len(problems) == MAX_PROBLEMS:
        problems.append('further problems are not listed')
    elif len(problems) < MAX_PROBLEMS and sentence not in problems:
        problems.append(sentence)


@dataclass(frozen=True)
class BagTopic:
    """One topic of a recording.

    Attributes:
        name: Topic name as recorded.
        msgtype: Type such as `sensor_msgs/msg/PointCloud2`.
        count: Messages, as far as is known before they are read.
        offered_best_effort: Whether a recorded publisher offered best effort; None if not recorded.
        transient_local: Whether a recorded publisher latched its messages for late subscribers.

    """

    name: str
    msgtype: str
    count: int
    offered_best_effort: bool | None = None
    transient_local: bool = False


@dataclass(frozen=True)
class BagMessage:
    """One recorded message: `bag_stamp_ns` is when it was recorded, `raw` its CDR with header."""

    topic: str
    msgtype: str
    bag_stamp_ns: int
    raw: bytes


class _Source(io.BufferedReader):
    """A file that breaks off where mcap's stream reader would hang or take in all of it at once."""

    _blank = 0

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            raise EOFError('a record is too short')
        data = super().read(size)
        # Zeros, as a power cut leaves them, read as billions of empty records.
        self._blank = self._blank + 1 if size <= 8 and not any(data) else 0
        if self._blank > 1000:
            raise EOFError('only zeros follow')
        return data


def _mcap_records(file: _Source, size: int, problems: list[str]) -> Iterator[McapRecord]:
    """Read records, those in chunks included, in the order of the file until it breaks off."""
    start = 0
    chunked = False
    try:
        for record in StreamReader(file, emit_chunks=True, record_size_limit=size).records:
            start = file.tell()
            chunked = chunked or isinstance(record, Chunk)
            if chunked and isinstance(record, Message):
                note(problems, f'the message before byte {start} is in no chunk: {_UNCHECKED}')
            try:
                yield from breakup_chunk(record, True) if isinstance(record, Chunk) else (record,)
            except Exception as error:  # the chunks behind it are still good
                note(problems, f'the chunk before byte {start} is damaged and left out ({error})')
    except Exception:
        # Of an uncompressed chunk that was cut, the records in front of the cut are good. They
        # begin after 49 bytes; the length of its compression's name is zero.
        file.seek(start)
        head = file.read(49)
        if head[:1] == bytes([Opcode.CHUNK]) and head[37:41] == bytes(4):
            note(problems, f'the chunk at byte {start} is not whole: its messages are {_UNCHECKED}')
            yield from StreamReader(file, skip_magic=True, record_size_limit=size).records
        raise


def _stream_mcap(
    path: Path, found: dict[int, tuple[str, str]], problems: list[str]
) -> Iterator[BagMessage]:
    """Read an mcap file without its index; add to `found`: topic and type by channel.

    Raises:
        BadBag: From there on it cannot be read.

    """
    schemas: dict[int, str] = {}
    with _Source(io.FileIO(path)) as file:
        size = path.stat().st_size
        try:
            for record in _mcap_records(file, size, problems):
                if isinstance(record, Schema):
                    schemas[record.id] = record.name
                elif isinstance(record, Channel) and record.message_encoding != 'cdr':
                    kind = f'{record.message_encoding} messages, not CDR as ROS 2 does'
                    raise BadBag(f'{path.name} holds {kind}; rosbags-convert converts ROS 1')
                elif isinstance(record, Channel) and record.schema_id in schemas:
                    found[record.id] = (record.topic, schemas[record.schema_id])
                elif isinstance(record, Message) and record.channel_id in found:
                    yield BagMessage(*found[record.channel_id], record.log_time, record.data)
                elif isinstance(record, Message):
                    number = record.channel_id
                    note(problems, f'{path.name} lost what channel {number} is: left out')
                elif isinstance(record, DataEnd):
                    return
        except BadBag:
            raise
        except Exception as error:  # whatever a foreign parser makes of foreign bytes
            reason = str(error) or 'it ends there'
            place = f'at byte {file.tell()} of {size} ({reason})'
            raise BadBag(f'{path.name} was cut short or damaged {place}') from error


def _stream_sqlite(
    path: Path, found: dict[int, tuple[str, str]], _: list[str]
) -> Iterator[BagMessage]:
    """Read the rows of an sqlite3 file until it breaks off, like `_stream_mcap`."""
    uri = f'{path.resolve().as_uri()}?mode=ro'
    try:
        database = sqlite3.connect(uri, uri=True, check_same_thread=False)
        with contextlib.closing(database):
            # Lets SQLite open a file that is shorter than its header promises; writes nothing.
            database.execute('PRAGMA writable_schema=ON')
            for topic, name, msgtype in database.execute('SELECT id, name, type FROM topics'):
                found[topic] = (str(name), str(msgtype))
            query = 'SELECT topic_id, timestamp, data FROM messages ORDER BY id'
            for topic, stamp_ns, raw in database.execute(query):
                if topic in found and isinstance(stamp_ns, int) and isinstance(raw, bytes):
                    yield BagMessage(*found[topic], stamp_ns, raw)
    except sqlite3.Error as error:
        raise BadBag(f'{path.name} was cut short or damaged ({error})') from error


def _check_summary(path: Path) -> None:
    """Compare the index of an mcap file with its checksum, where it has one.

    Raises:
        BadBag: They differ.
        OSError: It cannot be read, or is shorter than an end.

    """
    with path.open('rb') as file:
        content = _mcap_summary(file)
    checksum = int.from_bytes(content[-12:-8], 'little')
    if checksum and zlib.crc32(content[:-12]) != checksum:
        raise BadBag(f'the index of {path.name} is damaged: it is read from its start')


def _mcap_summary(file: IO[bytes]) -> bytes:
    """Read an mcap file from where its summary begins to its end; only the end without one."""
    end = file.seek(-_MCAP_END, os.SEEK_END)
    (start,) = struct.unpack('<Q', file.read(_MCAP_END)[9:17])
    file.seek(start if 0 < start <= end else end)
    return file.read()


_STREAMS = {'.mcap': _stream_mcap, '.db3': _stream_sqlite}


class _Spool:
    """The messages of one topic, copied to where each can be found at once."""

    def __init__(self, messages: Iterator[BagMessage]) -> None:
        self._file = tempfile.TemporaryFile(prefix='bag_')  # noqa: SIM115 - until `close`
        self._places: dict[int, list[tuple[str, str, int, int]]] = {}
        try:
            for message in messages:
                place = (message.topic, message.msgtype, self._file.tell(), len(message.raw))
                self._places.setdefault(message.bag_stamp_ns, []).append(place)
                self._file.write(message.raw)
        except BaseException:
            self._file.close()
            raise

    def at(self, bag_stamp_ns: int) -> list[BagMessage]:
        found = []
        for topic, msgtype, start, size in self._places.get(bag_stamp_ns, ()):
            self._file.seek(start)
            found.append(BagMessage(topic, msgtype, bag_stamp_ns, self._file.read(size)))
        return found

    def close(self) -> None:
        self._file.close()


class _Storage:
    """One storage file, by the library's reader as far as that gets, then by streaming it."""

    def __init__(self, path: Path, problems: list[str]) -> None:
        self.path = path
        self.topics: list[BagTopic] = []
        self.stamps_ns: list[int] = []  # first and last
        self._problems = problems
        self._stream = _STREAMS[path.suffix]
        self._reader: Reader | None = None
        self._spools: dict[str, _Spool] = {}
        self._seekable = False
        self._channels: dict[int, tuple[str, str]] = {}
        try:
            if path.suffix == '.mcap':
                _check_summary(path)
            self.is_sound = self._open()
        except BadBag as error:
            note(self._problems, str(error))
            self.is_sound = False
        except Exception:  # any damage at all
            self.is_sound = False
        if not self.is_sound:
            self._seekable = False
            self._survey()

    def _open(self) -> bool:
        with Reader(self.path) as reader:
            self.topics = [_topic(name, info) for name, info in reader.topics.items()]
            self.stamps_ns = [reader.start_time, reader.end_time - 1][: 2 * reader.message_count]
            # They are described in the first chunk, which may be the one that is lost.
            self._channels = {x.id: (x.topic, x.msgtype) for x in reader.connections}
            # The reader passes over a write-ahead log, and over chunks without message indexes.
            has_log = self.path.with_name(f'{self.path.name}-wal').exists()
            chunks = getattr(reader.storage, 'chunks', [])
            # Without chunks the reader would search the whole file for every message.
            self._seekable = self.path.suffix == '.db3' or bool(chunks)
            return not has_log and all(chunk.message_index_offsets for chunk in chunks)

    def _survey(self) -> None:
        self.stamps_ns = []
        found: dict[int, tuple[str, str]] = {}
        counts: Counter[str] = Counter()
        try:
            for message in self._stream(self.path, found, self._problems):
                counts[message.topic] += 1
                stamps_ns = [*self.stamps_ns, message.bag_stamp_ns]
                self.stamps_ns = [min(stamps_ns), max(stamps_ns)]
        except BadBag as error:
            if not found:
                raise
            note(self._problems, f'{error}: {counts.total()} messages before it can be read')
        names = dict.fromkeys(found.values())
        self.topics = [BagTopic(name, msgtype, counts[name]) for name, msgtype in names]

    def covers(self, bag_stamp_ns: int) -> bool:
        return min(self.stamps_ns, default=1) <= bag_stamp_ns <= max(self.stamps_ns, default=0)

    def at(self, topic: str, bag_stamp_ns: int) -> list[BagMessage]:
        """Read what was recorded at one instant; the file stays open until `close`."""
        if self._seekable:
            try:
                if self._reader is None:
                    reader = Reader(self.path)
                    reader.open()
                    self._reader = reader
                wanted = [x for x in self._reader.connections if x.topic == topic]
                records = self._reader.messages(wanted, bag_stamp_ns, bag_stamp_ns + 1)
                return [
                    BagMessage(topic, connection.msgtype, bag_stamp_ns, raw)
                    for connection, _, raw in (records if wanted else ())
                ]
            except Exception as error:
                note(self._problems, f'{self.path.name} is damaged ({error}): messages are missing')
                self._seekable = False
        if topic not in self._spools:
            self._spools[topic] = _Spool(self.messages([topic], 0))
        return self._spools[topic].at(bag_stamp_ns)

    def close(self) -> None:
        """Close what `at` has opened."""
        if self._reader is not None:
            self._reader.close()
        for spool in self._spools.values():
            spool.close()
        self._reader, self._spools = None, {}

    def messages(self, wanted: Collection[str], start_ns: int) -> Iterator[BagMessage]:
        given, last_ns = 0, -1
        counts: Counter[str] = Counter()
        if self.is_sound:
            try:
                with Reader(self.path) as reader:  # its own, as a reader has one place in the file
                    connections = [x for x in reader.connections if x.topic in wanted]
                    records = reader.messages(connections, start_ns) if connections else ()
                    for connection, stamp_ns, raw in records:
                        given, last_ns = given + 1, stamp_ns
                        counts[connection.topic] += 1
                        yield BagMessage(connection.topic, connection.msgtype, stamp_ns, raw)
                # Zeros over the head of a chunk read as no checksum, and as records of nothing.
                for topic in self.topics if start_ns <= min(self.stamps_ns, default=0) else ():
                    if topic.name in wanted and counts[topic.name] < topic.count:
                        there = f'{counts[topic.name]} messages of {topic.name}'
                        sentence = f'{self.path.name} holds {there}, its index {topic.count}'
                        note(self._problems, f'{sentence}: the others are lost')
                return
            except Exception as error:
                note(self._problems, f'{self.path.name} is damaged ({error}): messages are missing')
        with contextlib.suppress(BadBag, OSError):  # has been said already
            for message in self._stream(self.path, dict(self._channels), self._problems):
                if message.topic in wanted and message.bag_stamp_ns >= start_ns:
                    given -= 1
                    if given < 0 or message.bag_stamp_ns > last_ns:
                        yield message


def _topic(name: str, info: interfaces.TopicInfo) -> BagTopic:
    extras = [x.ext for x in info.connections if isinstance(x.ext, interfaces.ConnectionExtRosbag2)]
    offered = [qos for extra in extras for qos in extra.offered_qos_profiles]
    reliabilities = {qos.reliability.name for qos in offered} & {'RELIABLE', 'BEST_EFFORT'}
    best_effort = 'BEST_EFFORT' in reliabilities if reliabilities else None
    latched = any(qos.durability.name == 'TRANSIENT_LOCAL' for qos in offered)
    return BagTopic(name, info.connections[0].msgtype, info.msgcount, best_effort, latched)


class Bag:
    """A recording, opened for reading as a context manager.

    Iterators of `messages` are independent of each other and may run in other threads.

    Args:
        path: rosbag2 folder, .mcap or .db3 file.

    Attributes:
        topics: Topics by name.
        start_ns: Earliest bag stamp (0 where there are no messages).
        end_ns: Latest bag stamp.
        custom_data: Notes of whoever recorded it, from metadata.yaml; empty for a file alone.
        problems: One sentence for each thing that is damaged or unreadable; grows while reading.

    Raises:
        BadBag: Nothing in it can be read.

    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.problems: list[str] = []
        self.custom_data: dict[str, str] = {}
        self._files: list[_Storage] = []
        with contextlib.ExitStack() as self._temporary:
            self._open()
            self._temporary = self._temporary.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            file.close()
        self._temporary.close()  # removes what was unpacked

    def _open(self) -> None:
        if not self.path.exists():
            raise BadBag(f'there is no recording at {self.path}')
        paths, promised = self._storage_files() if self.path.is_dir() else ([self.path], None)
        failures = []
        for path in paths:
            try:
                self._files.append(self._open_file(path))
            except (BadBag, OSError) as error:
                failures.append(str(error))
        if not self._files:
            raise BadBag('; '.join(failures))
        for failure in failures:
            note(self.problems, failure)
        self._files.sort(key=lambda file: file.stamps_ns)
        stamps_ns = [stamp_ns for file in self._files for stamp_ns in file.stamps_ns]
        self.start_ns, self.end_ns = min(stamps_ns, default=0), max(stamps_ns, default=0)
        self.topics: dict[str, BagTopic] = {}
        for topic in itertools.chain.from_iterable(file.topics for file in self._files):
            known = self.topics.get(topic.name)
            count = topic.count + (known.count if known else 0)
            self.topics[topic.name] = replace(known or topic, count=count)
        readable = sum(topic.count for topic in self.topics.values())
        if promised is not None and promised != readable:
            sentence = f'metadata.yaml promises {promised} messages, the storage holds {readable}'
            note(self.problems, sentence)

    def _storage_files(self) -> tuple[list[Path], int | None]:
        """Find the folder's storage files and the message count that its metadata promises."""
        try:
            metadata = read_yaml(self.path / 'metadata.yaml')
            information = metadata['rosbag2_bagfile_information']
            names = [PurePosixPath(str(name)).name for name in information['relative_file_paths']]
            promised = int(information['message_count'])
            notes = dict(information.get('custom_data') or {})
            self.custom_data = {str(key): str(value) for key, value in notes.items()}
        except (OSError, KeyError, TypeError, ValueError, OverflowError):
            note(self.problems, 'metadata.yaml is missing or damaged: the storage itself was read')
            names, promised = [], None
        for name in names:
            if not (self.path / name).is_file():
                note(self.problems, f'{name} is listed in metadata.yaml but absent')
        found = [
            path for path in self.path.iterdir() if path.suffix in {*_STREAMS, '.zstd', '.bag'}
        ]
        if not found:
            raise BadBag(f'{self.path} holds no .mcap or .db3 file')
        return [path for path in found if path.name in names] or found, promised

    def _open_file(self, path: Path) -> _Storage:
        if path.suffix == '.bag':
            command = f'rosbags-convert --src {path} --dst {path.with_suffix("")}'
            raise BadBag(f'{path.name} is a ROS 1 recording; convert it first: {command}')
        unpacked = self._unpacked(path) if path.suffix == '.zstd' else path
        if unpacked.suffix not in _STREAMS:
            raise BadBag(f'{path.name} is neither an .mcap nor a .db3 file')
        return _Storage(unpacked, self.problems)

    def _unpacked(self, path: Path) -> Path:
        folder = self._temporary.enter_context(tempfile.TemporaryDirectory(prefix='bag_'))
        unpacked = Path(folder) / path.stem
        with path.open('rb') as packed, unpacked.open('wb') as file:
            try:
                shutil.copyfileobj(zstandard.ZstdDecompressor().stream_reader(packed), file)
            except zstandard.ZstdError as error:
                note(self.problems, f'{path.name} unpacks only in part ({error})')
        return unpacked

    def messages(
        self, topics: Collection[str] | None = None, *, start_ns: int | None = None
    ) -> Iterator[BagMessage]:
        """Iterate over the messages by bag stamp; in the order of the file where it is damaged.

        Args:
            topics: Names of the topics wanted; None for all.
            start_ns: Leave out messages recorded before this bag stamp.

        Yields:
            Messages. What cannot be read is left out and said in `problems`.

        """
        wanted = self.topics.keys() & (self.topics if topics is None else topics)
        for file in self._files if wanted else ():
            yield from self._unpacked_messages(file.messages(wanted, start_ns or 0))

    def messages_at(self, topic: str, bag_stamp_ns: int) -> list[BagMessage]:
        """Read the messages of one topic that were recorded at one instant, in no given order.

        Files stay open for the next call. Those that cannot be searched (damaged ones, mcap
        without chunks) are read from the start once, and the topic copied to a temporary file.
        """
        covering = [file for file in self._files if file.covers(bag_stamp_ns)]
        found = [message for file in covering for message in file.at(topic, bag_stamp_ns)]
        return list(self._unpacked_messages(found))

    def _unpacked_messages(self, messages: Iterable[BagMessage]) -> Iterator[BagMessage]:
        """Undo message-wise compression, leaving out what does not unpack."""
        for message in messages:
            try:
                # CDR starts with a zero byte, so this is message-wise compression.
                if message.raw.startswith(b'\x28\xb5\x2f\xfd'):
                    unpacked = zstandard.ZstdDecompressor().decompressobj().decompress(message.raw)
                    yield replace(message, raw=unpacked)
                else:
                    yield message
            except zstandard.ZstdError as error:
                place = f'a message of {message.topic} at {message.bag_stamp_ns} ns'
                note(self.problems, f'{place} cannot be decompressed ({error})')

    def deserialise(self, message: BagMessage) -> Any:
        """Turn a raw message into an object with the type's fields as attributes.

        Arrays are numpy arrays, large ones read-only views of `message.raw`. The definition
        recorded in the bag is used, else that of ROS 2 Jazzy.

        Raises:
            BadBag: This one message is damaged, or its type is not known.

        """
        place = f'{message.topic}: a message recorded at {message.bag_stamp_ns} ns'
        if message.msgtype not in self._typestore.fielddefs:
            raise BadBag(f'{place} has no definition of {message.msgtype}, no standard type')
        try:
            return self._typestore.deserialize_cdr(message.raw, message.msgtype)
        except Exception as error:  # whatever a foreign parser makes of foreign bytes
            reason = f'does not deserialise as {message.msgtype} ({error})'
            raise BadBag(f'{place} {reason}') from error

    @functools.cached_property
    def _typestore(self) -> Typestore:
        types = dict(_standard_types().fielddefs)
        for path in [file.path for file in self._files if file.is_sound]:
            try:
                with AnyReader([path], default_typestore=_standard_types()) as reader:
                    types.update(reader.typestore.fielddefs)
            except Exception as error:  # the standard definitions have to do
                sentence = f'the message definitions in {path.name} are of no use ({error})'
                note(self.problems, sentence)
        if types == _standard_types().fielddefs:
            return _standard_types()  # a store of its own would take a tenth of a second
        store = get_typestore(Stores.EMPTY)
        store.register(types)
        return store


@functools.cache
def _standard_types() -> Typestore:
    return get_typestore(Stores.ROS2_JAZZY)


def message_class(msgtype: str) -> Any:
    """Return the dataclass of a standard message type, to build messages for `BagWriter`.

    Raises:
        KeyError: No such standard type.

    """
    return _standard_types().types[msgtype]


class _CheckedMcap(McapWriter):
    """Fills in the checksums that mcap provides for, and the library leaves at zero."""

    def close_chunk(self) -> None:
        with self.chunk.bio.getbuffer() as content:
            checksum = zlib.crc32(content)
        start = self.bio.tell()
        super().close_chunk()
        end = self.bio.tell()
        # Behind the record's head, two stamps and a size.
        self.bio.seek(start + 9 + 24)
        self.bio.write(struct.pack('<I', checksum))
        self.bio.seek(end)

    def close(self, version: int, metadata: str) -> None:
        super().close(version, metadata)
        with self.path.open('r+b') as file:
            checksum = zlib.crc32(_mcap_summary(file)[:-12])
            file.seek(-12, os.SEEK_END)
            file.write(struct.pack('<I', checksum))


class _CheckedWriter(Writer):
    STORAGE_PLUGINS = {**Writer.STORAGE_PLUGINS, StoragePlugin.MCAP: _CheckedMcap}


class BagWriter:
    """Writes a rosbag2 folder. A context manager; leaving it by an exception discards the index.

    Args:
        path: Folder to create; it must not exist.
        storage: Storage plugin.

    Raises:
        BadBag: On entry: the folder exists or cannot be made.
        OSError: On leaving: the disk refuses; names the folder.

    """

    def __init__(self, path: Path, *, storage: Literal['mcap', 'sqlite3'] = 'mcap') -> None:
        self.path = Path(path)
        self._plugin = StoragePlugin[storage.upper()]
        self._connections: dict[str, interfaces.Connection] = {}

    def __enter__(self) -> Self:
        if self.path.exists():
            raise BadBag(f'{self.path} exists already; name another folder or remove it')
        try:
            self._writer = _CheckedWriter(self.path, version=9, storage_plugin=self._plugin)
            self._writer.open()
        except OSError as error:
            raise BadBag(f'{self.path} cannot be created ({error.strerror})') from error
        return self

    def __exit__(self, *details: Any) -> None:
        with self._on_the_disk():
            self._writer.__exit__(*details)

    @contextlib.contextmanager
    def _on_the_disk(self) -> Iterator[None]:
        """Have what the disk refuses name the folder."""
        try:
            yield
        except OSError as error:
            error.filename, error.filename2 = str(self.path), None
            raise
        except Exception as error:  # SQLite's own
            raise OSError(f'{self.path} cannot be written ({error})') from error

    def add_topic(
        self, topic: str, msgtype: str, *, best_effort: bool = False, transient_local: bool = False
    ) -> None:
        """Declare a topic with the QoS its publisher is to have offered.

        Topics that are written without being declared carry no QoS.
        """
        reliability = (
            interfaces.QosReliability.BEST_EFFORT
            if best_effort
            else interfaces.QosReliability.RELIABLE
        )
        durability = (
            interfaces.QosDurability.TRANSIENT_LOCAL
            if transient_local
            else interfaces.QosDurability.VOLATILE
        )
        never, automatic = interfaces.QosTime(0, 0), interfaces.QosLiveliness.AUTOMATIC
        kept = (interfaces.QosHistory.KEEP_LAST, 10, reliability, durability)
        self._connect(
            topic, msgtype, (interfaces.Qos(*kept, never, never, automatic, never, False),)
        )

    def _connect(
        self, topic: str, msgtype: str, offered: tuple[interfaces.Qos, ...]
    ) -> interfaces.Connection:
        self._connections[topic] = self._writer.add_connection(
            topic, msgtype, typestore=_standard_types(), offered_qos_profiles=offered
        )
        return self._connections[topic]

    def note(self, key: str, value: str) -> None:
        """Set an entry of the recording's custom data, which goes into metadata.yaml."""
        self._writer.set_custom_data(key, value)

    def write(self, topic: str, msgtype: str, bag_stamp_ns: int, msg: Any) -> None:
        """Append a message: an object with the fields of its standard type, or CDR bytes.

        Raises:
            BadBag: The object does not fit the type.
            OSError: The disk refuses; names the folder.

        """
        connection = self._connections.get(topic) or self._connect(topic, msgtype, ())
        try:
            is_raw = isinstance(msg, bytes | memoryview)
            raw = msg if is_raw else _standard_types().serialize_cdr(msg, msgtype)
        except Exception as error:  # generated code raises whatever the field makes it
            raise BadBag(f'{topic}: it does not serialise as {msgtype} ({error})') from error
        with self._on_the_disk():
            self._writer.write(connection, bag_stamp_ns, raw)


def static_transforms(bag: Bag) -> list[Any]:
    """Read every geometry_msgs/TransformStamped of the recording's `/tf_static` topics."""
    names = [name for name in tf_topics(bag) if name.endswith('/tf_static')]
    return list(_transforms(bag, names))


def moving_transforms(bag: Bag) -> Iterator[Any]:
    """Iterate over the geometry_msgs/TransformStamped of `/tf`, in record order."""
    yield from _transforms(bag, [x for x in tf_topics(bag) if not x.endswith('/tf_static')])


def tf_topics(bag: Bag) -> list[str]:
    """Names of the recording's tf2_msgs/TFMessage topics."""
    return [topic.name for topic in bag.topics.values() if topic.msgtype == TF_TYPE]


def _transforms(bag: Bag, names: list[str]) -> Iterator[Any]:
    for message in bag.messages(names):
        try:
            transforms = bag.deserialise(message).transforms
        except BadBag as error:
            note(bag.problems, str(error))
            continue
        yield from transforms
