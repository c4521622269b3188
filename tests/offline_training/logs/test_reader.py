# SPDX-License-Identifier: Apache-2.0
"""What the reader gives is what was indexed, which is what the live node sees."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cross4d_jepa_ros.bag_frames import BagFrames
from cross4d_jepa_ros.bags import Bag
from offline_training.logs.bag_index import BagChoice, index_bag
from offline_training.logs.reader import LogReader
from offline_training.logs.table import BadIndex, Index
from tests.tiny_recording import IMAGE, SETUP, TRUTH, truth, write
from tests.tiny_walls import (
    HEIGHT,
    WIDTH,
    XYZ,
    Entry,
    calibrated,
    drive,
    moving,
    pictured,
    stamp_of,
    swept,
    timed,
)


def indexed(path: Path, entries: list[Entry]) -> Index:
    write(path / 'bag', entries)
    findings = index_bag(path / 'bag', BagChoice(), path, lambda done, total: None)
    Index(findings.rows, path).save(path / 'index.parquet')
    return Index.load(path / 'index.parquet')


@pytest.mark.parametrize('what', ['intensities that grow', 'points with times'])
def test_sweeps_are_those_of_the_live_node(tmp_path: Path, what: str) -> None:
    # Five seconds after each other, so that the node knows the poses around a sweep as well.
    make = timed if what == 'points with times' else swept
    entries = [calibrated(), *moving(8), *map(make, range(8)), *map(pictured, range(8))]
    index = indexed(tmp_path, entries)
    with Bag(tmp_path / 'bag') as bag:
        live = [entry.frame for entry in BagFrames(bag, SETUP)]
    assert (live[3].stamp_from_knot is None) == (make is swept)
    with LogReader(index) as reader:
        for number in (5, 0, 7, 3):  # in any order
            frame, read = live[number], reader.sweep(index.rows[number])
            assert read.stamp_ns == frame.stamp_ns
            np.testing.assert_array_equal(read.xyz, frame.xyz_base)
            np.testing.assert_array_equal(read.index, frame.sweep.index)
            assert read.intensity is not None
            assert frame.sweep.intensity is not None
            np.testing.assert_array_equal(read.intensity, frame.sweep.intensity)
            assert (read.time_offset_ns is None) == (make is swept)
            (view,), (shot,) = frame.views, index.rows[number].shots
            assert shot is not None
            np.testing.assert_array_equal(shot.camera_from_base, view.camera_from_base)
            assert shot.camera == view.camera
            np.testing.assert_array_equal(reader.image(index.rows[number], 0), view.image)


def test_labels_are_in_the_order_of_the_points(tmp_path: Path) -> None:
    labels = np.arange(len(XYZ)).astype(np.uint8)
    entries = []
    for at_ns, topic, message in drive(3):
        if topic == SETUP.points:
            message.data = message.data.copy()
            message.data[:4] = np.frombuffer(np.float32(np.nan).tobytes(), np.uint8)
        entries.append((at_ns, topic, message))
    at_ns = stamp_of(1)
    index = indexed(tmp_path, [*entries, (at_ns + 1, TRUTH, truth(at_ns, labels))])
    with LogReader(index) as reader:
        np.testing.assert_array_equal(reader.labels(index.rows[1]), labels[1:])
        assert reader.labels(index.rows[0]) is None


def test_a_camera_without_an_image_is_named(tmp_path: Path) -> None:
    index = indexed(tmp_path, [calibrated(), swept(0), swept(5), pictured(5)])
    with LogReader(index) as reader:
        assert reader.image(index.rows[1], 0).shape == (HEIGHT, WIDTH, 3)
        with pytest.raises(LookupError, match='bag has no image of camera 0'):
            reader.image(index.rows[0], 0)


@pytest.mark.parametrize(
    ('change', 'wanted'),
    [
        ('gone', 'there is no recording'),
        ('other', 'has no message recorded at'),
        ('shorter', f'{len(XYZ)} points instead of 7'),
    ],
)
def test_a_log_that_has_changed_is_named(tmp_path: Path, change: str, wanted: str) -> None:
    index = indexed(tmp_path, drive(2))
    row = index.rows[1]
    if change == 'gone':
        shutil.rmtree(tmp_path / 'bag')
    elif change == 'other':
        shutil.rmtree(tmp_path / 'bag')
        write(tmp_path / 'bag', drive(1))
    else:
        row = replace(row, points=7)
    with LogReader(index) as reader, pytest.raises(BadIndex, match=wanted) as caught:
        reader.sweep(row)
    assert str(tmp_path / 'bag') in str(caught.value)
    assert 'index it again' in str(caught.value)


def test_logs_are_opened_again_after_they_were_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('offline_training.logs.reader.OPEN_LOGS', 1)
    first, second = indexed(tmp_path / 'a', drive(1)), indexed(tmp_path / 'b', drive(2))
    rows = [replace(row, log=f'{name}/bag') for name, index in (('a', first), ('b', second))
            for row in index.rows]  # fmt: skip
    with LogReader(Index(rows, tmp_path)) as reader:
        for _ in range(2):
            assert [len(reader.sweep(row).xyz) for row in rows] == [len(XYZ)] * 3
        reader.close()
        assert len(reader.sweep(rows[2]).xyz) == len(XYZ)


def test_a_damaged_recording_is_read_as_it_was_indexed(tmp_path: Path) -> None:
    path = write(tmp_path / 'bag', drive(30))
    storage = next(path.glob('*.mcap'))
    storage.write_bytes(storage.read_bytes()[: int(storage.stat().st_size * 0.6)])
    findings = index_bag(path, BagChoice(), tmp_path, lambda done, total: None)
    rows = [row for row in findings.rows if row.shots[0] is not None]
    assert len(rows) > 10
    with LogReader(Index(rows, tmp_path)) as reader:
        for row in rows[::-1]:
            number = (row.stamp_ns - stamp_of(0)) // (stamp_of(1) - stamp_of(0))
            np.testing.assert_allclose(reader.sweep(row).xyz[0], XYZ[0] + (0, 0, 1.8), atol=1e-2)
            assert (reader.image(row, 0) == number).all()
            assert row.shots[0] is not None
            assert row.shots[0].topic == IMAGE
