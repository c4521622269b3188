# SPDX-License-Identifier: Apache-2.0
"""Small recordings with a camera, indexed, with cached targets: what a pretraining is given."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from offline_training import cache_targets, index_bags
from tests.tiny_recording import (
    IMAGE,
    INFO,
    MS,
    POINTS,
    START_NS,
    camera_info,
    image,
    lidar_at,
    sweep,
    write,
)
from tests.tiny_street import street

WIDTH, HEIGHT = 96, 64


def write_log(path: Path, seed: int, sweeps: int, blind: Collection[int] = ()) -> Path:
    """Record a drive of 0.1 m a sweep past walls and poles.

    Args:
        path: Folder to create.
        seed: Of the street and of what the camera sees.
        sweeps: Ten a second.
        blind: Numbers of the sweeps without an image.

    """
    draw = np.random.default_rng(seed)
    rough = draw.integers(0, 255, (8, 12, 3))
    entries: list[tuple[int, str, Any]] = []
    for number in range(sweeps):
        stamp_ns = START_NS + number * 100 * MS
        xyz, _ = street(1000 * seed + number)
        strength = draw.uniform(0, 1, len(xyz)).astype(np.float32)
        entries += [
            (stamp_ns, '/tf', lidar_at(stamp_ns, 0.1 * number)),
            (stamp_ns + 10 * MS, POINTS, sweep(stamp_ns, xyz, intensity=strength)),
        ]
        if number not in blind:
            pixels = np.roll(rough, number // 2, axis=1).repeat(8, axis=0).repeat(8, axis=1)
            at_ns = stamp_ns + 5 * MS
            entries += [
                (at_ns, INFO, camera_info(at_ns, WIDTH, HEIGHT)),
                (at_ns, IMAGE, image(at_ns, pixels.astype(np.uint8))),
            ]
    return write(path, entries)


def indexed(folder: Path, bags: list[Path], images: Sequence[str] = (IMAGE,)) -> Path:
    """Index bags as the command does."""
    out = folder / 'index.parquet'
    words = ['--images', *images] if images else []
    assert index_bags.main([*map(str, bags), *words, '--out', str(out)]) == 0
    return out


def with_targets(folder: Path, index: Path, *more: str) -> Path:
    """Cache targets of a teacher with drawn weights, as the command does."""
    out = folder / 'targets'
    words = ['--teacher', 'lite0-random', '--input-height', str(HEIGHT), '--out', str(out)]
    assert cache_targets.main([str(index), *words, *more]) == 0
    return out
