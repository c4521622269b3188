# SPDX-License-Identifier: Apache-2.0
"""Small recordings with labels: a SemanticKITTI-style folder, a bag with a label cloud."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from offline_training import index_bags
from offline_training.street.classes import CLASS_NAMES
from tests import tiny_recording as tiny
from tests.tiny_street import street

POSE = '1 0 0 0 0 1 0 0 0 0 1 {}\n'


def kitti(path: Path, labels: Sequence[Sequence[int] | None]) -> Path:
    """Write a drive of one ring of four points a sweep, 0.5 m apart.

    Args:
        path: Folder to create.
        labels: Of the points of each sweep; None where it has no label file.

    """
    for folder in ('velodyne', 'labels'):
        (path / folder).mkdir(parents=True)
    for number, classes in enumerate(labels):
        angle = np.linspace(0, 6, 4, dtype=np.float32)
        ring = np.column_stack((5 * np.cos(angle), 5 * np.sin(angle), 0 * angle - 1.8, 0 * angle))
        ring.astype('<f4').tofile(path / 'velodyne' / f'{number:06d}.bin')
        if classes is not None:
            raw = np.array(classes, '<u4') | (9 << 16)  # an instance
            raw.tofile(path / 'labels' / f'{number:06d}.label')
    (path / 'calib.txt').write_text('Tr: 0 -1 0 0 0 0 -1 0 1 0 0 0\n')
    (path / 'poses.txt').write_text(''.join(POSE.format(0.5 * n) for n in range(len(labels))))
    return path


def labelled_bag(path: Path, sweeps: int = 4) -> Path:
    """Record a street with the labels of its points and images of one grey each."""
    entries: list[tuple[int, str, Any]] = []
    for number in range(sweeps):
        at_ns = tiny.START_NS + number * 100 * tiny.MS
        xyz, labels = street(number)
        pixels = np.full((64, 96, 3), 40 * (number % 5), np.uint8)
        entries += [
            (at_ns, '/tf', tiny.lidar_at(at_ns, 0.1 * number)),
            (at_ns + 1, tiny.INFO, tiny.camera_info(at_ns, 96, 64)),
            (at_ns + 2, tiny.IMAGE, tiny.image(at_ns, pixels)),
            (at_ns + 3, tiny.POINTS, tiny.sweep(at_ns, xyz)),
            (at_ns + 4, tiny.TRUTH, tiny.truth(at_ns, labels)),
        ]
    return tiny.write(path, entries, class_names=','.join(CLASS_NAMES))


def indexed(folder: Path, *logs: Path) -> Path:
    """Index recordings as the command does."""
    out = folder / 'index.parquet'
    assert index_bags.main([*map(str, logs), '--out', str(out)]) == 0
    return out
