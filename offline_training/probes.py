# SPDX-License-Identifier: Apache-2.0
"""Probes: small classifiers on frozen features, which show what those features tell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from cross4d_jepa_ros.segmentation_scores import SegmentationScores

_ANSWERED_AT_ONCE = 65536
_STANDARDISED_WITH = 65536


@dataclass(frozen=True)
class ProbeConfig:
    """How a probe is built and trained.

    Attributes:
        hidden: Widths of the hidden layers; none makes it a linear probe.
        standardised: Whether features are brought to mean 0 and deviation 1 first; else they are
            taken as they are.
        least_steps: Where `epochs` are fewer steps than that, there are more epochs.
        batch: Samples.

    """

    hidden: tuple[int, ...] = ()
    standardised: bool = True
    epochs: int = 6
    least_steps: int = 0
    batch: int = 2048
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2


LINEAR_PROBE = ProbeConfig()
MLP_PROBE = ProbeConfig(hidden=(64, 64))


class Probe(nn.Module):
    """Standardises its input with the training data's mean and deviation, then classifies it."""

    mean: Tensor
    scale: Tensor

    def __init__(self, mean: Tensor, deviation: Tensor, hidden: tuple[int, ...], classes: int):
        """Leave the weights as torch draws them.

        Args:
            mean: (D,)
            deviation: (D,)
            hidden: Widths of the hidden layers.
            classes: Number of classes.

        """
        super().__init__()
        self.register_buffer('mean', mean)
        self.register_buffer('scale', 1 / deviation.clamp_min(1e-6))
        widths = (len(mean), *hidden)
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], classes))

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, D) features to (B, classes) logits."""
        logits: Tensor = self.layers((features.float() - self.mean) * self.scale)  # (B, classes)
        return logits

    @torch.inference_mode()
    def answer(self, features: NDArray[np.floating]) -> NDArray[np.uint8]:
        """Name the likeliest class of each of (N, D) features: (N,)."""
        parts = torch.from_numpy(features).split(_ANSWERED_AT_ONCE)
        return torch.cat([self(part).argmax(1) for part in parts]).numpy().astype(np.uint8)


def fit_probe(
    config: ProbeConfig,
    features: NDArray[np.floating],
    truth: NDArray[np.uint8],
    classes: int,
    seed: int,
    on_epoch: Callable[[], None] = lambda: None,
) -> Probe:
    """Train a probe with AdamW, the learning rate falling as a cosine to zero.

    The classes weigh in the loss with the inverse square root of their frequency.

    Args:
        config: Layers and schedule.
        features: (N, D) of any floating type.
        truth: (N,) class ids, all below `classes`.
        classes: Number of classes.
        seed: Of weights and batches.
        on_epoch: Called after each epoch.

    Raises:
        ValueError: There are no samples, or not one label for each.

    """
    if not len(features) or len(features) != len(truth):
        msg = f'There are {len(features)} features and {len(truth)} labels: give one for each.'
        raise ValueError(msg)
    samples, labels = torch.from_numpy(features), torch.from_numpy(truth)  # (N, D), (N)
    some = samples[:: -(-len(samples) // _STANDARDISED_WITH)].float()  # (S, D)
    deviation, mean = torch.std_mean(some, 0, correction=0)  # (D), (D)
    if not config.standardised:
        deviation, mean = torch.ones_like(deviation), torch.zeros_like(mean)  # (D), (D)
    counts = np.bincount(truth, minlength=classes)
    weight = torch.from_numpy(np.sqrt(len(truth) / np.maximum(counts, 1))).float()  # (classes)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        probe = Probe(mean, deviation, config.hidden, classes)
    optimiser = torch.optim.AdamW(
        probe.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    per_epoch = -(-len(samples) // config.batch)
    epochs = max(config.epochs, -(-config.least_steps // per_epoch))
    steps = epochs * per_epoch
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(epochs):
        for chosen in torch.randperm(len(samples), generator=generator).split(config.batch):
            logits = probe(samples[chosen])  # (B, classes)
            loss = F.cross_entropy(logits, labels[chosen].long(), weight)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
        on_epoch()
    return probe.eval()


def score_probe(
    probe: Probe,
    features: NDArray[np.floating],
    truth: NDArray[np.uint8],
    class_names: tuple[str, ...],
) -> SegmentationScores:
    """Compare the answers on (N, D) features with their (N,) true class ids."""
    scores = SegmentationScores(class_names)
    scores.add(truth, probe.answer(features))
    return scores
