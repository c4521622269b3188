# SPDX-License-Identifier: Apache-2.0
"""When something is missing, the node names it and the knob within five seconds of being active."""

from __future__ import annotations

import threading
import time
from array import array
from typing import Any

from rclpy.qos import QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from tests.bench import Bench, camera_info, cloud, image

SECOND = 10**9
PERIOD = SECOND // 10
START = 1_000 * SECOND
BEST_EFFORT = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)


def started(bench: Bench, *remaps: str, **parameters: Any) -> Any:
    """Start the node with a points publisher beside it."""
    points = bench.probe.create_publisher(PointCloud2, '/points', 5)
    bench.perception(*remaps, **parameters)
    bench.wait_active()
    return points


def sweeps(i: int) -> PointCloud2:
    return cloud(START + i * PERIOD)


def infos(i: int) -> CameraInfo:
    return camera_info(START + i * PERIOD)


def test_nobody_publishes_points(bench: Bench) -> None:
    bench.probe.create_publisher(PointCloud2, '/ouster/points', 5)
    bench.perception(cameras=0)
    bench.wait_active()

    bench.finding('nobody publishes /points', '~/input/points:=', '/ouster/points')


def test_topic_of_another_type(bench: Bench) -> None:
    bench.probe.create_publisher(Image, '/points', 5)
    bench.perception(cameras=0)
    bench.wait_active()

    bench.finding('/points carries sensor_msgs/msg/Image', 'remap')


def test_publisher_without_messages_names_both_causes(bench: Bench) -> None:
    started(bench, cameras=0)

    bench.finding('/points', 'idle', 'transport', 'ros2 topic hz /points')


