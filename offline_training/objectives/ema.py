# SPDX-License-Identifier: Apache-2.0
"""The target encoder: a moving average of the network, which no gradient reaches."""

from __future__ import annotations

import copy
import math

import torch

from cross4d_jepa_ros.model.network import Network
from offline_training.objectives.settings import Ema


def momentum(step: int, steps: int, settings: Ema) -> float:
    """Share of itself that the target encoder keeps at a step, counted from 0 of `steps`."""
    left = 0.5 + 0.5 * math.cos(math.pi * step / max(steps, 1))
    return settings.end - (settings.end - settings.start) * left


def target_of(network: Network) -> Network:
    """Copy the network for `follow`."""
    return copy.deepcopy(network).requires_grad_(False).eval()


@torch.no_grad()
def follow(target: Network, network: Network, momentum: float) -> None:
    """Move the target encoder's weights to the network's by a share of 1 - momentum."""
    torch._foreach_lerp_(list(target.parameters()), list(network.parameters()), 1 - momentum)
