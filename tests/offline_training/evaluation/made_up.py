# SPDX-License-Identifier: Apache-2.0
"""Sweeps and answers to them, made by hand."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cross4d_jepa_ros.pipeline import Perception, Pipeline
from cross4d_jepa_ros.sensing.frames import SensorFrame
from cross4d_jepa_ros.sensing.point_clouds import Sweep
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
