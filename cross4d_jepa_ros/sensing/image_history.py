# SPDX-License-Identifier: Apache-2.0
"""The last images of one camera, and what they tell of those that are still to come."""

from __future__ import annotations

import bisect
import statistics
from collections import deque
from dataclasses import dataclass
from typing import Any, NamedTuple

_SECOND_NS = 1_000_000_000
_BUFFER_SPAN_NS = 5 * _SECOND_NS // 2
_BUFFER_IMAGES = 64
_DEAD_AFTER_SWEEPS = 5
_DEAD_AFTER_PERIODS = 5
_DEAD_AFTER_NS = _SECOND_NS
_UNSEEN_AFTER_NS = 2 * _SECOND_NS
_PERIOD_SAMPLES = 10
_OFFSETS_KEPT = 4096


@dataclass(frozen=True)
class CameraStatistics:
    """What one camera has delivered so far; times in ns, counters since construction.

    `last_arrival_steady_ns`, `period_ns`, `arrival_lag_ns` and `dead` start afresh at `clear`.

    Args:
        received: Images that arrived.
        matched: Sweeps that went out with an image of this camera.
        missing: Stamped sweeps that went out without one.
        zero_stamped: Images that could not be used because their stamp is zero or negative.
        last_arrival_steady_ns: Steady time of the last arrival, None if there was none.
        period_ns: Median stamp difference of recent images, None while unknown.
        offsets_ns: Image stamp minus sweep stamp of the last matches, at most 4096.
        nearest_offset_ns: For the last sweep without an image of this camera, stamp of the nearest
            image minus stamp of the sweep; None if there was no image at all.
        arrival_lag_ns: Median over recent images of their steady arrival minus that of the sweep
            with the nearest stamp: tells images that come late from images that are stamped late.
        dead: The camera is not waited for.
    """

    received: int
    matched: int
    missing: int
    zero_stamped: int
    last_arrival_steady_ns: int | None
    period_ns: int | None
    offsets_ns: tuple[int, ...]
    nearest_offset_ns: int | None
    arrival_lag_ns: int | None
    dead: bool


class StampedImage(NamedTuple):
    """An image message and the instant that it is matched by."""

    stamp_ns: int
    message: Any


class Arrival(NamedTuple):
    """Stamp of a message, and when it came."""

    stamp_ns: int
    steady_ns: int


def _stamp(image: StampedImage | Arrival) -> int:
    return image.stamp_ns


def _median(values: deque[int]) -> int | None:
    return int(statistics.median(values)) if len(values) >= 2 else None


