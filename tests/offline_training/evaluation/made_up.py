# SPDX-License-Identifier: Apache-2.0
"""Sweeps and answers to them, made by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cross4d_jepa_ros.pipeline import Perception, Pipeline
from cross4d_jepa_ros.sensing.cameras import CameraModel
from cross4d_jepa_ros.sensing.frames import BODY_FROM_OPTICAL, CameraView, SensorFrame
from cross4d_jepa_ros.sensing.point_clouds import Sweep
from cross4d_jepa_ros.sensing.poses import invert
from offline_training.evaluation.pictures import Shown
from offline_training.evaluation.sources import Swept

# Of the recording that the tests share.
SWEEPS = 4


def swept(
    xyz: NDArray[np.float32], label: NDArray[np.uint8] | None, *, sensor_x: float = 0.0
) -> Swept:
    """Make a sweep of points of the base frame, with the sensor at `sensor_x` on its x axis."""
    count = len(xyz)
    pose = np.eye(4)
    pose[0, 3] = sensor_x
    sweep = Sweep(0, 'lidar', 1, count, xyz, None, None, None, np.arange(count, dtype=np.int64))
    return Swept('drive', True, SensorFrame(0, sweep, xyz, pose, None, ()), None, label, None)


def perceived(class_id: NDArray[np.uint8], probability: NDArray[np.float32]) -> Perception:
    """Make an answer that names every point."""
    return Perception(
        stamp_ns=0,
        class_id=class_id,
        probability=probability,
        token_xyz=None,
        token_embedding=None,
        embedding_rgb=None,
        frame_embedding=None,
        token_count=1,
        window_length=1,
        reset='',
        capped_points=0,
        capped_tokens=0,
        stage_ms=dict.fromkeys(Pipeline.STAGES, 1.0),
    )


def shown(*, camera: bool, classes: bool, ahead_m: float = 5.0) -> Shown:
    """Show a wall ahead that is all of answer 0 and label 1, or blue."""
    y, z = np.meshgrid(np.arange(-2, 2, 0.05), np.arange(-1, 1, 0.05))
    wall = np.stack([np.full(y.size, ahead_m), y.ravel(), z.ravel()], axis=1).astype(np.float32)
    given = swept(wall, np.ones(len(wall), np.uint8))
    model = CameraModel(160, 80, 80.0, 80.0, 80.0, 40.0)
    view = CameraView(0, np.zeros((80, 160, 3), np.uint8), 0, model, invert(BODY_FROM_OPTICAL))
    if camera:
        given = replace(given, frame=replace(given.frame, views=(view,)))
    answer = perceived(np.zeros(len(wall), np.uint8), np.ones(len(wall), np.float32))
    if not classes:
        blue = np.tile(np.array((0, 0, 255), np.uint8), (len(wall), 1))
        answer = replace(answer, class_id=None, embedding_rgb=blue)
    return Shown(given, answer, ('/camera',))
