# SPDX-License-Identifier: Apache-2.0
"""A pipeline slower than the sensor: bounded latency, the newest wins, said so, and over by itself.

Time is made up, so that the figures are those of the flow and not of a busy machine.
"""

from __future__ import annotations

import os
import signal
import statistics
import sys
import time
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
from sensor_msgs.msg import PointCloud2

from cross4d_jepa_ros.children import child_process
from cross4d_jepa_ros.health import InputState, Level, Observation, findings
from cross4d_jepa_ros.intake import Intake, Job
from cross4d_jepa_ros.ledger import Drop
from cross4d_jepa_ros.ros.outputs import DEPTH
from cross4d_jepa_ros.sensing.synchronisation import SyncConfig
from cross4d_jepa_ros.telemetry import RECENT_S
from tests.bench import Bench
from tests.stub_sweeps import Gate, balanced, message

MS = 10**6
START_NS = 1000 * 10**9
PERIOD_MS = 100
TIMEOUT_MS = 100
# The timer that polls, and the clock of this test.
TICK_MS = 10
DIAGNOSTICS_MS = 1000


@dataclass
class Drive:
    """A sensor, a camera and a pipeline on one clock.

    Attributes:
        pipeline_ms: Time that a step takes from now on.
        silent: Whether the sensor sends nothing from now on.
        latencies_ms: Arrival to publishing of every answer.
        stamps_ns: Of every answer.
        levels: Worst finding about speed at each second, with the time in s.
        sentences: All findings about speed.

    """

    cameras: int = 0
    pipeline_ms: float = 0.0
    silent: bool = False
    now_ns: int = START_NS
    latencies_ms: list[float] = field(default_factory=list)
    stamps_ns: list[int] = field(default_factory=list)
    levels: list[tuple[float, Level]] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)

    def begin(self, cameras: int, pipeline_ms: float) -> None:
        """Start everything."""
        self.cameras, self.pipeline_ms = cameras, pipeline_ms
        self.sync = SyncConfig(offsets_s=(0.0,) * self.cameras, timeout_s=TIMEOUT_MS / 1e3)
        self.intake = Intake(on_reset=str, log=str, steady_ns=lambda: self.now_ns)
        self.intake.configure(self.sync)
        self.gate = Gate(self.intake)
        self.intake.start(self.gate)
        self.sent = self.newest_ns = 0
        self._ends_ns = 0
        self._at_work: Job | None = None

    def go_on(self, seconds: float, *, camera_delay_ms: int = 30) -> None:
        """Let time pass; `camera_delay_ms` after each sweep comes its image."""
        for _ in range(round(seconds * 1e3 / TICK_MS)):
            self.now_ns += TICK_MS * MS
            since_ms = self.now_ns // MS
            if since_ms % PERIOD_MS == 0 and not self.silent:
                self.intake.add_sweep(message(self.now_ns))
                self.sent, self.newest_ns = self.sent + 1, self.now_ns
            if (since_ms - camera_delay_ms) % PERIOD_MS == 0:
                for camera in range(self.cameras):
                    self.intake.add_image(message(self.now_ns - camera_delay_ms * MS), camera)
            self.intake.poll()
            self._work()
            assert balanced(self.intake.ledger.counts())
            if since_ms % DIAGNOSTICS_MS == 0:
                self.levels.append((self.now_ns / 1e9, self._level()))

    def _work(self) -> None:
        self.gate.settle()
        if self._at_work is not None and self.now_ns >= self._ends_ns:
            self._at_work = None
            self.gate.finish(self._answer)
            self.gate.settle()
        job = self.gate.job
        if job is not None and self._at_work is None:
            self._at_work = job
            if not self.cameras:
                assert job.entry.stamp_ns == self.newest_ns
            self._ends_ns = self.now_ns + round(self.pipeline_ms * MS)

    def _answer(self, job: Job) -> None:
        stages = {'step': self.pipeline_ms}
        self.latencies_ms.append(self.intake.answered(job, stages))
        self.stamps_ns.append(job.entry.stamp_ns)

    def _level(self) -> Level:
        assert self.intake.synchroniser is not None
        counts = self.intake.ledger.counts()
        recent = self.intake.telemetry.recent(counts, self.intake.synchroniser.statistics())
        seen = Observation(
            'active',
            points=InputState('points', '/points', publishers=1),
            sync=self.sync,
            received=recent.received,
            dropped=recent.dropped,
            pipeline_ms=self.intake.telemetry.pipeline_ms(),
            working_s=self.intake.working_s,
        )
        about = [finding for finding in findings(seen) if finding.about == 'speed']
        self.sentences += [finding.sentence for finding in about]
        return max((finding.level for finding in about), default=Level.OK)

    def close(self) -> None:
        """End the thread."""
        while self.gate.job is not None:
            self.gate.finish(lambda job: None)
            self.gate.settle()
        assert self.intake.stop()


@pytest.fixture
def drive(monkeypatch: pytest.MonkeyPatch) -> Iterator[Drive]:
    """Lend a drive on whose clock telemetry lives, too; end its thread."""
    clock = SimpleNamespace(monotonic=lambda: START_NS / 1e9)
    monkeypatch.setattr('cross4d_jepa_ros.telemetry.time', clock)
    lent = Drive()
    clock.monotonic = lambda: lent.now_ns / 1e9
    yield lent
    lent.close()


