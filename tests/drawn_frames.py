# SPDX-License-Identifier: Apache-2.0
"""Sensor frames of a drawn flat world with two walls, and a camera that looks ahead."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cross4d_jepa_ros.sensing.cameras import CameraModel
from cross4d_jepa_ros.sensing.frames import CameraView, SensorFrame
from cross4d_jepa_ros.sensing.point_clouds import Sweep

# Looks along the base frame's x axis from 1 m above the ground.
CAMERA_FROM_BASE = np.array(
    [[0, -1, 0, 0], [0, 0, -1, 1], [1, 0, 0, 0], [0, 0, 0, 1]], dtype=np.float64
)
CAMERA = CameraModel(40, 30, 20.0, 20.0, 20.0, 15.0, 'none', ())


def points(count: int, seed: int = 0) -> NDArray[np.float32]:
    """Points of a flat world and two walls, up to 40 m away."""
    draw = np.random.default_rng(seed)
    xyz = draw.uniform((-40, -10, 0), (40, 10, 0.05), (count, 3))
    walls = slice(0, count // 3)
    xyz[walls, 1] = np.sign(xyz[walls, 1]) * 9
    xyz[walls, 2] = draw.uniform(0, 6, count // 3)
    return xyz.astype(np.float32)


def frame_of(
    xyz: NDArray[np.float32],
    *,
    index: NDArray[np.int64] | None = None,
    size: tuple[int, int] | None = None,
    intensity: NDArray[np.float32] | None = None,
    views: tuple[CameraView, ...] = (),
    base_from_sensor: NDArray[np.float64] | None = None,
) -> SensorFrame:
    height, width = size or (1, len(xyz))
    sweep = Sweep(
        stamp_ns=123,
        frame_id='lidar',
        height=height,
        width=width,
        xyz=xyz,
        intensity=intensity,
        ring=None,
        time_offset_ns=None,
        index=np.arange(len(xyz)) if index is None else index,
    )
    pose = np.eye(4) if base_from_sensor is None else base_from_sensor
    return SensorFrame(123, sweep, xyz, pose, None, views)


def view_of(image: NDArray[np.uint8], camera: int = 0) -> CameraView:
    return CameraView(camera, image, 120, CAMERA, CAMERA_FROM_BASE)


def image(seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (30, 40, 3), dtype=np.uint8)
