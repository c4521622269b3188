# SPDX-License-Identifier: Apache-2.0
"""Progress bars with their rate and the time left."""

from __future__ import annotations

from rich import progress
from rich.console import Console
from rich.text import Text


class Rate(progress.ProgressColumn):
    """Steps per second."""

    def render(self, task: progress.Task) -> Text:
        """Show the rate once it is known."""
        speed = task.finished_speed or task.speed
        return Text('' if speed is None else f'{speed:.2g}/s', style='progress.data.speed')


def bars(console: Console) -> progress.Progress:
    """Make bars: what, how much of how many, how fast, how long still."""
    return progress.Progress(
        progress.TextColumn('{task.description}'),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        Rate(),
        progress.TimeRemainingColumn(),
        console=console,
    )
