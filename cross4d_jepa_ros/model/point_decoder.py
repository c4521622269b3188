# SPDX-License-Identifier: Apache-2.0
"""Token features back to the points that they came from."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from cross4d_jepa_ros.model.config import ModelConfig


class PointDecoder(nn.Module):
    """Gathers each point's token and adds what the point itself knows."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.token_in = nn.Linear(config.width, config.point_width)
        self.skip = nn.Linear(config.point_width, config.point_width)
        self.out = nn.Linear(config.point_width, config.point_width)

    def forward(self, token: Tensor, point: Tensor, patch_of_point: Tensor) -> Tensor:
        """Decode (M, D) tokens, (K, C) point features and (K,) patches to (K, C) embeddings."""
        hidden = self.skip(point)  # (K, C)
        hidden += self.token_in(token).index_select(0, patch_of_point)  # (K, C)
        embedding: Tensor = self.out(F.relu_(hidden))  # (K, C)
        return embedding
