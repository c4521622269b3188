# SPDX-License-Identifier: Apache-2.0
"""Gives memory back after peaks: glibc returns only the end of a heap that was once large."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from pathlib import Path

from cross4d_jepa_ros.compute import give_back_memory

CHECKED_EVERY_S = 5.0
# Looks that decide what is usual: five minutes.
REMEMBERED = 60
# After so many without a peak, holes that crept in are given back as well: once a minute.
PATIENCE = 12
# Giving back costs the next sweep page faults, about 60 ms for 150 MB.
WORTH_BYTES = 32 << 20


def own_bytes() -> int:
    """Resident memory of this process that it shares with no other, bytes; 0 where not known."""
    try:
        _, resident, shared, *_ = Path('/proc/self/statm').read_text().split()
    except (OSError, ValueError):
        return 0
    return (int(resident) - int(shared)) * os.sysconf('SC_PAGE_SIZE')


class RetainedMemory:
    """Compares what the process holds now with what it usually does.

    That is the lower quartile of five minutes: neither peaks nor pauses decide it. Another model is
    taken for a peak until it has been there for long enough; no life of the node begins anew, as
    its first look may fall into a peak.
    """

    def __init__(
        self,
        held_bytes: Callable[[], int] = own_bytes,
        give_back: Callable[[], None] = give_back_memory,
    ) -> None:
        """Remember nothing yet.

        Args:
            held_bytes: Tells what the process holds.
            give_back: Called when that is notably more than usual, at the first look, and after
                `PATIENCE` looks without either.

        """
        self._held_bytes = held_bytes
        self._give_back = give_back
        self._recent: deque[int] = deque(maxlen=REMEMBERED)
        self._looks = 0

    def check(self) -> None:
        """Look, and give back what is worth it; every `CHECKED_EVERY_S`."""
        held = self._held_bytes()
        self._recent.append(held)
        usual = sorted(self._recent)[(len(self._recent) - 1) // 4]
        if self._looks % PATIENCE == 0 or held - usual > WORTH_BYTES:
            self._give_back()
            self._looks = 0
        self._looks += 1
