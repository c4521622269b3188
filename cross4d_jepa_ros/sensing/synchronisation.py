# SPDX-License-Identifier: Apache-2.0
"""Pairs each LiDAR sweep with the nearest image of every camera and waits no longer than needed.

Anchored on the sweep: every sweep goes out once, with `None` for cameras that have nothing near.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

from cross4d_jepa_ros.sensing.image_history import (
    Arrival,
    CameraStatistics,
    ImageHistory,
    StampedImage,
)
from cross4d_jepa_ros.sensing.point_clouds import stamp_ns as header_stamp_ns

_SECOND_NS = 1_000_000_000
_JUMP_AHEAD_NS = 10 * _SECOND_NS
_RISING_STEPS_BACK = 3

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


class _Waiting(NamedTuple):
    stamp_ns: int
    message: Any
    deadline_steady_ns: int


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
        self._cameras = [ImageHistory(round(offset * _SECOND_NS)) for offset in config.offsets_s]
        self._sweeps = self._zero_stamped_sweeps = self._resets = 0
        self._waiting: _Waiting | None = None
        self._last_ns: int | None = None
        self._steps_back_ns: list[int] = []
        self._recent_sweeps: deque[Arrival] = deque(maxlen=32)

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
            events = self._store(self._cameras[camera], StampedImage(stamp_ns, msg), steady_ns)
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
        self._recent_sweeps.append(Arrival(stamp_ns, steady_ns))
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

    def _store(self, camera: ImageHistory, image: StampedImage, steady_ns: int) -> list[_Event]:
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
