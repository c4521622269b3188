# SPDX-License-Identifier: Apache-2.0
"""The objectives that a run has switched on."""

from __future__ import annotations

import torch
from torch import nn

from cross4d_jepa_ros.model.config import ModelConfig
from offline_training.objectives.dense_correspondence import DenseObjective
from offline_training.objectives.future import FutureObjective
from offline_training.objectives.latent_view import ViewObjective
from offline_training.objectives.masked_latent import MaskedObjective
from offline_training.objectives.predictor import initialise
from offline_training.objectives.settings import Objectives


def build(
    settings: Objectives,
    model: ModelConfig,
    patch_channels: int,
    view_channels: int,
    generator: torch.Generator,
) -> nn.ModuleDict:
    """Make the objectives whose weight is not 0, under the names of `Objectives.weights`.

    Each maps a `passes.Pass` to a `passes.Term`, or to None where the sample has nothing for it.

    Args:
        settings: Of the run.
        model: Of the network that learns.
        patch_channels: Of the teacher's patches; 0 where there is no teacher.
        view_channels: Of its embedding of an image; 0 likewise.
        generator: Draws their weights; on the CPU.

    """
    built = nn.ModuleDict()
    sizes = settings.predictor
    for name in settings.weights:
        if name == 'dense_correspondence':
            built[name] = DenseObjective()
        elif name == 'future':
            built[name] = FutureObjective(sizes, model)
        elif name == 'latent_view':
            view = settings.latent_view
            built[name] = ViewObjective(view, sizes, model, patch_channels, view_channels)
        else:
            built[name] = MaskedObjective(settings.masked_latent, sizes, model)
    initialise(built, generator)
    return built
