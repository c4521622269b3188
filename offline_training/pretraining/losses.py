# SPDX-License-Identifier: Apache-2.0
"""The objectives of a run on one sample: what data parallel training wraps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cross4d_jepa_ros.model.network import Network
from offline_training.objectives.build import build
from offline_training.objectives.ema import target_of
from offline_training.objectives.passes import Pass, Term
from offline_training.objectives.settings import Objectives
from offline_training.objectives.window import Window


class Losses(nn.Module):
    """The network that learns, its moving average, and the objectives with their predictors.

    Args:
        network: What is kept.
        settings: Which objectives, and their weights.
        patch_channels: Of the teacher's patches; 0 without a teacher.
        view_channels: Of its embedding of an image; 0 likewise.
        generator: Draws the predictors' weights.

    Attributes:
        target_network: Moving average of the network; None where no objective asks it.
        weights: Of each term in the sum.

    """

    target_network: Network | None

    def __init__(
        self,
        network: Network,
        settings: Objectives,
        patch_channels: int,
        view_channels: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.network = network
        self.target_network = target_of(network) if settings.needs_target_encoder else None
        self.weights = settings.weights
        self.objectives = build(settings, network.config, patch_channels, view_channels, generator)
        self._trained = list(self.trained().values())

    def trained(self) -> dict[str, nn.Parameter]:
        """Name what the optimiser changes."""
        return {name: value for name, value in self.named_parameters() if value.requires_grad}

    def forward(self, window: Window) -> tuple[Tensor, dict[str, Term]]:
        """Ask all objectives.

        Returns:
            The sample's loss, and the terms that it has. Terms that it lacks, for want of an image
            say, leave the others as much more weight, so that the gradient keeps its scale.

        """
        given = Pass(self.network, self.target_network, window)
        terms: dict[str, Term] = {}
        for name, objective in self.objectives.items():
            term = objective(given)
            if term is not None:
                terms[name] = term
        # Every weight has a gradient in every sample, which is what data parallel training expects.
        total = torch.stack([value.sum() for value in self._trained]).sum() * 0.0  # ()
        if terms:
            present = sum(self.weights[name] for name in terms)
            scale = sum(self.weights.values()) / present
            for name, term in terms.items():
                total = total + scale * self.weights[name] * term.loss  # ()
        return total, terms
