# SPDX-License-Identifier: Apache-2.0
"""Gives memory back after a peak: glibc returns only the end of a heap that was once large."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from cross4d_jepa_ros.compute import give_back_memory

# Giving back costs the next sweep page faults, about 60 ms for 150 MB: one in 200, at 10 Hz.
CHECKED_EVERY_S = 20.0
WORTH = 0.05
WORTH_BYTES = 32 << 20


def own_bytes() -> int:
    """Resident memory of this process that it shares with no other, bytes; 0 where not known."""
    try:
        _, resident, shared, *_ = Path('/proc/self/statm').read_text().split()
    except (OSError, ValueError):
        return 0
    return (int(resident) - int(shared)) * os.sysconf('SC_PAGE_SIZE')


class RetainedMemory:
    """Compares what the process holds now with the least that it ever held here.

    Not with what it held lately: holes that grow a little with each peak would go unnoticed.
    """

    def __init__(
        self,
        held_bytes: Callable[[], int] = own_bytes,
        give_back: Callable[[], None] = give_back_memory,
    ) -> None:
        """Remember nothing yet.

        Args:
            held_bytes: Tells what the process holds.
            give_back: Called when that is notably more than the least.

        """
        self._held_bytes = held_bytes
        self._give_back = give_back
        self._least: int | None = None

    def check(self) -> None:
        """Look, and give back what a peak has left; every `CHECKED_EVERY_S`."""
        held = self._held_bytes()
        least = self._least = held if self._least is None else min(held, self._least)
        if held - least > max(WORTH_BYTES, WORTH * least):
            self._give_back()

    def forget(self) -> None:
        """Begin anew, as with another model."""
        self._least = None
