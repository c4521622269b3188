# SPDX-License-Identifier: Apache-2.0
"""Classes without any label: clusters of point embeddings, as an ordinary linear head.

Clusters are found by k-means in the whitened space, where distances mean something. The nearest
of some centres is a linear question, |w - c|^2 = |w|^2 - 2 (w . c - |c|^2 / 2), and whitening is
linear, so that the node needs nothing new.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cross4d_jepa_ros.model.config import BadConfig
from cross4d_jepa_ros.model.heads import EmbeddingNormalisation, SegmentationHead
from cross4d_jepa_ros.model.prototypes import taught_colour
from cross4d_jepa_ros.reading import BadYaml, read_yaml
from cross4d_jepa_ros.sensing.poses import invert, transform_points
from offline_training.naming.answers import AnsweredSweep, Answers

# Sweeps that clusters are found in, and points of these.
SWEEPS, POINTS = 48, 65536
RESTARTS, ROUNDS = 4, 100
# Pairs of sweeps that stability is judged on.
PAIRS = 8
# A point of the next sweep is the same one if it lies in the same cell of this size, m.
SAME_M = 0.1
MOST_CLUSTERS = 64


@dataclass(frozen=True)
class Clusters:
    """What k-means found.

    Attributes:
        centres: (K, C) float64 in the whitened space, the largest cluster first.
        share: (K,) of the points, descending.
        spread: Mean squared distance of a point from its centre, in each of the C directions.

    """

    centres: Tensor
    share: Tensor
    spread: float


def spread_points(
    answers: Answers, seed: int, on_sweep: Callable[[], None] = lambda: None
) -> Tensor:
    """Collect embeddings from all over some recordings, one of each patch: (N, C), N <= POINTS.

    A place counts the same near and far, however many points fell on it.
    """
    generator = torch.Generator().manual_seed(seed)
    found = []
    for place in answers.spread(SWEEPS):
        sweep = answers.answer(place)
        order = torch.randperm(len(sweep.embedding), generator=generator)  # (L,)
        patch = sweep.patches.patch_of_kept[order].numpy()  # (L,)
        first = torch.from_numpy(np.unique(patch, return_index=True)[1])  # (M,)
        found.append(sweep.embedding[order[first]])
        on_sweep()
    points = torch.cat(found)  # (n, C)
    return points[torch.randperm(len(points), generator=generator)[:POINTS]]


def k_means(points: Tensor, count: int, seed: int) -> Clusters:
    """Find clusters; the same points and seed give the same bytes.

    Args:
        points: (N, C) whitened.
        count: Clusters (K).
        seed: Of where the centres begin (k-means++; Arthur, Vassilvitskii 2007).

    Raises:
        BadConfig: There are fewer than `count` different points.

    """
    points = points.double()  # (N, C)
    generator = torch.Generator().manual_seed(seed)
    best: tuple[float, Tensor, Tensor] | None = None
    for _ in range(RESTARTS):
        centres = _begin(points, count, generator)  # (K, C)
        member, cost = _assigned(points, centres)
        for _ in range(ROUNDS):
            centres = _means(points, member, centres)  # (K, C)
            before, (member, cost) = member, _assigned(points, centres)
            if torch.equal(member, before):
                break
        if best is None or cost < best[0]:
            best = cost, centres, member
    assert best is not None
    cost, centres, member = best
    size = torch.bincount(member, minlength=count)  # (K,)
    order = size.argsort(descending=True, stable=True)  # (K,)
    return Clusters(centres[order], size[order] / len(points), cost / points.shape[1])


@torch.no_grad()
def fill(head: SegmentationHead, normalisation: EmbeddingNormalisation, clusters: Clusters) -> None:
    """Give a linear head on raw embeddings the clusters of the whitened space.

    Its probabilities are those of equally likely, equally round clusters.
    """
    matrix = normalisation.matrix.double()  # (C, C)
    centres = clusters.centres / clusters.spread  # (K, C)
    weight = centres @ matrix.T  # (K, C)
    own = (clusters.centres * centres).sum(1) / 2  # (K,)
    head.weight.copy_(weight)
    head.bias.copy_(-weight @ normalisation.mean.double() - own)


@torch.inference_mode()
def steadiness(
    answers: Answers, classify: Callable[[Tensor], Tensor], on_pair: Callable[[], None]
) -> tuple[float | None, int]:
    """Share of points that keep their class from a sweep to the next, ego-motion undone.

    Things that move are not left out: nothing says which they are.

    Args:
        answers: Of the network.
        classify: From (L, C) embeddings to (L,) classes.
        on_pair: Called after each pair of sweeps.

    Returns:
        The share, None where no sweep has a pose, and the points compared.

    """
    same = total = 0
    for place in answers.spread(PAIRS):
        following = answers.after(place)
        on_pair()
        if following is None:
            continue
        first, second = answers.answer(place), answers.answer(following)
        if first.row.fixed_from_base is None or second.row.fixed_from_base is None:
            continue
        first_from_second = invert(first.row.fixed_from_base) @ second.row.fixed_from_base
        one, two = _same_places(_seen(first), transform_points(first_from_second, _seen(second)))
        before = classify(first.embedding[torch.from_numpy(one)])  # (n,)
        after = classify(second.embedding[torch.from_numpy(two)])  # (n,)
        same += int((before == after).sum())
        total += len(before)
    return (same / total if total else None), total


def read_names(path: Path, count: int) -> dict[int, str]:
    """Read names of clusters from YAML: number to name; several may share one.

    Raises:
        BadConfig: It is not YAML, or a number is no cluster; names the file.
        OSError: It cannot be read.

    """
    try:
        mapping: Any = read_yaml(path)
    except BadYaml as error:
        msg = f'{path}: {error}'
        raise BadConfig(msg) from error
    if not isinstance(mapping, dict) or not mapping:
        msg = f'{path}: expected lines such as "0: road"'
        raise BadConfig(msg)
    for number, name in mapping.items():
        if type(number) is not int or not 0 <= number < count:
            msg = f'{path}: {number!r} is no cluster: give 0 to {count - 1}'
            raise BadConfig(msg)
        if type(name) is not str or not name:
            msg = f'{path}: {number} is {name!r}: give a name, in quotes where YAML reads it else'
            raise BadConfig(msg)
    return mapping


def class_names(count: int, names: dict[int, str]) -> tuple[tuple[str, ...], list[int]]:
    """Name clusters, and say which class each of them is.

    Returns:
        Names of the classes in the order of their largest clusters, and the class of each cluster.

    """
    called = [names.get(number, f'cluster_{number:02d}') for number in range(count)]
    classes = tuple(dict.fromkeys(called))
    return classes, [classes.index(name) for name in called]


def palette(count: int) -> tuple[tuple[int, int, int], ...]:
    """Give the classes colours, always the same."""
    return tuple(taught_colour(number) for number in range(count))


def _begin(points: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw centres: each next point with its squared distance from those before as its weight."""
    first = int(torch.randint(len(points), (1,), generator=generator))
    centres = [points[first]]
    distance = (points - centres[0]).square().sum(1)  # (N,)
    for _ in range(count - 1):
        reached = distance.cumsum(0)  # (N,)
        if not reached[-1] > 0:
            msg = f'{count} clusters of {len(centres)} different points: give fewer --clusters'
            raise BadConfig(msg)
        at = torch.rand(1, generator=generator, dtype=torch.float64) * reached[-1]
        number = min(int(torch.searchsorted(reached, at)), len(points) - 1)
        centres.append(points[number])
        distance = torch.minimum(distance, (points - centres[-1]).square().sum(1))  # (N,)
    return torch.stack(centres)


