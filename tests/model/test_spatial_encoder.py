# SPDX-License-Identifier: Apache-2.0
"""Curves, rotary positions and windowed attention, against plain implementations."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

from cross4d_jepa_ros.model.config import ModelConfig
from cross4d_jepa_ros.model.network import Network
from cross4d_jepa_ros.model.spatial_encoder import (
    Block,
    RotaryPosition,
    curve,
    morton_code,
    rotate,
)


def tokens(count: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    flat = torch.randperm(20**3, generator=draw)[:count]
    cell = torch.stack((flat // 400, flat // 20 % 20, flat % 20), dim=1)
    centre = cell + torch.rand(count, 3, generator=draw)
    return torch.randn(count, 12, generator=draw), cell, centre


def test_morton_code_interleaves_bits() -> None:
    draw = random.Random(0)
    cells = [[draw.randrange(1 << 21) for _ in range(3)] for _ in range(50)]
    cells += [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [(1 << 21) - 1] * 3]
    expected = [
        sum(
            (value >> bit & 1) << (3 * bit + 2 - axis)
            for axis, value in enumerate(cell)
            for bit in range(21)
        )
        for cell in cells
    ]
    assert morton_code(torch.tensor(cells)).tolist() == expected


def test_curves_walk_through_every_token_and_differ() -> None:
    _, cell, _ = tokens(300)
    walks = [curve(cell, turn) for turn in range(4)]
    for walk in walks:
        assert walk.order.sort().values.tolist() == list(range(300))
        assert torch.equal(walk.order[walk.inverse], torch.arange(300))
    assert len({tuple(walk.order.tolist()) for walk in walks}) == 4
    assert torch.equal(curve(cell, 4).order, walks[0].order)


def test_shifted_curves_join_what_an_octant_border_parts() -> None:
    flat = torch.arange(32 * 32)
    cell = torch.stack((flat // 32, flat % 32, torch.zeros_like(flat)), dim=1)
    left, right = 15 * 32 + torch.arange(32), 16 * 32 + torch.arange(32)
    joined = []
    for turn in range(4):
        window = curve(cell, turn).inverse // 64
        joined.append(int((window[left] == window[right]).sum()))
    assert joined[0] == joined[2] == 0
    assert joined[1] > 8
    assert joined[3] > 8


def turned_by(x: Tensor, rotation: Tensor) -> Tensor:
    """Rotate (M, 24) queries and keys of two heads."""
    swapped = x.view(len(x), 4, 2, 3).flip(2).flatten(1)
    return rotate(x, swapped, rotation)


def test_attention_scores_depend_on_relative_positions(config: ModelConfig) -> None:
    position = RotaryPosition(config)
    query, key = torch.randn(2, 1, 24, generator=torch.Generator().manual_seed(0))

    def score(at_query: list[float], at_key: list[float]) -> Tensor:
        turned = [
            turned_by(x, position(torch.tensor([at])))
            for x, at in ((query, at_query), (key, at_key))
        ]
        return (turned[0] * turned[1]).sum()

    here = score([1.0, 2.0, 3.0], [4.0, 0.0, 3.5])
    torch.testing.assert_close(score([-6.0, 7.0, 2.0], [-3.0, 5.0, 2.5]), here)
    for other in ([4.5, 0.0, 3.5], [4.0, 0.5, 3.5], [4.0, 0.0, 4.0]):
        assert abs(score([1.0, 2.0, 3.0], other) - here) > 1e-3
    turned = turned_by(query, position(torch.tensor([[9.0, -3.0, 1.0]])))
    torch.testing.assert_close(turned.norm(dim=-1), query.norm(dim=-1))


def attended_by_hand(
    block: Block, token: Tensor, rotation: Tensor, window_of_token: list[int]
) -> Tensor:
    """Softmax attention, token by token, over the tokens of the same window."""
    projected = block.query_key_value(token)
    turned = turned_by(projected[:, :24], rotation)
    query, key, value = torch.cat((turned, projected[:, 24:]), 1).view(-1, 3, 2, 6).unbind(1)
    rows = []
    for i, window in enumerate(window_of_token):
        mates = [j for j, other in enumerate(window_of_token) if other == window]
        weight = (torch.einsum('hc,jhc->hj', query[i], key[mates]) / 6**0.5).softmax(1)
        rows.append(torch.einsum('hj,jhc->hc', weight, value[mates]).flatten())
    return torch.stack(rows)


@pytest.mark.parametrize('count', [1, 7, 8, 9, 16, 21])
@pytest.mark.parametrize('turn', [0, 1])
def test_windows_attend_within_themselves(network: Network, count: int, turn: int) -> None:
    token, cell, centre = tokens(count)
    block = network.encoder.blocks[turn]
    rotation = network.encoder.position(centre)
    walk = curve(cell, turn)
    window = [0 if count <= 8 else int(place) // 8 for place in walk.inverse]
    hidden = block.norm_attention(token)
    after = token + block.attention_out(attended_by_hand(block, hidden, rotation, window))
    widened = block.perceptron_in(block.norm_perceptron(after))
    expected = after + block.perceptron_out(torch.nn.functional.gelu(widened))
    torch.testing.assert_close(block(token, rotation, walk), expected, atol=1e-5, rtol=1e-5)


def test_permuted_tokens_give_permuted_answers(network: Network) -> None:
    token, cell, centre = tokens(50)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(3))
    straight = network.encoder(token, cell, centre)
    permuted = network.encoder(token[order], cell[order], centre[order])
    torch.testing.assert_close(permuted, straight[order], atol=1e-5, rtol=1e-5)


def test_answers_are_layer_normed(network: Network) -> None:
    encoded = network.encoder(*tokens(50))
    torch.testing.assert_close(encoded.mean(1), torch.zeros(50), atol=1e-5, rtol=0)
    torch.testing.assert_close(encoded.std(1, correction=0), torch.ones(50), atol=1e-3, rtol=0)
