# SPDX-License-Identifier: Apache-2.0
"""Labels of an index: SemanticKITTI-style folders and bags with a label cloud, through a map."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offline_training.indexed_sweeps import indexed_sweeps, stretches, without_end
from offline_training.label_map import BadLabels, LabelMap
from offline_training.logs.table import Index
from offline_training.street.classes import BUILDING, ROAD
from tests import tiny_labels
from tests import tiny_recording as tiny
from tests.tiny_labels import kitti, labelled_bag
from tests.tiny_street import street

MAP = LabelMap(
    ('ground', 'wall'),
    ((1, 2, 3), (4, 5, 6)),
    {0: 'ignore', 40: 'ground', 50: 'wall', 252: 'wall', 'road': 'ground', 'building': 'wall'},
)


def indexed(folder: Path, *logs: Path) -> Index:
    return Index.load(tiny_labels.indexed(folder, *logs))


def opened(index: Index, folder: Path, label_map: LabelMap = MAP, **changes: Any) -> Any:
    settings = {'range_m': 60.0, 'stride': 1, 'colour': False} | changes
    return indexed_sweeps(index, label_map, folder / 'sweeps', **settings)


def test_a_kitti_folder_comes_through_the_map(tmp_path: Path) -> None:
    labels = ((40, 50, 252, 0), None, (0, 0, 0, 40))
    index = indexed(tmp_path, kitti(tmp_path / 'drive', labels))
    sweeps = opened(index, tmp_path)
    assert [sweep.label.tolist() for sweep in map(sweeps.__getitem__, range(3))] == [
        [0, 1, 1, 255],
        [255] * 4,
        [255, 255, 255, 0],
    ]
    first = sweeps[0]
    np.testing.assert_allclose(first.xyz[0], [5, 0, -1.8], atol=0.002)
    assert set(first.moving) == {255}
    assert first.stamp_ns == index.rows[0].stamp_ns
    np.testing.assert_allclose(sweeps[2].fixed_from_base[0, 3], 1.0)
    assert sweeps.labelled.tolist() == [0, 2]


def test_files_are_written_once_and_again_where_something_changed(tmp_path: Path) -> None:
    drive = kitti(tmp_path / 'drive', [(40, 40, 40, 40)] * 2)
    index = indexed(tmp_path, drive)
    seen: list[int] = []
    for _ in range(2):
        opened(index, tmp_path, on_sweep=lambda: seen.append(1))
    (written,) = (tmp_path / 'sweeps').iterdir()
    assert written.name.startswith('drive_')
    assert len(seen) == 4
    opened(index, tmp_path, range_m=50.0)
    opened(index, tmp_path, replace(MAP, ids={**MAP.ids, 40: 'wall'}))
    os.utime(drive / 'labels' / '000001.label', ns=(1, 1))
    opened(index, tmp_path)
    assert len(list((tmp_path / 'sweeps').iterdir())) == 4


@pytest.mark.parametrize(
    ('labels', 'sentence'),
    [
        ([(40, 40, 7, 40)], r'drive at 1000000000 ns has the label 7, .* does not list'),
        ([(40, 40, 40)], r'drive at 1000000000 ns: labels has not one label for each point'),
        ([None], 'no sweep of the index in .* has labels'),
    ],
)
def test_labels_that_do_not_fit_are_named(
    tmp_path: Path, labels: list[tuple[int, ...] | None], sentence: str
) -> None:
    index = indexed(tmp_path, kitti(tmp_path / 'drive', labels))
    with pytest.raises(BadLabels, match=sentence):
        opened(index, tmp_path)


def test_a_label_cloud_comes_by_the_names_of_its_recording(tmp_path: Path) -> None:
    index = indexed(tmp_path, labelled_bag(tmp_path / 'bag'))
    with pytest.raises(BadLabels, match='has the label pole, which the label map does not list'):
        opened(index, tmp_path)
    label_map = replace(MAP, others_ignored=True)
    sweeps = opened(index, tmp_path, label_map, colour=True, stride=2)
    # Even sweeps, then odd ones.
    assert sweeps.recordings == [range(2), range(2, 4)]
    for position, number in enumerate((0, 2, 1, 3)):
        xyz, labels = street(number)
        got = sweeps[position]
        np.testing.assert_allclose(got.xyz[:, :2], xyz[:, :2], atol=0.002)
        expected = np.select([labels == ROAD, labels == BUILDING], [0, 1], 255)
        np.testing.assert_array_equal(got.label, expected)
        lit = got.rgb[:, 3] == 1
        assert 0 < lit.sum() < len(lit)
        np.testing.assert_allclose(got.rgb[lit, :3], 40 * number / 255, atol=1e-3)
    assert not opened(index, tmp_path, label_map)[0].rgb.any()


def test_logs_may_have_dots_in_their_names(tmp_path: Path) -> None:
    logs = [kitti(tmp_path / f'drive.{label}', [(label,) * 4] * 2) for label in (40, 50)]
    sweeps = opened(indexed(tmp_path, *logs), tmp_path, stride=2)
    assert len(set(sweeps.paths)) == 4
    assert [sweeps[position].label[0] for position in range(4)] == [0, 0, 1, 1]


def test_a_stricter_map_is_asked_again(tmp_path: Path) -> None:
    index = indexed(tmp_path, kitti(tmp_path / 'drive', [(40, 40, 7, 40)]))
    opened(index, tmp_path, replace(MAP, others_ignored=True))
    with pytest.raises(BadLabels, match='has the label 7'):
        opened(index, tmp_path)


def test_a_label_cloud_of_the_wrong_length_is_named(tmp_path: Path) -> None:
    xyz = street(1)[0]
    messages: list[tuple[int, str, Any]] = [
        (tiny.START_NS, tiny.POINTS, tiny.sweep(tiny.START_NS, xyz)),
        (tiny.START_NS, tiny.TRUTH, tiny.truth(tiny.START_NS, np.zeros(3, np.uint8))),
    ]
    index = indexed(tmp_path, tiny.write(tmp_path / 'bag', messages, class_names='road'))
    with pytest.raises(BadLabels, match='/lidar/truth has not one label for each point'):
        opened(index, tmp_path)


def test_the_end_of_each_log_is_held_out(tmp_path: Path) -> None:
    logs = [kitti(tmp_path / name, [(40,) * 4] * count) for name, count in (('a', 20), ('b', 7))]
    index = indexed(tmp_path, *logs)
    learnt, held_out = without_end(index)
    for log, first, count in (('a', 17, 20), ('b', 6, 7)):
        for part, numbers in ((learnt, range(first)), (held_out, range(first, count))):
            assert [r.message_ns for r in part.rows if r.log == log] == list(numbers)
    alone = Index(learnt.rows[:1], tmp_path)
    with pytest.raises(BadLabels, match='too few sweeps to hold some out: give --held-out'):
        without_end(alone)


def test_a_file_holds_what_a_window_may_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = indexed(tmp_path, kitti(tmp_path / 'drive', [(40,) * 4] * 9)).rows
    rows[6:] = [replace(row, segment=1) for row in rows[6:]]
    rows[5] = replace(rows[5], fixed_from_base=None)
    rows[8] = replace(rows[8], labels='')
    monkeypatch.setattr('offline_training.indexed_sweeps.SWEEPS_PER_FILE', 2)
    found = [[r.message_ns for r in part] for part in stretches(Index(rows, tmp_path), 2)]
    assert found == [[0, 2], [4], [1, 3], [5], [6, 8], [7]]
    rows[6:] = [replace(row, labels='') for row in rows[6:]]
    found = [[r.message_ns for r in part] for part in stretches(Index(rows, tmp_path), 2)]
    assert found == [[0, 2], [4], [1, 3], [5]]
