# SPDX-License-Identifier: Apache-2.0
"""Patches around spread centres, against loops over single points."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from cross4d_jepa_ros.model.config import ModelConfig, load_model_config
from cross4d_jepa_ros.model.farthest_points import farthest_points, nearest_points
from cross4d_jepa_ros.model.network import Network
from cross4d_jepa_ros.model.tokenizer import Patches, PatchTokenizer, input_features

OBJECTS = Path(__file__).parents[2] / 'config' / 'models' / 'objects.yaml'


@pytest.fixture
def config(config: ModelConfig) -> ModelConfig:
    """16 centres of 8 points each."""
    return replace(config, tokenizer='fps_knn', max_tokens=16, patch_points=8, range_m=10.0)


def lattice() -> Tensor:
    """Points of which many are equally far from each other."""
    axis = torch.arange(-2.0, 3.0)
    return torch.cartesian_prod(axis, axis, axis)


def farthest_by_hand(xyz: Tensor, count: int) -> list[int]:
    points = xyz.double()
    chosen = [int((points - points.mean(0)).norm(dim=1).argmax())]
    while len(chosen) < count:
        gaps = [min(float((point - points[other]).norm()) for other in chosen) for point in points]
        chosen.append(max(range(len(gaps)), key=gaps.__getitem__))
    return chosen


@pytest.mark.parametrize('count', [1, 2, 20])
def test_centres_are_those_of_a_loop(xyz: Tensor, count: int) -> None:
    assert farthest_points(xyz[:200], count).tolist() == farthest_by_hand(xyz[:200], count)


def test_centres_run_out_with_the_distinct_points(xyz: Tensor) -> None:
    repeated = xyz[:7].repeat(3, 1)
    rows = farthest_points(repeated, 16)
    assert sorted((rows % 7).tolist()) == list(range(7))


@pytest.mark.parametrize('count', [1, 8, 100])
def test_neighbours_are_those_of_a_loop(xyz: Tensor, count: int) -> None:
    points, centre = xyz[:100], xyz[40:50]
    near, nearest = nearest_points(centre, points, count)
    for row, middle in enumerate(centre):
        gaps = (points.double() - middle.double()).norm(dim=1)
        assert set(near[row].tolist()) == set(gaps.argsort()[:count].tolist())
    for row, point in enumerate(points.double()):
        assert nearest[row] == (centre.double() - point).norm(dim=1).argmin()


def test_each_point_belongs_to_its_nearest_centre(config: ModelConfig, xyz: Tensor) -> None:
    patches = PatchTokenizer(config).group(xyz)
    assert patches.kept is patches.stand_in is None
    assert patches.point.tolist() == list(range(500))
    assert torch.equal(patches.xyz, xyz)
    gaps = (patches.anchor[:, None] - xyz.double()).norm(dim=2)
    assert torch.equal(patches.patch_of_point, gaps.argmin(0))
    assert torch.equal(patches.patch_of_kept, patches.patch_of_point)
    # A token is made of the nearest points, even of those that belong to another.
    assert patches.member is not None
    assert patches.patch_of_member is not None
    members = patches.member.view(16, 8)
    assert patches.patch_of_member.tolist() == [i for i in range(16) for _ in range(8)]
    for row in range(16):
        assert set(members[row].tolist()) == set(gaps[row].argsort()[:8].tolist())
        torch.testing.assert_close(patches.centre[row], xyz[members[row]].mean(0))
    cells = [tuple(cell) for cell in patches.cell.tolist()]
    assert cells == sorted(cells)
    assert min(map(min, cells)) >= 0


def answers(network: Network, patches: Patches, rgb: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    token, point = network.tokenizer(patches, None, rgb)
    return patches.anchor, token, point


@pytest.mark.parametrize('max_points', [60, 10000])
@pytest.mark.parametrize('tied', [False, True])
def test_permuted_points_give_the_same_tokens(
    config: ModelConfig, xyz: Tensor, tied: bool, max_points: int
) -> None:
    network = Network(replace(config, max_points=max_points), 0)
    network.initialise(torch.Generator().manual_seed(1))
    points = lattice() if tied else xyz
    draw = torch.Generator().manual_seed(9)
    rgb = torch.rand(len(points), 4, generator=draw)

    def answer(order: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        patches = network.tokenizer.group(points[order])
        token, point = network.tokenizer(patches, None, rgb[order[patches.kept_point]])
        return patches.anchor, token, patches.spread(point)[order.argsort()]

    first = answer(torch.arange(len(points)))
    for _ in range(3):
        second = answer(torch.randperm(len(points), generator=draw))
        torch.testing.assert_close(second, first, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('points', [0, 1, 2, 7, 8, 15, 16, 17])
def test_few_points_give_fewer_and_smaller_patches(
    config: ModelConfig, xyz: Tensor, points: int
) -> None:
    network = Network(config, 3)
    network.initialise(torch.Generator().manual_seed(1))
    patches = network.tokenizer.group(xyz[:points])
    token, point = network.tokenizer(patches, None, torch.zeros(points, 4))
    assert token.shape == (min(points, 16), 12)
    assert point.shape == (points, 6)
    assert token.isfinite().all()
    assert patches.member is not None
    assert len(patches.member) == min(points, 16) * min(points, 8)


@pytest.mark.parametrize('bad', [math.nan, math.inf, 10.01])
def test_points_that_cannot_be_seen_influence_nothing(
    config: ModelConfig, xyz: Tensor, bad: float
) -> None:
    network = Network(config, 0)
    network.initialise(torch.Generator().manual_seed(1))
    unseen = torch.zeros(40, 3)
    unseen[:, 1] = bad
    clean = network.tokenizer.group(xyz)
    dirty = network.tokenizer.group(torch.cat((xyz[:100], unseen, xyz[100:])))
    rgb = torch.zeros(500, 4)
    assert dirty.point.tolist() == [*range(100), *range(140, 540)]
    for expected, found in zip(
        answers(network, clean, rgb), answers(network, dirty, rgb), strict=True
    ):
        assert torch.equal(found, expected)


def test_more_points_than_the_cap_are_thinned_first(config: ModelConfig, xyz: Tensor) -> None:
    patches = PatchTokenizer(replace(config, max_points=90)).group(xyz)
    assert patches.kept is not None
    assert patches.stand_in is not None
    assert len(patches.xyz) == 90
    assert (patches.capped_points, patches.capped_tokens) == (410, 0)
    assert len(patches.cell) == 16
    assert torch.equal(patches.xyz, xyz[patches.kept])
    assert torch.equal(patches.patch_of_kept[patches.stand_in], patches.patch_of_point)


def test_a_token_is_the_pointnet_of_its_members(config: ModelConfig, xyz: Tensor) -> None:
    network = Network(config, 0)
    network.initialise(torch.Generator().manual_seed(1))
    tokenizer = network.tokenizer
    patches = tokenizer.group(xyz)
    draw = torch.Generator().manual_seed(10)
    intensity, rgb = torch.rand(500, generator=draw), torch.rand(500, 4, generator=draw)
    token, point = tokenizer(patches, intensity, rgb)
    assert patches.member is not None
    for row, rows in enumerate(patches.member.view(16, 8)):
        offsets = (xyz[rows] - patches.centre[row], xyz[rows] - patches.anchor[row].float())
        others = (
            xyz[rows, 2:] / 3,
            xyz[rows].norm(dim=1, keepdim=True) / 10,
            intensity[rows, None],
        )
        features = torch.cat((*offsets, *others, torch.ones(8, 1), rgb[rows]), 1)
        embedded = tokenizer.point_out(tokenizer.point_in(features).clamp_min(0))
        lifted = tokenizer.lift(F.layer_norm(embedded.max(0).values, (6,)))
        torch.testing.assert_close(token[row], lifted, atol=1e-4, rtol=1e-4)
        # A point's own features are those of the patch that it belongs to.
        own = patches.patch_of_kept[rows] == row
        torch.testing.assert_close(point[rows[own]], embedded[own], atol=1e-4, rtol=1e-4)


def test_every_weight_gets_a_gradient(config: ModelConfig, xyz: Tensor) -> None:
    network = Network(config, 0)
    network.initialise(torch.Generator().manual_seed(1))
    patches = network.tokenizer.group(xyz)
    token, point = network.tokenizer(patches, torch.rand(500), torch.rand(500, 4))
    embedding = network.decode(network.encode(token, patches), point, patches)
    assert embedding.shape == (500, 6)
    embedding.square().sum().backward()
    assert all(weight.grad.abs().sum() > 0 for weight in network.tokenizer.parameters())


def test_the_preset_is_the_described_one() -> None:
    config = load_model_config(OBJECTS)
    assert (config.max_tokens, config.patch_points) == (64, 32)
    assert (config.width, config.blocks, config.heads) == (384, 12, 6)
    assert 'offset_to_centre_point' in [feature.name for feature in input_features(config)]
    tokenizer = PatchTokenizer(config)
    xyz = torch.rand(1024, 3, generator=torch.Generator().manual_seed(11)) * 2 - 1
    patches = tokenizer.group(xyz)
    rgb = torch.zeros(1024, 4) if config.colour else None
    assert tokenizer(patches, None, rgb)[0].shape == (64, 384)
    assert patches.member is not None
    assert len(patches.member) == 64 * 32
