# SPDX-License-Identifier: Apache-2.0
"""A network small enough for tests to compute by hand."""

from __future__ import annotations

import pytest
import torch

from cross4d_jepa_ros.model.config import ModelConfig
from cross4d_jepa_ros.model.network import Network


@pytest.fixture
def config() -> ModelConfig:
    """Tokens of 12 channels in windows of 8, voxels of 1 m, 20 m of sight."""
    return ModelConfig(
        size='test',
        tokenizer='voxel',
        voxel_m=1.0,
        range_m=20.0,
        max_points=10000,
        max_tokens=2000,
        patch_points=0,
        width=12,
        blocks=3,
        heads=2,
        window=8,
        point_width=6,
        colour=True,
        sweeps=1,
        sweep_stride=1,
        neighbours=0,
        neighbour_radius_m=0.0,
        latents=0,
        temporal_blocks=0,
    )


@pytest.fixture
def network(config: ModelConfig) -> Network:
    """Untrained weights for three classes."""
    network = Network(config, 3)
    network.initialise(torch.Generator().manual_seed(1))
    return network.eval()


@pytest.fixture
def xyz() -> torch.Tensor:
    """500 points over a few dozen voxels, all in range."""
    return torch.rand(500, 3, generator=torch.Generator().manual_seed(2)) * 6 - 3
