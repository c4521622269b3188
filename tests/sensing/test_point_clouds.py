# SPDX-License-Identifier: Apache-2.0
"""Cloud decoding: every layout a driver may publish, and everything it must not."""

from __future__ import annotations

import array
import struct
import tracemalloc
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cross4d_jepa_ros.sensing.point_clouds import (
    CloudConfig,
    CloudDecoder,
    MalformedCloud,
    stamp_ns,
    structured_view,
)

INT8, UINT8, INT16, UINT16, INT32, UINT32, FLOAT32, FLOAT64 = range(1, 9)
CODES = {1: 'b', 2: 'B', 3: 'h', 4: 'H', 5: 'i', 6: 'I', 7: 'f', 8: 'd'}
EPOCH = 1_700_000_000
MS = 1_000_000
Field = tuple[str, int, int] | tuple[str, int, int, int]


def cloud(
    fields: list[Field],
    rows: list[list[tuple[float, ...]]],
    /,
    *,
    step: int,
    row_padding: int = 0,
    big: bool = False,
    stamp: tuple[int, int] = (EPOCH, 0),
    **changes: Any,
) -> SimpleNamespace:
    """Pack points value by value; fields are (name, offset, datatype[, count])."""
    data = bytearray()
    for row in rows:
        for point in row:
            packed, values = bytearray(b'\xee' * step), list(point)
            for _, offset, datatype, *count in fields:
                for i in range(count[0] if count else 1):
                    code = ('>' if big else '<') + CODES[datatype]
                    struct.pack_into(
                        code, packed, offset + i * struct.calcsize(code), values.pop(0)
                    )
            data += packed
        data += b'\xdd' * row_padding
    base = {
        'header': SimpleNamespace(
            stamp=SimpleNamespace(sec=stamp[0], nanosec=stamp[1]), frame_id='lidar'
        ),
        'height': len(rows),
        'width': len(rows[0]) if rows else 0,
        'fields': [
            SimpleNamespace(name=n, offset=o, datatype=d, count=c[0] if c else 1)
            for n, o, d, *c in fields
        ],
        'is_bigendian': big,
        'point_step': step,
        'row_step': step * (len(rows[0]) if rows else 0) + row_padding,
        'data': bytes(data),
        'is_dense': True,
    }
    return SimpleNamespace(**{**base, **changes})


XYZ: list[Field] = [('x', 0, FLOAT32), ('y', 4, FLOAT32), ('z', 8, FLOAT32)]
XYZI: list[Field] = [*XYZ, ('intensity', 12, FLOAT32)]
THREE = [(1.0, 2.0, 3.0), (-4.0, 5.5, 0.25), (7.0, 0.0, 0.0)]


def decode(msg: Any, **config: Any) -> Any:
    return CloudDecoder(CloudConfig(**config)).decode(msg)


def test_plain_cloud() -> None:
    msg = cloud(XYZ, [THREE], step=12, stamp=(12, 34))
    sweep = decode(msg)
    assert (sweep.stamp_ns, sweep.frame_id) == (12_000_000_034, 'lidar')
    assert (sweep.height, sweep.width, sweep.point_count) == (1, 3, 3)
    assert sweep.xyz.tolist() == [list(point) for point in THREE]
    assert sweep.xyz.dtype == np.float32
    assert sweep.xyz.flags.c_contiguous
    assert (sweep.intensity, sweep.ring, sweep.time_offset_ns) == (None, None, None)
    assert sweep.index.tolist() == [0, 1, 2]
    assert sweep.index.dtype == np.int64
    for stamped in (msg, msg.header, msg.header.stamp):
        assert stamp_ns(stamped) == 12_000_000_034


