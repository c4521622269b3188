# SPDX-License-Identifier: Apache-2.0
"""A network small enough for tests to compute by hand."""

from __future__ import annotations

import pytest
import torch

from cross4d_jepa_ros.model.config import ModelConfig
from cross4d_jepa_ros.model.network import Network
from tests.model.drives import SMALL


@pytest.fixture
def config() -> ModelConfig:
    """Tokens of 12 channels in windows of 8, voxels of 1 m, 20 m of sight."""
    return SMALL


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
