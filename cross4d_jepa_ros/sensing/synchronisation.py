# SPDX-License-Identifier: Apache-2.0
"""Pairs each LiDAR sweep with the nearest image of every camera and waits no longer than needed.

Anchored on the sweep: every sweep goes out once, with `None` for cameras that have nothing near.
"""

from __future__ import annotations

import bisect
import math
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

from cross4d_jepa_ros.sensing.point_clouds import stamp_ns as header_stamp_ns

_SECOND_NS = 1_000_000_000
_JUMP_AHEAD_NS = 10 * _SECOND_NS
_BUFFER_SPAN_NS = 5 * _SECOND_NS // 2
_BUFFER_IMAGES = 64
_DEAD_AFTER_SWEEPS = 5
_DEAD_AFTER_PERIODS = 5
_DEAD_AFTER_NS = _SECOND_NS
_UNSEEN_AFTER_NS = 2 * _SECOND_NS
_RISING_STEPS_BACK = 3
_PERIOD_SAMPLES = 10
_OFFSETS_KEPT = 4096

_Event = Callable[[], Any]


@dataclass(frozen=True)
class SyncConfig:
    """What to expect of the cameras.

    Args:
        offsets_s: Per camera, the expected image stamp minus sweep stamp; its length is the number
            of cameras.
        tolerance_s: An image farther than this from its expected stamp is not used.
        timeout_s: Longest wait of a sweep for its images, on the steady clock.
        stamp_source: `header`, or `arrival` to match by the steady arrival times of messages whose
            stamps cannot be used.
        max_backward_s: A sweep or image stamp that steps back by more is a bag loop or a clock
            jump; one that steps back by less is out of order.

    Raises:
        ValueError: If a value is out of range.
    """

    offsets_s: tuple[float, ...]
    tolerance_s: float = 0.1
    timeout_s: float = 0.1
    stamp_source: str = 'header'
    max_backward_s: float = 1.0

    def __post_init__(self) -> None:
        if self.stamp_source not in ('header', 'arrival'):
            raise ValueError(f"stamp_source is '{self.stamp_source}': use header or arrival.")
        for name in ('tolerance_s', 'timeout_s', 'max_backward_s'):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f'{name} is {value}: give a finite number of seconds, 0 or more.')
        if not all(math.isfinite(offset) for offset in self.offsets_s):
            raise ValueError(f'offsets_s is {self.offsets_s}: give one finite number per camera.')


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


@dataclass(frozen=True)
class SyncStatistics:
    """Counters since construction: accepted sweeps (zero-stamped ones included) and resets."""

    sweeps: int
    zero_stamped_sweeps: int
    resets: int
    cameras: tuple[CameraStatistics, ...]


class Filter(Protocol):
    """The part of a message filter that a synchroniser needs."""

    def registerCallback(self, cb: Callable[..., Any], *args: Any) -> Any:
        """Calls `cb(message, *args)` for every message."""


class _Image(NamedTuple):
    stamp_ns: int
    message: Any


class _Arrival(NamedTuple):
    stamp_ns: int
    steady_ns: int


class _Waiting(NamedTuple):
    stamp_ns: int
    message: Any
    deadline_steady_ns: int


def _stamp(image: _Image | _Arrival) -> int:
    return image.stamp_ns


def _median(values: deque[int]) -> int | None:
    return int(statistics.median(values)) if len(values) >= 2 else None


