# SPDX-License-Identifier: Apache-2.0
"""Recordings: read rosbag2 folders and files, damaged ones included, and write small ones.

Indexes are used where they are sound; where they are not, the storage is scanned for what is
left, and `Bag.problems` says in sentences what was lost. Raw messages stay CDR until asked for.
"""

from __future__ import annotations

import contextlib
import functools
import heapq
import itertools
import os
import re
import shutil
import sqlite3
import struct
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, BinaryIO, Literal, Self

import numpy as np
import yaml
import zstandard
from mcap.data_stream import ReadDataStream
from mcap.opcode import Opcode
from mcap.reader import SeekingReader
from mcap.records import Channel, Chunk, Message, Schema
from mcap.stream_reader import breakup_chunk
from numpy.typing import NDArray
from rosbags.interfaces import (
    Connection,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

MAX_PROBLEMS = 100
TF_TYPE = 'tf2_msgs/msg/TFMessage'

_MCAP_MAGIC = b'\x89MCAP0\r\n'
_SQLITE_MAGIC = b'SQLite format 3\0'
_ROS1_MAGIC = b'#ROSBAG'
_ZSTD_MAGIC = b'\x28\xb5\x2f\xfd'
_STORAGE_NAME = re.compile(r'\.(mcap|db3)(\.zstd)?$')
_IDL_RULE = '=' * 80 + '\n'
_LOOSE_RUN_BYTES = 4 << 20
_CHUNK_LIMIT_BYTES = 2 << 30
_UNLIMITED = QosTime(0, 0)


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
        count: Readable messages.
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


@dataclass
class _Contents:
    """What one storage file turned out to hold."""

    topics: dict[str, BagTopic] = field(default_factory=dict)
    definitions: dict[str, tuple[str, str]] = field(default_factory=dict)  # type: encoding, text
    start_ns: int | None = None
    end_ns: int | None = None

    def add_topic(self, name: str, msgtype: str, count: int, profiles: str) -> None:
        best_effort, transient_local = _offered_qos(profiles)
        known = self.topics.get(name)
        if known is None:
            self.topics[name] = BagTopic(name, msgtype, count, best_effort, transient_local)
            return
        self.topics[name] = _merged(
            known, BagTopic(name, msgtype, count, best_effort, transient_local)
        )


def _merged(one: BagTopic, other: BagTopic) -> BagTopic:
    """Add up two entries of the same topic (two publishers, or two files of a split bag)."""
    offers = [x.offered_best_effort for x in (one, other) if x.offered_best_effort is not None]
    return BagTopic(
        one.name,
        one.msgtype,
        one.count + other.count,
        any(offers) if offers else None,
        one.transient_local or other.transient_local,
    )


def _offered_qos(profiles: str) -> tuple[bool | None, bool]:
    """Read (best effort, transient local) from recorded QoS text, by name or by rmw number."""
    try:
        entries = yaml.safe_load(profiles) or []
        reliabilities = [str(entry['reliability']).lower() for entry in entries]
        durabilities = [str(entry['durability']).lower() for entry in entries]
    except (yaml.YAMLError, TypeError, KeyError):
        return None, False
    best_effort = any(value in {'2', 'best_effort'} for value in reliabilities)
    reliable = any(value in {'1', 'reliable'} for value in reliabilities)
    latched = any(value in {'1', 'transient_local'} for value in durabilities)
    return (best_effort if best_effort or reliable else None), latched


@dataclass(frozen=True)
class _Span:
    """A piece of an mcap file that is read at once: a chunk, or a run of unchunked messages."""

    start_ns: int
    end_ns: int
    offset: int
    length: int
    is_chunk: bool
    channels: frozenset[int] | None  # None: not known before it is read


class _McapFile:
    """An mcap file, by its index or, where that is missing or wrong, by scanning it once."""

    def __init__(self, path: Path, problems: list[str]) -> None:
        self.path = path
        self.contents = _Contents()
        self._problems = problems
        self._spans: list[_Span] = []
        self._channels: dict[int, tuple[str, str]] = {}  # id: topic, message type
        self._schemas: dict[int, Schema] = {}
        self._records: dict[int, Channel] = {}
        self._refused: set[str] = set()  # encodings other than CDR
        with path.open('rb') as file:
            self._size = os.fstat(file.fileno()).st_size
            try:
                counts = self._read_index(file)
            except Exception:  # any damage at all means a scan
                counts = None
            if counts is None:
                self._forget()
                counts = self._scan(file)
        if self._channels or not self._refused:
            self._summarise(counts)
            return
        encodings = ', '.join(sorted(self._refused))
        hint = '; convert ROS 1 recordings with rosbags-convert' if 'ros1' in encodings else ''
        msg = f'{path.name} holds no CDR messages but {encodings} ones, not ROS 2{hint}'
        raise BadBag(msg)

    def _forget(self) -> None:
        self._spans.clear()
        self._channels.clear()
        self._schemas.clear()
        self._records.clear()
        self._refused.clear()

    def _add_channel(self, record: Channel) -> None:
        if record.message_encoding != 'cdr':
            self._refused.add(record.message_encoding or 'unnamed')
            return
        schema = self._schemas.get(record.schema_id)
        if schema is None:
            return
        self._records[record.id] = record
        self._channels[record.id] = (record.topic, schema.name)

    def _read_index(self, file: BinaryIO) -> Counter[int] | None:
        """Take spans, channels and counts from the summary; None where a scan is needed."""
        summary = SeekingReader(file, record_size_limit=self._size).get_summary()
        if summary is None or summary.statistics is None or not summary.channels:
            return None
        self._schemas.update(summary.schemas)
        for channel in summary.channels.values():
            self._add_channel(channel)
        for index in summary.chunk_indexes:
            file.seek(index.chunk_start_offset)
            if file.read(9) != struct.pack('<BQ', Opcode.CHUNK, index.chunk_length - 9):
                return None
            self._spans.append(
                _Span(
                    index.message_start_time,
                    index.message_end_time,
                    index.chunk_start_offset,
                    index.chunk_length,
                    True,
                    frozenset(index.message_index_offsets) or None,
                )
            )
        statistics = summary.statistics
        missing_schema = len(self._channels) < len(summary.channels) and not self._refused
        if missing_schema or (statistics.message_count and not self._spans):
            return None
        return Counter(statistics.channel_message_counts)

    def _scan(self, file: BinaryIO) -> Counter[int]:
        """Walk over the records from the start until the end or the first unreadable one."""
        counts: Counter[int] = Counter()
        run: list[tuple[int, int, int]] = []  # stamp, offset and length of unchunked messages

        def close_run() -> None:
            if run:
                stamps = [stamp for stamp, _, _ in run]
                offset = run[0][1]
                length = run[-1][1] + run[-1][2] - offset
                self._spans.append(_Span(min(stamps), max(stamps), offset, length, False, None))
                run.clear()

        file.seek(len(_MCAP_MAGIC))
        complete = False
        while not complete:
            offset = file.tell()
            head = file.read(9)
            length = struct.unpack('<Q', head[1:])[0] if len(head) == 9 else self._size
            if offset + 9 + length > self._size:
                # Of an uncompressed chunk that was cut, the records in front of the cut are good.
                if head[:1] == bytes([Opcode.CHUNK]) and _is_uncompressed(file.read(32)):
                    file.seek(offset + 9 + 40)
                    continue
                break
            opcode = head[0]
            if opcode == Opcode.MESSAGE and length >= 22:
                channel, _, stamp = struct.unpack('<HIQ', file.read(14))
                counts[channel] += 1
                if run and offset + length - run[0][1] > _LOOSE_RUN_BYTES:
                    close_run()
                run.append((stamp, offset, 9 + length))
            else:
                close_run()
                if opcode in (Opcode.SCHEMA, Opcode.CHANNEL, Opcode.CHUNK):
                    self._scan_record(opcode, file.read(length), offset, counts)
                complete = opcode in (Opcode.DATA_END, Opcode.FOOTER)
            file.seek(offset + 9 + length)
        close_run()
        if not complete:
            self._problems.append(
                f'{self.path.name} was cut short or damaged at byte {offset} of {self._size}: '
                f'{sum(counts.values())} messages before it can be read'
            )
        return counts

    def _scan_record(self, opcode: int, body: bytes, offset: int, counts: Counter[int]) -> None:
        stream = ReadDataStream(BytesIO(body))
        try:
            if opcode == Opcode.SCHEMA:
                schema = Schema.read(stream)
                self._schemas[schema.id] = schema
                return
            if opcode == Opcode.CHANNEL:
                self._add_channel(Channel.read(stream))
                return
            records = _chunk_records(body)
        except Exception as error:  # one bad record must not hide the others
            note(
                self._problems, f'{self.path.name}: a record at byte {offset} is damaged ({error})'
            )
            return
        stamps = []
        for record in records:
            if isinstance(record, Schema):
                self._schemas[record.id] = record
            elif isinstance(record, Channel):
                self._add_channel(record)
            elif isinstance(record, Message):
                counts[record.channel_id] += 1
                stamps.append(record.log_time)
        if stamps:
            self._spans.append(_Span(min(stamps), max(stamps), offset, 9 + len(body), True, None))

    def _summarise(self, counts: Counter[int]) -> None:
        for identifier, (topic, msgtype) in self._channels.items():
            record = self._records[identifier]
            profiles = record.metadata.get('offered_qos_profiles', '')
            self.contents.add_topic(topic, msgtype, counts[identifier], profiles)
            schema = self._schemas[record.schema_id]
            text = schema.data.decode(errors='replace')
            if text:
                self.contents.definitions[msgtype] = (schema.encoding, text)
        self._spans.sort(key=lambda span: (span.start_ns, span.offset))
        if self._spans and sum(counts.values()):
            self.contents.start_ns = self._spans[0].start_ns
            self.contents.end_ns = max(span.end_ns for span in self._spans)

    def messages(
        self, topics: Collection[str] | None, start_ns: int | None
    ) -> Iterator[BagMessage]:
        wanted = {
            identifier: (topic, msgtype)
            for identifier, (topic, msgtype) in self._channels.items()
            if topics is None or topic in topics
        }
        spans = [
            span
            for span in self._spans
            if (start_ns is None or span.end_ns >= start_ns)
            and (span.channels is None or not span.channels.isdisjoint(wanted))
        ]
        order = itertools.count()
        held: list[tuple[int, int, Message]] = []  # a heap: chunks may overlap in time

        def released(until_ns: int | None) -> Iterator[BagMessage]:
            while held and (until_ns is None or held[0][0] < until_ns):
                stamp_ns, _, record = heapq.heappop(held)
                topic, msgtype = wanted[record.channel_id]
                yield BagMessage(topic, msgtype, stamp_ns, record.data)

        with self.path.open('rb') as file:
            for span in spans:
                yield from released(span.start_ns)
                for record in self._read_span(file, span):
                    if record.channel_id in wanted and (
                        start_ns is None or record.log_time >= start_ns
                    ):
                        heapq.heappush(held, (record.log_time, next(order), record))
            yield from released(None)

    def _read_span(self, file: BinaryIO, span: _Span) -> list[Message]:
        file.seek(span.offset)
        data = file.read(span.length)
        try:
            if span.is_chunk:
                if len(data) < span.length or data[0] != Opcode.CHUNK:
                    msg = 'no chunk where the index says'
                    raise BadBag(msg)
                records = _chunk_records(data[9:])
            else:
                records = breakup_chunk(Chunk('', data, 0, 0, 0, len(data)))
        except Exception as error:  # the other chunks are still good
            note(
                self._problems,
                f'{self.path.name}: the chunk at byte {span.offset} is damaged and was '
                f'left out ({error})',
            )
            return []
        return [record for record in records if isinstance(record, Message)]


def _is_uncompressed(chunk_start: bytes) -> bool:
    """Tell by the empty name of its compression, behind 28 bytes of times, size and CRC."""
    return chunk_start[28:] == bytes(4)


def _chunk_records(body: bytes) -> list[Any]:
    """Parse a chunk record's body into its schemas, channels and messages, checking its CRC."""
    chunk = Chunk.read(ReadDataStream(BytesIO(body)))
    if chunk.uncompressed_size > _CHUNK_LIMIT_BYTES:
        msg = f'it claims {chunk.uncompressed_size} bytes'
        raise BadBag(msg)
    return list(breakup_chunk(chunk, validate_crc=True))


class _SqliteFile:
    """A sqlite3 storage file. Rows are indexed once and then fetched one by one.

    That way a damaged page costs the rows on it and little more, not all those behind it.
    """

    def __init__(self, path: Path, problems: list[str]) -> None:
        self.path = path
        self.contents = _Contents()
        self._problems = problems
        with contextlib.closing(self._connect()) as database:
            try:
                columns = {row[1] for row in database.execute('PRAGMA table_info(topics)')}
                profiles = 'offered_qos_profiles' if 'offered_qos_profiles' in columns else "''"
                rows = database.execute(f'SELECT id, name, type, {profiles} FROM topics').fetchall()
                if not columns:
                    msg = f'{path.name} is an SQLite database without the tables of a recording'
                    raise BadBag(msg)
            except sqlite3.Error as error:
                msg = f'{path.name} is damaged where its topics are listed ({error})'
                raise BadBag(msg) from None
            with contextlib.suppress(sqlite3.Error):  # absent before Iron
                self.contents.definitions.update(
                    {
                        msgtype: (encoding, text)
                        for msgtype, encoding, text in database.execute(
                            'SELECT topic_type, encoding, encoded_message_definition '
                            'FROM message_definitions'
                        )
                        if text
                    }
                )
            index = self._index(database)
        index = index[np.argsort(index[:, 2], kind='stable')]
        self._row_ids, topic_ids, self._stamps = index.T
        self._topics = {
            identifier: (str(name), str(msgtype)) for identifier, name, msgtype, _ in rows
        }
        self._topic_ids = topic_ids
        for identifier, name, msgtype, offered in rows:
            count = int(np.count_nonzero(topic_ids == identifier))
            self.contents.add_topic(str(name), str(msgtype), count, str(offered))
        if len(index):
            self.contents.start_ns = int(self._stamps[0])
            self.contents.end_ns = int(self._stamps[-1])

    def _connect(self) -> sqlite3.Connection:
        # An unfinished recording keeps its newest rows beside the file, in its write-ahead log,
        # which an immutable database would not look at.
        log = self.path.with_name(self.path.name + '-wal')
        mode = 'mode=ro' if log.is_file() and log.stat().st_size else 'mode=ro&immutable=1'
        database = sqlite3.connect(f'{self.path.resolve().as_uri()}?{mode}', uri=True)
        # Lets SQLite open a file that is shorter than its header promises. Nothing is written.
        database.execute('PRAGMA writable_schema=ON')
        return database

    def _index(self, database: sqlite3.Connection) -> NDArray[np.int64]:
        """List (row id, topic id, stamp) of every readable row, stepping over damaged pages."""
        rows: list[tuple[int, int, int]] = []
        query = 'SELECT id, topic_id, timestamp FROM messages WHERE id > ? ORDER BY id'
        after, step = -1, 1
        damage = ''
        while True:
            try:
                for row in database.execute(query, (after,)):
                    if all(isinstance(value, int) for value in row):
                        rows.append(row)
                        after, step = max(after, row[0]), 1
                break
            except sqlite3.Error as error:
                damage = damage or str(error)
                after, step = after + step, step * 2
                if step > 1 << 40:
                    break
        if damage:
            self._problems.append(
                f'{self.path.name} was cut short or damaged ({damage}): '
                f'{len(rows)} messages can be read'
            )
        return np.array(rows, np.int64).reshape(-1, 3)

    def messages(
        self, topics: Collection[str] | None, start_ns: int | None
    ) -> Iterator[BagMessage]:
        wanted = [
            identifier
            for identifier, (topic, _) in self._topics.items()
            if topics is None or topic in topics
        ]
        chosen = np.isin(self._topic_ids, wanted)
        if start_ns is not None:
            chosen &= self._stamps >= start_ns
        with contextlib.closing(self._connect()) as database:
            for position in np.flatnonzero(chosen):
                topic, msgtype = self._topics[int(self._topic_ids[position])]
                row_id = int(self._row_ids[position])
                try:
                    found = database.execute('SELECT data FROM messages WHERE id = ?', (row_id,))
                    raw = found.fetchone()[0]
                    message = BagMessage(topic, msgtype, int(self._stamps[position]), bytes(raw))
                except (sqlite3.Error, TypeError) as error:
                    problem = f'{self.path.name}: message {row_id} of {topic} is damaged ({error})'
                    note(self._problems, problem)
                    continue
                yield message


class Bag:
    """A recording, opened for reading: a rosbag2 folder, an .mcap or a .db3 file.

    Use it as a context manager. Iterators of `messages` are independent of each other and may
    run in other threads.

    Args:
        path: Folder or storage file.

    Attributes:
        topics: Topics by name.
        start_ns: Earliest bag stamp (0 where there are no messages).
        end_ns: Latest bag stamp.
        problems: One sentence for each thing that is damaged or unreadable; grows while reading.

    Raises:
        BadBag: Nothing in it can be read.

    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.problems: list[str] = []
        self._temporary = contextlib.ExitStack()
        self._files: list[_McapFile | _SqliteFile] = []
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        """Return the bag itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Remove what was unpacked for reading."""
        self._temporary.close()

    def _open(self) -> None:
        if not self.path.exists():
            msg = f'there is no recording at {self.path}'
            raise BadBag(msg)
        promised = None
        if self.path.is_dir():
            paths, promised = self._storage_files()
        else:
            paths = [self.path]
        failures = []
        for path in paths:
            try:
                self._files.append(self._open_file(path))
            except BadBag as error:
                failures.append(str(error))
            except OSError as error:
                failures.append(f'{path.name} cannot be read ({error.strerror or error})')
        if not self._files:
            raise BadBag('; '.join(failures))
        self.problems += failures
        self._files.sort(key=lambda file: file.contents.start_ns or 0)
        contents = [file.contents for file in self._files]
        self.topics: dict[str, BagTopic] = {}
        for topic in itertools.chain.from_iterable(x.topics.values() for x in contents):
            known = self.topics.get(topic.name)
            self.topics[topic.name] = _merged(known, topic) if known else topic
        self.start_ns = min((x.start_ns for x in contents if x.start_ns is not None), default=0)
        self.end_ns = max((x.end_ns for x in contents if x.end_ns is not None), default=0)
        readable = sum(topic.count for topic in self.topics.values())
        if promised is not None and promised != readable:
            self.problems.append(
                f'metadata.yaml promises {promised} messages, the storage holds {readable}'
            )

    def _storage_files(self) -> tuple[list[Path], int | None]:
        """Find the folder's storage files and the message count that its metadata promises."""
        try:
            text = (self.path / 'metadata.yaml').read_text(errors='replace')
            information = yaml.safe_load(text)['rosbag2_bagfile_information']
            names = [PurePosixPath(str(name)).name for name in information['relative_file_paths']]
            promised = int(information['message_count'])
        except OSError as error:
            self.problems.append(
                f'metadata.yaml cannot be read ({error.strerror}): the storage itself was read'
            )
        except (yaml.YAMLError, KeyError, TypeError, ValueError):
            self.problems.append('metadata.yaml is damaged: the storage itself was read')
        else:
            missing = [name for name in names if not (self.path / name).is_file()]
            self.problems += [f'{name} is listed in metadata.yaml but absent' for name in missing]
            if len(missing) < len(names):
                return [self.path / name for name in names if name not in missing], promised
        found = [path for path in self.path.iterdir() if _STORAGE_NAME.search(path.name)]
        if not found:
            ros1 = next(self.path.glob('*.bag'), None)
            if ros1 is not None:
                raise BadBag(_ros1_sentence(ros1))
            msg = f'{self.path} holds no .mcap or .db3 file'
            raise BadBag(msg)
        return sorted(found, key=_natural_order), None

    def _open_file(self, path: Path) -> _McapFile | _SqliteFile:
        with path.open('rb') as file:
            magic = file.read(16)
        if magic.startswith(_ZSTD_MAGIC):
            path = self._unpacked(path)
            with path.open('rb') as file:
                magic = file.read(16)
        if magic.startswith(_MCAP_MAGIC):
            return _McapFile(path, self.problems)
        if magic == _SQLITE_MAGIC:
            return _SqliteFile(path, self.problems)
        if magic.startswith(_ROS1_MAGIC):
            raise BadBag(_ros1_sentence(path))
        reason = 'begins like neither an mcap nor an SQLite file' if magic else 'is empty (0 bytes)'
        msg = f'{path.name} {reason}'
        raise BadBag(msg)

    def _unpacked(self, path: Path) -> Path:
        folder = self._temporary.enter_context(tempfile.TemporaryDirectory(prefix='bag_'))
        unpacked = Path(folder) / path.name.removesuffix('.zstd')
        with path.open('rb') as packed, unpacked.open('wb') as file:
            try:
                shutil.copyfileobj(zstandard.ZstdDecompressor().stream_reader(packed), file)
            except zstandard.ZstdError as error:
                self.problems.append(f'{path.name} unpacks only in part ({error})')
        return unpacked

    def messages(
        self, topics: Collection[str] | None = None, *, start_ns: int | None = None
    ) -> Iterator[BagMessage]:
        """Iterate over the messages in the order of their bag stamps.

        Args:
            topics: Names of the topics wanted; None for all.
            start_ns: Leave out messages recorded before this bag stamp.

        Yields:
            Messages. What cannot be read is left out and said in `problems`.

        """
        unpacker = zstandard.ZstdDecompressor()
        for file in self._files:
            for message in file.messages(topics, start_ns):
                # CDR starts with a zero byte, so this is message-wise compression.
                if not message.raw.startswith(_ZSTD_MAGIC):
                    yield message
                    continue
                try:
                    raw = unpacker.decompressobj().decompress(message.raw)
                except zstandard.ZstdError as error:
                    note(
                        self.problems,
                        f'a message of {message.topic} at {message.bag_stamp_ns} ns '
                        f'cannot be decompressed ({error})',
                    )
                    continue
                yield BagMessage(message.topic, message.msgtype, message.bag_stamp_ns, raw)

    def deserialise(self, message: BagMessage) -> Any:
        """Turn a raw message into an object with the type's fields as attributes.

        Arrays are numpy arrays, large ones read-only views of `message.raw`. The definition
        recorded in the bag is used, else that of ROS 2 Jazzy.

        Raises:
            BadBag: This one message is damaged, or its type is not known.

        """
        if message.msgtype not in self._typestore.fielddefs:
            msg = (
                f'{message.topic}: the bag has no definition of {message.msgtype} '
                'and it is not a standard type'
            )
            raise BadBag(msg)
        try:
            return self._typestore.deserialize_cdr(message.raw, message.msgtype)
        except Exception as error:  # whatever a foreign parser makes of foreign bytes
            msg = (
                f'{message.topic}: a message recorded at {message.bag_stamp_ns} ns '
                f'does not deserialise as {message.msgtype} ({error})'
            )
            raise BadBag(msg) from error

    @functools.cached_property
    def _typestore(self) -> Typestore:
        standard = _standard_types()
        types = dict(standard.fielddefs)
        for file in self._files:
            for msgtype, (encoding, text) in file.contents.definitions.items():
                try:
                    types.update(_parsed_definition(msgtype, encoding, text))
                except Exception as error:  # a damaged definition costs its own type only
                    self.problems.append(f'the definition of {msgtype} is damaged ({error})')
        if types == standard.fielddefs:
            return standard
        store = get_typestore(Stores.EMPTY)
        store.register(types)
        return store


def _parsed_definition(msgtype: str, encoding: str, text: str) -> dict[str, Any]:
    if encoding == 'ros2msg':
        return dict(get_types_from_msg(text, msgtype))
    types: dict[str, Any] = {}
    for part in text.split(_IDL_RULE):
        types.update(
            get_types_from_idl(part.split('\n', 1)[1] if part.startswith('IDL:') else part)
        )
    return types


def _natural_order(path: Path) -> list[tuple[int, str]]:
    """Sort key that puts `bag_2` before `bag_10`."""
    return [
        (int(part), '') if part.isdigit() else (-1, part) for part in re.split(r'(\d+)', path.name)
    ]


def _ros1_sentence(path: Path) -> str:
    return (
        f'{path.name} is a ROS 1 recording; convert it first: '
        f'rosbags-convert --src {path} --dst {path.with_suffix("")}'
    )


@functools.cache
def _standard_types() -> Typestore:
    return get_typestore(Stores.ROS2_JAZZY)


def message_class(msgtype: str) -> Any:
    """Return the dataclass of a standard message type, to build messages for `BagWriter`.

    Raises:
        KeyError: No such standard type.

    """
    return _standard_types().types[msgtype]


class BagWriter:
    """Writes a rosbag2 folder. A context manager; leaving it by an exception discards the index.

    Args:
        path: Folder to create; it must not exist.
        storage: Storage plugin.

    Raises:
        BadBag: On entry: the folder exists or cannot be made.

    """

    def __init__(self, path: Path, *, storage: Literal['mcap', 'sqlite3'] = 'mcap') -> None:
        self.path = Path(path)
        self._plugin = StoragePlugin.MCAP if storage == 'mcap' else StoragePlugin.SQLITE3
        self._connections: dict[str, Connection] = {}

    def __enter__(self) -> Self:
        """Create the folder."""
        if self.path.exists():
            msg = f'{self.path} exists already; name another folder or remove it'
            raise BadBag(msg)
        try:
            self._writer = Writer(self.path, version=9, storage_plugin=self._plugin)
            self._writer.open()
        except OSError as error:
            msg = f'{self.path} cannot be created ({error.strerror})'
            raise BadBag(msg) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Write index and metadata, or abort after an exception."""
        self._writer.__exit__(kind, error, traceback)

    def add_topic(
        self, topic: str, msgtype: str, *, best_effort: bool = False, transient_local: bool = False
    ) -> None:
        """Declare a topic with the QoS its publisher is to have offered.

        Topics that are written without being declared carry no QoS.
        """
        qos = Qos(
            QosHistory.KEEP_LAST,
            10,
            QosReliability.BEST_EFFORT if best_effort else QosReliability.RELIABLE,
            QosDurability.TRANSIENT_LOCAL if transient_local else QosDurability.VOLATILE,
            _UNLIMITED,
            _UNLIMITED,
            QosLiveliness.AUTOMATIC,
            _UNLIMITED,
            False,
        )
        self._connect(topic, msgtype, (qos,))

    def _connect(self, topic: str, msgtype: str, offered: tuple[Qos, ...]) -> Connection:
        connection = self._writer.add_connection(
            topic, msgtype, typestore=_standard_types(), offered_qos_profiles=offered
        )
        self._connections[topic] = connection
        return connection

    def write(self, topic: str, msgtype: str, bag_stamp_ns: int, msg: Any) -> None:
        """Append one message.

        Args:
            topic: Topic name.
            msgtype: Standard message type.
            bag_stamp_ns: When it was recorded.
            msg: An object with the type's fields (numpy arrays for arrays), or CDR bytes.

        Raises:
            BadBag: The object does not fit the type.

        """
        connection = self._connections.get(topic) or self._connect(topic, msgtype, ())
        if isinstance(msg, bytes | memoryview):
            raw: bytes | memoryview = msg
        else:
            try:
                raw = _standard_types().serialize_cdr(msg, msgtype)
            except Exception as error:  # generated code raises whatever the field makes it
                msg_ = f'{topic}: the message does not serialise as {msgtype} ({error})'
                raise BadBag(msg_) from error
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
