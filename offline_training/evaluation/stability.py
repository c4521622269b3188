# SPDX-License-Identifier: Apache-2.0
"""Whether what stands keeps its embedding and its label over time, ego-motion removed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from cross4d_jepa_ros.model.checkpoint import load_checkpoint
from cross4d_jepa_ros.model.heads import EmbeddingNormalisation
from cross4d_jepa_ros.model.naming import TeachableSweep
from cross4d_jepa_ros.pipeline import Perception, Pipeline
from cross4d_jepa_ros.segmentation_scores import UNKNOWN
from cross4d_jepa_ros.sensing.poses import invert, transform_points
from offline_training.evaluation.scores import RANGES_M, rounded
from offline_training.evaluation.sources import Swept
from offline_training.labelled_sweeps import MOVING_M_S

# Sweeps between the two that are compared.
GAPS = (1, 2, 5)
# A point found again is one that lies this near, in the fixed frame.
SAME_M = 0.1
# Of each sweep that are looked for in later ones.
POINTS = 1000
_FIGURES = ('matched', 'cosine', 'cosine_random', 'label_kept')
NO_POSE = (
    'how steady embeddings are is not measured: without ego-motion nobody knows where a point was '
    'before; record /tf or odometry, or give --odometry'
)


@dataclass(frozen=True)
class _Looked:
    """Points of a sweep that are looked for in later ones.

    Attributes:
        xyz: (Q, 3) m, in a frame that stands.
        embedding: (Q, C) of unit length.
        class_id: (Q,) answers; None without.
        distance_m: (Q,) horizontally from the sensor.

    """

    stamp_ns: int
    xyz: NDArray[np.float32]
    embedding: NDArray[np.float32]
    class_id: NDArray[np.uint8] | None
    distance_m: NDArray[np.float64]


class Stability:
    """Adds up how alike the embeddings of a point are that is seen in two sweeps.

    Where the recording knows speeds, only what stands counts; else everything, and things that
    move are taken for what they have driven to.

    Attributes:
        known_speed: Whether all sweeps so far had speeds.
        problems: Why nothing is measured; empty where it is.

    """

    def __init__(self, normalisation: EmbeddingNormalisation) -> None:
        """Start with no sweeps.

        Args:
            normalisation: Of the model, on the CPU.

        """
        self.known_speed = True
        self.problems: list[str] = []
        self._normalisation = normalisation
        self._past: deque[_Looked] = deque(maxlen=max(GAPS))
        # Fixed frames may begin far away, where single precision is too coarse.
        self._start_from_fixed = np.eye(4)
        # By gap, of each pair: range, seconds, matched, cosine, that of a random pair, label kept.
        self._pairs: dict[int, list[NDArray[np.float64]]] = {gap: [] for gap in GAPS}

    @classmethod
    def of(cls, checkpoint: Path) -> Stability:
        """Start with no sweeps of a model.

        Raises:
            BadCheckpoint: The file is refused.

        """
        return cls(load_checkpoint(checkpoint).network.normalisation)

    def watching(
        self, pipeline: Pipeline, stream: Iterable[tuple[Swept, Perception]]
    ) -> Iterator[tuple[Swept, Perception]]:
        """Take every sweep of a stream as it is answered, and pass it on.

        Args:
            pipeline: That answers it; is made to keep the newest embeddings.
            stream: Its answers.

        """
        names = bool(pipeline.contract.answer_names)
        pipeline.teaching = True
        for swept, perception in stream:
            if pipeline.newest is not None:
                self.add(swept, perception, pipeline.newest)
            # A model without classes only answers "unknown" because it is watched.
            yield (
                swept,
                perception if names else replace(perception, class_id=None, probability=None),
            )
        pipeline.teaching = False

    def add(self, swept: Swept, perception: Perception, newest: TeachableSweep) -> None:
        """Take the next sweep.

        Args:
            swept: It.
            perception: Its answer.
            newest: `Pipeline.newest` with `teaching`.

        """
        frame = swept.frame
        if swept.first or perception.reset:
            self._past.clear()
        if frame.fixed_from_base is None:
            self._past.clear()
            if NO_POSE not in self.problems:
                self.problems.append(NO_POSE)
            return
        row = rows_of(newest.xyz, frame.sweep.xyz)  # (L,)
        index = frame.sweep.index[row]  # (L,) in the message
        stands = np.ones(len(row), np.bool_)  # (L,)
        if swept.speed is not None:
            stands = swept.speed[index] <= MOVING_M_S
        self.known_speed &= swept.speed is not None
        here = np.flatnonzero(stands)  # (S,) of L
        if not len(here):
            return
        if not self._past:
            self._start_from_fixed = invert(frame.fixed_from_base)
        start_from_base = self._start_from_fixed @ frame.fixed_from_base
        xyz = transform_points(start_from_base, frame.xyz_base[row[here]])  # (S, 3)
        class_id = None if perception.class_id is None else perception.class_id[index[here]]
        draw = np.random.default_rng(frame.stamp_ns)
        earlier = {gap: self._past[-gap] for gap in GAPS if gap <= len(self._past)}
        # All at once: one grid serves them all.
        asked = np.concatenate(
            [np.zeros((0, 3), np.float32), *(then.xyz for then in earlier.values())]
        )
        answered = nearest_within(asked, xyz, SAME_M)  # of S
        for gap, then in earlier.items():
            found, answered = np.split(answered, [len(then.xyz)])
            self._pairs[gap].append(
                self._compared(then, found, frame.stamp_ns, newest, here, class_id, draw)
            )
        chosen = np.sort(draw.permutation(len(here))[:POINTS])  # (Q,) of S
        offset = frame.xyz_base[row[here[chosen]], :2] - frame.base_from_sensor[:2, 3]  # (Q, 2)
        self._past.append(
            _Looked(
                frame.stamp_ns,
                xyz[chosen],
                self._normalised(newest, here[chosen]),
                None if class_id is None else class_id[chosen],
                np.hypot(offset[:, 0], offset[:, 1]),
            )
        )

    def _compared(
        self,
        then: _Looked,
        found: NDArray[np.int64],
        stamp_ns: int,
        newest: TeachableSweep,
        here: NDArray[np.int64],
        class_id: NDArray[np.uint8] | None,
        draw: np.random.Generator,
    ) -> NDArray[np.float64]:
        """Compare the points of an earlier sweep with those found (Q,): (Q, 6), see `_pairs`."""
        again = found >= 0  # (Q,)
        columns = np.full((len(again), 6), np.nan)
        columns[:, 0] = then.distance_m
        columns[:, 1] = (stamp_ns - then.stamp_ns) / 1e9
        columns[:, 2] = again
        embedding = then.embedding[again]  # (q, C)
        now = self._normalised(newest, here[found[again]])  # (q, C)
        anywhere = self._normalised(newest, here[draw.integers(0, len(here), len(now))])  # (q, C)
        columns[again, 3] = (embedding * now).sum(1)
        columns[again, 4] = (embedding * anywhere).sum(1)
        if class_id is not None and then.class_id is not None:
            before = then.class_id[again]  # (q,)
            kept = (before == class_id[found[again]]).astype(np.float64)
            columns[again, 5] = np.where(before == UNKNOWN, np.nan, kept)
        return columns

    @torch.inference_mode()
    def _normalised(self, newest: TeachableSweep, row: NDArray[np.int64]) -> NDArray[np.float32]:
        chosen = newest.embedding[torch.from_numpy(row).to(newest.embedding.device)]  # (n, C)
        normalised: NDArray[np.float32] = self._normalisation(chosen.cpu()).numpy()
        return normalised

    def report(self) -> dict[str, Any]:
        """Lay everything out: whether only what stands counts, and `rows`, one for each gap.

        A row has figures of all pairs, and of those of each range: `points` looked for, the share
        `matched`, the mean `cosine` of their embeddings then and now, `cosine_random` of theirs
        with that of any point now, and `label_kept`, the share that is called the same, where it
        was called anything.
        """
        rows = []
        for gap, parts in self._pairs.items():
            if not parts:
                continue
            pairs = np.concatenate(parts)  # (n, 6)
            by_range = {
                f'{low}-{high}': _figures(pairs[(pairs[:, 0] >= low) & (pairs[:, 0] < high)])
                for low, high in RANGES_M
            }
            seconds = rounded(float(pairs[:, 1].mean()))
            rows.append(
                {'sweeps': gap, 'seconds': seconds, **_figures(pairs), 'by_range_m': by_range}
            )
        return {'only_what_stands': self.known_speed, 'rows': rows}


def print_stability(report: Mapping[str, Any], console: Console) -> None:
    """Show the figures of `Stability.report` as a table."""
    if not report['rows']:
        return
    who = 'what stands' if report['only_what_stands'] else 'everything, also what moves'
    table = Table('', *_FIGURES, title=f'the same point later on: {who}')
    for row in report['rows']:
        for name, part in {'all': row, **row['by_range_m']}.items():
            cells = ('-' if part[each] is None else f'{part[each]:.3f}' for each in _FIGURES)
            where = f'{row["seconds"]:g} s later' if part is row else f'  {name} m'
            table.add_row(where, *cells)
    console.print(table)


def _figures(pairs: NDArray[np.float64]) -> dict[str, Any]:
    figures: dict[str, Any] = {'points': len(pairs)}
    for name, column in zip(_FIGURES, pairs[:, 2:].T, strict=True):
        told = column[~np.isnan(column)]
        figures[name] = rounded(float(told.mean())) if len(told) else None
    return figures


def rows_of(some: NDArray[np.float32], points: NDArray[np.float32]) -> NDArray[np.int64]:
    """Find rows of points by their exact coordinates; of equal ones any.

    Args:
        some: (L, 3), all of them among `points`.
        points: (N, 3)

    Returns:
        (L,) rows of `points`.

    """
    wanted, known = _coordinate_keys(some), _coordinate_keys(points)
    order = np.argsort(known, kind='stable')
    found: NDArray[np.int64] = order[np.searchsorted(known, wanted, sorter=order)]
    return found


def _coordinate_keys(xyz: NDArray[np.float32]) -> NDArray[np.uint64]:
    bits = np.ascontiguousarray(xyz, np.float32).view(np.uint32).astype(np.uint64)  # (N, 3)
    # Odd constants of 64 bits: that two of a sweep's points share a key is out of the question.
    factors = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9)
    keys = np.zeros(len(bits), np.uint64)
    for column, factor in zip(bits.T, factors, strict=True):
        keys = (keys ^ column) * np.uint64(factor)
        keys ^= keys >> np.uint64(29)
    return keys


def nearest_within(
    query: NDArray[np.floating], points: NDArray[np.floating], radius: float
) -> NDArray[np.int64]:
    """Find the nearest point of each query by a grid.

    Args:
        query: (Q, 3)
        points: (N, 3), same frame and unit.
        radius: Of the search.

    Returns:
        (Q,) rows of `points`, -1 where none is within the radius.

    """
    if not len(query) or not len(points):
        return np.full(len(query), -1)
    corner = np.minimum(query.min(0), points.min(0))
    # One cell is free all around, so that neighbours of a cell never wrap.
    own = np.floor((query - corner) / radius).astype(np.int64) + 1  # (Q, 3)
    cell = np.floor((points - corner) / radius).astype(np.int64) + 1  # (N, 3)
    size = np.maximum(own.max(0), cell.max(0)) + 2
    key = (cell[:, 0] * size[1] + cell[:, 1]) * size[2] + cell[:, 2]  # (N,)
    order = np.argsort(key, kind='stable')
    sorted_key = key[order]
    columns = []
    for dx in (-1, 0, 1):
        for dy in (-1, 0, 1):
            below = ((own[:, 0] + dx) * size[1] + own[:, 1] + dy) * size[2] + own[:, 2] - 1
            # Three cells above each other adjoin.
            columns.append(np.searchsorted(sorted_key, (below, below + 3)))
    first, last = np.stack(columns, axis=-1).reshape(2, -1)  # (9 Q,) each, by query
    count = last - first
    asking = np.repeat(np.arange(len(query)).repeat(9), count)  # (E,)
    place = np.arange(count.sum()) + np.repeat(first - np.cumsum(count) + count, count)  # (E,)
    candidate = order[place]  # (E,)
    distance = np.linalg.norm(query[asking] - points[candidate], axis=1)  # (E,)
    near = np.flatnonzero(distance <= radius)
    # By query, the nearest first; of equally near ones the first point.
    near = near[np.lexsort((candidate[near], distance[near], asking[near]))]
    nearest: NDArray[np.int64] = np.full(len(query), -1)
    asked, best = np.unique(asking[near], return_index=True)
    nearest[asked] = candidate[near[best]]
    return nearest
