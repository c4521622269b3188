# SPDX-License-Identifier: Apache-2.0
"""What was lost is told from the stamps; what is recent from what is long ago."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from cross4d_jepa_ros.ledger import Drop, Entry, SweepLedger
from cross4d_jepa_ros.sensing.synchronisation import SyncStatistics
from cross4d_jepa_ros.telemetry import Telemetry
from tests.test_health import CAMERA

PERIOD = 100_000_000


def arrived(steps: list[int]) -> Telemetry:
    telemetry = Telemetry()
    for step in steps:
        telemetry.arrived(step * PERIOD)
    return telemetry


@pytest.mark.parametrize(
    ('steps', 'missing'),
    [
        (list(range(20)), 0),
        ([0, 1, 2, 4, 5, 6, 9, 10, 11], 3),
        ([0, 1, 3, 5, 6, 8, 10, 11, 13], 5),
        ([0, 1, 2, 3, 300, 301, 302], 0),
        ([7, 8, 9, 10, 1, 2, 3, 4], 0),
        ([0, 4], 0),
    ],
    ids=['none', 'single gaps', 'nearly every other', 'pause', 'bag loop', 'too few'],
)
def test_missing_sweeps_from_gaps(steps: list[int], missing: int) -> None:
    assert arrived(steps).missing_sweeps()[0] == missing


def test_period_comes_with_it() -> None:
    assert arrived(list(range(9))).missing_sweeps()[1] == 100.0


def test_latency_percentiles_and_stages() -> None:
    telemetry = Telemetry()
    for latency in range(1, 101):
        telemetry.answered(float(latency), {'spatial': 2.0, 'head': latency / 10})

    assert telemetry.latency_ms(50) == 50.5
    assert telemetry.latency_ms(95) == pytest.approx(95.05)
    assert telemetry.stages_ms() == {'spatial': 2.0, 'head': 5.05}
    assert telemetry.pipeline_ms() == pytest.approx(7.05)
    assert Telemetry().latency_ms(95) == 0


def test_recent_counts_forget_what_is_long_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, 'monotonic', lambda: clock[0])
    telemetry, ledger = Telemetry(), SweepLedger()
    sync = SyncStatistics(0, 0, 0, (replace(CAMERA, matched=0, missing=0),))
    telemetry.forget_recent(ledger.counts(), sync)
    for _ in range(30):
        ledger.refuse(Drop.MALFORMED)
    clock[0] += 1
    bad = telemetry.recent(ledger.counts(), sync)
    for second in range(8):
        clock[0] += 1
        entry = Entry(second, second)
        ledger.receive(entry)
        ledger.offer(entry)
        assert ledger.begin(entry)
        ledger.answer(entry)
        sync = replace(sync, cameras=(replace(CAMERA, matched=second + 1, missing=0),))
        good = telemetry.recent(ledger.counts(), sync)

    assert (bad.received, bad.dropped[Drop.MALFORMED]) == (30, 30)
    assert good.dropped[Drop.MALFORMED] == 0
    assert good.received == good.answered == 5
    assert good.cameras[0].matched == good.received
