# SPDX-License-Identifier: Apache-2.0
"""Scores by range and of probabilities, against ones computed by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from offline_training.evaluation.answers import AnswerScores
from offline_training.evaluation.scores import BINS, Calibration, StreamScores
from offline_training.evaluation.sources import Swept
from tests.offline_training.evaluation.made_up import perceived, swept


def test_calibration_error_is_the_mean_distance_of_probability_and_accuracy() -> None:
    found = Calibration()
    assert found.error() is None
    found.add(np.array([0.7, 0.7, 0.95], np.float32), np.array([True, False, True]))
    found.add(np.array([1.0, 0.0], np.float32), np.array([True, False]))
    # Bins: 0.0; 0.7 twice (1.4 expected right, 1 is); 0.95 and 1.0 together (1.95, 2 are).
    assert found.error() == pytest.approx((0 + 0.4 + 0.05) / 5)
    rows = found.rows()
    assert [row['count'] for row in rows] == [1, *[0] * 9, 2, 0, 0, 0, 2]
    assert (rows[10]['from'], rows[10]['to']) == (10 / BINS, 11 / BINS)
    assert rows[10]['mean_probability'] == pytest.approx(0.7)
    assert rows[10]['accuracy'] == 0.5
    assert 'accuracy' not in rows[1]


def test_points_count_by_range_and_those_the_network_does_not_see_as_unknown() -> None:
    scores = StreamScores(('a', 'b'))
    label = np.array([0, 0, 1, 1, 255], np.uint8)
    answer = np.array([0, 1, 1, 255, 0], np.uint8)
    known = answer != 255
    probability = np.array([0.9, 0.6, 0.8, 0, 1], np.float32)
    distance = np.array([9.9, 10, 30, 70, 1], np.float32)
    seen = np.array([True, True, True, False, True])
    scores.add(label, answer, known, probability, distance, seen)
    report = scores.report()
    assert report['points_scored'] == 4
    assert report['accuracy'] == 0.5
    assert report['class_iou'] == {'a': 0.5, 'b': pytest.approx(1 / 3, abs=1e-6)}
    assert report['in_range_of_network']['class_iou'] == {'a': 0.5, 'b': 0.5}
    of_range = {name: part['class_iou'] for name, part in report['by_range_m'].items()}
    assert of_range == {
        '0-10': {'a': 1.0, 'b': None},
        '10-30': {'a': 0.0, 'b': None},
        '30-60': {'a': None, 'b': 1.0},
    }
    assert report['confusion'] == {
        'true': ['a', 'b'],
        'answered': ['a', 'b', 'unknown'],
        'points': [[1, 1, 0], [0, 1, 1]],
    }
    assert sum(row['count'] for row in report['calibration']['bins']) == 3


def added(names: tuple[str, ...], label_names: tuple[str, ...], given: Swept) -> AnswerScores:
    scores = AnswerScores(names, label_names, range_m=20.0)
    class_id = np.array([0, 1, 2, 255], np.uint8)
    scores.add(given, perceived(class_id, np.array([0.5, 0.7, 0.9, 0], np.float32)))
    return scores


def test_answers_are_compared_by_name_and_ranges_begin_at_the_sensor() -> None:
    # The sensor stands at x = 5 m of the base frame; the last point is out of the network's range.
    xyz = np.array([[6, 0, 0], [5, 11, 0], [-4, 0, 0], [24, 0, 0]], np.float32)
    given = swept(xyz, np.array([1, 1, 0, 0], np.uint8), sensor_x=5.0)
    report = added(('car', 'road', 'bike'), ('road', 'car', 'tree'), given).report()
    assert (report['sweeps'], report['points'], report['points_out_of_range']) == (1, 4, 1)
    assert report['unknown_share'] == 0.25
    assert report['unknown_share_in_range'] == 0
    thirds = dict.fromkeys(('car', 'road', 'bike'), pytest.approx(1 / 3, abs=1e-6))
    assert report['class_share_in_range'] == thirds
    assert report['mean_probability_in_range'] == pytest.approx(0.7, abs=1e-6)
    # road was answered bike, which no label is: unknown, but an answer as far as its probability.
    points = report['scores']['confusion']['points']
    assert points == [[0, 0, 0, 2], [1, 1, 0, 0], [0, 0, 0, 0]]
    of_range = {
        name: part['points_scored'] for name, part in report['scores']['by_range_m'].items()
    }
    assert of_range == {'0-10': 2, '10-30': 2, '30-60': 0}
    assert sum(row['count'] for row in report['scores']['calibration']['bins']) == 3


@pytest.mark.parametrize(
    ('names', 'label_names', 'words'),
    [
        (('car', 'road', 'bike'), ('road', 'tree'), 'the model has no class tree'),
        (('car', 'road', 'bike'), ('tree',), 'no class name is shared: tree against car'),
        (('car', 'road', 'bike'), (), ''),
    ],
)
def test_what_cannot_be_scored_is_said(
    names: tuple[str, ...], label_names: tuple[str, ...], words: str
) -> None:
    given = swept(np.zeros((4, 3), np.float32), np.zeros(4, np.uint8) if label_names else None)
    scores = added(names, label_names, given)
    report: dict[str, Any] = scores.report()
    assert ('scores' in report) == ('road' in label_names)
    assert (words in scores.problems[0]) if words else not scores.problems


def test_a_sweep_without_labels_is_counted_but_not_scored() -> None:
    given = swept(np.zeros((4, 3), np.float32), None)
    report = added(('car', 'road', 'bike'), ('road',), given).report()
    assert (report['points'], report['scores']['points_scored']) == (4, 0)
    assert report['scores']['miou'] is None
