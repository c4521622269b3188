# SPDX-License-Identifier: Apache-2.0
"""Plays one fault after the other and times what the node makes of each."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from rclpy.executors import SingleThreadedExecutor

from cross4d_jepa_ros.soak.faults import Fault, Kind, Named, Sign, turns
from cross4d_jepa_ros.soak.processes import First, seconds_since
from cross4d_jepa_ros.soak.sensors import Settings
from cross4d_jepa_ros.soak.stage import ACTIVE_LIMIT_S, Stage, Steps
from cross4d_jepa_ros.soak.watch import Heard

# Longer than what is asked of the node, so that what is late has a figure, too.
NAMED_LIMIT_S = 8.0
RECOVERED_LIMIT_S = 10.0
UNSAID_LIMIT_S = 20.0
SETTLE_LIMIT_S = 10.0
SILENCE_LIMIT_S = 30.0
COSTLY_SHARE = 0.2
SPIN_S = 0.01
# Images matched before a fault may be in a count that was read after its beginning.
MATCHES = 3


@dataclass
class Score:
    """What was noted while the soak ran.

    Attributes:
        faults: In the order of their beginnings.
        cycles: When every kind had been played once more, s.
        memory: (s since the beginning, resident MB, threads) of the watched node, each second.
        silence_s: Longest time without `/diagnostics` from it, outside of its starts.

    """

    faults: list[Fault] = field(default_factory=list)
    cycles: list[float] = field(default_factory=list)
    memory: list[tuple[float, float, int]] = field(default_factory=list)
    silence_s: float = 0.0


class Conductor:
    """Runs the faults of a stage for a while."""

    def __init__(self, stage: Stage, executor: SingleThreadedExecutor) -> None:
        """Prepare; `play` begins.

        Args:
            stage: With every process started.
            executor: Has the stage's watch.

        """
        self.score = Score()
        self._stage = stage
        self._executor = executor
        self._start_ns = time.monotonic_ns()
        self._afterwards: list[Steps] = []
        self._sampled_ns = 0

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return seconds_since(self._start_ns)

    def play(self, seed: int, minutes: float, progress: Callable[[str], None]) -> None:
        """Play faults until the time is up; one that has begun is brought to its end.

        Args:
            seed: Of their order.
            minutes: From when the node is active for the first time.
            progress: Called with the names of the faults at work.

        Raises:
            RuntimeError: The node did not become active, or fell silent for good.

        """
        stage = self._stage
        self._run([stage.until(lambda: stage.heard.state == 'active', ACTIVE_LIMIT_S)])
        self._start_ns = time.monotonic_ns()
        if stage.heard.state != 'active':
            msg = f'the node did not become active, see {stage.life.log}'
            raise RuntimeError(msg)
        for cycle in turns(seed):
            for kinds in cycle:
                if self.seconds > 60 * minutes:
                    self._finish()
                    return
                progress(', '.join(kind.name for kind in kinds))
                self._run([self._fault(kind) for kind in kinds])
            self.score.cycles.append(round(self.seconds, 1))

    def _finish(self) -> None:
        """Let what is in flight come out and end the node by Ctrl-C."""
        stage = self._stage
        self._run(self._afterwards)
        stage.set(points='gone')
        silent_ns = time.monotonic_ns()

        def empty() -> bool:
            heard = stage.heard
            return heard.at_ns > silent_ns + 10**9 and not heard.count('in_flight')

        self._run([stage.until(empty, SETTLE_LIMIT_S)])
        stage.life.close()
        stage.bury(stage.life)

    def _run(self, at_work: list[Steps]) -> None:
        """Let time pass until all of these are over."""
        while at_work:
            self._executor.spin_once(timeout_sec=SPIN_S)
            self._look()
            at_work = [steps for steps in at_work if self._goes_on(steps)]
            self._afterwards = [steps for steps in self._afterwards if self._goes_on(steps)]

    def _goes_on(self, steps: Steps) -> bool:
        try:
            next(steps)
        except StopIteration:
            return False
        return True

    def _look(self) -> None:
        """Take samples of the watched node, once a second."""
        if seconds_since(self._sampled_ns) < 1:
            return
        self._sampled_ns = time.monotonic_ns()
        stage = self._stage
        resident_mb, threads = stage.life.memory()
        if resident_mb:
            self.score.memory.append((round(self.seconds, 1), round(resident_mb, 1), threads))
        if not stage.heard.state:
            return
        silence_s = seconds_since(stage.heard.at_ns)
        self.score.silence_s = max(self.score.silence_s, silence_s)
        if silence_s > SILENCE_LIMIT_S:
            # Its faulthandler then writes down where every thread stands.
            stage.life.signal(signal.SIGABRT)
            msg = f'the node fell silent: where its threads stood is at the end of {stage.life.log}'
            raise RuntimeError(msg)

    def _fault(self, kind: Kind) -> Steps:
        stage = self._stage
        if kind.says:
            yield from stage.until(lambda: not stage.heard.says(kind.says), UNSAID_LIMIT_S)
        fault = Fault(kind.name, round(self.seconds, 1))
        self.score.faults.append(fault)
        before = stage.heard
        began_ns, number = yield from self._begin(kind, fault)
        self._afterwards.append(self._naming(kind, fault, began_ns))
        hold_ns = began_ns + round(kind.hold_s * 1e9)
        yield from stage.until(lambda: time.monotonic_ns() >= hold_ns, kind.hold_s + 1)
        if kind.named == Named.ALWAYS and not kind.jump_s:
            yield from stage.until(lambda: fault.named_after_s is not None, NAMED_LIMIT_S)
        matched = stage.heard.matched(0), stage.heard.matched(1)
        if not kind.jump_s:
            number = yield from self._end(kind, fault)
        yield from self._recovery(kind, fault, number, matched)
        costly = False
        if kind.named == Named.IF_DROPPED:
            over_ns = time.monotonic_ns()
            yield from stage.until(lambda: stage.heard.at_ns > over_ns, 3.0)
            costly = _costly(before, stage.heard)
        if kind.named == Named.ALWAYS or costly:
            still_s = NAMED_LIMIT_S - seconds_since(began_ns)
            yield from stage.until(lambda: fault.named_after_s is not None, still_s)
        fault.judge(kind, costly=costly)

    def _begin(self, kind: Kind, fault: Fault) -> Steps:
        """Begin a fault; returns when it had begun, and the number of the sensors' command."""
        stage = self._stage
        if kind.jump_s or kind.sensors:
            changes = dict(kind.sensors)
            if kind.jump_s:
                stage.offset_ns += round(kind.jump_s * 1e9)
                changes['offset_ns'] = stage.offset_ns
            number = stage.set(**changes)
            yield from stage.until(lambda: number in stage.sensors.set_ns, RECOVERED_LIMIT_S)
            return stage.sensors.set_ns[number], number
        asked_ns = time.monotonic_ns()
        began_ns = yield from _noted(kind.begin(stage), fault)
        return began_ns or asked_ns, None

    def _end(self, kind: Kind, fault: Fault) -> Steps:
        """End a fault; returns the number of the command after which sensors are as ever."""
        yield from _noted(kind.end(self._stage), fault)
        good = Settings()
        return self._stage.set(**{name: getattr(good, name) for name in kind.sensors})

    def _naming(self, kind: Kind, fault: Fault, began_ns: int) -> Steps:
        """Note when the fault is first named, and when no longer."""
        if not kind.says:
            return
        stage = self._stage

        def named() -> bool:
            return stage.heard.at_ns > began_ns and stage.heard.says(kind.says)

        if not (yield from stage.until(named, NAMED_LIMIT_S)):
            return
        fault.named_after_s = round((stage.heard.at_ns - began_ns) / 1e9, 3)
        yield from stage.until(lambda: fault.recovered_after_s is not None, RECOVERED_LIMIT_S)
        recovered_ns = time.monotonic_ns()
        if (yield from stage.until(lambda: not stage.heard.says(kind.says), UNSAID_LIMIT_S)):
            fault.unsaid_after_s = round(seconds_since(recovered_ns), 3)

    def _recovery(self, kind: Kind, fault: Fault, number: int, matched: tuple[int, int]) -> Steps:
        """Note when the node is over it."""
        stage = self._stage
        key = number, kind.first
        if not (yield from stage.until(lambda: key in stage.sensors.firsts, RECOVERED_LIMIT_S)):
            fault.note('the node never subscribed again')
            return
        first = stage.sensors.firsts[key]
        shown_ns: list[int] = []

        def shown() -> bool:
            at_ns = self._sign(kind, first, matched)
            shown_ns.extend([at_ns] if at_ns else [])
            return bool(shown_ns)

        if (yield from stage.until(shown, RECOVERED_LIMIT_S)):
            fault.recovered_after_s = round((shown_ns[0] - first.at_ns) / 1e9, 3)

    def _sign(self, kind: Kind, first: First, matched: tuple[int, int]) -> int | None:
        """When the sign of recovery came, steady ns."""
        heard = self._stage.heard
        if kind.sign == Sign.ANSWER:
            return self._stage.watch.answered_after(first.stamp_ns, first.at_ns)
        if kind.sign == Sign.UNSAID:
            seen = not heard.says(kind.says)
        else:
            camera = 0 if kind.sign == Sign.LEFT else 1
            seen = heard.matched(camera) >= matched[camera] + MATCHES
        return heard.at_ns if seen and heard.at_ns > first.at_ns else None


def _noted(steps: Steps, fault: Fault) -> Steps:
    """Let an action go wrong and the soak go on."""
    try:
        return (yield from steps)
    except RuntimeError as error:
        fault.note(str(error))


def _costly(before: Heard, after: Heard) -> bool:
    """Whether a fifth of the sweeps between two diagnostics were overtaken."""
    received = after.count('received') - before.count('received')
    overtaken = after.count('dropped.superseded') - before.count('dropped.superseded')
    return received > 0 and overtaken > COSTLY_SHARE * received
