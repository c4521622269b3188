# SPDX-License-Identifier: Apache-2.0
"""What a later sweep's tokens will be, from those up to now and the later pose."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cross4d_jepa_ros.model.config import ModelConfig
from cross4d_jepa_ros.model.network import SweepInput
from cross4d_jepa_ros.model.temporal_memory import relative_pose
from offline_training.objectives import settings
from offline_training.objectives.losses import latent_loss, normalised
from offline_training.objectives.passes import Pass, Term, term
from offline_training.objectives.predictor import LatentPredictor, at_age, some

QUERIES = 256


class FutureObjective(nn.Module):
    """Cross4D-JEPA as described: predicts latents of a future sweep; the paper has none.

    Of that sweep nothing enters but its pose, its time and which of its voxels are asked for.
    """

    def __init__(self, sizes: settings.Predictor, model: ModelConfig) -> None:
        super().__init__()
        self.predictor = LatentPredictor(
            sizes, model.width, model.width, 'context_aware', wavelengths(model)
        )

    def forward(self, given: Pass) -> Term | None:
        """Compare at most QUERIES tokens; None without a future, a pose, or tokens."""
        future = given.future
        if future is None or not len(future.patches.anchor):
            return None
        places = [seen_from(future, sweep) for sweep in given.inputs]
        if any(place is None for place in places):
            return None
        context = torch.cat([token for token, _ in given.encoded])  # (M, D)
        if not len(context):
            return None
        anchor = future.patches.anchor  # (F, 3)
        asked = some(len(anchor), QUERIES, given.generator(), anchor.device)  # (Q,)
        place = torch.cat([place for place in places if place is not None])  # (M, 4)
        prediction = self.predictor(at_age(anchor[asked], 0), context, place)  # (Q, D)
        target = normalised(given.target_rows[-1][0][asked])  # (Q, D)
        return term(latent_loss('cosine', prediction, target), prediction, target)


def seen_from(future: SweepInput, sweep: SweepInput) -> Tensor | None:
    """Move the token centres of a sweep into a later sweep's base frame, with their age.

    Returns:
        (M, 4) for a predictor; None where a pose is missing.

    """
    if future.fixed_from_base is None or sweep.fixed_from_base is None:
        return None
    motion = relative_pose(future.fixed_from_base, sweep.fixed_from_base)
    centre = sweep.patches.centre.double()  # (M, 3)
    future_from_sweep = torch.from_numpy(motion).to(centre.device)  # (4, 4)
    moved = centre @ future_from_sweep[:3, :3].T + future_from_sweep[:3, 3]  # (M, 3)
    return at_age(moved, (future.stamp_ns - sweep.stamp_ns) / 1e9)  # (M, 4)


def wavelengths(model: ModelConfig) -> tuple[float, float]:
    """By what a predictor tells places of a sweep apart, m; as the encoder does."""
    return 4 * model.voxel_m, 4 * model.range_m
