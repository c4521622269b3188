# SPDX-License-Identifier: Apache-2.0
"""Changes to messages: any attribute to any value, drawn by hypothesis or, faster, by a seed."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from copy import deepcopy
from types import SimpleNamespace
from typing import Any

from hypothesis import strategies as st

_INTEGERS = (
    *(0, 1, -1, 2, 3, 7, 8, 9, 12, 16, 255, 2**15, 2**16, 10**9, 4 * 10**9),
    *(2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64, -(2**31), -(2**63)),
    16_725_225_600,  # seconds: the year 2500
)
_FLOATS = (
    *(0.0, -0.0, 1.0, -1.0, 0.5, 1e-3, 1e3, 1e6, 1e9, -1e9, 1e10, 1e-300, 5e-324),
    *(1e38, -1e38, 1e154, 1e300, 1.7e308, -1.7e308, float('nan'), float('inf'), float('-inf')),
)
_TEXTS = (
    *('', '/', '//lidar', 'lidar', 'camera', 'odom', 'base', 'x', 'y', 'z', 'X', 'intensity'),
    *('ring', 't', 'time', 'unnamed', 'x#1', 'ünïcödé', '点', '\U0001f600', '\0', 'a b\n', 'x\0'),
    *('rgb8', 'mono8', '16UC1', '32FC1', 'yuyv', 'bayer_gbrg8', 'fisheye', 'none', 'equidistant'),
    *('rational_polynomial', 'x' * 257, 'x' * 100_000),
)
# Four bytes of a payload: floats, and integers some of which are NaNs that signal.
_WORDS = (
    *(struct.pack('<f', value) for value in (0.0, 1.0, -1.0, 1e-40, 1e9, 1e20, 3.4e38, -3.4e38)),
    *(struct.pack('<f', value) for value in (float('inf'), float('nan'))),
    *(b'\xff\xff\xff\xff', b'\x01\x00\x80\x7f', b'\x7f\x80\x00\x01', b'\xff\xff\xff\x7f'),
)

# Which leaf of the message, and what becomes of it; both are taken modulo what there is.
Change = tuple[int, int]
changes = st.lists(
    st.tuples(st.integers(0, 255), st.integers(0, 2**20)), min_size=1, max_size=5
)  # which shrinks to one change of the first leaf


def drawn(draw: random.Random, most: int = 4) -> list[Change]:
    """As `changes`, from a seed."""
    return [(draw.randrange(256), draw.randrange(2**20)) for _ in range(draw.randint(1, most))]


def changed(message: Any, changes: list[Change]) -> Any:
    """Copy a message with some of its leaves changed."""
    message = deepcopy(message)
    for leaf, choice in changes:
        leaves = list(_leaves(message))
        holder, key, value = leaves[leaf % len(leaves)]
        new = _instead(value, choice)
        if isinstance(key, int):
            holder[key] = new
        else:
            setattr(holder, key, new)
    return message


def damaged(data: bytes, draw: random.Random) -> bytes:
    """Flip up to eight bits, or cut, or overwrite four bytes."""
    return _bytes_instead(data, draw.randrange(2**20))


def size_of(message: Any) -> int:
    """Bytes that a message holds, as far as that matters: numbers count eight."""
    if isinstance(message, bytes | str):
        return len(message)
    if isinstance(message, list):
        return sum(map(size_of, message))
    if isinstance(message, SimpleNamespace):
        return sum(map(size_of, vars(message).values()))
    return 8


def _leaves(holder: Any) -> Iterator[tuple[Any, str | int, Any]]:
    """Attributes that are numbers, text, bytes or lists, and those of lists' first objects."""
    items = enumerate(holder[:8]) if isinstance(holder, list) else vars(holder).items()
    for key, value in items:
        if isinstance(value, SimpleNamespace):
            yield from _leaves(value)
            continue
        yield holder, key, value
        if isinstance(value, bytes) and value:  # the payload deserves more than one turn
            yield from [(holder, key, value)] * 3
        if isinstance(value, list) and value and isinstance(value[0], SimpleNamespace):
            yield from _leaves(value)


def _instead(value: Any, choice: int) -> Any:
    if isinstance(value, float):
        return _FLOATS[choice % len(_FLOATS)]
    if isinstance(value, int):
        near = (value + 1, value - 1, 2 * value, choice)
        return (*_INTEGERS, *near)[choice % (len(_INTEGERS) + len(near))]
    if isinstance(value, str):
        return _TEXTS[choice % len(_TEXTS)]
    return _bytes_instead(value, choice) if isinstance(value, bytes) else _list(value, choice)


def _list(value: list[Any], choice: int) -> list[Any]:
    kind, at = choice % 8, choice // 8 % max(1, len(value))
    if kind == 0 or not value:
        return []
    if kind == 1:
        return value[:at]
    if kind == 2:
        return deepcopy(value) + deepcopy(value[at : at + 1])
    if kind == 3:
        return [deepcopy(value[at]) for _ in range(40)]
    if kind == 4:
        return value[::-1]
    if kind == 5 or not isinstance(value[0], float):
        return value[at:] + value[:at]
    number = _FLOATS[choice // 64 % len(_FLOATS)]
    return [number] * len(value) if kind == 6 else [*value[:at], number, *value[at + 1 :]]


def _bytes_instead(data: bytes, choice: int) -> bytes:
    kind, at = choice % 8, choice // 8 % max(1, len(data))
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data + data[at:]
    if kind == 2:
        return data[:at] + bytes(len(data) - at)
    if kind == 3:
        return data[:at] + b'\xff' * (len(data) - at)
    new = bytearray(data)
    if kind < 6:
        draw = random.Random(choice)
        for _ in range(draw.randint(1, 8) if data else 0):
            new[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        return bytes(new)
    at -= at % 4
    new[at : at + 4] = _WORDS[choice // 64 % len(_WORDS)]
    return bytes(new)
