# SPDX-License-Identifier: Apache-2.0
"""Listens to the live graph for a while: into a short recording, and who refuses whom."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.utilities import get_rmw_implementation_identifier

from cross4d_jepa_ros.bags import BadBag, BagWriter
from cross4d_jepa_ros.doctor.recording import INPUT_TYPES
from cross4d_jepa_ros.health import Finding, Level, best_effort_refused
from cross4d_jepa_ros.ros.message_types import message_type

DISCOVERY_S = 5.0
POLL_S = 0.2
# What rmw calls a node that it has not heard of, and how long after its publisher it hears of it.
NAMELESS, NAMED_WITHIN_S = '_NODE_NAME_UNKNOWN_', 1.0
DEPTH = 100


def overheard(path: Path, seconds: float) -> list[Finding]:
    """Record every topic that the node could take.

    Args:
        path: Recording to write; its record times are those of the ROS clock at arrival.
        seconds: How long to listen.

    Returns:
        What is wrong with the connections; what the messages say is in the recording.

    Raises:
        BadBag: Nobody publishes anything of use.

    """
    context = Context()
    rclpy.init(context=context)
    executor = SingleThreadedExecutor(context=context)
    node = Node('doctor', context=context, use_global_arguments=False, enable_rosout=False)
    executor.add_node(node)
    try:
        with BagWriter(path) as bag:
            ear = _Ear(node, bag)
            begin = time.monotonic()
            # Until anybody is seen: a loaded machine takes its time.
            while not ear.heard and time.monotonic() < begin + DISCOVERY_S:
                _spin(executor, POLL_S)
                ear.poll()
            if node.count_publishers('/clock'):
                node.set_parameters([Parameter('use_sim_time', value=True)])
            until = time.monotonic() + seconds
            while ear.heard and time.monotonic() < until:
                _spin(executor, POLL_S)
                ear.poll()
            findings = ear.findings()
        if not ear.heard:
            msg = silence(node, context.get_domain_id(), os.environ)
            raise BadBag(msg)
        return findings
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown(context=context)


def silence(node: Node, domain: int, environment: Mapping[str, str]) -> str:
    """Say that nothing of use is published, with what else is there and the usual causes.

    Args:
        node: Who looked.
        domain: Where.
        environment: Of the process.

    """
    others = sorted(
        name
        for name, _ in node.get_topic_names_and_types()
        if node.count_publishers(name) and name not in ('/rosout', '/parameter_events')
    )
    kinds = ', '.join(kind.rsplit('/', 1)[1] for kind in INPUT_TYPES)
    seen = f'there is only: {", ".join(others)}' if others else 'no other node is seen at all'
    confined = [
        f'{name}={environment[name]}'
        for name in ('ROS_LOCALHOST_ONLY', 'ROS_AUTOMATIC_DISCOVERY_RANGE', 'ROS_STATIC_PEERS')
        if environment.get(name)
    ]
    rmw = get_rmw_implementation_identifier()
    causes = [
        'Is the driver running (ros2 topic list, where it runs)?',
        f'Has it another ROS_DOMAIN_ID than {domain}?',
        'Do ROS_LOCALHOST_ONLY or ROS_AUTOMATIC_DISCOVERY_RANGE keep one of the two to its own '
        f'machine (here: {", ".join(confined) or "neither is set"})?',
        f'Has it another RMW_IMPLEMENTATION than {rmw}?',
        'In a container: does it share network and /dev/shm?',
    ]
    return (
        f'nobody publishes {kinds} in domain {domain}; {seen}. {" ".join(causes)} '
        'Or name a recording with --bag'
    )


def _spin(executor: SingleThreadedExecutor, seconds: float) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        executor.spin_once(timeout_sec=left)


class _Ear:
    """Subscribes to what appears, and writes down what arrives."""

    def __init__(self, node: Node, bag: BagWriter) -> None:
        self.heard: dict[str, str] = {}
        self._node = node
        self._bag = bag
        self._unknown: dict[str, str] = {}
        self._nameless: dict[str, float] = {}

    def poll(self) -> None:
        """Subscribe to topics that are new."""
        for topic, types in self._node.get_topic_names_and_types():
            known = topic in self.heard or topic in self._unknown
            msgtype = next((kind for kind in types if kind in INPUT_TYPES), '')
            if known or not msgtype:
                continue
            offers = self._node.get_publishers_info_by_topic(topic)
            if self._soon_named(topic, offers):
                continue
            # What a perception node answers is no input.
            offers = [x for x in offers if not topic.startswith(f'{_name(x)}/output/')]
            if offers:
                self._listen(topic, msgtype, offers)

    def _soon_named(self, topic: str, offers: Sequence[Any]) -> bool:
        """Whether a publisher was found before its node; those that are no ROS have none."""
        if all(offer.node_name != NAMELESS for offer in offers):
            return False
        return (
            time.monotonic() - self._nameless.setdefault(topic, time.monotonic()) < NAMED_WITHIN_S
        )

    def _listen(self, topic: str, msgtype: str, offers: Sequence[Any]) -> None:
        best_effort = any(_is_best_effort(offer) for offer in offers)
        latched = all(_is_latched(offer) for offer in offers)
        try:
            kind = message_type(msgtype)
        except ImportError as error:
            self._unknown[topic] = str(error)
            return
        self.heard[topic] = msgtype
        self._bag.add_topic(topic, msgtype, best_effort=best_effort, transient_local=latched)
        profile = QoSProfile(depth=DEPTH)
        if best_effort:
            profile.reliability = ReliabilityPolicy.BEST_EFFORT
        if latched:
            profile.durability = DurabilityPolicy.TRANSIENT_LOCAL

        def write(raw: bytes) -> None:
            now_ns = self._node.get_clock().now().nanoseconds
            if now_ns > 0:  # before the first /clock there is no time
                self._bag.write(topic, msgtype, now_ns, raw)

        self._node.create_subscription(kind, topic, write, profile, raw=True)

    def findings(self) -> list[Finding]:
        """Name whoever publishes what somebody else cannot take."""
        found = [
            Finding(Level.WARN, f'topic {topic}', f'{reason} and not heard: source a full ROS')
            for topic, reason in self._unknown.items()
        ]
        for topic in self.heard:
            offers = self._node.get_publishers_info_by_topic(topic)
            readers = self._node.get_subscriptions_info_by_topic(topic)
            for offer in offers:
                for reader in readers:
                    sentence = _refusal(topic, offer, reader)
                    if sentence and reader.node_name != self._node.get_name():
                        found.append(Finding(Level.ERROR, f'QoS {topic}', sentence))
            names = sorted({_name(offer) for offer in offers})
            if len(names) > 1 and not topic.startswith('/tf'):
                text = f'{" and ".join(names)} both publish it: stop one, or remap'
                found.append(Finding(Level.WARN, f'topic {topic}', text))
        return found


def _refusal(topic: str, offer: Any, reader: Any) -> str:
    """Say why a subscription gets nothing of a publisher; '' where it does."""
    if _is_best_effort(offer) and reader.qos_profile.reliability == ReliabilityPolicy.RELIABLE:
        return best_effort_refused(topic, _name(offer), _name(reader))
    if _is_latched(reader) and not _is_latched(offer):
        return (
            f'incompatible QoS on {topic}: {_name(offer)} offers volatile, {_name(reader)} asks '
            'for transient_local and gets nothing: let it ask for volatile'
        )
    return ''


def _is_best_effort(end: Any) -> bool:
    return bool(end.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT)


def _is_latched(end: Any) -> bool:
    return bool(end.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL)


def _name(end: Any) -> str:
    return f'{end.node_namespace.rstrip("/")}/{end.node_name}'
