# SPDX-License-Identifier: Apache-2.0
"""The vehicle's sensors together, sweep by sweep."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from offline_training.street.camera import POSES, Camera, Picture
from offline_training.street.lidar import Lidar, LidarSweep
from offline_training.street.town import Town

LEAST_LATE_S, MOST_LATE_S = 0.008, 0.015


@dataclass(frozen=True)
class Turn:
    """What the sensors deliver while the LiDAR turns once.

    Attributes:
        start_s: Since the recording's start.
        sweep: The points.
        pictures: Camera name to the instant of its exposure, s, and its picture.

    """

    start_s: float
    sweep: LidarSweep
    pictures: dict[str, tuple[float, Picture]]


class Rig:
    """A LiDAR and two cameras on one vehicle.

    Args:
        town: Where it drives.
        seed: Of noise and lateness.
        beams: LiDAR beams.
        columns: LiDAR firings per turn.

    """

    def __init__(self, town: Town, seed: int, beams: int, columns: int) -> None:
        self.ego = town.ego
        self._random = np.random.default_rng((seed, 1))
        self._lidar = Lidar(town.scene, town.ego, beams, columns)
        self._cameras = {
            name: Camera(name, town.scene, town.ego, town.weather, self._random) for name in POSES
        }

    def turn(self, start_s: float) -> Turn:
        """Turn the LiDAR once and expose each camera once."""
        sweep = self._lidar.sweep(start_s, self._random)
        pictures = {}
        for name, camera in self._cameras.items():
            exposed_s = start_s + self._random.uniform(LEAST_LATE_S, MOST_LATE_S)
            pictures[name] = (exposed_s, camera.take(exposed_s, self._random))
        return Turn(start_s, sweep, pictures)
