# SPDX-License-Identifier: Apache-2.0
"""The heap of this process: what it keeps of freed memory. Does nothing where it is not glibc's."""

from __future__ import annotations

import ctypes

_LIBC = ctypes.CDLL(None)
# Parameters of mallopt(3).
TRIM_THRESHOLD, MMAP_THRESHOLD, ARENAS = -1, -3, -8


def share_one_heap() -> None:
    """Have all threads share the main heap; to be called before the first of them begins.

    Heaps of their own cannot be given back as a whole: the end of each, up to 64 MB, stays with its
    threads for ever.
    """
    _call('mallopt', ARENAS, 1)


def keep_freed_memory() -> None:
    """Have this process keep up to 256 MB of what it frees, for good."""
    # The most that glibc allows.
    _call('mallopt', MMAP_THRESHOLD, 32 << 20)
    _call('mallopt', TRIM_THRESHOLD, 256 << 20)


def trim() -> None:
    """Return what is free in the heap to the system, holes too."""
    _call('malloc_trim', 0)


def _call(name: str, *arguments: int) -> None:
    function = getattr(_LIBC, name, None)
    if function is not None:
        function(*arguments)