@pytest.mark.parametrize('big', [False, True])
@pytest.mark.parametrize('kind', list(CODES))
@pytest.mark.parametrize('rows', [1, 2])
def test_every_datatype_anywhere(kind: int, big: bool, rows: int) -> None:
    size = struct.calcsize('<' + CODES[kind])
    fields: list[Field] = [('z', 3, kind), ('x', 3 + size, kind), ('y', 7 + 2 * size, kind)]
    points = [(30.0 + i, 10.0 + i, 20.0 + i) for i in range(4)]
    if CODES[kind] not in 'fd':
        points = [tuple(int(value) for value in point) for point in points]
    grid = [points] if rows == 1 else [points[:2], points[2:]]
    msg = cloud(fields, grid, step=11 + 3 * size, row_padding=5, big=big)
    sweep = decode(msg)
    assert (sweep.height, sweep.width) == (rows, 4 // rows)
    assert sweep.xyz.tolist() == [[10.0 + i, 20.0 + i, 30.0 + i] for i in range(4)]
    assert sweep.index.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    'wrap',
    [
        bytes,
        bytearray,
        memoryview,
        lambda data: array.array('B', data),
        lambda data: np.frombuffer(data, np.uint8),
        lambda data: np.frombuffer(data, np.uint8).copy(),
    ],
)
@pytest.mark.parametrize('big', [False, True])
def test_buffers_are_neither_copied_nor_written(wrap: Any, big: bool) -> None:
    msg = cloud(XYZI, [[(*p, 9.0) for p in THREE]], step=16, big=big)
    before = msg.data
    msg.data = wrap(before)
    view = structured_view(msg)
    assert np.shares_memory(view, np.frombuffer(msg.data, np.uint8))
    sweep = decode(msg)
    assert bytes(msg.data) == before
    assert not np.shares_memory(sweep.xyz, np.frombuffer(msg.data, np.uint8))
    assert sweep.xyz.flags.writeable
    assert sweep.xyz.tolist() == [list(point) for point in THREE]


def test_structured_view_of_an_organised_cloud() -> None:
    fields: list[Field] = [*XYZ, ('descriptor', 16, UINT16, 3), ('tag', 22, UINT8)]
    points = [(i, i + 0.5, -i, i, 2 * i, 3 * i, 200 + i) for i in range(6)]
    msg = cloud(fields, [points[:3], points[3:]], step=25, row_padding=7)
    view = structured_view(msg)
    assert view.shape == (2, 3)
    assert view['tag'].tolist() == [[200, 201, 202], [203, 204, 205]]
    assert view['descriptor'].shape == (2, 3, 3)
    assert view['descriptor'][1, 2].tolist() == [5, 10, 15]


def test_unusable_points_leave_every_column_and_keep_their_place() -> None:
    nan, inf = float('nan'), float('inf')
    fields: list[Field] = [
        *XYZ,
        ('intensity', 12, FLOAT32),
        ('ring', 16, UINT16),
        ('t', 18, UINT32),
    ]
    bad = [(nan, 1, 1), (1, inf, 1), (1, -1.1e6, 1), (0, 0, 0), (-0.0, 0, 0)]
    good = [(1, 2, 3), (1e-30, 0, 0), (0, 1e6, 0), (0, 0, -2)]
    points = [p for pair in zip(bad, [*good, None], strict=True) for p in pair if p]
    columns = [(*p, i / 10, i, 10 * MS * i) for i, p in enumerate(points)]
    sweep = decode(cloud(fields, [columns[:3], columns[3:6], columns[6:]], step=22))
    assert sweep.index.tolist() == [1, 3, 5, 7]
    np.testing.assert_array_equal(sweep.xyz, np.array(good, np.float32))
    np.testing.assert_allclose(sweep.intensity, [0.1, 0.3, 0.5, 0.7], rtol=1e-6)
    assert sweep.ring.tolist() == [1, 3, 5, 7]
    assert sweep.time_offset_ns.tolist() == [10 * MS, 30 * MS, 50 * MS, 70 * MS]
    assert sweep.xyz.flags.c_contiguous
    assert sweep.point_count == 9


