# SPDX-License-Identifier: Apache-2.0
"""The whole network of one sweep: tokenizer, spatial encoder, point decoder and heads."""

from __future__ import annotations

import torch
from torch import nn

from cross4d_jepa_ros.model.config import ModelConfig
from cross4d_jepa_ros.model.heads import ColourBasis, SegmentationHead
from cross4d_jepa_ros.model.point_decoder import PointDecoder
from cross4d_jepa_ros.model.spatial_encoder import SpatialEncoder
from cross4d_jepa_ros.model.tokenizer import PatchTokenizer


class Network(nn.Module):
    """Holds the parts; whoever calls it decides which are needed.

    Args:
        config: Sizes.
        classes: Outputs of the segmentation head; 0 builds none.

    """

    segmentation: SegmentationHead | None

    def __init__(self, config: ModelConfig, classes: int) -> None:
        super().__init__()
        self.config = config
        self.tokenizer = PatchTokenizer(config)
        self.encoder = SpatialEncoder(config)
        self.decoder = PointDecoder(config)
        self.colour_basis = ColourBasis(config.point_width)
        self.segmentation = SegmentationHead(config.point_width, classes) if classes else None

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw all weights; the same generator state gives the same weights.

        Args:
            generator: On the CPU, as are the weights.

        """
        for module in self.modules():
            if isinstance(module, nn.Linear):
                module.weight.normal_(0, module.in_features**-0.5, generator=generator)
                module.bias.zero_()
