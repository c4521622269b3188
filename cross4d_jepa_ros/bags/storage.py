# SPDX-License-Identifier: Apache-2.0
"""One storage file of a recording, however much of it can be read."""

from __future__ import annotations

import contextlib
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

from rosbags import interfaces
from rosbags.rosbag2 import Reader

from cross4d_jepa_ros.bags.checksums import check_summary
from cross4d_jepa_ros.bags.messages import BadBag, BagMessage, BagTopic, note
from cross4d_jepa_ros.bags.streams import STREAMS


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


class Storage:
    """One storage file, by the library's reader as far as that gets, then by streaming it."""

    def __init__(self, path: Path, problems: list[str]) -> None:
        self.path = path
        self.topics: list[BagTopic] = []
        self.stamps_ns: list[int] = []  # first and last
        self._problems = problems
        self._stream = STREAMS[path.suffix]
        self._reader: Reader | None = None
        self._spools: dict[str, _Spool] = {}
        self._seekable = False
        self._channels: dict[int, tuple[str, str]] = {}
        try:
            if path.suffix == '.mcap':
                check_summary(path)
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
