# SPDX-License-Identifier: Apache-2.0
"""Commands that are run once, however often the results are made."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from cross4d_jepa_ros.files import write_atomically
from offline_training.shown_commands import command_line, run_shown


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
    module = f'offline_training.{command}'
    text = command_line(module, words)
    mark = done / f'{command}_{hashlib.sha256(text.encode()).hexdigest()[:12]}.json'
    if mark.exists():
        return
    run_shown(importlib.import_module(module), words, console)
    write_atomically(mark, json.dumps({'command': text}) + '\n')
