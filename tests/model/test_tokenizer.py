# SPDX-License-Identifier: Apache-2.0
"""The voxel grid and the PointNet, against loops over single points."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from cross4d_jepa_ros.model.config import ModelConfig
from cross4d_jepa_ros.model.network import Network
from cross4d_jepa_ros.model.tokenizer import Patches, VoxelGrid, input_features


def grouped_by_hand(xyz: Tensor, voxel_m: float) -> dict[tuple[int, ...], list[int]]:
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for i, point in enumerate(xyz.tolist()):
        groups[tuple(math.floor(value / voxel_m) for value in point)].append(i)
    return dict(sorted(groups.items()))


def signed_cells(grid: VoxelGrid, patches: Patches) -> list[tuple[int, ...]]:
    return [tuple(cell) for cell in (patches.cell - grid.origin_cell).tolist()]


@pytest.mark.parametrize('voxel_m', [0.5, 1.0, 2.7])
def test_groups_are_those_of_a_loop(config: ModelConfig, xyz: Tensor, voxel_m: float) -> None:
    grid = VoxelGrid(replace(config, voxel_m=voxel_m))
    patches = grid.group(xyz)
    expected = grouped_by_hand(xyz, voxel_m)
    assert signed_cells(grid, patches) == list(expected)
    assert patches.point.tolist() == list(range(500))
    assert torch.equal(patches.xyz, xyz)
    assert patches.kept is patches.stand_in is None
    assert patches.capped_points == patches.capped_tokens == 0
    for patch, members in enumerate(expected.values()):
        assert (patches.patch_of_point == patch).nonzero().squeeze(1).tolist() == members
        assert patches.centre[patch].tolist() == pytest.approx(xyz[members].mean(0).tolist())


def test_voxel_borders_belong_to_the_voxel_above(config: ModelConfig) -> None:
    grid = VoxelGrid(config)
    patches = grid.group(torch.tensor([[-1.0, -0.5, 0.0], [1.0, 0.999, -1e-3], [20.0, 0, 0]]))
    assert signed_cells(grid, patches) == [(-1, -1, 0), (1, 0, -1), (20, 0, 0)]
    assert patches.anchor.dtype == torch.float64
    assert patches.anchor.tolist() == [
        [-0.5, -0.5, 0.5],
        [1.5, 0.5, -0.5],
        [20.5, 0.5, 0.5],
    ]


@pytest.mark.parametrize(
    'bad',
    [
        (math.nan, 0, 0),
        (0, math.inf, 0),
        (0, 0, -math.inf),
        (20.01, 0, 0),
        (12, 12, 12),
        (3e38, 3e38, 0),
        (math.inf, -math.inf, 1),
    ],
)
def test_points_that_cannot_be_seen_influence_nothing(
    network: Network, xyz: Tensor, bad: tuple[float, ...]
) -> None:
    tokenizer = network.tokenizer
    where = torch.tensor([0, 7, 300, 500])
    mixed = torch.empty(504, 3)
    good = torch.ones(504, dtype=torch.bool)
    good[where] = False
    mixed[good], mixed[where] = xyz, torch.tensor(bad, dtype=torch.float32)
    clean, dirty = tokenizer.group(xyz), tokenizer.group(mixed)
    assert dirty.point.tolist() == good.nonzero().squeeze(1).tolist()
    rgb = torch.zeros(500, 4)
    for expected, found in zip(
        tokenizer(clean, None, rgb), tokenizer(dirty, None, rgb), strict=True
    ):
        assert torch.equal(expected, found)


def test_permuted_points_give_the_same_tokens(network: Network, xyz: Tensor) -> None:
    tokenizer = network.tokenizer
    draw = torch.Generator().manual_seed(5)
    order = torch.randperm(500, generator=draw)
    intensity, rgb = torch.rand(500, generator=draw), torch.rand(500, 4, generator=draw)
    first = tokenizer.group(xyz)
    second = tokenizer.group(xyz[order])
    assert torch.equal(first.cell, second.cell)
    assert torch.equal(first.anchor, second.anchor)
    assert torch.equal(first.patch_of_point[order], second.patch_of_point)
    token, point = tokenizer(first, intensity, rgb)
    permuted_token, permuted_point = tokenizer(second, intensity[order], rgb[order])
    torch.testing.assert_close(permuted_token, token, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(permuted_point, point[order], atol=1e-5, rtol=1e-5)


def test_no_points_give_no_tokens(network: Network) -> None:
    patches = network.tokenizer.group(torch.zeros(0, 3))
    token, point = network.tokenizer(patches, None, torch.zeros(0, 4))
    assert (token.shape, point.shape) == ((0, 12), (0, 6))


def test_features_of_two_points(network: Network) -> None:
    tokenizer = network.tokenizer
    patches = tokenizer.group(torch.tensor([[3.2, 4.0, 0.0], [3.4, 4.0, 0.6]]))
    rgb = torch.tensor([[0.1, 0.2, 0.3, 1.0], [0.0, 0.0, 0.0, 0.0]])
    found = tokenizer.features(patches, torch.tensor([0.5, 0.75]), rgb)
    ranges = [math.hypot(3.2, 4.0) / 20, math.hypot(3.4, 4.0, 0.6) / 20]
    expected = [
        [-0.1, 0.0, -0.3, -0.3, -0.5, -0.5, 0.0, ranges[0], 0.5, 1, 0.1, 0.2, 0.3, 1],
        [0.1, 0.0, 0.3, -0.1, -0.5, 0.1, 0.2, ranges[1], 0.75, 1, 0, 0, 0, 0],
    ]
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-6, rtol=0)
    without = tokenizer.features(patches, None, rgb)
    assert without[:, 8:10].tolist() == [[0, 0], [0, 0]]


def test_no_colour_at_all_is_what_unseen_points_have(
    network: Network, xyz: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = network.tokenizer
    patches = tokenizer.group(xyz)
    unseen = tokenizer.features(patches, None, torch.zeros(500, 4))
    # Memory as it is found, at its worst.
    monkeypatch.setattr(Tensor, 'new_empty', lambda like, *size: like.new_full(size, math.nan))
    assert torch.equal(tokenizer.features(patches, None, None), unseen)


def test_a_network_without_colour_has_no_channels_for_it(config: ModelConfig) -> None:
    blind = replace(config, colour=False)
    assert sum(feature.channels for feature in input_features(config)) == 14
    assert sum(feature.channels for feature in input_features(blind)) == 10
    tokenizer = Network(blind, 0).tokenizer
    patches = tokenizer.group(torch.ones(3, 3))
    assert tokenizer.features(patches, None, None).shape == (3, 10)


def test_a_token_is_the_pointnet_of_its_own_points(network: Network, xyz: Tensor) -> None:
    tokenizer = network.tokenizer
    patches = tokenizer.group(xyz)
    rgb = torch.zeros(500, 4)
    token, point = tokenizer(patches, None, rgb)
    features = tokenizer.features(patches, None, rgb)
    hidden = (features @ tokenizer.point_in.weight.T + tokenizer.point_in.bias).clamp_min(0)
    by_hand = hidden @ tokenizer.point_out.weight.T + tokenizer.point_out.bias
    torch.testing.assert_close(point, by_hand, atol=1e-5, rtol=1e-5)
    for patch in range(len(patches.cell)):
        pooled = by_hand[patches.patch_of_point == patch].max(0).values
        lifted = tokenizer.lift(F.layer_norm(pooled, (6,)))
        torch.testing.assert_close(token[patch], lifted, atol=1e-4, rtol=1e-4)
