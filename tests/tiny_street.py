# SPDX-License-Identifier: Apache-2.0
"""Stands in for the street's generator where what is learnt does not matter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offline_training.street.classes import BUILDING, CLASS_NAMES, POLE, ROAD
from tests.tiny_recording import (
    IMAGE,
    INFO,
    MS,
    POINTS,
    START_NS,
    TRUTH,
    camera_info,
    image,
    lidar_at,
    sweep,
    truth,
    write,
)

Street = tuple[NDArray[np.float32], NDArray[np.uint8]]


def street(seed: int) -> Street:
    """A floor, a wall and some poles, 1.8 m below and around the sensor."""
    draw = np.random.default_rng(seed)
    floor = np.column_stack((draw.uniform(-8, 8, (500, 2)), np.full(500, -1.8)))
    wall = np.column_stack(
        (draw.uniform(-8, 8, 300), np.full(300, 6.0), draw.uniform(-1.8, 4, 300))
    )
    feet = draw.uniform(-7, 5, (6, 2)).repeat(20, axis=0)
    poles = np.column_stack((feet, draw.uniform(-1.8, 3, 120)))
    xyz = np.concatenate((floor, wall, poles)).astype(np.float32)
    return xyz, np.repeat([ROAD, BUILDING, POLE], (500, 300, 120)).astype(np.uint8)


def write_tiny_street(
    path: Path, seed: int, seconds: float, *, label_images: Path | None = None, **notes: str
) -> int:
    """Stands in for the generator: the same interface, a recording of 920 points a sweep.

    The sensor moves along its x axis by 0.1 m a sweep. There are no labels of its images.
    """
    assert label_images is None
    entries: list[tuple[int, str, Any]] = []
    sweeps = round(seconds * 10)
    for number in range(sweeps):
        stamp_ns = START_NS + number * 100 * MS
        xyz, labels = street(1000 * seed + number)
        pixels = np.full((6, 8, 3), 40 * number, np.uint8)
        strength = np.full(len(xyz), 0.3, np.float32)
        entries += [
            (stamp_ns, '/tf', lidar_at(stamp_ns, 0.1 * number)),
            (stamp_ns + 50 * MS, POINTS, sweep(stamp_ns, xyz, intensity=strength)),
            (stamp_ns + 50 * MS, TRUTH, truth(stamp_ns, labels)),
            (stamp_ns + 5 * MS, INFO, camera_info(stamp_ns, 8, 6)),
            (stamp_ns + 5 * MS, IMAGE, image(stamp_ns, pixels)),
        ]
    write(path, entries, **{'class_names': ','.join(CLASS_NAMES), **notes})
    return sweeps
