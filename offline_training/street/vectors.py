# SPDX-License-Identifier: Apache-2.0
"""Products of many short vectors, without BLAS: its threads spin longer than these take."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def dot(a: Floats, b: Floats) -> Floats:
    """Multiply vectors (N, 3) with vectors (N, 3) or with one (3,): (N,)."""
    product: Floats = a[..., 0] * b[..., 0]
    product += a[..., 1] * b[..., 1]
    product += a[..., 2] * b[..., 2]
    return product


def rotated(vectors: Floats, rotation: Floats) -> Floats:
    """Apply one rotation (3, 3) to vectors (N, 3)."""
    out = np.empty_like(vectors)
    for row in range(3):
        out[:, row] = dot(vectors, rotation[row])
    return out


def yawed(vectors: Floats, yaw: Floats) -> Floats:
    """Turn vectors (N, 3) about z by (N,) rad."""
    cos, sin = np.cos(yaw), np.sin(yaw)
    x, y = vectors[:, 0], vectors[:, 1]
    return np.stack([cos * x - sin * y, sin * x + cos * y, vectors[:, 2]], axis=1, dtype=np.float32)
