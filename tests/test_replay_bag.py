# SPDX-License-Identifier: Apache-2.0
"""Replaying over real DDS: what arrives, when, and what is said when it cannot."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import rclpy
from lifecycle_msgs.srv import GetState
from mcap.writer import Writer as McapWriter
from nav_msgs.msg import Odometry
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import String

from cross4d_jepa_ros.bags import Bag, BagWriter, message_class
from cross4d_jepa_ros.replay_bag import __main__ as replay_bag
from cross4d_jepa_ros.replay_bag import publishers
from cross4d_jepa_ros.sensing.extrinsics import load_extrinsics

START_NS = 1_600_000_000_000_000_000
STEP_NS = 20_000_000
CLOUD = 'sensor_msgs/msg/PointCloud2'
STRING = 'std_msgs/msg/String'
TF = 'tf2_msgs/msg/TFMessage'
ODOMETRY = 'nav_msgs/msg/Odometry'
RELIABLE = QoSProfile(depth=100)
SENSOR = QoSProfile(depth=100, reliability=ReliabilityPolicy.BEST_EFFORT)
LATCHED = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def header(stamp_ns: int, frame_id: str):
    stamp = message_class('builtin_interfaces/msg/Time')(*divmod(stamp_ns, 10**9))
    return message_class('std_msgs/msg/Header')(stamp, frame_id)


def cloud(index: int, points: int = 100):
    field = message_class('sensor_msgs/msg/PointField')
    fields = [field(name, 4 * i, 7, 1) for i, name in enumerate('xyz')]
    data = np.random.default_rng(index).standard_normal((points, 3)).astype(np.float32)
    return message_class(CLOUD)(
        header(START_NS + index * STEP_NS, 'lidar'),
        1,
        points,
        fields,
        False,
        12,
        12 * points,
        data.reshape(-1).view(np.uint8),
        True,
    )


def transform(parent: str, child: str, stamp_ns: int, x: float = 0.0, w: float = 1.0):
    vector = message_class('geometry_msgs/msg/Vector3')(x, 2.0, 3.0)
    turn = message_class('geometry_msgs/msg/Quaternion')(0.0, 0.0, 0.0, w)
    pose = message_class('geometry_msgs/msg/Transform')(vector, turn)
    return message_class('geometry_msgs/msg/TransformStamped')(
        header(stamp_ns, parent), child, pose
    )


def tf_message(*transforms):
    return message_class(TF)(list(transforms))


@pytest.fixture
def bag(tmp_path) -> Path:
    """20 clouds, 20 ms apart, the sensor's driver having offered best effort."""
    with BagWriter(tmp_path / 'bag') as writer:
        writer.add_topic('/points', CLOUD, best_effort=True)
        for index in range(20):
            writer.write('/points', CLOUD, START_NS + index * STEP_NS, cloud(index))
    return tmp_path / 'bag'


