# SPDX-License-Identifier: Apache-2.0
"""Latents of a sweep of which the encoder sees only a part, as the target encoder sees them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cross4d_jepa_ros.model.config import ModelConfig
from offline_training.objectives import settings
from offline_training.objectives.future import wavelengths
from offline_training.objectives.losses import latent_loss, normalised, variance_hinge
from offline_training.objectives.masking import draw_blocks, part_of, visible_window
from offline_training.objectives.passes import Pass, Term, term
from offline_training.objectives.predictor import MOST_QUERIES, LatentPredictor, at_age, some


class MaskedObjective(nn.Module):
    """3D-JEPA (arXiv 2409.15803), with blocks that stay hidden through a window of sweeps.

    `predict` asks a predictor for the hidden patches, as the paper does. `visible` asks the
    encoder itself for the patches that it sees: on LiDAR what is asked at hidden places teaches
    mostly their position (DOS, arXiv 2512.11465). The target encoder sees all in either, unless
    its tokens are to be the hidden ones alone.
    """

    predictor: LatentPredictor | None

    def __init__(
        self, given: settings.MaskedLatent, sizes: settings.Predictor, model: ModelConfig
    ) -> None:
        super().__init__()
        self._settings = given
        self._model = model
        self.predictor = None
        if given.mode == 'predict':
            self.predictor = LatentPredictor(
                sizes, model.width, model.width, given.predictor, wavelengths(model)
            )

    def forward(self, given: Pass) -> Term | None:
        """Hide, encode and compare; None where the sweep has too few patches for it."""
        wanted, draw = self._settings, given.generator()
        newest = given.target_inputs[-1]
        blocks = draw_blocks(newest.patches, self._model, wanted.blocks, wanted.ratio, draw)
        if blocks is None:
            return None
        # Poses place the blocks, also where the network is not told them.
        parts = visible_window(given.remembered, blocks, wanted.points_kept, draw)
        seen = [given.blinded(part.sweep) for part in parts]
        online = given.network.encode_window(seen)[-1][0]  # (m, D)
        if not len(online):
            return None
        if self.predictor is None:
            prediction = online  # (m, D)
            target = self._targets(given, parts[-1].token, blocks.hidden)  # (m, D)
        else:
            hidden = blocks.hidden.nonzero().squeeze(1)  # (h,)
            asked = hidden[some(len(hidden), MOST_QUERIES, draw, hidden.device)]  # (Q,)
            anchor, centre = newest.patches.anchor[asked], parts[-1].sweep.patches.centre
            prediction = self.predictor(at_age(anchor, 0), online, at_age(centre, 0))  # (Q, D)
            target = self._targets(given, asked, blocks.hidden)  # (Q, D)
        loss = latent_loss(wanted.loss, prediction, target)  # ()
        if wanted.variance_weight:
            loss = loss + wanted.variance_weight * variance_hinge(online)  # ()
        return term(loss, prediction, target)

    def _targets(self, given: Pass, asked: Tensor, hidden: Tensor) -> Tensor:
        """Latents of the newest sweep's tokens that are asked for, (Q, D)."""
        newest = len(given.target_inputs) - 1
        if self._settings.target_tokens == 'all':
            return normalised(given.target_rows[newest][0][asked])  # (Q, D)
        alone = part_of(given.target_inputs[newest], hidden)
        token = given.encode_targets([alone.sweep])[0][0]  # (h, D)
        return normalised(token[torch.searchsorted(alone.token, asked)])  # (Q, D)
