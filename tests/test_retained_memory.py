# SPDX-License-Identifier: Apache-2.0
"""What a peak has left is given back, what every sweep needs again is kept."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from cross4d_jepa_ros.retained_memory import RetainedMemory, own_bytes

MB = 1 << 20


def looks(*held_mb: int) -> list[int]:
    """Tell at which look it is given back."""
    left, given = list(held_mb), []
    retained = RetainedMemory(lambda: left[0] * MB, lambda: given.append(len(held_mb) - len(left)))
    while left:
        retained.check()
        left.pop(0)
    return given


@pytest.mark.parametrize(
    ('held_mb', 'given_back'),
    [
        ((300, 310, 305, 330), [0]),
        ((300, 560, 310), [0, 1]),
        ((300, 310, 305, 560, 560, 310), [0, 3, 4]),
        ((560, 310, 560, 310), [0, 2]),
        ((300, 100, 300, 310, 300, 305, 300, 300), [0, 2, 3]),
        ((300, *(300 + i for i in range(24))), [0, 12, 24]),
        ((*[300] * 8, *[900] * 30), [0, *range(8, 32)]),
    ],
    ids=('steady', 'peak', 'peak_that_stays', 'peak_at_first', 'pause', 'creeping', 'larger_model'),
)
def test_what_is_more_than_usual_is_given_back(
    held_mb: tuple[int, ...], given_back: list[int]
) -> None:
    assert looks(*held_mb) == given_back


# Holes between blocks that stay: what a large sweep leaves in the heap.
HOLES = """
from cross4d_jepa_ros.heap import keep_freed_memory
from cross4d_jepa_ros.retained_memory import RetainedMemory, own_bytes
import numpy as np
keep_freed_memory()
retained = RetainedMemory()
retained.check()
before = own_bytes()
blocks = [np.ones(1 << 20, np.uint8) for _ in range(200)]
kept, blocks = blocks[::2], None
held = own_bytes()
retained.check()
print(held - before, own_bytes() - before)
"""


# What threads free lies at the end of their heaps.
THREADS = """
import threading
import cross4d_jepa_ros.perception_node
from cross4d_jepa_ros.compute import give_back_memory
from cross4d_jepa_ros.heap import keep_freed_memory
from cross4d_jepa_ros.retained_memory import own_bytes
import numpy as np
keep_freed_memory()
give_back_memory()
before = own_bytes()
freed, over = threading.Barrier(5), threading.Event()
def work():
    blocks = [np.ones(1 << 16, np.uint8) for _ in range(600)]
    del blocks
    freed.wait()
    over.wait()
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads: thread.start()
freed.wait()
give_back_memory()
print(own_bytes() - before)
over.set()
for thread in threads: thread.join()
"""


def test_what_threads_held_goes_back() -> None:
    done = subprocess.run(
        [sys.executable, '-c', THREADS], capture_output=True, text=True, check=True, env=os.environ
    )

    assert int(done.stdout) < 20 * MB


def test_holes_in_the_heap_go_back_to_the_system() -> None:
    assert own_bytes() > 10 * MB
    done = subprocess.run(
        [sys.executable, '-c', HOLES], capture_output=True, text=True, check=True, env=os.environ
    )
    held, left = map(int, done.stdout.split())

    assert held > 150 * MB
    assert 90 * MB < left < 120 * MB
