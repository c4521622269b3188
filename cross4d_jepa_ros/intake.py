# SPDX-License-Identifier: Apache-2.0
"""From the arrival of a sweep to its answer or the cause of its drop. No ROS.

A sweep waits for its images, lies in the mailbox, is worked on: one in each place, and the books
(`ledger`) follow every step.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from cross4d_jepa_ros.compute import is_out_of_memory
from cross4d_jepa_ros.ledger import Drop, Entry, SweepLedger
from cross4d_jepa_ros.sensing.frames import NoTransform
from cross4d_jepa_ros.sensing.point_clouds import MalformedCloud, stamp_ns
from cross4d_jepa_ros.sensing.synchronisation import SweepSynchroniser, SyncConfig
from cross4d_jepa_ros.telemetry import Telemetry
from cross4d_jepa_ros.worker import NewestFirstWorker

DEACTIVATED = 'the node was deactivated'
JOIN_S = 1.0


class StillBusy(RuntimeError):
    """The worker of the last active life is on its last sweep yet."""


@dataclass(frozen=True)
class Job:
    """A sweep with the images chosen for it, on its way to the worker."""

    points: Any
    images: tuple[Any, ...]
    entry: Entry
    over: threading.Event

    @property
    def abandoned(self) -> bool:
        """Whether the node was deactivated since: its answer must not be published."""
        return self.over.is_set()


class Answerer(Protocol):
    """What the worker's thread calls."""

    def prepare(self) -> None:
        """Get ready on the worker's thread."""

    def answer(self, job: Job) -> None:
        """Publish an answer and call `Intake.answered`; or raise, or return without an answer."""

    def recover(self) -> None:
        """Give memory back after it ran out."""


@dataclass(eq=False)
class _Arrival:
    """A sweep as the synchroniser sees it: a stamp."""

    points: Any
    entry: Entry

    @property
    def header(self) -> Any:
        return self.points.header


