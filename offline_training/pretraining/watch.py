# SPDX-License-Identifier: Apache-2.0
"""Watches for collapse: an encoder that says the same of everything has a small loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from offline_training.objectives.passes import Term

# Rows of each term that are looked at together, and at most so many of one sample.
ROWS, SAMPLE_ROWS = 1024, 128
# Steps between two looks.
EVERY = 10
# Steps in a row for which a term must look dead before the run is stopped.
PATIENCE = 500
# Of the deviation that the term had at first.
DEAD_SHARE = 0.01
DEAD_COSINE = 0.999
FIGURES = ('target_std', 'prediction_std', 'effective_rank', 'pair_cosine')


class DeadRun(RuntimeError):
    """The run learns nothing any more; the sentence says how that shows."""


def mean_deviation(rows: Tensor) -> float:
    """Mean over the channels of the standard deviation of (n, d) rows."""
    return float(rows.std(0, correction=0).mean())


def effective_rank(rows: Tensor) -> float:
    """Directions that (n, d) rows fill: exp of the entropy of their singular values.

    As RankMe (arXiv 2210.02885, equation 1), on centred rows.
    """
    values = torch.linalg.svdvals(rows - rows.mean(0))  # (min(n, d),)
    share = values / values.sum().clamp_min(1e-12)  # (min(n, d),)
    return float(torch.exp(-(share * share.clamp_min(1e-12).log()).sum()))


def pair_cosine(rows: Tensor) -> float:
    """Mean cosine of each of (n, d) rows with one half the rows away."""
    return float(F.cosine_similarity(rows, rows.roll(len(rows) // 2, 0)).mean())


@dataclass
class _Watched:
    """What is remembered of one term."""

    target: Tensor
    prediction: Tensor
    first_std: float = 0.0
    dead_since: int = -1
    figures: dict[str, float] = field(default_factory=dict)


class CollapseWatch:
    """Looks at the predictions and targets of each term.

    A term is dead while its targets deviate by less than a hundredth of what they did at first, or
    all targets or all predictions point the same way.
    """

    def __init__(self) -> None:
        self._terms: dict[str, _Watched] = {}

    def add(self, terms: Mapping[str, Term]) -> None:
        """Take in one sample's terms; the oldest rows go."""
        for name, term in terms.items():
            every = -(-len(term.target) // SAMPLE_ROWS)
            new = [rows[::every].float().cpu() for rows in (term.target, term.prediction)]
            known = self._terms.get(name)
            if known is None:
                self._terms[name] = _Watched(*new)  # (n, d) each
                continue
            known.target = torch.cat((known.target, new[0]))[-ROWS:]
            known.prediction = torch.cat((known.prediction, new[1]))[-ROWS:]

    def look(self, step: int) -> dict[str, dict[str, float]]:
        """Return the FIGURES of each term.

        Raises:
            DeadRun: A term has been dead for PATIENCE steps.

        """
        for name, watched in self._terms.items():
            if len(watched.target) < 2:
                continue
            watched.figures = {
                'target_std': mean_deviation(watched.target),
                'prediction_std': mean_deviation(watched.prediction),
                'effective_rank': effective_rank(watched.prediction),
                'pair_cosine': pair_cosine(watched.prediction),
            }
            watched.first_std = watched.first_std or watched.figures['target_std']
            self._judge(name, watched, step)
        return {name: watched.figures for name, watched in self._terms.items()}

    def _judge(self, name: str, watched: _Watched, step: int) -> None:
        deviation, pair = watched.figures['target_std'], watched.figures['pair_cosine']
        alike = pair_cosine(watched.target)
        if deviation < DEAD_SHARE * watched.first_std or alike > DEAD_COSINE:
            how = (
                f'its targets deviate by {deviation:.2g} (at first by {watched.first_std:.2g}), '
                f'the mean cosine of two of them is {alike:.4f}'
            )
        elif pair > DEAD_COSINE:
            how = f'all its predictions are alike: the mean cosine of two is {pair:.4f}'
        else:
            watched.dead_since = -1
            return
        if watched.dead_since < 0:
            watched.dead_since = step
        if step - watched.dead_since >= PATIENCE:
            msg = (
                f'{name} collapsed: for {step - watched.dead_since} steps {how}. Lower '
                'learning_rate, raise masked_latent.variance_weight or ema.start, or give '
                'dense_correspondence a weight'
            )
            raise DeadRun(msg)

    def tensors(self) -> dict[str, Tensor]:
        """Return all that is remembered, to save it."""
        saved = {}
        for name, watched in self._terms.items():
            saved[f'watch.target.{name}'] = watched.target.contiguous()
            saved[f'watch.prediction.{name}'] = watched.prediction.contiguous()
            rest = (watched.first_std, float(watched.dead_since))
            saved[f'watch.rest.{name}'] = torch.tensor(rest, dtype=torch.float64)
        return saved

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from `tensors`."""
        start = 'watch.target.'
        for key in [key for key in tensors if key.startswith(start)]:
            name = key.removeprefix(start)
            first_std, dead_since = tensors[f'watch.rest.{name}'].tolist()
            prediction = tensors[f'watch.prediction.{name}']
            self._terms[name] = _Watched(tensors[key], prediction, first_std, int(dead_since))
