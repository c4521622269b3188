# SPDX-License-Identifier: Apache-2.0
"""How far a latent is from its target, and a hinge against collapse."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def normalised(latent: Tensor) -> Tensor:
    """LayerNorm without weights over (n, d): how targets are compared."""
    return F.layer_norm(latent.float(), latent.shape[-1:])  # (n, d)


def cosine_distance(prediction: Tensor, target: Tensor) -> Tensor:
    """1 - cosine of the rows of (n, d) and (n, d), no gradient to the target: (n,)."""
    return 1 - F.cosine_similarity(prediction.float(), target.detach().float(), dim=1)  # (n,)


def latent_loss(kind: str, prediction: Tensor, target: Tensor) -> Tensor:
    """Compare (n, d) predictions with (n, d) targets.

    Args:
        kind: `cosine` (mean of 1 - cos), `l2` (mean square) or `smooth_l1` (quadratic below 1).
        prediction: With a gradient.
        target: None reaches it.

    Returns:
        ().

    """
    if kind == 'cosine':
        return cosine_distance(prediction, target).mean()  # ()
    compare = {'l2': F.mse_loss, 'smooth_l1': F.smooth_l1_loss}[kind]
    return compare(prediction.float(), target.detach().float())  # ()


def variance_hinge(token: Tensor) -> Tensor:
    """Mean over channels of what each one's deviation lacks of 1 / sqrt(d).

    That is what directions spread evenly would have: the rows of (M, d) are brought to length 1
    first (AD-L-JEPA; VICReg's hinge is on the rows as they are).

    Returns:
        (), from 0 (spread) to 1 / sqrt(d) (collapsed).

    """
    unit = F.normalize(token.float(), dim=1)  # (M, d)
    # The root has no gradient at 0.
    deviation = (unit.var(0, correction=0) + 1e-8).sqrt()  # (d,)
    return torch.relu(token.shape[1] ** -0.5 - deviation).mean()  # ()
