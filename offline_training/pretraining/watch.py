# SPDX-License-Identifier: Apache-2.0
"""Watches for collapse: an encoder that says the same of everything has a small loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

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


class CollapseWatch:
    """Looks at the predictions and targets of each term.

    A term is dead while its targets deviate by less than a hundredth of what they did at first, or
    all targets or all predictions point the same way. All processes come to the same verdict.

    Args:
        names: Of the terms.
        total: Sums values over the processes.

    """

    def __init__(self, names: Sequence[str], total: Callable[[Tensor], Tensor]) -> None:
        self._names, self._total = list(names), total
        self._rows: dict[str, tuple[Tensor, Tensor]] = {}
        self._first_std = dict.fromkeys(names, 0.0)
        self._dead_since = dict.fromkeys(names, -1)

    def add(self, terms: Mapping[str, Term]) -> None:
        """Take in one sample's terms; the oldest rows go."""
        for name, term in terms.items():
            every = -(-len(term.target) // SAMPLE_ROWS)
            target, prediction = (
                rows[::every].float().cpu() for rows in (term.target, term.prediction)
            )  # (n, d), (n, d)
            if name in self._rows:
                before = self._rows[name]
                target = torch.cat((before[0], target))[-ROWS:]  # (n, d)
                prediction = torch.cat((before[1], prediction))[-ROWS:]  # (n, d)
            self._rows[name] = target, prediction

    def look(self, step: int) -> dict[str, dict[str, float]]:
        """Return the FIGURES of each term, means over the processes that have rows of it.

        Raises:
            DeadRun: A term has been dead for PATIENCE steps.

        """
        seen = torch.zeros(len(self._names), 2 + len(FIGURES), dtype=torch.float64)
        for number, name in enumerate(self._names):
            target, prediction = self._rows.get(name, (torch.zeros(0), torch.zeros(0)))
            if len(target) > 1:
                figures = (
                    mean_deviation(target),
                    mean_deviation(prediction),
                    effective_rank(prediction),
                    pair_cosine(prediction),
                )
                seen[number] = torch.tensor((1.0, pair_cosine(target), *figures))
        found: dict[str, dict[str, float]] = {}
        for name, (count, alike, *sums) in zip(
            self._names, self._total(seen).tolist(), strict=True
        ):
            if count:
                found[name] = {key: value / count for key, value in zip(FIGURES, sums, strict=True)}
                self._judge(name, found[name], alike / count, step)
        return found

    def _judge(self, name: str, figures: Mapping[str, float], alike: float, step: int) -> None:
        deviation, pair = figures['target_std'], figures['pair_cosine']
        first = self._first_std[name] = self._first_std[name] or deviation
        if deviation < DEAD_SHARE * first or alike > DEAD_COSINE:
            how = (
                f'its targets deviate by {deviation:.2g} (at first by {first:.2g}), '
                f'the mean cosine of two of them is {alike:.4f}'
            )
        elif pair > DEAD_COSINE:
            how = f'all its predictions are alike: the mean cosine of two is {pair:.4f}'
        else:
            self._dead_since[name] = -1
            return
        if self._dead_since[name] < 0:
            self._dead_since[name] = step
        dead = step - self._dead_since[name]
        if dead >= PATIENCE:
            msg = (
                f'{name} collapsed: for {dead} steps {how}. Lower learning_rate, raise '
                'masked_latent.variance_weight or ema.start, or give dense_correspondence a weight'
            )
            raise DeadRun(msg)

    def tensors(self) -> dict[str, Tensor]:
        """Return all that is remembered, to save it."""
        saved = {}
        for name, (target, prediction) in self._rows.items():
            saved[f'watch.target.{name}'] = target.contiguous()
            saved[f'watch.prediction.{name}'] = prediction.contiguous()
        for name in self._names:
            rest = (self._first_std[name], float(self._dead_since[name]))
            saved[f'watch.rest.{name}'] = torch.tensor(rest, dtype=torch.float64)
        return saved

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from `tensors`."""
        for name in self._names:
            first_std, dead_since = tensors[f'watch.rest.{name}'].tolist()
            self._first_std[name], self._dead_since[name] = first_std, int(dead_since)
            if f'watch.target.{name}' in tensors:
                self._rows[name] = (
                    tensors[f'watch.target.{name}'],
                    tensors[f'watch.prediction.{name}'],
                )
