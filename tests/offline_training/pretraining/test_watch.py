# SPDX-License-Identifier: Apache-2.0
"""A run whose latents collapse is stopped, and one that learns is not."""

from __future__ import annotations

import math

import pytest
import torch

from offline_training.objectives.passes import Term
from offline_training.pretraining import watch
from offline_training.pretraining.watch import (
    CollapseWatch,
    DeadRun,
    effective_rank,
    mean_deviation,
    pair_cosine,
)

NAMES = ('masked_latent', 'latent_view')


def alone(values: torch.Tensor) -> torch.Tensor:
    return values


def term(target: torch.Tensor, prediction: torch.Tensor | None = None) -> Term:
    return Term(torch.zeros(()), target if prediction is None else prediction, target)


def rows(seed: int, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(64, 8, generator=torch.Generator().manual_seed(seed))


def test_figures_by_hand() -> None:
    cross = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    assert mean_deviation(cross) == pytest.approx(math.sqrt(0.5))
    # Two equal singular values fill two directions, one fills one.
    assert effective_rank(cross) == pytest.approx(2.0)
    assert effective_rank(cross[:, :1]) == pytest.approx(1.0)
    # Each row meets its opposite.
    assert pair_cosine(cross) == pytest.approx(-1.0)
    assert pair_cosine(torch.ones(6, 3)) == pytest.approx(1.0)


def test_what_varies_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, 'PATIENCE', 20)
    watched = CollapseWatch(NAMES, alone)
    for step in range(0, 200, 10):
        watched.add({'masked_latent': term(rows(step))})
        figures = watched.look(step)['masked_latent']
    assert set(figures) == set(watch.FIGURES)
    assert figures['target_std'] == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize('shown', ['targets shrink', 'targets alike', 'predictions alike'])
def test_what_collapses_is_stopped_with_the_reason(
    shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, 'PATIENCE', 30)
    monkeypatch.setattr(watch, 'ROWS', 64)
    watched = CollapseWatch(NAMES, alone)
    watched.add({'masked_latent': term(rows(0))})
    watched.look(0)
    dead = {
        'targets shrink': term(rows(1, 0.001), rows(2)),
        'targets alike': term(1 + 1e-4 * rows(1), rows(2)),
        'predictions alike': term(rows(1), 1 + 1e-4 * rows(2)),
    }[shown]
    for step in (10, 20, 30):
        watched.add({'masked_latent': dead})
        watched.look(step)
    watched.add({'masked_latent': dead})
    with pytest.raises(DeadRun, match=r'masked_latent collapsed: for 30 steps .* learning_rate'):
        watched.look(40)


def test_a_bad_spell_that_ends_is_forgiven(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, 'PATIENCE', 30)
    monkeypatch.setattr(watch, 'ROWS', 64)
    watched = CollapseWatch(NAMES, alone)
    for step in range(0, 200, 10):
        alike = step % 40 >= 20
        watched.add({'latent_view': term(torch.ones(64, 8) if alike else rows(step))})
        watched.look(step)


def test_it_goes_on_from_what_was_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, 'PATIENCE', 30)
    first, second = CollapseWatch(NAMES, alone), CollapseWatch(NAMES, alone)
    first.add({'masked_latent': term(rows(0))})
    first.look(0)
    for _ in range(8):
        first.add({'masked_latent': term(torch.ones(1024, 8))})
    first.look(10)
    second.restore({name: value.clone() for name, value in first.tensors().items()})
    for watched in (first, second):
        watched.look(30)
        with pytest.raises(DeadRun, match='for 30 steps'):
            watched.look(40)


def test_processes_share_their_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    def beside_a_sound_one(values: torch.Tensor) -> torch.Tensor:
        # Count, mean cosine of targets, then FIGURES, of a process that learns.
        sound = torch.tensor([1.0, 0.0, 1.0, 1.0, 8.0, 0.0], dtype=torch.float64)
        return values + torch.stack((sound, 0 * sound))

    monkeypatch.setattr(watch, 'PATIENCE', 10)
    watched = CollapseWatch(NAMES, beside_a_sound_one)
    for step in range(0, 100, 10):
        watched.add({'masked_latent': term(torch.ones(64, 8))})
        figures = watched.look(step)
    assert figures['masked_latent']['target_std'] == pytest.approx(0.5)
    assert set(figures) == {'masked_latent'}
