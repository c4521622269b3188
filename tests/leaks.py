# SPDX-License-Identifier: Apache-2.0
"""What a test may leave behind: nothing that the next one could notice."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

# How long what was told to end may take to do so.
GRACE_S = 2.0
# Set by pytest in each phase of a test, and by PyTorch when a part of it is imported.
_PASSED_OVER = {'PYTEST_CURRENT_TEST', 'TORCHINDUCTOR_CACHE_DIR'}
# Of Python and of tqdm: started once, for the process.
_PERMANENT = b'multiprocessing.resource_tracker'
_PERMANENT_THREAD = 'tqdm_monitor'


@dataclass(frozen=True)
class State:
    """What one process holds: threads and children by what they are, settings by their names."""

    threads: frozenset[threading.Thread]
    children: frozenset[int]
    settings: dict[str, Any]

    @staticmethod
    def now() -> State:
        """Look at this process."""
        return State(frozenset(threading.enumerate()), frozenset(_children()), _settings())

    def undo(self) -> None:
        """Take back what nodes and commands set for a process of their own, on purpose."""
        torch.set_num_threads(self.settings['threads of torch'])

    def left(self, grace_s: float = GRACE_S) -> list[str]:
        """Say what there is now that was not there then, and which settings have changed."""
        end = time.monotonic() + grace_s
        found = self._lasting()
        while found and time.monotonic() < end:
            time.sleep(0.02)
            found = self._lasting()
        after = _settings()
        for name in sorted(self.settings.keys() | after.keys()):
            before, now = self.settings.get(name), after.get(name)
            if before != now:
                found.append(f'{name} was {before!r} and is {now!r}')
        return found

    def _lasting(self) -> list[str]:
        fresh = set(threading.enumerate()) - self.threads
        threads = [f'the thread {one.name!r}' for one in fresh if one.name != _PERMANENT_THREAD]
        children = [pid for pid in _children() if pid not in self.children]
        return sorted(threads) + [f'the process {pid} ({_command(pid)})' for pid in children]


def _children() -> list[int]:
    """List the processes that this one has started and not waited for."""
    found: list[int] = []
    for task in Path('/proc/self/task').iterdir():
        try:
            found += map(int, (task / 'children').read_text().split())
        except OSError:  # it has ended
            continue
    return [pid for pid in found if _PERMANENT not in _words(pid)]


def _words(pid: int) -> bytes:
    try:
        return Path(f'/proc/{pid}/cmdline').read_bytes()
    except OSError:
        return b''


def _command(pid: int) -> str:
    return (
        _words(pid).replace(b'\0', b' ').decode(errors='replace')[:200] or 'ended, not waited for'
    )


def _settings() -> dict[str, Any]:
    settings: dict[str, Any] = {f'${k}': v for k, v in os.environ.items() if k not in _PASSED_OVER}
    settings |= {f'numpy {name}': value for name, value in np.geterr().items()}
    settings |= {
        'the working directory': str(Path.cwd()),
        'SIGINT': signal.getsignal(signal.SIGINT),
        'SIGTERM': signal.getsignal(signal.SIGTERM),
        'sys.path': tuple(sys.path),
        'threads of torch': torch.get_num_threads(),
        'type of torch': torch.get_default_dtype(),
        'gradients of torch': torch.is_grad_enabled(),
        'deterministic torch': torch.are_deterministic_algorithms_enabled(),
        'precision of torch': torch.get_float32_matmul_precision(),
    }
    pyplot = sys.modules.get('matplotlib.pyplot')
    return settings | {'figures': pyplot.get_fignums() if pyplot else []}
