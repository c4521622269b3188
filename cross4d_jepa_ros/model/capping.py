# SPDX-License-Identifier: Apache-2.0
"""What a sweep over its caps keeps, and which kept point or voxel stands in for each of the others.

All choices depend on coordinates only, so that the order of the points changes nothing. Points of
equal coordinates are alike: which of them is kept goes by their order.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cross4d_jepa_ros.model.spatial_encoder import morton_code

# Rings of equal width over the range, which share the tokens.
RINGS = 12
# Steps of the curve within a voxel, per axis; with the patch they fill 62 bits.
CURVE_BITS = 14


def coordinate_hash(xyz: Tensor) -> Tensor:
    """Turn (n, 3) float32 coordinates into (n,) int64, equal where these are equal."""
    x, y, z = (xyz + 0.0).view(torch.int32).long().unbind(1)  # (n,) each; -0.0 has become 0.0
    return _mixed(_mixed(_mixed(x) + y) + z)  # (n,)


def _mixed(value: Tensor) -> Tensor:
    # The finaliser of splitmix64: one-to-one on 64 bits, with shifts that do not copy the sign.
    value = (value ^ (value >> 30 & (1 << 34) - 1)) * -0x40A7B892E31B1A47  # (n,)
    value = (value ^ (value >> 27 & (1 << 37) - 1)) * -0x6B2FB644ECCEEE15  # (n,)
    return value ^ (value >> 31 & (1 << 33) - 1)  # (n,)


def share_out(wanted: Tensor, total: int, first: Tensor) -> Tensor:
    """Share a total evenly among those who want some, none getting more than wanted.

    Args:
        wanted: (n,) int64, >= 0.
        total: What there is.
        first: (n,) positions in `wanted`, in the order in which the remainder is dealt out.

    Returns:
        (n,) int64, in sum the smaller of `total` and all that is wanted.

    """
    ascending = wanted.sort().values  # (n,)
    before = ascending.cumsum(0) - ascending  # (n,)
    sharers = torch.arange(len(wanted), 0, -1, device=wanted.device)  # (n,)
    satisfied = before + ascending * sharers <= total  # (n,), True up to some place
    short = (~satisfied).sum()  # ()
    left = total - (ascending * satisfied).sum()  # ()
    level = torch.where(short > 0, left // short.clamp_min(1), ascending[-1])  # ()
    remainder = left - level * short  # ()
    unmet = (wanted > level)[first]  # (n,)
    extra = torch.empty_like(wanted)  # (n,)
    extra[first] = (unmet & (unmet.cumsum(0) <= remainder)).long()
    return wanted.clamp_max(level) + extra  # (n,)


def kept_voxels(key: Tensor, range_share: Tensor, limit: int) -> Tensor:
    """Choose the voxels that become tokens: as many from each ring of range, where it has them.

    Args:
        key: (M,) int64, distinct.
        range_share: (M,) distance of each voxel from the origin over the range, from 0.
        limit: How many to choose.

    Returns:
        (M,) bool, True for `limit` voxels; within a ring as a hash of the key has it.

    """
    ring = (range_share * RINGS).long().clamp_max(RINGS - 1)  # (M,)
    order = _mixed(key).argsort()  # (M,)
    order = order[ring[order].argsort(stable=True)]  # (M,)
    wanted = torch.zeros(RINGS, dtype=torch.int64, device=key.device)  # (RINGS,)
    wanted.index_add_(0, ring, torch.ones_like(ring))
    farthest_first = torch.arange(RINGS - 1, -1, -1, device=key.device)  # (RINGS,)
    granted = share_out(wanted, limit, farthest_first)  # (RINGS,)
    start = wanted.cumsum(0) - wanted  # (RINGS,)
    rank = torch.arange(len(key), device=key.device) - start[ring[order]]  # (M,)
    kept = torch.empty_like(order, dtype=torch.bool)  # (M,)
    kept[order] = rank < granted[ring[order]]
    return kept


def near_kept_voxel(cell: Tensor, kept: Tensor) -> Tensor:
    """Find (M,) for each of (M, 3) distinct cells itself where kept, else a kept one close by."""
    order = morton_code(cell).argsort()  # (M,)
    near = torch.empty_like(order)  # (M,)
    one_group = torch.zeros_like(order)  # (M,)
    near[order] = order[_nearest_kept(cell[order].double(), one_group, kept[order])]
    return near


def thin_patches(
    xyz: Tensor, within: Tensor, patch: Tensor, own: Tensor, allowed: Tensor
) -> tuple[Tensor, Tensor]:
    """Choose points evenly along a curve through each patch, and a stand-in for all the others.

    Args:
        xyz: (K, 3) float32 m.
        within: (K, 3) position in the voxel of the patch, of which [0, 1) is inside.
        patch: (K,) int64, of each point.
        own: (K,) bool, points that may be chosen; every patch has one.
        allowed: (M,) int64, how many of a patch's own points are chosen, at least 1.

    Returns:
        (L,) chosen points, ascending, and (K,) for each point the row among them of one in the
        same patch.

    """
    step = (within * (1 << CURVE_BITS)).long().clamp_(0, (1 << CURVE_BITS) - 1)  # (K, 3)
    code = patch << 3 * CURVE_BITS | morton_code(step)  # (K,)
    order = coordinate_hash(xyz).argsort()  # (K,)
    order = order[code[order].argsort(stable=True)]  # (K,)
    patch, own = patch[order], own[order]  # (K,) each, along the curve from here on
    count = torch.zeros_like(allowed).index_add_(0, patch, own.long())  # (M,)
    rank = own.cumsum(0) - 1 - (count.cumsum(0) - count)[patch]  # (K,)
    count, allowed = count[patch], allowed[patch]  # (K,) each
    # The chosen one is the middle of its stretch of the curve; first and last are of the stretch.
    stretch = rank * allowed // count  # (K,)
    first = (stretch * count + allowed - 1) // allowed  # (K,)
    last = (stretch * count + count + allowed - 1) // allowed - 1  # (K,)
    chosen = own & (rank == (first + last) // 2)  # (K,)
    stand_in = order[_nearest_kept(xyz[order], patch, chosen)]  # (K,) points
    marked = torch.empty_like(chosen)  # (K,)
    marked[order] = chosen
    row = torch.empty_like(order)  # (K,)
    row[order] = (marked.cumsum(0) - 1)[stand_in]
    return marked.nonzero().squeeze(1), row


def _nearest_kept(position: Tensor, group: Tensor, kept: Tensor) -> Tensor:
    """Look up and down a walk and take the nearer kept one of the same group.

    Args:
        position: (n, 3) along the walk.
        group: (n,) the groups, each of which has a kept one; the walk ends one before the next.
        kept: (n,) bool.

    Returns:
        (n,) places on the walk; a kept one's is its own.

    """
    here = torch.arange(len(kept), device=kept.device)  # (n,)
    nobody = len(kept)
    before = here.where(kept, -1).cummax(0).values  # (n,)
    behind = here.where(kept, nobody).flip(0).cummin(0).values.flip(0)  # (n,)

    def distance(other: Tensor) -> Tensor:
        place = other.clamp(0, nobody - 1)  # (n,)
        strange = (other != place) | (group[place] != group)  # (n,)
        squared = (position[place] - position).square().sum(1)  # (n,)
        return squared.masked_fill(strange, torch.inf)  # (n,)

    return before.where(distance(before) <= distance(behind), behind)  # (n,)
