# SPDX-License-Identifier: Apache-2.0
"""What earlier sweeps leave behind, and how the newest sweep reads it.

A sweep is remembered by what it alone determines: projections of its spatial tokens and a few
latents that stand for all of it. No layer reads another sweep's temporal output, so an answer
depends on exactly T sweeps, whether they come one by one or all at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from cross4d_jepa_ros.model.config import ModelConfig
from cross4d_jepa_ros.model.neighbours import NeighbourLookup

# Offset and velocity to a remembered token, its age, its squared distance.
RELATION_CHANNELS = 8
SPEED_SCALE = 10.0


@dataclass(frozen=True)
class Remembered:
    """One sweep in the memory; M tokens and P latents.

    Attributes:
        stamp_ns: When.
        fixed_from_base: (4, 4) float64 pose; None without ego-motion, then only the latents are
            read.
        place: (4, 2, M) float64 m, homogeneous, base frame of this sweep: where neighbours are
            looked for (depends on the occupied voxels only), and the means of each patch's points.
        key_value: Per temporal block (2, M, H), its keys and values.
        latent_key_value: Per temporal block (2, P, H).

    """

    stamp_ns: int
    fixed_from_base: NDArray[np.float64] | None
    place: Tensor
    key_value: tuple[Tensor, ...]
    latent_key_value: tuple[Tensor, ...]


@dataclass(frozen=True)
class Neighbours:
    """What each of M tokens reads of N remembered ones.

    Attributes:
        index: (M, k) int64 into the N.
        found: (M, k); False where there were fewer within the radius.
        relation: (M, k, R) offset, velocity, age and squared distance, scaled to about 1.

    """

    index: Tensor
    found: Tensor
    relation: Tensor


def relative_pose(target: NDArray[np.float64], source: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return target_from_source of two poses in one fixed frame, however far its origin is."""
    relative = np.eye(4)
    relative[:3, :3] = target[:3, :3].T @ source[:3, :3]
    # The difference first: it is exact where the product of a large translation is not.
    relative[:3, 3] = target[:3, :3].T @ (source[:3, 3] - target[:3, 3])
    return relative