def _assigned(points: Tensor, centres: Tensor) -> tuple[Tensor, float]:
    """Number of the nearest centre (N,), and the mean squared distance from it."""
    closeness = points @ centres.T - centres.square().sum(1) / 2  # (N, K)
    best, member = closeness.max(1)  # (N,), (N,)
    return member, float((points.square().sum(1) - 2 * best).mean())


def _means(points: Tensor, member: Tensor, centres: Tensor) -> Tensor:
    belongs = torch.nn.functional.one_hot(member, len(centres)).to(points.dtype)  # (N, K)
    size = belongs.sum(0)[:, None]  # (K, 1)
    # One that lost all its points stays where it is.
    return torch.where(size > 0, belongs.T @ points / size.clamp_min(1), centres)  # (K, C)


def _seen(sweep: AnsweredSweep) -> NDArray[np.float32]:
    """Points (L, 3) that were looked at, base frame, m."""
    seen: NDArray[np.float32] = sweep.read.xyz[sweep.patches.kept_point.numpy()]
    return seen


def _same_places(
    first: NDArray[np.float32], second: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Match points of two sweeps that share a cell of SAME_M: a row of each, one pair a cell."""
    (key, row), (other_key, other_row) = _cells(first), _cells(second)
    _, one, two = np.intersect1d(key, other_key, assume_unique=True, return_indices=True)
    return row[one], other_row[two]


def _cells(xyz: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Key of each cell that (L, 3) points lie in, ascending, and one of its points."""
    cell = np.floor(xyz.astype(np.float64) / SAME_M).astype(np.int64) & 0x1FFFFF  # (L, 3)
    key, row = np.unique(cell[:, 0] << 42 | cell[:, 1] << 21 | cell[:, 2], return_index=True)
    return key, row.astype(np.int64)
