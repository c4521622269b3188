# SPDX-License-Identifier: Apache-2.0
"""What goes into the index comes out of it, and what is no index is refused by name."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cross4d_jepa_ros.sensing.cameras import CameraModel
from offline_training.logs.table import (
    DUPLICATE_STAMP,
    MISSING_IMAGE,
    BadIndex,
    Index,
    IndexedSweep,
    Shot,
)

CAMERA = CameraModel(
    640, 480, 500.5, 501.25, 320.0, 239.5, 'plumb_bob', (0.1, -0.2, 0.0, 0.001), (0.0, -0.5, 0.0)
)
DRAW = np.random.default_rng(0)
SHOT = Shot('/right/image', 7, 8, -3, CAMERA, DRAW.normal(size=(4, 4)), 0.25)
ROW = IndexedSweep(
    log='drives/one',
    topic='/lidar',
    frame_id='lidar',
    stamp_ns=1_700_000_000_000_000_001,
    message_ns=1_700_000_000_100_000_000,
    points=1234,
    base_from_sensor=DRAW.normal(size=(4, 4)),
    fixed_from_base=DRAW.normal(size=(4, 4)),
    stamp_from_knot=DRAW.normal(size=(17, 3, 4)).astype(np.float32),
    intensity_ceiling=255.0,
    shots=(None, SHOT),
    coverage=0.25,
    flags=(f'{MISSING_IMAGE}:/left/image',),
    segment=3,
    labels='/truth',
)
BARE = replace(
    ROW,
    stamp_ns=ROW.stamp_ns + 5,
    fixed_from_base=None,
    stamp_from_knot=None,
    shots=(),
    flags=(),
    labels='',
)


def assert_same(read: object, written: object) -> None:
    for field in fields(written):  # type: ignore[arg-type]
        got, wanted = getattr(read, field.name), getattr(written, field.name)
        if isinstance(wanted, np.ndarray):
            assert got.dtype == wanted.dtype
            assert got.flags.writeable
            np.testing.assert_array_equal(got, wanted)
        elif field.name == 'shots':
            assert [shot is None for shot in got] == [shot is None for shot in wanted]
            for one, other in zip(got, wanted, strict=True):
                if other is not None:
                    assert_same(one, other)
        else:
            assert got == wanted
            assert type(got) is type(wanted)


def test_rows_come_back_exactly(tmp_path: Path) -> None:
    path = tmp_path / 'index.parquet'
    Index([BARE, ROW], tmp_path).save(path)
    index = Index.load(path)
    assert len(index.rows) == 2
    assert_same(index.rows[0], ROW)
    assert_same(index.rows[1], BARE)
    assert index.path_of(index.rows[0]) == tmp_path / 'drives' / 'one'


def test_logs_are_found_from_wherever_the_index_lies(tmp_path: Path) -> None:
    there = tmp_path / 'elsewhere' / 'deep' / 'index.parquet'
    Index([ROW], tmp_path).save(there)
    index = Index.load(there)
    assert index.rows[0].log == '../../drives/one'
    assert index.path_of(index.rows[0]) == tmp_path / 'drives' / 'one'


def test_segments_hold_the_usable_sweeps_in_order(tmp_path: Path) -> None:
    rows = [
        replace(ROW, log='b', segment=0, stamp_ns=4),
        replace(ROW, log='a', segment=1, stamp_ns=1),  # after the clock had jumped back
        replace(ROW, log='a', segment=0, stamp_ns=3),
        replace(ROW, log='a', segment=0, stamp_ns=3, flags=(DUPLICATE_STAMP,)),
        replace(ROW, log='a', segment=0, stamp_ns=2),
    ]
    segments = Index(rows, tmp_path).segments()
    assert [[(row.log, row.stamp_ns) for row in segment] for segment in segments] == [
        [('a', 2), ('a', 3)],
        [('a', 1)],
        [('b', 4)],
    ]


def unchecked(table: pa.Table) -> pa.Table:
    """The rows as they were written before there was a checksum."""
    return table.replace_schema_metadata({b'cross4d_jepa_ros.index': b'1'})


def test_an_index_without_a_checksum_is_still_read(tmp_path: Path) -> None:
    path, older = tmp_path / 'index.parquet', tmp_path / 'older.parquet'
    Index([ROW, replace(ROW, stamp_ns=7)], tmp_path).save(path)
    pq.write_table(unchecked(pq.read_table(path)), older)
    assert [row.stamp_ns for row in Index.load(older).rows] == [
        row.stamp_ns for row in Index.load(path).rows
    ]


def test_more_rows_than_bytes_are_refused_before_they_are_made(tmp_path: Path) -> None:
    """Rows of zeros pack so well that a small file could fill any memory."""
    path = tmp_path / 'index.parquet'
    zeros = pa.table({'points': pa.array(np.zeros(3_000_000, np.int64))})
    pq.write_table(unchecked(zeros), path, compression='zstd')
    assert path.stat().st_size < 100_000
    with pytest.raises(BadIndex, match=r'index\.parquet .* promises 3000000 rows in'):
        Index.load(path)


def write_other(path: Path, how: str) -> None:
    Index([ROW], path.parent).save(path)
    table = pq.read_table(path)
    if how == 'no file':
        path.unlink()
    elif how == 'text':
        path.write_text('log,stamp\n')
    elif how == 'cut':
        path.write_bytes(path.read_bytes()[:-100])
    elif how == 'plain':
        pq.write_table(table.replace_schema_metadata({}), path)
    elif how == 'version':
        pq.write_table(table.replace_schema_metadata({b'cross4d_jepa_ros.index': b'0'}), path)
    elif how == 'no checksum':
        pq.write_table(table, path)
    elif how == 'column':
        pq.write_table(unchecked(table).drop_columns(['shots']), path)
    elif how == 'type':
        place = table.schema.get_field_index('points')
        pq.write_table(unchecked(table).set_column(place, 'points', pa.array(['many'])), path)
    elif how == 'rows':
        pq.write_table(unchecked(table).slice(0, 0), path)


@pytest.mark.parametrize(
    ('how', 'sentence'),
    [
        ('no file', 'there is no index at'),
        ('text', 'no Parquet file or a damaged one'),
        ('cut', 'no Parquet file or a damaged one'),
        ('plain', 'index version none, this program reads 2'),
        ('version', 'index version 0, this program reads 2'),
        ('no checksum', 'of version 2 and has no checksum'),
        ('column', 'lacks the column shots'),
        ('type', 'holds something else than an index'),
        ('rows', 'holds no sweep'),
    ],
)
def test_what_is_no_index_is_refused_by_name(tmp_path: Path, how: str, sentence: str) -> None:
    path = tmp_path / 'other.parquet'
    write_other(path, how)
    with pytest.raises(BadIndex, match=sentence) as caught:
        Index.load(path)
    assert str(path) in str(caught.value)


def test_an_empty_index_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / 'index.parquet'
    Index([ROW], tmp_path).save(path)
    with pytest.raises(BadIndex, match='would hold no sweep'):
        Index([], tmp_path).save(path)
    assert Index.load(path).rows
