# SPDX-License-Identifier: Apache-2.0
"""The processes of one run: one alone, or as many as torchrun starts."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, distributed


@dataclass(frozen=True)
class Processes:
    """One process among those of a run.

    Attributes:
        rank: Its number.
        world: How many there are.
        device: What it computes on.

    """

    rank: int
    world: int
    device: torch.device

    def total(self, values: Tensor) -> Tensor:
        """Sum values of any shape over all processes."""
        values = values.to(self.device)
        if self.world > 1:
            distributed.all_reduce(values)
        return values


@contextlib.contextmanager
def joined(device: str) -> Iterator[Processes]:
    """Join the other processes that torchrun started, if it did.

    Args:
        device: `auto` (a GPU where there is one), `cpu` or `cuda`.

    Raises:
        ValueError: There is no such device here.

    """
    if device == 'auto':
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
    if device == 'cuda' and not torch.cuda.is_available():
        msg = 'device is cuda, but PyTorch sees no GPU here: give --device cpu'
        raise ValueError(msg)
    world = int(os.environ.get('WORLD_SIZE', '1'))
    if world == 1:
        yield Processes(0, 1, torch.device(device))
        return
    local = torch.device(device)
    if device == 'cuda':
        local = torch.device('cuda', int(os.environ.get('LOCAL_RANK', '0')))
        torch.cuda.set_device(local)
    distributed.init_process_group('nccl' if device == 'cuda' else 'gloo')
    try:
        yield Processes(distributed.get_rank(), world, local)
    finally:
        distributed.destroy_process_group()
