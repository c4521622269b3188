# SPDX-License-Identifier: Apache-2.0
"""Plays the kept corpus: every nasty message that somebody could name, with its verdict.

corpus/*.json hold lists of entries: `name`, `changes` (attribute path -> value, in a well-formed
message of the file's type, or of the kind that `base` names) and `verdict`: `used`, or a part of
the sentence with which it is refused. A value is plain JSON, or one of the makers below.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cross4d_jepa_ros.sensing.cameras import BadCalibration
from cross4d_jepa_ros.sensing.images import MalformedImage
from cross4d_jepa_ros.sensing.point_clouds import MalformedCloud
from tests.malformed import messages
from tests.malformed.readers import read_camera_info, read_cloud, read_image, read_pose
from tests.malformed.verdicts import NO_WARNINGS

pytestmark = NO_WARNINGS

CORPUS = Path(__file__).parent / 'corpus'
ENTRIES = {
    f'{file.stem}: {entry["name"]}': (file.stem, entry)
    for file in sorted(CORPUS.glob('*.json'))
    for entry in json.loads(file.read_text())
}
BASES: dict[str, Callable[..., Any]] = {
    'PointCloud2': messages.cloud,
    'Image': messages.image,
    'CompressedImage': messages.packed,
    'CameraInfo': messages.camera_info,
    'TFMessage': messages.tf,
    'Odometry': messages.odometry,
}


def _png(width: int, height: int, bits: int, colour: int, length: int = 13) -> bytes:
    body = b'IHDR' + struct.pack('>IIBBBBB', width, height, bits, colour, 0, 0, 0)
    whole = b'\x89PNG\r\n\x1a\n' + struct.pack('>I', length) + body
    return whole + struct.pack('>I', zlib.crc32(body))


def _png_of_rows(rows: int) -> bytes:
    """A PNG of 8 x 8 pixels whose data unpack to many more rows."""
    data = zlib.compress(bytes(9 * rows), 9)
    chunks = b''
    for kind, content in ((b'IDAT', data), (b'IEND', b'')):
        checksum = struct.pack('>I', zlib.crc32(kind + content))
        chunks += struct.pack('>I', len(content)) + kind + content + checksum
    return _png(8, 8, 8, 0) + chunks


def _jpeg_of_scans(scans: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    plain = messages.PACKED['progressive jpeg'][:-2]
    more = scans - plain.count(b'\xff\xda')
    return plain + plain[plain.rfind(b'\xff\xda') :] * more + b'\xff\xd9'


def _large_jpeg_of_scans(scans: int, side: int) -> bytes:
    """The same, with a size in its header that its bytes could just hold."""
    data = bytearray(_jpeg_of_scans(scans))
    at = data.index(b'\xff\xc2') + 5
    data[at : at + 4] = struct.pack('>HH', side, side)
    return bytes(data) + bytes(side * side // 1024)


MAKERS: dict[str, Callable[[Any], Any]] = {
    'zeros': bytes,
    'hex': bytes.fromhex,
    'number': float,
    'numbers': lambda texts: [float(text) for text in texts],
    'long name': lambda length: 'x' * length,
    'length': lambda counted: [counted[0]] * counted[1],
    'half of': lambda kind: messages.PACKED[kind][: len(messages.PACKED[kind]) // 2],
    'without its end': lambda kind: messages.PACKED[kind][:-4],
    'png': lambda header: _png(*header) + bytes(40),
    'png of rows': _png_of_rows,
    'jpeg of scans': _jpeg_of_scans,
    'large jpeg of scans': lambda sizes: _large_jpeg_of_scans(*sizes),
    'words': lambda words: b''.join(struct.pack('<I', int(word, 16)) for word in words),
    'fields': lambda fields: [
        SimpleNamespace(name=name, offset=offset, datatype=datatype, count=count)
        for name, offset, datatype, count in fields
    ],
    'same fields': lambda count: [
        SimpleNamespace(name='x', offset=0, datatype=7, count=1) for _ in range(count)
    ],
    'edges': lambda edges: messages.tf(edges=tuple(map(tuple, edges))).transforms,
    'numbered edges': lambda count: (
        messages.tf(edges=tuple((f'frame{i}', f'frame{i + 1}') for i in range(count))).transforms
    ),
}


def _made(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    ((maker, argument),) = value.items()
    return MAKERS[maker](argument)


def _message(kind: str, entry: dict[str, Any]) -> Any:
    message = deepcopy(BASES[kind](*([entry['base']] if 'base' in entry else [])))
    for path, value in entry['changes'].items():
        *parents, last = path.split('.')
        holder = message
        for parent in parents:
            holder = holder[int(parent)] if parent.isdigit() else getattr(holder, parent)
        if last.isdigit():
            holder[int(last)] = _made(value)
        else:
            assert hasattr(holder, last), path
            setattr(holder, last, _made(value))
    return message


def _verdict(kind: str, entry: dict[str, Any]) -> str:
    message = _message(kind, entry)
    readers: dict[str, Callable[..., Any]] = {
        'PointCloud2': read_cloud,
        'Image': read_image,
        'CompressedImage': read_image,
        'CameraInfo': read_camera_info,
    }
    if kind in readers:
        made = readers[kind](message, entry['name'])
        refused = isinstance(made, MalformedCloud | MalformedImage | BadCalibration)
        return str(made) if refused else 'used'
    buffer = read_pose(message, entry['name'], static=entry.get('static', False))
    return buffer.last_rejection or 'used'


@pytest.mark.parametrize('name', list(ENTRIES))
def test_verdict(name: str) -> None:
    kind, entry = ENTRIES[name]
    found = _verdict(kind, entry)
    if 'used' in (entry['verdict'], found):
        assert found == entry['verdict']
    else:
        assert entry['verdict'] in found


def test_there_are_enough_of_every_kind() -> None:
    assert len(ENTRIES) >= 60
    assert {kind for kind, _ in ENTRIES.values()} == BASES.keys()
