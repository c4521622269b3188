# SPDX-License-Identifier: Apache-2.0
"""Rigid transforms as 4x4 float64 matrices, and the quaternions (x, y, z, w) they come from."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

_ORTHONORMAL_TOLERANCE = 1e-3
# The Sun is farther, but nothing on Earth is; squares of it fit into a float32.
FARTHEST_M = 1e9


def matrix_from_quaternion(translation: ArrayLike, xyzw: ArrayLike) -> NDArray[np.float64]:
    """Builds target_from_source from a translation in the target frame and a unit quaternion.

    Args:
        translation: (..., 3) m.
        xyzw: (..., 4) unit quaternions.

    Returns:
        (..., 4, 4) matrices.
    """
    translations = np.asarray(translation, dtype=np.float64)
    x, y, z, w = np.moveaxis(np.asarray(xyzw, dtype=np.float64), -1, 0)
    matrix = np.zeros((*translations.shape[:-1], 4, 4))
    matrix[..., 0, 0] = 1 - 2 * (y * y + z * z)
    matrix[..., 0, 1] = 2 * (x * y - z * w)
    matrix[..., 0, 2] = 2 * (x * z + y * w)
    matrix[..., 1, 0] = 2 * (x * y + z * w)
    matrix[..., 1, 1] = 1 - 2 * (x * x + z * z)
    matrix[..., 1, 2] = 2 * (y * z - x * w)
    matrix[..., 2, 0] = 2 * (x * z - y * w)
    matrix[..., 2, 1] = 2 * (y * z + x * w)
    matrix[..., 2, 2] = 1 - 2 * (x * x + y * y)
    matrix[..., :3, 3] = translations
    matrix[..., 3, 3] = 1
    return matrix


def quaternion_from_matrix(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Reads the unit quaternion (4,), w >= 0, of a (4, 4) transform or a (3, 3) rotation."""
    m = matrix
    squares = 1 + np.array(
        [
            m[0, 0] - m[1, 1] - m[2, 2],
            m[1, 1] - m[0, 0] - m[2, 2],
            m[2, 2] - m[0, 0] - m[1, 1],
            m[0, 0] + m[1, 1] + m[2, 2],
        ]
    )
    x_w, y_w, z_w = m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]
    x_y, x_z, y_z = m[0, 1] + m[1, 0], m[0, 2] + m[2, 0], m[1, 2] + m[2, 1]
    # The row of the largest component is the one without cancellation.
    rows = (
        (squares[0], x_y, x_z, x_w),
        (x_y, squares[1], y_z, y_w),
        (x_z, y_z, squares[2], z_w),
        (x_w, y_w, z_w, squares[3]),
    )
    xyzw = np.array(rows[int(squares.argmax())], dtype=np.float64)
    xyzw /= np.linalg.norm(xyzw)
    return -xyzw if xyzw[3] < 0 else xyzw


def transform_points(
    target_from_source: NDArray[np.float64], xyz: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Map (N, 3) points; computed in float32.

    A matrix product would wake the BLAS threads, which then spin against those of the encoder:
    measured on two cores, that made a whole step 1.7 times slower.
    """
    matrix = target_from_source.astype(np.float32)
    mapped = np.empty(xyz.shape, dtype=np.float32)
    for axis in range(3):
        column = xyz[:, 0] * matrix[axis, 0]
        column += xyz[:, 1] * matrix[axis, 1]
        column += xyz[:, 2] * matrix[axis, 2]
        column += matrix[axis, 3]
        mapped[:, axis] = column
    return mapped


def invert(target_from_source: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inverts rigid transforms: (..., 4, 4) target_from_source to source_from_target."""
    rotation = np.swapaxes(target_from_source[..., :3, :3], -1, -2)
    inverse = np.zeros(target_from_source.shape)
    inverse[..., :3, :3] = rotation
    inverse[..., :3, 3:] = -rotation @ target_from_source[..., :3, 3:]
    inverse[..., 3, 3] = 1
    return inverse


def slerp(
    first: NDArray[np.float64], second: NDArray[np.float64], fraction: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Turns from one rotation to another at constant angular velocity, the short way.

    Args:
        first: (K, 4) unit quaternions at fraction 0.
        second: (K, 4) unit quaternions at fraction 1.
        fraction: (K,); below 0 and above 1 the turning goes on.

    Returns:
        (K, 4) unit quaternions.
    """
    second = np.where((first * second).sum(axis=-1, keepdims=True) < 0, -second, second)
    gap = np.linalg.norm(second - first, axis=-1, keepdims=True)
    angle = 2 * np.arctan2(gap, np.linalg.norm(second + first, axis=-1, keepdims=True))
    u = fraction[:, None]
    # Below this angle the sines equal their arguments to the last bit.
    straight = angle < 1e-8
    sine = np.where(straight, 1.0, np.sin(angle))
    weight_first = np.where(straight, 1 - u, np.sin((1 - u) * angle) / sine)
    weight_second = np.where(straight, u, np.sin(u * angle) / sine)
    turned: NDArray[np.float64] = weight_first * first + weight_second * second
    turned /= np.linalg.norm(turned, axis=-1, keepdims=True)
    return turned


def rigid(matrix: ArrayLike) -> NDArray[np.float64]:
    """Checks that a matrix is a rigid transform and removes what rounding did to its rotation.

    Args:
        matrix: (4, 4), its rotation orthonormal to 1e-3, its translation within a million km.

    Returns:
        (4, 4) with the nearest exact rotation.

    Raises:
        ValueError: If it is anything else.
    """
    given = np.array(matrix, dtype=np.float64)
    if given.shape != (4, 4):
        raise ValueError(f'a transform has shape {given.shape}: give 4 rows of 4 numbers')
    if not np.isfinite(given).all():
        raise ValueError('a transform holds a number that is not finite: give 4 rows of 4 numbers')
    if (given[3] != (0, 0, 0, 1)).any():
        raise ValueError(f'the last row of a transform is {given[3].tolist()}: give 0 0 0 1')
    if np.abs(given[:3, 3]).max() > FARTHEST_M:
        raise ValueError(f'a transform has the translation {given[:3, 3].tolist()}: give metres')
    rotation = given[:3, :3]
    error = float(np.abs(rotation @ rotation.T - np.eye(3)).max())
    if error > _ORTHONORMAL_TOLERANCE:
        raise ValueError(
            f'the rotation of a transform is {error:.2g} away from orthonormal: '
            'give its numbers with at least 4 digits and without scale'
        )
    if np.linalg.det(rotation) < 0:
        raise ValueError('the rotation of a transform is a mirror: swap or negate one axis')
    left, _, right = np.linalg.svd(rotation)
    given[:3, :3] = left @ right
    return given