class Listener:
    """Subscribes to raw messages in a context and thread of its own.

    Attributes:
        received: Per topic, (steady arrival in ns, CDR) in order.
        node: For services and further subscriptions, before it is entered.

    """

    def __init__(self, domain: int, topics: dict[str, tuple[type, QoSProfile]]) -> None:
        self.received: dict[str, list[tuple[int, bytes]]] = {topic: [] for topic in topics}
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=domain)
        self.node = rclpy.create_node('listener', context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        for topic, (kind, qos) in topics.items():
            self.node.create_subscription(kind, topic, self._keep(topic), qos, raw=True)
        self._thread = threading.Thread(target=self._spin)

    def _keep(self, topic: str):
        return lambda raw: self.received[topic].append((time.monotonic_ns(), bytes(raw)))

    def _spin(self) -> None:
        with contextlib.suppress(ExternalShutdownException):
            self._executor.spin()

    def __enter__(self) -> Listener:
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._executor.shutdown()
        self._thread.join()
        self.node.destroy_node()  # else its subscriptions would meet the next test
        self._context.try_shutdown()

    def messages(self, topic: str, kind: type) -> list:
        return [deserialize_message(raw, kind) for _, raw in self.received[topic]]

    def wait_for(self, topic: str, count: int) -> None:
        deadline = time.monotonic() + 20
        while len(self.received[topic]) < count:
            assert time.monotonic() < deadline, f'{len(self.received[topic])} of {count} {topic}'
            time.sleep(0.02)


@pytest.fixture
def replay(ros_domain, monkeypatch, tmp_path):
    """Run the command in this process; returns its exit code and report."""
    monkeypatch.setenv('ROS_DOMAIN_ID', str(ros_domain))
    monkeypatch.setattr(publishers, 'DRAIN_S', 0.1)

    def run(*arguments) -> tuple[int, dict]:
        report = tmp_path / 'report' / 'replay.json'
        code = replay_bag.main([*map(str, arguments), '--report', str(report)])
        return code, json.loads(report.read_text()) if report.is_file() else {}

    return run


def test_every_byte_arrives_in_order_and_on_time(bag, ros_domain, replay):
    with Listener(ros_domain, {'/points': (PointCloud2, SENSOR)}) as listener:
        code, report = replay(bag)
    assert code == 0
    with Bag(bag) as recorded:
        wanted = [message.raw for message in recorded.messages()]
    assert [raw for _, raw in listener.received['/points']] == wanted
    assert report['sent'] == {'/points': 20}
    assert report['skipped'] == {}
    assert report['problems'] == []
    assert report['anchor_bag_ns'] == START_NS
    assert report['rate'] == 1.0
    lateness_ms = [
        (arrival - report['anchor_steady_ns'] - index * STEP_NS) / 1e6
        for index, (arrival, _) in enumerate(listener.received['/points'])
    ]
    assert min(lateness_ms) >= 0  # never early
    assert np.median(lateness_ms) < 30
    assert 0 <= report['max_lateness_ms'] < 300


def test_rate_start_and_clock(bag, ros_domain, replay):
    topics = {'/points': (PointCloud2, SENSOR), '/clock': (Clock, SENSOR)}
    with Listener(ros_domain, topics) as listener:
        code, report = replay(bag, '--rate', 0.5, '--start', 0.2, '--clock')
    assert code == 0
    clouds = listener.messages('/points', PointCloud2)
    first_ns = START_NS + 10 * STEP_NS
    assert [m.header.stamp.nanosec for m in clouds] == [i * STEP_NS for i in range(10, 20)]
    assert report['anchor_bag_ns'] == first_ns
    arrivals = [arrival for arrival, _ in listener.received['/points']]
    assert arrivals[-1] - arrivals[0] == pytest.approx(9 * STEP_NS / 0.5, rel=0.25)
    clocks = [m.clock.sec * 10**9 + m.clock.nanosec for m in listener.messages('/clock', Clock)]
    assert clocks == sorted(clocks)
    assert clocks[0] == first_ns  # it stands at the start while waiting
    assert START_NS + 18 * STEP_NS < clocks[-1] <= START_NS + 19 * STEP_NS
    during = [stamp for stamp in clocks if stamp > first_ns]
    assert 18 <= len(during) <= 40  # 100 Hz for 0.36 s
    assert '/clock' not in report['sent']


def test_it_waits_for_the_subscriber(bag, ros_domain, replay, capsys):
    listener = Listener(ros_domain, {})

    def subscribe_late() -> None:
        time.sleep(0.5)
        listener.received['/points'] = []
        listener.node.create_subscription(
            PointCloud2, '/points', listener._keep('/points'), SENSOR, raw=True
        )

    with listener:
        late = threading.Thread(target=subscribe_late)
        late.start()
        code, _ = replay(bag)
        late.join()
    assert code == 0
    assert len(listener.received['/points']) == 20
    assert 'waiting for a subscriber of /points' in capsys.readouterr().err


def test_nobody_listens(bag, replay, capsys):
    code, report = replay(bag, '--wait-timeout', 0.2)
    assert code == 3
    sentence = report['problems'][-1]
    for word in ('0.2 s', '/points', '--topics', '--wait-timeout', '--no-wait'):
        assert word in sentence
    assert sentence in capsys.readouterr().err
    assert report['sent'] == {'/points': 0}


def test_a_subscriber_with_another_qos_is_named(bag, ros_domain, replay):
    with Listener(ros_domain, {'/points': (PointCloud2, RELIABLE)}) as listener:
        code, report = replay(bag, '--wait-timeout', 1.0)
        assert code == 3
        assert 'listener asks for reliable' in report['problems'][-1]
        assert '--reliability' in report['problems'][-1]
        code, report = replay(bag, '--reliability', 'reliable')
        assert code == 0
        assert len(listener.received['/points']) == 20


def test_no_wait(bag, replay):
    code, report = replay(bag, '--no-wait', '--rate', 10)
    assert code == 0
    assert report['sent'] == {'/points': 20}


def test_it_waits_for_the_lifecycle_node(bag, ros_domain, replay, capsys):
    states = iter(['unconfigured', 'inactive', 'inactive', 'active'])
    answered = []

    def answer(_, response):
        response.current_state.label = next(states, 'active')
        answered.append((time.monotonic_ns(), response.current_state.label))
        return response

    listener = Listener(ros_domain, {'/points': (PointCloud2, SENSOR)})
    listener.node.create_service(GetState, '/perception_node/get_state', answer)
    with listener:
        code, report = replay(bag, '--wait-node', '/perception_node')
    assert code == 0
    active_ns = next(stamp for stamp, label in answered if label == 'active')
    assert report['anchor_steady_ns'] >= active_ns
    assert listener.received['/points'][0][0] > active_ns
    assert '/perception_node to be active (inactive)' in capsys.readouterr().err


def test_a_node_that_never_appears(bag, ros_domain, replay):
    with Listener(ros_domain, {'/points': (PointCloud2, SENSOR)}):
        code, report = replay(bag, '--wait-node', '/nobody', '--wait-timeout', 0.5)
    assert code == 3
    assert '/nobody to be active (not there yet)' in report['problems'][-1]


def test_latched_messages(tmp_path, ros_domain, replay):
    """Those before the start go out at once, however old, and late subscribers get them."""
    with BagWriter(tmp_path / 'bag') as writer:
        writer.add_topic('/map', STRING, transient_local=True)
        writer.write('/map', STRING, 0, message_class(STRING)('stamped zero by a converter'))
        writer.write('/map', STRING, START_NS + 1, message_class(STRING)('early'))
        for index in range(20):
            writer.write('/points', CLOUD, START_NS + index * STEP_NS, cloud(index))
    topics = {'/points': (PointCloud2, RELIABLE), '/map': (String, LATCHED)}
    begun = time.monotonic()
    with Listener(ros_domain, topics) as listener:
        code, report = replay(tmp_path / 'bag', '--start', 0.2)
    assert code == 0
    assert time.monotonic() - begun < 10
    assert report['anchor_bag_ns'] == START_NS + 10 * STEP_NS
    assert [m.data for m in listener.messages('/map', String)] == [
        'stamped zero by a converter',
        'early',
    ]
    assert len(listener.received['/points']) == 10


@pytest.fixture
def without_tf2_msgs(monkeypatch):
    """Have TF unavailable, as on the wheels, where a full ROS is at hand."""
    monkeypatch.setitem(sys.modules, 'tf2_msgs', None)
    monkeypatch.delitem(sys.modules, 'tf2_msgs.msg', raising=False)


def test_transforms_become_odometry_and_extrinsics(
    tmp_path, ros_domain, replay, capsys, without_tf2_msgs
):
    with BagWriter(tmp_path / 'bag') as writer:
        tree = [
            transform('base_link', 'lidar', START_NS, 0.5),
            transform('base_link', 'camera', START_NS, 0.7),
            transform('base_link', 'broken', START_NS, w=0.0),
        ]
        writer.write('/tf_static', TF, START_NS, tf_message(*tree))
        for index in range(5):
            stamp_ns = START_NS + index * STEP_NS
            writer.write('/points', CLOUD, stamp_ns, cloud(index))
            edges = [
                transform('map', 'odom', stamp_ns),
                transform('odom', 'base_link', stamp_ns, float(index)),
            ]
            writer.write('/tf', TF, stamp_ns, tf_message(*edges))
        writer.write('/tf', TF, START_NS + 5 * STEP_NS, b'\x00\x01\x00\x00\xff')
    out = tmp_path / 'extrinsics.yaml'
    topics = {'/points': (PointCloud2, RELIABLE), '/tf_as_odometry': (Odometry, RELIABLE)}
    with Listener(ros_domain, topics) as listener:
        code, report = replay(tmp_path / 'bag', '--write-extrinsics', out)
    assert code == 0
    got = listener.messages('/tf_as_odometry', Odometry)
    assert [(m.header.frame_id, m.child_frame_id) for m in got] == [('odom', 'base_link')] * 5
    assert [m.pose.pose.position.x for m in got] == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert [m.header.stamp.nanosec for m in got] == [i * STEP_NS for i in range(5)]
    assert got[0].pose.pose.orientation.w == 1.0
    assert report['sent'] == {'/points': 5, '/tf_as_odometry': 5}
    assert set(report['skipped']) == {'/tf', '/tf_static'}
    assert len(report['problems']) == 2  # the broken edge, the broken message
    assert '/tf_as_odometry' in capsys.readouterr().err
    written = {edge.child: edge for edge in load_extrinsics(out).transforms}
    assert set(written) == {'lidar', 'camera'}
    assert written['lidar'].parent == 'base_link'
    expected = np.eye(4)
    expected[:3, 3] = 0.5, 2.0, 3.0
    assert np.allclose(written['lidar'].parent_from_child, expected)


def test_odometry_that_the_recording_has_is_not_doubled(
    tmp_path, ros_domain, replay, capsys, without_tf2_msgs
):
    odometry = message_class(ODOMETRY)
    point = message_class('geometry_msgs/msg/Point')(1.0, 0.0, 0.0)
    turn = message_class('geometry_msgs/msg/Quaternion')(0.0, 0.0, 0.0, 1.0)
    zero = message_class('geometry_msgs/msg/Vector3')(0.0, 0.0, 0.0)
    pose = message_class('geometry_msgs/msg/Pose')(point, turn)
    twist = message_class('geometry_msgs/msg/Twist')(zero, zero)
    with BagWriter(tmp_path / 'bag') as writer:
        for index in range(3):
            stamp_ns = START_NS + index * STEP_NS
            message = odometry(
                header(stamp_ns, 'odom'),
                'base_link',
                message_class('geometry_msgs/msg/PoseWithCovariance')(pose, np.zeros(36)),
                message_class('geometry_msgs/msg/TwistWithCovariance')(twist, np.zeros(36)),
            )
            writer.write('/wheels', ODOMETRY, stamp_ns, message)
            edges = (
                transform('odom', 'base_link', stamp_ns),
                transform('base_link', 'arm', stamp_ns),
            )
            writer.write('/tf', TF, stamp_ns, tf_message(*edges))
    topics = {'/wheels': (Odometry, RELIABLE), '/tf_as_odometry': (Odometry, RELIABLE)}
    with Listener(ros_domain, topics) as listener:
        code, _ = replay(tmp_path / 'bag')
    assert code == 0
    assert 'odom to base_link, which /wheels carries' in capsys.readouterr().err
    children = {m.child_frame_id for m in listener.messages('/tf_as_odometry', Odometry)}
    assert 'base_link' not in children


def test_types_that_are_not_installed_are_skipped(tmp_path, ros_domain, replay, capsys):
    path = tmp_path / 'own.mcap'
    with path.open('wb') as file:
        writer = McapWriter(file)
        writer.start(profile='ros2')
        for topic, msgtype in (('/level', 'my_robot/msg/Level'), ('/text', STRING)):
            schema = writer.register_schema(msgtype, 'ros2msg', b'string data')
            channel = writer.register_channel(topic, 'cdr', schema)
            raw = b'\x00\x01\x00\x00\x03\x00\x00\x00ab\x00'
            writer.add_message(channel, START_NS, raw, START_NS)
        writer.finish()
    with Listener(ros_domain, {'/text': (String, RELIABLE)}) as listener:
        code, report = replay(path)  # nothing here is waited for
        time.sleep(0.1)
    assert code == 0
    assert report['sent'] == {'/text': 1}
    assert report['skipped'] == {'/level': 'my_robot/msg/Level is not installed here'}
    assert '/level is not played' in capsys.readouterr().err
    assert set(listener.received) == {'/text'}


def test_a_damaged_recording_plays_what_is_left(tmp_path, ros_domain, replay, capsys):
    with BagWriter(tmp_path / 'bag') as writer:
        for index in range(20):
            writer.write('/points', CLOUD, START_NS + index * STEP_NS, cloud(index, 2000))
    storage = tmp_path / 'bag' / 'bag.mcap'
    storage.write_bytes(storage.read_bytes()[: storage.stat().st_size // 2])
    with Listener(ros_domain, {'/points': (PointCloud2, RELIABLE)}) as listener:
        code, report = replay(tmp_path / 'bag')
        listener.wait_for('/points', report['sent']['/points'])
    assert code == 0
    assert 7 <= report['sent']['/points'] <= 10
    assert any('cut short' in problem for problem in report['problems'])
    assert 'cut short' in capsys.readouterr().err


def test_topics_choose_what_is_played(tmp_path, replay):
    with BagWriter(tmp_path / 'bag') as writer:
        for topic in ('/a', '/b', '/c'):
            writer.write(topic, STRING, START_NS, message_class(STRING)(topic))
    code, report = replay(tmp_path / 'bag', '--topics', '/a', '/c')
    assert code == 0
    assert report['sent'] == {'/a': 1, '/c': 1}


def test_a_recorded_clock_gives_way(tmp_path, ros_domain, replay):
    clock = message_class('rosgraph_msgs/msg/Clock')
    with BagWriter(tmp_path / 'bag') as writer:
        stamp = message_class('builtin_interfaces/msg/Time')(7, 0)
        writer.write('/clock', 'rosgraph_msgs/msg/Clock', START_NS, clock(stamp))
        writer.write('/text', STRING, START_NS, message_class(STRING)(''))
    code, report = replay(tmp_path / 'bag')
    assert report['sent'] == {'/clock': 1, '/text': 1}
    code, report = replay(tmp_path / 'bag', '--clock')
    assert code == 0
    assert report['sent'] == {'/text': 1}
    assert '/clock' in report['skipped']


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        (['--topics', '/pionts'], 'did you mean /points'),
        (['--start', '99'], 'lasts 0.4 s'),
        (['--rate', '0'], '--rate must be above 0, not 0'),
        (['--rate', 'nan'], '--rate must be above 0, not nan'),
        (['--start', '-1'], '--start must be 0 or more'),
        (['--no-wait', '--wait-node', '/n'], 'exclude each other'),
    ],
)
def test_bad_arguments(bag, replay, capsys, arguments, sentence):
    try:
        code, _ = replay(bag, *arguments)
    except SystemExit as error:
        code = error.code
    assert code == 2
    assert sentence in capsys.readouterr().err


def test_nothing_to_play(tmp_path, replay, capsys):
    assert replay(tmp_path / 'nowhere')[0] == 2
    assert 'no recording' in capsys.readouterr().err
    with BagWriter(tmp_path / 'bag') as writer:
        writer.add_topic('/points', CLOUD)
    assert replay(tmp_path / 'bag')[0] == 2
    assert 'nothing to play' in capsys.readouterr().err


@pytest.mark.parametrize('stop', [signal.SIGINT, signal.SIGTERM])
def test_loop_until_interrupted(bag, ros_domain, tmp_path, stop):
    """In a process of its own, as users run it."""
    report = tmp_path / 'report.json'
    command = [sys.executable, '-m', 'cross4d_jepa_ros.replay_bag', str(bag), '--loop']
    environment = {**os.environ, 'ROS_DOMAIN_ID': str(ros_domain)}
    with Listener(ros_domain, {'/points': (PointCloud2, SENSOR)}) as listener:
        process = subprocess.Popen(
            [*command, '--report', str(report)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],
        )
        with contextlib.ExitStack() as cleanup:
            cleanup.callback(process.kill)
            listener.wait_for('/points', 45)
            process.send_signal(stop)
            _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert 'Traceback' not in errors
    stamps = [m.header.stamp.nanosec // STEP_NS for m in listener.messages('/points', PointCloud2)]
    assert stamps[:45] == [*range(20), *range(20), *range(5)]
    assert json.loads(report.read_text())['sent']['/points'] >= 45


def test_waits_only_for_the_topics_that_the_node_takes(tmp_path, bench):
    with BagWriter(tmp_path / 'bag') as writer:
        for index in range(5):
            stamp_ns = START_NS + index * STEP_NS
            writer.write('/points', CLOUD, stamp_ns, cloud(index))
            writer.write('/other_points', CLOUD, stamp_ns, cloud(index))
    bench.perception(cameras=0)
    bench.wait_active()
    command = [sys.executable, '-m', 'cross4d_jepa_ros.replay_bag', str(tmp_path / 'bag')]
    environment = {**os.environ, 'ROS_DOMAIN_ID': str(bench.domain)}
    done = subprocess.run(
        [*command, '--wait-node', '/perception_node', '--wait-timeout', '20'],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    bench.wait(lambda: int(bench.sections['points'][2].get('received', 0)) == 5)
