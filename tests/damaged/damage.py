# SPDX-License-Identifier: Apache-2.0
"""Files are damaged at random, and what is read of them is judged."""

from __future__ import annotations

import random
import resource
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from tests.tries import tries

# CPU time in which a small file is read or refused.
HANG_S = 20.0
# What a damaged file of some kB may make the process grow by, interpreter's caches included.
MOST_GROWTH_KB = 150_000


@dataclass
class Trials:
    """What became of damaged files.

    Attributes:
        tried: All of them.
        refused: By the exception that is documented, which named the file.
        same: Read with the same content.
        changed: Read with other content, where the format cannot tell.
        slowest_s: CPU time of the slowest.

    """

    tried: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    same: int = 0
    changed: int = 0
    slowest_s: float = 0.0


def damages(good: bytes, count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield what was done to some bytes, and what is left of them; never the same bytes."""
    draw = random.Random(seed)
    yield 'empty', b''
    made = 1
    while made < count:
        what = draw.choices(('bits', 'cut', 'zeros', 'swapped', 'longer'), (60, 15, 12, 12, 1))[0]
        content = bytearray(good)
        if what == 'bits':
            for bit in draw.sample(range(8 * len(good)), draw.randint(1, 8)):
                content[bit // 8] ^= 1 << bit % 8
        elif what == 'cut':
            del content[draw.randrange(len(good)) :]
        elif what == 'zeros':
            size = min(len(good), draw.choice((1, 4, 16, 64, 512, 4096)))
            start = draw.randrange(len(good) - size + 1)
            content[start : start + size] = bytes(size)
        elif what == 'swapped':
            size = min(len(good) // 2, draw.choice((8, 64, 512)))
            one, other = (draw.randrange(len(good) // size) * size for _ in '12')
            first, second = good[one : one + size], good[other : other + size]
            content[one : one + size], content[other : other + size] = second, first
        else:
            content += good[: draw.randint(1, 100)]
        if content != good:
            made += 1
            yield what, bytes(content)


def try_damaged(
    path: Path,
    read: Callable[[], Any],
    refusal: type[Exception] | tuple[type[Exception], ...],
    usual: int,
    *,
    seed: int,
    may_change: bool = False,
) -> Trials:
    """Damage a file over and over and read it; in the end it is whole again.

    Args:
        path: The file. A refusal has to name it.
        read: Reads it, and what belongs to it; gives something that compares.
        refusal: What is documented. An OSError has to name the file as well.
        usual: Files that are tried in an ordinary run.
        seed: Of the damage.
        may_change: Whether the format cannot tell damage from other content.

    Raises:
        AssertionError: Something else was raised or read, or it took for ever.

    """
    good, whole = path.read_bytes(), read()
    trials = Trials()
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    old = signal.signal(signal.SIGPROF, _hangs)
    try:
        for number, (what, content) in enumerate(damages(good, tries(usual), seed)):
            path.write_bytes(content)
            trials.tried[what] += 1
            signal.setitimer(signal.ITIMER_PROF, HANG_S)
            began = time.process_time()
            try:
                found = read()
            except (*_each(refusal), OSError) as error:
                place = f'damage {number} ({what}) of {path.name}, seed {seed}'
                assert isinstance(error, (*_each(refusal), OSError)) and path.name in str(error), (
                    f'{place}: {error!r} does not name the file'
                )
                trials.refused[what] += 1
            else:
                trials.same += found == whole
                trials.changed += found != whole
                assert may_change or found == whole, (
                    f'damage {number} ({what}) of {path.name}, seed {seed}, went unseen'
                )
            trials.slowest_s = max(trials.slowest_s, time.process_time() - began)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, old)
        path.write_bytes(good)
    grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb
    assert grown_kb < MOST_GROWTH_KB, f'{path.name}: {grown_kb} kB more memory'
    _try_folder(path, read, refusal, whole)
    assert read() == whole
    return trials


def _try_folder(
    path: Path,
    read: Callable[[], Any],
    refusal: type[Exception] | tuple[type[Exception], ...],
    whole: Any,
) -> None:
    """Put a folder in the place of the file."""
    good = path.read_bytes()
    path.unlink()
    path.mkdir()
    try:
        assert read() == whole, f'a folder in the place of {path.name} was read'
    except (*_each(refusal), OSError) as error:
        assert path.name in str(error), f'a folder in the place of {path.name}: {error!r}'
    finally:
        shutil.rmtree(path)
        path.write_bytes(good)


def _each(refusal: type[Exception] | tuple[type[Exception], ...]) -> tuple[type[Exception], ...]:
    return refusal if isinstance(refusal, tuple) else (refusal,)


def _hangs(_: int, __: FrameType | None) -> None:
    msg = f'reading takes more than {HANG_S:g} s of CPU time'
    raise AssertionError(msg)