def test_float64_beyond_float32_is_unusable() -> None:
    fields: list[Field] = [('x', 0, FLOAT64), ('y', 8, FLOAT64), ('z', 16, FLOAT64)]
    sweep = decode(cloud(fields, [[(1e300, 0, 0), (1e-300, 0, 0), (0, 0, 2)]], step=24))
    assert sweep.index.tolist() == [2]


def test_all_points_unusable() -> None:
    sweep = decode(cloud([*XYZI, ('t', 16, FLOAT32)], [[(0, 0, 0, 1, 1)] * 3], step=20))
    assert sweep.xyz.shape == (0, 3)
    assert [len(c) for c in (sweep.intensity, sweep.time_offset_ns, sweep.index)] == [0, 0, 0]


@pytest.mark.parametrize(
    'changes',
    [
        {'fields': [], 'point_step': 0, 'height': 0},
        {'fields': [], 'point_step': 0, 'height': 1},
        {'point_step': 0},
        {},
        {'height': 2**32 - 1},
        {'width': 2**32 - 1, 'height': 0, 'row_step': 2**32 - 1},
        {'data': array.array('B')},
        {'data': np.empty(0, np.uint8)},
    ],
)
def test_empty_cloud(changes: dict[str, Any]) -> None:
    fields: list[Field] = [*XYZI, ('ring', 16, UINT16), ('time', 18, FLOAT32)]
    msg = cloud(fields, [[]], step=22, **changes)
    sweep = decode(msg)
    assert sweep.xyz.shape == (0, 3)
    assert len(sweep.index) == 0
    assert (sweep.height, sweep.width) == (msg.height, msg.width)
    if msg.fields:
        assert [len(c) for c in (sweep.intensity, sweep.ring, sweep.time_offset_ns)] == [0, 0, 0]


@pytest.mark.parametrize('row_step', [0, 1, 24, 71, 73, 2**32 - 1])
def test_wrong_row_step_where_rows_fit_tightly(row_step: int) -> None:
    points = [(float(i + 1), 0.0, 0.0) for i in range(6)]
    msg = cloud(XYZ, [points[:3], points[3:]], step=12, row_step=row_step)
    assert decode(msg).xyz[:, 0].tolist() == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize('row_step', [0, 5, 10**9])
def test_one_row_needs_no_row_step(row_step: int) -> None:
    msg = cloud(XYZ, [THREE], step=12, row_step=row_step)
    msg.data += b'trailing'
    assert len(decode(msg).xyz) == 3


def test_last_row_without_its_padding() -> None:
    msg = cloud(XYZ, [THREE[:1], THREE[1:2], THREE[2:]], step=12, row_padding=20)
    msg.data = msg.data[:-20]
    assert decode(msg).xyz.tolist() == [list(point) for point in THREE]


def test_overlapping_fields_and_duplicate_names() -> None:
    fields: list[Field] = [*XYZ, ('rgb', 12, FLOAT32), ('rgba', 12, UINT32), ('x', 4, FLOAT32)]
    msg = cloud(fields[:4], [[(*p, 2.0) for p in THREE]], step=16)
    extra = SimpleNamespace(offset=4, datatype=FLOAT32, count=0)
    msg.fields += [
        SimpleNamespace(name='rgba', offset=12, datatype=UINT32, count=1),
        *(SimpleNamespace(name=name, **vars(extra)) for name in ('x', 'x', '', '', 'x#4')),
    ]
    view = structured_view(msg)
    assert view['rgba'].tolist() == [[0x40000000] * 3]
    assert len(view.dtype.names) == 10
    assert decode(msg).xyz.tolist() == [list(point) for point in THREE]


def with_field(**changes: Any) -> list[SimpleNamespace]:
    fields = [SimpleNamespace(name=n, offset=o, datatype=d, count=1) for n, o, d in XYZ]
    fields.append(
        SimpleNamespace(**{'name': 'a', 'offset': 0, 'datatype': 7, 'count': 1, **changes})
    )
    return fields


