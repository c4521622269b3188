# SPDX-License-Identifier: Apache-2.0
"""What the doctor hears on a live graph."""

from __future__ import annotations

import json
import time
from array import array
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from cross4d_jepa_ros.doctor import __main__ as doctor
from cross4d_jepa_ros.doctor.graph import NAMELESS, _Ear, silence
from cross4d_jepa_ros.ros.parameters import declare, read
from cross4d_jepa_ros.sensing.extrinsics import CameraExtrinsics, Extrinsics, save_extrinsics
from tests.bench import Bench, cloud, stamped

POINTS, IMAGE, INFO = '/points', '/camera/image', '/camera/camera_info'
BEST_EFFORT = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
OPTICAL_FROM_LIDAR = np.array([[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]], float)


WIDTH, HEIGHT = 320, 240


def picture(stamp_ns: int) -> Image:
    message = Image(height=HEIGHT, width=WIDTH, encoding='rgb8', step=3 * WIDTH)
    message.data = array('B', bytes(3 * WIDTH * HEIGHT))
    return stamped(message, stamp_ns, 'camera')


def calibration(stamp_ns: int) -> CameraInfo:
    """A camera that looks 90 degrees wide."""
    message = CameraInfo(height=HEIGHT, width=WIDTH, distortion_model='plumb_bob', d=[0.0] * 5)
    message.k = [160.0, 0.0, 160.0, 0.0, 160.0, 120.0, 0.0, 0.0, 1.0]
    return stamped(message, stamp_ns, 'camera')


def drive(bench: Bench) -> None:
    """Publish what a robot would, the sweeps best effort."""
    bench.publishing(
        {
            bench.probe.create_publisher(PointCloud2, POINTS, BEST_EFFORT): lambda i: cloud(
                time.time_ns(), seed=i
            ),
            bench.probe.create_publisher(Image, IMAGE, 5): lambda _: picture(time.time_ns()),
            bench.probe.create_publisher(CameraInfo, INFO, 5): lambda _: calibration(
                time.time_ns()
            ),
        }
    )


def heard(
    bench: Bench, folder: Path, monkeypatch: pytest.MonkeyPatch, *words: str
) -> tuple[int, dict[str, Any]]:
    """Run the doctor beside the bench; returns its exit code and report."""
    monkeypatch.setenv('ROS_DOMAIN_ID', str(bench.domain))
    path = folder / 'camera.yaml'
    entry = CameraExtrinsics('cam0', IMAGE, None, OPTICAL_FROM_LIDAR, 0.0, None)
    save_extrinsics(path, Extrinsics((entry,), ()))
    given = ['--extrinsics', str(path), '--seconds', '2', '--out', str(folder / 'out')]
    code = doctor.main([*given, *words])
    report = folder / 'out/report.json'
    return code, json.loads(report.read_text()) if report.exists() else {}


def sentences(report: dict[str, Any], about: str, level: str) -> list[str]:
    return [
        entry['sentence']
        for entry in report['findings']
        if (entry['about'], entry['level']) == (about, level)
    ]


