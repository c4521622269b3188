# SPDX-License-Identifier: Apache-2.0
"""Publishers for the topics of a recording."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any

from cross4d_jepa_ros.bag_setup import (
    IMAGE_TYPES,
    ODOMETRY_TYPE,
    POINTS_TYPE,
    TF_AS_ODOMETRY,
)
from cross4d_jepa_ros.bag_transforms import OdometryBridge, child_and_parent
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
from cross4d_jepa_ros.replay_bag.report import ReplayReport
from cross4d_jepa_ros.ros.message_types import message_type

CLOCK_TYPE = 'rosgraph_msgs/msg/Clock'

DRAIN_S = 0.5
ACKNOWLEDGE_LIMIT_S = 10.0
QUEUE_DEPTH = 10
LATCHED_DEPTH = 1000


class BagPublishers:
    """One publisher for each topic that can be played, with the QoS that was recorded.

    Args:
        bag: The open recording.
        node: An rclpy node to publish from.
        report: Gets what is sent and what is skipped.
        topics: Wanted topics of the recording.
        reliability: `recorded`, or what all topics offer: `reliable` or `best_effort`.
        fixed_frame: Root of the moving transforms that are sent as Odometry.
        own_clock: Whether `/clock` is published beside them: a recorded one is left out.
        say: Takes one line for the user.

    Attributes:
        latched: Topics kept for late subscribers.
        paced: The others of the recording's topics that are played.

    """

    def __init__(
        self,
        bag: Bag,
        node: Any,
        report: ReplayReport,
        *,
        topics: Sequence[str],
        reliability: str,
        fixed_frame: str,
        own_clock: bool,
        say: Callable[[str], None],
    ) -> None:
        self._bag = bag
        self._node = node
        self._report = report
        self._reliability = reliability
        self._say = say
        self._publishers: dict[str, Any] = {}
        self._bridge: OdometryBridge | None = None
        self._bridged: set[str] = set()
        for name in topics:
            if bag.topics[name].msgtype == CLOCK_TYPE and own_clock:
                self._skip(name, '--clock publishes its own')
            else:
                self._advertise(bag.topics[name])
        if TF_TYPE in {bag.topics[name].msgtype for name in report.skipped}:
            self._bridge_transforms(topics, fixed_frame)
        self.latched = {
            name
            for name in self._publishers
            if name in bag.topics and _is_latched(bag.topics[name])
        }
        self.paced = self._publishers.keys() & bag.topics.keys() - self.latched
        self.paced |= self._bridged

    def _advertise(self, topic: BagTopic) -> None:
        try:
            self._create_publisher(topic.name, message_type(topic.msgtype), topic)
        except Exception as error:  # a type without type support, or a name ROS refuses
            self._skip(topic.name, str(error))

    def _create_publisher(self, name: str, kind: Any, topic: BagTopic | None) -> None:
        from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

        best_effort = self._reliability == 'best_effort'
        if self._reliability == 'recorded':
            best_effort = topic is not None and bool(topic.offered_best_effort)
        latched = topic is not None and _is_latched(topic)
        profile = QoSProfile(depth=LATCHED_DEPTH if latched else QUEUE_DEPTH)
        if best_effort and not latched:
            profile.reliability = ReliabilityPolicy.BEST_EFFORT
        if latched:
            profile.durability = DurabilityPolicy.TRANSIENT_LOCAL
        self._publishers[name] = self._node.create_publisher(kind, name, profile)
        self._report.sent[name] = 0

    def _skip(self, topic: str, reason: str) -> None:
        self._report.skipped[topic] = reason
        self._say(f'{topic} is not played: {reason}')

    def _bridge_transforms(self, wanted: Sequence[str], fixed_frame: str) -> None:
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
        self._bridge = OdometryBridge(fixed_frame, static_transforms(self._bag), set(carried))
        self._create_publisher(TF_AS_ODOMETRY, message_type(ODOMETRY_TYPE), None)
        line = f'moving transforms are sent as {ODOMETRY_TYPE} on {TF_AS_ODOMETRY}'
        for (parent, child), name in carried.items():
            line += f', except {parent} to {child}, which {name} carries'
        self._say(line)

    def of_sensors(self) -> dict[str, Any]:
        """Publishers of clouds and images, by topic."""
        return {
            name: publisher
            for name, publisher in self._publishers.items()
            if name in self._bag.topics
            and self._bag.topics[name].msgtype in (POINTS_TYPE, *IMAGE_TYPES)
        }

    def publish(self, message: BagMessage) -> None:
        """Send one message of a topic that is played."""
        if self._bridge is not None and message.topic in self._bridged:
            self._publish_transforms(self._bridge, message)
            return
        self._publishers[message.topic].publish(message.raw)
        self._report.sent[message.topic] += 1

    def _publish_transforms(self, bridge: OdometryBridge, message: BagMessage) -> None:
        try:
            transforms = bridge.select(self._bag.deserialise(message).transforms)
        except BadBag as error:
            note(self._report.problems, str(error))
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
            self._report.sent[TF_AS_ODOMETRY] += 1

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