@pytest.mark.parametrize(
    ('changes', 'sentence'),
    [
        ({'data': b'\0' * 71}, 'promises 2 x 3 points of 12 bytes .* holds 71 bytes'),
        ({'data': b''}, 'holds 0 bytes'),
        ({'data': [0] * 72}, 'a list that is not one block of bytes'),
        ({'data': np.zeros((72, 2), np.uint8)[:, 0]}, 'not one block of bytes'),
        ({'row_step': 40, 'data': b'\0' * 75}, r'row_step 40\), but its data holds 75'),
        ({'width': 2**32 - 1}, '2 x 4294967295 points'),
        ({'height': 2**32 - 1, 'width': 2**32 - 1}, 'promises'),
        ({'point_step': 2**32 - 1}, 'promises'),
        ({'point_step': 0}, 'points of 0 bytes'),
        ({'point_step': 8}, "'z' .* does not fit in a point of 8 bytes"),
        ({'width': -1}, 'impossible size'),
        ({'fields': []}, 'no single-valued field x, y, z'),
        ({'fields': with_field()[:2]}, 'no single-valued field z: its fields are x, y'),
        ({'fields': with_field(datatype=9)}, "'a' has the unknown datatype 9"),
        ({'fields': with_field(datatype=0)}, 'unknown datatype 0'),
        ({'fields': with_field(offset=9)}, r"'a' \(1 x 4 bytes at offset 9\) does not fit"),
        ({'fields': with_field(offset=2**32 - 1)}, 'does not fit'),
        ({'fields': with_field(count=2**32 - 1)}, 'does not fit'),
        ({'fields': with_field(count=4)}, 'does not fit'),
        ({'fields': with_field(name='y' * 10**6, datatype=0)}, "'y{40}' has"),
    ],
)
def test_malformed(changes: dict[str, Any], sentence: str) -> None:
    msg = cloud(XYZ, [THREE, THREE], step=12, **changes)
    tracemalloc.start()
    with pytest.raises(MalformedCloud, match=sentence) as caught:
        decode(msg)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(str(caught.value)) < 300
    assert peak < 8_000_000


def test_empty_cloud_with_absurd_fields() -> None:
    msg = cloud(XYZ, [[]], step=0, fields=with_field(count=2**31))
    with pytest.raises(MalformedCloud, match='does not fit'):
        decode(msg)


def test_vector_x_is_not_a_coordinate() -> None:
    fields: list[Field] = [('x', 0, FLOAT32, 2), ('y', 8, FLOAT32), ('z', 12, FLOAT32)]
    with pytest.raises(MalformedCloud, match='no single-valued field x'):
        decode(cloud(fields, [[(1, 2, 3, 4)]], step=16))


@pytest.mark.parametrize(
    ('names', 'column', 'expected'),
    [
        (['i'], 'intensity', 0),
        (['Reflectance'], 'intensity', 0),
        (['reflectivity', 'INTENSITY'], 'intensity', 1),
        (['intensities', 'i'], 'intensity', 1),
        (['channel'], 'ring', 0),
        (['line'], 'ring', 0),
        (['laser_id', 'Ring'], 'ring', 1),
        (['row'], 'ring', 0),
        *(([name], 'time_offset_ns', 0) for name in ('t', 'time', 'timestamp', 'timestamps')),
        *(([name], 'time_offset_ns', 0) for name in ('time_stamp', 'offset_time', 'time_offset')),
        (['T_Offset'], 'time_offset_ns', 0),
        (['times', 'ambient'], None, 0),
    ],
)
def test_aliases(names: list[str], column: str | None, expected: int) -> None:
    fields = [*XYZ, *((name, 12 + 4 * i, FLOAT32) for i, name in enumerate(names))]
    values = (0.25, 0.125)[: len(names)]
    sweep = decode(cloud(fields, [[(1, 2, 3, *values)]], step=20))
    found = {c: getattr(sweep, c) for c in ('intensity', 'ring', 'time_offset_ns')}
    assert [c for c, array_ in found.items() if array_ is not None] == ([column] if column else [])
    if column == 'intensity':
        assert found[column].tolist() == [values[expected]]
    elif column == 'time_offset_ns':
        assert found[column].tolist() == [250_000_000]


