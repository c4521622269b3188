# SPDX-License-Identifier: Apache-2.0
"""Storage files read from their start until they break off, without their index."""

from __future__ import annotations

import contextlib
import io
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from mcap.opcode import Opcode
from mcap.records import Channel, Chunk, DataEnd, McapRecord, Message, Schema
from mcap.stream_reader import StreamReader, breakup_chunk

from cross4d_jepa_ros.bags.messages import BadBag, BagMessage, note

_UNCHECKED = 'unchecked, as its checksum is lost'


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


STREAMS = {'.mcap': _stream_mcap, '.db3': _stream_sqlite}
