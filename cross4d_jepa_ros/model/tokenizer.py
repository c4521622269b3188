# SPDX-License-Identifier: Apache-2.0
"""Points -> patch tokens: a grouping of points and one small PointNet shared by all patches.

Sweeps are grouped by a hash grid of voxels: linear in the points but for one sort of integer keys.
Objects are grouped by farthest point sampling and nearest neighbours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cross4d_jepa_ros.model.capping import (
    coordinate_hash,
    kept_voxels,
    near_kept_voxel,
    share_out,
    thin_patches,
)
from cross4d_jepa_ros.model.config import ModelConfig
from cross4d_jepa_ros.model.farthest_points import farthest_points, nearest_points

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
    """List what `PatchTokenizer` computes for a point, in channel order."""
    anchor = 'voxel_centre' if config.tokenizer == 'voxel' else 'centre_point'
    geometry = (
        InputFeature('offset_to_patch_mean', 3, 'm', config.voxel_m),
        InputFeature(f'offset_to_{anchor}', 3, 'm', config.voxel_m),
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
    """Which points the network sees, and how they fall into patches.

    K points are in range, L of them are looked at one by one (all, unless a cap was reached), and
    M patches become tokens.

    Attributes:
        point: (K,) int64, input positions of the points in range, ascending.
        patch_of_point: (K,) int64, the patch of each of them.
        kept: (L,) int64, rows of `point` that are looked at, ascending; None where all are.
        stand_in: (K,) int64, for each point the row of `kept` whose answer it takes, one of the
            same patch; None where each has its own.
        xyz: (L, 3) m, the points that are looked at, base frame.
        patch_of_kept: (L,) int64, the patch of each of these.
        cell: (M, 3) int64, voxel of each patch, ascending by packed key; all are >= 0. Two patches
            may share one only where centres were sampled.
        anchor: (M, 3) float64 m, the voxel's centre or the sampled centre point, base frame.
        centre: (M, 3) m, mean of the points in each voxel, or nearest to each centre point.
        capped_points: Points that take the answer of another, K - L.
        capped_tokens: Occupied voxels that are no tokens; their points belong to one nearby.
        member: (E,) int64, rows of `kept` that make up the tokens; None where it is each once.
        patch_of_member: (E,) int64, the patch of each of these; None likewise.

    """

    point: Tensor
    patch_of_point: Tensor
    kept: Tensor | None
    stand_in: Tensor | None
    xyz: Tensor
    patch_of_kept: Tensor
    cell: Tensor
    anchor: Tensor
    centre: Tensor
    capped_points: int = 0
    capped_tokens: int = 0
    member: Tensor | None = None
    patch_of_member: Tensor | None = None

    @property
    def kept_point(self) -> Tensor:
        """Input positions (L,) of the points that are looked at."""
        return self.point if self.kept is None else self.point[self.kept]  # (L,)

    def spread(self, answer: Tensor) -> Tensor:
        """Give (K, ...) points in range the (L, ...) answers of those that are looked at."""
        return answer if self.stand_in is None else answer[self.stand_in]  # (K, ...)


class VoxelGrid:
    """Groups the points of a sweep by voxel.

    Patches, caps and their order depend on coordinates only. Over the cap on tokens, all ranges
    keep equally many voxels, and points of the others join one nearby. Over the cap on points, all
    voxels keep equally many, so that dense ones give first, and these are near a LiDAR; what is
    left over goes to the farthest.
    """

    def __init__(self, config: ModelConfig) -> None:
        self._voxel_m = config.voxel_m
        self._range_m = config.range_m
        self._max_points = config.max_points
        # Every token has a point of its own.
        self._max_tokens = min(config.max_tokens, config.max_points)
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
        key, patch, count = torch.unique(  # (M,), (K,), (M,)
            self.key(xyz), return_inverse=True, return_counts=True
        )
        total = xyz.new_zeros(len(key), 3).index_add_(0, patch, xyz)  # (M, 3)
        centre = total / count[:, None]  # (M, 3)
        if len(key) > self._max_tokens or len(point) > self._max_points:
            return self._capped(point, xyz, patch, key, centre)
        cell = self.unpacked(key)  # (M, 3)
        return Patches(point, patch, None, None, xyz, patch, cell, self.voxel_centre(cell), centre)

    def key(self, xyz: Tensor) -> Tensor:
        """Pack the cells of (K, 3) points in range into (K,) int64."""
        cell = (xyz / self._voxel_m).floor_().add_(self.origin_cell)  # (K, 3), whole numbers
        x, y, z = cell.unbind(1)  # (K,) each
        return (x.long() * self.cells_per_axis + y.long()) * self.cells_per_axis + z.long()  # (K,)

    def voxel_centre(self, cell: Tensor) -> Tensor:
        """Centre of (M, 3) cells, base frame, m, float64."""
        return ((cell - self.origin_cell).double() + 0.5) * self._voxel_m  # (M, 3)

    def unpacked(self, key: Tensor) -> Tensor:
        """Unpack (M,) keys into (M, 3) cells."""
        side = self.cells_per_axis
        return torch.stack((key // side**2, key // side % side, key % side), dim=1)  # (M, 3)

    def _capped(
        self, point: Tensor, xyz: Tensor, patch: Tensor, key: Tensor, centre: Tensor
    ) -> Patches:
        cell = self.unpacked(key)  # (M, 3)
        # Doubled integer coordinates of voxel centres make equal distances exactly equal.
        far = (2 * (cell - self.origin_cell) + 1).square().sum(1)  # (M,)
        voxel_kept = torch.ones_like(key, dtype=torch.bool)  # (M,)
        if len(key) > self._max_tokens:
            range_share = far.double().sqrt() * (self._voxel_m / 2 / self._range_m)  # (M,)
            voxel_kept = kept_voxels(key, range_share, self._max_tokens)  # (M,)
        near = near_kept_voxel(cell, voxel_kept)  # (M,)
        new_patch = (voxel_kept.cumsum(0) - 1)[near]  # (M,)
        own, patch = voxel_kept[patch], new_patch[patch]  # (K,), (K,)
        cell, centre, far = cell[voxel_kept], centre[voxel_kept], far[voxel_kept]  # of M' voxels
        anchor = self.voxel_centre(cell)  # (M', 3)
        count = torch.zeros_like(far).index_add_(0, patch, own.long())  # (M',)
        farthest_first = far.argsort(descending=True, stable=True)  # (M',)
        allowed = share_out(count, self._max_points, farthest_first)  # (M',)
        within = (xyz - anchor.float()[patch]) / self._voxel_m + 0.5  # (K, 3)
        kept, stand_in = thin_patches(xyz, within, patch, own, allowed)  # (L,), (K,)
        return Patches(
            point,
            patch,
            kept,
            stand_in,
            xyz[kept],
            patch[kept],
            cell,
            anchor,
            centre,
            capped_points=len(point) - len(kept),
            capped_tokens=len(key) - len(cell),
        )


class FarthestPointPatches:
    """Groups the points of an object around centres that are spread over it, as 3D-JEPA does.

    A token is made of the points nearest to its centre, which patches may share; each point
    belongs to the centre nearest to it. More points than the cap are thinned by voxel beforehand.
    """

    def __init__(self, config: ModelConfig) -> None:
        self._centres = config.max_tokens
        self._patch_points = config.patch_points
        voxels = replace(config, tokenizer='voxel', patch_points=0, max_tokens=config.max_points)
        self._grid = VoxelGrid(voxels)

    def group(self, xyz: Tensor) -> Patches:
        """Assign (N, 3) float32 points in the base frame; NaN, Inf and far ones are left out."""
        thinned = self._grid.group(xyz)
        # Sums, ties and all that follows see the same rows whatever the order of the points.
        order = coordinate_hash(thinned.xyz).argsort(stable=True)  # (L,)
        xyz = thinned.xyz[order]  # (L, 3)
        anchor = xyz[farthest_points(xyz, self._centres)]  # (M, 3)
        key = self._grid.key(anchor)  # (M,)
        by_key = key.argsort(stable=True)  # (M,)
        anchor, cell = anchor[by_key], self._grid.unpacked(key[by_key])  # (M, 3), (M, 3)
        member, nearest = nearest_points(anchor, xyz, self._patch_points)  # (M, k), (L,)
        patch = torch.empty_like(order)  # (L,)
        patch[order] = nearest
        patches, each = member.shape
        return replace(
            thinned,
            patch_of_point=thinned.spread(patch),
            patch_of_kept=patch,
            cell=cell,
            anchor=anchor.double(),
            centre=xyz[member].mean(1),
            capped_tokens=0,
            member=order[member.flatten()],
            patch_of_member=torch.arange(patches, device=xyz.device).repeat_interleave(each),
        )


class PatchTokenizer(nn.Module):
    """A PointNet of two layers over each patch's points, max-pooled and lifted to a token."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.grouping: VoxelGrid | FarthestPointPatches = (
            VoxelGrid(config) if config.tokenizer == 'voxel' else FarthestPointPatches(config)
        )
        self._voxel_m = config.voxel_m
        self._range_m = config.range_m
        channels = sum(feature.channels for feature in input_features(config))
        self.point_in = nn.Linear(channels, config.point_width)
        self.point_out = nn.Linear(config.point_width, config.point_width)
        self.norm = nn.LayerNorm(config.point_width)
        self.lift = nn.Linear(config.point_width, config.width)

    def group(self, xyz: Tensor) -> Patches:
        """Assign (N, 3) float32 points in the base frame; NaN, Inf and far ones are left out."""
        return self.grouping.group(xyz)

    def forward(
        self, patches: Patches, intensity: Tensor | None, rgb: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Embed the points of `patches`.

        Args:
            patches: Of `group`.
            intensity: (L,) in [0, 1], of `patches.kept_point`; None where the sensor has none.
            rgb: (L, 4) colour in [0, 1] and a flag that is 1 where there is one; None where no
                point has any, and in a network without colour.

        Returns:
            (M, D) tokens and (L, C) point features.

        """
        point = self._embed(self.features(patches, intensity, rgb))  # (L, C)
        member, patch = point, patches.patch_of_kept  # (E, C), (E,)
        if patches.member is not None and patches.patch_of_member is not None:
            rows, patch = patches.member, patches.patch_of_member  # (E,), (E,)
            members = replace(patches, xyz=patches.xyz[rows], patch_of_kept=patch)
            intensity = None if intensity is None else intensity[rows]  # (E,)
            rgb = None if rgb is None else rgb[rows]  # (E, 4)
            member = self._embed(self.features(members, intensity, rgb))  # (E, C)
        index = patch[:, None].expand_as(member)  # (E, C)
        # Every patch has a member, so nothing of the start remains.
        pooled = member.new_full((len(patches.cell), member.shape[1]), -torch.inf)  # (M, C)
        pooled = pooled.scatter_reduce(0, index, member, 'amax')  # (M, C)
        return self.lift(self.norm(pooled)), point  # (M, D), (L, C)

    def features(self, patches: Patches, intensity: Tensor | None, rgb: Tensor | None) -> Tensor:
        """Normalised input channels (L, F) in the order of `input_features`."""
        xyz = patches.xyz  # (L, 3)
        centres = torch.cat((patches.centre, patches.anchor.float()), 1)  # (M, 6)
        features = xyz.new_empty(len(xyz), self.point_in.in_features)  # (L, F)
        features[:, 0:3] = xyz
        features[:, 3:6] = xyz
        features[:, 0:6] -= centres.index_select(0, patches.patch_of_kept)  # (L, 6)
        features[:, 0:6] /= self._voxel_m
        features[:, 6] = xyz[:, 2] / HEIGHT_DIVISOR_M
        features[:, 7] = xyz.norm(dim=1) / self._range_m
        features[:, 8] = 0.0 if intensity is None else intensity
        features[:, 9] = float(intensity is not None)
        # Nothing in a network without colour; zeros are what it has learnt for points unseen.
        features[:, 10:] = 0.0 if rgb is None else rgb
        return features

    def _embed(self, features: Tensor) -> Tensor:
        features = features.to(self.point_in.weight.dtype)  # (L, F)
        hidden = F.relu_(self.point_in(features))  # (L, C)
        point: Tensor = self.point_out(hidden)  # (L, C)
        return point
