# SPDX-License-Identifier: Apache-2.0
"""Which process learns from which windows, and the way of a window to its device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from offline_training.objectives.window import Sighting, Window, WindowSweep
from offline_training.pretraining.windows import Windows


class Samples(torch.utils.data.Sampler[tuple[int, int]]):
    """Which windows a process reads: its share of every step's batch, from some step on.

    The epochs' orders make one stream; step s takes windows s * batch to (s + 1) * batch - 1 of
    it, and process r of n every n-th of these.
    """

    def __init__(
        self, windows: Windows, batch: int, steps: range, rank: int = 0, world: int = 1
    ) -> None:
        self._windows, self._batch, self._steps = windows, batch, steps
        self._rank, self._world = rank, world

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch, order = -1, np.zeros(0, np.int64)
        for step in self._steps:
            for place in range(self._rank, self._batch, self._world):
                at = step * self._batch + place
                if at // len(self._windows) != epoch:
                    epoch = at // len(self._windows)
                    order = self._windows.order(epoch)
                yield epoch, int(order[at % len(self._windows)])


def moved_to(given: Any, device: torch.device) -> Any:
    """Copy a window with all its tensors on a device."""
    if isinstance(given, Tensor):
        return given.to(device, non_blocking=True)
    if isinstance(given, tuple):
        return tuple(moved_to(item, device) for item in given)
    if isinstance(given, Window | WindowSweep | Sighting):
        return type(given)(**{name: moved_to(item, device) for name, item in vars(given).items()})
    return given
