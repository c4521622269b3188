# SPDX-License-Identifier: Apache-2.0
"""Gives memory back after peaks: glibc returns only the end of a heap that was once large."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from cross4d_jepa_ros.compute import give_back_memory

# Giving back costs the next sweep page faults, about 60 ms for 150 MB: one in 200, at 10 Hz.
CHECKED_EVERY_S = 20.0
WORTH_BYTES = 32 << 20


def own_bytes() -> int:
    """Resident memory of this process that it shares with no other, bytes; 0 where not known."""
    try:
        _, resident, shared, *_ = Path('/proc/self/statm').read_text().split()
    except (OSError, ValueError):
        return 0
    return (int(resident) - int(shared)) * os.sysconf('SC_PAGE_SIZE')


class RetainedMemory:
    """Compares what the process holds now with what it held when it had just given back.

    Not with what it usually holds: where the first look falls on a peak, all later ones would pass.
    """

    def __init__(
        self,
        held_bytes: Callable[[], int] = own_bytes,
        give_back: Callable[[], None] = give_back_memory,
    ) -> None:
        """Remember nothing yet.

        Args:
            held_bytes: Tells what the process holds.
            give_back: Called when that is notably more than after the last time.

        """
        self._held_bytes = held_bytes
        self._give_back = give_back
        self._left: int | None = None

    def check(self) -> None:
        """Look, and give back what is worth it; every `CHECKED_EVERY_S`."""
        if self._left is None or self._held_bytes() - self._left > WORTH_BYTES:
            self._give_back()
            self._left = self._held_bytes()

    def forget(self) -> None:
        """Give back at the next look in any case: another model may hold less."""
        self._left = None
