# SPDX-License-Identifier: Apache-2.0
"""Taught classes against hand-computed similarities."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cross4d_jepa_ros.model.prototypes import (
    BACKGROUND,
    TEMPERATURE,
    Prototypes,
    named_together,
    taught_colour,
)

EAST, NORTH, UP = torch.eye(3)


def test_examples_are_kept_in_their_order_at_unit_length() -> None:
    first = Prototypes.none(3).added('kerb', 4 * EAST)
    both = first.added('hedge', NORTH).added('kerb', UP)
    assert (first.names, first.counts) == (('kerb',), (1,))
    assert (both.names, both.counts) == (('kerb', 'hedge'), (2, 1))
    assert both.class_of.tolist() == [0, 1, 0]
    assert torch.equal(both.vectors, torch.stack((EAST, NORTH, UP)))


def test_points_are_named_after_the_mean_of_the_examples() -> None:
    taught = Prototypes.none(3).added('kerb', EAST).added('kerb', NORTH).added('hedge', UP)
    half = 0.5**0.5
    points = torch.stack((UP, (EAST + NORTH) * half, EAST, -UP))
    index, probability, known = taught.answer(points)
    assert index.tolist() == [1, 0, 0, 0]
    assert known.tolist() == [True, True, True, False]
    # Similarities to kerb and hedge, and the background beside them.
    similar = np.array([[0, 1], [1, 0], [half, 0], [0, -1]])
    logits = np.column_stack((similar, np.full(4, BACKGROUND))) / TEMPERATURE
    softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = softmax[np.arange(4), index]
    assert probability.numpy() == pytest.approx(expected, abs=1e-6)


def test_examples_that_cancel_out_name_nothing() -> None:
    taught = Prototypes.none(3).added('kerb', EAST).added('kerb', -EAST)
    _, probability, known = taught.answer(torch.stack((EAST, UP)))
    assert probability.isfinite().all()
    assert not known.any()


@pytest.mark.parametrize('vector', [torch.zeros(3), torch.tensor([1.0, torch.nan, 0.0])])
def test_an_example_needs_a_direction_and_a_name(vector: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="'kerb' has an embedding without direction"):
        Prototypes.none(3).added('kerb', vector)
    with pytest.raises(ValueError, match='needs a name'):
        Prototypes.none(3).added('', EAST)


def test_a_taught_class_of_the_head_is_the_same_class() -> None:
    assert named_together(('road', 'car'), ('kerb', 'car', 'hedge')) == (
        'road',
        'car',
        'kerb',
        'hedge',
    )


def test_colours_of_taught_classes_are_told_apart() -> None:
    colours = np.array([taught_colour(number) for number in range(12)])
    apart = np.abs(colours[:, None] - colours[None]).sum(2) + 999 * np.eye(12)
    assert apart.min() > 40
    assert taught_colour(0) == taught_colour(0)
