# SPDX-License-Identifier: Apache-2.0
"""Which remembered tokens lie near each token: a look-up in a hash grid, whatever their number."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from cross4d_jepa_ros.model.config import ModelConfig

# Candidates that a token looks at in each stretch of cells around it: the 8 columns of three cells
# beside its own, and its own column cell by cell.
STRETCH_SLOTS = 5
STRETCHES = 11
SLOT_BITS = 6
FAR = (1 << 31) - (1 << SLOT_BITS)
# Distances are compared in whole steps of a voxel's edge, so that on the lattice of a vehicle that
# stands the rounding errors of its poses change nothing.
STEPS_PER_VOXEL = 256
# Keeps the borders of the cells off the lattice, for the same reason.
CELL_SHIFT = 0.3711
CELL_BITS = 21


class NeighbourLookup(nn.Module):
    """Finds the remembered tokens near each token by looking up cells of a hash grid.

    The cost does not depend on how many sweeps are remembered but for one sort of integers. Where
    a stretch of cells holds more than STRETCH_SLOTS tokens, evenly spaced ones are looked at.
    """

    first_cell: Tensor
    past_cell: Tensor
    rank: Tensor
    slot: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self._neighbours = config.neighbours
        self._radius_m = config.neighbour_radius_m
        self._step_m = config.voxel_m / STEPS_PER_VOXEL
        side = torch.tensor((-1, 0, 1)) << CELL_BITS  # (3,)
        column = ((side << CELL_BITS)[:, None] + side).flatten()  # (9,)
        beside = torch.cat((column[:4], column[5:]))  # (8,)
        own = torch.tensor((-1, 0, 1))  # (3,)
        for name, value in (
            ('first_cell', torch.cat((beside - 1, own))),  # (11,): cells above each other adjoin
            ('past_cell', torch.cat((beside + 2, own + 1))),  # (11,)
            ('rank', torch.arange(STRETCH_SLOTS)),  # (5,)
            ('slot', torch.arange(STRETCHES * STRETCH_SLOTS, dtype=torch.int32)),  # (S,)
        ):
            self.register_buffer(name, value, persistent=False)

    def forward(self, query: Tensor, remembered: Tensor) -> tuple[Tensor, Tensor]:
        """Find the k nearest of N remembered positions for each of M.

        Args:
            query: (3, M) float64 m.
            remembered: (3, N) float64 m, same frame; of equally near ones the first counts.

        Returns:
            (M, k) int64 into the N, and (M, k) bool: False where there were fewer in the radius.

        """
        key, order = self._cell_key(remembered).sort(stable=True)  # (N,), (N,)
        cell = self._cell_key(query)[:, None]  # (M, 1)
        ends = torch.stack((cell + self.first_cell, cell + self.past_cell))  # (2, M, 11)
        first, past = torch.searchsorted(key, ends, out_int32=True).unbind(0)  # (M, 11), (M, 11)
        held = past - first  # (M, 11)
        stride = (held / STRETCH_SLOTS).clamp_min_(1)  # (M, 11)
        place = (stride[:, :, None] * self.rank).int()  # (M, 11, 5)
        candidate = (first[:, :, None] + place).flatten(1)  # (M, S)
        candidate = candidate.clamp_max_(len(key) - 1)  # (M, S)
        steps = self._squared_steps(query, remembered.index_select(1, order), candidate)  # (M, S)
        near = (place < held[:, :, None]).flatten(1)  # (M, S)
        near &= steps <= round(self._radius_m / self._step_m) ** 2  # (M, S)
        # Whole numbers that end in the slot: equal distances never change places.
        rating = torch.where(near, (steps >> 4 << SLOT_BITS) + self.slot, FAR)  # (M, S)
        best = _smallest(rating, self._neighbours)  # (M, k)
        chosen = candidate.gather(1, (best & (1 << SLOT_BITS) - 1).long()).flatten()  # (M k,)
        return order.index_select(0, chosen).view_as(best), best < FAR  # (M, k), (M, k)

    def _squared_steps(self, query: Tensor, remembered: Tensor, candidate: Tensor) -> Tensor:
        """Square the distances of (M, S) candidates; (M, S) int32, in steps."""
        squared = torch.zeros(candidate.shape, dtype=torch.int32, device=query.device)  # (M, S)
        for there, here in zip(remembered, query, strict=True):
            there = (there / self._step_m).round_().int()  # (N,)
            here = (here / self._step_m).round_().int()  # (M,)
            offset = there.index_select(0, candidate.flatten()).view_as(squared)  # (M, S)
            offset -= here[:, None]  # (M, S)
            squared += offset * offset  # (M, S)
        return squared

    def _cell_key(self, position: Tensor) -> Tensor:
        """Pack the cells of (3, n) positions into (n,) integers that ascend along x, y, z."""
        cell = torch.floor(position / self._radius_m + CELL_SHIFT).long()  # (3, n)
        x, y, z = (cell + (1 << CELL_BITS - 1)).unbind(0)  # (n,) each
        return x << 2 * CELL_BITS | y << CELL_BITS | z  # (n,)


def _smallest(rating: Tensor, count: int) -> Tensor:
    """Return the `count` smallest of each row of (M, S) int32, in some order."""
    if rating.device.type == 'cpu':
        # A tenth of the time of topk.
        return torch.from_numpy(np.partition(rating.numpy(), count - 1, axis=1)[:, :count])
    return rating.topk(count, dim=1, largest=False, sorted=False).values  # (M, k)
