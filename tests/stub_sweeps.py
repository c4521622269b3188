# SPDX-License-Identifier: Apache-2.0
"""Sweeps without points, and an answerer that does as it is told: the flow without ROS."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from cross4d_jepa_ros.intake import Intake, Job
from cross4d_jepa_ros.ledger import Counts, Place


def message(stamp_ns: int) -> Any:
    """Make what the flow reads of a message."""
    sec, nanosec = divmod(stamp_ns, 10**9)
    return SimpleNamespace(header=SimpleNamespace(stamp=SimpleNamespace(sec=sec, nanosec=nanosec)))


def balanced(counts: Counts) -> bool:
    """Whether the books are right: each term is counted on its own."""
    closed = counts.answered + sum(counts.dropped.values())
    return counts.received == closed + counts.in_flight and counts.in_flight <= len(Place)


class Gate:
    """An `Answerer` that holds each sweep until `finish` says what becomes of it."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._endings: queue.SimpleQueue[Callable[[Job], Any]] = queue.SimpleQueue()
        self._job: Job | None = None
        self.begun: list[int] = []
        self.recovered = 0

    def prepare(self) -> None:
        """Nothing."""

    def recover(self) -> None:
        """Count."""
        self.recovered += 1

    def answer(self, job: Job) -> None:
        """Wait to be told."""
        self.begun.append(job.entry.stamp_ns)
        self._job = job
        self._endings.get()(job)

    @property
    def job(self) -> Job | None:
        """The sweep that is being worked on."""
        return self._job

    def finish(self, ending: Callable[[Job], Any]) -> None:
        """End the sweep at work and wait until it has left the books."""
        job, self._job = self._job, None
        assert job is not None
        self._endings.put(ending)
        until(lambda: self._intake.ledger.place(job.entry) is None)

    def settle(self) -> None:
        """Wait until the worker has taken what it can take."""

        def settled() -> bool:
            places = self._intake.ledger.counts().places
            if places[Place.WORKING]:
                return self._job is not None
            return not places[Place.MAILBOX]

        until(settled)


def until(condition: Callable[[], bool]) -> None:
    """Wait for the worker's thread, without a pause."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, 'the worker stands still'
        time.sleep(0)
