# SPDX-License-Identifier: Apache-2.0
"""The node as a process: big clouds from another process, signals, arguments, the whole demo."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from array import array
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import rclpy
from rclpy._rclpy_pybind11 import RCLError
from rclpy.executors import SingleThreadedExecutor
from rclpy.serialization import serialize_message

from cross4d_jepa_ros import perception_node
from cross4d_jepa_ros.bags import Bag, BagWriter
from cross4d_jepa_ros.children import child_process
from cross4d_jepa_ros.ledger import Drop
from cross4d_jepa_ros.ros.transport import profile_variable
from offline_training.make_street_bag import write_street_bag
from offline_training.street.classes import CLASS_NAMES
from tests.bench import Bench, cloud
from tests.modules import run_module

ROOT = Path(__file__).resolve().parents[1]
NODE = ['cross4d_jepa_ros.perception_node', '--ros-args', '-r', '~/input/points:=/points']


def environment(domain: int, *, profile: bool = True) -> dict[str, str]:
    path = os.pathsep.join((str(ROOT), os.environ.get('PYTHONPATH', '')))
    result = {**os.environ, 'ROS_DOMAIN_ID': str(domain), 'PYTHONPATH': path}
    if not profile:
        result.pop(profile_variable(), None)
    return result


def process(
    domain: int, *arguments: str, profile: bool = True, **options: Any
) -> AbstractContextManager[subprocess.Popen[str]]:
    return child_process(
        [sys.executable, '-m', *arguments],
        cwd=ROOT,
        env=environment(domain, profile=profile),
        text=True,
        **options,
    )


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Put back what a node's process changes for good."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    rclpy.try_shutdown()
    signal.signal(signal.SIGTERM, before)


def received(bench: Bench) -> int:
    return int(bench.sections.get('points', (0, '', {}))[2].get('received', 0))


@pytest.mark.real_time
def test_every_large_best_effort_cloud_arrives_with_the_profile(bench: Bench) -> None:
    with (
        process(bench.domain, *NODE, '-p', 'cameras:=0'),
        process(
            bench.domain, 'tests.large_cloud_publisher', '112000', '20', stdout=subprocess.PIPE
        ) as publisher,
    ):
        bench.wait_active()
        assert publisher.stdout is not None
        sent = int(publisher.stdout.readline())
        bench.wait(lambda: received(bench) == sent, 5)
        values = bench.sections['points'][2]

    assert sent == 200
    assert values['lost_recently'] == '0'
    accounted = int(values['answered']) + int(values['in_flight'])
    assert accounted + sum(int(values[f'dropped.{cause}']) for cause in Drop) == 200


def test_without_the_profile_the_node_says_why_clouds_are_missing(bench: Bench) -> None:
    with (
        process(bench.domain, *NODE, '-p', 'cameras:=0', profile=False),
        process(
            bench.domain,
            'tests.large_cloud_publisher',
            '112000',
            '12',
            profile=False,
            stdout=subprocess.PIPE,
        ),
    ):
        bench.wait_active()
        # Some releases let a few clouds through: then it is loss, else it is silence.
        bench.wait(
            lambda: any(
                ('transport loss' in text and 'idle' in text) or 'loss:' in text
                for _, text, _ in bench.sections.values()
            ),
            12,
        )
        text = bench.sections['points'][1]

    assert 'without a Fast DDS profile' in text
    assert profile_variable() in text
    assert 'fastdds_large_data.xml' in text


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_signals_end_the_node_cleanly(bench: Bench, number: signal.Signals) -> None:
    with process(bench.domain, *NODE, stderr=subprocess.PIPE) as node:
        bench.wait_active()
        node.send_signal(number)
        _, errors = node.communicate(timeout=15)

    assert node.returncode == 0
    assert 'Traceback' not in errors


@pytest.mark.parametrize(
    ('argument', 'words'),
    [('device:=tpu', 'take one of auto, cpu, cuda'), ('sync.tolerance:=fast', 'sync.tolerance')],
)
def test_wrong_parameters_are_refused_in_one_line(
    ros_domain: int,
    argument: str,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv('ROS_DOMAIN_ID', str(ros_domain))
    assert perception_node.main([*NODE[1:], '-p', argument]) == 2
    errors = capfd.readouterr().err
    assert words in errors
    assert 'Traceback' not in errors


def test_a_process_with_a_wrong_parameter_ends_with_its_exit_code(ros_domain: int) -> None:
    with process(ros_domain, *NODE, '-p', 'cameras:=9', stderr=subprocess.PIPE) as node:
        _, errors = node.communicate(timeout=30)

    assert node.returncode == 2
    assert 'cameras' in errors
    assert 'Traceback' not in errors


@pytest.mark.parametrize(
    ('error', 'signalled', 'code'),
    [
        (KeyboardInterrupt(), False, 0),
        (KeyboardInterrupt(), True, 0),
        (RuntimeError('the context is invalid'), True, 0),
        (RuntimeError('a defect'), False, None),
    ],
)
def test_a_signal_while_the_node_is_being_made(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, signalled: bool, code: int | None
) -> None:
    def made() -> None:
        if signalled:
            rclpy.shutdown()
        raise error

    monkeypatch.setattr(perception_node, 'PerceptionNode', made)
    if code is None:
        with pytest.raises(RuntimeError, match='a defect'):
            perception_node.main([])
    else:
        assert perception_node.main([]) == code


@pytest.mark.parametrize('interrupted', [True, False])
def test_a_signal_between_the_making_and_the_spinning_of_a_node(
    monkeypatch: pytest.MonkeyPatch, interrupted: bool
) -> None:
    node = Mock()

    def made() -> Mock:
        if not interrupted:
            rclpy.shutdown()
        return node

    monkeypatch.setattr(perception_node, 'PerceptionNode', made)
    if interrupted:
        adding = Mock(side_effect=KeyboardInterrupt)
        monkeypatch.setattr(SingleThreadedExecutor, 'add_node', adding)

    assert perception_node.main([]) == 0
    node.close.assert_called_once()


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_does_not_wait_for_a_model_to_be_loaded(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def made() -> None:
        os.kill(os.getpid(), number)
        time.sleep(20)

    monkeypatch.setattr(perception_node, 'PerceptionNode', made)
    start = time.monotonic()

    assert perception_node.main([]) == 0
    assert time.monotonic() - start < 10


def test_a_signal_that_ends_the_context_first_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    shut_down = rclpy.try_shutdown

    def made() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(20)

    def late() -> None:
        shut_down()
        raise RCLError('rcl_shutdown already called on the given context')

    monkeypatch.setattr(perception_node, 'PerceptionNode', made)
    monkeypatch.setattr(rclpy, 'try_shutdown', late)

    assert perception_node.main([]) == 0


def demo(domain: int, out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    words = ('--out', str(out), *arguments)
    return run_module('cross4d_jepa_ros.demo', *words, timeout_s=180, ROS_DOMAIN_ID=str(domain))


@pytest.mark.real_time
def test_demo_leaves_its_report_and_pictures(ros_domain: int, tmp_path: Path) -> None:
    sweeps = write_street_bag(tmp_path / 'street', 3, 2.0, beams=16, columns=300)
    out = tmp_path / 'out'
    result = demo(
        ros_domain,
        out,
        *('--bag', str(tmp_path / 'street'), '--points', '/lidar/points', '--images'),
        *(f'/camera_{side}/image_raw/compressed' for side in ('left', 'right')),
    )

    assert result.returncode == 0, result.stdout + result.stderr
    report = json.loads((out / 'report.json').read_text())
    page = (ROOT / 'docs' / 'own_bag.md').read_text().partition('## What it leaves')[2]
    shown = [re.findall(r'`(\w+)`', cell) for cell in re.findall(r'^\| ([^|]+) \|', page, re.M)]
    assert {name for names in shown for name in names} == set(report)
    assert report['sweeps_in'] == report['transport']['sent'] == sweeps
    assert report['transport']['received'] == sweeps
    assert set(report['dropped']) == {str(cause) for cause in Drop}
    assert report['sweeps_out'] == sweeps - sum(report['dropped'].values()) - report['in_flight']
    assert report['sweeps_out'] == report['answers_received'] > 0.8 * sweeps
    assert not any(report['answers'].values())
    assert {'wrong_count', 'wrong_stamp', 'wrong_frame'} <= set(report['answers'])
    has_tf = importlib.util.find_spec('tf2_msgs') is not None
    assert report['ego_motion'] == ('tf' if has_tf else 'odometry')
    assert 0 < report['latency_ms']['p50'] <= report['latency_ms']['p95']
    assert 0 < report['age_ms']['p50'] <= report['age_ms']['p95']
    for offsets in report['sync_offset_ms'].values():
        assert 8 <= offsets['min'] <= offsets['median'] <= offsets['max'] <= 15
        assert offsets['missing'] <= 1
    with Bag(tmp_path / 'street') as bag:
        points = [m.height * m.width for m in map(bag.deserialise, bag.messages(['/lidar/points']))]
    answered = report['sweeps_out'] / sweeps
    assert answered * sum(points) == pytest.approx(report['points_scored'], rel=0.05)
    assert tuple(report['class_iou']) == CLASS_NAMES
    present = [iou for iou in report['class_iou'].values() if iou is not None]
    assert report['miou'] == pytest.approx(sum(present) / len(present), abs=1e-3)
    assert report['classes_absent'] == [n for n, iou in report['class_iou'].items() if iou is None]
    assert 'mIoU' in result.stdout
    assert 'no pictures' not in str(report['problems'])
    for name in ('segmentation.png', 'embeddings.png'):
        assert (out / name).read_bytes().startswith(b'\x89PNG')


def test_demo_names_the_topics_there_are(ros_domain: int, tmp_path: Path) -> None:
    write_street_bag(tmp_path / 'street', 3, 0.3, beams=4, columns=60)
    result = demo(
        ros_domain, tmp_path, '--bag', str(tmp_path / 'street'), '--points', '/velodyne_points'
    )

    assert result.returncode == 2
    assert '/lidar/points' in result.stdout
    assert 'Traceback' not in result.stderr


def test_demo_on_a_bag_with_nothing_but_odd_clouds(ros_domain: int, tmp_path: Path) -> None:
    """No TF, no camera; zero stamps, an empty cloud without fields, a damaged message."""
    with BagWriter(tmp_path / 'bag') as writer:
        for index in range(8):
            message = cloud(0 if index < 3 else 10**12 + index * 10**8, 300, seed=index)
            if index == 5:
                message.height = message.width = message.point_step = message.row_step = 0
                message.fields, message.data = [], array('B')
            raw = serialize_message(message)
            bag_stamp_ns = 10**12 + index * 10**8
            writer.write('/points', 'sensor_msgs/msg/PointCloud2', bag_stamp_ns, raw)
        writer.write('/points', 'sensor_msgs/msg/PointCloud2', 10**12 + 10**9, raw[:40])
    out = tmp_path / 'not' / 'there'
    result = demo(ros_domain, out, '--bag', str(tmp_path / 'bag'))

    assert result.returncode == 0, result.stdout + result.stderr
    report = json.loads((out / 'report.json').read_text())
    assert report['sweeps_in'] == report['sweeps_out'] == 8
    assert not any(report['answers'].values())
    assert not {'miou', 'class_iou', 'classes_absent', 'points_scored'} & set(report)
    assert report['ego_motion'] == 'none'
    assert 'moves' in report['ego_motion_note']
    assert report['age_ms']['p95'] < 60_000
    assert any('deserialise' in problem for problem in report['problems'])
    assert any('zero stamps' in finding for finding in report['diagnostics'])
