# SPDX-License-Identifier: Apache-2.0
"""What an outsider hears of the nodes under test: `/diagnostics` and answers, held to account."""

from __future__ import annotations

import bisect
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from operator import itemgetter
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import PointCloud2

from cross4d_jepa_ros.ros.answer_client import SentSweep, sent_sweep

IN_FLIGHT_MOST = 3


@dataclass
class Heard:
    """The newest `/diagnostics` of one node. Values and sentences by section."""

    at_ns: int = 0
    values: dict[str, dict[str, str]] = field(default_factory=dict)
    sentences: dict[str, str] = field(default_factory=dict)

    @property
    def state(self) -> str:
        """Of the lifecycle; empty before it has spoken."""
        return self.values.get('node', {}).get('state', '')

    def says(self, each: Sequence[tuple[str, str]]) -> bool:
        """Whether there are such words in such a section, for each pair of section and words."""
        return all(words in self.sentences.get(section, '') for section, words in each)

    def count(self, key: str) -> int:
        """Sweeps of one count, 0 before it is known."""
        return int(self.values.get('points', {}).get(key, '0'))

    def matched(self, camera: int) -> int:
        """Sweeps that went out with an image of this camera."""
        return int(self.values.get(f'image{camera}', {}).get('matched', '0'))


def out_of_balance(points: dict[str, str]) -> str:
    """Say how the counts of one `/diagnostics` do not add up; empty where they do."""
    dropped = sum(int(n) for key, n in points.items() if key.startswith('dropped.'))
    received, answered, in_flight = (int(points[k]) for k in ('received', 'answered', 'in_flight'))
    if received == answered + dropped + in_flight and 0 <= in_flight <= IN_FLIGHT_MOST:
        return ''
    return f'{received} received, {answered} answered, {dropped} dropped, {in_flight} in flight'


def wrong_answers(sent: list[SentSweep], answers: list[SentSweep]) -> list[str]:
    """Hold every answer against the sweep of its stamp, in any order of arrival."""
    expected: dict[int, list[SentSweep]] = defaultdict(list)
    for sweep in sent:
        expected[sweep.stamp_ns].append(sweep)
    wrong = []
    for answer in answers:
        if answer in expected[answer.stamp_ns]:
            expected[answer.stamp_ns].remove(answer)
        else:
            wrong.append(f'{answer} answers none of {expected[answer.stamp_ns]}')
    return wrong


class Watch(Node):
    """Hears nodes and remembers.

    Attributes:
        heard: Newest diagnostics, by the node's fully qualified name.
        answers: What each answer repeats of its sweep.
        arrivals: (stamp_ns, steady ns) of each answer.
        unbalanced: What any `/diagnostics` did not account for.
        in_flight_most: Seen in any.
        model_sha256: Of the model that the nodes say they run.

    """

    def __init__(self, watched: str) -> None:
        """Subscribe to the answers of the watched node, and to all diagnostics."""
        super().__init__('soak_watch')
        self.heard: dict[str, Heard] = defaultdict(Heard)
        self.answers: list[SentSweep] = []
        self.arrivals: list[tuple[int, int]] = []
        self.unbalanced: list[str] = []
        self.in_flight_most = 0
        self.model_sha256 = ''
        topic = f'{watched}/output/segmentation'
        self.create_subscription(PointCloud2, topic, self._on_answer, QoSProfile(depth=50))
        self.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 20)

    def answered_after(self, stamp_ns: int, at_ns: int) -> int | None:
        """When the first sweep of that stamp or of up to 30 s later was answered, steady ns."""
        since = bisect.bisect_left(self.arrivals, at_ns, key=itemgetter(1))
        later = self.arrivals[since:]
        return next((at for stamp, at in later if 0 <= stamp - stamp_ns < 30 * 10**9), None)

    def longest_gap_s(self, since_ns: int) -> float:
        """Longest time without an answer since then."""
        times = [since_ns, *(at for _, at in self.arrivals if at > since_ns), time.monotonic_ns()]
        return max(new - old for old, new in pairwise(times)) / 1e9

    def _on_answer(self, message: PointCloud2) -> None:
        answer = sent_sweep(message)
        self.answers.append(answer)
        self.arrivals.append((answer.stamp_ns, time.monotonic_ns()))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        if not message.status:
            return
        heard = Heard(at_ns=time.monotonic_ns())
        name = message.status[0].hardware_id
        for status in message.status:
            section = status.name.split(': ', 1)[1]
            heard.values[section] = {entry.key: entry.value for entry in status.values}
            heard.sentences[section] = status.message if status.level[0] else ''
        self.heard[name] = heard
        self.model_sha256 = heard.values['node'].get('model_sha256') or self.model_sha256
        if 'points' in heard.values:
            wrong = out_of_balance(heard.values['points'])
            if wrong:
                self.unbalanced.append(f'{name}: {wrong}')
            self.in_flight_most = max(self.in_flight_most, heard.count('in_flight'))


def sweep_of(facts: dict[str, Any]) -> SentSweep:
    """Read a sweep from the sensors' event."""
    return SentSweep(**facts)