def intensities(values: list[float], kind: int = FLOAT32, name: str = 'intensity') -> Any:
    return cloud([*XYZ, (name, 12, kind)], [[(1, 1, 1, value) for value in values]], step=20)


def test_automatic_intensity_only_grows() -> None:
    decoder = CloudDecoder(CloudConfig())
    for values, ceiling in (
        ([0.0, 0.5, 1.0], 1),
        ([0.0, 51.0, 255.0], 255),
        ([0.5, 1.0], 255),
        ([256.0], 4095),
        ([4095.0, 12.0], 4095),
        ([4096.0], 65535),
        ([65535.0, 0.5, 1e6], 65535),
    ):
        sweep = decoder.decode(intensities(values))
        expected = np.minimum(np.array(values) / ceiling, 1)
        np.testing.assert_allclose(sweep.intensity, expected, rtol=1e-6)
        assert sweep.intensity.dtype == np.float32
        assert sweep.intensity.max() <= 1


def test_intensity_of_integers_and_by_scale() -> None:
    np.testing.assert_allclose(decode(intensities([0, 1, 255], UINT8)).intensity, [0, 1 / 255, 1])
    np.testing.assert_allclose(decode(intensities([0, 1], UINT16)).intensity, [0, 1])
    scaled = decode(intensities([0, 50, 200], UINT16), intensity_scale=0.01).intensity
    np.testing.assert_allclose(scaled, [0, 0.5, 1])


@pytest.mark.parametrize('scale', [0.0, 0.5])
def test_senseless_intensity(scale: float) -> None:
    values = [float('nan'), -3.0, float('-inf'), float('inf'), 1.0, 1.0]
    decoder = CloudDecoder(CloudConfig(intensity_scale=scale))
    found = decoder.decode(intensities(values)).intensity
    assert found.tolist() == [0, 0, 0, 1, *[scale or 1.0] * 2]
    assert decoder.decode(intensities([float('inf')] * 2)).intensity.tolist() == [1, 1]
    assert decoder.decode(intensities([1e300], FLOAT64)).intensity.tolist() == [1]


def test_ring_of_any_type() -> None:
    for kind, values, expected in (
        (UINT8, [0, 255], [0, 255]),
        (UINT16, [0, 65535], [0, 65535]),
        (INT32, [-4, 70000], [0, 65535]),
        (FLOAT32, [float('nan'), 31.0], [0, 31]),
        (FLOAT64, [float('inf'), -1.0], [65535, 0]),
    ):
        ring = decode(intensities(values, kind, 'ring')).ring
        assert ring.tolist() == expected
        assert ring.dtype == np.uint16


def times(
    values: list[float], kind: int = FLOAT64, stamp: tuple[int, int] = (EPOCH, 500_000_000)
) -> Any:
    points = [[(1, 1, 1, value) for value in values]]
    return cloud([*XYZ, ('timestamp', 12, kind)], points, step=20, stamp=stamp)