class _Camera:
    """Images and history of one camera, in stamp order. Not thread-safe."""

    def __init__(self, offset_ns: int) -> None:
        self.offset_ns = offset_ns
        self.received = self.matched = self.missing = self.zero_stamped = 0
        self.offsets_ns: deque[int] = deque(maxlen=_OFFSETS_KEPT)
        self.nearest_offset_ns: int | None = None
        self.forget()

    def forget(self) -> None:
        self.images: list[_Image] = []
        self.arrivals: deque[_Arrival] = deque(maxlen=_PERIOD_SAMPLES)
        self.stamp_steps_ns: deque[int] = deque(maxlen=_PERIOD_SAMPLES)
        self.arrival_steps_ns: deque[int] = deque(maxlen=_PERIOD_SAMPLES)
        self.sweeps_since_image = 0
        self.missed_since_steady_ns: int | None = None
        self.last_arrival_steady_ns: int | None = None

    @property
    def newest_ns(self) -> int | None:
        return self.images[-1].stamp_ns if self.images else None

    def insert(self, image: _Image, steady_ns: int) -> None:
        newest_ns = self.newest_ns
        if newest_ns is not None and image.stamp_ns > newest_ns:
            self.stamp_steps_ns.append(image.stamp_ns - newest_ns)
        if self.arrivals:
            self.arrival_steps_ns.append(steady_ns - self.arrivals[-1].steady_ns)
        self.arrivals.append(_Arrival(image.stamp_ns, steady_ns))
        self.sweeps_since_image = 0
        self.missed_since_steady_ns = None
        at = bisect.bisect_left(self.images, image.stamp_ns, key=_stamp)
        duplicate = at < len(self.images) and self.images[at].stamp_ns == image.stamp_ns
        self.images[at : at + duplicate] = [image]

    def trim(self) -> None:
        if self.images:
            oldest_ns = self.images[-1].stamp_ns - _BUFFER_SPAN_NS
            first = bisect.bisect_left(self.images, oldest_ns, key=_stamp)
            del self.images[: max(first, len(self.images) - _BUFFER_IMAGES)]

    def nearest(self, target_ns: int) -> _Image | None:
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

    def arrival_lag_ns(self, sweeps: list[_Arrival]) -> int | None:
        lags: deque[int] = deque()
        for stamp_ns, steady_ns in self.arrivals:
            matching_ns = stamp_ns - self.offset_ns
            if sweeps and sweeps[0].stamp_ns <= matching_ns <= sweeps[-1].stamp_ns:
                nearest = min(sweeps, key=lambda sweep: abs(sweep.stamp_ns - matching_ns))
                lags.append(steady_ns - nearest.steady_ns)
        return int(statistics.median(lags)) if lags else None

    def snapshot(
        self, sweep_ns: int | None, sweeps: list[_Arrival], steady_ns: int
    ) -> CameraStatistics:
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


