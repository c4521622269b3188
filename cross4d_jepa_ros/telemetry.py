# SPDX-License-Identifier: Apache-2.0
"""Latencies, rates and what changed during the last seconds. Steady clock throughout. No ROS."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from cross4d_jepa_ros.ledger import Counts, Drop
from cross4d_jepa_ros.sensing.image_history import CameraStatistics
from cross4d_jepa_ros.sensing.synchronisation import SyncStatistics

RECENT_S = 5.0
KEPT_SWEEPS = 4096
CAPPED_SWEEPS = 20


@dataclass(frozen=True)
class Recent:
    """Differences over the last `RECENT_S` seconds at most."""

    received: int
    answered: int
    dropped: Mapping[Drop, int]
    zero_stamped: int
    cameras: tuple[CameraStatistics, ...]
    seconds: float


class Telemetry:
    """Collects from the callbacks and the worker, reports to the diagnostics. Thread-safe."""

    def __init__(self) -> None:
        """Start empty."""
        self._lock = threading.Lock()
        self._stamps: deque[tuple[float, int]] = deque(maxlen=KEPT_SWEEPS)
        self._latency_ms: deque[float] = deque(maxlen=KEPT_SWEEPS)
        self._pipeline_ms: deque[float] = deque(maxlen=KEPT_SWEEPS)
        self._stages_ms: dict[str, deque[float]] = {}
        self._capped: deque[tuple[int, int]] = deque(maxlen=CAPPED_SWEEPS)
        self._history: deque[tuple[float, Counts, SyncStatistics]] = deque()

    def arrived(self, stamp_ns: int) -> None:
        """Note a sweep that came in."""
        with self._lock:
            self._stamps.append((time.monotonic(), stamp_ns))

    def answered(
        self, latency_ms: float, stages_ms: Mapping[str, float], capped: tuple[int, int] = (0, 0)
    ) -> None:
        """Note an answer that went out, where its time went, and its capped points and tokens."""
        with self._lock:
            self._capped.append(capped)
            self._latency_ms.append(latency_ms)
            self._pipeline_ms.append(sum(stages_ms.values()))
            for stage, duration in stages_ms.items():
                self._stages_ms.setdefault(stage, deque(maxlen=KEPT_SWEEPS)).append(duration)

    def latency_ms(self, percentile: float) -> float:
        """Callback arrival to publish, over the last sweeps."""
        return self._percentile(self._latency_ms, percentile)

    def pipeline_ms(self, percentile: float = 50) -> float:
        """Time in the worker, over the last sweeps."""
        return self._percentile(self._pipeline_ms, percentile)

    def stages_ms(self) -> dict[str, float]:
        """Median duration of each stage."""
        with self._lock:
            return {stage: float(np.median(values)) for stage, values in self._stages_ms.items()}

    def capped(self) -> tuple[int, int]:
        """Median of the capped points and tokens over the last few sweeps."""
        with self._lock:
            points, tokens = np.median([*self._capped] or [(0, 0)], axis=0)
        return int(points), int(tokens)

    def missing_sweeps(self) -> tuple[int, float]:
        """Count the sweeps that gaps in recent stamps say were lost; and the sweep period in ms."""
        since = time.monotonic() - RECENT_S
        with self._lock:
            stamps = [stamp for arrival, stamp in self._stamps if arrival > since]
        steps = np.array([new - old for old, new in pairwise(stamps) if new > old], np.float64)
        if len(steps) < 3:
            return 0, 0.0
        # The lower quartile is the period even where most sweeps get lost.
        period = float(np.percentile(steps, 25))
        gaps = steps[(steps > 1.6 * period) & (steps < 10e9)]
        return int(np.sum(np.round(gaps / period) - 1)), period / 1e6

    def recent(self, counts: Counts, sync: SyncStatistics) -> Recent:
        """Report what changed since `RECENT_S` ago at most. Call it once a second."""
        now = time.monotonic()
        self._history.append((now, counts, sync))
        while len(self._history) > 1 and self._history[0][0] < now - RECENT_S:
            self._history.popleft()
        then, before, sync_before = self._history[0]
        return Recent(
            received=counts.received - before.received,
            answered=counts.answered - before.answered,
            dropped={cause: n - before.dropped[cause] for cause, n in counts.dropped.items()},
            zero_stamped=sync.zero_stamped_sweeps - sync_before.zero_stamped_sweeps,
            cameras=tuple(
                replace(
                    camera,
                    received=camera.received - old.received,
                    matched=camera.matched - old.matched,
                    missing=camera.missing - old.missing,
                    zero_stamped=camera.zero_stamped - old.zero_stamped,
                )
                for camera, old in zip(sync.cameras, sync_before.cameras, strict=True)
            ),
            seconds=now - then,
        )

    def forget_recent(self, counts: Counts, sync: SyncStatistics) -> None:
        """Begin a new span for `recent`: what went before was another life of the node."""
        self._history.clear()
        self._capped.clear()
        self._history.append((time.monotonic(), counts, sync))

    def _percentile(self, values: deque[float], percentile: float) -> float:
        with self._lock:
            return float(np.percentile(values, percentile)) if values else 0.0