def test_two_publishers_on_one_topic(bench: Bench) -> None:
    points = started(bench, cameras=0)
    other = bench.probe.create_publisher(PointCloud2, '/points', 5)
    bench.publishing({points: sweeps, other: lambda i: cloud(START + i * PERIOD + PERIOD // 3)})

    bench.finding('2 publishers on /points (/probe, /probe)', 'Merge', 'remap ~/input/points')


def test_no_image(bench: Bench) -> None:
    points = started(bench)
    bench.publishing({points: sweeps})

    bench.finding('nobody publishes /camera/image', '~/input/image0:=')


def test_no_camera_info(bench: Bench) -> None:
    images = bench.probe.create_publisher(Image, '/camera/image', 5)
    points = started(bench)
    bench.publishing({points: sweeps, images: lambda i: image(START + i * PERIOD)})

    bench.finding('no CameraInfo', '~/input/camera_info0', 'nobody publishes /camera/camera_info')


def test_no_transform_to_the_camera(bench: Bench) -> None:
    images = bench.probe.create_publisher(Image, '/camera/image', 5)
    calibration = bench.probe.create_publisher(CameraInfo, '/camera/camera_info', 5)
    points = started(bench)
    bench.publishing(
        {points: sweeps, calibration: infos, images: lambda i: image(START + i * PERIOD)}
    )

    bench.finding("no transform from 'lidar' to camera frame 'camera'", 'extrinsics_file')


def test_no_transform_to_the_base_frame(bench: Bench) -> None:
    points = started(bench, cameras=0, base_frame='base_link')
    bench.publishing({points: sweeps})

    bench.finding('sweeps dropped (no_transform)', "'base_link'", 'base_frame')


def test_qos_mismatch(bench: Bench) -> None:
    bench.probe.create_publisher(PointCloud2, '/points', BEST_EFFORT)
    bench.perception(cameras=0, qos__reliability='reliable')
    bench.wait_active()

    bench.finding('incompatible QoS on /points', 'qos.reliability:=auto')


def test_zero_stamps_of_sweeps(bench: Bench) -> None:
    points = started(bench, cameras=0)
    bench.publishing({points: lambda i: cloud(0)})

    bench.finding('/points carries zero stamps', 'sync.stamp_source:=arrival')
    values = bench.sections['points'][2]
    assert int(values['answered']) > 0
    assert values['dropped.duplicate'] == '0'


def test_zero_stamps_of_images_and_the_knob_that_helps(bench: Bench) -> None:
    images = bench.probe.create_publisher(Image, '/camera/image', 5)
    points = started(bench)
    stop = bench.publishing({points: sweeps, images: lambda i: image(0)})
    bench.finding('/camera/image carries zero stamps', 'sync.stamp_source:=arrival')
    stop.set()


def test_matching_by_arrival_needs_no_stamps(bench: Bench) -> None:
    images = bench.probe.create_publisher(Image, '/camera/image', 5)
    points = started(bench, sync__stamp_source='arrival')
    bench.publishing({points: lambda i: cloud(0), images: lambda i: image(0)})

    bench.wait(lambda: int(bench.sections['image0'][2].get('matched', 0)) > 10)


def test_clock_that_jumps_back(bench: Bench) -> None:
    clock = bench.probe.create_publisher(Clock, '/clock', 5)
    points = started(bench, cameras=0, use_sim_time=True)

    def now(i: int) -> Clock:
        message = Clock()
        message.clock.sec, message.clock.nanosec = divmod(START + (i % 20) * PERIOD, SECOND)
        return message

    bench.publishing({clock: now, points: lambda i: cloud(START + (i % 20) * PERIOD)})

    bench.finding('jumped back', 'memory were cleared', 'remap')
    bench.wait(lambda: int(bench.sections['points'][2]['answered']) > 30)
    assert int(bench.sections['points'][2]['dropped.out_of_order']) == 0


def test_clock_that_is_paused(bench: Bench) -> None:
    clock = bench.probe.create_publisher(Clock, '/clock', 5)
    started(bench, cameras=0, use_sim_time=True)
    message = Clock()
    message.clock.sec = 1000
    bench.publishing({clock: lambda i: message})

    bench.finding('/clock has stood still', 'use_sim_time:=false')


def test_sim_time_without_a_clock(bench: Bench) -> None:
    started(bench, cameras=0, use_sim_time=True)

    bench.finding('nobody publishes /clock', '--clock')


def test_camera_whose_images_arrive_late(bench: Bench) -> None:
    images = bench.probe.create_publisher(Image, '/camera/image', 5)
    points = started(bench)
    bench.publishing(
        {points: sweeps, images: lambda i: image(START + (i - 3) * PERIOD) if i > 2 else None}
    )

    text = bench.finding('no matching image on /camera/image', 'ms after the sweep of their time')
    assert 'sync.offsets:=[-0.3' in text


def test_camera_that_is_too_slow_for_the_tolerance(bench: Bench) -> None:
    images = bench.probe.create_publisher(Image, '/camera/image', 5)
    points = started(bench)
    bench.publishing(
        {points: sweeps, images: lambda i: None if i % 10 else image(START + i * PERIOD)}
    )

    text = bench.finding('no matching image on /camera/image', 'the nearest image is')
    assert 'sync.offsets' in text
    assert 'sync.tolerance' in text


def test_camera_on_another_clock(bench: Bench) -> None:
    images = bench.probe.create_publisher(Image, '/camera/image', 5)
    points = started(bench)
    bench.publishing({points: sweeps, images: lambda i: image(START + i * PERIOD + 37 * SECOND)})

    text = bench.finding('no matching image on /camera/image', 'clocks differ')
    assert 'sync.stamp_source:=arrival' in text


def test_gaps_in_the_stamps_are_called_loss(bench: Bench) -> None:
    points = started(bench, cameras=0)
    bench.publishing({points: lambda i: sweeps(i) if i % 4 else None})

    bench.finding('loss:', 'gaps in the stamps', 'qos.reliability')


def test_every_cloud_malformed(bench: Bench) -> None:
    points = started(bench, cameras=0)

    def broken(i: int) -> PointCloud2:
        message = sweeps(i)
        message.data = array('B', bytes(8))
        return message

    bench.publishing({points: broken})

    bench.finding('sweeps dropped (malformed)')


def test_not_activated(bench: Bench) -> None:
    bench.perception(cameras=0, autostart=False)

    bench.finding('unconfigured', 'autostart:=true')


def test_says_so_in_the_log_too(bench: Bench) -> None:
    node = bench.perception(cameras=0)
    lines: list[str] = []
    logged = threading.Event()

    class Recorder:
        def __getattr__(self, level: str) -> Any:
            def log(text: str, **_: Any) -> None:
                lines.append(f'{level}: {text}')
                logged.set()

            return log

    node.get_logger = Recorder
    bench.wait_active()
    assert logged.wait(5)
    time.sleep(2.0)

    named = [line for line in lines if 'nobody publishes /points' in line]
    assert len(named) == 1, 'throttled'
    assert named[0].startswith('warning')
