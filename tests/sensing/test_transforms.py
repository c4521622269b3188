# SPDX-License-Identifier: Apache-2.0
"""The frame tree: composition, interpolation in time, refusals."""

from __future__ import annotations

import math
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from cross4d_jepa_ros.sensing.poses import invert, matrix_from_quaternion
from cross4d_jepa_ros.sensing.transforms import TransformBuffer, TransformError

MS = 1_000_000
S = 1_000_000_000
T0 = 1_700_000_000 * S
IDENTITY = (0.0, 0.0, 0.0, 1.0)


def yaw(angle):
    return (0.0, 0.0, math.sin(angle / 2), math.cos(angle / 2))


def header(frame, stamp_ns):
    sec, nanosec = divmod(stamp_ns, S)
    return SimpleNamespace(frame_id=frame, stamp=SimpleNamespace(sec=sec, nanosec=nanosec))


def vector(xyz):
    return SimpleNamespace(x=xyz[0], y=xyz[1], z=xyz[2])


def quaternion(xyzw):
    return SimpleNamespace(x=xyzw[0], y=xyzw[1], z=xyzw[2], w=xyzw[3])


def tf(parent, child, stamp_ns=T0, xyz=(0.0, 0.0, 0.0), xyzw=IDENTITY):
    transform = SimpleNamespace(translation=vector(xyz), rotation=quaternion(xyzw))
    return SimpleNamespace(
        transforms=[
            SimpleNamespace(
                header=header(parent, stamp_ns), child_frame_id=child, transform=transform
            )
        ]
    )


def odometry(parent, child, stamp_ns=T0, xyz=(0.0, 0.0, 0.0), xyzw=IDENTITY):
    pose = SimpleNamespace(position=vector(xyz), orientation=quaternion(xyzw))
    return SimpleNamespace(
        header=header(parent, stamp_ns),
        child_frame_id=child,
        pose=SimpleNamespace(pose=pose),
    )


def moving(samples, parent='odom', child='base', **options):
    """A buffer with one moving edge of (stamp ms, x, yaw) samples."""
    buffer = TransformBuffer(**options)
    for stamp, x, angle in samples:
        buffer.add_tf_message(
            tf(parent, child, T0 + stamp * MS, (x, 0.0, 0.0), yaw(angle)), static=False
        )
    return buffer


def x_and_yaw(matrix):
    return matrix[0, 3], math.atan2(matrix[1, 0], matrix[0, 0])


def kind(buffer, target, source, stamp_ns=T0, **options):
    with pytest.raises(TransformError) as error:
        buffer.lookup(target, source, stamp_ns, **options)
    return error.value.kind


def test_static_chain_up_and_down():
    buffer = TransformBuffer()
    base_from_lidar = matrix_from_quaternion((1, 0, 2), yaw(0.3))
    base_from_camera = matrix_from_quaternion((2, 0.5, 1), (0.5, -0.5, 0.5, -0.5))
    buffer.add_static('base', 'lidar', base_from_lidar)
    buffer.add_tf_message(tf('base', 'mast', 0, (2, 0.5, 1)), static=True)
    buffer.add_tf_message(tf('mast', 'camera', 0, xyzw=(0.5, -0.5, 0.5, -0.5)), static=True)
    found = buffer.lookup('camera', 'lidar', T0)
    assert np.allclose(found, np.linalg.inv(base_from_camera) @ base_from_lidar, atol=1e-14)
    assert np.allclose(buffer.lookup('base', 'camera', 0), base_from_camera, atol=1e-14)
    assert np.allclose(buffer.lookup('lidar', 'camera', 5), np.linalg.inv(found), atol=1e-14)
    assert buffer.frames() == ['base', 'camera', 'lidar', 'mast']
    assert buffer.rejected == 0


def test_interpolates_position_and_heading():
    buffer = moving([(0, 0.0, 0.0), (100, 1.0, 0.4), (200, 5.0, -0.4)])
    for stamp, x, angle in [(0, 0, 0), (25, 0.25, 0.1), (100, 1, 0.4), (150, 3, 0), (200, 5, -0.4)]:
        assert np.allclose(x_and_yaw(buffer.lookup('odom', 'base', T0 + stamp * MS)), (x, angle))


