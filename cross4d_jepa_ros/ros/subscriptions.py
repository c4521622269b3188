# SPDX-License-Identifier: Apache-2.0
"""Inputs that follow their publisher: subscribed once seen, with the type and QoS it offers."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

from cross4d_jepa_ros.health import InputState, best_effort_refused

RECENT_S = 10.0


class PlainSubscriber:
    """The part of `message_filters.Subscriber` that the node uses, where it is not installed."""

    def __init__(self, node: Node, msg_type: type, topic: str, **kwargs: Any) -> None:
        """Subscribe; the arguments are those of `Node.create_subscription`."""
        self._callbacks: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self.sub = node.create_subscription(msg_type, topic, self._signal, **kwargs)

    def registerCallback(self, callback: Callable[..., None], *args: Any) -> int:
        """Have `callback(message, *args)` called; returns its number."""
        self._callbacks.append((callback, args))
        return len(self._callbacks) - 1

    def _signal(self, message: Any) -> None:
        for callback, args in self._callbacks:
            callback(message, *args)


try:
    from message_filters import Subscriber
except ImportError:
    Subscriber = PlainSubscriber


class InputTopic:
    """One input of the node, in the shape of a message filter.

    It subscribes when a publisher appears and subscribes anew when what is offered changes, so
    that `auto` reliability and raw or compressed images need no parameter.
    """

    def __init__(
        self,
        node: Node,
        name: str,
        topic: str,
        types: Mapping[str, type],
        *,
        reliability: str,
        depth: int,
    ) -> None:
        """Watch a topic; `poll` subscribes.

        Args:
            node: Owner of the subscription.
            name: Input name after `~/input/`, for messages to people.
            topic: Resolved topic name.
            types: Accepted message classes by their ROS name.
            reliability: `auto`, `reliable` or `best_effort`.
            depth: Queue length in messages.

        """
        self.name = name
        self.topic = topic
        self._node = node
        self._types = types
        self._reliability = reliability
        self._depth = depth
        self._callbacks: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self._subscriber: Any = None
        self._subscribed: tuple[str, ReliabilityPolicy, bool] | None = None
        self._senders: tuple[str, ...] = ()
        self._incompatible = ''
        self._received = 0
        self._quiet_since = time.monotonic()
        self._lost: deque[tuple[float, int]] = deque()

    def registerCallback(self, callback: Callable[..., None], *args: Any) -> int:
        """Have `callback(message, *args)` called for every message; returns its number."""
        self._callbacks.append((callback, args))
        return len(self._callbacks) - 1

    def poll(self) -> None:
        """Look at the graph and (re)subscribe where that is due."""
        offers = self._node.get_publishers_info_by_topic(self.topic)
        if offers and not self._senders:
            self._quiet_since = time.monotonic()
        self._senders = tuple(
            f'{offer.node_namespace.rstrip("/")}/{offer.node_name}' for offer in offers
        )
        self._incompatible = ''
        if not offers:
            return
        usable = [offer for offer in offers if offer.topic_type in self._types]
        if not usable:
            self._incompatible = (
                f'{self.topic} carries {offers[0].topic_type}, ~/input/{self.name} takes '
                f'{" or ".join(self._types)}: remap another topic'
            )
            return
        best_effort = [
            offer.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT for offer in usable
        ]
        if self._reliability == 'auto':
            wanted = (
                ReliabilityPolicy.BEST_EFFORT if any(best_effort) else ReliabilityPolicy.RELIABLE
            )
        else:
            wanted = ReliabilityPolicy[self._reliability.upper()]
        if wanted == ReliabilityPolicy.RELIABLE and any(best_effort):
            self._incompatible = best_effort_refused(self.topic)
        # A latched message, such as a CameraInfo sent once, reaches only those who ask for it.
        latched = all(
            offer.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for offer in usable
        )
        chosen = (usable[0].topic_type, wanted, latched)
        if chosen != self._subscribed:
            self._subscribe(*chosen)

    def _subscribe(self, topic_type: str, reliability: ReliabilityPolicy, latched: bool) -> None:
        self.close()
        self._subscriber = Subscriber(
            self._node,
            self._types[topic_type],
            self.topic,
            qos_profile=QoSProfile(
                depth=self._depth,
                history=HistoryPolicy.KEEP_LAST,
                reliability=reliability,
                durability=(
                    DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
                ),
            ),
            event_callbacks=SubscriptionEventCallbacks(
                message_lost=self._on_lost, use_default_callbacks=False
            ),
        )
        self._subscriber.registerCallback(self._signal)
        self._subscribed = (topic_type, reliability, latched)

    def close(self) -> None:
        """Unsubscribe. Callbacks stay registered."""
        if self._subscriber is not None:
            self._node.destroy_subscription(self._subscriber.sub)
        self._subscriber = self._subscribed = None

    def state(self) -> InputState:
        """Report what is known, for the health check."""
        now = time.monotonic()
        while self._lost and self._lost[0][0] < now - RECENT_S:
            self._lost.popleft()
        candidates: tuple[str, ...] = ()
        if not self._senders:
            own = f'{self._node.get_fully_qualified_name()}/'
            candidates = tuple(
                topic
                for topic, types in self._node.get_topic_names_and_types()
                if set(types) & set(self._types)
                and not topic.startswith(own)
                and self._node.count_publishers(topic)
            )
        return InputState(
            name=self.name,
            topic=self.topic,
            publishers=len(self._senders),
            senders=self._senders,
            candidates=candidates,
            incompatible=self._incompatible,
            received=self._received,
            silent_s=now - self._quiet_since,
            lost=sum(count for _, count in self._lost),
        )

    def _signal(self, message: Any) -> None:
        self._received += 1
        self._quiet_since = time.monotonic()
        for callback, args in self._callbacks:
            callback(message, *args)

    def _on_lost(self, event: Any) -> None:
        self._lost.append((time.monotonic(), event.total_count_change))
