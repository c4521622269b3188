# SPDX-License-Identifier: Apache-2.0
"""Received = answered + dropped + in flight, whatever the order and the threads."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

import pytest

from cross4d_jepa_ros.ledger import Drop, Entry, Miscounted, Place, SweepLedger
from tests.stub_sweeps import balanced


def test_a_sweep_goes_from_place_to_place() -> None:
    ledger = SweepLedger()
    first, second, third = (Entry(stamp, 0) for stamp in range(3))
    seen = []
    for step in (
        lambda: ledger.receive(first),
        lambda: ledger.offer(first),
        lambda: ledger.begin(first),
        lambda: ledger.receive(second),
        lambda: ledger.offer(second),
        lambda: ledger.receive(third),
        lambda: ledger.offer(third),
        lambda: ledger.refuse(Drop.DUPLICATE, 'again'),
        lambda: ledger.answer(first),
        lambda: ledger.begin(third),
        lambda: ledger.drop(third, Drop.ERROR, 'why'),
    ):
        step()
        counts = ledger.counts()
        assert balanced(counts)
        seen.append(tuple(counts.places.values()))

    assert seen == [
        *((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (0, 1, 1), (1, 1, 1)),
        *((0, 1, 1), (0, 1, 1), (0, 1, 0), (0, 0, 1), (0, 0, 0)),
    ]
    assert counts.last_reason == {
        Drop.SUPERSEDED: 'stamp 1 ns',
        Drop.DUPLICATE: 'again',
        Drop.ERROR: 'why',
    }
    assert (counts.received, counts.answered) == (4, 1)
    assert {cause: n for cause, n in counts.dropped.items() if n} == dict.fromkeys(
        counts.last_reason, 1
    )


@pytest.mark.parametrize(
    'step',
    [
        lambda ledger, sweep, other: ledger.receive(other) or ledger.receive(sweep),
        lambda ledger, sweep, other: ledger.offer(sweep),
        lambda ledger, sweep, other: ledger.answer(sweep),
        lambda ledger, sweep, other: ledger.drop(sweep, Drop.ERROR),
        lambda ledger, sweep, other: (ledger.receive(sweep), ledger.answer(sweep)),
        lambda ledger, sweep, other: (
            ledger.receive(sweep),
            ledger.drop(sweep, Drop.ERROR),
            ledger.drop(sweep, Drop.ERROR),
        ),
        lambda ledger, sweep, other: (
            worked_on(ledger, sweep),
            ledger.answer(sweep),
            ledger.drop(sweep, Drop.ERROR),
        ),
        lambda ledger, sweep, other: (worked_on(ledger, sweep), worked_on(ledger, other)),
    ],
)
def test_what_would_be_miscounted_is_an_error(
    step: Callable[[SweepLedger, Entry, Entry], object],
) -> None:
    ledger = SweepLedger()
    with pytest.raises(Miscounted, match='stamp 7 ns'):
        step(ledger, Entry(7, 0), Entry(7, 0))
    assert balanced(ledger.counts())


def worked_on(ledger: SweepLedger, entry: Entry) -> None:
    ledger.receive(entry)
    ledger.offer(entry)
    assert ledger.begin(entry)


def test_a_superseded_sweep_is_not_begun() -> None:
    ledger = SweepLedger()
    older, newer = Entry(1, 0), Entry(2, 0)
    for entry in (older, newer):
        ledger.receive(entry)
        ledger.offer(entry)

    assert not ledger.begin(older)
    assert ledger.begin(newer)
    assert ledger.place(older) is None
    assert ledger.place(newer) is Place.WORKING


def test_counts_are_consistent_while_threads_write() -> None:
    ledger = SweepLedger()
    offered: list[Entry] = []
    done = threading.Event()

    def arrive() -> None:
        for stamp in range(2000):
            entry = Entry(stamp, 0)
            if stamp % 7 == 0:
                ledger.refuse(Drop.DUPLICATE)
                continue
            ledger.receive(entry)
            ledger.offer(entry)
            offered.append(entry)
        done.set()

    def work() -> None:
        rng = random.Random(0)
        while not done.is_set() or offered:
            if offered and ledger.begin(entry := offered.pop()):
                if rng.random() < 0.5:
                    ledger.answer(entry)
                else:
                    ledger.drop(entry, rng.choice(list(Drop)))

    threads = [threading.Thread(target=target) for target in (arrive, work)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert balanced(ledger.counts())
    for thread in threads:
        thread.join()

    assert balanced(ledger.counts())
    assert ledger.counts().received == 2000
    assert ledger.counts().in_flight == 0
