# SPDX-License-Identifier: Apache-2.0
"""Recordings of a wall ahead and a floor all around, which a camera at the LiDAR sees in part."""

from __future__ import annotations

from typing import Any

import numpy as np

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
)

PERIOD = 100 * MS
WIDTH, HEIGHT = 64, 48
LATE = 12 * MS
WALL = np.array(
    [(10.0, y, z) for y in np.arange(-8, 8, 0.5) for z in np.arange(-1.5, 6, 0.5)], np.float32
)
FLOOR = np.array(
    [(x, y, -1.8) for x in np.arange(-8, 8, 0.9) for y in np.arange(-8, 8, 0.9)], np.float32
)
XYZ = np.concatenate((WALL, FLOOR))

Entry = tuple[int, str, Any]


def stamp_of(number: int) -> int:
    return START_NS + number * PERIOD


def swept(number: int, *, stamp_ns: int | None = None, frame_id: str = 'lidar') -> Entry:
    """A sweep that is recorded 30 ms after its stamp, its intensities up to 1 + number."""
    at_ns = stamp_of(number) if stamp_ns is None else stamp_ns
    strength = np.linspace(0, 1 + number, len(XYZ), dtype=np.float32)
    message = sweep(at_ns, XYZ, intensity=strength)
    message.header.frame_id = frame_id
    return stamp_of(number) + 30 * MS, POINTS, message


def timed(number: int) -> Entry:
    """Likewise, its points spread over 90 ms from the stamp on."""
    seconds = np.linspace(0, 0.09, len(XYZ), dtype=np.float32)
    message = sweep(stamp_of(number), XYZ, intensity=np.ones(len(XYZ), np.float32), time=seconds)
    return stamp_of(number) + 30 * MS, POINTS, message


def pictured(number: int, late_ns: int = LATE, *, recorded_after_ns: int = 5 * MS) -> Entry:
    """An image whose every pixel is the number of a sweep."""
    at_ns = stamp_of(number) + late_ns
    pixels = np.full((HEIGHT, WIDTH, 3), number, np.uint8)
    return at_ns + recorded_after_ns, IMAGE, image(at_ns, pixels)


def calibrated() -> Entry:
    return START_NS + MS, INFO, camera_info(START_NS, WIDTH, HEIGHT)


def moving(sweeps: int, metres: float = 0.1) -> list[Entry]:
    """Poses every 50 ms from before to after the sweeps, all recorded at the start."""
    numbers = np.arange(-4, 2 * sweeps + 5) / 2
    return [
        (START_NS + 2 * MS, '/tf', lidar_at(round(stamp_of(0) + n * PERIOD), metres * n))
        for n in numbers.tolist()
    ]


def drive(sweeps: int) -> list[Entry]:
    """Sweeps with an image `LATE` after each and a calibration; nothing moves."""
    entries = [calibrated()]
    for number in range(sweeps):
        entries += [swept(number), pictured(number)]
    return entries
