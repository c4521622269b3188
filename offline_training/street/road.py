# SPDX-License-Identifier: Apache-2.0
"""The line that a street follows, and the hills that it runs over."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

STEP_M = 0.25
LEAST_RADIUS_M = 28.0


class Road:
    """A street's middle line: straights and bends, never turning back on itself.

    Args:
        random: Draws the bends.
        first: Arc length where the street begins, m.
        last: Where it ends, m. It passes the origin of the odom frame, heading along x, at 0.

    """

    def __init__(self, random: np.random.Generator, first: float, last: float) -> None:
        self._along = np.arange(first, last + STEP_M, STEP_M)
        curvature = _curvature(random, self._along)
        heading = np.cumsum(curvature) * STEP_M
        heading -= np.interp(0.0, self._along, heading)
        x, y = np.cumsum(np.cos(heading)) * STEP_M, np.cumsum(np.sin(heading)) * STEP_M
        self._x = x - np.interp(0.0, self._along, x)
        self._y = y - np.interp(0.0, self._along, y)
        self._heading = heading
        # Waves of these lengths bend the street's profile within sight of a LiDAR.
        length = random.uniform(35.0, 110.0, 5)
        self._amplitude = random.uniform(0.10, 0.42, 5) * length / 60
        turn = random.uniform(0, 2 * np.pi, 5)
        self._wave = 2 * np.pi / length * np.stack([np.cos(turn), np.sin(turn)])  # (2, 5)
        self._phase = random.uniform(0, 2 * np.pi, 5)

    @property
    def first(self) -> float:
        """Arc length where the street begins, m."""
        return float(self._along[0])

    @property
    def last(self) -> float:
        """Arc length where the street ends, m."""
        return float(self._along[-1])

    def place(self, along: ArrayLike, lateral: ArrayLike) -> tuple[Array, Array]:
        """Return position (..., 2) m and heading (...) rad; `lateral` is m to the left."""
        along, lateral = np.broadcast_arrays(np.asarray(along, float), np.asarray(lateral, float))
        heading = np.interp(along, self._along, self._heading)
        x = np.interp(along, self._along, self._x) - lateral * np.sin(heading)
        y = np.interp(along, self._along, self._y) + lateral * np.cos(heading)
        return np.stack([x, y], axis=-1), heading

    def hill(self, xy: ArrayLike) -> Array:
        """Height (...) of the bare land at odom coordinates (..., 2), m."""
        wave = np.sin(np.asarray(xy) @ self._wave + self._phase)
        height: Array = wave @ self._amplitude
        return height

    def drape(self, corners: NDArray[np.float32], position: Array) -> None:
        """Let corners (..., 3) in odom follow the land as it rises from a position (3,)."""
        lift = self.hill(corners[..., :2]) - self.hill(position[:2])
        corners[..., 2] += lift.astype(np.float32)

    def slope(self, xy: ArrayLike) -> Array:
        """Gradient (..., 2) of `hill`."""
        wave = np.cos(np.asarray(xy) @ self._wave + self._phase) * self._amplitude
        gradient: Array = wave @ self._wave.T
        return gradient

    def distance(self, xy: ArrayLike) -> Array:
        """Distance (...) of odom coordinates (..., 2) from the middle line, m."""
        xy = np.asarray(xy, float)
        line = np.stack([self._x[::4], self._y[::4]], axis=-1)  # (L, 2)
        nearest: Array = np.linalg.norm(xy[..., None, :] - line, axis=-1).min(axis=-1)
        return nearest


def _curvature(random: np.random.Generator, along: Array) -> Array:
    """Straights of 20 to 50 m between bends of 25 to 75 degrees, smoothed."""
    curvature = np.zeros(len(along))
    here, heading = float(along[0]), 0.0
    while here < along[-1]:
        here += random.uniform(20.0, 50.0)
        angle = np.deg2rad(random.uniform(25.0, 75.0)) * random.choice([-1.0, 1.0])
        # A street that keeps within +-80 degrees of its first heading cannot cross itself.
        if abs(heading + angle) > np.deg2rad(80.0):
            angle = -angle
        radius = random.uniform(LEAST_RADIUS_M + 2.0, 65.0)
        length = abs(angle) * radius
        bend = (along >= here) & (along < here + length)
        curvature[bend] = np.sign(angle) / radius
        heading += angle
        here += length
    smooth = np.hanning(round(6.0 / STEP_M))
    padded = np.pad(curvature, len(smooth), mode='edge')
    return np.convolve(padded, smooth / smooth.sum(), 'same')[len(smooth) : -len(smooth)]