class LatentPooling(nn.Module):
    """Pools the tokens of a sweep into a few latents, each with an attention of its own."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.score = nn.Linear(config.width, config.latents)
        self.value = nn.Linear(config.width, config.width)

    def forward(self, token: Tensor) -> Tensor:
        """Pool (M, D) tokens to (P, D) latents; zero where there are none."""
        if not len(token):
            return token.new_zeros(self.score.out_features, token.shape[1])  # (P, D)
        weight = self.score(token).T.softmax(dim=1)  # (P, M)
        latent: Tensor = self.value(weight @ token)  # (P, D)
        return latent


class TemporalBlock(nn.Module):
    """One softmax over the neighbours, the latents of all remembered sweeps, and nothing at all.

    All heads read the same keys and values (multi-query attention, arXiv 1911.02150), of half the
    width: what is gathered for each neighbour sets the price of the memory. A neighbour's relation
    enters linearly, in the score and in what is read: what a token needs to see motion costs
    RELATION_CHANNELS per neighbour and no rotation of what is remembered.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, heads, read = config.width, config.heads, config.width // 2
        self._heads, self._read_width = heads, read
        self.norm_attention = nn.LayerNorm(width)
        # Per head: a query, a leaning to relations, one to age, and the pull of reading nothing.
        self.query = nn.Linear(width, heads * (read + RELATION_CHANNELS + 2))
        self.key_value = nn.Linear(width, 2 * read)
        self.latent_key_value = nn.Linear(width, 2 * read)
        self.attention_out = nn.Linear(heads * (read + RELATION_CHANNELS + 1), width)
        self.norm_perceptron = nn.LayerNorm(width)
        self.perceptron_in = nn.Linear(width, 2 * width)
        self.perceptron_out = nn.Linear(2 * width, width)

    def forward(
        self,
        token: Tensor,
        neighbours: Neighbours | None,
        key_value: Tensor,
        latent_key_value: Tensor,
        latent_age: Tensor,
    ) -> Tensor:
        """Read the memory.

        Args:
            token: (M, D) of the newest sweep.
            neighbours: Of each token among the N remembered; None where N is 0.
            key_value: (2, N, H) of the remembered tokens.
            latent_key_value: (2, L, H) of the remembered latents.
            latent_age: (L,) s.

        Returns:
            (M, D).

        """
        read = self._read(token, neighbours, key_value, latent_key_value, latent_age)  # (M, D')
        token = token + self.attention_out(read)  # (M, D)
        hidden = F.gelu(self.perceptron_in(self.norm_perceptron(token)))  # (M, 2 D)
        output: Tensor = token + self.perceptron_out(hidden)  # (M, D)
        return output

    def _read(
        self,
        token: Tensor,
        neighbours: Neighbours | None,
        key_value: Tensor,
        latent_key_value: Tensor,
        latent_age: Tensor,
    ) -> Tensor:
        count, heads, read = len(token), self._heads, self._read_width
        asked = self.query(self.norm_attention(token)).view(
            count, heads, -1
        )  # (M, heads, H + R + 2)
        query, leaning, _, nothing = asked.split_with_sizes(
            (read, RELATION_CHANNELS, 1, 1), dim=2
        )  # (M, heads, H), (M, heads, R), (M, heads, 1), (M, heads, 1)
        latent_key, latent_value = latent_key_value  # (L, H) each
        # A latent has no relation but its age, which stands where all that is asked has its own.
        offered = latent_key.new_zeros(len(latent_key), asked.shape[2])  # (L, H + R + 2)
        offered[:, :read] = latent_key * read**-0.5
        offered[:, read + RELATION_CHANNELS] = latent_age
        scores = [nothing, asked @ offered.T]  # (M, heads, 1), (M, heads, L)
        value = relation = None
        if neighbours is not None:
            index, relation = neighbours.index.flatten(), neighbours.relation  # (M k,), (M, k, R)
            key, value = (  # (M, k, H) each
                part.index_select(0, index).view(count, -1, read) for part in key_value
            )
            near = torch.baddbmm(  # (M, heads, k)
                leaning @ relation.mT, query, key.mT, alpha=read**-0.5
            )
            scores.append(near.masked_fill_(~neighbours.found[:, None], -torch.inf))
        score = torch.cat(scores, dim=2)  # (M, heads, 1 + L + k)
        weight = score.softmax(dim=2, dtype=torch.float32).to(score.dtype)  # (M, heads, 1 + L + k)
        unread, of_latents, of_neighbours = weight.tensor_split(  # (M, heads, 1), ...
            (1, 1 + len(latent_age)), dim=2
        )
        what = of_latents @ latent_value  # (M, heads, H)
        where = torch.zeros_like(leaning)  # (M, heads, R)
        if value is not None and relation is not None:
            of_neighbours = of_neighbours.contiguous()  # (M, heads, k): odd strides are slow
            what = torch.baddbmm(what, of_neighbours, value)  # (M, heads, H)
            where = of_neighbours @ relation  # (M, heads, R)
        return torch.cat((what, where, unread), dim=2).flatten(1)  # (M, D')


