# SPDX-License-Identifier: Apache-2.0
"""The networks that the near-future check compares, and the R² that it compares them by."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from cross4d_jepa_ros.model.network import Network
from offline_training.feature_regression import RidgeSums, r2, weighted_r2
from offline_training.objectives.dense_correspondence import answering_rows
from offline_training.objectives.losses import cosine_distance
from offline_training.objectives.passes import Pass
from offline_training.objectives.window import Window
from offline_training.optimisation import GRADIENT_NORM, adamw, set_learning_rate, warm_cosine
from offline_training.position_network import PositionNetwork
from offline_training.pretraining.samples import Samples
from offline_training.pretraining.settings import Pretraining
from offline_training.pretraining.windows import Windows

# Against a hundred thousand points: no more than what keeps the equations solvable.
RIDGE = 1.0

Predict = Callable[[Window], Iterator[tuple[Tensor, Tensor, Tensor]]]
"""Yields (n, P) predictions, (n, P) targets and (n,) weights for each sighting of a window."""


def from_sweeps(network: Network) -> Predict:
    """Let an encoder with a head for the teacher's space answer, from whole sweeps."""
    head = network.teacher_space
    assert head is not None

    def predict(window: Window) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        given = Pass(network, None, window)
        for number, sweep in enumerate(window.sweeps):
            row = answering_rows(given.inputs[number].patches, len(sweep.xyz))  # (N,)
            for sighting in sweep.sightings:
                asked = row[sighting.point]  # (V,)
                known = asked >= 0  # (V,)
                embedding = given.rows[number][1][asked[known]]  # (V', C)
                yield head(embedding), sighting.target[known], sighting.weight[known]

    return predict


def from_positions(network: PositionNetwork) -> Predict:
    """Let a network answer that sees each point's position, and nothing else."""

    def predict(window: Window) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for sweep in window.sweeps:
            for sighting in sweep.sightings:
                yield network(sweep.xyz[sighting.point]), sighting.target, sighting.weight

    return predict


def learn_positions(
    network: PositionNetwork,
    windows: Windows,
    config: Pretraining,
    steps: int,
    learning_rate: float,
    on_step: Callable[[], None],
) -> None:
    """Train a network with the dense objective's loss.

    Args:
        network: Is changed.
        windows: With targets in the teacher's space.
        config: Of the encoder's pretraining: batch, weight decay and warm-up are taken from it.
        steps: Of the optimiser.
        learning_rate: Its peak.
        on_step: Called after each step.

    """
    named = dict(network.named_parameters())
    optimiser = adamw(named, config.weight_decay)
    predict = from_positions(network)
    samples = iter(Samples(windows, config.batch, range(steps)))
    for step in range(steps):
        optimiser.zero_grad()
        for _ in range(config.batch):
            told = predict(windows.window(*next(samples)))
            prediction, target, weight = (torch.cat(part) for part in zip(*told, strict=True))
            loss = (weight * cosine_distance(prediction, target)).sum() / weight.sum()  # ()
            torch.autograd.backward(loss / config.batch)
        torch.nn.utils.clip_grad_norm_(list(named.values()), GRADIENT_NORM)
        set_learning_rate(optimiser, learning_rate * warm_cosine(step, steps, config.warm_up))
        optimiser.step()
        on_step()


@torch.inference_mode()
def scored(predict: Predict, learnt: Windows, judged: Windows) -> dict[str, float]:
    """Map predictions linearly, as the learnt sweeps want it, and score those of the judged.

    Args:
        predict: Whose.
        learnt: What the map is fitted to.
        judged: What else is predicted, with targets in the same space.

    Returns:
        `r2` (the mean over components), `r2_weighted` (components by their variance), `cosine` (of
        the predictions as they are) and `points`, all of the judged.

    """
    sums = RidgeSums()
    for prediction, target, _ in _told(predict, learnt):
        sums.add(prediction, target)
    predictions, targets, _ = zip(*_told(predict, judged), strict=True)
    prediction, target = torch.cat(predictions), torch.cat(targets)  # (N, P), (N, P)
    mapped = sums.solve(RIDGE)(prediction)  # (N, P)
    return {
        'r2': float(r2(mapped, target).mean()),
        'r2_weighted': weighted_r2(mapped, target),
        'cosine': float(F.cosine_similarity(prediction, target).mean()),
        'points': len(target),
    }


def _told(predict: Predict, windows: Windows) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    for place in range(len(windows)):
        yield from predict(windows.window(0, place))
