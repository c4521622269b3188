# SPDX-License-Identifier: Apache-2.0
"""Sweeps over their caps: what is kept, and that every point still has a token."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from cross4d_jepa_ros.model.capping import (
    RINGS,
    coordinate_hash,
    near_kept_voxel,
    share_out,
    thin_patches,
)
from cross4d_jepa_ros.model.config import ModelConfig
from cross4d_jepa_ros.model.network import Network
from cross4d_jepa_ros.model.spatial_encoder import morton_code
from cross4d_jepa_ros.model.tokenizer import PatchTokenizer, VoxelGrid

CAPS = pytest.mark.parametrize(
    ('max_tokens', 'max_points'),
    [(100, 10000), (2000, 3999), (2000, 1500), (200, 700), (2000, 60), (1, 5), (2000, 1)],
)


@pytest.fixture
def sweep() -> Tensor:
    """4000 points on a floor, as dense as a LiDAR's: most of them near."""
    draw = torch.Generator().manual_seed(3)
    distance = 19 * torch.rand(4000, generator=draw) ** 2 + 0.5
    angle = 2 * math.pi * torch.rand(4000, generator=draw)
    height = torch.rand(4000, generator=draw) ** 3
    return torch.stack((distance * angle.cos(), distance * angle.sin(), height), 1)


@CAPS
def test_caps_are_met_and_counted(
    config: ModelConfig, sweep: Tensor, max_tokens: int, max_points: int
) -> None:
    free = VoxelGrid(config).group(sweep)
    patches = VoxelGrid(replace(config, max_tokens=max_tokens, max_points=max_points)).group(sweep)
    assert len(patches.cell) == min(max_tokens, max_points, len(free.cell))
    assert patches.capped_tokens == len(free.cell) - len(patches.cell)
    assert patches.capped_points == 4000 - len(patches.xyz)
    if not patches.capped_tokens:
        assert len(patches.xyz) == max_points
    assert len(patches.xyz) <= max_points
    assert torch.equal(patches.point, free.point)


@CAPS
def test_every_point_has_a_token_and_a_stand_in_of_the_same_patch(
    config: ModelConfig, sweep: Tensor, max_tokens: int, max_points: int
) -> None:
    grid = VoxelGrid(replace(config, max_tokens=max_tokens, max_points=max_points))
    patches = grid.group(sweep)
    assert patches.kept is not None
    assert patches.stand_in is not None
    assert patches.kept.tolist() == sorted(set(patches.kept.tolist()))
    assert torch.equal(patches.xyz, sweep[patches.kept_point])
    assert torch.equal(patches.patch_of_kept, patches.patch_of_point[patches.kept])
    assert torch.equal(patches.patch_of_kept[patches.stand_in], patches.patch_of_point)
    assert torch.equal(patches.stand_in[patches.kept], torch.arange(len(patches.kept)))
    assert set(patches.patch_of_kept.tolist()) == set(range(len(patches.cell)))
    # Only points inside of a patch's own voxel speak for it.
    own = patches.cell[patches.patch_of_kept] - grid.origin_cell
    assert torch.equal(own, patches.xyz.floor().long())
    free = VoxelGrid(config).group(sweep)
    same = (free.cell[:, None] == patches.cell).all(2).nonzero()[:, 0]
    torch.testing.assert_close(patches.centre, free.centre[same])
    keys = grid.key(patches.anchor.float()).tolist()
    assert keys == sorted(set(keys))