def test_many_stamps_equal_one_at_a_time():
    buffer = moving([(i * 20, math.sin(i), 0.1 * i) for i in range(30)])
    buffer.add_static('base', 'lidar', matrix_from_quaternion((1, 0, 2), yaw(0.3)))
    stamps = T0 + np.arange(-40, 640, 7, dtype=np.int64) * MS
    many = buffer.lookup_many('lidar', 'odom', stamps, max_extrapolation_ns=100 * MS)
    for stamp, matrix in zip(stamps, many, strict=True):
        one = buffer.lookup('lidar', 'odom', int(stamp), max_extrapolation_ns=100 * MS)
        assert np.abs(one - matrix).max() < 1e-12
    assert buffer.lookup_many('lidar', 'odom', stamps[:0]).shape == (0, 4, 4)


def test_static_lookup_of_many_stamps_has_one_matrix_each():
    buffer = TransformBuffer()
    buffer.add_static('a', 'b', matrix_from_quaternion((1, 2, 3), IDENTITY))
    many = buffer.lookup_many('b', 'a', np.arange(3, dtype=np.int64))
    assert many.shape == (3, 4, 4)
    assert (many[:, :3, 3] == (-1, -2, -3)).all()
    assert buffer.lookup_many('a', 'a', np.arange(3, dtype=np.int64)).shape == (3, 4, 4)


@pytest.mark.parametrize(
    ('stamp', 'x', 'angle'), [(-50, -0.5, -0.2), (250, 7.0, -0.8), (200, 5, -0.4), (0, 0, 0)]
)
def test_goes_on_at_constant_velocity_beyond_the_samples(stamp, x, angle):
    buffer = moving([(0, 0.0, 0.0), (100, 1.0, 0.4), (200, 5.0, -0.4)])
    found = buffer.lookup('odom', 'base', T0 + stamp * MS, max_extrapolation_ns=50 * MS)
    assert np.allclose(x_and_yaw(found), (x, angle))


def test_holds_a_single_sample():
    buffer = moving([(0, 3.0, 0.5)])
    for stamp in (-10, 0, 10):
        found = buffer.lookup('odom', 'base', T0 + stamp * MS, max_extrapolation_ns=10 * MS)
        assert np.allclose(x_and_yaw(found), (3, 0.5))


def test_takes_no_velocity_from_samples_microseconds_apart():
    buffer = TransformBuffer()
    stamps = [T0, T0 + 100 * MS, T0 + 100 * MS + 500]
    for stamp, x in zip(stamps, (0.0, 1.0, 1.01), strict=True):
        buffer.add_tf_message(tf('odom', 'base', stamp, (x, 0, 0)), static=False)
    found = buffer.lookup('odom', 'base', T0 + 200 * MS, max_extrapolation_ns=S)
    assert abs(found[0, 3] - 2.02) < 1e-4
    early = TransformBuffer()
    for stamp, x in ((T0 - 500, -0.01), (T0, 0.0), (T0 + 100 * MS, 1.0)):
        early.add_tf_message(tf('odom', 'base', stamp, (x, 0, 0)), static=False)
    found = early.lookup('odom', 'base', T0 - 100 * MS, max_extrapolation_ns=S)
    assert abs(found[0, 3] + 1.02) < 1e-4
    close = TransformBuffer()
    for stamp, x in zip(stamps[1:], (1.0, 1.01), strict=True):
        close.add_tf_message(tf('odom', 'base', stamp, (x, 0, 0)), static=False)
    assert close.lookup('odom', 'base', T0 + 200 * MS, max_extrapolation_ns=S)[0, 3] == 1.01
    assert close.lookup('odom', 'base', T0, max_extrapolation_ns=S)[0, 3] == 1.0


def test_says_by_how_much_a_stamp_is_missed():
    buffer = moving([(0, 0.0, 0.0), (100, 1.0, 0.0)])
    with pytest.raises(TransformError, match=r"'odom' -> 'base'.* until 0\.085 s before") as error:
        buffer.lookup('odom', 'base', T0 + 185 * MS, max_extrapolation_ns=84 * MS)
    assert error.value.kind == 'future'
    with pytest.raises(TransformError, match=r'from 0\.020 s after') as error:
        buffer.lookup('base', 'odom', T0 - 20 * MS)
    assert error.value.kind == 'past'


def test_unknown_and_separate_frames():
    buffer = moving([(0, 0.0, 0.0)])
    buffer.add_static('rig', 'camera', np.eye(4))
    assert kind(buffer, 'odom', 'lidar') == 'unknown_frame'
    assert kind(buffer, '', 'odom') == 'unknown_frame'
    assert kind(buffer, '', '') == 'unknown_frame'
    assert kind(buffer, 'base', 'camera') == 'not_connected'
    assert (buffer.lookup('nowhere', '/nowhere', T0) == np.eye(4)).all()


