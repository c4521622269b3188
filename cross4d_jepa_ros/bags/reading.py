# SPDX-License-Identifier: Apache-2.0
"""Reading recordings, damaged ones included."""

from __future__ import annotations

import contextlib
import functools
import itertools
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, Self

import zstandard
from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore
from rosbags.typesys.store import Typestore

from cross4d_jepa_ros.bags.message_types import standard_types
from cross4d_jepa_ros.bags.messages import BadBag, BagMessage, BagTopic, note
from cross4d_jepa_ros.bags.storage import Storage
from cross4d_jepa_ros.bags.streams import STREAMS
from cross4d_jepa_ros.reading import read_yaml


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
        self._files: list[Storage] = []
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
        found = [path for path in self.path.iterdir() if path.suffix in {*STREAMS, '.zstd', '.bag'}]
        if not found:
            raise BadBag(f'{self.path} holds no .mcap or .db3 file')
        return [path for path in found if path.name in names] or found, promised

    def _open_file(self, path: Path) -> Storage:
        if path.suffix == '.bag':
            command = f'rosbags-convert --src {path} --dst {path.with_suffix("")}'
            raise BadBag(f'{path.name} is a ROS 1 recording; convert it first: {command}')
        unpacked = self._unpacked(path) if path.suffix == '.zstd' else path
        if unpacked.suffix not in STREAMS:
            raise BadBag(f'{path.name} is neither an .mcap nor a .db3 file')
        return Storage(unpacked, self.problems)

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
        types = dict(standard_types().fielddefs)
        for path in [file.path for file in self._files if file.is_sound]:
            try:
                with AnyReader([path], default_typestore=standard_types()) as reader:
                    types.update(reader.typestore.fielddefs)
            except Exception as error:  # the standard definitions have to do
                sentence = f'the message definitions in {path.name} are of no use ({error})'
                note(self.problems, sentence)
        if types == standard_types().fielddefs:
            return standard_types()  # a store of its own would take a tenth of a second
        store = get_typestore(Stores.EMPTY)
        store.register(types)
        return store
