# SPDX-License-Identifier: Apache-2.0
"""PointCloud2 messages to arrays, whatever their field layout.

Messages are duck-typed: live ones, bag ones and plain objects with the same attributes all work.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cross4d_jepa_ros.sensing.point_times import NANOSECONDS, time_offsets

# sensor_msgs/PointField datatypes 1 to 8.
_FORMATS = {1: 'i1', 2: 'u1', 3: 'i2', 4: 'u2', 5: 'i4', 6: 'u4', 7: 'f4', 8: 'f8'}

# What a field may be called, the best first.
_ROLES = {
    'intensity': ('intensity', 'i', 'intensities', 'reflectivity', 'reflectance'),
    'ring': ('ring', 'channel', 'line', 'laser_id', 'row'),
    'time': (
        *('t', 'time', 'timestamp', 'timestamps', 'time_stamp'),
        *('offset_time', 'time_offset', 't_offset'),
    ),
}

_CEILINGS = (1.0, 255.0, 4095.0, 65535.0)
# No sensor comes near; beyond, the answers' own sizes would overflow, or numpy's of one point.
_MOST_POINTS = 1 << 26
_MOST_FIELDS = 1000
_MOST_POINT_BYTES = 65536
# Of a coordinate: what is farther is no measurement, and its square may overflow.
_FARTHEST_M = 1e6
# The year 2255: arrays of stamps are int64 nanoseconds, and differences must fit as well.
_LATEST_NS = 9_000_000_000_000_000_000
_LONGEST_FRAME_ID = 256


class MalformedCloud(ValueError):
    """The message contradicts itself; the sentence says where, with the numbers seen."""


@dataclass(frozen=True)
class CloudConfig:
    """How to read what PointCloud2 leaves open.

    Raises:
        ValueError: A value outside of what its comment lists.
    """

    # Multiplies the raw intensity to reach [0, 1]; 0 = automatic.
    intensity_scale: float = 0.0
    # Unit of the per-point time: auto, s, ms, us or ns.
    time_unit: str = 'auto'
    # Which instant of the sweep header.stamp is: start, middle or end.
    sweep_stamp: str = 'start'

    def __post_init__(self) -> None:
        """Refuse values that would only fail later, sweep by sweep."""
        if not (math.isfinite(self.intensity_scale) and self.intensity_scale >= 0):
            msg = f'points.intensity_scale is {self.intensity_scale}: set it to 0 or above.'
            raise ValueError(msg)
        if self.time_unit not in ('auto', *NANOSECONDS):
            msg = f'points.time_unit is {self.time_unit!r}: set it to auto, s, ms, us or ns.'
            raise ValueError(msg)
        if self.sweep_stamp not in ('start', 'middle', 'end'):
            msg = f'points.sweep_stamp is {self.sweep_stamp!r}: set it to start, middle or end.'
            raise ValueError(msg)


@dataclass(frozen=True)
class Sweep:
    """The usable points of one cloud: within 1000 km, and not at the sensor's own origin.

    `xyz` is (N, 3) in metres in the sensor frame, `intensity` (N,) in [0, 1], `ring` (N,),
    `time_offset_ns` (N,) the point time minus `stamp_ns`, and `index` (N,) the row-major position
    of each point in the message. Columns that the message lacks are None. `intensity_ceiling` is
    what the raw intensities were divided by.
    """

    stamp_ns: int
    frame_id: str
    height: int
    width: int
    xyz: NDArray[np.float32]
    intensity: NDArray[np.float32] | None
    ring: NDArray[np.uint16] | None
    time_offset_ns: NDArray[np.int64] | None
    index: NDArray[np.int64]
    intensity_ceiling: float = 1.0

    @property
    def point_count(self) -> int:
        """Points in the message, the unusable ones included."""
        return self.height * self.width


def stamp_ns(stamped: Any) -> int:
    """Return the time of a message, of its header or of a builtin_interfaces Time, in ns."""
    stamp = getattr(stamped, 'header', stamped)
    stamp = getattr(stamp, 'stamp', stamp)
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def header_fault(stamp_ns: int, frame_id: str) -> str:
    """Say in one sentence what makes a header unusable; empty where nothing does."""
    if abs(stamp_ns) > _LATEST_NS:
        return f'The stamp is {stamp_ns} ns, which is beyond the year 2255.'
    if len(frame_id) > _LONGEST_FRAME_ID:
        return (
            f'The frame_id {frame_id[:40]!r}... has {len(frame_id)} characters, '
            f'more than {_LONGEST_FRAME_ID}.'
        )
    return ''


def cloud_header(msg: Any) -> tuple[int, str]:
    """Read the stamp of a cloud in ns, and its frame.

    Raises:
        MalformedCloud: Either is unusable.
    """
    stamp, frame_id = stamp_ns(msg), str(msg.header.frame_id)
    if fault := header_fault(stamp, frame_id):
        raise MalformedCloud(fault)
    return stamp, frame_id


def structured_view(msg: Any) -> NDArray[np.void]:
    """Look at a cloud's data as a structured array, without a copy.

    A field with a count above 1 becomes a sub-array. Of several fields of one name the first
    keeps it and the others get a suffix. Big-endian data keeps its byte order in the dtype. A
    `row_step` that cannot be right is ignored where the rows fit without padding.

    Args:
        msg: A PointCloud2. Its `data` is anything with the buffer protocol, read-only or not.

    Returns:
        (height, width) structured array; read-only where the message's buffer is.

    Raises:
        MalformedCloud: The layout contradicts itself or promises more than `data` holds.
    """
    data = _as_bytes(msg.data)
    height, width, point_step = int(msg.height), int(msg.width), int(msg.point_step)
    row_step = int(msg.row_step)
    sizes = (height, width, point_step, row_step)
    if min(sizes) < 0 or max(sizes) >= 1 << 32:
        text = (
            f'The cloud has an impossible size: height {height}, width {width}, '
            f'point_step {point_step}, row_step {row_step}.'
        )
        raise MalformedCloud(text)
    if height * width == 0:
        return np.empty((height, width), _point_dtype(msg, None))

    row_bytes = width * point_step
    needed = height * row_bytes
    stride = row_bytes
    if height > 1 and row_step >= row_bytes:
        padded = (height - 1) * row_step + row_bytes
        if padded <= data.size:
            stride = row_step
        elif needed != data.size:
            # Too short for its padding: only an exact fit says that row_step is what is wrong.
            needed = padded
    if point_step == 0 or needed > data.size:
        text = (
            f'The cloud promises {height} x {width} points of {point_step} bytes '
            f'(row_step {row_step}), but its data holds {data.size} bytes.'
        )
        raise MalformedCloud(text)
    if height * width > _MOST_POINTS or point_step > _MOST_POINT_BYTES:
        text = (
            f'The cloud has {height} x {width} points of {point_step} bytes: more than '
            f'{_MOST_POINTS} points, or {_MOST_POINT_BYTES} bytes each, are not read.'
        )
        raise MalformedCloud(text)
    return np.ndarray(
        (height, width), _point_dtype(msg, point_step), buffer=data, strides=(stride, point_step)
    )


def axis_fields(view: NDArray[np.void]) -> tuple[str, str, str]:
    """Name the fields that hold x, y and z, in whatever case they are written.

    Raises:
        MalformedCloud: One is missing, or holds more than one value.

    """
    fields = _scalar_fields(view)
    missing = [axis for axis in 'xyz' if axis not in fields]
    if missing:
        known = ', '.join(name[:40] for name in (view.dtype.names or ())[:20])
        text = f'The cloud has no single-valued field {", ".join(missing)}: its fields are {known}.'
        raise MalformedCloud(text)
    return fields['x'], fields['y'], fields['z']


def field_roles(view: NDArray[np.void]) -> dict[str, str]:
    """Name the fields that are read as intensity, ring and per-point time, as far as there are."""
    fields = _scalar_fields(view)
    found = {
        role: next((fields[alias] for alias in aliases if alias in fields), None)
        for role, aliases in _ROLES.items()
    }
    return {role: name for role, name in found.items() if name is not None}


class CloudDecoder:
    """Decodes the clouds of one topic.

    **Intensity** is divided by the smallest of 1, 255, 4095 and 65535 that covers everything seen
    so far (8-bit fields start at 255), unless `intensity_scale` says otherwise. Negative and NaN
    values become 0, values above 65535 count as 1 and cover nothing.

    **Time**: see `point_times.time_offsets`.

    Attributes:
        notes: What the last sweep lacks and which parameter to turn: cause -> sentence.
    """

    def __init__(self, config: CloudConfig, *, intensity_ceiling: float = _CEILINGS[0]) -> None:
        """Start with no intensity seen, or with that of a sweep decoded before among others."""
        self.notes: dict[str, str] = {}
        self._config = config
        self._ceiling = intensity_ceiling

    @np.errstate(over='ignore', invalid='ignore')
    def decode(self, msg: Any) -> Sweep:
        """Read one PointCloud2.

        The arrays on the way take at most 80 bytes a point, and no message has more points than
        bytes.

        Args:
            msg: The message; not modified, and no array of the result refers to its buffer.

        Returns:
            The usable points. `is_dense` is not believed.

        Raises:
            MalformedCloud: The layout contradicts itself, x, y or z is missing, there are more
                than 2^26 points, 1000 fields or 65536 bytes a point, or the header is unusable.
        """
        stamp, frame_id = cloud_header(msg)
        view = structured_view(msg)
        roles = field_roles(view)
        xyz, index = _positions(view)
        complete = len(index) == view.size

        def column(role: str) -> NDArray[Any] | None:
            if role not in roles:
                return None
            values = view[roles[role]].reshape(-1)
            return values if complete else values[index]

        intensity, ring, time = column('intensity'), column('ring'), column('time')
        self.notes.pop('time', None)
        offsets = None
        if time is not None:
            unit, sweep_stamp = self._config.time_unit, self._config.sweep_stamp
            offsets, fault = time_offsets(time, stamp, unit=unit, sweep_stamp=sweep_stamp)
            self.notes |= {'time': fault} if fault else {}
        return Sweep(
            stamp_ns=stamp,
            frame_id=frame_id,
            height=view.shape[0],
            width=view.shape[1],
            xyz=xyz,
            intensity=None if intensity is None else self._normalise(intensity),
            ring=None if ring is None else _as_ring(ring),
            time_offset_ns=offsets,
            index=index,
            intensity_ceiling=self._ceiling,
        )

    def _normalise(self, raw: NDArray[Any]) -> NDArray[np.float32]:
        values: NDArray[np.float32] = raw.astype(np.float32)
        values[~(values > 0)] = 0  # NaN, too; fmax would keep one that signals
        if self._config.intensity_scale > 0:
            values *= np.float32(self._config.intensity_scale)
        else:
            peak = float(values.max(initial=0))
            if peak > _CEILINGS[-1]:  # of no sensor: a wrong bit must not darken what follows
                peak = float(values[values <= _CEILINGS[-1]].max(initial=0))
            if raw.dtype == np.uint8:
                peak = max(peak, 255.0)
            covering = next((c for c in _CEILINGS if peak <= c), _CEILINGS[-1])
            self._ceiling = max(self._ceiling, covering)
            values /= np.float32(self._ceiling)
        return np.minimum(values, 1, out=values)


def _as_bytes(data: Any) -> NDArray[np.uint8]:
    try:
        return np.frombuffer(data, np.uint8) if len(data) else np.empty(0, np.uint8)
    except (TypeError, ValueError, BufferError) as error:
        text = f'The cloud data is a {type(data).__name__} that is not one block of bytes.'
        raise MalformedCloud(text) from error


def _point_dtype(msg: Any, point_step: int | None) -> np.dtype[np.void]:
    """Describe one point; `point_step` is None for a cloud without points."""
    order = '>' if msg.is_bigendian else '<'
    names: dict[str, Any] = {}
    offsets: list[int] = []
    if len(msg.fields) > _MOST_FIELDS:
        text = f'The cloud has {len(msg.fields)} fields, more than {_MOST_FIELDS}.'
        raise MalformedCloud(text)
    for position, field in enumerate(msg.fields):
        datatype, offset = int(field.datatype), int(field.offset)
        count = int(field.count) or 1  # old drivers leave it at 0
        if datatype not in _FORMATS:
            text = f'The field {field.name[:40]!r} has the unknown datatype {datatype}.'
            raise MalformedCloud(text)
        base = np.dtype(order + _FORMATS[datatype])
        limit = _MOST_POINT_BYTES if point_step is None else point_step
        if offset < 0 or count < 0 or offset + count * base.itemsize > limit:
            text = (
                f'The field {field.name[:40]!r} ({count} x {base.itemsize} bytes at offset '
                f'{offset}) does not fit in a point of {limit} bytes.'
            )
            raise MalformedCloud(text)
        name = str(field.name) or 'unnamed'
        while name in names:
            name = f'{name}#{position}'
        names[name] = base if count == 1 else (base, (count,))
        offsets.append(offset)
    layout = {'names': list(names), 'formats': list(names.values()), 'offsets': offsets}
    if point_step is not None:
        layout['itemsize'] = point_step  # type: ignore[assignment]
    return np.dtype(layout)  # type: ignore[call-overload, no-any-return]


def _scalar_fields(view: NDArray[np.void]) -> dict[str, str]:
    """Single-valued fields by their name in lower case."""
    fields: dict[str, str] = {}
    for name in view.dtype.names or ():
        if view.dtype[name].shape == ():
            fields.setdefault(name.lower(), name)
    return fields


def _positions(view: NDArray[np.void]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    if view.size == 0:
        return np.empty((0, 3), np.float32), np.empty(0, np.int64)
    axes = axis_fields(view)
    xyz = np.empty((view.size, 3), np.float32)
    for axis, name in enumerate(axes):
        xyz[:, axis] = view[name].reshape(-1)
    squared = np.einsum('ij,ij->i', xyz, xyz)
    if squared.min() > 0 and squared.max() < _FARTHEST_M**2:
        return xyz, np.arange(view.size, dtype=np.int64)
    # The square underflows long before the coordinate does, hence the exact test.
    usable = (np.abs(xyz) <= _FARTHEST_M).all(axis=1) & xyz.any(axis=1)
    index = np.flatnonzero(usable).astype(np.int64, copy=False)
    return xyz[index], index


def _as_ring(raw: NDArray[Any]) -> NDArray[np.uint16]:
    if raw.dtype.kind == 'f':
        raw = np.nan_to_num(raw, nan=0)
    return np.clip(raw, 0, 65535).astype(np.uint16) if raw.size else np.empty(0, np.uint16)
