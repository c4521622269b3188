# SPDX-License-Identifier: Apache-2.0
"""Disturbances do to sweeps and images what they say, and cost what they cost."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from cross4d_jepa_ros.bags import Bag
from cross4d_jepa_ros.pipeline import Output
from cross4d_jepa_ros.sensing.frames import SensorFrame
from cross4d_jepa_ros.sensing.point_clouds import Sweep
from offline_training.evaluation.disturbances import (
    bags_with_late_images,
    beam_of_point,
    cameras_turned,
    disturbances,
    dropped,
    fewer_beams,
    fewer_sweeps,
    without_images,
)
from offline_training.evaluation.sources import Source, Swept
from offline_training.evaluation.stress import CannotStress, Stress, draw_stress
from offline_training.logs.bag_index import BagChoice
from offline_training.street.classes import CLASS_NAMES
from tests.offline_training.evaluation.conftest import SWEEPS
from tests.offline_training.evaluation.made_up import perceived
from tests.tiny_recording import MS


@pytest.fixture(scope='module')
def sweeps(drive: Path) -> list[Swept]:
    return list(Source(drive, BagChoice()))


def beams(elevation_deg: list[float], *, ring: list[int] | None = None) -> Sweep:
    """One point of each elevation, 10 m away."""
    angle = np.radians(elevation_deg)
    xyz = 10 * np.column_stack((np.cos(angle), 0 * angle, np.sin(angle))).astype(np.float32)
    count = len(xyz)
    rings = None if ring is None else np.array(ring, np.uint16)
    return Sweep(0, 'lidar', 1, count, xyz, None, rings, np.arange(count), np.arange(count))


def test_a_larger_share_drops_what_a_smaller_one_does(sweeps: list[Swept]) -> None:
    frame = sweeps[0].frame
    kept = [dropped(frame, 0, share) for share in (0.25, 0.5, 0.75)]
    for less, share in zip(kept, (0.25, 0.5, 0.75), strict=True):
        assert abs(len(less.xyz_base) / 920 - (1 - share)) < 0.06
        np.testing.assert_array_equal(less.xyz_base, frame.xyz_base[less.sweep.index])
        np.testing.assert_array_equal(less.sweep.xyz, frame.sweep.xyz[less.sweep.index])
        assert less.sweep.intensity is not None
        assert len(less.sweep.intensity) == len(less.sweep.index)
        assert less.sweep.point_count == 920
    assert set(kept[2].sweep.index) < set(kept[1].sweep.index) < set(kept[0].sweep.index)
    assert not np.array_equal(kept[0].sweep.index, dropped(sweeps[1].frame, 0, 0.25).sweep.index)


def test_beams_are_told_by_ring_or_by_elevation(sweeps: list[Swept]) -> None:
    assert beam_of_point(beams([3, 1, 2], ring=[7, 5, 6])).tolist() == [7, 5, 6]
    even = np.linspace(-24.8, 2, 64)
    assert beam_of_point(beams(even.tolist())).tolist() == list(range(64))
    assert beam_of_point(beams([])).tolist() == []
    given = beams([3, 1, 2, 0], ring=[7, 4, 6, 8])
    frame = replace(sweeps[0].frame, sweep=given, xyz_base=given.xyz)
    assert fewer_beams(frame, 0, 2).sweep.index.tolist() == [1, 2, 3]
    assert fewer_beams(frame, 0, 4).sweep.index.tolist() == [1, 3]


def test_cameras_turn_to_the_right(sweeps: list[Swept]) -> None:
    frame = sweeps[0].frame
    (turned,) = cameras_turned(frame, 0, 2.0).views
    straight_ahead = np.array([0, 0, 10, 1])
    seen = turned.camera_from_base @ np.linalg.inv(frame.views[0].camera_from_base) @ straight_ahead
    # What was in the middle of the image is now on the left of it.
    np.testing.assert_allclose(
        seen, [-10 * np.sin(np.radians(2)), 0, 10 * np.cos(np.radians(2)), 1], atol=1e-9
    )
    assert without_images(frame, 0).views == ()


def test_late_images_are_taken_for_what_their_stamps_say(drive: Path, sweeps: list[Swept]) -> None:
    late = list(Source(drive, BagChoice(), bag=bags_with_late_images(100 * MS)))
    shown = [swept.frame.views[0].image[0, 0, 0] for swept in sweeps]
    assert shown == [0, 40, 80, 120]
    assert [swept.frame.views[0].image[0, 0, 0] for swept in late[:-1]] == [40, 80, 120]
    for now, then in zip(late[:-1], sweeps, strict=False):
        assert now.frame.views[0].stamp_ns == then.frame.views[0].stamp_ns
        np.testing.assert_array_equal(
            now.frame.views[0].camera_from_base, then.frame.views[0].camera_from_base
        )


class Known:
    """Stands in for a pipeline: knows the labels of all points, if there are 500 and an image."""

    def __init__(self, sweeps: list[Swept], *, colour: bool = True) -> None:
        self.contract = SimpleNamespace(answer_names=CLASS_NAMES, colour=colour)
        self._labels = {swept.frame.stamp_ns: swept.label for swept in sweeps}
        self.resets = 0

    def reset(self) -> None:
        self.resets += 1

    def step(self, frame: SensorFrame, outputs: Output) -> Any:
        assert outputs == Output.SEGMENTATION
        label = self._labels[frame.stamp_ns]
        assert label is not None
        knows = len(frame.xyz_base) >= 500 and frame.views
        answer = label if knows else np.full_like(label, 255)
        return perceived(answer, np.ones(len(answer), np.float32))


def stress_of(pipeline: Any, drive: Path, sweeps: list[Swept], *, bags_only: bool = True) -> Stress:
    def opened(bag: type[Bag]) -> Iterable[Swept]:
        return sweeps if bag is Bag else Source(drive, BagChoice(), bag=bag)

    return Stress(pipeline, opened, CLASS_NAMES, bags_only=bags_only)


def test_rows_tell_what_each_disturbance_costs(
    drive: Path, sweeps: list[Swept], tmp_path: Path
) -> None:
    pipeline = Known(sweeps)
    stress = stress_of(pipeline, drive, sweeps)
    told: list[str] = []
    rows = list(stress.rows(told.append))
    assert len(rows) == len(stress) == pipeline.resets == 1 + len(disturbances(64))
    assert told[:5] == ['as recorded '] * SWEEPS + ['points dropped 25%']
    by_case = {(row['case'], row['amount']): row for row in rows}
    clean = by_case['as recorded', '']
    assert (clean['miou'], clean['accuracy'], clean['change']) == (1, 1, 0)
    assert (clean['sweeps'], clean['images'], clean['points']) == (SWEEPS, SWEEPS, 920 * SWEEPS)
    most = by_case['points dropped', '75%']
    assert (most['miou'], most['change'], most['accuracy_change']) == (0, -1, -1)
    assert 600 < most['points'] < 1200
    assert most['worst'] == {'road': -1, 'building': -1, 'pole': -1}
    assert set(most['mistaken_for'].values()) == {'unknown'}
    least = by_case['points dropped', '25%']
    assert least['change'] == 0 and set(least['mistaken_for'].values()) == {''}
    assert by_case['fewer sweeps', '1 of 2']['sweeps'] == 2
    assert by_case['fewer sweeps', '1 of 4']['sweeps'] == 1
    assert by_case['no camera', '']['images'] == 0
    assert by_case['no camera', '']['miou'] == 0
    assert by_case['images late', '10 ms']['images'] == SWEEPS
    assert not stress.problems
    draw_stress(tmp_path / 'stress.png', rows)
    assert cv2.imread(str(tmp_path / 'stress.png')) is not None


@pytest.mark.parametrize(
    ('colour', 'bags_only', 'left_out', 'why'),
    [
        (False, True, {'cameras turned', 'images late', 'no camera'}, 'looks at no image'),
        (True, False, {'images late'}, 'KITTI'),
    ],
)
def test_what_cannot_be_tried_is_told(
    drive: Path, sweeps: list[Swept], colour: bool, bags_only: bool, left_out: set[str], why: str
) -> None:
    stress = stress_of(Known(sweeps, colour=colour), drive, sweeps, bags_only=bags_only)
    tried = {row['case'] for row in stress.rows()}
    every = {each.name for each in disturbances(64)} | {'as recorded'}
    assert every - tried == left_out
    assert len(stress.problems) == 1 and why in stress.problems[0]


def test_without_common_labels_nothing_can_be_compared(drive: Path, sweeps: list[Swept]) -> None:
    with pytest.raises(CannotStress, match='--stress compares with labels'):
        Stress(Known(sweeps), lambda _: [], ('lane',), bags_only=True)  # type: ignore[arg-type]


def test_sweeps_are_left_out_by_their_number(sweeps: list[Swept]) -> None:
    frame = sweeps[0].frame
    assert [fewer_sweeps(frame, number, 4) is frame for number in range(6)] == [
        *(True, False, False, False),
        *(True, False),
    ]
