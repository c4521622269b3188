# SPDX-License-Identifier: Apache-2.0
"""How much of the machine other processes used while something was measured (Linux /proc)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

_PROC = Path('/proc')


class OthersShare:
    """Share of all CPU time, in a span, that was spent outside a set of processes."""

    def __init__(self, pids: Iterable[int]) -> None:
        """Start the span.

        Args:
            pids: Processes that belong to the measurement; their ended children count in.

        """
        self._pids = tuple(pids)
        self._busy, self._total = _machine_ticks()
        self._own = self._own_ticks()

    def share(self) -> float | None:
        """End the span: 0 (alone) .. 1; None where /proc does not tell."""
        busy, total = _machine_ticks()
        if total <= self._total:
            return None
        others = (busy - self._busy) - (self._own_ticks() - self._own)
        return max(0.0, others / (total - self._total))

    def _own_ticks(self) -> int:
        return sum(_process_ticks(pid) for pid in self._pids)


def _machine_ticks() -> tuple[int, int]:
    """Busy and total ticks over all cores."""
    try:
        fields = (_PROC / 'stat').read_text().split('\n', 1)[0].split()[1:9]
    except OSError:
        return 0, 0
    ticks = [int(field) for field in fields]
    idle = ticks[3] + ticks[4]
    return sum(ticks) - idle, sum(ticks)


def _process_ticks(pid: int) -> int:
    """Ticks of a process, its threads and its ended children; 0 when it is gone."""
    try:
        text = (_PROC / str(pid) / 'stat').read_text()
    except OSError:
        return 0
    fields = text.rsplit(')', 1)[1].split()
    return sum(int(field) for field in fields[11:15])


def own_pids(*pids: int) -> tuple[int, ...]:
    """Name this process and others that belong to one measurement."""
    return (os.getpid(), *pids)
