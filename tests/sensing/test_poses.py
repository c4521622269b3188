# SPDX-License-Identifier: Apache-2.0
"""Quaternions and rigid matrices against hand-computed values."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cross4d_jepa_ros.sensing.poses import (
    invert,
    matrix_from_quaternion,
    quaternion_from_matrix,
    rigid,
    slerp,
    transform_points,
)

HALF = math.sqrt(0.5)


def unit_quaternions(count, seed=0):
    quaternions = np.random.default_rng(seed).normal(size=(count, 4))
    return quaternions / np.linalg.norm(quaternions, axis=1, keepdims=True)


@pytest.mark.parametrize(
    ('xyzw', 'moved'),
    [
        ((0, 0, 0, 1), (1, 2, 3)),
        ((0, 0, HALF, HALF), (-2, 1, 3)),
        ((HALF, 0, 0, HALF), (1, -3, 2)),
        ((0, HALF, 0, HALF), (3, 2, -1)),
        ((1, 0, 0, 0), (1, -2, -3)),
        ((0.5, 0.5, 0.5, 0.5), (3, 1, 2)),
    ],
)
def test_quarter_and_half_turns(xyzw, moved):
    matrix = matrix_from_quaternion((10, 20, 30), xyzw)
    assert np.allclose(matrix @ (1, 2, 3, 1), np.append(np.add(moved, (10, 20, 30)), 1))


def test_matrix_to_quaternion_and_back_over_all_branches():
    for xyzw in [*unit_quaternions(200), *np.eye(4), *(unit_quaternions(20) * (1, 1, 1, 1e-9))]:
        unit = xyzw / np.linalg.norm(xyzw)
        matrix = matrix_from_quaternion((0, 0, 0), unit)
        found = quaternion_from_matrix(matrix)
        assert found[3] >= 0
        assert min(np.abs(found - unit).max(), np.abs(found + unit).max()) < 1e-12


def test_many_at_once_equal_one_at_a_time():
    quaternions = unit_quaternions(5)
    shifts = np.arange(15.0).reshape(5, 3)
    many = matrix_from_quaternion(shifts, quaternions)
    for i in range(5):
        assert (many[i] == matrix_from_quaternion(shifts[i], quaternions[i])).all()
        assert (invert(many)[i] == invert(many[i])).all()


def test_invert_undoes():
    matrices = matrix_from_quaternion(np.full((5, 3), 7.0), unit_quaternions(5))
    assert np.abs(invert(matrices) @ matrices - np.eye(4)).max() < 1e-12


@pytest.mark.parametrize('fraction', [-1.0, 0.0, 0.25, 0.5, 1.0, 2.0])
@pytest.mark.parametrize('angle', [1e-10, 1e-4, 1.0, 3.0])
@pytest.mark.parametrize('sign', [1, -1])
def test_slerp_turns_at_constant_velocity(fraction, angle, sign):
    first = np.array([[0.0, 0, 0, 1]])
    second = sign * np.array([[0, 0, math.sin(angle / 2), math.cos(angle / 2)]])
    turned = slerp(first, second, np.array([fraction]))[0]
    wanted = np.array([0, 0, math.sin(fraction * angle / 2), math.cos(fraction * angle / 2)])
    assert min(np.abs(turned - wanted).max(), np.abs(turned + wanted).max()) < 1e-14


def test_rigid_takes_rounded_numbers_and_makes_them_exact():
    matrix = matrix_from_quaternion((1, 2, 3), unit_quaternions(1)[0])
    exact = rigid(matrix.round(4))
    assert np.abs(exact[:3, :3] @ exact[:3, :3].T - np.eye(3)).max() < 1e-14
    assert np.abs(exact - matrix).max() < 2e-4


@pytest.mark.parametrize(
    ('matrix', 'reason'),
    [
        (np.eye(3), 'shape'),
        (np.diag([1, 1, math.nan, 1]), 'finite'),
        (np.eye(4) + np.eye(4)[[3, 0, 1, 2]], 'last row'),
        (np.diag([1.01, 1, 1, 1]), 'orthonormal'),
        (np.diag([1, 1, -1, 1]), 'mirror'),
        (matrix_from_quaternion((0, 0, 2e9), (0, 0, 0, 1)), 'translation'),
    ],
)
def test_rigid_refuses(matrix, reason):
    with pytest.raises(ValueError, match=reason):
        rigid(matrix)


def test_transform_points_is_the_matrix_product():
    rng = np.random.default_rng(4)
    target_from_source = matrix_from_quaternion([1.0, -2.0, 3.0], [0.5, -0.5, 0.5, 0.5])
    xyz = rng.normal(size=(50, 3)).astype(np.float32)
    expected = xyz @ target_from_source[:3, :3].T + target_from_source[:3, 3]
    np.testing.assert_allclose(transform_points(target_from_source, xyz), expected, atol=1e-6)
    assert transform_points(target_from_source, xyz[:0]).shape == (0, 3)
