# SPDX-License-Identifier: Apache-2.0
"""Received = answered + dropped by cause + in flight, at every moment, whatever happens."""

from __future__ import annotations

import random
import sys
import threading
import time
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock, patch

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cross4d_jepa_ros.intake import Intake, Job, StillBusy
from cross4d_jepa_ros.ledger import Drop, Place
from cross4d_jepa_ros.ros.answering import Answering
from cross4d_jepa_ros.sensing.frames import NoTransform
from cross4d_jepa_ros.sensing.point_clouds import MalformedCloud
from cross4d_jepa_ros.sensing.synchronisation import SyncConfig
from cross4d_jepa_ros.worker import NewestFirstWorker
from tests.stub_sweeps import Gate, balanced, message, until
from tests.tries import tries

MS = 10**6
SECOND = 10**9
SYNC = SyncConfig(offsets_s=(0.0, 0.02), tolerance_s=0.05, timeout_s=0.1)


class Unprintable(Exception):
    """Even its text raises."""

    def __str__(self) -> str:
        raise ValueError('no text')

    __repr__ = __str__


ERRORS: dict[Callable[[], BaseException], Drop] = {
    lambda: MalformedCloud('too short'): Drop.MALFORMED,
    lambda: NoTransform('no frame'): Drop.NO_TRANSFORM,
    MemoryError: Drop.OUT_OF_MEMORY,
    lambda: torch.OutOfMemoryError('CUDA out of memory'): Drop.OUT_OF_MEMORY,
    lambda: ValueError('else'): Drop.ERROR,
    Unprintable: Drop.ERROR,
    lambda: SystemExit(3): Drop.ERROR,
    KeyboardInterrupt: Drop.ERROR,
}


def raising(make: Callable[[], BaseException]) -> Callable[[Job], None]:
    def end(job: Job) -> None:
        raise make()

    return end


def unlogged(sentence: str) -> None:
    raise RuntimeError('the logger is gone')


def without_images(sentence: str) -> None:
    pass