class TemporalEncoder(nn.Module):
    """Turns sweeps into what is remembered of them, and reads it for the newest."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self._radius_m = config.neighbour_radius_m
        self.lookup = NeighbourLookup(config)
        self.pooling = LatentPooling(config)
        self.blocks = nn.ModuleList(TemporalBlock(config) for _ in range(config.temporal_blocks))
        self.norm = nn.LayerNorm(config.width)

    @torch.no_grad()
    def start_as_identity(self) -> None:
        """Set to 0 what the blocks add, so that training starts from what one sweep says."""
        for block in self._each():
            for linear in (block.attention_out, block.perceptron_out):
                linear.weight.zero_()
                linear.bias.zero_()

    def _each(self) -> list[TemporalBlock]:
        return [block for block in self.blocks if isinstance(block, TemporalBlock)]

    def remember(
        self,
        token: Tensor,
        anchor: Tensor,
        centre: Tensor,
        stamp_ns: int,
        fixed_from_base: NDArray[np.float64] | None,
    ) -> Remembered:
        """Keep what the newer sweeps will need.

        Args:
            token: (M, D) of the spatial encoder.
            anchor: (M, 3) m, where neighbours are looked for; exact, whatever the points' order.
            centre: (M, 3) m, mean of each patch's points.
            stamp_ns: Of the sweep.
            fixed_from_base: (4, 4) float64 pose, or None.

        """
        latent = self.pooling(token)  # (P, D)
        return Remembered(
            stamp_ns=stamp_ns,
            fixed_from_base=fixed_from_base,
            place=_homogeneous(anchor, centre),  # (4, 2, M)
            key_value=tuple(_halves(block.key_value(token)) for block in self._each()),
            latent_key_value=tuple(
                _halves(block.latent_key_value(latent)) for block in self._each()
            ),
        )

    def forward(self, token: Tensor, newest: Remembered, memory: Sequence[Remembered]) -> Tensor:
        """Let the newest sweep read the earlier ones.

        Args:
            token: (M, D) of its spatial encoder.
            newest: The same sweep, for its positions, time and pose.
            memory: Earlier sweeps, newest first.

        Returns:
            (M, D).

        """
        if not len(token):
            return token
        posed = [sweep for sweep in memory if sweep.fixed_from_base is not None]
        if newest.fixed_from_base is None:
            posed = []
        neighbours = None
        if sum(sweep.place.shape[2] for sweep in posed):
            neighbours = self._neighbours(newest, posed, token.dtype)
        ages = [  # (P,) each
            token.new_full((sweep.latent_key_value[0].shape[1],), _age_s(newest, sweep))
            for sweep in memory
        ]
        latent_age = torch.cat([token.new_zeros(0), *ages])  # (L,)
        for number, block in enumerate(self._each()):
            none = newest.key_value[number][:, :0]  # (2, 0, H)
            key_value = [none, *(sweep.key_value[number] for sweep in posed)]  # (2, m, H) each
            latent = [none, *(sweep.latent_key_value[number] for sweep in memory)]  # (2, P, H) each
            token = block(  # (M, D)
                token,
                neighbours,
                torch.cat(key_value, dim=1),  # (2, N, H)
                torch.cat(latent, dim=1),  # (2, L, H)
                latent_age,
            )
        encoded: Tensor = self.norm(token)  # (M, D)
        return encoded

    def _neighbours(
        self, newest: Remembered, posed: Sequence[Remembered], dtype: torch.dtype
    ) -> Neighbours:
        moved = []
        for sweep in posed:
            assert newest.fixed_from_base is not None
            assert sweep.fixed_from_base is not None
            motion = relative_pose(newest.fixed_from_base, sweep.fixed_from_base)
            motion[3, 3] = _age_s(newest, sweep)  # the fourth coordinate becomes the age
            newest_from_then = torch.from_numpy(motion).to(sweep.place.device, non_blocking=True)
            moved.append((newest_from_then @ sweep.place.flatten(1)).view(sweep.place.shape))
        there = torch.cat(moved, dim=2)  # (4, 2, N)
        here = newest.place[:3]  # (3, 2, M)
        index, found = self.lookup(here[:, 0], there[:3, 0])  # (M, k), (M, k)
        # Row by row, as a gather of neighbouring numbers is slow.
        *chosen, age = (  # (M, k) each
            row.index_select(0, index.flatten()).view_as(index) for row in there[:, 1].float()
        )
        relation = age.new_empty(RELATION_CHANNELS, *index.shape)  # (R, M, k)
        for axis, (then, now) in enumerate(zip(chosen, here[:, 1].float(), strict=True)):
            offset = then - now[:, None]  # (M, k)
            relation[axis] = offset / self._radius_m
            relation[3 + axis] = offset / (age * SPEED_SCALE)
        relation[6] = age
        relation[7] = relation[0].square() + relation[1].square() + relation[2].square()
        return Neighbours(index, found, relation.to(dtype).permute(1, 2, 0).contiguous())


def _halves(projected: Tensor) -> Tensor:
    """Part (n, 2 H) keys and values into (2, n, H)."""
    return torch.stack(projected.tensor_split(2, dim=1))  # (2, n, H)


def _homogeneous(*positions: Tensor) -> Tensor:
    """Stack n times (M, 3) m into (4, n, M) float64 with ones at the end."""
    stacked = torch.stack([position.double().T for position in positions], dim=1)  # (3, n, M)
    return torch.cat((stacked, torch.ones_like(stacked[:1])))  # (4, n, M)


def _age_s(newest: Remembered, sweep: Remembered) -> float:
    return (newest.stamp_ns - sweep.stamp_ns) / 1e9
