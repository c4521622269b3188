# SPDX-License-Identifier: Apache-2.0
"""A small transformer that says from a context what lies elsewhere; it is not kept."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from offline_training.objectives import settings

# Queries of one sample.
MOST_QUERIES = 512
# An age in s counts as so many m: what 36 km/h covers.
SPEED_M_S = 10.0
AXES = 4
WAVES = 8
KINDS = ('concatenated', 'context_aware', 'cross')


@torch.no_grad()
def initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Draw the weights of all linear layers and of the queries of predictors.

    Args:
        module: On the CPU.
        generator: The same state gives the same weights.

    """
    for part in module.modules():
        if isinstance(part, nn.Linear):
            part.weight.normal_(0, part.in_features**-0.5, generator=generator)
            part.bias.zero_()
        if isinstance(part, LatentPredictor):
            part.query.normal_(0, 0.02, generator=generator)


class FourierPosition(nn.Module):
    """Sines and cosines of x, y, z and time, lifted to a vector.

    Args:
        width: Of that vector.
        shortest: Wavelength, in the unit of the positions.
        longest: Likewise; those between run geometrically.

    """

    wave_number: Tensor

    def __init__(self, width: int, shortest: float, longest: float) -> None:
        super().__init__()
        wavelength = torch.logspace(math.log10(shortest), math.log10(longest), WAVES)  # (W,)
        self.register_buffer('wave_number', 2 * torch.pi / wavelength, persistent=False)
        self.lift = nn.Linear(2 * AXES * WAVES, width)

    def forward(self, position: Tensor) -> Tensor:
        """Embed (n, 4) positions: (n, width)."""
        phase = (position[:, :, None] * self.wave_number).flatten(1)  # (n, 4 W)
        embedded: Tensor = self.lift(torch.cat((phase.sin(), phase.cos()), dim=1))  # (n, width)
        return embedded


class PredictorBlock(nn.Module):
    """Pre-norm self-attention, cross-attention and a perceptron; either attention may lack."""

    def __init__(self, width: int, heads: int, *, looks_around: bool, looks_at_context: bool):
        super().__init__()
        self._heads = heads
        self._looks_around, self._looks_at_context = looks_around, looks_at_context
        if looks_around:
            self.norm_around = nn.LayerNorm(width)
            self.query_key_value = nn.Linear(width, 3 * width)
            self.around_out = nn.Linear(width, width)
        if looks_at_context:
            self.norm_query = nn.LayerNorm(width)
            self.query = nn.Linear(width, width)
            self.key_value = nn.Linear(width, 2 * width)
            self.context_out = nn.Linear(width, width)
        self.norm_perceptron = nn.LayerNorm(width)
        self.perceptron_in = nn.Linear(width, 2 * width)
        self.perceptron_out = nn.Linear(2 * width, width)

    def forward(self, token: Tensor, context: Tensor) -> Tensor:
        """Map (Q, W) tokens to (Q, W) with the (M, W) context before them."""
        if self._looks_around:
            joined = self.query_key_value(self.norm_around(token))  # (Q, 3 W)
            attended = self._attention(*joined.chunk(3, dim=1))  # (Q, W)
            token = token + self.around_out(attended)  # (Q, W)
        if self._looks_at_context:
            key, value = self.key_value(context).chunk(2, dim=1)  # (M, W) each
            query = self.query(self.norm_query(token))  # (Q, W)
            token = token + self.context_out(self._attention(query, key, value))  # (Q, W)
        hidden = F.gelu(self.perceptron_in(self.norm_perceptron(token)))  # (Q, 2 W)
        output: Tensor = token + self.perceptron_out(hidden)  # (Q, W)
        return output

    def _attention(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend from (Q, W) to (M, W): (Q, W)."""
        parts = (
            part.view(len(part), self._heads, -1).transpose(0, 1) for part in (query, key, value)
        )
        query, key, value = (part[None] for part in parts)  # (1, heads, Q or M, head) each
        attended = F.scaled_dot_product_attention(query, key, value)  # (1, heads, Q, head)
        return attended[0].transpose(0, 1).flatten(1)  # (Q, W)


class LatentPredictor(nn.Module):
    """Predicts latents at positions from the latents of a context at others.

    Args:
        sizes: Width, depth, heads.
        context_width: Channels of the context.
        out_width: Channels of what is predicted.
        kind: `context_aware`: queries see each other, and the context in every layer (3D-JEPA,
            arXiv 2409.15803). `concatenated`: queries and context are one sequence. `cross`:
            queries see the context only.
        wavelengths: Shortest and longest by which positions are told apart, in their unit.

    """

    def __init__(
        self,
        sizes: settings.Predictor,
        context_width: int,
        out_width: int,
        kind: str,
        wavelengths: tuple[float, float],
    ) -> None:
        super().__init__()
        self._concatenated = kind == 'concatenated'
        self.query = nn.Parameter(torch.zeros(sizes.width))
        self.position = FourierPosition(sizes.width, *wavelengths)
        self.context_in = nn.Linear(context_width, sizes.width)
        self.norm_context = nn.LayerNorm(sizes.width)
        self.blocks = nn.ModuleList(
            PredictorBlock(
                sizes.width,
                sizes.heads,
                looks_around=kind != 'cross',
                looks_at_context=not self._concatenated,
            )
            for _ in range(sizes.depth)
        )
        self.norm = nn.LayerNorm(sizes.width)
        self.out = nn.Linear(sizes.width, out_width)

    def forward(
        self,
        position: Tensor,
        context: Tensor,
        context_position: Tensor,
        condition: Tensor | None = None,
    ) -> Tensor:
        """Predict.

        Args:
            position: (Q, 4) x, y, z and age of what is asked for.
            context: (M, E), at least one.
            context_position: (M, 4).
            condition: (Q, W) of what else is known of it.

        Returns:
            (Q, out_width).

        """
        token = self.query + self.position(position)  # (Q, W)
        if condition is not None:
            token = token + condition  # (Q, W)
        lifted = self.context_in(context) + self.position(context_position)  # (M, W)
        lifted = self.norm_context(lifted)  # (M, W)
        if self._concatenated:
            token = torch.cat((token, lifted))  # (Q + M, W)
        for block in self.blocks:
            token = block(token, lifted)  # (Q, W) or (Q + M, W)
        predicted: Tensor = self.out(self.norm(token[: len(position)]))  # (Q, out)
        return predicted


def at_age(position: Tensor, age_s: float) -> Tensor:
    """Give (n, 3) positions, m, an age: (n, 4) float32 for a predictor."""
    return F.pad(position.float(), (0, 1), value=SPEED_M_S * age_s)  # (n, 4)


def some(count: int, most: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """Draw at most `most` of `count` rows, ascending: (n,) int64."""
    if count <= most:
        return torch.arange(count, device=device)  # (n,)
    chosen = torch.randperm(count, generator=generator)[:most]  # (n,)
    return chosen.sort().values.to(device)  # (n,)