class SweepSynchroniser:
    """Finds the nearest image per camera for each sweep and hands them on together.

    A sweep waits only while a camera may still deliver a nearer image: until an image at or after
    the wanted stamp has come, or the camera's measured period rules a nearer one out, or the camera
    is dead, or the timeout has passed. At most one sweep waits; a newer one releases it.

    Thread-safe. Callbacks run in the thread that fed the deciding message, without any lock, and
    may feed messages themselves; what they raise goes to `on_error`.

    Args:
        config: Expected offsets and limits.
        steady_ns: The steady clock, ns.
        on_admit: Called with a sweep that was not refused, when those before it have gone out and
            before it does.
        on_drop: Called with a refused sweep and `duplicate` or `out_of_order`.
        on_reset: Called with a sentence when the sweeps jump to another time, before the first
            sweep of that time goes out.
        on_error: Called with what a callback raised.
    """

    def __init__(
        self,
        config: SyncConfig,
        *,
        steady_ns: Callable[[], int] = time.monotonic_ns,
        on_admit: Callable[[Any], None] = lambda points: None,
        on_drop: Callable[[Any, str], None],
        on_reset: Callable[[str], None],
        on_error: Callable[[Exception], None],
    ) -> None:
        self._steady_ns = steady_ns
        self._on_admit = on_admit
        self._on_drop = on_drop
        self._on_reset = on_reset
        self._on_error = on_error
        self._by_arrival = config.stamp_source == 'arrival'
        self._tolerance_ns = round(config.tolerance_s * _SECOND_NS)
        self._timeout_ns = round(config.timeout_s * _SECOND_NS)
        self._max_backward_ns = round(config.max_backward_s * _SECOND_NS)
        self._lock = threading.Lock()
        self._callbacks: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
        self._cameras = [_Camera(round(offset * _SECOND_NS)) for offset in config.offsets_s]
        self._sweeps = self._zero_stamped_sweeps = self._resets = 0
        self._waiting: _Waiting | None = None
        self._last_ns: int | None = None
        self._steps_back_ns: list[int] = []
        self._recent_sweeps: deque[_Arrival] = deque(maxlen=32)

    def connectInput(self, *filters: Filter) -> None:
        """Takes the sweeps from `filters[0]` and the images of camera i from `filters[1 + i]`.

        Raises:
            ValueError: If there are not exactly one filter for the sweeps and one per camera.
        """
        if len(filters) != 1 + len(self._cameras):
            raise ValueError(
                f'{len(filters)} inputs for one sweep topic and {len(self._cameras)} cameras: '
                'give one offset per camera in offsets_s.'
            )
        filters[0].registerCallback(self.add_sweep)
        for camera, images in enumerate(filters[1:]):
            images.registerCallback(self.add_image, camera)

    def registerCallback(self, cb: Callable[..., Any], *args: Any) -> int:
        """Calls `cb(points, *images, *args)` for every sweep, `images[i]` a message or None.

        Returns:
            The number of the connection, counted from 0.
        """
        with self._lock:
            self._callbacks.append((cb, args))
            return len(self._callbacks) - 1

    def add_sweep(self, msg: Any) -> None:
        """Takes a sweep (any message with `header.stamp`)."""
        steady_ns = self._steady_ns()
        stamp_ns = steady_ns if self._by_arrival else header_stamp_ns(msg)
        with self._lock:
            events = self._admit(msg, stamp_ns, steady_ns)
        self._run(events)

    def add_image(self, msg: Any, camera: int) -> None:
        """Takes an image (any message with `header.stamp`) of camera `camera`, counted from 0."""
        steady_ns = self._steady_ns()
        stamp_ns = steady_ns if self._by_arrival else header_stamp_ns(msg)
        with self._lock:
            events = self._store(self._cameras[camera], _Image(stamp_ns, msg), steady_ns)
        self._run(events)

    def poll(self) -> None:
        """Releases a sweep whose timeout has passed; to be called from a steady timer."""
        steady_ns = self._steady_ns()
        with self._lock:
            events = self._release_if_settled(steady_ns)
        self._run(events)

    def clear(self) -> Any | None:
        """Forgets images and history, as after a pause; counters stay.

        Returns:
            The sweep that was waiting and now never goes out, or None.
        """
        with self._lock:
            message = self._waiting.message if self._waiting else None
            self._waiting = None
            self._last_ns = None
            self._steps_back_ns = []
            self._recent_sweeps.clear()
            for camera in self._cameras:
                camera.forget()
            return message

    def waiting(self) -> int:
        """The number of sweeps that wait for images: 0 or 1."""
        with self._lock:
            return 0 if self._waiting is None else 1

    def statistics(self) -> SyncStatistics:
        """A consistent copy of all counters."""
        steady_ns = self._steady_ns()
        with self._lock:
            sweeps = list(self._recent_sweeps)
            return SyncStatistics(
                sweeps=self._sweeps,
                zero_stamped_sweeps=self._zero_stamped_sweeps,
                resets=self._resets,
                cameras=tuple(
                    camera.snapshot(self._last_ns, sweeps, steady_ns) for camera in self._cameras
                ),
            )

    def _run(self, events: list[_Event]) -> None:
        for event in events:
            try:
                event()
            except Exception as error:
                try:
                    self._on_error(error)
                except Exception:
                    pass

    # Everything below runs under the lock and returns what has to be called after it.

    def _admit(self, msg: Any, stamp_ns: int, steady_ns: int) -> list[_Event]:
        if stamp_ns <= 0 and not self._by_arrival:
            events = self._release()
            self._sweeps += 1
            self._zero_stamped_sweeps += 1
            events.append(partial(self._on_admit, msg))
            return events + self._handing_on(msg, [None] * len(self._cameras))
        refusal, jump = (None, None) if self._by_arrival else self._judge(stamp_ns)
        if refusal is not None:
            return [partial(self._on_drop, msg, refusal)]
        events = self._release()
        if jump is not None:
            self._resets += 1
            self._forget_old_pass(stamp_ns)
            events.append(partial(self._on_reset, jump))
        events.append(partial(self._on_admit, msg))
        self._sweeps += 1
        self._last_ns = stamp_ns
        self._steps_back_ns = []
        self._recent_sweeps.append(_Arrival(stamp_ns, steady_ns))
        self._waiting = _Waiting(stamp_ns, msg, steady_ns + self._timeout_ns)
        return events + self._release_if_settled(steady_ns)

    def _judge(self, stamp_ns: int) -> tuple[str | None, str | None]:
        """Why a sweep is refused, and the sentence about a jump; both None for an ordinary one."""
        if self._last_ns is None:
            return None, None
        step_ns = stamp_ns - self._last_ns
        step = f'{abs(step_ns) / _SECOND_NS:.3f} s'
        if step_ns == 0:
            return 'duplicate', None
        if step_ns > _JUMP_AHEAD_NS:
            return None, f'The sweeps jumped ahead by {step}.'
        if step_ns > 0:
            return None, None
        if step_ns < -self._max_backward_ns:
            return None, f'The sweeps jumped back by {step}, as when a bag starts again.'
        rising = bool(self._steps_back_ns) and stamp_ns > self._steps_back_ns[-1]
        self._steps_back_ns = [*self._steps_back_ns, stamp_ns] if rising else [stamp_ns]
        if len(self._steps_back_ns) < _RISING_STEPS_BACK:
            return 'out_of_order', None
        return None, f'The sweeps go on from {step} before the newest: the clock stepped back.'

    def _forget_old_pass(self, sweep_ns: int) -> None:
        self._recent_sweeps.clear()
        for camera in self._cameras:
            newest_ns = camera.newest_ns
            if newest_ns is None or self._last_ns is None:
                continue
            newest_ns -= camera.offset_ns
            if abs(newest_ns - self._last_ns) <= abs(newest_ns - sweep_ns):
                camera.images.clear()

    def _store(self, camera: _Camera, image: _Image, steady_ns: int) -> list[_Event]:
        camera.received += 1
        camera.last_arrival_steady_ns = steady_ns
        if image.stamp_ns <= 0 and not self._by_arrival:
            camera.zero_stamped += 1
            return self._release_if_settled(steady_ns)
        events: list[_Event] = []
        newest_ns = camera.newest_ns
        if newest_ns is not None and newest_ns - image.stamp_ns > self._max_backward_ns:
            if self._waiting is not None:
                # The images of the waiting sweep are about to go.
                target_ns = self._waiting.stamp_ns + camera.offset_ns
                if abs(newest_ns - target_ns) < abs(image.stamp_ns - target_ns):
                    events = self._release()
            camera.images.clear()
        camera.insert(image, steady_ns)
        events += self._release_if_settled(steady_ns)
        camera.trim()
        return events

    def _release_if_settled(self, steady_ns: int) -> list[_Event]:
        if self._waiting is None:
            return []
        stamp_ns = self._waiting.stamp_ns
        if steady_ns >= self._waiting.deadline_steady_ns or all(
            camera.settled(stamp_ns, self._tolerance_ns, steady_ns) for camera in self._cameras
        ):
            return self._release()
        return []

    def _release(self) -> list[_Event]:
        if self._waiting is None:
            return []
        stamp_ns, message, _ = self._waiting
        self._waiting = None
        images = [
            camera.take(stamp_ns, self._tolerance_ns, self._max_backward_ns)
            for camera in self._cameras
        ]
        return self._handing_on(message, images)

    def _handing_on(self, message: Any, images: list[Any]) -> list[_Event]:
        return [partial(callback, message, *images, *args) for callback, args in self._callbacks]
