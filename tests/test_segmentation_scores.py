# SPDX-License-Identifier: Apache-2.0
"""Scores against counts made by hand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from cross4d_jepa_ros.segmentation_scores import SegmentationScores, ids_by_name

NAMES = ('road', 'car', 'pole')


def ids(*values: int) -> NDArray[np.uint8]:
    return np.array(values, np.uint8)


def test_confusion_iou_and_accuracy_of_a_hand_counted_sweep() -> None:
    scores = SegmentationScores(NAMES)
    scores.add(ids(0, 0, 0, 0, 1, 1, 255, 255), ids(0, 0, 1, 255, 1, 2, 0, 1))

    np.testing.assert_array_equal(scores.confusion, [[2, 1, 0, 1], [0, 1, 1, 0], [0, 0, 0, 0]])
    assert scores.confusion.dtype == np.int64
    assert scores.points == 6
    assert scores.class_iou() == {'road': 2 / 4, 'car': 1 / 3, 'pole': None}
    assert scores.miou() == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert scores.absent() == ('pole',)


def test_sweeps_add_up() -> None:
    random = np.random.default_rng(0)
    truth, answer = (random.integers(0, 3, 500).astype(np.uint8) for _ in range(2))
    whole, parts = SegmentationScores(NAMES), SegmentationScores(NAMES)
    whole.add(truth, answer)
    for half in (slice(0, 200), slice(200, None)):
        parts.add(truth[half], answer[half])

    np.testing.assert_array_equal(parts.confusion, whole.confusion)
    assert parts.miou() == whole.miou()


def test_any_answer_beyond_the_classes_is_wrong() -> None:
    scores = SegmentationScores(NAMES)
    scores.add(ids(0, 1, 2, 2), ids(3, 200, 254, 2))

    assert scores.confusion[:, -1].tolist() == [1, 1, 1]
    assert scores.class_iou() == {'road': 0.0, 'car': 0.0, 'pole': 0.5}


def test_without_points_there_is_no_score() -> None:
    scores = SegmentationScores(NAMES)
    scores.add(ids(255, 255), ids(0, 1))

    assert scores.miou() is None
    assert scores.absent() == NAMES


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match=r'\(2,\) answers for \(3,\) true labels'):
        SegmentationScores(NAMES).add(ids(0, 1, 2), ids(0, 1))


def test_a_true_id_without_a_name_is_refused() -> None:
    with pytest.raises(ValueError, match='class id 3, but only 3 classes'):
        SegmentationScores(NAMES).add(ids(0, 3, 255), ids(0, 0, 0))


def test_ids_are_translated_by_name() -> None:
    table = ids_by_name(('car', 'dog', 'road'), NAMES)

    assert table[:4].tolist() == [1, 255, 0, 255]
    assert table[255] == 255

    scores = SegmentationScores(NAMES)
    scores.add(ids(1, 0, 2, 2), table[ids(0, 2, 1, 255)])
    assert scores.class_iou() == {'road': 1.0, 'car': 1.0, 'pole': 0.0}
