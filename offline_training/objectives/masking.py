# SPDX-License-Identifier: Apache-2.0
"""Hides blocks of patches from an encoder: in the newest sweep, and where they were before it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cross4d_jepa_ros.model.config import ModelConfig
from cross4d_jepa_ros.model.network import SweepInput
from cross4d_jepa_ros.model.temporal_memory import relative_pose
from cross4d_jepa_ros.model.tokenizer import Patches

# What poses may be wrong by.
ROUNDING_M = 1e-3


@dataclass(frozen=True)
class Blocks:
    """B blocks of the M patches of the newest sweep; A is 2 (seen from above) or 3 axes.

    Attributes:
        block: (M,) int64, the block that each patch belongs to; -1 for those that stay visible.
        seed: (B, A) float64 m, where each block was grown from, newest base frame.
        reach_m: (B,) float64; nothing of a block lies farther from its seed.

    """

    block: Tensor
    seed: Tensor
    reach_m: Tensor

    @property
    def hidden(self) -> Tensor:
        """(M,) bool."""
        return self.block >= 0  # (M,)

    def cover(self, position: Tensor) -> Tensor:
        """Tell which (n, 3) float64 positions, m, newest base frame, lie in a block's reach."""
        offset = position[:, None, : self.seed.shape[1]] - self.seed  # (n, B, A)
        return (offset.square().sum(2) <= self.reach_m.square()).any(1)  # (n,)


@dataclass(frozen=True)
class Part:
    """A sweep of which only some patches are left, m of M.

    Attributes:
        sweep: What is left.
        token: (m,) int64, ascending: which of the M they were.

    """

    sweep: SweepInput
    token: Tensor


def draw_blocks(
    patches: Patches, model: ModelConfig, blocks: int, ratio: float, generator: torch.Generator
) -> Blocks | None:
    """Grow blocks by nearest patches, none of which is in two.

    Voxels are near each other as seen from above, and blocks start in one of the occupied columns,
    all equally likely: most voxels lie near the sensor, most columns do not. Patches of farthest
    points are taken as they lie in space.

    Args:
        patches: Of the newest sweep.
        model: Whose tokenizer made them.
        blocks: How many (B); fewer where there are fewer patches to hide.
        ratio: Share of the patches that all blocks cover; each covers the same, to one patch.
        generator: On the CPU.

    Returns:
        The blocks; None where so few patches leave nothing to hide or nothing to see.

    """
    count = len(patches.anchor)
    share = round(ratio * count)
    if not 0 < share < count:
        return None
    from_above = model.tokenizer == 'voxel'
    axes = 2 if from_above else 3
    anchor = patches.anchor[:, :axes]  # (M, A)
    # Whole numbers make equal distances exactly equal.
    place = patches.cell[:, :axes] if from_above else anchor  # (M, A)
    block = torch.full((count,), -1, device=anchor.device)  # (M,)
    seeds = []
    blocks = min(blocks, share)
    for number in range(blocks):
        size = share * (number + 1) // blocks - share * number // blocks
        left = (block < 0).nonzero().squeeze(1)  # (m,)
        starts = torch.unique(place[left], dim=0) if from_above else place[left]  # (s, A)
        start = starts[int(torch.randint(len(starts), (), generator=generator))]  # (A,)
        order = (place[left] - start).square().sum(1).argsort(stable=True)  # (m,)
        seeds.append(anchor[left[order[0]]])  # (A,)
        block[left[order[:size]]] = number
    seed = torch.stack(seeds)  # (B, A)
    return Blocks(block, seed, _reach_m(patches, block, seed, model))


def _reach_m(patches: Patches, block: Tensor, seed: Tensor, model: ModelConfig) -> Tensor:
    """As far as the anchors of a block and a voxel's diagonal, or all its points: (B,)."""
    # What a point hides lies with it in its voxel; earlier voxels are turned against these.
    diagonal = math.sqrt(3) * model.voxel_m
    reach = seed.new_full((len(seed),), diagonal)  # (B,)
    for position, owner, more in (
        (patches.anchor, block, diagonal),
        (patches.xyz, block[patches.patch_of_kept], ROUNDING_M),
    ):
        hidden = owner >= 0  # (n,)
        owner = owner[hidden]  # (n',)
        offset = position[hidden, : seed.shape[1]] - seed[owner]  # (n', A)
        reach.scatter_reduce_(0, owner, offset.norm(dim=1) + more, 'amax')
    return reach