@pytest.fixture(autouse=True)
def untold(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the worker raises is no news here."""
    monkeypatch.setattr(threading, 'excepthook', lambda told: None)


class Flow(RuleBasedStateMachine):
    """Sweeps, images, time, transitions and endings in any order; the worker is held by a gate."""

    @initialize(logs=st.booleans())
    def begin(self, logs: bool) -> None:
        self.now = self.stamp = 1000 * SECOND
        self.sent = self.answered = 0
        self.ended = dict.fromkeys(Drop, 0)
        self.intake = Intake(
            on_reset=unlogged,
            log=without_images if logs else unlogged,
            steady_ns=lambda: self.now,
        )
        self.intake.configure(SYNC)
        self.gate = Gate(self.intake)
        self.intake.start(self.gate)

    @precondition(lambda self: not self.intake.started)
    @rule()
    def activate(self) -> None:
        if self.gate.job is not None:
            with pytest.raises(StillBusy, match='busy'):
                self.intake.start(self.gate)
        else:
            # The thread may need a moment to end.
            until(self.intake.stop)
            self.intake.start(self.gate)

    @precondition(lambda self: self.intake.started)
    @rule()
    def deactivate(self) -> None:
        at_work = self.gate.job is not None
        # Nobody waits for a worker that is held on purpose.
        with patch('cross4d_jepa_ros.intake.JOIN_S', 0.0 if at_work else 20.0):
            assert self.intake.stop() is not at_work
        assert not self.intake.started
        places = self.intake.ledger.counts().places
        assert not places[Place.WAITING] + places[Place.MAILBOX]

    @rule()
    def configure(self) -> None:
        if not self.intake.started:
            self.intake.configure(SYNC)

    @rule(step_ms=st.sampled_from([100, 100, 100, 0, -30, -2000, 20_000, 250]))
    def sweep(self, step_ms: int) -> None:
        self.stamp = max(1, self.stamp + step_ms * MS)
        self.feed(message(self.stamp))

    @rule(stamp_ns=st.sampled_from([0, -5 * SECOND, 17 * 10**18]))
    def sweep_without_a_usable_stamp(self, stamp_ns: int) -> None:
        self.feed(message(stamp_ns))

    @rule(broken=st.sampled_from([None, object(), 'text']))
    def sweep_without_a_header(self, broken: Any) -> None:
        self.feed(broken)

    def feed(self, sweep: Any) -> None:
        self.sent += 1
        self.intake.add_sweep(sweep)

    @rule(camera=st.integers(0, 1), offset_ms=st.sampled_from([0, 20, 60, -40, -5000, 10**9]))
    def image(self, camera: int, offset_ms: int) -> None:
        self.intake.add_image(message(self.stamp + offset_ms * MS), camera)

    @rule(passed_ms=st.sampled_from([10, 60, 120, 3000]))
    def time_passes(self, passed_ms: int) -> None:
        self.now += passed_ms * MS
        self.intake.poll()

    @precondition(lambda self: self.gate.job is not None)
    @rule(late=st.sampled_from([None, *ERRORS]))
    def answer(self, late: Callable[[], BaseException] | None) -> None:
        """Answer; what is raised once an answer is out changes nothing."""

        def end(job: Job) -> None:
            if job.abandoned:
                return
            self.intake.answered(job, {})
            if late is not None:
                raise late()

        abandoned = self.job().abandoned
        self.gate.finish(end)
        self.expect(Drop.INACTIVE if abandoned else None)

    @precondition(lambda self: self.gate.job is not None)
    @rule(make=st.sampled_from(list(ERRORS)))
    def fail(self, make: Callable[[], BaseException]) -> None:
        abandoned = self.job().abandoned
        self.gate.finish(raising(make))
        self.expect(Drop.INACTIVE if abandoned else ERRORS[make])

    @precondition(lambda self: self.gate.job is not None)
    @rule()
    def end_without_a_word(self) -> None:
        abandoned = self.job().abandoned
        self.gate.finish(lambda job: None)
        self.expect(Drop.INACTIVE if abandoned else Drop.ERROR)

    def job(self) -> Job:
        assert self.gate.job is not None
        return self.gate.job

    def expect(self, cause: Drop | None) -> None:
        if cause is None:
            self.answered += 1
        else:
            self.ended[cause] += 1

    @invariant()
    def the_books_are_right(self) -> None:
        assert balanced(self.intake.ledger.counts())
        self.gate.settle()
        counts = self.intake.ledger.counts()
        assert balanced(counts)
        assert counts.received == self.sent
        assert counts.answered == self.answered
        for cause in (Drop.NO_TRANSFORM, Drop.OUT_OF_MEMORY, Drop.ERROR):
            assert counts.dropped[cause] == self.ended[cause], counts
        assert self.intake.synchroniser is not None
        assert counts.places[Place.WAITING] == self.intake.synchroniser.waiting()
        assert counts.places[Place.WORKING] == (self.gate.job is not None)
        assert not counts.places[Place.MAILBOX] or counts.places[Place.WORKING]

    def teardown(self) -> None:
        if not hasattr(self, 'gate'):
            return
        if self.intake.started:
            self.deactivate()
        if self.gate.job is not None:
            self.gate.finish(lambda job: None)
        until(self.intake.stop)
        assert self.intake.ledger.counts().in_flight == 0
        assert balanced(self.intake.ledger.counts())


@pytest.mark.usefixtures('untold')
class TestFlow(Flow.TestCase):
    """Run it."""

    settings = settings(max_examples=tries(60), stateful_step_count=40)


@pytest.mark.parametrize(
    ('error', 'cause'), [(MemoryError(), Drop.OUT_OF_MEMORY), (KeyError('x'), Drop.ERROR)]
)
def test_a_sweep_that_cannot_be_handed_on_is_dropped_by_cause(
    monkeypatch: pytest.MonkeyPatch, error: Exception, cause: Drop
) -> None:
    logged: list[str] = []
    intake = Intake(on_reset=logged.append, log=logged.append)
    intake.configure(SyncConfig(offsets_s=()))
    intake.start(Gate(intake))
    with monkeypatch.context() as patched:
        patched.setattr(NewestFirstWorker, 'offer', Mock(side_effect=error))
        intake.add_sweep(message(SECOND))
    counts = intake.ledger.counts()
    assert intake.stop()

    assert counts.dropped[cause] == counts.received == 1
    assert counts.in_flight == 0
    assert type(error).__name__ in logged[0]


@pytest.mark.parametrize(('ros_runs', 'cause'), [(True, Drop.ERROR), (False, Drop.INACTIVE)])
def test_a_sweep_that_a_signal_overtakes_is_no_error(ros_runs: bool, cause: Drop) -> None:
    logged: list[str] = []
    intake = Intake(on_reset=logged.append, log=logged.append)
    intake.configure(SyncConfig(offsets_s=()))
    failing = Mock(side_effect=RuntimeError("publisher's context is invalid"))
    life = Mock(**{'assembler.assemble': failing})
    context = Mock(**{'ok.return_value': ros_runs})
    intake.start(Answering(life, intake, Mock(), Mock(), context))
    intake.add_sweep(message(SECOND))
    until(lambda: not intake.ledger.counts().in_flight)
    counts = intake.ledger.counts()
    assert intake.stop()

    assert counts.dropped[cause] == counts.received == 1
    assert bool(logged) == ros_runs


class Erratic:
    """Answers, fails, dawdles: at random."""

    def __init__(self, intake: Intake, seed: int) -> None:
        self._intake = intake
        self._rng = random.Random(seed)

    def prepare(self) -> None:
        """Nothing."""

    def recover(self) -> None:
        """Fail, too."""
        raise MemoryError

    def answer(self, job: Job) -> None:
        """Do something."""
        if self._rng.random() < 0.3:
            time.sleep(self._rng.random() * 1e-3)
        if self._rng.random() < 0.3:
            raise self._rng.choice(list(ERRORS))()
        if self._rng.random() < 0.9 and not job.abandoned:
            self._intake.answered(job, {})
            if self._rng.random() < 0.1:
                raise KeyboardInterrupt


@pytest.mark.parametrize('seed', range(tries(3)))
def test_the_books_are_right_at_every_moment_with_threads(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Sweeps, images, the timer, transitions and the worker, all at once."""
    monkeypatch.setattr('cross4d_jepa_ros.intake.JOIN_S', 5.0)
    logged: list[str] = []
    intake = Intake(on_reset=logged.append, log=logged.append)
    intake.configure(SYNC)
    over = threading.Event()
    sent = [0, 0]

    def sweeps(index: int) -> None:
        rng = random.Random(seed * 10 + index)
        stamp = 1000 * SECOND
        while not over.is_set():
            stamp += rng.choice([100, 100, 100, 0, -30, -3000, 20_000]) * MS
            intake.add_sweep(message(rng.choice([stamp] * 9 + [0])))
            sent[index] += 1
            time.sleep(rng.random() * 2e-4)

    def images() -> None:
        rng = random.Random(seed * 10 + 8)
        while not over.is_set():
            intake.add_image(message(1000 * SECOND + rng.randrange(10**11)), rng.randrange(2))
            intake.poll()
            time.sleep(rng.random() * 2e-4)

    def transitions() -> None:
        rng = random.Random(seed * 10 + 9)
        while not over.is_set():
            intake.start(Erratic(intake, rng.randrange(10**6)))
            time.sleep(rng.random() * 0.05)
            assert intake.stop()

    threads = [
        threading.Thread(target=target)
        for target in (lambda: sweeps(0), lambda: sweeps(1), images, transitions)
    ]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        until = time.monotonic() + 0.7
        readings = 0
        while time.monotonic() < until:
            assert balanced(intake.ledger.counts())
            readings += 1
    finally:
        over.set()
        for thread in threads:
            thread.join(20)
        sys.setswitchinterval(before)

    counts = intake.ledger.counts()
    assert readings > 100
    assert counts.received == sum(sent)
    assert counts.in_flight == 0
    assert balanced(counts)
    assert counts.answered > 0
    assert not [sentence for sentence in logged if 'Miscounted' in sentence]