@pytest.mark.parametrize('cameras', [0, 2])
@pytest.mark.parametrize('camera_delay_ms', [30, 250])
@pytest.mark.parametrize('load', [1.3, 2.0, 3.0, 7.5])
def test_latency_is_bounded_and_the_newest_sweep_wins(
    drive: Drive, load: float, camera_delay_ms: int, cameras: int
) -> None:
    drive.begin(cameras, load * PERIOD_MS)
    drive.go_on(20.0, camera_delay_ms=camera_delay_ms)

    most_ms = 2 * drive.pipeline_ms + TIMEOUT_MS * bool(cameras) + 2 * TICK_MS
    assert max(drive.latencies_ms) <= most_ms
    steps = [new - old for old, new in zip(drive.stamps_ns, drive.stamps_ns[1:], strict=False)]
    assert min(steps) > 0
    # Of those that had come when the worker was free, none was newer.
    assert max(steps) <= (drive.pipeline_ms + PERIOD_MS + 2 * TICK_MS) * MS
    counts = drive.intake.ledger.counts()
    assert counts.received == drive.sent
    assert counts.received == counts.answered + counts.dropped[Drop.SUPERSEDED] + counts.in_flight
    assert counts.answered == pytest.approx(drive.sent / load, rel=0.05)


@pytest.mark.parametrize(
    ('load', 'level'),
    [(0.9, Level.OK), (1.3, Level.WARN), (1.8, Level.WARN), (2.2, Level.ERROR), (5.0, Level.ERROR)],
)
def test_diagnostics_say_how_much_too_slow(drive: Drive, load: float, level: Level) -> None:
    drive.begin(0, load * PERIOD_MS)
    drive.go_on(12.0)

    said_s = next((at for at, seen in drive.levels if seen == level), float('inf'))
    assert said_s - 1000 <= 5
    assert {seen for _, seen in drive.levels[-6:]} == {level}


@pytest.mark.parametrize('load', [1.3, 3.0, 10.0])
def test_it_is_over_by_itself(drive: Drive, load: float) -> None:
    drive.begin(0, load * PERIOD_MS)
    drive.go_on(15.0)
    slow = len(drive.latencies_ms)
    assert drive.levels[-1][1] != Level.OK
    drive.pipeline_ms = 0.5 * PERIOD_MS
    ended_s = drive.now_ns / 1e9
    drive.go_on(12.0)

    # The step at work and the one behind it are yet of the slow time.
    assert max(drive.latencies_ms[slow + 2 :]) <= drive.pipeline_ms + 2 * TICK_MS
    fine_s = next(at for at, seen in drive.levels if at > ended_s and seen == Level.OK)
    assert fine_s - ended_s <= RECENT_S + load * PERIOD_MS / 1e3
    assert {seen for at, seen in drive.levels if at >= fine_s} == {Level.OK}


def test_a_step_that_does_not_end_is_named_even_when_the_sensor_falls_silent(
    drive: Drive,
) -> None:
    drive.begin(0, 50.0)
    drive.go_on(3.0)
    assert not drive.sentences
    drive.pipeline_ms = 20_000.0
    drive.go_on(0.2)
    drive.silent = True
    drive.go_on(4.8)

    assert drive.levels[-1][1] == Level.ERROR
    assert 'on one sweep for' in drive.sentences[-1]
    assert 'usually 50 ms' in drive.sentences[-1]

    drive.pipeline_ms, drive.silent = 50.0, False
    drive.go_on(22.0)
    assert drive.levels[-1][1] == Level.OK


@pytest.mark.parametrize('load', [30.0, 60.0])
def test_a_pipeline_that_is_merely_very_slow_is_called_slow(drive: Drive, load: float) -> None:
    drive.begin(0, load * PERIOD_MS)
    drive.go_on(30.0)

    assert 'too slow' in drive.sentences[-1]


def test_a_reader_that_stands_still_holds_nobody_up(bench: Bench) -> None:
    """Its unread clouds are more than the shared memory has room for; it is reliable, too."""
    publisher = bench.probe.create_publisher(PointCloud2, '/clouds', DEPTH)
    message = PointCloud2(data=array('B', bytes(2_500_000)))
    took_ms: list[float] = []
    command = [sys.executable, '-m', 'cross4d_jepa_ros.soak.reader', '/clouds']
    environment = {**os.environ, 'ROS_DOMAIN_ID': str(bench.domain)}
    with child_process(command, env=environment) as reader:
        bench.wait(publisher.get_subscription_count)
        reader.send_signal(signal.SIGSTOP)
        try:
            for _ in range(60):
                started = time.perf_counter()
                publisher.publish(message)
                took_ms.append((time.perf_counter() - started) * 1e3)
                time.sleep(max(0.0, 0.05 - took_ms[-1] / 1e3))
        finally:
            reader.send_signal(signal.SIGCONT)

    # A writer that waits for its reader does so for 100 ms each time.
    assert statistics.median(took_ms[30:]) < 60