def test_leading_slashes_do_not_matter():
    buffer = TransformBuffer()
    buffer.add_tf_message(tf('/odom', '//base', T0, (1, 0, 0)), static=False)
    assert buffer.lookup('/odom', 'base', T0)[0, 3] == 1
    assert buffer.frames() == ['base', 'odom']


def test_motion_source():
    buffer = moving([(0, 0.0, 0.0)])
    buffer.add_static('base', 'lidar', np.eye(4))
    buffer.add_static('base', 'camera', np.eye(4))
    buffer.add_odometry(odometry('wheel_odom', 'wheel'))
    assert buffer.motion_source('odom', 'lidar') == 'tf'
    assert buffer.motion_source('camera', 'lidar') == 'static'
    assert buffer.motion_source('wheel_odom', 'wheel') == 'odometry'
    assert buffer.motion_source('odom', 'wheel') is None
    assert buffer.motion_source('odom', 'elsewhere') is None


def test_only_the_edges_on_the_path_matter():
    buffer = moving([(0, 0.0, 0.0)])
    buffer.add_static('base', 'lidar', np.eye(4))
    buffer.add_static('base', 'camera', matrix_from_quaternion((1, 0, 0), IDENTITY))
    assert buffer.lookup('camera', 'lidar', T0 + 99 * S)[0, 3] == -1


def test_tf_wins_over_odometry_for_the_same_frames():
    buffer = TransformBuffer()
    buffer.add_odometry(odometry('odom', 'base', T0, (5, 0, 0)))
    assert buffer.lookup('odom', 'base', T0)[0, 3] == 5
    buffer.add_tf_message(tf('odom', 'base', T0, (6, 0, 0)), static=False)
    buffer.add_odometry(odometry('odom', 'base', T0, (7, 0, 0)))
    assert buffer.lookup('odom', 'base', T0)[0, 3] == 6
    assert buffer.motion_source('odom', 'base') == 'tf'
    assert buffer.rejected == 0


def test_samples_out_of_order_and_twice():
    buffer = moving([(0, 0.0, 0), (100, 10.0, 0), (50, 1.0, 0), (50, 2.0, 0)])
    for stamp, x in ((25, 1.0), (50, 2.0), (75, 6.0)):
        assert math.isclose(buffer.lookup('odom', 'base', T0 + stamp * MS)[0, 3], x)


def test_a_large_step_back_starts_again():
    buffer = moving([(5_000, 1.0, 0), (5_100, 1.0, 0), (4_100, 2.0, 0)])
    assert math.isclose(buffer.lookup('odom', 'base', T0 + 4_100 * MS)[0, 3], 2)
    assert buffer.lookup('odom', 'base', T0 + 5_100 * MS)[0, 3] == 1
    buffer.add_tf_message(tf('odom', 'base', T0, (9, 0, 0)), static=False)
    assert buffer.lookup('odom', 'base', T0)[0, 3] == 9
    assert kind(buffer, 'odom', 'base', T0 + 5_100 * MS) == 'future'


def test_memory_is_bounded_in_time_and_number():
    buffer = moving([(i * 100, 0.0, 0.0) for i in range(100)], keep_s=2.0)
    assert kind(buffer, 'odom', 'base', T0 + 7_899 * MS) == 'past'
    buffer.lookup('odom', 'base', T0 + 7_900 * MS)
    many = TransformBuffer()
    for i in range(10_050):
        many.add_tf_message(tf('odom', 'base', T0 + i * 1_000), static=False)
    assert kind(many, 'odom', 'base', T0 + 49_999) == 'past'
    many.lookup('odom', 'base', T0 + 50_000)


