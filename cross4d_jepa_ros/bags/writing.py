# SPDX-License-Identifier: Apache-2.0
"""Writing small recordings."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Self

from rosbags import interfaces
from rosbags.rosbag2 import StoragePlugin

from cross4d_jepa_ros.bags.checksums import CheckedWriter
from cross4d_jepa_ros.bags.message_types import standard_types
from cross4d_jepa_ros.bags.messages import BadBag


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
            self._writer = CheckedWriter(self.path, version=9, storage_plugin=self._plugin)
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
            topic, msgtype, typestore=standard_types(), offered_qos_profiles=offered
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
            raw = msg if is_raw else standard_types().serialize_cdr(msg, msgtype)
        except Exception as error:  # generated code raises whatever the field makes it
            raise BadBag(f'{topic}: it does not serialise as {msgtype} ({error})') from error
        with self._on_the_disk():
            self._writer.write(connection, bag_stamp_ns, raw)
