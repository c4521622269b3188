# SPDX-License-Identifier: Apache-2.0
"""Whoever leaves something behind is found."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch

from tests.leaks import State


@pytest.fixture
def before() -> State:
    return State.now()


@pytest.mark.parametrize('daemon', [True, False])
def test_a_thread_is_found_until_it_ends(before: State, daemon: bool) -> None:
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, name='forgotten', daemon=daemon)
    thread.start()
    try:
        assert before.left(0.0) == ["the thread 'forgotten'"]
        threading.Timer(0.2, stop.set).start()
        assert before.left() == []
    finally:
        stop.set()


def test_a_process_is_found_until_it_is_waited_for(before: State) -> None:
    child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])
    try:
        (found,) = before.left(0.0)
        assert f'the process {child.pid} (' in found
    finally:
        child.kill()
    (found,) = before.left(0.0)
    assert f'the process {child.pid} (' in found
    child.wait()
    assert before.left() == []


def figure(undo: pytest.MonkeyPatch) -> None:
    import matplotlib.pyplot as plt

    plt.figure()


def interrupt(undo: pytest.MonkeyPatch) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


CHANGES: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    '$CROSS4D_FORGOTTEN': lambda undo: undo.setenv('CROSS4D_FORGOTTEN', '1'),
    '$PATH': lambda undo: undo.delenv('PATH'),
    'working directory': lambda undo: undo.chdir('/'),
    'numpy over': lambda undo: undo.setattr(np, 'geterr', lambda: {'over': 'ignore'}),
    'threads of torch': lambda undo: undo.setattr(torch, 'get_num_threads', lambda: 99),
    'type of torch': lambda undo: undo.setattr(torch, 'get_default_dtype', lambda: torch.half),
    'gradients': lambda undo: undo.setattr(torch, 'is_grad_enabled', lambda: False),
    'sys.path': lambda undo: undo.syspath_prepend('/nowhere'),
    'SIGINT': interrupt,
    'figures': figure,
}


@pytest.mark.parametrize('name', CHANGES)
def test_a_changed_setting_is_found(before: State, name: str) -> None:
    handler = signal.getsignal(signal.SIGINT)
    with pytest.MonkeyPatch.context() as undo:
        CHANGES[name](undo)
        found = before.left(0.0)
    signal.signal(signal.SIGINT, handler)
    if 'matplotlib.pyplot' in sys.modules:
        sys.modules['matplotlib.pyplot'].close('all')
    assert any(name in sentence for sentence in found), found
