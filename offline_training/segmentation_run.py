# SPDX-License-Identifier: Apache-2.0
"""Gradient descent on windows of labelled sweeps, step by step, with a state to save between."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from cross4d_jepa_ros.files import write_atomically
from cross4d_jepa_ros.model.config import ModelConfig
from cross4d_jepa_ros.model.network import Network, SweepInput
from cross4d_jepa_ros.segmentation_scores import UNKNOWN, SegmentationScores
from offline_training.augmentation import augmented
from offline_training.average_precision import average_precision
from offline_training.checked_tensors import Damaged, checked, read_about, read_tensors
from offline_training.labelled_sweeps import LabelledSweep, SweepFiles
from offline_training.optimisation import (
    GRADIENT_NORM,
    adamw,
    optimiser_tensors,
    restore_optimiser,
    set_learning_rate,
    warm_cosine,
)
from offline_training.street.classes import CAR, CLASS_NAMES, PERSON
from offline_training.training_settings import Training

# What random numbers are for; equal seeds would give the order and a window the same ones.
ORDER, AUGMENTATION = 1, 2
MOVABLE = (CAR, PERSON)
# Sweeps that are answered together where nothing is learnt.
ANSWERED_AT_ONCE = 16
# What the files of `Run.save` had beside tensors before they had a checksum.
_OLDER = ('rows', 'done')


class BadState(ValueError):
    """A saved run cannot be gone on with; the sentence names the file and what to do."""


class Run:
    """The state of one training.

    Args:
        config: Settings.
        model: Of the network.
        learnt: What it learns from.
        class_names: Behind the labels.

    Raises:
        ValueError: No sweep has a label.

    Attributes:
        network: What is trained.
        motion: Logits of standing and moving from a point's embedding; None without such a loss.
        done: Steps so far.
        steps_per_epoch: Optimiser steps.
        rows: Of each time that it was scored, `step`, `epoch`, `loss`, `miou`, the IoU of each
            class, and with a motion loss `moving_ap`, the average precision of its head for cars
            and people.

    """

    def __init__(
        self,
        config: Training,
        model: ModelConfig,
        learnt: SweepFiles,
        class_names: tuple[str, ...] = CLASS_NAMES,
    ) -> None:
        self.network = Network(model, len(class_names))
        self.network.initialise(torch.Generator().manual_seed(config.seed))
        self.motion = nn.Linear(model.point_width, 2) if config.motion_weight else None
        self.done = 0
        self.rows: list[dict[str, float]] = []
        self._config = config
        self._sweeps = config.sweeps or model.sweeps
        self._learnt = learnt
        self._labelled = learnt.labelled
        if not len(self._labelled):
            msg = 'no sweep has labels: nothing can be learnt from them'
            raise ValueError(msg)
        windows = sum(len(newest) for newest in self._newest(np.random.default_rng()))
        # The last one of an epoch may have fewer windows.
        self.steps_per_epoch = -(-windows // config.batch)
        self._order: tuple[int, NDArray[np.int64]] | None = None
        self._class_weight = _class_weights(learnt, len(class_names))
        self._trained = nn.ModuleDict({'network': self.network})
        if self.motion is not None:
            self._motion_balance = _motion_balance(learnt)
            nn.init.zeros_(self.motion.weight)
            nn.init.zeros_(self.motion.bias)
            self._trained['motion'] = self.motion
        self._named = dict(self._trained.named_parameters())
        heads = ('network.segmentation.', 'motion.')
        head = {name: value for name, value in self._named.items() if name.startswith(heads)}
        encoder = {name: value for name, value in self._named.items() if name not in head}
        rate = config.learning_rate
        encoder_rate = (
            rate if config.encoder_learning_rate is None else config.encoder_learning_rate
        )
        self._optimisers = [
            (head, adamw(head, config.weight_decay), rate),
            (encoder, adamw(encoder, config.weight_decay), encoder_rate),
        ]

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self._config.steps or (self._config.epochs or 0) * self.steps_per_epoch

    def run(self, steps: int) -> Iterator[float]:
        """Yield the loss of each of some steps."""
        config = self._config
        self.network.train()
        for _ in range(steps):
            epoch, step = divmod(self.done, self.steps_per_epoch)
            # Drawn anew for each epoch and window: nothing but the step is to be remembered.
            if self._order is None or self._order[0] != epoch:
                draw = self._draw(epoch, ORDER)
                self._order = epoch, draw.permutation(np.concatenate(self._newest(draw)))
            batch = self._order[1][step * config.batch : (step + 1) * config.batch]
            share = warm_cosine(self.done, self.steps, config.warm_up)
            for _, optimiser, rate in self._optimisers:
                set_learning_rate(optimiser, rate * share)
                optimiser.zero_grad()
            total = 0.0
            for position in batch:
                draw = self._draw(epoch, AUGMENTATION, int(position))
                window = self._learnt.window(int(position), self._sweeps)
                loss = self._loss(augmented(window, config.augmentation, draw)) / len(batch)
                loss.backward()
                total += loss.item()
            torch.nn.utils.clip_grad_norm_(list(self._named.values()), GRADIENT_NORM)
            for _, optimiser, _ in self._optimisers:
                optimiser.step()
            self.done += 1
            yield total

    def _newest(self, draw: np.random.Generator) -> list[NDArray[np.int64]]:
        """Draw the newest sweeps of the windows of an epoch, of each recording.

        Where all sweeps have labels, an epoch has as many sweeps as there are, in whole windows
        where they fit. Where some have none, each labelled one ends a window.
        """
        chosen = []
        for recording in self._learnt.recordings:
            first, last = np.searchsorted(self._labelled, (recording.start, recording.stop))
            own = self._labelled[first:last]
            if len(own) < len(recording):
                chosen.append(own)
                continue
            whole = min(self._sweeps, len(recording)) - 1
            windows = -(-len(recording) // self._sweeps)
            chosen.append(draw.permutation(own[whole:])[:windows])
        return chosen

    def _draw(self, epoch: int, purpose: int, position: int = 0) -> np.random.Generator:
        return np.random.default_rng((self._config.seed, epoch, purpose, position))

    def _loss(self, window: Sequence[LabelledSweep]) -> Tensor:
        inputs = [sweep_input(self.network, sweep) for sweep in window]
        rows = self.network.forward_window(inputs)
        embedding = torch.cat([row[1] for row in rows])  # (L, C) of all rows
        seen = [given.patches.kept_point for given in inputs]
        label = _taken(seen, [sweep.label for sweep in window])  # (L,)
        assert self.network.segmentation is not None
        loss = _weighted_mean(self.network.segmentation(embedding), label, self._class_weight)
        if self.motion is not None:
            movable = torch.isin(label, torch.tensor(MOVABLE))  # (L,)
            moving = _taken(seen, [sweep.moving for sweep in window])[movable]  # (L',)
            answer = self.motion(embedding[movable])  # (L', 2)
            loss = loss + self._config.motion_weight * _weighted_mean(
                answer, moving, self._motion_balance
            )
        return loss

    def save(self, path: Path) -> None:
        """Write everything that the next step depends on, atomically."""
        tensors = self._trained.state_dict()
        for named, optimiser, _ in self._optimisers:
            tensors |= optimiser_tensors(optimiser, named)
        columns = {name: value.numpy() for name, value in tensors.items()}
        write_atomically(path, checked(columns, {'rows': self.rows, 'done': self.done}))

    def load(self, path: Path) -> None:
        """Go on from what `save` wrote.

        Raises:
            BadState: It is damaged.

        """
        try:
            tensors, about = read_tensors(path, _OLDER)
        except Damaged as error:
            raise _damaged(path, error) from error
        self._trained.load_state_dict({key: tensors[key] for key in self._trained.state_dict()})
        for named, optimiser, _ in self._optimisers:
            restore_optimiser(optimiser, named, tensors)
        self.rows, self.done = about['rows'], about['done']


def read_rows(state: Path) -> list[dict[str, float]]:
    """Read how a run went so far: `Run.rows` of the file that it saved.

    Raises:
        BadState: It is damaged.

    """
    try:
        rows: list[dict[str, float]] = read_about(state, _OLDER)['rows']
    except Damaged as error:
        raise _damaged(state, error) from error
    return rows


def _damaged(state: Path, error: Damaged) -> BadState:
    return BadState(f'{state} is damaged ({error}): delete it, and the run begins anew')


def sweep_input(network: Network, sweep: LabelledSweep) -> SweepInput:
    """Make of a sweep what the network is given."""
    patches = network.tokenizer.group(torch.from_numpy(sweep.xyz))
    intensity = rgb = None
    if sweep.intensity is not None:
        intensity = torch.from_numpy(sweep.intensity)[patches.kept_point]  # (L,)
    if network.config.colour:
        rgb = torch.from_numpy(sweep.rgb)[patches.kept_point]  # (L, 4)
    return SweepInput(patches, intensity, rgb, sweep.stamp_ns, sweep.fixed_from_base)


@torch.inference_mode()
def answered(
    network: Network, sweeps: SweepFiles
) -> Iterator[tuple[LabelledSweep, NDArray[np.int64], Tensor]]:
    """Answer each sweep from itself and those before it in its recording, as a stream would.

    Yields:
        The sweep, positions (K,) of its points that the network sees, and their embeddings (K, C).

    """
    network.eval()
    before = network.config.sweeps - 1
    for recording in sweeps.recordings:
        for start in recording[::ANSWERED_AT_ONCE]:
            stop = min(start + ANSWERED_AT_ONCE, recording.stop)
            first = max(recording.start, start - before)
            window = [sweeps[position] for position in range(first, stop)]
            inputs = [sweep_input(network, sweep) for sweep in window]
            rows = network.forward_window(inputs)
            for i in range(start - first, len(window)):
                patches = inputs[i].patches
                yield window[i], patches.point.numpy(), patches.spread(rows[i][1])


@torch.inference_mode()
def score(
    network: Network,
    motion: nn.Linear | None,
    sweeps: SweepFiles,
    class_names: tuple[str, ...] = CLASS_NAMES,
) -> tuple[SegmentationScores, float | None]:
    """Answer all points of sweeps up to the range that their files were cut to, and compare.

    Args:
        network: With a segmentation head.
        motion: Head for what moves, or None.
        sweeps: Those without labels only count as what was before.
        class_names: Behind the labels.

    Returns:
        The scores, and the average precision of the motion head for cars and people; None without
        a head, or where nothing moves.

    """
    scores = SegmentationScores(class_names)
    assert network.segmentation is not None
    moving, rated = [], []
    for sweep, point, embedding in answered(network, sweeps):
        label = sweep.label[point]  # (K,)
        answer = network.segmentation.classify(embedding)[0]  # (K,)
        scores.add(label, answer.byte().numpy())
        if motion is not None:
            known = np.isin(label, MOVABLE) & (sweep.moving[point] != UNKNOWN)  # (K,)
            logit = motion(embedding[torch.from_numpy(known)])  # (K', 2)
            rated.append((logit[:, 1] - logit[:, 0]).numpy())
            moving.append(sweep.moving[point][known] == 1)
    if not any(flags.any() for flags in moving):
        return scores, None
    return scores, average_precision(np.concatenate(moving), np.concatenate(rated))


def _taken(points: Sequence[Tensor], values: Sequence[NDArray[np.uint8]]) -> Tensor:
    """Values of these points of each sweep, one after the other, (L,) int64."""
    each = zip(points, values, strict=True)
    return torch.cat([torch.from_numpy(value)[point] for point, value in each]).long()  # (L,)


def _weighted_mean(logits: Tensor, label: Tensor, weight: Tensor) -> Tensor:
    """Cross entropy of (L, classes) logits; 0 where no label is known."""
    known = label != UNKNOWN  # (L,)
    logits, label = logits[known], label[known]  # (L', classes), (L',)
    total = F.cross_entropy(logits, label, weight, reduction='sum')  # ()
    mean: Tensor = total / weight[label].sum().clamp_min(1e-6)  # ()
    return mean


def _class_weights(sweeps: SweepFiles, classes: int) -> Tensor:
    """Rare classes count more, (classes,): weights fall with the root of the frequency."""
    counts = torch.from_numpy(sweeps.label_counts()[:classes]).double()  # (classes,)
    weight = counts.clamp_min(1).rsqrt()  # (classes,)
    return (weight * (counts.sum() / (weight * counts).sum())).float()  # (classes,)


def _motion_balance(sweeps: SweepFiles) -> Tensor:
    """What stands and what moves count the same in total, (2,)."""
    counts = torch.from_numpy(sweeps.moving_counts(MOVABLE)[:2]).double()  # (2,)
    return (counts.sum() / (2 * counts.clamp_min(1))).float()  # (2,)
