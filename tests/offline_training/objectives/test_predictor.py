# SPDX-License-Identifier: Apache-2.0
"""What a predictor looks at, and what it does not."""

from __future__ import annotations

import pytest
import torch

from offline_training.objectives.predictor import (
    KINDS,
    LatentPredictor,
    at_age,
    initialise,
    some,
)
from offline_training.objectives.settings import Predictor


def predictor_of(kind: str) -> LatentPredictor:
    predictor = LatentPredictor(Predictor(16, 2, 4), 12, 5, kind, (1.0, 80.0))
    initialise(predictor, torch.Generator().manual_seed(1))
    return predictor


def sample() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(2)
    query, place = (torch.rand(n, 3, generator=draw) * 20 for n in (6, 30))
    return at_age(query, 0), torch.randn(30, 12, generator=draw), at_age(place, 0.1)


@pytest.mark.parametrize('kind', KINDS)
def test_answers_depend_on_all_that_is_given(kind: str) -> None:
    predictor = predictor_of(kind)
    query, context, place = sample()
    answer = predictor(query, context, place)
    assert answer.shape == (6, 5)
    assert not torch.allclose(predictor(query, context.roll(1, 0), place), answer)
    older = place + torch.tensor([0.0, 0, 0, 3])
    assert not torch.allclose(predictor(query, context, older), answer)
    elsewhere = query + torch.tensor([1.0, 0, 0, 0])
    assert not torch.allclose(predictor(elsewhere, context, place), answer)
    condition = torch.linspace(-1, 1, 16).expand(6, 16)
    assert not torch.allclose(predictor(query, context, place, condition), answer)
    other = torch.randperm(30, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(predictor(query, context[other], place[other]), answer)


@pytest.mark.parametrize(('kind', 'alone'), [(kind, kind == 'cross') for kind in KINDS])
def test_queries_see_each_other_but_where_views_are_asked(kind: str, alone: bool) -> None:
    predictor = predictor_of(kind)
    query, context, place = sample()
    first = predictor(query, context, place)[:1]
    single = predictor(query[:1], context, place)
    assert torch.allclose(single, first, atol=1e-6) == alone


@pytest.mark.parametrize('kind', KINDS)
def test_every_weight_gets_a_gradient(kind: str) -> None:
    predictor = predictor_of(kind)
    predictor(*sample()).square().sum().backward()
    assert all(value.grad.abs().sum() > 0 for value in predictor.parameters())


def test_some_rows_are_drawn_once_and_in_order() -> None:
    draw, device = torch.Generator().manual_seed(4), torch.device('cpu')
    assert some(5, 5, draw, device).tolist() == [0, 1, 2, 3, 4]
    rows = some(100, 10, draw, device).tolist()
    assert rows == sorted(set(rows))
    assert len(rows) == 10
    assert rows != some(100, 10, draw, device).tolist()
