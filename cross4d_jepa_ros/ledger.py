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


class Place(StrEnum):
    """Where a sweep in flight is; each place has room for one."""

    WAITING = 'waiting'
    MAILBOX = 'mailbox'
    WORKING = 'working'


class Miscounted(RuntimeError):
    """A sweep was to be moved or closed that is not where it should be: a defect of the node."""


@dataclass(frozen=True, eq=False)
class Entry:
    """A sweep in the books, from its arrival until it is answered or dropped.

    Attributes:
        stamp_ns: Of its header.
        arrived_ns: Steady clock.

    """

    stamp_ns: int
    arrived_ns: int


@dataclass(frozen=True)
class Counts:
    """A consistent reading of the ledger; `places` says how many sweeps each place holds."""

    received: int
    answered: int
    dropped: Mapping[Drop, int]
    last_reason: Mapping[Drop, str]
    places: Mapping[Place, int]

    @property
    def in_flight(self) -> int:
        """Sweeps that wait for images, lie in the mailbox or are being answered."""
        return sum(self.places.values())

    def as_dict(self) -> dict[str, object]:
        """Write them down for a report: `received`, `answered`, `dropped`, `in_flight`."""
        return {
            'received': self.received,
            'answered': self.answered,
            'dropped': {str(cause): count for cause, count in self.dropped.items()},
            'in_flight': self.in_flight,
        }


class SweepLedger:
    """Counts every sweep once when it arrives and once when it leaves. Thread-safe.

    What is in flight is held by name, so that a sweep that is lost or closed twice shows.
    """

    def __init__(self) -> None:
        """Start at zero."""
        self._lock = threading.Lock()
        self._received = 0
        self._answered = 0
        self._dropped = dict.fromkeys(Drop, 0)
        self._last_reason: dict[Drop, str] = {}
        self._open: dict[Place, Entry] = {}

    def receive(self, entry: Entry) -> None:
        """Count a sweep that arrived and waits for its images.

        Raises:
            Miscounted: Another one waits.

        """
        with self._lock:
            if Place.WAITING in self._open:
                raise _misplaced(entry, 'cannot wait: another sweep does')
            self._received += 1
            self._open[Place.WAITING] = entry

    def refuse(self, cause: Drop, reason: str = '') -> None:
        """Count a sweep that is dropped as it arrives."""
        with self._lock:
            self._received += 1
            self._count_drop(cause, reason)

    def offer(self, entry: Entry) -> None:
        """Move a sweep from where it waits to the mailbox; the one that lies there is superseded.

        Raises:
            Miscounted: It does not wait.

        """
        with self._lock:
            if self._open.get(Place.WAITING) is not entry:
                raise _misplaced(entry, 'cannot go to the mailbox: it does not wait')
            older = self._open.pop(Place.MAILBOX, None)
            if older is not None:
                self._count_drop(Drop.SUPERSEDED, f'stamp {older.stamp_ns} ns')
            self._open[Place.MAILBOX] = self._open.pop(Place.WAITING)

    def begin(self, entry: Entry) -> bool:
        """Move a sweep from the mailbox to the worker.

        Returns:
            False where it is not in the mailbox any more and must not be worked on.

        Raises:
            Miscounted: The worker has another one.

        """
        with self._lock:
            if self._open.get(Place.MAILBOX) is not entry:
                return False
            if Place.WORKING in self._open:
                raise _misplaced(entry, 'cannot be worked on: another sweep is')
            self._open[Place.WORKING] = self._open.pop(Place.MAILBOX)
            return True

    def answer(self, entry: Entry) -> None:
        """Count a sweep whose answer is out.

        Raises:
            Miscounted: It is not being worked on.

        """
        with self._lock:
            if self._open.get(Place.WORKING) is not entry:
                raise _misplaced(entry, 'cannot be answered: it is not worked on')
            del self._open[Place.WORKING]
            self._answered += 1

    def drop(self, entry: Entry, cause: Drop, reason: str = '') -> None:
        """Count a sweep that gets no answer, with a sentence for the diagnostics.

        Raises:
            Miscounted: It is not in flight.

        """
        with self._lock:
            place = self._place_of(entry)
            if place is None:
                raise _misplaced(entry, f'cannot be dropped ({cause}): it is not in flight')
            del self._open[place]
            self._count_drop(cause, reason)

    def place(self, entry: Entry) -> Place | None:
        """Say where a sweep is; None where it was answered or dropped."""
        with self._lock:
            return self._place_of(entry)

    def counts(self) -> Counts:
        """Read everything at once."""
        with self._lock:
            return Counts(
                self._received,
                self._answered,
                dict(self._dropped),
                dict(self._last_reason),
                {place: int(place in self._open) for place in Place},
            )

    def _count_drop(self, cause: Drop, reason: str) -> None:
        self._dropped[cause] += 1
        self._last_reason[cause] = reason

    def _place_of(self, entry: Entry) -> Place | None:
        return next((place for place, held in self._open.items() if held is entry), None)


def _misplaced(entry: Entry, why: str) -> Miscounted:
    return Miscounted(f'sweep with stamp {entry.stamp_ns} ns {why}')
