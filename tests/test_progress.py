# SPDX-License-Identifier: Apache-2.0
"""Bars for a person, lines for a log."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from cross4d_jepa_ros import progress
from cross4d_jepa_ros.progress import Bars


def shown(*, terminal: bool, disable: bool = False) -> str:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=80)
    with Bars(console, 'sweeps', disable=disable) as bars:
        task = bars.add_task('reading [them]', total=40)
        for number in range(30):
            bars.update(task, advance=1, note=f'loss {number}')
        bars.advance(task, 2)
        bars.refresh()
    return stream.getvalue()


def test_a_log_gets_lines_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(terminal=False) == ''  # quicker than the first
    monkeypatch.setattr(progress, 'EVERY_S', 0.0)
    lines = shown(terminal=False).splitlines()
    assert len(lines) == 31
    told = re.fullmatch(
        r'reading \[them\] 32 of 40, \S+ sweeps/s, loss 29, 0:00:0\d left', lines[-1]
    )
    assert told, lines[-1]
    assert not re.search(r'[\x00-\x09\x0b-\x1f]', '\n'.join(lines))


def test_a_terminal_gets_a_bar_that_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, 'EVERY_S', 0.0)
    text = shown(terminal=True)
    seen = re.sub(r'\x1b\[[0-9;?]*[A-Za-z]', '', text)
    assert re.search(r'reading \[them\] ━.*32/40 \S+ sweeps/s loss 29 0:00:0\d', seen)
    assert text.rstrip('\n').endswith('\x1b[2K')  # the line is erased
    assert shown(terminal=True, disable=True) == shown(terminal=False, disable=True) == ''


def test_where_a_rate_says_nothing_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, 'EVERY_S', 0.0)
    stream = io.StringIO()
    with Bars(Console(file=stream, force_terminal=False), None) as bars:
        bars.advance(bars.add_task('seconds', total=None), 3)
    assert stream.getvalue() == 'seconds 3\n'
