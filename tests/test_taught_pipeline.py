# SPDX-License-Identifier: Apache-2.0
"""What a pipeline is taught by examples, and the thresholds of single classes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cross4d_jepa_ros.model.config import BadConfig
from cross4d_jepa_ros.model.prototypes import Prototypes
from cross4d_jepa_ros.pipeline import Output, Perception, Pipeline
from tests.checkpoints import SHIPPED
from tests.drawn_frames import frame_of, points
from tests.test_pipeline import assert_same, headless


def classes_of(answer: Perception) -> set[int]:
    assert answer.class_id is not None
    return set(np.unique(answer.class_id).tolist())


def test_an_example_names_what_resembles_it_in_the_very_next_answer() -> None:
    pipeline = Pipeline(SHIPPED, device='cpu', precision='fp32')
    # The message's frame lies 2 m beside the base frame.
    pose = np.eye(4)
    pose[1, 3] = 2.0
    xyz = points(4000)
    frame = replace(frame_of(xyz, base_from_sensor=pose), xyz_base=xyz + pose[:3, 3])
    pipeline.teaching = True
    before = pipeline.step(frame, Output(0))
    assert before.class_id is None
    assert pipeline.newest is not None and pipeline.newest.frame_id == 'lidar'
    before = pipeline.step(frame, Output.SEGMENTATION)
    example = pipeline.embedding_at(xyz[17] + [0.01, 0, 0])
    pipeline.prototypes = pipeline.prototypes.added('kerb', example)
    pipeline.teaching = False
    after = pipeline.step(frame, Output.SEGMENTATION)
    assert pipeline.newest is None
    assert pipeline.contract.answer_names == (*pipeline.contract.class_names, 'kerb')
    assert len(pipeline.contract.answer_palette) == 8
    assert after.class_id[17] == 7
    assert after.probability[17] > 0.9
    # What resembles nothing that was taught keeps the answer of the head.
    other = after.class_id != 7
    assert 0 < other.sum() < len(xyz)
    assert np.array_equal(after.class_id[other], before.class_id[other])
    assert np.array_equal(after.probability[other], before.probability[other])
    pipeline.prototypes = Prototypes.none(32)
    assert_same(pipeline.step(frame, Output.SEGMENTATION), before)


def test_examples_of_a_class_that_the_head_knows_are_that_class() -> None:
    pipeline = Pipeline(SHIPPED, device='cpu', precision='fp32')
    pipeline.teaching = True
    frame = frame_of(points(4000))
    before = pipeline.step(frame, Output.SEGMENTATION)
    car = pipeline.contract.class_names.index('car')
    assert before.class_id[17] != car
    taught = pipeline.prototypes.added('car', pipeline.embedding_at(frame.sweep.xyz[17]))
    pipeline.prototypes = taught
    assert pipeline.step(frame, Output.SEGMENTATION).class_id[17] == car
    assert pipeline.contract.answer_names == pipeline.contract.class_names


def test_a_model_without_a_head_knows_what_it_was_taught_and_nothing_else(tmp_path: Path) -> None:
    pipeline = headless(tmp_path / 'm')
    frame = frame_of(points(4000))
    pipeline.teaching = True
    assert pipeline.step(frame, Output.SEGMENTATION).class_id is None
    pipeline.answers_unknown = True
    assert classes_of(pipeline.step(frame, Output.SEGMENTATION)) == {255}
    example = pipeline.embedding_at(frame.sweep.xyz[17])
    pipeline.prototypes = pipeline.prototypes.added('kerb', example)
    answer = pipeline.step(frame, Output.SEGMENTATION)
    assert classes_of(answer) == {0, 255}
    assert answer.class_id[17] == 0
    assert answer.probability[answer.class_id == 0].min() > 0.5
    assert answer.probability[answer.class_id == 255].max() < 0.5


def test_no_example_where_no_point_is() -> None:
    pipeline = Pipeline(SHIPPED, device='cpu', precision='fp32')
    pipeline.teaching = True
    with pytest.raises(ValueError, match='no sweep was answered'):
        pipeline.embedding_at(np.zeros(3))
    pipeline.step(frame_of(np.array([[5, 0, 0], [8, 0, 0]], np.float32)), Output(0))
    assert pipeline.embedding_at(np.array([5.0, 0, 0.49])).norm() == pytest.approx(1)
    with pytest.raises(ValueError, match=r'is 0\.51 m away, the most is 0\.5 m'):
        pipeline.embedding_at(np.array([5.0, 0, 0.51]))
    with pytest.raises(ValueError, match='nan m away'):
        pipeline.embedding_at(np.array([5.0, np.nan, 0]))
    pipeline.step(frame_of(np.zeros((0, 3), np.float32)), Output.ALL)
    with pytest.raises(ValueError, match='saw no point'):
        pipeline.embedding_at(np.zeros(3))
    pipeline.reset()
    with pytest.raises(ValueError, match='no sweep was answered'):
        pipeline.embedding_at(np.zeros(3))


def test_a_class_has_a_threshold_of_its_own() -> None:
    pipeline = Pipeline(SHIPPED, device='cpu', precision='fp32', probability_threshold=0.3)
    frame = frame_of(points(2000))
    pipeline.probability_threshold = 0.0
    free = pipeline.step(frame, Output.SEGMENTATION)
    first, second = sorted(classes_of(free))[:2]
    names = pipeline.contract.class_names
    pipeline.probability_threshold = 0.6
    pipeline.class_thresholds = {names[first]: 0.0, names[second]: 1.01, 'never taught': 1.0}
    strict = pipeline.step(frame, Output.SEGMENTATION)
    assert np.array_equal(strict.probability, free.probability)
    rest = np.where(free.probability >= 0.6, free.class_id, 255)
    expected = np.where(free.class_id == first, first, rest)
    expected[free.class_id == second] = 255
    assert np.array_equal(strict.class_id, expected)
    pipeline.class_thresholds = {}
    assert np.array_equal(pipeline.step(frame, Output.SEGMENTATION).class_id, rest)


def test_more_classes_than_ids_are_refused_and_change_nothing() -> None:
    pipeline = Pipeline(SHIPPED, device='cpu', precision='fp32')
    many = pipeline.prototypes
    for number in range(249):
        many = many.added(f'class {number}', torch.ones(32))
    with pytest.raises(BadConfig, match='256 classes, taught ones included'):
        pipeline.prototypes = many
    assert pipeline.prototypes.names == () and pipeline.contract.prototypes is None
