# SPDX-License-Identifier: Apache-2.0
"""Which remembered tokens lie near each token: a look-up in a hash grid, whatever their number."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from cross4d_jepa_ros.model.config import ModelConfig

# Candidates that a token looks at in each stretch of cells around it: the 8 columns of three cells
# beside its own, and its own column cell by cell.
STRETCH_SLOTS = 4
STRETCHES = 11
SLOT_BITS = 6
FAR = (1 << 31) - (1 << SLOT_BITS)
# Positions are told in whole steps of the radius, which is the edge of a cell. The shift keeps the
# borders of the steps off the lattice of a vehicle that stands, where all distances tie: rounding
# errors of its poses change nothing there.
STEP_BITS = 8
STEP_SHIFT = 0.3711
# Of a cell's number along an axis; three of them make an int32.
CELL_BITS = 10


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
        slots = STRETCHES * STRETCH_SLOTS
        side = torch.tensor((-1, 0, 1), dtype=torch.int32, device='cpu') << CELL_BITS  # (3,)
        column = ((side << CELL_BITS)[:, None] + side).flatten()  # (9,)
        beside = torch.cat((column[:4], column[5:]))  # (8,)
        own = torch.tensor((-1, 0, 1), dtype=torch.int32, device='cpu')  # (3,)
        for name, value in (
            ('first_cell', torch.cat((beside - 1, own))),  # (11,): cells above each other adjoin
            ('past_cell', torch.cat((beside + 2, own + 1))),  # (11,)
            ('rank', torch.arange(STRETCH_SLOTS, device='cpu')),  # (4,)
            ('slot', torch.arange(slots, dtype=torch.int32, device='cpu')),  # (S,)
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
        here, there = self._steps(query), self._steps(remembered)  # (3, M), (3, N)
        key, order = _cell_key(there).sort(stable=True)  # (N,), (N,)
        cell = _cell_key(here)[:, None]  # (M, 1)
        ends = torch.stack((cell + self.first_cell, cell + self.past_cell))  # (2, M, 11)
        first, past = torch.searchsorted(key, ends, out_int32=True).unbind(0)  # (M, 11), (M, 11)
        held = past - first  # (M, 11)
        stride = (held / STRETCH_SLOTS).clamp_min_(1)  # (M, 11)
        place = (stride[:, :, None] * self.rank).int()  # (M, 11, 4)
        candidate = (first[:, :, None] + place).flatten(1)  # (M, S)
        candidate = candidate.clamp_max_(len(key) - 1)  # (M, S)
        squared = torch.zeros(candidate.shape, dtype=torch.int32, device=query.device)  # (M, S)
        for then, now in zip(there, here, strict=True):  # (N,), (M,)
            offset = then.index_select(0, order).index_select(0, candidate.flatten())  # (M S,)
            offset = offset.view_as(squared).sub_(now[:, None])  # (M, S)
            squared += offset * offset  # (M, S)
        near = (place < held[:, :, None]).flatten(1)  # (M, S)
        near &= squared <= 1 << 2 * STEP_BITS  # (M, S)
        # Whole numbers that end in the slot: equal distances never change places.
        rating = torch.where(near, (squared << SLOT_BITS) + self.slot, FAR)  # (M, S)
        best = _smallest(rating, self._neighbours)  # (M, k)
        chosen = candidate.gather(1, (best & (1 << SLOT_BITS) - 1).long()).flatten()  # (M k,)
        return order.index_select(0, chosen).view_as(best), best < FAR  # (M, k), (M, k)

    def _steps(self, position: Tensor) -> Tensor:
        """Tell (3, n) positions, m, in whole steps, (3, n) int32."""
        scaled = position * ((1 << STEP_BITS) / self._radius_m) + STEP_SHIFT  # (3, n)
        return scaled.floor_().int()  # (3, n)


def _cell_key(steps: Tensor) -> Tensor:
    """Pack the cells of (3, n) int32 steps into (n,) int32 that ascend along x, y, z."""
    half = 1 << CELL_BITS - 1
    cell = (steps >> STEP_BITS).clamp_(-half, half - 1) + half  # (3, n)
    x, y, z = cell.unbind(0)  # (n,) each
    return x << 2 * CELL_BITS | y << CELL_BITS | z  # (n,)


def _smallest(rating: Tensor, count: int) -> Tensor:
    """Return the `count` smallest of each row of (M, S) int32, in some order."""
    if rating.device.type == 'cpu':
        # A tenth of the time of topk.
        return torch.from_numpy(np.partition(rating.numpy(), count - 1, axis=1)[:, :count])
    return rating.topk(count, dim=1, largest=False, sorted=False).values  # (M, k)
