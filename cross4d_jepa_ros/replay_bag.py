# SPDX-License-Identifier: Apache-2.0
"""Play a recording onto topics, paced by its own time and never waiting for an answer.

Example: `python -m cross4d_jepa_ros.replay_bag recording --clock --wait-node /perception_node`

Exit codes: 0 played, 2 nothing to play or a bad argument, 3 nobody listened in time, 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import importlib
import json
import math
import queue
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from cross4d_jepa_ros.bag_setup import (
    IMAGE_TYPES,
    ODOMETRY_TYPE,
    POINTS_TYPE,
    TF_AS_ODOMETRY,
)
from cross4d_jepa_ros.bag_transforms import OdometryBridge, child_and_parent, static_tree
from cross4d_jepa_ros.bags import (
    TF_TYPE,
    BadBag,
    Bag,
    BagMessage,
    BagTopic,
    note,
    static_transforms,
    tf_topics,
)
from cross4d_jepa_ros.files import write_atomically
from cross4d_jepa_ros.ros.transport import use_large_message_profile
from cross4d_jepa_ros.sensing.extrinsics import Extrinsics, save_extrinsics

CLOCK_TYPE = 'rosgraph_msgs/msg/Clock'
_INTERFACE = re.compile(r'([a-z][a-z0-9_]*)/(msg|srv|action)/([A-Z]\w*)', re.ASCII)

CLOCK_PERIOD_S = 0.01
SETTLE_S = 0.2
STRAGGLER_S = 1.5
DRAIN_S = 0.5
ACKNOWLEDGE_LIMIT_S = 10.0
ANSWER_LIMIT_S = 2.0
READ_AHEAD = 32  # messages
QUEUE_DEPTH = 10
LATCHED_DEPTH = 1000


class NobodyListens(Exception):
    """The subscribers or the node that was waited for did not appear in time."""


@dataclass
class ReplayReport:
    """What was sent, and when it was due.

    Attributes:
        sent: Messages per topic.
        anchor_steady_ns: `time.monotonic_ns()` at which `anchor_bag_ns` was due (of the last loop).
        anchor_bag_ns: Bag stamp of the first message that was paced.
        rate: Bag seconds per second.
        skipped: Why a topic was not played.
        problems: What is damaged in the recording, or kept the replay from starting.
        max_lateness_ms: Largest delay of a message behind its due time.

    """

    sent: dict[str, int] = field(default_factory=dict)
    anchor_steady_ns: int = 0
    anchor_bag_ns: int = 0
    rate: float = 1.0
    skipped: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    max_lateness_ms: float = 0.0

    def write(self, path: Path) -> None:
        """Write it as JSON; a reader sees either the old file or the whole new one."""
        write_atomically(path, json.dumps(asdict(self), indent=2))


def message_type(msgtype: str) -> Any:
    """Import the Python class of a type such as `sensor_msgs/msg/Image`.

    Raises:
        ImportError: Its package is not installed here or lacks it.

    """
    # A recording may call its types anything, and importing a module runs it.
    named = _INTERFACE.fullmatch(msgtype)
    kind = None
    if named:
        with contextlib.suppress(ImportError, AttributeError):
            kind = getattr(importlib.import_module(f'{named[1]}.{named[2]}'), named[3])
    if not hasattr(kind, '_TYPE_SUPPORT'):
        msg = f'{msgtype} is not installed here'
        raise ImportError(msg)
    return kind


class Replay:
    """Publishers for a recording's topics, and the loop that feeds them.

    Args:
        bag: The open recording.
        node: An rclpy node to publish from.
        arguments: Parsed command line.
        say: Takes one line for the user.

    Attributes:
        report: Filled while playing.

    """

    def __init__(
        self, bag: Bag, node: Any, arguments: argparse.Namespace, say: Callable[[str], None]
    ) -> None:
        self._bag = bag
        self._node = node
        self._arguments = arguments
        self._say = say
        self._publishers: dict[str, Any] = {}
        self._bridge: OdometryBridge | None = None
        self._bridged: set[str] = set()
        self._clock: Any = None
        self._next_tick_s = 0.0
        # `report.problems` is the bag's own list: damage found while playing lands in both.
        self.report = ReplayReport(rate=arguments.rate, problems=bag.problems)
        wanted = arguments.topics or list(bag.topics)
        for name in wanted:
            self._advertise(bag.topics[name])
        if TF_TYPE in {bag.topics[name].msgtype for name in self.report.skipped}:
            self._bridge_transforms(wanted)
        self._latched = {
            name
            for name in self._publishers
            if name in bag.topics and _is_latched(bag.topics[name])
        }
        self._paced = self._publishers.keys() & bag.topics.keys() - self._latched
        self._paced |= self._bridged
        first = next(bag.messages(self._paced), None) if self._paced else None
        if first is None:
            reasons = '; '.join(f'{name}: {why}' for name, why in self.report.skipped.items())
            msg = f'{bag.path} holds nothing to play' + (f' ({reasons})' if reasons else '')
            raise BadBag(msg)
        start_ns = first.bag_stamp_ns + round(arguments.start * 1e9)
        if start_ns > bag.end_ns:
            length_s = (bag.end_ns - first.bag_stamp_ns) / 1e9
            msg = f'--start {arguments.start:g} is too late: {bag.path} lasts {length_s:.1f} s'
            raise BadBag(msg)
        self.report.anchor_bag_ns = start_ns
        if arguments.clock:
            self._clock = node.create_publisher(message_type(CLOCK_TYPE), '/clock', QUEUE_DEPTH)

    def _advertise(self, topic: BagTopic) -> None:
        if topic.msgtype == CLOCK_TYPE and self._arguments.clock:
            self._skip(topic.name, '--clock publishes its own')
            return
        try:
            self._create_publisher(topic.name, message_type(topic.msgtype), topic)
        except Exception as error:  # a type without type support, or a name ROS refuses
            self._skip(topic.name, str(error))

    def _create_publisher(self, name: str, kind: Any, topic: BagTopic | None) -> None:
        from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

        best_effort = self._arguments.reliability == 'best_effort'
        if self._arguments.reliability == 'recorded':
            best_effort = topic is not None and bool(topic.offered_best_effort)
        latched = topic is not None and _is_latched(topic)
        profile = QoSProfile(depth=LATCHED_DEPTH if latched else QUEUE_DEPTH)
        if best_effort and not latched:
            profile.reliability = ReliabilityPolicy.BEST_EFFORT
        if latched:
            profile.durability = DurabilityPolicy.TRANSIENT_LOCAL
        self._publishers[name] = self._node.create_publisher(kind, name, profile)
        self.report.sent[name] = 0

    def _skip(self, topic: str, reason: str) -> None:
        self.report.skipped[topic] = reason
        self._say(f'{topic} is not played: {reason}')

    def _bridge_transforms(self, wanted: list[str]) -> None:
        """Send moving transforms as Odometry where tf2_msgs cannot be imported."""
        moving = {
            name
            for name in tf_topics(self._bag)
            if name in wanted and not _is_latched(self._bag.topics[name])
        }
        if not moving or TF_AS_ODOMETRY in self._bag.topics:
            return
        carried = {}
        for name in self._publishers:
            if self._bag.topics[name].msgtype == ODOMETRY_TYPE:
                with contextlib.suppress(BadBag, StopIteration):
                    first = self._bag.deserialise(next(self._bag.messages([name])))
                    child, parent = child_and_parent(first)
                    carried[parent, child] = name
        self._bridged = moving
        self._bridge = OdometryBridge(
            self._arguments.fixed_frame, static_transforms(self._bag), set(carried)
        )
        self._create_publisher(TF_AS_ODOMETRY, message_type(ODOMETRY_TYPE), None)
        line = f'moving transforms are sent as {ODOMETRY_TYPE} on {TF_AS_ODOMETRY}'
        for (parent, child), name in carried.items():
            line += f', except {parent} to {child}, which {name} carries'
        self._say(line)

    def wait(self, executor: Any) -> None:
        """Wait until clouds and images are subscribed to and the lifecycle node is active.

        Raises:
            NobodyListens: That did not happen within `--wait-timeout`.

        """
        awaited = [
            name
            for name in self._publishers
            if name in self._bag.topics
            and self._bag.topics[name].msgtype in (POINTS_TYPE, *IMAGE_TYPES)
        ]
        state = _LifecycleState(self._node, self._arguments.wait_node)
        deadline = time.monotonic() + self._arguments.wait_timeout
        said = ''
        complete_since = math.inf
        while True:
            self._tick(self.report.anchor_bag_ns)
            unmatched = [x for x in awaited if not self._publishers[x].get_subscription_count()]
            settle_s = SETTLE_S
            if self._arguments.wait_node and 0 < len(unmatched) < len(awaited):
                # The node may not want the others, or not have seen them yet.
                taken = self._taken_by(self._arguments.wait_node)
                unmatched = [name for name in unmatched if name in taken]
                settle_s = STRAGGLER_S
            missing = [f'a subscriber of {name}{self._why_unmatched(name)}' for name in unmatched]
            if not state.active():
                missing.append(f'{self._arguments.wait_node} to be active ({state.label})')
            # A subscriber knows its publisher a moment later than the other way round.
            complete_since = math.inf if missing else min(complete_since, time.monotonic())
            if time.monotonic() - complete_since >= settle_s:
                return
            sentence = 'waiting for ' + ', '.join(missing)
            if missing and time.monotonic() > deadline:
                msg = (
                    f'gave up after {self._arguments.wait_timeout:g} s of {sentence}; '
                    'choose topics with --topics, wait longer with --wait-timeout '
                    'or not at all with --no-wait'
                )
                raise NobodyListens(msg)
            if missing and sentence != said:
                self._say(sentence)
                said = sentence
            executor.spin_once(timeout_sec=CLOCK_PERIOD_S)

    def _taken_by(self, node: str) -> set[str]:
        """Name the topics that a node subscribes to."""
        from rclpy.node import NodeNameNonExistentError

        namespace, _, name = node.rpartition('/')
        try:
            found = self._node.get_subscriber_names_and_types_by_node(name, namespace or '/')
        except NodeNameNonExistentError:
            return set()
        return {topic for topic, _ in found}

    def _why_unmatched(self, topic: str) -> str:
        others = self._node.get_subscriptions_info_by_topic(topic)
        if not others:
            return ''
        asked = others[0].qos_profile.reliability.name.lower()
        return f' with a fitting QoS ({others[0].node_name} asks for {asked}: see --reliability)'

    def play(self, stopped: threading.Event) -> None:
        """Publish everything, `--loop` times over."""
        start_ns, end_ns = self.report.anchor_bag_ns, self._bag.end_ns
        for message in self._bag.messages(self._latched):
            if message.bag_stamp_ns < start_ns:
                self._publish(message)
        columns = (
            TextColumn('{task.description}'),
            BarColumn(),
            TextColumn('{task.percentage:3.0f}% at {task.fields[rate]:.2f}x'),
            TimeRemainingColumn(),
        )
        console = Console(stderr=True)
        with Progress(*columns, console=console, refresh_per_second=4) as progress:
            task = progress.add_task(
                self._bag.path.name, total=max(end_ns - start_ns, 1), rate=self._arguments.rate
            )
            while True:
                self.report.anchor_steady_ns = time.monotonic_ns()
                for message in read_ahead(
                    self._bag, self._latched | self._paced, start_ns, stopped
                ):
                    self._pace(message.bag_stamp_ns)
                    self._publish(message)
                    elapsed_ns = max(time.monotonic_ns() - self.report.anchor_steady_ns, 1)
                    played_ns = message.bag_stamp_ns - start_ns
                    progress.update(task, completed=played_ns, rate=played_ns / elapsed_ns)
                if not self._arguments.loop:
                    return
                progress.reset(task, rate=self._arguments.rate)

    def _pace(self, bag_stamp_ns: int) -> None:
        """Sleep until a bag stamp is due, ticking the clock meanwhile, and note the lateness."""
        report = self.report
        due_ns = report.anchor_steady_ns + round(
            (bag_stamp_ns - report.anchor_bag_ns) / report.rate
        )
        while True:
            now_ns = time.monotonic_ns()
            elapsed_ns = round((min(now_ns, due_ns) - report.anchor_steady_ns) * report.rate)
            self._tick(report.anchor_bag_ns + elapsed_ns)
            left_s = (due_ns - now_ns) / 1e9
            if left_s <= 0:
                break
            time.sleep(min(left_s, CLOCK_PERIOD_S) if self._clock else left_s)
        report.max_lateness_ms = max(report.max_lateness_ms, -left_s * 1e3)

    def _tick(self, bag_ns: int) -> None:
        if self._clock is None or time.monotonic() < self._next_tick_s:
            return
        self._next_tick_s = time.monotonic() + 0.9 * CLOCK_PERIOD_S
        msg = self._clock.msg_type()
        msg.clock.sec, msg.clock.nanosec = divmod(bag_ns, 1_000_000_000)
        self._clock.publish(msg)

    def _publish(self, message: BagMessage) -> None:
        if self._bridge is not None and message.topic in self._bridged:
            self._publish_transforms(self._bridge, message)
            return
        self._publishers[message.topic].publish(message.raw)
        self.report.sent[message.topic] += 1

    def _publish_transforms(self, bridge: OdometryBridge, message: BagMessage) -> None:
        try:
            transforms = bridge.select(self._bag.deserialise(message).transforms)
        except BadBag as error:
            note(self.report.problems, str(error))
            return
        publisher = self._publishers[TF_AS_ODOMETRY]
        for transform in transforms:
            msg = publisher.msg_type()
            msg.header.stamp.sec = transform.header.stamp.sec
            msg.header.stamp.nanosec = transform.header.stamp.nanosec
            msg.header.frame_id = transform.header.frame_id
            msg.child_frame_id = transform.child_frame_id
            shift, turn = transform.transform.translation, transform.transform.rotation
            for axis in 'xyz':
                setattr(msg.pose.pose.position, axis, float(getattr(shift, axis)))
            for axis in 'xyzw':
                setattr(msg.pose.pose.orientation, axis, float(getattr(turn, axis)))
            publisher.publish(msg)
            self.report.sent[TF_AS_ODOMETRY] += 1

    def drain(self) -> None:
        """Give what was sent time to arrive before the publishers disappear."""
        from rclpy.duration import Duration

        deadline = time.monotonic() + ACKNOWLEDGE_LIMIT_S
        for publisher in self._publishers.values():
            left_s = max(deadline - time.monotonic(), 0.0)
            publisher.wait_for_all_acked(Duration(nanoseconds=round(left_s * 1e9)))
        time.sleep(DRAIN_S)


def _is_latched(topic: BagTopic) -> bool:
    return topic.transient_local or (
        topic.msgtype == TF_TYPE and topic.name.rsplit('/', 1)[-1] == 'tf_static'
    )


class _LifecycleState:
    """Asks a lifecycle node for its state, over and over; no name means always active."""

    def __init__(self, node: Any, name: str | None) -> None:
        self.label = 'not there yet'
        self._node = node
        self._service = f'{name.rstrip("/")}/get_state' if name else ''
        self._client: Any = None
        self._answer: Any = None
        self._asked_s = 0.0

    def active(self) -> bool:
        """Tell whether the newest answer was `active`, and ask again."""
        if not self._service:
            return True
        if self._answer is not None and self._answer.done():
            self.label = self._answer.result().current_state.label
            self._answer = None
        overdue = time.monotonic() - self._asked_s > ANSWER_LIMIT_S
        if self._client is None or (overdue and self.label != 'active'):
            self._connect()
        if self._answer is None and self._client.service_is_ready():
            self._asked_s = time.monotonic()
            self._answer = self._client.call_async(self._client.srv_type.Request())
        return self.label == 'active'

    def _connect(self) -> None:
        """Begin anew: a node that was restarted, or missed in discovery, owes no answer."""
        if self._client is not None:
            self._node.destroy_client(self._client)
        kind = message_type('lifecycle_msgs/srv/GetState')
        self._client = self._node.create_client(kind, self._service)
        self._answer = None
        self._asked_s = time.monotonic()


def read_ahead(
    bag: Bag, topics: set[str], start_ns: int, stopped: threading.Event
) -> Iterator[BagMessage]:
    """Read messages in a thread, so that disk and decompression do not delay the pacing.

    Args:
        bag: The recording.
        topics: Topics wanted.
        start_ns: First bag stamp wanted.
        stopped: Set to end the thread early.

    """
    messages: queue.Queue[BagMessage | BaseException | None] = queue.Queue(READ_AHEAD)

    def hand_over(item: BagMessage | BaseException | None) -> None:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                messages.put(item, timeout=0.1)
                return

    def read() -> None:
        try:
            for message in bag.messages(topics, start_ns=start_ns):
                hand_over(message)
                if stopped.is_set():
                    return
            hand_over(None)
        except BaseException as error:  # raised again in the thread that plays
            hand_over(error)

    threading.Thread(target=read, name='read_ahead', daemon=True).start()
    while (item := messages.get()) is not None:
        if isinstance(item, BaseException):
            raise item
        yield item


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='replay_bag', description=(__doc__ or '').split('\n')[0])
    parser.add_argument('bag', type=Path, help='rosbag2 folder, .mcap or .db3 file')
    parser.add_argument('--topics', nargs='+', metavar='TOPIC', help='play only these')
    parser.add_argument('--rate', type=float, default=1.0, help='bag seconds per second')
    parser.add_argument('--loop', action='store_true', help='start over at the end, until Ctrl-C')
    parser.add_argument('--start', type=float, default=0.0, help='seconds to leave out first')
    parser.add_argument('--clock', action='store_true', help='publish /clock at 100 Hz')
    parser.add_argument('--wait-node', metavar='NODE', help='lifecycle node that must be active')
    parser.add_argument('--wait-timeout', type=float, default=60.0, help='seconds')
    parser.add_argument('--no-wait', action='store_true', help='do not wait for subscribers')
    parser.add_argument(
        '--reliability', choices=('recorded', 'reliable', 'best_effort'), default='recorded'
    )
    parser.add_argument('--fixed-frame', default='odom', help='root of the ego-motion')
    parser.add_argument('--write-extrinsics', type=Path, metavar='FILE', help='from /tf_static')
    parser.add_argument('--report', type=Path, metavar='FILE', help='JSON: what was sent')
    arguments = parser.parse_args(argv)
    if not (math.isfinite(arguments.rate) and arguments.rate > 0):
        parser.error(f'--rate must be above 0, not {arguments.rate:g}')
    if not (math.isfinite(arguments.start) and arguments.start >= 0):
        parser.error(f'--start must be 0 or more seconds, not {arguments.start:g}')
    if arguments.no_wait and arguments.wait_node:
        parser.error('--wait-node and --no-wait exclude each other')
    return arguments


def _check_topics(bag: Bag, topics: list[str] | None) -> None:
    for name in topics or []:
        if name not in bag.topics:
            near = difflib.get_close_matches(name, bag.topics, 3, 0.3) or sorted(bag.topics)
            msg = f'{bag.path} has no topic {name}; did you mean {", ".join(near)}?'
            raise BadBag(msg)


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    ros_at = argv.index('--ros-args') if '--ros-args' in argv else len(argv)
    arguments = _arguments(argv[:ros_at])
    use_large_message_profile()
    import rclpy
    from rclpy.signals import SignalHandlerOptions

    context = rclpy.Context()
    rclpy.init(args=argv[ros_at:], context=context, signal_handler_options=SignalHandlerOptions.NO)
    # SIGINT as well: a shell that starts a process in the background has it ignored.
    before = {
        number: signal.signal(number, _interrupt) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        return _run(arguments, context)
    except KeyboardInterrupt:
        return 130
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        rclpy.try_shutdown(context=context)


def _run(arguments: argparse.Namespace, context: Any) -> int:
    import rclpy
    from rclpy.executors import SingleThreadedExecutor

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    stopped = threading.Event()
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(stopped.set)
        try:
            bag = cleanup.enter_context(Bag(arguments.bag))
            for problem in bag.problems:
                say(problem)
            _check_topics(bag, arguments.topics)
            if arguments.write_extrinsics:
                tree = Extrinsics(cameras=(), transforms=static_tree(bag))
                save_extrinsics(arguments.write_extrinsics, tree)
            node = rclpy.create_node('replay_bag', context=context)
            cleanup.callback(node.destroy_node)
            replay = Replay(bag, node, arguments, say)
        except BadBag as error:
            say(str(error))
            return 2
        if arguments.report:
            cleanup.callback(lambda: replay.report.write(arguments.report))
        if not arguments.no_wait:
            executor = SingleThreadedExecutor(context=context)
            executor.add_node(node)
            cleanup.callback(executor.shutdown)
            try:
                replay.wait(executor)
            except NobodyListens as error:
                say(str(error))
                replay.report.problems.append(str(error))
                return 3
        replay.play(stopped)
        replay.drain()
    return 0


if __name__ == '__main__':
    sys.exit(main())
