# SPDX-License-Identifier: Apache-2.0
"""The whole network: tokenizer, spatial encoder, temporal encoder, point decoder and heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cross4d_jepa_ros.model.config import LINEAR, BadConfig, ModelConfig, Segmentation, Teacher
from cross4d_jepa_ros.model.heads import (
    ColourBasis,
    EmbeddingNormalisation,
    SegmentationHead,
    TeacherSpace,
)
from cross4d_jepa_ros.model.point_decoder import PointDecoder
from cross4d_jepa_ros.model.spatial_encoder import SpatialEncoder
from cross4d_jepa_ros.model.temporal_memory import Remembered, TemporalEncoder
from cross4d_jepa_ros.model.tokenizer import Patches, PatchTokenizer


@dataclass(frozen=True)
class SweepInput:
    """What the network is given of one sweep; L points are looked at one by one.

    Attributes:
        patches: Which points these are, and their patches.
        intensity: (L,) in [0, 1]; None where the sensor has none.
        rgb: (L, 4) colour in [0, 1] and a flag that is 1 where there is one; None in a network
            without colour.
        stamp_ns: When.
        fixed_from_base: (4, 4) float64 pose; None without ego-motion.

    """

    patches: Patches
    intensity: Tensor | None
    rgb: Tensor | None
    stamp_ns: int
    fixed_from_base: NDArray[np.float64] | None


class Network(nn.Module):
    """Holds the parts; one set of weights for a stream of sweeps and for whole windows.

    Args:
        config: Sizes.
        classes: Outputs of the segmentation head; 0 builds none.
        teacher: Whose feature space the points are mapped to; None builds no such head.
        segmentation: What the segmentation head reads.

    Raises:
        BadConfig: The head reads the teacher space of a network without one.

    """

    temporal: TemporalEncoder | None
    segmentation: SegmentationHead | None
    teacher_space: TeacherSpace | None

    def __init__(
        self,
        config: ModelConfig,
        classes: int,
        teacher: Teacher | None = None,
        segmentation: Segmentation = LINEAR,
    ) -> None:
        super().__init__()
        self.config = config
        self.tokenizer = PatchTokenizer(config)
        self.encoder = SpatialEncoder(config)
        self.temporal = TemporalEncoder(config) if config.sweeps > 1 else None
        self.decoder = PointDecoder(config)
        self.colour_basis = ColourBasis(config.point_width)
        self.normalisation = EmbeddingNormalisation(config.point_width)
        self.teacher_space = TeacherSpace(config.point_width, teacher) if teacher else None
        self.segmentation = self._head(classes, segmentation) if classes else None

    def _head(self, classes: int, segmentation: Segmentation) -> SegmentationHead:
        space = self.teacher_space if segmentation.space == 'teacher' else None
        if segmentation.space == 'teacher' and space is None:
            msg = 'its segmentation reads the space of a teacher, but it has learnt from none'
            raise BadConfig(msg)
        return SegmentationHead(self.config.point_width, classes, segmentation.hidden, space)

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
        if self.temporal is not None:
            self.temporal.start_as_identity()

    @torch.no_grad()
    def fit_projections(self, embedding: Tensor) -> None:
        """Fit the three colours and the normalisation to (K, C) point embeddings."""
        self.colour_basis.fit(embedding)
        self.normalisation.fit(embedding)

    def reckon_in(self, dtype: torch.dtype) -> None:
        """Have features and weights in another precision from here on.

        Positions, times and all that the heads compute stay in float32 or float64.
        """
        for part in (self.tokenizer, self.encoder, self.temporal, self.decoder):
            for module in part.modules() if part is not None else ():
                if isinstance(module, nn.Linear | nn.LayerNorm):
                    module.to(dtype)

    def tokenise(self, sweep: SweepInput) -> tuple[Tensor, Tensor]:
        """Embed patches and points: (M, D) and (L, C)."""
        tokenised: tuple[Tensor, Tensor] = self.tokenizer(sweep.patches, sweep.intensity, sweep.rgb)
        return tokenised

    def encode(self, token: Tensor, patches: Patches) -> Tensor:
        """Let the (M, D) tokens of one sweep see each other."""
        if not len(token):
            return token
        encoded: Tensor = self.encoder(token, patches.cell, patches.centre)  # (M, D)
        return encoded

    def recall(
        self, token: Tensor, sweep: SweepInput, memory: Sequence[Remembered]
    ) -> tuple[Tensor, Remembered | None]:
        """Let the newest sweep read the earlier ones.

        Args:
            token: (M, D) of `encode`.
            sweep: The newest.
            memory: What this returned for earlier sweeps, newest first.

        Returns:
            (M, D) tokens, and what later sweeps will read of this one; the same tokens and None
            in a network of single sweeps.

        """
        if self.temporal is None:
            return token, None
        patches = sweep.patches
        newest = self.temporal.remember(
            token, patches.anchor, patches.centre, sweep.stamp_ns, sweep.fixed_from_base
        )
        recalled: Tensor = self.temporal(token, newest, memory)  # (M, D)
        return recalled, newest

    def decode(self, token: Tensor, point: Tensor, patches: Patches) -> Tensor:
        """Turn (M, D) tokens and (L, C) point features into (L, C) point embeddings."""
        embedding: Tensor = self.decoder(token, point, patches.patch_of_kept)  # (L, C)
        return embedding

    def encode_sweep(
        self, sweep: SweepInput, memory: Sequence[Remembered]
    ) -> tuple[Tensor, Tensor, Remembered | None]:
        """Tokens of one sweep, from itself and what is remembered.

        Args:
            sweep: The newest.
            memory: As for `recall`.

        Returns:
            (M, D) tokens, (L, C) undecoded point features, and what later sweeps will read of it.

        """
        token, point = self.tokenise(sweep)  # (M, D), (L, C)
        token = self.encode(token, sweep.patches)  # (M, D)
        token, newest = self.recall(token, sweep, memory)  # (M, D)
        return token, point, newest

    def encode_window(self, sweeps: Sequence[SweepInput]) -> list[tuple[Tensor, Tensor]]:
        """Tokens of all sweeps of a window at once, each from itself and those before it.

        Args:
            sweeps: Oldest first, `sweep_stride` steps apart, poses in one fixed frame.

        Returns:
            (M, D) tokens and (L, C) undecoded point features of each sweep.

        """
        rows: list[tuple[Tensor, Tensor]] = []
        memory: list[Remembered] = []
        for sweep in sweeps:
            token, point, newest = self.encode_sweep(sweep, memory)  # (M, D), (L, C)
            if newest is not None:
                memory = [newest, *memory][: self.config.sweeps - 1]
            rows.append((token, point))
        return rows

    def forward_window(self, sweeps: Sequence[SweepInput]) -> list[tuple[Tensor, Tensor]]:
        """Answer all sweeps of a window at once, each from itself and those before it.

        Row t reads at most the T - 1 rows before it: the newest row equals what a stream of the
        same sweeps gives.

        Args:
            sweeps: Oldest first, `sweep_stride` steps apart, poses in one fixed frame.

        Returns:
            (M, D) tokens and (L, C) point embeddings of each sweep.

        """
        rows = zip(sweeps, self.encode_window(sweeps), strict=True)
        return [(token, self.decode(token, point, sweep.patches)) for sweep, (token, point) in rows]
