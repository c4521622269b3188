# SPDX-License-Identifier: Apache-2.0
"""What every message must end in: a documented refusal, or finite numbers, soon and in bounds."""

from __future__ import annotations

import random
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from tests.tries import TRIED

# For `pytestmark`: numpy's warnings are failures; what ROS imports with its first message warns.
NO_WARNINGS = [
    pytest.mark.filterwarnings('error'),
    pytest.mark.filterwarnings('ignore:module .sre_:DeprecationWarning'),
]
# CPU seconds of this thread; a quiet machine needs thousandths.
MOST_SECONDS = 2.0
# Beyond the stated factors: whatever does not grow with the message, such as a late import.
FIXED_BYTES = 2_000_000


def verdict(
    kind: str,
    read: Callable[[], Any],
    refusals: tuple[type[Exception], ...],
    most_bytes: float,
    what: object = '',
) -> Any:
    """Read one message.

    Args:
        kind: What it is counted as.
        read: Reads it, and returns what is made of it.
        refusals: What it may raise, with a sentence for people.
        most_bytes: It may allocate, beyond FIXED_BYTES.
        what: Said about it where it fails.

    Returns:
        What `read` returns; the refusal where it is refused.

    """
    TRIED[kind] += 1
    tracemalloc.start()
    started = time.thread_time()
    try:
        made = read()
    except refusals as refusal:
        assert 10 < len(str(refusal)) < 2000, (kind, str(refusal)[:200], what)
        made = refusal
    except Exception as error:
        error.add_note(f'{kind}: {what}')
        raise
    finally:
        seconds = time.thread_time() - started
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert seconds < MOST_SECONDS, (kind, seconds, what)
    assert peak <= most_bytes + FIXED_BYTES, (kind, peak, most_bytes, what)
    return made


def bulk(seed: int, each: Callable[[random.Random], Any], count: int = 50) -> None:
    """Try many messages of one seed, where drawing them one by one would take too long."""
    for number in range(count):
        each(random.Random(seed * count + number))