def test_live_topics_get_their_rate_qos_clock_and_command(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drive(bench)
    answering = Node('perception_node', context=bench.context, use_global_arguments=False)
    answering.create_publisher(PointCloud2, '/perception_node/output/embeddings_rgb', 5)
    bench.spin(answering)
    code, report = heard(bench, tmp_path, monkeypatch)

    assert code == 0, report
    assert not [entry for entry in report['findings'] if '/output/' in entry['about']]
    (points,) = sentences(report, f'topic {POINTS}', 'ok')
    assert points.startswith('sensor_msgs/msg/PointCloud2')
    assert 'offers best_effort' in points
    (stamps,) = sentences(report, f'stamps {POINTS}', 'ok')
    assert 'ms behind the clock' in stamps
    assert sentences(report, f'CameraInfo {IMAGE}', 'ok')
    assert sentences(report, f'transform {IMAGE}', 'ok')
    assert report['source'] == 'live'
    assert f"points:={POINTS} 'images:=[{IMAGE}]'" in report['launch']
    assert (tmp_path / 'out/projection_camera.png').exists()
    with_file = ['--ros-args', '--params-file', str(tmp_path / 'out/perception.yaml')]
    node = Node('reader', context=bench.context, use_global_arguments=False, cli_args=with_file)
    declare(node)
    assert read(node).sync.offsets_s == tuple(report['parameters']['sync.offsets'])
    node.destroy_node()


def test_whoever_asks_for_reliable_is_named(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drive(bench)
    bench.probe.create_subscription(PointCloud2, POINTS, repr, 5)
    code, report = heard(bench, tmp_path, monkeypatch, '--reliability', 'reliable')

    assert code == 1
    (refused,) = sentences(report, f'QoS {POINTS}', 'error')
    assert '/probe offers best_effort, /probe asks for reliable and gets nothing' in refused
    (own,) = sentences(report, f'topic {POINTS}', 'error')
    assert 'the node asks for reliable' in own


def test_a_reliable_publisher_serves_whoever_asks_for_less(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.publishing(
        {bench.probe.create_publisher(PointCloud2, POINTS, 5): lambda i: cloud(time.time_ns())}
    )
    bench.probe.create_subscription(PointCloud2, POINTS, repr, BEST_EFFORT)
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    bench.probe.create_subscription(PointCloud2, POINTS, repr, latched)
    code, report = heard(bench, tmp_path, monkeypatch, '--reliability', 'best_effort')

    assert code == 1
    (points,) = sentences(report, f'topic {POINTS}', 'ok')
    assert 'offers reliable' in points
    (refused,) = sentences(report, f'QoS {POINTS}', 'error')
    assert '/probe offers volatile, /probe asks for transient_local' in refused


def test_a_silent_domain_is_an_answer(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr('cross4d_jepa_ros.doctor.graph.DISCOVERY_S', 1.0)
    code, report = heard(bench, tmp_path, monkeypatch)

    assert code == 2
    assert not report
    assert f'in domain {bench.domain}; ' in ' '.join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ('published', 'environment', 'words'),
    [
        (('/joints', '/rosout'), {}, ('there is only: /joints.', 'neither is set')),
        ((), {}, ('no other node is seen', 'another ROS_DOMAIN_ID than 3', 'rmw_fastrtps_cpp')),
        ((), {'ROS_LOCALHOST_ONLY': '1'}, ('here: ROS_LOCALHOST_ONLY=1', '--bag')),
        ((), {'ROS_AUTOMATIC_DISCOVERY_RANGE': 'OFF'}, ('ROS_AUTOMATIC_DISCOVERY_RANGE=OFF',)),
    ],
)
def test_silence_has_its_usual_causes(
    published: tuple[str, ...], environment: dict[str, str], words: tuple[str, ...]
) -> None:
    node = SimpleNamespace(
        get_topic_names_and_types=lambda: [(name, []) for name in (*published, '/asked_for')],
        count_publishers=lambda name: int(name in published),
    )
    sentence = silence(node, 3, environment)
    assert [word for word in words if word not in sentence] == []


@pytest.mark.parametrize(
    ('names', 'heard'),
    [
        (('lidar', 'lidar'), True),
        ((NAMELESS, NAMELESS), True),
        (('perception_node', 'perception_node'), False),
        ((NAMELESS, 'perception_node'), False),
    ],
)
def test_a_publisher_that_is_found_before_its_node_is_asked_again(
    names: tuple[str, str], heard: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the node itself answers is told by the name of its publisher's node."""
    now_s = iter((0.0, 0.0, 0.5, 0.5, 1.5, 1.5))
    monkeypatch.setattr('cross4d_jepa_ros.doctor.graph.time.monotonic', lambda: next(now_s))
    seen = iter((names[0], names[1], names[1]))
    listened: list[str] = []
    node = SimpleNamespace(
        get_topic_names_and_types=lambda: [
            ('/perception_node/output/embeddings', ['sensor_msgs/msg/PointCloud2'])
        ],
        get_publishers_info_by_topic=lambda _: [
            SimpleNamespace(node_name=next(seen), node_namespace='/')
        ],
    )
    ear = _Ear(node, None)  # type: ignore[arg-type]
    monkeypatch.setattr(ear, '_listen', lambda topic, *_: listened.append(topic))
    for _ in range(3):
        ear.poll()

    assert bool(listened) == heard
