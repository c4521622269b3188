# SPDX-License-Identifier: Apache-2.0
"""Received = answered + dropped + in flight, whatever the order and the threads."""

from __future__ import annotations

import random
import threading

from cross4d_jepa_ros.ledger import Drop, SweepLedger


def test_every_sweep_is_counted_once() -> None:
    ledger = SweepLedger()
    for _ in range(5):
        ledger.receive()
    ledger.answer()
    ledger.drop(Drop.MALFORMED, 'row too short')
    ledger.drop(Drop.MALFORMED, 'no field x')

    counts = ledger.counts()

    assert (counts.received, counts.answered, counts.in_flight) == (5, 1, 2)
    assert counts.dropped[Drop.MALFORMED] == 2
    assert sum(counts.dropped.values()) == 2
    assert counts.last_reason == {Drop.MALFORMED: 'no field x'}


def test_counts_are_consistent_while_threads_write() -> None:
    ledger = SweepLedger()

    def live(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(2000):
            ledger.receive()
            if rng.random() < 0.5:
                ledger.answer()
            else:
                ledger.drop(rng.choice(list(Drop)))

    threads = [threading.Thread(target=live, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    seen = []
    while any(thread.is_alive() for thread in threads):
        seen.append(ledger.counts().in_flight)
    for thread in threads:
        thread.join()

    assert all(0 <= in_flight <= len(threads) for in_flight in seen)
    assert ledger.counts().received == 8000
    assert ledger.counts().in_flight == 0
