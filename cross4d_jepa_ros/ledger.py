# SPDX-License-Identifier: Apache-2.0
"""The one place that counts sweeps: received = answered + dropped by cause + in flight."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Drop(StrEnum):
    """Why a received sweep got no answer."""

    MALFORMED = 'malformed'
    SUPERSEDED = 'superseded'
    DUPLICATE = 'duplicate'
    OUT_OF_ORDER = 'out_of_order'
    NO_TRANSFORM = 'no_transform'
    INACTIVE = 'inactive'
    OUT_OF_MEMORY = 'out_of_memory'
    ERROR = 'error'


@dataclass(frozen=True)
class Counts:
    """A consistent reading of the ledger."""

    received: int
    answered: int
    dropped: Mapping[Drop, int]
    last_reason: Mapping[Drop, str]

    @property
    def in_flight(self) -> int:
        """Sweeps that wait for images, lie in the mailbox or are being answered."""
        return self.received - self.answered - sum(self.dropped.values())


class SweepLedger:
    """Counts every sweep once when it arrives and once when it leaves. Thread-safe."""

    def __init__(self) -> None:
        """Start at zero."""
        self._lock = threading.Lock()
        self._received = 0
        self._answered = 0
        self._dropped = dict.fromkeys(Drop, 0)
        self._last_reason: dict[Drop, str] = {}

    def receive(self) -> None:
        """Count a sweep that arrived."""
        with self._lock:
            self._received += 1

    def answer(self) -> None:
        """Count a sweep whose answer is out."""
        with self._lock:
            self._answered += 1

    def drop(self, cause: Drop, reason: str = '') -> None:
        """Count a sweep that gets no answer, with a sentence for the diagnostics."""
        with self._lock:
            self._dropped[cause] += 1
            self._last_reason[cause] = reason

    def counts(self) -> Counts:
        """Read everything at once."""
        with self._lock:
            return Counts(
                self._received, self._answered, dict(self._dropped), dict(self._last_reason)
            )