@CAPS
def test_permuted_points_give_permuted_answers(
    config: ModelConfig, sweep: Tensor, max_tokens: int, max_points: int
) -> None:
    config = replace(config, max_tokens=max_tokens, max_points=max_points)
    network = Network(config, 0)
    network.initialise(torch.Generator().manual_seed(1))
    draw = torch.Generator().manual_seed(4)
    intensity, rgb = torch.rand(4000, generator=draw), torch.rand(4000, 4, generator=draw)

    def answer(order: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        patches = network.tokenizer.group(sweep[order])
        kept = order[patches.kept_point]
        token, point = network.tokenizer(patches, intensity[kept], rgb[kept])
        spread = torch.full((4000, 6), math.nan)
        spread[order[patches.point]] = patches.spread(point)
        return patches.anchor, token, spread

    for expected, found in zip(
        answer(torch.arange(4000)), answer(torch.randperm(4000, generator=draw)), strict=True
    ):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('bad', [math.nan, math.inf, 20.01, 3e38])
def test_points_that_cannot_be_seen_influence_nothing(
    config: ModelConfig, sweep: Tensor, bad: float
) -> None:
    grid = VoxelGrid(replace(config, max_tokens=200, max_points=700))
    unseen = torch.zeros(1000, 3)
    unseen[:, 0] = bad
    clean, dirty = grid.group(sweep), grid.group(torch.cat((unseen, sweep)))
    assert torch.equal(dirty.point, clean.point + 1000)
    for name in ('patch_of_point', 'kept', 'stand_in', 'xyz', 'cell', 'centre'):
        assert torch.equal(getattr(dirty, name), getattr(clean, name)), name
    assert dirty.capped_points == clean.capped_points


@pytest.mark.parametrize('max_points', [3000, 2000, 1200])
def test_the_share_of_points_kept_rises_with_range(
    config: ModelConfig, sweep: Tensor, max_points: int
) -> None:
    patches = VoxelGrid(replace(config, max_points=max_points)).group(sweep)
    assert patches.kept is not None
    kept = torch.zeros(4000).index_fill_(0, patches.kept, 1)
    distance = sweep.norm(dim=1)
    shares = [
        kept[(distance >= start) & (distance < start + 5)].mean().item() for start in (0, 5, 10, 15)
    ]
    assert shares == sorted(shares)
    assert shares[0] < 0.8 * shares[-1]


def test_equally_full_voxels_give_nearest_first(config: ModelConfig) -> None:
    row = torch.arange(10.0)[:, None] + torch.tensor([0.2, 0.4, 0.6])  # (10, 3)
    xyz = torch.zeros(30, 3)
    xyz[:, 0] = row.flatten()
    patches = VoxelGrid(replace(config, max_points=24)).group(xyz)
    assert patches.patch_of_kept.bincount().tolist() == [2] * 6 + [3] * 4


@pytest.mark.parametrize('max_tokens', [1, 30, 150, 300])
def test_tokens_are_dealt_out_evenly_over_the_range(
    config: ModelConfig, sweep: Tensor, max_tokens: int
) -> None:
    grid = VoxelGrid(replace(config, max_tokens=max_tokens))

    def rings(anchors: Tensor) -> Counter[int]:
        return Counter(
            min(RINGS - 1, int(math.hypot(*anchor) / 20 * RINGS)) for anchor in anchors.tolist()
        )

    there = rings(VoxelGrid(config).group(sweep).anchor)
    kept = rings(grid.group(sweep).anchor)
    most = max(kept.values())
    assert sum(kept.values()) == max_tokens
    for ring, count in there.items():
        assert kept[ring] in (count, most, most - 1)


def test_no_direction_loses_its_tokens(config: ModelConfig, sweep: Tensor) -> None:
    anchor = VoxelGrid(replace(config, max_tokens=200)).group(sweep).anchor
    quadrants = (2 * (anchor[:, 0] > 0) + (anchor[:, 1] > 0)).bincount(minlength=4)
    assert quadrants.min() > 30


def test_points_in_one_step_of_the_curve_are_chosen_in_any_order(config: ModelConfig) -> None:
    xyz = torch.full((40, 3), 0.5)
    xyz[:, 0] += torch.arange(40) * 2.0**-23
    grid = VoxelGrid(replace(config, max_points=7))
    kept = grid.group(xyz).xyz[:, 0].sort().values
    for turn in range(3):
        order = torch.randperm(40, generator=torch.Generator().manual_seed(turn))
        assert torch.equal(grid.group(xyz[order]).xyz[:, 0].sort().values, kept)


def test_nothing_is_capped_at_the_caps(config: ModelConfig, sweep: Tensor) -> None:
    voxels = len(VoxelGrid(config).group(sweep).cell)
    patches = VoxelGrid(replace(config, max_tokens=voxels, max_points=4000)).group(sweep)
    assert patches.kept is patches.stand_in is None
    assert patches.capped_points == patches.capped_tokens == 0


def test_points_in_one_place(config: ModelConfig) -> None:
    patches = VoxelGrid(replace(config, max_points=9)).group(torch.full((50, 3), 0.5))
    assert len(patches.xyz) == 9
    assert patches.patch_of_point.tolist() == [0] * 50
    assert patches.capped_points == 41


def test_a_capped_network_still_answers_every_point(config: ModelConfig, sweep: Tensor) -> None:
    tokenizer = PatchTokenizer(replace(config, max_tokens=50, max_points=300))
    patches = tokenizer.group(sweep)
    token, point = tokenizer(patches, None, torch.zeros(len(patches.xyz), 4))
    assert token.shape == (50, 12)
    assert patches.spread(point).shape == (4000, 6)
    assert token.isfinite().all()


def dealt_by_hand(wanted: list[int], total: int, first: list[int]) -> list[int]:
    granted = [0] * len(wanted)
    while total and granted != wanted:
        for place in first:
            if total and granted[place] < wanted[place]:
                granted[place] += 1
                total -= 1
    return granted


@pytest.mark.parametrize('total', [0, 1, 3, 7, 12, 20, 21, 22, 100])
@pytest.mark.parametrize('wanted', [[5], [1, 9, 3, 3, 5], [4, 4, 4], [0, 8, 0, 13], [21, 0, 0, 0]])
def test_shares_are_dealt_one_by_one(wanted: list[int], total: int) -> None:
    first = list(range(len(wanted)))[::-1]
    granted = share_out(torch.tensor(wanted), total, torch.tensor(first))
    assert granted.tolist() == dealt_by_hand(wanted, total, first)


@pytest.mark.parametrize('share', [0.02, 0.5, 1.0])
def test_a_dropped_voxel_joins_the_nearer_neighbour_on_the_curve(share: float) -> None:
    draw = torch.Generator().manual_seed(7)
    cell = torch.randint(0, 12, (300, 3), generator=draw).unique(dim=0)
    kept = torch.rand(len(cell), generator=draw) < share
    walk = morton_code(cell).argsort().tolist()
    expected = torch.empty(len(cell), dtype=torch.int64)
    for place, voxel in enumerate(walk):
        before = [other for other in walk[: place + 1] if kept[other]][-1:]
        behind = [other for other in walk[place:] if kept[other]][:1]
        expected[voxel] = min(
            before + behind, key=lambda other: (cell[other] - cell[voxel]).square().sum().item()
        )
    assert torch.equal(near_kept_voxel(cell, kept), expected)


def test_the_middles_of_equal_stretches_are_kept() -> None:
    """Twelve points in a row, of which the last two belong to a voxel that was dropped."""
    xyz = torch.zeros(12, 3)
    xyz[:, 0] = torch.arange(12) / 16
    one_patch = torch.zeros(12, dtype=torch.int64)
    own = torch.arange(12) < 10
    kept, stand_in = thin_patches(xyz, xyz, one_patch, own, torch.tensor([3]))
    # Stretches 0..3, 4..6 and 7..9.
    assert kept.tolist() == [1, 5, 8]
    assert kept[stand_in].tolist() == [1, 1, 1, 1, 5, 5, 5, 8, 8, 8, 8, 8]


def test_the_hash_tells_coordinates_apart() -> None:
    xyz = torch.rand(20000, 3, generator=torch.Generator().manual_seed(8)) - 0.5
    xyz[1], xyz[2], xyz[3] = xyz[0][[1, 0, 2]], xyz[0][[2, 1, 0]], -xyz[0]
    assert len(coordinate_hash(xyz).unique()) == 20000
    zeros = torch.tensor([[0.0, -0.0, 0.0], [-0.0, 0.0, 0.0]])
    first, second = coordinate_hash(zeros).tolist()
    assert first == second
