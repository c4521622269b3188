# SPDX-License-Identifier: Apache-2.0
"""A segmentation head on point embeddings that stay as they are: a linear probe, or an MLP."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import nn

from cross4d_jepa_ros.model.heads import SegmentationHead
from cross4d_jepa_ros.model.network import Network
from cross4d_jepa_ros.progress import Bars
from cross4d_jepa_ros.segmentation_scores import UNKNOWN
from offline_training.answered_sweeps import answered_sweeps
from offline_training.labelled_sweeps import SweepFiles
from offline_training.probes import Probe, ProbeConfig, fit_probe

Samples = tuple[NDArray[np.float32], NDArray[np.uint8]]


@dataclass(frozen=True)
class HeadTraining:
    """How a head is learnt.

    Attributes:
        points_per_sweep: Most labelled points of a sweep.
        epochs: Passes over these points; None where there are `steps`.
        steps: At least so many, up to the end of a pass.
        batch: Points of a step.
        learning_rate: Its peak.
        weight_decay: Of all weights.
        seed: Of points, weights and batches.

    """

    points_per_sweep: int
    epochs: int | None
    steps: int | None
    batch: int
    learning_rate: float
    weight_decay: float
    seed: int

    def passes(self, points: int) -> int:
        """Passes over so many points."""
        return self.epochs or -(-(self.steps or 1) // -(-points // self.batch))


def labelled_embeddings(
    network: Network,
    sweeps: SweepFiles,
    positions: Sequence[int],
    *,
    points_per_sweep: int,
    seed: int,
    on_sweep: Callable[[], object] = lambda: None,
) -> Samples:
    """Collect the embeddings of some labelled points, each sweep with its memory.

    Args:
        network: Is only read.
        sweeps: With labels.
        positions: Which of them, ascending.
        points_per_sweep: Most points of a sweep, drawn evenly from its labelled ones.
        seed: Of that.
        on_sweep: Called after each.

    Returns:
        (N, C) embeddings and (N,) class ids.

    Raises:
        ValueError: No point has a label.

    """
    embeddings, labels = [], []
    for answer in chain.from_iterable(
        answered_sweeps(network, sweeps, recording, positions) for recording in sweeps.recordings
    ):
        label = answer.sweep.label[answer.given.patches.kept_point.numpy()]  # (L,)
        known = np.flatnonzero(label != UNKNOWN)
        draw = np.random.default_rng((seed, answer.position))
        chosen = np.sort(draw.permutation(known)[:points_per_sweep])
        embeddings.append(answer.embedding.numpy()[chosen])
        labels.append(label[chosen])
        on_sweep()
    if not sum(map(len, labels)):
        range_m = network.config.range_m
        msg = f'no point of {len(labels)} sweeps has a label within {range_m:g} m: label some'
        raise ValueError(msg)
    return np.concatenate(embeddings), np.concatenate(labels)


def learn_head(
    network: Network,
    sweeps: SweepFiles,
    positions: Sequence[int],
    how: HeadTraining,
    console: Console,
) -> None:
    """Learn the segmentation head of a network that stays as it is otherwise.

    The head learns from standardised embeddings; the standardisation ends up in its first layer.

    Args:
        network: With a head that reads point embeddings; that is changed.
        sweeps: With labels.
        positions: Which of them to learn from, ascending.
        how: Settings.
        console: Where progress goes.

    Raises:
        ValueError: No point has a label.

    """
    head = network.segmentation
    assert head is not None
    with Bars(console) as progress:
        reading = progress.add_task('sweeps', total=len(positions))
        samples = labelled_embeddings(
            network,
            sweeps,
            positions,
            points_per_sweep=how.points_per_sweep,
            seed=how.seed,
            on_sweep=lambda: progress.advance(reading),
        )
        config = ProbeConfig(
            hidden=() if head.hidden is None else (head.hidden.out_features,),
            epochs=how.passes(len(samples[1])),
            batch=how.batch,
            learning_rate=how.learning_rate,
            weight_decay=how.weight_decay,
        )
        fitting = progress.add_task('passes', total=config.epochs)
        probe = fit_probe(
            config, *samples, head.out_features, how.seed, lambda: progress.advance(fitting)
        )
    fold(probe, head)


@torch.no_grad()
def fold(probe: Probe, head: SegmentationHead, front: nn.Linear | None = None) -> None:
    """Give a head the weights of a probe, with which it answers what it reads alike.

    Args:
        probe: With its standardisation.
        head: With as many hidden layers, one at most.
        front: What is applied before the probe; None for nothing.

    """
    layers = [layer for layer in probe.layers if isinstance(layer, nn.Linear)]
    first = head if head.hidden is None else head.hidden
    weight = layers[0].weight.double() * probe.scale.double()  # (F, C)
    bias = layers[0].bias.double() - weight @ probe.mean.double()  # (F,)
    if front is not None:
        bias = bias + weight @ front.bias.double()  # (F,)
        weight = weight @ front.weight.double()  # (F, C)
    first.weight.copy_(weight)
    first.bias.copy_(bias)
    if head.hidden is not None:
        head.weight.copy_(layers[-1].weight)
        head.bias.copy_(layers[-1].bias)
