# SPDX-License-Identifier: Apache-2.0
"""The memory of one live stream, and when it breaks."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from cross4d_jepa_ros.model.config import ModelConfig
from cross4d_jepa_ros.model.temporal_memory import Remembered, relative_pose

MAX_GAP_S = 1.0
MAX_SPEED = 70.0
MAX_JUMP_M = 2.0
MAX_TURN_RATE = 6.0
MAX_TURN = 0.3


class SweepStream:
    """Tells where one live stream of sweeps breaks."""

    def __init__(self) -> None:
        self._frame_id = ''
        self._stamp_ns: int | None = None
        self._pose: tuple[int, NDArray[np.float64]] | None = None

    def follow(
        self, stamp_ns: int, frame_id: str, fixed_from_base: NDArray[np.float64] | None
    ) -> str:
        """Go on to the sweep that comes next; see `LiveMemory.follow`.

        Returns:
            Why it does not continue the stream but begins another; empty where it does.

        """
        reason = self._break(stamp_ns, frame_id, fixed_from_base)
        if reason:
            self._pose = None
        self._stamp_ns, self._frame_id = stamp_ns, frame_id
        if fixed_from_base is not None:
            self._pose = stamp_ns, fixed_from_base
        return reason

    def _break(
        self, stamp_ns: int, frame_id: str, fixed_from_base: NDArray[np.float64] | None
    ) -> str:
        if self._stamp_ns is None:
            return ''
        gap_s = (stamp_ns - self._stamp_ns) / 1e9
        if gap_s == 0:
            return f'two sweeps have the stamp {stamp_ns} ns'
        if gap_s < 0:
            return f'the stamp went back by {-gap_s:.3f} s'
        if gap_s > MAX_GAP_S:
            return f'{gap_s:.2f} s without a sweep, more than {MAX_GAP_S:g} s'
        if frame_id != self._frame_id:
            return f'the sensor frame changed from {self._frame_id!r} to {frame_id!r}'
        if self._pose is None or fixed_from_base is None:
            return ''
        then_ns, then = self._pose
        seconds = (stamp_ns - then_ns) / 1e9
        motion = relative_pose(then, fixed_from_base)
        jump_m = float(np.linalg.norm(motion[:3, 3]))
        turn = float(np.arccos(np.clip((np.trace(motion[:3, :3]) - 1) / 2, -1, 1)))
        if jump_m > MAX_JUMP_M + MAX_SPEED * seconds:
            return f'the pose jumped by {jump_m:.1f} m in {seconds:.2f} s'
        if turn > MAX_TURN + MAX_TURN_RATE * seconds:
            return f'the pose turned by {np.rad2deg(turn):.0f} degrees in {seconds:.2f} s'
        return ''


class LiveMemory:
    """The remembered sweeps of one live stream; forgets them when the stream breaks."""

    def __init__(self, config: ModelConfig) -> None:
        self._stride = config.sweep_stride
        self._sweeps: deque[Remembered] = deque(maxlen=(config.sweeps - 1) * config.sweep_stride)
        self._stream = SweepStream()

    def __len__(self) -> int:
        return len(self.read())

    def clear(self) -> None:
        """Forget everything: the next sweep is the first."""
        self._sweeps.clear()
        self._stream = SweepStream()

    def follow(
        self, stamp_ns: int, frame_id: str, fixed_from_base: NDArray[np.float64] | None
    ) -> str:
        """Forget everything if a sweep does not continue the stream.

        Args:
            stamp_ns: Of the sweep that comes next.
            frame_id: Of the sensor.
            fixed_from_base: (4, 4) pose, or None.

        Returns:
            Why everything was forgotten; empty where the stream goes on.

        """
        reason = self._stream.follow(stamp_ns, frame_id, fixed_from_base)
        if reason:
            self._sweeps.clear()
        return reason

    def read(self) -> list[Remembered]:
        """Return the sweeps that the next one reads, newest first."""
        return list(self._sweeps)[self._stride - 1 :: self._stride]

    def add(self, sweep: Remembered) -> None:
        """Keep a sweep; the oldest goes."""
        self._sweeps.appendleft(sweep)
