# SPDX-License-Identifier: Apache-2.0
"""What all trainings share: AdamW on named weights, a warm cosine, a state that can be saved."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

GRADIENT_NORM = 1.0
_MOMENTS = ('step', 'exp_avg', 'exp_avg_sq')


def adamw(
    named: Mapping[str, nn.Parameter],
    weight_decay: float,
    betas: tuple[float, float] = (0.9, 0.999),
) -> torch.optim.AdamW:
    """Build AdamW; only matrices decay."""
    matrices = [value for value in named.values() if value.dim() > 1]
    others = [value for value in named.values() if value.dim() <= 1]
    return torch.optim.AdamW(
        [
            {'params': matrices, 'weight_decay': weight_decay},
            {'params': others, 'weight_decay': 0.0},
        ],
        betas=betas,
    )


def warm_cosine(step: int, steps: int, warm_up: float) -> float:
    """Share of the peak learning rate: it rises linearly, then falls to 0 along a cosine.

    Args:
        step: From 0.
        steps: Of the whole run.
        warm_up: Share of the steps in which it rises.

    """
    rising = max(1.0, warm_up * steps)
    past = max(0.0, step + 1 - rising) / max(1.0, steps - rising)
    return min(1.0, (step + 1) / rising) * (0.5 + 0.5 * math.cos(math.pi * past))


def set_learning_rate(optimiser: torch.optim.Optimizer, learning_rate: float) -> None:
    """Give all weights the same learning rate."""
    for group in optimiser.param_groups:
        group['lr'] = learning_rate


def optimiser_tensors(
    optimiser: torch.optim.Optimizer, named: Mapping[str, nn.Parameter]
) -> dict[str, Tensor]:
    """Name the moments of an optimiser of `adamw`, to save them."""
    return {
        f'optimiser.{key}.{name}': value
        for name, parameter in named.items()
        for key, value in optimiser.state[parameter].items()
    }


def restore_optimiser(
    optimiser: torch.optim.Optimizer,
    named: Mapping[str, nn.Parameter],
    tensors: Mapping[str, Tensor],
) -> None:
    """Go on from `optimiser_tensors`; weights without moments there have none yet."""
    for name, parameter in named.items():
        found = {
            key: tensors[f'optimiser.{key}.{name}']
            for key in _MOMENTS
            if f'optimiser.{key}.{name}' in tensors
        }
        if found:
            # The count of steps stays where AdamW keeps it, on the CPU.
            optimiser.state[parameter] = {
                key: value if key == 'step' else value.to(parameter.device)
                for key, value in found.items()
            }


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    """Have the same run give the same bytes."""
    before = torch.are_deterministic_algorithms_enabled()
    filling = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    # Nothing here reads memory before writing it; filling it all costs time.
    torch.utils.deterministic.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.utils.deterministic.fill_uninitialized_memory = filling
