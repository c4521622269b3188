# SPDX-License-Identifier: Apache-2.0
"""What a peak has left is given back, what every sweep needs again is kept."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from cross4d_jepa_ros.retained_memory import RetainedMemory, own_bytes

MB = 1 << 20


@pytest.mark.parametrize(
    ('held_mb', 'given_back'),
    [
        ((300, 310, 305, 320), []),
        ((300, 560, 310), [1]),
        ((300, 560, 550), [1, 2]),
        ((20, 45, 20), []),
        ((1000, 1045, 1060), [2]),
        ((400, 415, 430, 445, 460), [3, 4]),
    ],
    ids=('steady', 'peak', 'peak_that_stays', 'little', 'much_is_held', 'creeping'),
)
def test_only_a_peak_is_given_back(held_mb: tuple[int, ...], given_back: list[int]) -> None:
    left = list(held_mb)
    given: list[int] = []
    retained = RetainedMemory(
        lambda: left.pop(0) * MB, lambda: given.append(len(held_mb) - len(left) - 1)
    )
    for _ in held_mb:
        retained.check()

    assert given == given_back


def test_another_model_has_a_measure_of_its_own() -> None:
    left = [300, 900, 910, 920]
    given: list[int] = []
    retained = RetainedMemory(lambda: left.pop(0) * MB, lambda: given.append(len(left)))
    retained.check()
    retained.forget()
    for _ in range(3):
        retained.check()

    assert given == []


# Holes between blocks that stay: what a large sweep leaves in the heap.
HOLES = """
from cross4d_jepa_ros.compute import keep_freed_memory
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


def test_holes_in_the_heap_go_back_to_the_system() -> None:
    assert own_bytes() > 10 * MB
    done = subprocess.run(
        [sys.executable, '-c', HOLES], capture_output=True, text=True, check=True, env=os.environ
    )
    held, left = map(int, done.stdout.split())

    assert held > 150 * MB
    assert 90 * MB < left < 120 * MB
