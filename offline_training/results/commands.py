# SPDX-License-Identifier: Apache-2.0
"""Commands of the package, run in this process and shown as a user would type them."""

from __future__ import annotations

import hashlib
import importlib
import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from cross4d_jepa_ros.files import write_atomically


class CommandFailed(RuntimeError):
    """A command failed; it has said why."""


def line(command: str, words: Sequence[str]) -> str:
    """Write a command as a user would type it."""
    return shlex.join(['python', '-m', f'offline_training.{command}', *words])


def run(command: str, words: Sequence[str], done: Path, console: Console) -> None:
    """Run a command, unless it has been run with the same words.

    Args:
        command: Module of `offline_training`.
        words: That follow it.
        done: Folder that remembers what is done.
        console: Where the command is shown.

    Raises:
        CommandFailed: It failed.

    """
    text = line(command, words)
    mark = done / f'{command}_{hashlib.sha256(text.encode()).hexdigest()[:12]}.json'
    if mark.exists():
        return
    console.print(text, style='bold', soft_wrap=True, highlight=False)
    if importlib.import_module(f'offline_training.{command}').main(list(words)) != 0:
        msg = f'this failed: {text}'
        raise CommandFailed(msg)
    write_atomically(mark, json.dumps({'command': text}) + '\n')
