# SPDX-License-Identifier: Apache-2.0
"""Commands and writers that are killed, and what is left when they are started again."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope='module')
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Kill all of them once, at moments that are others each time."""
    seed = str(random.SystemRandom().randrange(1 << 30))
    command = [sys.executable, '-m', 'tests.damaged.killed', str(tmp_path_factory.mktemp('killed'))]
    environment = os.environ | {'OMP_NUM_THREADS': '1', 'OPENBLAS_NUM_THREADS': '1'}
    done = subprocess.run(
        [*command, seed],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, f'seed {seed}: {done.stdout} {done.stderr}'
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found | {'seed': seed}


@pytest.mark.parametrize('name', ['index', 'cache', 'pretraining', 'segmentation'])
def test_a_killed_command_ends_with_the_same_bytes(report: dict[str, Any], name: str) -> None:
    found = report[name]
    assert (found['code'], found['differ']) == (0, []), f'seed {report["seed"]}: {found["said"]}'
    assert found['files'] > 0
    assert found['kills'] > 0


def test_files_of_killed_writers_are_the_old_or_the_new_ones(report: dict[str, Any]) -> None:
    found = report['writers']
    kinds = ['a.safetensors', 'index.parquet', 'state.safetensors', 'sweeps', 'targets', 'text']
    assert found['there'] == kinds
    # Of those that were killed in the midst of writing. Whoever writes the same later removes it;
    # nobody writes a manifest again.
    assert all(name.startswith('.manifest.json.') for name in found['kept'])
