# SPDX-License-Identifier: Apache-2.0
"""Commands of the package, run in this process and shown as a user would type them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from types import ModuleType

from rich.console import Console


class CommandFailed(RuntimeError):
    """A command failed; it has said why."""


def command_line(module: str, words: Sequence[str]) -> str:
    """Write a command as a user would type it."""
    return shlex.join(['python', '-m', module, *words])


def show_command(text: str, console: Console) -> None:
    """Print a command so that it can be copied."""
    console.print(text, style='bold', soft_wrap=True, highlight=False)


def run_shown(module: ModuleType, words: Sequence[str], console: Console) -> None:
    """Show a command and run it.

    Args:
        module: Its.
        words: That follow it.
        console: Where it is shown.

    Raises:
        CommandFailed: It failed.

    """
    text = command_line(module.__name__, words)
    show_command(text, console)
    if module.main(list(words)) != 0:
        msg = f'this failed: {text}'
        raise CommandFailed(msg)