@pytest.mark.parametrize(
    ('values', 'kind'),
    [
        ([0.0, 0.05, 0.1], FLOAT32),
        ([0.0, 0.05, 0.1], FLOAT64),
        ([0.0, 50.0, 100.0], FLOAT32),
        ([0, 50, 100], UINT8),
        ([0, 50_000, 100_000], UINT32),
        ([0.0, 5e4, 1e5], FLOAT32),
        ([0, 50_000_000, 100_000_000], UINT32),
        ([0, 50_000_000, 100_000_000], INT32),
        ([0.0, 5e7, 1e8], FLOAT32),
        ([0.0, 5e7, 1e8], FLOAT64),
        ([EPOCH + 0.5, EPOCH + 0.55, EPOCH + 0.6], FLOAT64),
        ([EPOCH * 1e3 + 500, EPOCH * 1e3 + 550, EPOCH * 1e3 + 600], FLOAT64),
        ([EPOCH * 1e6 + 500e3, EPOCH * 1e6 + 550e3, EPOCH * 1e6 + 600e3], FLOAT64),
        ([EPOCH * 1e9 + 500e6, EPOCH * 1e9 + 550e6, EPOCH * 1e9 + 600e6], FLOAT64),
        # another clock: seconds since boot, GPS nanoseconds, a wrapping microsecond counter
        ([5000.0, 5000.05, 5000.1], FLOAT64),
        ([1.38e18, 1.38e18 + 50e6, 1.38e18 + 100e6], FLOAT64),
        ([4_000_000_000, 4_000_050_000, 4_000_100_000], UINT32),
    ],
)
def test_time_units(values: list[float], kind: int) -> None:
    decoder = CloudDecoder(CloudConfig())
    offsets = decoder.decode(times(values, kind)).time_offset_ns
    assert offsets.dtype == np.int64
    np.testing.assert_allclose(offsets, [0, 50 * MS, 100 * MS], atol=600)
    assert decoder.notes == {}


def test_absolute_times_are_compared_with_the_stamp() -> None:
    # Even a cloud of one packet (a span of 3 us), and whatever sweep_stamp says.
    values = [EPOCH * 1e6 + 480_001, EPOCH * 1e6 + 480_004]
    for sweep_stamp in ('start', 'middle', 'end'):
        offsets = decode(times(values), sweep_stamp=sweep_stamp).time_offset_ns
        assert offsets.tolist() == [-19_999_000, -19_996_000]


@pytest.mark.parametrize(
    ('values', 'start', 'middle', 'end'),
    [
        ([0.02, 0.06, 0.1], [20, 60, 100], [-40, 0, 40], [-80, -40, 0]),
        ([-0.02, 0.0, 0.06], [0, 20, 80], [-20, 0, 60], [-80, -60, 0]),
        ([-0.09, -0.05, -0.01], [0, 40, 80], [-40, 0, 40], [-90, -50, -10]),
        # another epoch
        ([77.0, 77.04, 77.08], [0, 40, 80], [-40, 0, 40], [-80, -40, 0]),
        ([-77.0, -76.96, -76.92], [0, 40, 80], [-40, 0, 40], [-80, -40, 0]),
        ([EPOCH - 99.0, EPOCH - 98.96, EPOCH - 98.92], [0, 40, 80], [-40, 0, 40], [-80, -40, 0]),
        # near the stamp
        ([EPOCH + 0.41, EPOCH + 0.45, EPOCH + 0.49], *[[-90, -50, -10]] * 3),
    ],
)
def test_anchoring(
    values: list[float], start: list[int], middle: list[int], end: list[int]
) -> None:
    for sweep_stamp, expected in (('start', start), ('middle', middle), ('end', end)):
        offsets = decode(times(values), sweep_stamp=sweep_stamp).time_offset_ns
        np.testing.assert_allclose(offsets / MS, expected, atol=6e-4)


def test_explicit_unit_overrides() -> None:
    decoder = CloudDecoder(CloudConfig(time_unit='us'))
    assert decoder.decode(times([0.0, 0.5, 2.0])).time_offset_ns.tolist() == [0, 500, 2000]
    assert decode(times([0, 700], UINT32), time_unit='ns').time_offset_ns.tolist() == [0, 700]


