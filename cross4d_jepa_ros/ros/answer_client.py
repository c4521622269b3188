# SPDX-License-Identifier: Apache-2.0
"""Receives the node's answers and holds each against the sweep that was sent."""

from __future__ import annotations

import re
import time
import zlib
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import PointCloud2

from cross4d_jepa_ros.ros.messages import coordinates
from cross4d_jepa_ros.sensing.point_clouds import MalformedCloud, stamp_ns, structured_view


@dataclass(frozen=True)
class SentSweep:
    """What an answer to a sweep must repeat. `coordinates` is a checksum of x, y, z."""

    stamp_ns: int
    frame_id: str
    height: int
    width: int
    coordinates: int | None


def sent_sweep(message: Any) -> SentSweep:
    """Remember a PointCloud2-like message without keeping it."""
    return SentSweep(
        stamp_ns=stamp_ns(message),
        frame_id=message.header.frame_id,
        height=message.height,
        width=message.width,
        coordinates=_checksum(message),
    )


def _checksum(message: Any) -> int | None:
    try:
        xyz = coordinates(structured_view(message))
    except MalformedCloud:
        return None
    total = 0
    for values in xyz:
        total = zlib.crc32(values.tobytes(), total)
    return total


class AnswerClient(Node):
    """Subscribes to the outputs of a perception node and to its diagnostics.

    Attributes:
        wrong: Answers that differ from their sweep, by what differs.
        received: Number of answers on the watched topic.
        arrivals: (stamp_ns, steady ns of receipt) of every answer.
        kept: The message nearest to `keep_near_ns`, by topic name.
        values: Newest diagnostics, status name (without the node's) to key to value.
        levels: Level and message of each, likewise.
        collecting: Whether what the node finds is to be remembered.
        found: Findings while collecting, by section and wording (figures apart): the last of each.
        ego_motion: How often each source was named meanwhile.
        class_ids: (P,) class ids of every segmentation, by stamp, if they are to be kept.

    """

    def __init__(
        self,
        target: str,
        topics: tuple[str, ...],
        keep_near_ns: int,
        *,
        keep_class_ids: bool,
        **kwargs: Any,
    ) -> None:
        """Subscribe.

        Args:
            target: Fully qualified name of the perception node.
            topics: Names below its `output/` to receive.
            keep_near_ns: Keep the answers to the sweep nearest to this stamp.
            keep_class_ids: Keep the class ids of all answers.
            kwargs: Passed on to `rclpy.node.Node`.

        """
        super().__init__('answer_client', **kwargs)
        self.wrong: Counter[str] = Counter(
            wrong_count=0, wrong_stamp=0, wrong_frame=0, wrong_coordinates=0
        )
        self.received = 0
        self.arrivals: list[tuple[int, int]] = []
        self.kept: dict[str, PointCloud2] = {}
        self.values: dict[str, dict[str, str]] = {}
        self.levels: dict[str, tuple[int, str]] = {}
        self.collecting = False
        self.found: dict[tuple[str, str], str] = {}
        self.ego_motion: Counter[str] = Counter()
        self.class_ids: dict[int, NDArray[np.uint8]] = {}
        self._keep_class_ids = keep_class_ids
        self._sent: dict[int, list[SentSweep]] = {}
        self._expected = 0
        self._keep_near_ns = keep_near_ns
        self._watched = ''
        self._target = target
        self.topics = {name: f'{target}/output/{name}' for name in topics}
        for name, topic in self.topics.items():
            self.create_subscription(
                PointCloud2,
                topic,
                lambda message, name=name: self._on_answer(name, message),
                QoSProfile(depth=10),
            )
        self.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)

    def expect(self, sweep: SentSweep) -> None:
        """Announce a sweep that will be sent."""
        self._sent.setdefault(sweep.stamp_ns, []).append(sweep)
        self._expected += 1

    def watch(self, name: str) -> None:
        """Check and count the answers of this topic."""
        self._watched = name

    def advertised(self) -> list[str]:
        """Topics, of those subscribed to, that the node publishes."""
        return [name for name, topic in self.topics.items() if self.count_publishers(topic)]

    def value(self, status: str, key: str, default: str = '') -> str:
        """Read a value of the newest diagnostics."""
        return self.values.get(status, {}).get(key, default)

    def _on_answer(self, name: str, message: PointCloud2) -> None:
        stamp = stamp_ns(message)
        kept = self.kept.get(name)
        distance = abs(stamp - self._keep_near_ns)
        if kept is None or distance < abs(stamp_ns(kept) - self._keep_near_ns):
            self.kept[name] = message
        if name == 'segmentation' and self._keep_class_ids:
            # Scored later: while answers arrive, the time belongs to the node.
            self.class_ids[stamp] = structured_view(message)['class_id'].flatten()
        if name != self._watched:
            return
        self.received += 1
        self.arrivals.append((stamp, time.monotonic_ns()))
        expected = self._sent.get(stamp)
        if not expected:
            self.wrong['wrong_stamp'] += 1
            return
        answered = sent_sweep(message)
        # Several sweeps may share a stamp (zero, say) and some of them be dropped.
        sweep = answered if answered in expected else expected[0]
        expected.remove(sweep)
        self.wrong['wrong_frame'] += answered.frame_id != sweep.frame_id
        self.wrong['wrong_count'] += (answered.height, answered.width) != (
            sweep.height,
            sweep.width,
        )
        self.wrong['wrong_coordinates'] += answered.coordinates != sweep.coordinates

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.hardware_id != self._target:
                continue
            section = status.name.split(': ', 1)[1]
            self.values[section] = {entry.key: entry.value for entry in status.values}
            self.levels[section] = (status.level[0], status.message)
            if self.collecting and int(self.value('points', 'answered', '0')):
                # Once all has arrived, silence is no finding.
                if status.level[0] and int(self.value('points', 'received', '0')) < self._expected:
                    wording = re.sub(r'[-+]?\d+(\.\d+)?', '#', status.message)
                    self.found[section, wording] = status.message
                if section == 'node':
                    self.ego_motion[self.value('node', 'ego_motion', 'none')] += 1
