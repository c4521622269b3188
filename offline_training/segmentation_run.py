# SPDX-License-Identifier: Apache-2.0
"""Gradient descent on labelled sweeps, epoch by epoch, with a state to save between them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor
from torch.nn import functional as F

from cross4d_jepa_ros.files import write_atomically
from cross4d_jepa_ros.model.config import ModelConfig
from cross4d_jepa_ros.model.network import Network
from cross4d_jepa_ros.segmentation_scores import UNKNOWN, SegmentationScores
from offline_training.augmentation import augmented
from offline_training.labelled_sweeps import LabelledSweep, SweepFiles
from offline_training.street.classes import CLASS_NAMES
from offline_training.training_settings import Training

# What random numbers are for; equal seeds would give the order and a sweep the same ones.
ORDER, AUGMENTATION = 1, 2
GRADIENT_NORM = 1.0


class Run:
    """The state of one training.

    Attributes:
        network: What is trained.
        epoch: Whole epochs so far.
        rows: Of each of these, `loss`, `miou` and the IoU of each class.

    """

    def __init__(self, config: Training, model: ModelConfig, learnt: SweepFiles) -> None:
        self.network = Network(model, len(CLASS_NAMES))
        self.network.initialise(torch.Generator().manual_seed(config.seed))
        self.epoch = 0
        self.rows: list[dict[str, float]] = []
        self._config = config
        self._learnt = learnt
        self._class_weight = _class_weights(learnt)
        self._named = dict(self.network.named_parameters())
        matrices = [value for value in self._named.values() if value.dim() > 1]
        others = [value for value in self._named.values() if value.dim() <= 1]
        self._optimiser = torch.optim.AdamW(
            [
                {'params': matrices, 'weight_decay': config.weight_decay},
                {'params': others, 'weight_decay': 0.0},
            ]
        )

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps; the last one of an epoch may have fewer sweeps."""
        return -(-len(self._learnt) // self._config.batch)

    def run_epoch(self) -> Iterator[float]:
        """Yield the loss of each step of one epoch."""
        config = self._config
        self.network.train()
        # Drawn anew for each epoch and sweep, so that nothing but the epoch is to be remembered.
        order = self._draw(ORDER).permutation(len(self._learnt))
        for step in range(self.steps_per_epoch):
            batch = order[step * config.batch : (step + 1) * config.batch]
            self._set_learning_rate(self.epoch * self.steps_per_epoch + step)
            self._optimiser.zero_grad()
            total = 0.0
            for position in batch:
                draw = self._draw(AUGMENTATION, int(position))
                sweep = augmented(self._learnt[position], config.augmentation, draw)
                loss = self._loss(sweep) / len(batch)
                loss.backward()
                total += loss.item()
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), GRADIENT_NORM)
            self._optimiser.step()
            yield total
        self.epoch += 1

    def _draw(self, purpose: int, position: int = 0) -> np.random.Generator:
        return np.random.default_rng((self._config.seed, self.epoch, purpose, position))

    def _loss(self, sweep: LabelledSweep) -> Tensor:
        embedding, label = embed(self.network, sweep)  # (K, C), (K,)
        assert self.network.segmentation is not None
        return F.cross_entropy(
            self.network.segmentation(embedding),
            label,
            weight=self._class_weight,
            ignore_index=UNKNOWN,
        )

    def _set_learning_rate(self, step: int) -> None:
        steps = self._config.epochs * self.steps_per_epoch
        rising = max(1.0, self._config.warm_up * steps)
        past = max(0.0, step + 1 - rising) / max(1.0, steps - rising)
        share = min(1.0, (step + 1) / rising) * (0.5 + 0.5 * math.cos(math.pi * past))
        for group in self._optimiser.param_groups:
            group['lr'] = self._config.learning_rate * share

    def save(self, path: Path) -> None:
        """Write everything that the next epoch depends on, atomically."""
        tensors = {f'network.{key}': value for key, value in self.network.state_dict().items()}
        for name, parameter in self._named.items():
            for key, value in self._optimiser.state[parameter].items():
                tensors[f'optimiser.{key}.{name}'] = value
        write_atomically(path, save(tensors, {'rows': json.dumps(self.rows)}))

    def load(self, path: Path) -> None:
        """Go on from what `save` wrote."""
        tensors = load_file(path)
        self.network.load_state_dict(
            {key: tensors[f'network.{key}'] for key in self.network.state_dict()}
        )
        for name, parameter in self._named.items():
            self._optimiser.state[parameter] = {
                key: tensors[f'optimiser.{key}.{name}'] for key in ('step', 'exp_avg', 'exp_avg_sq')
            }
        self.rows = read_rows(path)
        self.epoch = len(self.rows)


def read_rows(state: Path) -> list[dict[str, float]]:
    """Read how a run went so far: `Run.rows` of the file that it saved."""
    with safe_open(str(state), 'pt') as file:
        rows: list[dict[str, float]] = json.loads(file.metadata()['rows'])
    return rows


def embed(network: Network, sweep: LabelledSweep) -> tuple[Tensor, Tensor]:
    """Return point embeddings (K, C) and labels (K,) of the points that the network sees."""
    patches = network.tokenizer.group(torch.from_numpy(sweep.xyz))
    intensity = rgb = None
    if sweep.intensity is not None:
        intensity = torch.from_numpy(sweep.intensity)[patches.kept_point]  # (K,)
    if network.config.colour:
        rgb = torch.from_numpy(sweep.rgb)[patches.kept_point]  # (K, 4)
    token, point = network.tokenizer(patches, intensity, rgb)  # (M, D), (K, C)
    token = network.encoder(token, patches.cell, patches.centre)  # (M, D)
    embedding: Tensor = network.decoder(token, point, patches.patch_of_kept)  # (K, C)
    embedding = patches.spread(embedding)  # (K, C)
    return embedding, torch.from_numpy(sweep.label)[patches.point].long()  # (K, C), (K,)


@torch.inference_mode()
def score(network: Network, sweeps: SweepFiles) -> SegmentationScores:
    """Answer all points of sweeps up to the range that their files were cut to, and compare."""
    network.eval()
    scores = SegmentationScores(CLASS_NAMES)
    assert network.segmentation is not None
    for sweep in map(sweeps.__getitem__, range(len(sweeps))):
        embedding, label = embed(network, sweep)  # (K, C), (K,)
        answer = network.segmentation.classify(embedding)[0]  # (K,)
        scores.add(label.byte().numpy(), answer.byte().numpy())
    return scores


def _class_weights(sweeps: SweepFiles) -> Tensor:
    """Rare classes count more, (classes,): weights fall with the root of the frequency."""
    counts = torch.from_numpy(sweeps.label_counts()[: len(CLASS_NAMES)]).double()  # (classes,)
    weight = counts.clamp_min(1).rsqrt()  # (classes,)
    return (weight * (counts.sum() / (weight * counts).sum())).float()  # (classes,)
