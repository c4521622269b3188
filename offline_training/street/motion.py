# SPDX-License-Identifier: Apache-2.0
"""How the vehicle with the sensors, other cars and people move."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from offline_training.street.road import Road

Array = NDArray[np.float64]

STEP_S = 0.05
STRIDE_M = 1.4
MOST_BRAKING = 3.5  # m/s^2
MOST_ACCELERATION = 2.0  # m/s^2


class Track:
    """Position and heading of a thing over time, on the ground.

    Args:
        start_s: Time of the first row.
        xyz: (K, 3) m, odom, every STEP_S.
        yaw: (K,) rad.

    """

    def __init__(self, start_s: float, xyz: Array, yaw: Array) -> None:
        self._time = start_s + STEP_S * np.arange(len(xyz))
        self._xyz = xyz
        self._yaw = np.unwrap(yaw)
        step = np.linalg.norm(np.diff(xyz[:, :2], axis=0), axis=1)
        self._gone = np.concatenate([[0.0], np.cumsum(step)])
        self._speed = np.append(step, step[-1:]) / STEP_S

    def position(self, time_s: float) -> Array:
        """Return (3,) m in odom."""
        return np.array([np.interp(time_s, self._time, self._xyz[:, i]) for i in range(3)])

    def at(
        self, time_s: NDArray[np.float32]
    ) -> tuple[Array, NDArray[np.float32], NDArray[np.float32]]:
        """Return positions (N, 3) m, yaws (N,) rad and speeds (N,) m/s."""
        if time_s[0] == time_s[-1]:  # one instant, as for a camera
            position, yaw, speed = self.at(np.array([time_s[0], time_s[0] + 1e-3], np.float32))
            count = len(time_s)
            return np.repeat(position[:1], count, 0), yaw[:1].repeat(count), speed[:1].repeat(count)
        position = np.stack(
            [np.interp(time_s, self._time, self._xyz[:, i]) for i in range(3)], axis=1
        )
        yaw = np.interp(time_s, self._time, self._yaw).astype(np.float32)
        speed = np.interp(time_s, self._time, self._speed).astype(np.float32)
        return position, yaw, speed

    def phase(self, time_s: float) -> int:
        """Quarter of the walking cycle, 0 to 3; the same for the whole of a sweep."""
        sweep_s = np.floor(time_s * 10 + 1e-3) / 10
        return int(np.interp(sweep_s, self._time, self._gone) / STRIDE_M * 4) % 4


@dataclass(frozen=True)
class Ego:
    """The vehicle that carries the sensors; its frame is base_link, on the ground.

    Attributes:
        road: What it follows.
        lateral: m left of the middle line.
        time: (K,) s since the recording's start.
        along: (K,) m.

    """

    road: Road
    lateral: float
    time: Array
    along: Array

    def pose(self, time_s: ArrayLike) -> tuple[Array, Array]:
        """Return position (..., 3) m and rotation (..., 3, 3), odom from base_link."""
        along = np.interp(np.asarray(time_s, float), self.time, self.along)
        xy, heading = self.road.place(along, self.lateral)
        position = np.concatenate([xy, self.road.hill(xy)[..., None]], axis=-1)
        gradient = self.road.slope(xy)
        up = np.concatenate([-gradient, np.ones((*gradient.shape[:-1], 1))], axis=-1)
        up /= np.linalg.norm(up, axis=-1, keepdims=True)
        ahead = np.stack([np.cos(heading), np.sin(heading), np.zeros_like(heading)], axis=-1)
        ahead -= np.sum(ahead * up, axis=-1, keepdims=True) * up
        ahead /= np.linalg.norm(ahead, axis=-1, keepdims=True)
        return position, np.stack([ahead, np.cross(up, ahead), up], axis=-1)

    def matrix(self, time_s: float) -> Array:
        """Pose (4, 4), odom from base_link."""
        pose = np.eye(4)
        pose[:3, 3], pose[:3, :3] = self.pose(time_s)
        return pose


def drive(random: np.random.Generator, first_s: float, last_s: float) -> tuple[Array, Array]:
    """Cruise, brake (sometimes to a stop) and go on.

    Returns:
        Times (K,) s and distance (K,) m, 0 at time 0.

    """
    time = np.arange(first_s, last_s + STEP_S, STEP_S)
    target = np.empty(len(time))
    here = 0
    while here < len(time):
        cruise = round(random.uniform(3.0, 6.0) / STEP_S)
        target[here : here + cruise] = random.uniform(6.0, 12.0)
        slow = round(random.uniform(1.5, 3.0) / STEP_S)
        slow_speed = random.choice([0.0, random.uniform(1.5, 4.0)])
        target[here + cruise : here + cruise + slow] = slow_speed
        here += cruise + slow
    speed = np.empty(len(time))
    speed[0] = target[0]
    for i in range(1, len(time)):
        change = target[i] - speed[i - 1]
        speed[i] = speed[i - 1] + np.clip(
            change, -MOST_BRAKING * STEP_S, MOST_ACCELERATION * STEP_S
        )
    along = np.concatenate([[0.0], np.cumsum((speed[1:] + speed[:-1]) / 2 * STEP_S)])
    return time, along - np.interp(0.0, time, along)