@pytest.mark.parametrize(
    ('values', 'unit'),
    [([0.0, 1.5], 'auto'), ([0.0, 2.0e9], 'auto'), ([0.0, 100.0], 's'), ([-1e300, 1e300], 'auto')],
)
def test_too_long_a_span_is_ignored_and_said(values: list[float], unit: str) -> None:
    decoder = CloudDecoder(CloudConfig(time_unit=unit))
    assert decoder.decode(times(values)).time_offset_ns is None
    assert 'points.time_unit' in decoder.notes['time']
    assert decoder.decode(times([0.0, 0.1])).time_offset_ns is not None
    assert decoder.notes == {}


def test_times_that_are_not_numbers() -> None:
    nan = float('nan')
    decoder = CloudDecoder(CloudConfig())
    assert decoder.decode(times([0.01, nan, 0.05])).time_offset_ns.tolist() == [
        10 * MS,
        0,
        50 * MS,
    ]
    assert decoder.decode(times([nan, float('inf')])).time_offset_ns is None
    assert 'not a finite number' in decoder.notes['time']
    assert decoder.decode(times([1e308])).time_offset_ns.tolist() == [0]


@pytest.mark.parametrize(
    ('config', 'sentence'),
    [
        ({'time_unit': 'sec'}, 'points.time_unit'),
        ({'sweep_stamp': 'begin'}, 'points.sweep_stamp'),
        ({'intensity_scale': -1.0}, 'points.intensity_scale'),
        ({'intensity_scale': float('nan')}, 'points.intensity_scale'),
    ],
)
def test_config_is_checked(config: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        CloudConfig(**config)


def test_damaged_messages_raise_nothing_else() -> None:
    rng = np.random.default_rng(0)
    fields: list[Field] = [*XYZI, ('ring', 16, UINT16), ('t', 18, UINT32)]
    refused = 0
    for _ in range(400):
        msg = cloud(fields, [[(1, 2, 3, 4, 5, 6)] * 4] * 2, step=22)
        values = [0, 1, 3, 21, 23, 255, 2**31, 2**32 - 1]
        for key in rng.choice(['height', 'width', 'point_step', 'row_step'], 2):
            setattr(msg, key, int(rng.choice(values)))
        field = msg.fields[rng.integers(6)]
        setattr(field, str(rng.choice(['offset', 'count', 'datatype'])), int(rng.choice(values)))
        msg.data = rng.bytes(int(rng.integers(0, 300)))
        try:
            sweep = decode(msg)
        except MalformedCloud:
            refused += 1
            continue
        assert np.isfinite(sweep.xyz).all()
        assert len(sweep.index) <= sweep.point_count
    assert 100 < refused < 400


def test_agrees_with_rosbags_messages() -> None:
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    types = store.types
    points = np.arange(1, 41, dtype='<f4').reshape(10, 4)
    msg = types['sensor_msgs/msg/PointCloud2'](
        header=types['std_msgs/msg/Header'](
            stamp=types['builtin_interfaces/msg/Time'](sec=5, nanosec=6), frame_id='os_lidar'
        ),
        height=2,
        width=5,
        fields=[
            types['sensor_msgs/msg/PointField'](name=n, offset=o, datatype=d, count=1)
            for n, o, d in XYZI
        ],
        is_bigendian=False,
        point_step=16,
        row_step=80,
        data=points.view(np.uint8).ravel(),
        is_dense=False,
    )
    raw = store.serialize_cdr(msg, 'sensor_msgs/msg/PointCloud2')
    received = store.deserialize_cdr(raw, 'sensor_msgs/msg/PointCloud2')
    assert not received.data.flags.writeable
    sweep = decode(received)
    np.testing.assert_array_equal(sweep.xyz, points[:, :3])
    np.testing.assert_allclose(sweep.intensity, points[:, 3] / 255, rtol=1e-6)
    assert (sweep.stamp_ns, sweep.height, sweep.width) == (5_000_000_006, 2, 5)
