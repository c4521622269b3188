# SPDX-License-Identifier: Apache-2.0
"""Gives memory back after a peak: glibc returns only the end of a heap that was once large."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from pathlib import Path

from cross4d_jepa_ros.compute import give_back_memory

CHECKED_EVERY_S = 10.0
REMEMBERED = 60
PEAK = 1.25
# Less is not worth the page faults of the next sweep (about 60 ms for 150 MB).
WORTH_BYTES = 32 << 20


def own_bytes() -> int:
    """Resident memory of this process that it shares with no other, bytes; 0 where not known."""
    try:
        _, resident, shared, *_ = Path('/proc/self/statm').read_text().split()
    except (OSError, ValueError):
        return 0
    return (int(resident) - int(shared)) * os.sysconf('SC_PAGE_SIZE')


class RetainedMemory:
    """Compares what the process holds now with the least of the last ten minutes."""

    def __init__(
        self,
        held_bytes: Callable[[], int] = own_bytes,
        give_back: Callable[[], None] = give_back_memory,
    ) -> None:
        """Remember nothing yet.

        Args:
            held_bytes: Tells what the process holds.
            give_back: Called when that is a quarter more than it was lately.

        """
        self._held_bytes = held_bytes
        self._give_back = give_back
        self._lately: deque[int] = deque(maxlen=REMEMBERED)

    def check(self) -> None:
        """Look, and give back what a peak has left; every `CHECKED_EVERY_S`."""
        held = self._held_bytes()
        self._lately.append(held)
        least = min(self._lately)
        if held > PEAK * least and held - least > WORTH_BYTES:
            self._give_back()
