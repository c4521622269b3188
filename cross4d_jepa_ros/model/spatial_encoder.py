# SPDX-License-Identifier: Apache-2.0
"""A plain pre-norm transformer over one sweep's tokens, windowed along space-filling curves."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cross4d_jepa_ros.model.config import ModelConfig

# Axis order and shift of the curve of each block, in turns. Another axis order changes the walk
# within an octant; only a shift moves the octants, and one whose bits alternate moves their borders
# by a third or two thirds on every scale.
CURVES = (((0, 1, 2), 0), ((1, 0, 2), 0x5555), ((2, 0, 1), 0), ((2, 1, 0), 0x2AAA))


def morton_code(cell: Tensor) -> Tensor:
    """Interleave the low 21 bits of (M, 3) non-negative int64 cells into (M,) codes."""
    spread = cell & 0x1FFFFF  # (M, 3)
    for shift, mask in (
        (32, 0x1F00000000FFFF),
        (16, 0x1F0000FF0000FF),
        (8, 0x100F00F00F00F00F),
        (4, 0x10C30C30C30C30C3),
        (2, 0x1249249249249249),
    ):
        spread = (spread | spread << shift) & mask  # (M, 3)
    x, y, z = spread.unbind(1)  # (M,) each
    return x << 2 | y << 1 | z  # (M,)


@dataclass(frozen=True)
class Curve:
    """One walk through the tokens.

    Attributes:
        order: (M,) token at each position of the walk.
        inverse: (M,) position of each token.

    """

    order: Tensor
    inverse: Tensor


def curve(cell: Tensor, turn: int) -> Curve:
    """Sort (M, 3) distinct cells along the curve of block number `turn`."""
    axes, shift = CURVES[turn % len(CURVES)]
    shifted = cell[:, axes] + shift  # (M, 3)
    order = morton_code(shifted).argsort()  # (M,)
    inverse = torch.empty_like(order)  # (M,)
    inverse[order] = torch.arange(len(order), device=order.device)
    return Curve(order, inverse)


class RotaryPosition(nn.Module):
    """Rotary position embedding in three axes, so that attention sees relative positions in m.

    Channel pairs are dealt to x, y, z in turn; wavelengths run geometrically from 4 voxels to
    4 ranges.
    """

    wave_number: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self._heads = config.heads
        pairs = config.width // config.heads // 2
        per_axis = -(-pairs // 3)
        # On `meta`, where a checkpoint's tensors are described before they are believed, PyTorch
        # would first import, for seconds, what describes the indexing.
        with torch.device('cpu'):
            wavelength = torch.logspace(  # (per_axis,)
                math.log10(4 * config.voxel_m),
                math.log10(4 * config.range_m),
                per_axis,
            )
            axis = torch.arange(pairs) % 3  # (pairs,)
            number = torch.zeros(3, pairs)  # (3, pairs)
            number[axis, torch.arange(pairs)] = (
                2 * torch.pi / wavelength[torch.arange(pairs) // 3]
            )  # (pairs,)
        self.register_buffer('wave_number', number, persistent=False)

    def forward(self, centre: Tensor) -> Tensor:
        """Turn (M, 3) positions in m into (2, M, 2 D) cosines and signed sines.

        They are repeated for the queries and keys of all heads.
        """
        # Half precision would lose the phase of far tokens, also where a training asks for it.
        with torch.autocast(centre.device.type, enabled=False):
            phase = centre @ self.wave_number  # (M, head / 2)
        cosine, sine = phase.cos(), phase.sin()  # (M, head / 2), (M, head / 2)
        head = torch.stack((cosine, cosine, -sine, sine), dim=1)  # (M, 4, head / 2)
        head = head.view(len(centre), 2, -1).transpose(0, 1)  # (2, M, head)
        return head.repeat(1, 1, 2 * self._heads)  # (2, M, 2 D)


def rotate(x: Tensor, swapped: Tensor, rotation: Tensor) -> Tensor:
    """Rotate the channel pairs of each head.

    Args:
        x: (M, n) channels of any number of heads.
        swapped: The same with the halves of each head swapped.
        rotation: (2, M, n) of `RotaryPosition`, repeated for each head.

    """
    return torch.addcmul(x * rotation[0], swapped, rotation[1])  # (M, n)


class Block(nn.Module):
    """Pre-norm attention within windows of one curve, then a perceptron."""

    row: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self._heads = config.heads
        self._window = config.window
        self.norm_attention = nn.LayerNorm(config.width)
        self.query_key_value = nn.Linear(config.width, 3 * config.width)
        # Queries and keys come twice, the halves of each head swapped the second time: that is
        # cheaper than to move their channels.
        channel = torch.arange(3 * config.width, device='cpu')  # (3 D,)
        halves = channel[: 2 * config.width].view(2 * config.heads, 2, -1)  # (2 heads, 2, head / 2)
        row = torch.cat((channel, halves.flip(1).flatten()))  # (5 D,)
        self.register_buffer('row', row, persistent=False)
        self.attention_out = nn.Linear(config.width, config.width)
        self.norm_perceptron = nn.LayerNorm(config.width)
        self.perceptron_in = nn.Linear(config.width, 2 * config.width)
        self.perceptron_out = nn.Linear(2 * config.width, config.width)

    def forward(self, token: Tensor, rotation: Tensor, walk: Curve) -> Tensor:
        """Map (M, D) tokens to (M, D); `rotation` is (2, M, 2 D)."""
        attended = self._attend(self.norm_attention(token), rotation, walk)  # (M, D)
        token = token + self.attention_out(attended)  # (M, D)
        hidden = F.gelu(self.perceptron_in(self.norm_perceptron(token)))  # (M, 2 D)
        output: Tensor = token + self.perceptron_out(hidden)  # (M, D)
        return output

    def _attend(self, token: Tensor, rotation: Tensor, walk: Curve) -> Tensor:
        count, width = token.shape
        weight, bias = self.query_key_value.weight, self.query_key_value.bias  # (3 D, D), (3 D,)
        projected = F.linear(token, weight[self.row], bias[self.row])  # (M, 5 D)
        turned, value, swapped = projected.tensor_split((2 * width, 3 * width), dim=1)
        turned = rotate(turned, swapped, rotation)  # (M, 2 D)
        joined = torch.cat((turned, value), dim=1)  # (M, 3 D)
        if count <= self._window:
            return self._attention(joined, 1)  # (M, D)
        joined = joined.index_select(0, walk.order)  # (M, 3 D)
        # The ragged last window is a call of its own: a padding mask would slow all of them.
        windows = count // self._window
        whole = windows * self._window
        parts = [self._attention(joined[:whole], windows)]  # (whole, D)
        if whole < count:
            parts.append(self._attention(joined[whole:], 1))  # (M - whole, D)
        return torch.cat(parts).index_select(0, walk.inverse)  # (M, D)

    def _attention(self, joined: Tensor, windows: int) -> Tensor:
        """Attend within equal windows of (m, 3 D) queries, keys and values; (m, D)."""
        count = len(joined)
        parts = joined.view(windows, count // windows, 3, self._heads, -1)  # (windows, .., 3, ..)
        query, key, value = parts.transpose(1, 3).unbind(2)  # (windows, heads, window, head) each
        attended = F.scaled_dot_product_attention(query, key, value)  # (windows, heads, ..)
        return attended.transpose(1, 2).reshape(count, -1)  # (m, D)


class SpatialEncoder(nn.Module):
    """The blocks and the final LayerNorm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.position = RotaryPosition(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(config.width)

    def forward(self, token: Tensor, cell: Tensor, centre: Tensor) -> Tensor:
        """Encode one sweep.

        Args:
            token: (M, D) of the tokenizer.
            cell: (M, 3) their distinct voxels, int64.
            centre: (M, 3) their positions, base frame, m.

        Returns:
            (M, D) tokens after the final LayerNorm.

        """
        rotation = self.position(centre).to(token.dtype)  # (2, M, 2 D)
        walks = [curve(cell, turn) for turn in range(min(len(self.blocks), len(CURVES)))]
        for turn, block in enumerate(self.blocks):
            token = block(token, rotation, walks[turn % len(walks)])  # (M, D)
        encoded: Tensor = self.norm(token)  # (M, D)
        return encoded
