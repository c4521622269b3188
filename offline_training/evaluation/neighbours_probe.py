# SPDX-License-Identifier: Apache-2.0
"""k nearest neighbours: what features tell without anything learnt from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

# Of the votes, as in Wu et al., arXiv 1805.01978, which has them weighted so.
TEMPERATURE = 0.07
_ANSWERED_AT_ONCE = 256


@dataclass(frozen=True)
class NeighboursConfig:
    """How neighbours are asked.

    Attributes:
        neighbours: That vote on each point (k).
        standardised: Whether features are brought to mean 0 and deviation 1 first.
        most: Points that are looked through, evenly taken; every one is compared with every one.

    """

    neighbours: int = 10
    standardised: bool = True
    most: int = 20_000


@torch.inference_mode()
def nearest_answers(
    config: NeighboursConfig,
    fit: NDArray[np.floating],
    truth: NDArray[np.uint8],
    asked: NDArray[np.floating],
    classes: int,
) -> NDArray[np.uint8]:
    """Let the nearest neighbours by cosine vote on the class of each of some points.

    Args:
        config: How.
        fit: (N, F) features of the points that vote.
        truth: (N,) their class ids, below `classes`.
        asked: (Q, F) features.
        classes: Number of classes.

    Returns:
        (Q,) class ids.

    Raises:
        ValueError: There is no point to vote.

    """
    if not len(fit):
        msg = 'no point has a label to vote with: give labelled sweeps'
        raise ValueError(msg)
    # Evenly, so that all sweeps have their say.
    some = np.linspace(0, len(fit) - 1, min(config.most, len(fit))).astype(np.int64)
    known = torch.from_numpy(fit[some]).float()  # (n, F)
    vote = F.one_hot(torch.from_numpy(truth[some]).long(), classes).float()  # (n, classes)
    mean, scale = torch.zeros(known.shape[1]), torch.ones(known.shape[1])  # (F,), (F,)
    if config.standardised:
        deviation, mean = torch.std_mean(known, 0, correction=0)  # (F,), (F,)
        scale = 1 / deviation.clamp_min(1e-6)  # (F,)

    def direction(features: Tensor) -> Tensor:
        return F.normalize((features.float() - mean) * scale, dim=1)  # (·, F)

    known = direction(known)  # (n, F)
    count = min(config.neighbours, len(known))
    answers = []
    for block in torch.split(torch.from_numpy(asked), _ANSWERED_AT_ONCE):
        similarity, nearest = (direction(block) @ known.T).topk(count, dim=1)  # (B, k), (B, k)
        weight = ((similarity - 1) / TEMPERATURE).exp()  # (B, k)
        answers.append((weight[:, :, None] * vote[nearest]).sum(1).argmax(1))  # (B,)
    return torch.cat(answers).numpy().astype(np.uint8)
