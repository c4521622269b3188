# SPDX-License-Identifier: Apache-2.0
"""TF arrives over the real /tf and /tf_static, live and from a replayed bag."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from geometry_msgs.msg import TransformStamped
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from offline_training.make_street_bag import write_street_bag
from tests.bench import Bench, camera_info, cloud, image, stamped
from tests.test_processes import demo

tf2_msgs = pytest.importorskip('tf2_msgs.msg', reason='no tf2_msgs with type support here')

START, PERIOD = 10**12, 10**8


def transform(parent: str, child: str, stamp_ns: int, x: float) -> Any:
    message = stamped(TransformStamped(child_frame_id=child), stamp_ns, parent)
    message.transform.translation.x = x
    message.transform.rotation.w = 1.0
    return tf2_msgs.TFMessage(transforms=[message])


def test_ego_motion_and_camera_pose_come_from_tf(bench: Bench) -> None:
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    static = bench.probe.create_publisher(tf2_msgs.TFMessage, '/tf_static', latched)
    static.publish(transform('lidar', 'camera', START, 0.1))
    moving = bench.probe.create_publisher(tf2_msgs.TFMessage, '/tf', 100)
    points = bench.probe.create_publisher(PointCloud2, '/points', 5)
    images = bench.probe.create_publisher(Image, '/camera/image', 5)
    infos = bench.probe.create_publisher(CameraInfo, '/camera/camera_info', 5)
    node = bench.perception()
    bench.wait_active()
    bench.wait(
        lambda: all(
            publisher.get_subscription_count() for publisher in (moving, points, images, infos)
        )
    )
    bench.publishing(
        {
            moving: lambda i: transform('odom', 'lidar', START + i * PERIOD, 0.5 * i),
            infos: lambda i: camera_info(START + i * PERIOD),
            points: lambda i: cloud(START + i * PERIOD),
            images: lambda i: image(START + i * PERIOD),
        }
    )
    bench.wait(lambda: bench.sections['node'][2].get('ego_motion') == 'tf', 5)
    bench.wait(lambda: bench.sections['image0'][0] == 0, 5)

    assert node._life.assembler.notes.get('image0') is None


def test_demo_takes_ego_motion_from_the_tf_of_the_bag(ros_domain: int, tmp_path: Path) -> None:
    sweeps = write_street_bag(tmp_path / 'street', 3, 2.0, beams=16, columns=300)
    out = tmp_path / 'out'
    result = demo(ros_domain, out, '--bag', str(tmp_path / 'street'), '--points', '/lidar/points')

    assert result.returncode == 0, result.stdout + result.stderr
    report = json.loads((out / 'report.json').read_text())
    assert report['ego_motion'] == 'tf'
    assert report['sweeps_in'] == sweeps
    assert not any(report['answers'].values())
