# SPDX-License-Identifier: Apache-2.0
"""Progress bars with their rate and the time left; in a log, a line now and then instead."""

from __future__ import annotations

import time
from typing import Any

from rich import progress
from rich.console import Console
from rich.text import Text

# Between two lines in a log.
EVERY_S = 30.0
BAR_WIDTH = 24


class Bars(progress.Progress):
    """One bar for each task: what, how much of how many, how fast, a note, how long still.

    The note is the field `note` of `add_task` and `update`. Bars vanish at the end. Where the
    console is no terminal, lines without control characters say the same.

    Args:
        console: Where to.
        unit: What is counted, for the rate; None where a rate says nothing.
        disable: Whether to show nothing at all.

    """

    def __init__(self, console: Console, unit: str | None = '', *, disable: bool = False) -> None:
        self._lines = not disable and not console.is_terminal
        self._told = time.monotonic()
        super().__init__(
            progress.TextColumn('{task.description}', markup=False),
            progress.BarColumn(BAR_WIDTH),
            progress.MofNCompleteColumn(),
            _Rate(unit),
            _Note(),
            progress.TimeRemainingColumn(),
            console=console,
            transient=True,
            refresh_per_second=4,
            disable=disable or self._lines,
        )
        self._unit = unit

    def advance(self, task_id: progress.TaskID, advance: float = 1) -> None:
        """Take a step."""
        super().advance(task_id, advance)
        self._tell(task_id)

    def update(self, task_id: progress.TaskID, **changes: Any) -> None:
        """Change a task; see `rich.progress.Progress.update`."""
        super().update(task_id, **changes)
        self._tell(task_id)

    def _tell(self, task_id: progress.TaskID) -> None:
        now = time.monotonic()
        if not self._lines or now - self._told < EVERY_S:
            return
        self._told = now
        task = next(task for task in self.tasks if task.id == task_id)
        total = '' if task.total is None else f' of {task.total:.0f}'
        left = task.time_remaining
        parts = (
            f'{task.description} {task.completed:.0f}{total}',
            _rate(task, self._unit),
            str(task.fields.get('note', '')),
            '' if left is None else f'{_clock(left)} left',
        )
        text = ', '.join(filter(None, parts))
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


class _Rate(progress.ProgressColumn):
    def __init__(self, unit: str | None) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: progress.Task) -> Text:
        return Text(_rate(task, self._unit), style='progress.data.speed')


class _Note(progress.ProgressColumn):
    def render(self, task: progress.Task) -> Text:
        return Text(str(task.fields.get('note', '')))


def _rate(task: progress.Task, unit: str | None) -> str:
    speed = task.finished_speed or task.speed
    return '' if unit is None or not speed else f'{speed:.2g}{unit and " "}{unit}/s'


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f'{hours}:{minutes:02}:{rest:02}'
