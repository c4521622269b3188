# SPDX-License-Identifier: Apache-2.0
"""A DDS domain for each test, locked against other runs on the machine; nothing is left behind."""

from __future__ import annotations

import fcntl
import os
import random
import signal
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

from cross4d_jepa_ros.ros.transport import use_large_message_profile

os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
# Removed when the interpreter ends.
_folders = [tempfile.TemporaryDirectory(prefix=prefix) for prefix in ('ros_log_', 'ros_home_')]
os.environ.setdefault('ROS_LOG_DIR', _folders[0].name)
# What the user of this machine has taught is none of the tests' business.
os.environ['ROS_HOME'] = _folders[1].name
use_large_message_profile()
# A shell starts what it puts behind `&` with Ctrl-C ignored, and what the tests start inherits it.
signal.signal(signal.SIGINT, signal.default_int_handler)
# The same examples every time, however slow the machine: a failure is one of the code.
settings.register_profile(
    'project',
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile('project')

from tests.bench import Bench  # noqa: E402 - Fast DDS reads the profile when rclpy loads
from tests.leaks import State  # noqa: E402
from tests.tries import TRIED  # noqa: E402

_lent = count()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand over what this process has tried, where another one sums up."""
    if hasattr(session.config, 'workeroutput'):
        session.config.workeroutput['tried'] = dict(TRIED)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Add what a process has tried."""
    TRIED.update(getattr(node, 'workeroutput', {}).get('tried', {}))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say how many malformed messages were tried."""
    if TRIED:
        each = ', '.join(f'{kind} {count}' for kind, count in sorted(TRIED.items()))
        terminalreporter.write_line(f'{TRIED.total()} malformed messages tried: {each}')


@pytest.fixture(autouse=True, scope='module')
def nothing_is_left_by_a_module() -> Iterator[None]:
    """Fail where the fixtures of a module leave threads, processes or changed settings."""
    before = State.now()
    yield
    before.undo()
    assert before.left() == [], 'was left behind by this module'


@pytest.fixture(autouse=True)
def nothing_is_left_by_a_test() -> Iterator[None]:
    """Start every test with the same random numbers; fail where it leaves something behind.

    What its module has set up is there before, and stays.
    """
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    before = State.now()
    yield
    before.undo()
    assert before.left() == [], 'was left behind by this test'


@pytest.fixture
def ros_domain() -> Iterator[int]:
    """Lend a domain id that no other test on this machine uses, nor the test before did.

    What that test has left behind may take a while to go.
    """
    start = os.getpid() + next(_lent)
    for step in range(90):
        domain = 10 + (start + step) % 90
        with (Path(tempfile.gettempdir()) / f'ros_domain_{domain}.lock').open('w') as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            yield domain
            return
    pytest.fail('no free DDS domain')


@pytest.fixture
def bench(ros_domain: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """Lend a bench and clear it away. Its nodes warm up on a few points; processes do on all."""
    monkeypatch.setattr('cross4d_jepa_ros.pipeline.WARM_UP_POINTS', 1000)
    lent = Bench(ros_domain)
    try:
        yield lent
    finally:
        lent.close()
