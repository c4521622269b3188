# SPDX-License-Identifier: Apache-2.0
"""Waiting until those who are to hear a recording do."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from cross4d_jepa_ros.ros.message_types import message_type

SETTLE_S = 0.2
STRAGGLER_S = 1.5
ANSWER_LIMIT_S = 2.0
SPIN_S = 0.01


class NobodyListens(Exception):
    """The subscribers or the node that was waited for did not appear in time."""


def wait_for_listeners(
    node: Any,
    executor: Any,
    publishers: Mapping[str, Any],
    *,
    lifecycle_node: str | None,
    timeout_s: float,
    tick: Callable[[], None],
    say: Callable[[str], None],
) -> None:
    """Wait until topics are subscribed to and the lifecycle node is active.

    Args:
        node: The rclpy node of the publishers.
        executor: Spins it meanwhile.
        publishers: Of clouds and images, by topic.
        lifecycle_node: The node that must be active; None for none.
        timeout_s: Longest wait.
        tick: Called all the while, to publish the clock.
        say: Takes one line for the user.

    Raises:
        NobodyListens: That did not happen in time.

    """
    state = _LifecycleState(node, lifecycle_node)
    deadline = time.monotonic() + timeout_s
    said = ''
    complete_since = math.inf
    while True:
        tick()
        unmatched = [x for x in publishers if not publishers[x].get_subscription_count()]
        settle_s = SETTLE_S
        if lifecycle_node and 0 < len(unmatched) < len(publishers):
            # The node may not want the others, or not have seen them yet.
            taken = _taken_by(node, lifecycle_node)
            unmatched = [name for name in unmatched if name in taken]
            settle_s = STRAGGLER_S
        missing = [f'a subscriber of {name}{_why_unmatched(node, name)}' for name in unmatched]
        if not state.active():
            missing.append(f'{lifecycle_node} to be active ({state.label})')
        # A subscriber knows its publisher a moment later than the other way round.
        complete_since = math.inf if missing else min(complete_since, time.monotonic())
        if time.monotonic() - complete_since >= settle_s:
            return
        sentence = 'waiting for ' + ', '.join(missing)
        if missing and time.monotonic() > deadline:
            msg = (
                f'gave up after {timeout_s:g} s of {sentence}; '
                'choose topics with --topics, wait longer with --wait-timeout '
                'or not at all with --no-wait'
            )
            raise NobodyListens(msg)
        if missing and sentence != said:
            say(sentence)
            said = sentence
        executor.spin_once(timeout_sec=SPIN_S)


def _taken_by(node: Any, listener: str) -> set[str]:
    """Name the topics that a node subscribes to."""
    from rclpy.node import NodeNameNonExistentError

    namespace, _, name = listener.rpartition('/')
    try:
        found = node.get_subscriber_names_and_types_by_node(name, namespace or '/')
    except NodeNameNonExistentError:
        return set()
    return {topic for topic, _ in found}


def _why_unmatched(node: Any, topic: str) -> str:
    others = node.get_subscriptions_info_by_topic(topic)
    if not others:
        return ''
    asked = others[0].qos_profile.reliability.name.lower()
    return f' with a fitting QoS ({others[0].node_name} asks for {asked}: see --reliability)'


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
