# SPDX-License-Identifier: Apache-2.0
"""The checksums of mcap files: compared when reading, filled in when writing."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import IO

from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.rosbag2.storage_mcap import McapWriter

from cross4d_jepa_ros.bags.messages import BadBag

# An mcap file's footer record and the magic behind it.
_MCAP_END = 37


def check_summary(path: Path) -> None:
    """Compare the index of an mcap file with its checksum, where it has one.

    Raises:
        BadBag: They differ.
        OSError: It cannot be read, or is shorter than an end.

    """
    with path.open('rb') as file:
        content = mcap_summary(file)
    checksum = int.from_bytes(content[-12:-8], 'little')
    if checksum and zlib.crc32(content[:-12]) != checksum:
        raise BadBag(f'the index of {path.name} is damaged: it is read from its start')


def mcap_summary(file: IO[bytes]) -> bytes:
    """Read an mcap file from where its summary begins to its end; only the end without one."""
    end = file.seek(-_MCAP_END, os.SEEK_END)
    (start,) = struct.unpack('<Q', file.read(_MCAP_END)[9:17])
    file.seek(start if 0 < start <= end else end)
    return file.read()


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
            checksum = zlib.crc32(mcap_summary(file)[:-12])
            file.seek(-12, os.SEEK_END)
            file.write(struct.pack('<I', checksum))


class CheckedWriter(Writer):
    STORAGE_PLUGINS = {**Writer.STORAGE_PLUGINS, StoragePlugin.MCAP: _CheckedMcap}
