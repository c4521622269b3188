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
        ((300, 310, 305, 330), [0]),
        ((300, 560, 310), [0, 1]),
        ((560, 560, 560), [0, 1, 2]),
        ((300, 310, 320, 331, 345), [0, 4]),
    ],
    ids=('steady', 'peak', 'peak_at_first', 'creeping'),
)
def test_what_is_worth_it_is_given_back(held_mb: tuple[int, ...], given_back: list[int]) -> None:
    held, given = list(held_mb), []

    def give_back() -> None:
        given.append(len(held_mb) - len(held))
        held[0] = 300

    retained = RetainedMemory(lambda: held[0] * MB, give_back)
    while held:
        retained.check()
        held.pop(0)

    assert given == given_back


def test_another_model_has_a_measure_of_its_own() -> None:
    held_mb, given = 900, 0

    def give_back() -> None:
        nonlocal given
        given += 1

    retained = RetainedMemory(lambda: held_mb * MB, give_back)
    retained.check()
    held_mb = 300
    retained.check()
    assert given == 1
    retained.forget()
    retained.check()
    held_mb = 400
    retained.check()

    assert given == 3


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
