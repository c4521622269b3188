# SPDX-License-Identifier: Apache-2.0
"""Where the ground is, from the points of a sweep alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_BIN_M = 0.1


def estimate_ground_z(xyz: NDArray[np.float32]) -> float | None:
    """Find the height of the ground in an upright frame.

    The ground is the fullest 0.1 m layer below the sensor among points 2 to 25 m away.

    Args:
        xyz: (N, 3) m, z up, the sensor at the origin.

    Returns:
        z of the ground in m, or None where no layer stands out.

    """
    distance = np.hypot(xyz[:, 0], xyz[:, 1])
    z = xyz[(distance > 2) & (distance < 25) & (xyz[:, 2] < -0.2) & (xyz[:, 2] > -6), 2]
    if len(z) < 200:
        return None
    counts, edges = np.histogram(z, np.arange(-6, _BIN_M, _BIN_M))
    layers = counts[:-2] + counts[1:-1] + counts[2:]
    fullest = int(np.argmax(layers)) + 1
    if layers[fullest - 1] < 0.15 * len(z):
        return None
    near = z[np.abs(z - (edges[fullest] + _BIN_M / 2)) < 1.5 * _BIN_M]
    return float(np.median(near))
