# SPDX-License-Identifier: Apache-2.0
"""A synchroniser with a clock of its own, and streams of messages for it."""

from __future__ import annotations

import heapq
from types import SimpleNamespace

from cross4d_jepa_ros.sensing.synchronisation import SweepSynchroniser, SyncConfig

MS = 1_000_000
S = 1_000_000_000
T0 = 1_000 * S


def message(stamp_ns, **fields):
    sec, nanosec = divmod(stamp_ns, S)
    stamp = SimpleNamespace(sec=sec, nanosec=nanosec)
    return SimpleNamespace(header=SimpleNamespace(stamp=stamp), stamp_ns=stamp_ns, **fields)


class Bench:
    """A synchroniser whose clock is `now` and whose every call is recorded."""

    def __init__(self, *offsets_s, **config):
        self.now = 5 * S
        self.out, self.drops, self.resets, self.errors, self.order = [], [], [], [], []
        self.sync = SweepSynchroniser(
            SyncConfig(offsets_s=offsets_s, **config),
            steady_ns=lambda: self.now,
            on_drop=lambda msg, cause: self.drops.append((msg.stamp_ns, cause)),
            on_reset=self.on_reset,
            on_error=self.errors.append,
        )
        self.sync.registerCallback(self.on_frame)

    def on_reset(self, sentence):
        self.resets.append(sentence)
        self.order.append('reset')

    def on_frame(self, points, *images):
        stamps = [None if image is None else image.stamp_ns - points.stamp_ns for image in images]
        self.out.append((points.stamp_ns, *stamps))
        self.order.append(points.stamp_ns)

    def sweep(self, stamp_ns):
        self.sync.add_sweep(message(stamp_ns))

    def image(self, stamp_ns, camera=0):
        self.sync.add_image(message(stamp_ns), camera)

    def play(self, events, poll_ns=10 * MS):
        """Plays (arrival after start ns, kind, stamp) with kind -1 a sweep, else the camera."""
        start = self.now
        polls = range(0, max(event[0] for event in events) + 300 * MS, poll_ns)
        for at, kind, stamp in heapq.merge(sorted(events), [(at, 99, 0) for at in polls]):
            self.now = start + at
            if kind == 99:
                self.sync.poll()
            elif kind == -1:
                self.sweep(stamp)
            else:
                self.image(stamp, kind)


def stream(kind, period_ns, *, start=0, until=3 * S, lag=5 * MS, base=T0):
    """A source stamped every `period_ns` from `start`, arriving `lag` after its stamp."""
    return [(at + lag, kind, base + at) for at in range(start, until, period_ns)]


def offsets_ms(bench, camera=0, skip=0):
    return [
        None if frame[1 + camera] is None else round(frame[1 + camera] / MS)
        for frame in bench.out[skip:]
    ]
