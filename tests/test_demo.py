# SPDX-License-Identifier: Apache-2.0
"""What the demo makes of answers and ground truth, without its processes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cross4d_jepa_ros.bags import Bag
from cross4d_jepa_ros.demo import truth_scores
from tests.tiny_recording import MS, START_NS, TRUTH, truth, write


def ids(*values: int) -> NDArray[np.uint8]:
    return np.array(values, np.uint8)


def recording(path: Path, *sweeps: NDArray[np.uint8], **notes: str) -> Path:
    """Truth of one sweep each 100 ms."""
    stamps = [START_NS + 100 * MS * number for number in range(len(sweeps))]
    clouds = [(at, TRUTH, truth(at, labels)) for at, labels in zip(stamps, sweeps, strict=True)]
    return write(path, clouds, **notes)


def test_answers_meet_the_truth_of_their_stamp_by_class_name(tmp_path: Path) -> None:
    path = recording(
        *(tmp_path / 'bag', ids(0, 0, 1, 2, 255), ids(0, 0, 0, 0, 0), ids(1, 1, 0)),
        class_names='road,car,tram,dog',
    )
    answers = {START_NS: ids(1, 0, 0, 2, 1), START_NS + 200 * MS: ids(0, 255, 1)}
    with Bag(path) as bag:
        report = truth_scores(bag, TRUTH, answers, ('car', 'road', 'bird'))

    assert report == {
        'miou': 0.389,
        'class_iou': {'road': 0.667, 'car': 0.5, 'tram': 0.0, 'dog': None},
        'classes_absent': ['dog'],
        'points_scored': 7,
    }


def test_a_truth_of_another_length_is_named_and_left_out(tmp_path: Path) -> None:
    path = recording(tmp_path / 'bag', ids(0, 0), ids(0, 0, 0), class_names='road')
    answers = {START_NS: ids(0, 0), START_NS + 100 * MS: ids(0, 0)}
    with Bag(path) as bag:
        report = truth_scores(bag, TRUTH, answers, ('road',))
        problems = bag.problems

    assert (report['points_scored'], report['miou']) == (2, 1.0)
    assert any('(2,) answers for (3,) true labels' in problem for problem in problems)


def test_without_names_there_is_no_score(tmp_path: Path) -> None:
    with Bag(recording(tmp_path / 'nameless', ids(0, 0))) as bag:
        assert truth_scores(bag, TRUTH, {START_NS: ids(0, 0)}, ('road',)) == {}
        assert any('custom data has no class_names' in problem for problem in bag.problems)
    with Bag(recording(tmp_path / 'named', ids(0, 0), class_names='road')) as bag:
        assert truth_scores(bag, TRUTH, {}, ()) == {}
        assert any('the model has no classes' in problem for problem in bag.problems)


def test_classes_that_the_model_lacks_are_named(tmp_path: Path) -> None:
    path = recording(tmp_path / 'bag', ids(0, 1), class_names='road,Car')
    with Bag(path) as bag:
        report = truth_scores(bag, TRUTH, {START_NS: ids(0, 1)}, ('road', 'car'))
        assert report['class_iou'] == {'road': 1.0, 'Car': 0.0}
        assert any('the model has no class Car' in problem for problem in bag.problems)
    with Bag(path) as bag:
        assert truth_scores(bag, TRUTH, {START_NS: ids(0, 1)}, ('Road', 'car')) == {}
        assert any('no class name is shared' in problem for problem in bag.problems)
