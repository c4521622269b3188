# SPDX-License-Identifier: Apache-2.0
"""Farthest point sampling and nearest neighbours, for objects and small clouds only.

Sampling takes one pass over all points per centre.
"""

from __future__ import annotations

import torch
from torch import Tensor


def farthest_points(xyz: Tensor, count: int) -> Tensor:
    """Sample points, each the one farthest from all before it; the first is so from the mean.

    Equally far ones are taken in the order of the rows.

    Args:
        xyz: (L, 3) m.
        count: How many (N).

    Returns:
        (n,) rows of distinct points in the order of sampling; n < N where there are no more.

    """
    count = min(count, len(xyz))
    chosen = torch.zeros(count, dtype=torch.int64, device=xyz.device)  # (N,)
    reach = xyz.new_zeros(count)  # (N,)
    far = (xyz - xyz.mean(0)).square().sum(1)  # (L,)
    for turn in range(count):
        best = far.argmax(0, keepdim=True)  # (1,)
        chosen[turn], reach[turn] = best[0], far[best][0]
        distance = (xyz - xyz[best]).square().sum(1)  # (L,)
        far = distance.minimum(far) if turn else distance  # (L,)
    # One that nothing is between was sampled before: the points have run out.
    distinct = reach > 0  # (N,)
    distinct[:1] = True
    return chosen[distinct]


def nearest_points(centre: Tensor, xyz: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Find the neighbours of centres and the other way round.

    Args:
        centre: (n, 3) m.
        xyz: (L, 3) m.
        count: Neighbours of a centre (K); fewer where there are fewer points.

    Returns:
        (n, min(K, L)) rows of the points nearest to each centre, and (L,) the centre nearest to
        each point, of equally near ones the first.

    """
    distance = torch.cdist(  # (n, L), of differences: products would lose the digits
        centre, xyz, compute_mode='donot_use_mm_for_euclid_dist'
    )
    near = distance.topk(min(count, len(xyz)), dim=1, largest=False).indices  # (n, min(K, L))
    if not len(centre):
        return near, near.new_zeros(len(xyz))
    return near, distance.argmin(0)
