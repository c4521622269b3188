# SPDX-License-Identifier: Apache-2.0
"""The pace of a replay: each message when it is due, whoever listens."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from cross4d_jepa_ros.bags import BadBag, Bag, BagMessage
from cross4d_jepa_ros.replay_bag.publishers import BagPublishers
from cross4d_jepa_ros.replay_bag.report import ReplayReport

CLOCK_PERIOD_S = 0.01
READ_AHEAD = 32  # messages


class Replay:
    """The loop that feeds publishers by the recording's time.

    Args:
        bag: The open recording.
        publishers: Of its topics.
        report: Filled while playing; its rate is the one that is played at.
        skipped_s: Seconds to leave out first.
        clock: Publisher of `/clock`; None for none.

    Raises:
        BadBag: There is nothing to play.

    """

    def __init__(
        self,
        bag: Bag,
        publishers: BagPublishers,
        report: ReplayReport,
        *,
        skipped_s: float,
        clock: Any,
    ) -> None:
        self._bag = bag
        self._publishers = publishers
        self.report = report
        self._clock = clock
        self._next_tick_s = 0.0
        first = next(bag.messages(publishers.paced), None) if publishers.paced else None
        if first is None:
            reasons = '; '.join(f'{name}: {why}' for name, why in report.skipped.items())
            msg = f'{bag.path} holds nothing to play' + (f' ({reasons})' if reasons else '')
            raise BadBag(msg)
        start_ns = first.bag_stamp_ns + round(skipped_s * 1e9)
        if start_ns > bag.end_ns:
            length_s = (bag.end_ns - first.bag_stamp_ns) / 1e9
            msg = f'--start {skipped_s:g} is too late: {bag.path} lasts {length_s:.1f} s'
            raise BadBag(msg)
        report.anchor_bag_ns = start_ns

    def tick(self) -> None:
        """Have the clock, where there is one, show the instant of the first message."""
        self._tick(self.report.anchor_bag_ns)

    def play(self, stopped: threading.Event, *, loop: bool) -> None:
        """Publish everything that is due.

        Args:
            stopped: Set to end the reading early.
            loop: Whether to begin again at the end, for ever.

        """
        start_ns, end_ns = self.report.anchor_bag_ns, self._bag.end_ns
        for message in self._bag.messages(self._publishers.latched):
            if message.bag_stamp_ns < start_ns:
                self._publishers.publish(message)
        columns = (
            TextColumn('{task.description}'),
            BarColumn(),
            TextColumn('{task.percentage:3.0f}% at {task.fields[rate]:.2f}x'),
            TimeRemainingColumn(),
        )
        console = Console(stderr=True)
        with Progress(*columns, console=console, refresh_per_second=4) as progress:
            task = progress.add_task(
                self._bag.path.name, total=max(end_ns - start_ns, 1), rate=self.report.rate
            )
            while True:
                self.report.anchor_steady_ns = time.monotonic_ns()
                for message in read_ahead(
                    self._bag, self._publishers.latched | self._publishers.paced, start_ns, stopped
                ):
                    self._pace(message.bag_stamp_ns)
                    self._publishers.publish(message)
                    elapsed_ns = max(time.monotonic_ns() - self.report.anchor_steady_ns, 1)
                    played_ns = message.bag_stamp_ns - start_ns
                    progress.update(task, completed=played_ns, rate=played_ns / elapsed_ns)
                if not loop:
                    return
                progress.reset(task, rate=self.report.rate)

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
