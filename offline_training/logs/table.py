# SPDX-License-Identifier: Apache-2.0
"""The index of recorded logs: one row per sweep, one Parquet file. Clouds are not copied."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cross4d_jepa_ros.files import write_atomically
from cross4d_jepa_ros.reading import open_regular
from cross4d_jepa_ros.sensing.cameras import BadCalibration, CameraModel

# Raised by every change of what the file holds.
VERSION = 2
# The same rows without a checksum: such a file cannot be told from a damaged one.
_UNCHECKED_VERSION = 1
_VERSION_KEY = b'cross4d_jepa_ros.index'
# In the footer; two bytes behind it comes the SHA-256 of the file with zeros in its place.
_CHECKSUM_KEY = 'cross4d_jepa_ros.sha256'
_NO_CHECKSUM = '0' * 64
# That of 100 drives of an hour, a sweep of which takes some 500 bytes.
_MAX_BYTES = 2 << 30

# What a row's flags may say; those of a camera are followed by ':' and its topic.
MISSING_IMAGE = 'missing_image'  # none near enough in time
UNUSABLE_IMAGE = 'unusable_image'  # damaged, or without CameraInfo or transform
NO_POSE = 'no_pose'  # no ego-motion at the stamp of the sweep, of a point or of an image
NO_DESKEW = 'no_deskew'  # points with times, but no ego-motion over them
TRUNCATED_CLOUD = 'truncated_cloud'  # header and data do not fit together
EMPTY_CLOUD = 'empty_cloud'
NO_TRANSFORM = 'no_transform'  # from the sensor to the base frame
DUPLICATE_STAMP = 'duplicate_stamp'
STAMP_REGRESSION = 'stamp_regression'
GAP = 'gap'  # sweeps before it are missing
FRAME_CHANGE = 'frame_change'
POSE_JUMP = 'pose_jump'
UNUSABLE = frozenset((TRUNCATED_CLOUD, EMPTY_CLOUD, NO_TRANSFORM, DUPLICATE_STAMP))


class BadIndex(ValueError):
    """The index cannot be used; the sentence names the file and what to do."""


@dataclass(frozen=True)
class Shot:
    """The nearest image of one camera for one sweep.

    Attributes:
        topic: Image topic, or image folder of a KITTI log.
        stamp_ns: Header stamp plus the calibration's time offset.
        message_ns: Where to read it: its bag stamp, or its file number in a KITTI log.
        offset_ns: `stamp_ns` minus the stamp of the sweep.
        camera: Of the image as recorded.
        camera_from_base: (4, 4) float64; from the base frame at the sweep's stamp to the camera at
            the image's, the ego-motion between the two included.
        coverage: Share of the sweep's points with a visible pixel in it.

    """

    topic: str
    stamp_ns: int
    message_ns: int
    offset_ns: int
    camera: CameraModel
    camera_from_base: NDArray[np.float64]
    coverage: float


@dataclass(frozen=True)
class IndexedSweep:
    """One sweep of one log.

    Attributes:
        log: Path of the bag or KITTI folder, from the index file's folder.
        topic: Of the cloud; `velodyne` in a KITTI log.
        frame_id: Of the sensor.
        stamp_ns: Header stamp.
        message_ns: Where to read it: its bag stamp, or its file number in a KITTI log.
        points: Usable points, N.
        base_from_sensor: (4, 4) float64, the shift to the ground included.
        fixed_from_base: (4, 4) float64 pose at `stamp_ns`; None without ego-motion.
        stamp_from_knot: (K, 3, 4) float32, how the sweep was deskewed (see `deskewed` in
            `sensing/deskewing.py`); None where it was not.
        intensity_ceiling: What the raw intensities are divided by.
        shots: One per camera of the log, always in the same order; None where it has no image.
        coverage: Share of the points with a visible pixel in any camera.
        flags: Each defect, by the names above.
        segment: Number within the log. Windows of sweeps never cross from one to the next: it is
            raised where the live node would forget the sweeps before.
        labels: Topic of the bag, or folder of the KITTI log, with a class for each point; '' where
            this sweep has none.

    """

    log: str
    topic: str
    frame_id: str
    stamp_ns: int
    message_ns: int
    points: int
    base_from_sensor: NDArray[np.float64]
    fixed_from_base: NDArray[np.float64] | None
    stamp_from_knot: NDArray[np.float32] | None
    intensity_ceiling: float
    shots: tuple[Shot | None, ...]
    coverage: float
    flags: tuple[str, ...]
    segment: int
    labels: str

    @property
    def usable(self) -> bool:
        """Whether its points can be read; a row that is not usable only tells of a defect."""
        return UNUSABLE.isdisjoint(self.flags)


_MATRIX = pa.list_(pa.float64(), 16)
_CAMERA = pa.struct(
    {
        **dict.fromkeys(('width', 'height'), pa.int32()),
        **dict.fromkeys(('fx', 'fy', 'cx', 'cy'), pa.float64()),
        'distortion': pa.string(),
        'coefficients': pa.list_(pa.float64()),
        'translation': pa.list_(pa.float64(), 3),
    }
)
_SHOT = pa.struct(
    {
        'topic': pa.string(),
        **dict.fromkeys(('stamp_ns', 'message_ns', 'offset_ns'), pa.int64()),
        'camera': _CAMERA,
        'camera_from_base': _MATRIX,
        'coverage': pa.float64(),
    }
)
_SCHEMA = pa.schema(
    {
        **dict.fromkeys(('log', 'topic', 'frame_id'), pa.string()),
        **dict.fromkeys(('stamp_ns', 'message_ns', 'points'), pa.int64()),
        'base_from_sensor': _MATRIX,
        'fixed_from_base': _MATRIX,
        'stamp_from_knot': pa.list_(pa.float32()),
        'intensity_ceiling': pa.float64(),
        'shots': pa.list_(_SHOT),
        'coverage': pa.float64(),
        'flags': pa.list_(pa.string()),
        'segment': pa.int32(),
        'labels': pa.string(),
    },
    metadata={_VERSION_KEY: str(VERSION).encode()},
)


def log_name(path: Path, folder: Path) -> str:
    """Name a log in an index.

    Args:
        path: Bag or KITTI folder.
        folder: Of the index file.

    Returns:
        The path from the folder, with `/`.

    """
    return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()


class Index:
    """All sweeps of some logs.

    Attributes:
        rows: By log, segment and stamp. Within a log that is the order of the stamps, unless the
            clock jumped back.
        folder: What the rows' `log` starts from.

    """

    def __init__(self, rows: Iterable[IndexedSweep], folder: Path) -> None:
        """Sort the rows; nothing is read."""
        self.rows = sorted(rows, key=lambda row: (row.log, row.segment, row.stamp_ns))
        self.folder = folder

    def path_of(self, row: IndexedSweep) -> Path:
        """Where the log of a row lies."""
        return Path(os.path.normpath(self.folder / row.log))

    def sweeps(self) -> set[tuple[Path, int]]:
        """Where the log of each usable sweep lies, and its stamp in ns."""
        return {(self.path_of(row).resolve(), row.stamp_ns) for row in self.rows if row.usable}

    def segments(self) -> list[list[IndexedSweep]]:
        """Return the usable sweeps of each segment of each log, oldest first."""
        usable = (row for row in self.rows if row.usable)
        return [list(rows) for _, rows in groupby(usable, key=lambda row: (row.log, row.segment))]

    def save(self, path: Path) -> None:
        """Write the Parquet file, atomically.

        Args:
            path: Target; the logs' names are made to start from its folder.

        Raises:
            BadIndex: There is no row.
            OSError: The disk refuses; an older file stays.

        """
        if not self.rows:
            msg = f'{path} would hold no sweep: index a recording that has some'
            raise BadIndex(msg)
        rows = self.rows
        if path.parent.resolve() != self.folder.resolve():
            rows = [replace(row, log=log_name(self.path_of(row), path.parent)) for row in self.rows]
        table = pa.Table.from_pylist([_as_dict(row) for row in rows], _SCHEMA)
        stream = pa.BufferOutputStream()
        with pq.ParquetWriter(stream, _SCHEMA, compression='zstd') as writer:
            writer.write_table(table)
            writer.add_key_value_metadata({_CHECKSUM_KEY: _NO_CHECKSUM})
        content = stream.getvalue().to_pybytes()
        write_atomically(path, _with_checksum(content, _checksum(content)))

    @staticmethod
    def load(path: Path) -> Index:
        """Read a file of `save`.

        Raises:
            BadIndex: It is not there, is no Parquet file, is damaged, is of another version, or
                lacks rows or columns.

        """
        path = Path(path)
        advice = 'make it with python -m offline_training.index_bags'
        if not path.is_file():
            msg = f'there is no index at {path}; {advice}'
            raise BadIndex(msg)
        try:
            table, is_checked = _read_table(path)
        except (pa.ArrowException, OSError, ValueError) as error:
            msg = f'{path} is no Parquet file or a damaged one ({error}); {advice}'
            raise BadIndex(msg) from error
        version = (table.schema.metadata or {}).get(_VERSION_KEY, b'none').decode(errors='replace')
        if version not in (str(VERSION), str(_UNCHECKED_VERSION)):
            msg = f'{path} has index version {version}, this program reads {VERSION}; {advice}'
            raise BadIndex(msg)
        if is_checked != (version == str(VERSION)):
            found = 'a' if is_checked else 'no'
            msg = (
                f'{path} is damaged or written by another program (it is of version {version} and '
                f'has {found} checksum); {advice}'
            )
            raise BadIndex(msg)
        missing = [name for name in _SCHEMA.names if name not in table.schema.names]
        if missing:
            msg = f'{path} lacks the column {missing[0]}; {advice}'
            raise BadIndex(msg)
        try:
            rows = _rows(table.select(_SCHEMA.names).cast(_SCHEMA))
        except (
            pa.ArrowException,
            BadCalibration,
            ValueError,
            TypeError,
            OverflowError,
            LookupError,
        ) as error:
            msg = f'{path} holds something else than an index ({error}); {advice}'
            raise BadIndex(msg) from error
        if not rows:
            msg = f'{path} holds no sweep; {advice}'
            raise BadIndex(msg)
        return Index(rows, path.parent)


def _read_table(path: Path) -> tuple[pa.Table, bool]:
    """Read a file, and whether it has a checksum; nothing of it is believed before that fits.

    Raises:
        ValueError: The checksum does not fit, or it promises more rows than it has bytes.
        OSError: It cannot be read.
        ArrowException: It is no Parquet file.

    """
    with open_regular(path, _MAX_BYTES) as stream:
        content = stream.read()
    place = _checksum_place(content)
    if place is not None and content[place] != _checksum(content):
        msg = 'its content does not have the checksum that it was written with'
        raise ValueError(msg)
    file = pq.ParquetFile(pa.BufferReader(content))
    if file.metadata.num_rows > len(content):
        msg = f'it promises {file.metadata.num_rows} rows in {len(content)} bytes'
        raise ValueError(msg)
    return file.read(), place is not None


def _checksum_place(content: bytes) -> slice | None:
    key = content.rfind(_CHECKSUM_KEY.encode())
    # Behind the key: what the value is, and its length.
    start = key + len(_CHECKSUM_KEY) + 2
    return None if key < 0 else slice(start, start + len(_NO_CHECKSUM))


def _checksum(content: bytes) -> bytes:
    zeroed = _with_checksum(content, _NO_CHECKSUM.encode())
    return hashlib.sha256(zeroed).hexdigest().encode()


def _with_checksum(content: bytes, checksum: bytes) -> bytes:
    place = _checksum_place(content)
    assert place is not None
    return content[: place.start] + checksum + content[place.stop :]


def _as_dict(row: IndexedSweep) -> dict[str, Any]:
    columns: dict[str, Any] = {name: getattr(row, name) for name in _SCHEMA.names}
    for name in ('base_from_sensor', 'fixed_from_base', 'stamp_from_knot'):
        columns[name] = None if columns[name] is None else columns[name].reshape(-1)
    columns['shots'] = [shot and _shot_as_dict(shot) for shot in row.shots]
    return columns


def _shot_as_dict(shot: Shot) -> dict[str, Any]:
    columns: dict[str, Any] = {field.name: getattr(shot, field.name) for field in _SHOT}
    columns['camera'] = asdict(shot.camera)
    columns['camera_from_base'] = shot.camera_from_base.reshape(-1)
    return columns


def _rows(table: pa.Table) -> list[IndexedSweep]:
    matrices = {
        'base_from_sensor': _arrays(table, 'base_from_sensor', (4, 4)),
        'fixed_from_base': _arrays(table, 'fixed_from_base', (4, 4)),
        'stamp_from_knot': _arrays(table, 'stamp_from_knot', (-1, 3, 4)),
    }
    # A Python object for each number of these would take most of the time.
    plain = table.drop_columns(list(matrices)).to_pylist()
    rows = []
    for number, columns in enumerate(plain):
        columns.update({name: arrays[number] for name, arrays in matrices.items()})
        columns['shots'] = tuple(shot and _shot(shot) for shot in columns['shots'])
        columns['flags'] = tuple(columns['flags'])
        rows.append(IndexedSweep(**columns))
    return rows


def _arrays(table: pa.Table, name: str, shape: Sequence[int]) -> list[NDArray[Any] | None]:
    arrays: list[NDArray[Any] | None] = []
    for chunk in table.column(name).chunks:
        for entry in chunk:
            values = entry.values
            arrays.append(None if values is None else np.array(values.to_numpy()).reshape(shape))
    return arrays


def _shot(columns: Mapping[str, Any]) -> Shot:
    camera = dict(columns['camera'])
    for name in ('coefficients', 'translation'):
        camera[name] = tuple(camera[name])
    pose = np.array(columns['camera_from_base'], np.float64).reshape(4, 4)
    return Shot(**{**columns, 'camera': CameraModel(**camera), 'camera_from_base': pose})
