# SPDX-License-Identifier: Apache-2.0
"""Processes that end with the one that started them."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

END_LIMIT_S = 20.0


@contextmanager
def child_process(command: list[str], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """Run a child until the end of the block.

    Args:
        command: Program and arguments.
        options: Passed on to `subprocess.Popen`.

    """
    child = subprocess.Popen(command, **options)
    try:
        yield child
    finally:
        end_child(child)


def end_child(child: subprocess.Popen[Any]) -> None:
    """Interrupt a child, as Ctrl-C would, and then insist."""
    if child.poll() is None:
        child.send_signal(signal.SIGINT)
    try:
        child.wait(END_LIMIT_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
