# SPDX-License-Identifier: Apache-2.0
"""Points -> patch tokens: a hash grid of voxels and one small PointNet shared by all of them.

Everything is linear in the number of points but one sort of integer keys.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cross4d_jepa_ros.model.config import ModelConfig

HEIGHT_DIVISOR_M = 3.0


@dataclass(frozen=True)
class InputFeature:
    """One group of input channels as the network sees them.

    Attributes:
        channels: How many.
        unit: Unit of the value before normalisation.
        divisor: What the value is divided by.

    """

    name: str
    channels: int
    unit: str
    divisor: float


def input_features(config: ModelConfig) -> tuple[InputFeature, ...]:
    """List what `VoxelTokenizer` computes for a point, in channel order."""
    geometry = (
        InputFeature('offset_to_patch_mean', 3, 'm', config.voxel_m),
        InputFeature('offset_to_voxel_centre', 3, 'm', config.voxel_m),
        InputFeature('height', 1, 'm', HEIGHT_DIVISOR_M),
        InputFeature('range', 1, 'm', config.range_m),
        InputFeature('intensity', 1, '1', 1.0),
        InputFeature('has_intensity', 1, 'flag', 1.0),
    )
    colour = (
        InputFeature('rgb', 3, '1', 1.0),
        InputFeature('has_colour', 1, 'flag', 1.0),
    )
    return geometry + colour if config.colour else geometry


@dataclass(frozen=True)
class Patches:
    """Which points the network sees, and how they fall into voxels.

    Attributes:
        point: (K,) int64, input positions of the points that are seen, ascending.
        xyz: (K, 3) m, these points, base frame.
        patch_of_point: (K,) int64, the patch of each of them.
        cell: (M, 3) int64, voxel of each patch, ascending by packed key; all are >= 0.
        centre: (M, 3) m, mean of each patch's points, base frame.

    """

    point: Tensor
    xyz: Tensor
    patch_of_point: Tensor
    cell: Tensor
    centre: Tensor


class VoxelGrid:
    """Groups the points of a sweep by voxel.

    Patches, caps and their order depend on coordinates only: voxels are kept nearest first by the
    distance of their centre, equally near ones by key, and each is kept or dropped whole.
    """

    def __init__(self, config: ModelConfig) -> None:
        self._voxel_m = config.voxel_m
        self._range_m = config.range_m
        self._max_points = config.max_points
        self._max_tokens = config.max_tokens
        # Cells are counted from the grid's corner so that packed keys and curves see no sign.
        self.origin_cell = math.ceil(config.range_m / config.voxel_m) + 1
        self.cells_per_axis = 2 * self.origin_cell

    def group(self, xyz: Tensor) -> Patches:
        """Assign (N, 3) float32 points in the base frame; NaN, Inf and far ones are left out."""
        squared_range = xyz.square().sum(1)  # (N,)
        seen = squared_range <= self._range_m**2  # (N,); False for NaN
        point = seen.nonzero().squeeze(1)  # (K,)
        if len(point) < len(xyz):
            xyz = xyz[point]  # (K, 3)
        cell = torch.floor(xyz / self._voxel_m).long() + self.origin_cell  # (K, 3)
        x, y, z = cell.unbind(1)  # (K,) each
        packed = (x * self.cells_per_axis + y) * self.cells_per_axis + z  # (K,)
        key, patch_of_point, count = torch.unique(  # (M,), (K,), (M,)
            packed, return_inverse=True, return_counts=True
        )
        cell = self._unpacked(key)  # (M, 3)
        if len(key) > self._max_tokens or len(point) > self._max_points:
            new_patch = self._capped(cell, count)  # (M,), -1 where dropped
            patch_of_point = new_patch[patch_of_point]  # (K,)
            kept = (patch_of_point >= 0).nonzero().squeeze(1)  # (K',)
            point, patch_of_point, xyz = point[kept], patch_of_point[kept], xyz[kept]
            cell, count = cell[new_patch >= 0], count[new_patch >= 0]  # (M', 3), (M',)
        total = xyz.new_zeros(len(cell), 3).index_add_(0, patch_of_point, xyz)  # (M, 3)
        return Patches(point, xyz, patch_of_point, cell, total / count[:, None])

    def voxel_centre(self, cell: Tensor) -> Tensor:
        """Centre of (M, 3) cells, base frame, m."""
        return (cell - self.origin_cell + 0.5) * self._voxel_m  # (M, 3)

    def _unpacked(self, key: Tensor) -> Tensor:
        side = self.cells_per_axis
        return torch.stack((key // side**2, key // side % side, key % side), dim=1)  # (M, 3)

    def _capped(self, cell: Tensor, count: Tensor) -> Tensor:
        # Doubled integer coordinates of voxel centres make equal distances exactly equal.
        squared_distance = (2 * (cell - self.origin_cell) + 1).square().sum(1)  # (M,)
        nearest_first = squared_distance.argsort(stable=True)  # (M,)
        nearest_first = nearest_first[: self._max_tokens]  # (<= max_tokens,)
        points = count[nearest_first].cumsum(0)  # (<= max_tokens,)
        kept = nearest_first[points <= self._max_points]  # (M',)
        new_patch = torch.full_like(count, -1)  # (M,)
        new_patch[kept.sort().values] = torch.arange(len(kept), device=kept.device)
        return new_patch


class VoxelTokenizer(nn.Module):
    """A PointNet of two layers over each voxel's points, max-pooled and lifted to a token."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.grid = VoxelGrid(config)
        self._voxel_m = config.voxel_m
        self._range_m = config.range_m
        channels = sum(feature.channels for feature in input_features(config))
        self.point_in = nn.Linear(channels, config.point_width)
        self.point_out = nn.Linear(config.point_width, config.point_width)
        self.norm = nn.LayerNorm(config.point_width)
        self.lift = nn.Linear(config.point_width, config.width)

    def forward(
        self, patches: Patches, intensity: Tensor | None, rgb: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Embed the points of `patches`.

        Args:
            patches: Of `grid.group`.
            intensity: (K,) in [0, 1], of the points that are seen; None where the sensor has none.
            rgb: (K, 4) colour in [0, 1] and a flag that is 1 where there is one; None in a
                network without colour.

        Returns:
            (M, D) tokens and (K, C) point features.

        """
        features = self.features(patches, intensity, rgb)  # (K, F)
        point = self.point_out(F.relu_(self.point_in(features)))  # (K, C)
        index = patches.patch_of_point[:, None].expand_as(point)  # (K, C)
        pooled = point.new_zeros(len(patches.cell), point.shape[1])  # (M, C)
        pooled = pooled.scatter_reduce(0, index, point, 'amax', include_self=False)  # (M, C)
        return self.lift(self.norm(pooled)), point  # (M, D), (K, C)

    def features(self, patches: Patches, intensity: Tensor | None, rgb: Tensor | None) -> Tensor:
        """Normalised input channels (K, F) in the order of `input_features`."""
        xyz = patches.xyz  # (K, 3)
        centres = torch.cat((patches.centre, self.grid.voxel_centre(patches.cell)), 1)  # (M, 6)
        features = xyz.new_empty(len(xyz), self.point_in.in_features)  # (K, F)
        features[:, 0:3] = xyz
        features[:, 3:6] = xyz
        features[:, 0:6] -= centres[patches.patch_of_point]  # (K, 6)
        features[:, 0:6] /= self._voxel_m
        features[:, 6] = xyz[:, 2] / HEIGHT_DIVISOR_M
        features[:, 7] = xyz.norm(dim=1) / self._range_m
        features[:, 8] = 0.0 if intensity is None else intensity
        features[:, 9] = float(intensity is not None)
        if rgb is not None:
            features[:, 10:14] = rgb
        return features