class Intake:
    """Takes sweeps and images while it is started. Thread-safe; nothing waits for the worker.

    Attributes:
        ledger: Counts every sweep.
        telemetry: Of arrivals and answers.
        synchroniser: Of the configured life; None before the first.
        out_of_memory: Sweeps in a row for which memory ran out.

    """

    def __init__(
        self,
        *,
        on_reset: Callable[[str], None],
        log: Callable[[str], None],
        steady_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Keep the books; `configure` and `start` make it take sweeps.

        Args:
            on_reset: Called with a sentence when the sweeps jump to another time.
            log: Called with what went wrong, from any thread.
            steady_ns: The steady clock, ns.

        """
        self.ledger = SweepLedger()
        self.telemetry = Telemetry()
        self.synchroniser: SweepSynchroniser | None = None
        self.out_of_memory = 0
        self._on_reset = on_reset
        self._log = log
        self._steady_ns = steady_ns
        # Callbacks of the synchroniser run under it: it is taken again.
        self._lock = threading.RLock()
        self._worker: NewestFirstWorker[Job] | None = None
        self._last_worker: NewestFirstWorker[Job] | None = None
        self._over = threading.Event()
        self._begun_ns: int | None = None

    @property
    def started(self) -> bool:
        """Whether sweeps are taken."""
        return self._worker is not None

    @property
    def working_s(self) -> float:
        """How long the sweep at work has been worked on; 0 where there is none."""
        begun_ns = self._begun_ns
        return 0.0 if begun_ns is None else (self._steady_ns() - begun_ns) / 1e9

    def configure(self, config: SyncConfig) -> None:
        """Prepare for cameras."""
        self.synchroniser = SweepSynchroniser(
            config,
            steady_ns=self._steady_ns,
            on_admit=self._admitted,
            on_drop=self._refused,
            on_reset=self._on_reset,
            on_error=self._failed,
        )
        self.synchroniser.registerCallback(self._synchronised)

    def start(self, answerer: Answerer) -> None:
        """Take sweeps; returns when the worker is prepared.

        Raises:
            StillBusy: The last life's worker has not ended: two would share one pipeline.

        """
        assert self.synchroniser is not None
        if self._last_worker is not None and self._last_worker.busy():
            msg = 'the worker is still busy with a sweep of before: activate again when it is done'
            raise StillBusy(msg)
        self.synchroniser.clear()
        self.telemetry.forget_recent(self.ledger.counts(), self.synchroniser.statistics())
        self.out_of_memory = 0
        self._over = threading.Event()
        self._worker = NewestFirstWorker(
            lambda job: self._work(answerer, job), prepare=answerer.prepare
        )

    def stop(self) -> bool:
        """Take no more, drop what waits, wait one pipeline time and a second for the one at work.

        Returns:
            Whether the worker ended. Else it drops its sweep when it does.

        """
        with self._lock:
            worker, self._worker = self._worker, None
            if worker is None:
                return self._last_worker is None or not self._last_worker.busy()
            self._last_worker = worker
            self._over.set()
            assert self.synchroniser is not None
            waiting = self.synchroniser.clear()
            if waiting is not None:
                self.ledger.drop(waiting.entry, Drop.INACTIVE, DEACTIVATED)
        joined, left = worker.stop(JOIN_S + self.telemetry.pipeline_ms(100) / 1e3)
        if left is not None:
            self.ledger.drop(left.entry, Drop.INACTIVE, DEACTIVATED)
        if joined:
            # It holds the answerer, and so the model.
            self._last_worker = None
        return joined

    def add_sweep(self, message: Any) -> None:
        """Take a PointCloud2, or any message with `header.stamp`."""
        with self._lock:
            if self._worker is None or self.synchroniser is None:
                self.ledger.refuse(Drop.INACTIVE, DEACTIVATED)
                return
            try:
                arrival = _Arrival(message, Entry(stamp_ns(message), self._steady_ns()))
            except Exception as error:
                self.ledger.refuse(Drop.MALFORMED, f'no stamp can be read: {error!r}')
                return
            self.telemetry.arrived(arrival.entry.stamp_ns)
            self.synchroniser.add_sweep(arrival)

    def add_image(self, message: Any, camera: int) -> None:
        """Take an image of camera `camera`, counted from 0."""
        with self._lock:
            if self._worker is not None and self.synchroniser is not None:
                self.synchroniser.add_image(message, camera)

    def poll(self) -> None:
        """Release a sweep that has waited long enough; to be called from a steady timer."""
        with self._lock:
            if self._worker is not None and self.synchroniser is not None:
                self.synchroniser.poll()

    def answered(
        self, job: Job, stages_ms: Mapping[str, float], capped: tuple[int, int] = (0, 0)
    ) -> float:
        """Count an answer that is out, where its time went, and its capped points and tokens.

        Returns:
            Arrival to now, ms.

        """
        latency_ms = (self._steady_ns() - job.entry.arrived_ns) / 1e6
        self.ledger.answer(job.entry)
        self.out_of_memory = 0
        self.telemetry.answered(latency_ms, stages_ms, capped)
        return latency_ms

    # What the synchroniser calls

    def _admitted(self, arrival: _Arrival) -> None:
        self.ledger.receive(arrival.entry)

    def _refused(self, arrival: _Arrival, cause: str) -> None:
        self.ledger.refuse(Drop(cause), f'stamp {arrival.entry.stamp_ns} ns')

    def _synchronised(self, arrival: _Arrival, *images: Any) -> None:
        entry = arrival.entry
        self.ledger.offer(entry)
        try:
            worker, job = self._worker, Job(arrival.points, images, entry, self._over)
            taken = worker is not None and worker.offer(job)
        except Exception as error:
            self.ledger.drop(entry, *_cause(error))
            raise
        if not taken:
            self.ledger.drop(entry, Drop.INACTIVE, DEACTIVATED)

    def _failed(self, error: Exception) -> None:
        self._log(f'{type(error).__name__}: {error}')

    # The worker's thread

    def _work(self, answerer: Answerer, job: Job) -> None:
        if not self.ledger.begin(job.entry):
            return
        self._begun_ns = self._steady_ns()
        lacking = False
        try:
            if not job.abandoned:
                answerer.answer(job)
        except BaseException as error:
            lacking = is_out_of_memory(error)
            self._answer_failed(job, error)
        finally:
            self._begun_ns = None
            if self.ledger.place(job.entry) is not None:
                over = job.abandoned
                self.ledger.drop(
                    job.entry,
                    Drop.INACTIVE if over else Drop.ERROR,
                    DEACTIVATED if over else 'no answer was made',
                )
        # Only here: until the handler ends, the error holds on to what the step had allocated.
        if lacking:
            self.out_of_memory += 1
            answerer.recover()

    def _answer_failed(self, job: Job, error: BaseException) -> None:
        if self.ledger.place(job.entry) is None:
            self._log(f'after the answer was out: {error!r}')
            return
        if job.abandoned:
            return
        cause, reason = _cause(error)
        self.ledger.drop(job.entry, cause, reason)
        self._log(f'sweep dropped ({cause}): {error}')


def _cause(error: BaseException) -> tuple[Drop, str]:
    """Name the cause of a drop and its reason."""
    for kind, cause in ((MalformedCloud, Drop.MALFORMED), (NoTransform, Drop.NO_TRANSFORM)):
        if isinstance(error, kind):
            return cause, first_line(error)
    if is_out_of_memory(error):
        return Drop.OUT_OF_MEMORY, first_line(error)
    return Drop.ERROR, repr(error)


def first_line(error: BaseException) -> str:
    """Leave out the native stack that PyTorch appends."""
    return str(error).partition('\n')[0]