@pytest.mark.parametrize(
    ('message', 'static', 'reason'),
    [
        (tf('a', 'x', xyz=(math.nan, 0, 0)), False, 'translation'),
        (tf('a', 'x', xyz=(0, math.inf, 0)), True, 'translation'),
        (tf('a', 'x', xyzw=(0, 0, 0, 0)), True, 'norm 0 '),
        (tf('a', 'x', xyzw=(0, 0, 0, 1.02)), False, 'norm 1.02'),
        (tf('a', 'x', xyzw=(math.nan, 0, 0, 1)), False, 'norm nan'),
        (tf('a', ''), True, 'empty'),
        (tf('/', 'x'), False, 'empty'),
        (tf('x', 'x'), True, 'loop'),
        (tf('c', 'a'), False, 'loop'),
        (tf('z', 'c'), False, "already has the parent 'b'"),
        (tf('a', 'b'), False, 'was static'),
        (tf('odom', 'a'), True, 'was tf'),
        (tf('a', 'x', stamp_ns=0), False, 'stamp is zero'),
    ],
)
def test_refuses_what_cannot_be(message, static, reason):
    buffer = moving([(0, 0.0, 0.0)], child='a')
    buffer.add_tf_message(tf('a', 'b'), static=True)
    buffer.add_tf_message(tf('b', 'c'), static=True)
    frames = buffer.frames()
    buffer.add_tf_message(message, static=static)
    assert buffer.rejected == 1
    assert reason in buffer.last_rejection
    assert buffer.frames() == frames
    assert (buffer.lookup('a', 'c', T0) == np.eye(4)).all()


@pytest.mark.parametrize('matrix', [np.eye(3), np.diag([2.0, 1, 1, 1]), np.full((4, 4), math.nan)])
def test_refuses_static_matrices_that_are_not_rigid(matrix):
    buffer = TransformBuffer()
    buffer.add_static('a', 'b', matrix)
    assert (buffer.rejected, buffer.frames()) == (1, [])


def test_refuses_odometry_without_a_child_frame():
    buffer = TransformBuffer()
    buffer.add_odometry(odometry('odom', ''))
    assert "'odom' -> ''" in buffer.last_rejection


def test_slightly_long_quaternions_are_made_unit():
    buffer = TransformBuffer()
    long = tuple(1.009 * value for value in yaw(0.7))
    buffer.add_tf_message(tf('a', 'b', xyzw=long), static=True)
    found = buffer.lookup('a', 'b', T0)
    assert np.abs(found[:3, :3] @ found[:3, :3].T - np.eye(3)).max() < 1e-14


def test_far_from_the_origin_stays_exact():
    east, north = 500_000.123456789, 5_400_000.987654321
    buffer = TransformBuffer()
    for i in (0, 1):
        buffer.add_tf_message(
            tf('utm', 'base', T0 + i * 100 * MS, (east + i, north, 0), yaw(0.6)), static=False
        )
    base_from_lidar = matrix_from_quaternion((1.2, 0, 1.9), yaw(0.01))
    buffer.add_static('base', 'lidar', base_from_lidar)
    buffer.add_static('base', 'camera', matrix_from_quaternion((1.5, 0.1, 1.2), yaw(-0.3)))
    found = buffer.lookup('utm', 'lidar', T0 + 50 * MS)
    wanted = matrix_from_quaternion((east + 0.5, north, 0), yaw(0.6)) @ base_from_lidar
    assert np.abs(found - wanted).max() < 1e-9 * east
    first, second = buffer.lookup_many('utm', 'lidar', np.array([T0, T0 + 100 * MS]))
    assert abs(np.linalg.norm((invert(first) @ second)[:3, 3]) - 1) < 1e-8
    near = buffer.lookup('camera', 'lidar', T0)
    assert np.abs(near - buffer.lookup('camera', 'base', T0) @ base_from_lidar).max() < 1e-14


def test_threads_read_while_one_writes():
    buffer = moving([(0, 0.0, 0.0)], keep_s=0.5)
    failures = []
    done = threading.Event()

    def read():
        while not done.is_set():
            try:
                matrix = buffer.lookup('odom', 'base', T0 + S, max_extrapolation_ns=10 * S)
                assert abs(matrix[0, 3] - 1) < 1e-6 or matrix[0, 3] == 0
            except Exception as error:
                failures.append(error)
                return

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for i in range(1, 1_000):
        buffer.add_tf_message(tf('odom', 'base', T0 + i * 2 * MS, (i * 0.002, 0, 0)), static=False)
    done.set()
    for reader in readers:
        reader.join(10)
    assert failures == []


@pytest.mark.parametrize('static', [True, False])
@pytest.mark.parametrize('tf_first', [True, False])
def test_calibration_file_wins_over_tf(static, tf_first):
    buffer = TransformBuffer()
    calibrated = np.eye(4)
    calibrated[0, 3] = 2.0
    steps = [
        lambda: buffer.add_tf_message(tf('lidar', 'camera', T0, xyz=(9, 0, 0)), static=static),
        lambda: buffer.add_static('lidar', 'camera', calibrated),
    ]
    for step in steps if tf_first else reversed(steps):
        step()
    assert buffer.lookup('lidar', 'camera', T0)[0, 3] == 2.0
    assert buffer.rejected == 0
