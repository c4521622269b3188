# SPDX-License-Identifier: Apache-2.0
"""Commands and writers that are killed, and what is left when they are started again."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from tests.modules import run_module

COMMANDS = ['index', 'cache', 'pretraining', 'segmentation']


@pytest.fixture(scope='module')
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Kill all of them once, at moments that are others each time."""
    seed = str(random.SystemRandom().randrange(1 << 30))
    done = run_module(
        'tests.damaged.killed',
        *(str(tmp_path_factory.mktemp('killed')), seed),
        timeout_s=400,
        OMP_NUM_THREADS='1',
        OPENBLAS_NUM_THREADS='1',
    )
    assert done.returncode == 0, f'seed {seed}: {done.stdout} {done.stderr}'
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found | {'seed': seed}


@pytest.mark.parametrize('name', COMMANDS)
def test_a_killed_command_ends_with_the_same_bytes(report: dict[str, Any], name: str) -> None:
    found = report[name]
    assert (found['code'], found['differ']) == (0, []), f'seed {report["seed"]}: {found["said"]}'
    assert found['files'] > 0
    assert found['kills'] > 0


def test_commands_were_killed_after_files_that_they_wrote(report: dict[str, Any]) -> None:
    # One that is killed first when it has just written its last has no more to be killed after.
    assert sum(report[name]['kills'] for name in COMMANDS) > 2 * len(COMMANDS)


def test_files_of_killed_writers_are_the_old_or_the_new_ones(report: dict[str, Any]) -> None:
    found = report['writers']
    kinds = ['a.safetensors', 'index.parquet', 'state.safetensors', 'sweeps', 'targets', 'text']
    assert found['there'] == kinds
    # Of those that were killed in the midst of writing. Whoever writes the same later removes it;
    # nobody writes a manifest again.
    assert all(name.startswith('.manifest.json.') for name in found['kept'])