def visible_window(
    sweeps: Sequence[SweepInput],
    blocks: Blocks,
    points_kept: tuple[float, float],
    generator: torch.Generator,
) -> list[Part]:
    """Leave only what stays visible of a window.

    A block hides a tube: in the earlier sweeps too all that lies within its reach, in the world,
    is gone, and so from the memory. Without poses the sweeps are taken as if from one place.

    Args:
        sweeps: Oldest first.
        blocks: Of the newest.
        points_kept: Bounds of the share of a sweep's visible points that stay.
        generator: On the CPU.

    """
    *earlier, newest = sweeps
    parts = []
    for sweep in earlier:
        motion = _motion(newest, sweep)
        seen = ~blocks.cover(_moved(sweep.patches.anchor, motion))  # (M',)
        clear = ~blocks.cover(_moved(sweep.patches.xyz, motion))  # (L',)
        parts.append(part_of(sweep, seen, clear & _thinned(sweep, points_kept, generator)))
    return [*parts, part_of(newest, ~blocks.hidden, _thinned(newest, points_kept, generator))]


def _thinned(
    sweep: SweepInput, points_kept: tuple[float, float], generator: torch.Generator
) -> Tensor:
    """Draw which of the L points that are looked at stay, (L,) bool."""
    low, high = points_kept
    share = low + (high - low) * float(torch.rand((), generator=generator))
    drawn = torch.rand(len(sweep.patches.xyz), generator=generator)  # (L,)
    return (drawn < share).to(sweep.patches.xyz.device)  # (L,)


def part_of(sweep: SweepInput, patch: Tensor, point: Tensor | None = None) -> Part:
    """Leave only some patches of a sweep, made of the points that these have to themselves.

    Args:
        sweep: Of M patches and L points that are looked at.
        patch: (M,) bool, those that may stay; one that has no points left goes too.
        point: (L,) bool, points that may stay with their patch; None for all.

    """
    whole = sweep.patches
    owner = whole.patch_of_kept  # (L,)
    rows, of_patch = whole.member, whole.patch_of_member  # (E,), (E,)
    if rows is None or of_patch is None:
        rows, of_patch = torch.arange(len(owner), device=owner.device), owner  # (L,), (L,)
    stays = torch.ones_like(owner, dtype=torch.bool) if point is None else point  # (L,)
    stays = stays & patch[owner]  # (L,)
    while True:
        member = stays[rows] & patch[of_patch]  # (E,)
        held = torch.bincount(of_patch[member], minlength=len(patch))  # (M,)
        if not bool((patch & (held == 0)).any()):
            break
        patch = patch & (held > 0)  # (M,)
        stays = stays & patch[owner]  # (L,)
    rows, of_patch = rows[member], of_patch[member]  # (e,), (e,)
    total = torch.zeros_like(whole.centre)  # (M, 3)
    total.index_add_(0, of_patch, whole.xyz[rows])
    had = _members(whole)  # (M,)
    mean = total / held.clamp_min(1)[:, None]  # (M, 3)
    # Of a voxel that has lost nothing, the mean of all its points stands, not of those looked at.
    centre = torch.where((held < had)[:, None], mean, whole.centre)  # (M, 3)
    token = patch.nonzero().squeeze(1)  # (m,)
    new_patch, new_row = patch.cumsum(0) - 1, stays.cumsum(0) - 1  # (M,), (L,)
    own_members = whole.member is not None
    patches = replace(
        whole,
        point=whole.kept_point[stays],
        patch_of_point=new_patch[owner[stays]],
        kept=None,
        stand_in=None,
        xyz=whole.xyz[stays],
        patch_of_kept=new_patch[owner[stays]],
        cell=whole.cell[token],
        anchor=whole.anchor[token],
        centre=centre[token],
        member=new_row[rows] if own_members else None,
        patch_of_member=new_patch[of_patch] if own_members else None,
    )
    intensity = None if sweep.intensity is None else sweep.intensity[stays]  # (l,)
    return Part(replace(sweep, patches=patches, intensity=intensity), token)


def _members(patches: Patches) -> Tensor:
    """Points that each patch is made of, (M,)."""
    of_patch = patches.patch_of_kept if patches.patch_of_member is None else patches.patch_of_member
    return torch.bincount(of_patch, minlength=len(patches.cell))  # (M,)


def _motion(newest: SweepInput, sweep: SweepInput) -> NDArray[np.float64]:
    if newest.fixed_from_base is None or sweep.fixed_from_base is None:
        return np.eye(4)
    return relative_pose(newest.fixed_from_base, sweep.fixed_from_base)


def _moved(position: Tensor, motion: NDArray[np.float64]) -> Tensor:
    """Move (n, 3) positions, m: (n, 3) float64."""
    newest_from_then = torch.from_numpy(motion).to(position.device)  # (4, 4)
    return position.double() @ newest_from_then[:3, :3].T + newest_from_then[:3, 3]  # (n, 3)
