# SPDX-License-Identifier: Apache-2.0
"""A point that stands is found again, and its embedding compared with what it was."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cross4d_jepa_ros.model.heads import EmbeddingNormalisation
from cross4d_jepa_ros.model.naming import TeachableSweep
from cross4d_jepa_ros.sensing.frames import SensorFrame
from cross4d_jepa_ros.sensing.point_clouds import Sweep
from offline_training.evaluation.sources import Swept
from offline_training.evaluation.stability import NO_POSE, Stability, nearest_within, rows_of

FAR = np.array([5e5, 4e6, 100.0])


def test_the_nearest_within_the_radius_is_found_like_by_hand() -> None:
    draw = np.random.default_rng(0)
    points = np.concatenate((draw.uniform(-1, 1, (400, 3)), [[0.5, 0.5, 0.5]] * 3)) + FAR
    query = np.concatenate((draw.uniform(-1.5, 1.5, (200, 3)), [[0.5, 0.5, 0.52], [9, 9, 9]])) + FAR
    found = nearest_within(query, points, 0.2)
    distance = np.linalg.norm(query[:, None] - points, axis=2)
    wanted = np.where(distance.min(1) <= 0.2, distance.argmin(1), -1)
    np.testing.assert_array_equal(found, wanted)
    assert found[-2] == 400 and found[-1] == -1
    assert 20 < (found >= 0).sum() < 180
    assert nearest_within(query, points[:0], 0.2).tolist() == [-1] * 202
    assert not len(nearest_within(query[:0], points, 0.2))


def test_rows_are_found_by_exact_coordinates() -> None:
    points = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)
    points[3] = -0.0, 0.0, 1.0
    points[4] = 0.0, -0.0, 1.0
    some = np.array([3, 4, 77, 499])
    np.testing.assert_array_equal(rows_of(points[some], points), some)


class Drive:
    """Two points ahead of a sensor that moves by 1 m a sweep; embeddings are given."""

    def __init__(self, *, posed: bool = True, speeds: bool = True) -> None:
        self.stability = Stability(EmbeddingNormalisation(2))
        self._posed, self._speeds = posed, speeds
        self._number = 0

    def see(
        self,
        embedding: NDArray[np.float32],
        class_id: list[int],
        *,
        speed: tuple[float, ...] = (0.0, 0.0),
        away: float = 0.0,
        reset: str = '',
    ) -> None:
        number, self._number = self._number, self._number + 1
        pose = np.eye(4)
        pose[:3, 3] = FAR + np.array([number, 0, 0])
        # The message's third point is not usable; the sensor sits 2 m above the base frame.
        xyz_base = np.array([[20.0 - number, 0, 2], [45.0 - number, 3 + away, 2]], np.float32)
        base_from_sensor = np.eye(4)
        base_from_sensor[2, 3] = 2.0
        sweep = Sweep(
            stamp_ns=number * 100_000_000,
            frame_id='lidar',
            height=1,
            width=3,
            xyz=xyz_base - np.float32([0, 0, 2]),
            intensity=None,
            ring=None,
            time_offset_ns=None,
            index=np.array([0, 2]),
        )
        frame = SensorFrame(
            sweep.stamp_ns, sweep, xyz_base, base_from_sensor, pose if self._posed else None, ()
        )
        speeds = np.array([speed[0], 0, speed[1]], np.float32) if self._speeds else None
        swept = Swept('drive', number == 0, frame, None, None, speeds)
        perception: Any = SimpleNamespace(
            reset=reset, class_id=np.array([class_id[0], 255, class_id[1]], np.uint8)
        )
        newest = TeachableSweep(sweep.stamp_ns, 'lidar', sweep.xyz, torch.tensor(embedding))
        self.stability.add(swept, perception, newest)


ALIKE = np.array([[1, 0], [0, 1]], np.float32)
TURNED = np.array([[0.6, 0.8], [0, 2]], np.float32)


def test_cosines_and_labels_of_the_same_point_are_compared() -> None:
    drive = Drive()
    drive.see(ALIKE, [0, 1])
    drive.see(TURNED, [0, 2])
    drive.see(ALIKE, [255, 2])
    one, two = drive.stability.report()['rows']
    assert (one['sweeps'], one['seconds'], one['points']) == (1, 0.1, 4)
    assert one['matched'] == 1
    # 0.6 and back, the other point 1 and 1; labels kept: yes, no, unknown is another, yes.
    assert one['cosine'] == pytest.approx((0.6 + 1 + 0.6 + 1) / 4, abs=1e-6)
    assert one['label_kept'] == 0.5
    assert one['by_range_m']['0-10']['points'] == 0
    assert one['by_range_m']['10-30']['cosine'] == pytest.approx(0.6, abs=1e-6)
    assert one['by_range_m']['30-60']['cosine'] == pytest.approx(1, abs=1e-6)
    assert (two['sweeps'], two['seconds'], two['points']) == (2, 0.2, 2)
    assert two['cosine'] == pytest.approx(1, abs=1e-6)
    assert two['label_kept'] == 0
    assert drive.stability.known_speed and not drive.stability.problems


def test_what_moves_is_left_out_where_speeds_are_known() -> None:
    known, unknown = Drive(), Drive(speeds=False)
    for drive in (known, unknown):
        for _ in range(2):
            drive.see(ALIKE, [0, 1], speed=(3.0, 0.0))
    assert known.stability.report()['rows'][0]['points'] == 1
    assert unknown.stability.report()['rows'][0]['points'] == 2
    assert not unknown.stability.known_speed


@pytest.mark.parametrize(('away', 'matched'), [(0.09, 1.0), (0.11, 0.5)])
def test_only_what_is_where_it_was_is_the_same(away: float, matched: float) -> None:
    drive = Drive()
    drive.see(ALIKE, [0, 1])
    drive.see(ALIKE, [0, 1], away=away)
    assert drive.stability.report()['rows'][0]['matched'] == matched
    drive.see(ALIKE, [0, 1], reset='a gap')
    assert drive.stability.report()['rows'][0]['points'] == 2


def test_without_ego_motion_it_says_that_it_cannot() -> None:
    drive = Drive(posed=False)
    for _ in range(3):
        drive.see(ALIKE, [0, 1])
    assert drive.stability.report()['rows'] == []
    assert drive.stability.problems == [NO_POSE]