class ImageHistory:
    """Images and history of one camera, in stamp order. Not thread-safe.

    Args:
        offset_ns: Expected image stamp minus sweep stamp.
    """

    def __init__(self, offset_ns: int) -> None:
        self.offset_ns = offset_ns
        self.received = self.matched = self.missing = self.zero_stamped = 0
        self.offsets_ns: deque[int] = deque(maxlen=_OFFSETS_KEPT)
        self.nearest_offset_ns: int | None = None
        self.forget()

    def forget(self) -> None:
        """Forgets images and history, as after a pause; counters stay."""
        self.images: list[StampedImage] = []
        self.arrivals: deque[Arrival] = deque(maxlen=_PERIOD_SAMPLES)
        self.stamp_steps_ns: deque[int] = deque(maxlen=_PERIOD_SAMPLES)
        self.arrival_steps_ns: deque[int] = deque(maxlen=_PERIOD_SAMPLES)
        self.sweeps_since_image = 0
        self.missed_since_steady_ns: int | None = None
        self.last_arrival_steady_ns: int | None = None

    @property
    def newest_ns(self) -> int | None:
        """Stamp of the newest image."""
        return self.images[-1].stamp_ns if self.images else None

    def insert(self, image: StampedImage, steady_ns: int) -> None:
        """Takes an image; one of the same stamp is replaced."""
        newest_ns = self.newest_ns
        if newest_ns is not None and image.stamp_ns > newest_ns:
            self.stamp_steps_ns.append(image.stamp_ns - newest_ns)
        if self.arrivals:
            self.arrival_steps_ns.append(steady_ns - self.arrivals[-1].steady_ns)
        self.arrivals.append(Arrival(image.stamp_ns, steady_ns))
        self.sweeps_since_image = 0
        self.missed_since_steady_ns = None
        at = bisect.bisect_left(self.images, image.stamp_ns, key=_stamp)
        duplicate = at < len(self.images) and self.images[at].stamp_ns == image.stamp_ns
        self.images[at : at + duplicate] = [image]

    def trim(self) -> None:
        """Forgets the oldest images beyond a number and an age."""
        if self.images:
            oldest_ns = self.images[-1].stamp_ns - _BUFFER_SPAN_NS
            first = bisect.bisect_left(self.images, oldest_ns, key=_stamp)
            del self.images[: max(first, len(self.images) - _BUFFER_IMAGES)]

    def nearest(self, target_ns: int) -> StampedImage | None:
        """The image whose stamp is nearest."""
        at = bisect.bisect_left(self.images, target_ns, key=_stamp)
        around = self.images[max(at - 1, 0) : at + 1]
        return min(around, key=lambda image: abs(image.stamp_ns - target_ns), default=None)

    def dead(self, sweep_ns: int | None, steady_ns: int) -> bool:
        """Whether waiting is pointless: nothing came for 5 sweeps, or for 1 s and 5 periods.

        A camera without a known period, which may only be starting, gets 2 s beyond its 5 sweeps.
        Periods are compared in stamps and on the steady clock, so that a slow camera and a slowed
        or hurried replay are told from silence.
        """
        period_ns = _median(self.stamp_steps_ns)
        if self.sweeps_since_image >= _DEAD_AFTER_SWEEPS:
            newest_ns = self.newest_ns
            if period_ns is None or newest_ns is None or sweep_ns is None:
                since_ns = self.missed_since_steady_ns
                return since_ns is not None and steady_ns - since_ns > _UNSEEN_AFTER_NS
            if sweep_ns + self.offset_ns - newest_ns > _DEAD_AFTER_PERIODS * period_ns:
                return True
        if not self.arrivals:
            return False
        slowest_ns = max(period_ns or 0, _median(self.arrival_steps_ns) or 0)
        silence_ns = steady_ns - self.arrivals[-1].steady_ns
        return silence_ns > max(_DEAD_AFTER_NS, _DEAD_AFTER_PERIODS * slowest_ns)

    def settled(self, sweep_ns: int, tolerance_ns: int, steady_ns: int) -> bool:
        """Whether no better image for this sweep is worth waiting for."""
        if self.missed_since_steady_ns is None:
            self.missed_since_steady_ns = steady_ns
        if self.dead(sweep_ns, steady_ns):
            return True
        newest_ns = self.newest_ns
        if newest_ns is None:
            return False
        best_ns = sweep_ns + self.offset_ns - newest_ns
        if best_ns <= 0:
            return True
        period_ns = _median(self.stamp_steps_ns)
        if period_ns is None:
            return False
        # The next image may come a quarter of a period early.
        next_ns = period_ns * 3 // 4 - best_ns
        return next_ns >= min(best_ns, tolerance_ns + 1)

    def take(self, sweep_ns: int, tolerance_ns: int, max_backward_ns: int) -> Any | None:
        """The message for this sweep, or None; forgets what no later sweep can use."""
        self.sweeps_since_image += 1
        target_ns = sweep_ns + self.offset_ns
        image = self.nearest(target_ns)
        if image is None or abs(image.stamp_ns - target_ns) > tolerance_ns:
            self.missing += 1
            self.nearest_offset_ns = None if image is None else image.stamp_ns - sweep_ns
            message = None
        else:
            self.matched += 1
            self.offsets_ns.append(image.stamp_ns - sweep_ns)
            message = image.message
        # Images far behind the sweep may be of the next pass of a looping bag: they stay.
        if self.images and self.images[-1].stamp_ns >= target_ns - max_backward_ns:
            useless = bisect.bisect_left(self.images, target_ns - tolerance_ns, key=_stamp)
            del self.images[: min(useless, len(self.images) - 1)]
        return message

    def arrival_lag_ns(self, sweeps: list[Arrival]) -> int | None:
        """How much later than the sweeps of about their stamp the images come; None if unknown."""
        lags: deque[int] = deque()
        for stamp_ns, steady_ns in self.arrivals:
            matching_ns = stamp_ns - self.offset_ns
            if sweeps and sweeps[0].stamp_ns <= matching_ns <= sweeps[-1].stamp_ns:
                nearest = min(sweeps, key=lambda sweep: abs(sweep.stamp_ns - matching_ns))
                lags.append(steady_ns - nearest.steady_ns)
        return int(statistics.median(lags)) if lags else None

    def snapshot(
        self, sweep_ns: int | None, sweeps: list[Arrival], steady_ns: int
    ) -> CameraStatistics:
        """A copy of all counters."""
        return CameraStatistics(
            received=self.received,
            matched=self.matched,
            missing=self.missing,
            zero_stamped=self.zero_stamped,
            last_arrival_steady_ns=self.last_arrival_steady_ns,
            period_ns=_median(self.stamp_steps_ns),
            offsets_ns=tuple(self.offsets_ns),
            nearest_offset_ns=self.nearest_offset_ns,
            arrival_lag_ns=self.arrival_lag_ns(sweeps),
            dead=self.dead(sweep_ns, steady_ns),
        )
