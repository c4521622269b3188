# SPDX-License-Identifier: Apache-2.0
"""What one process writes, a second one is kept from, with a sentence."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from cross4d_jepa_ros.files import InUse
from offline_training import index_bags, pretrain
from offline_training.results import __main__ as results_main
from offline_training.street_recordings import record_towns
from offline_training.train_segmentation import sweep_files
from offline_training.training_settings import Towns, load_training
from tests.test_files import hold

CONFIG = Path(__file__).parents[2] / 'config'
QUIET = Console(quiet=True)


def held(path: Path) -> multiprocessing.Process:
    """Have another process hold a lock."""
    context = multiprocessing.get_context('fork')
    there = context.Event()
    process = context.Process(target=hold, args=(path, there))
    process.start()
    assert there.wait(30)
    return process


@pytest.mark.parametrize(
    ('main', 'words', 'lock', 'what'),
    [
        (
            pretrain.main,
            [str(CONFIG / 'pretraining' / '3d_jepa.yaml'), '--index', 'none', '--out', '{}/run'],
            'run/.lock',
            'the run in {}/run',
        ),
        (
            index_bags.main,
            ['{}/bag', '--out', '{}/index.parquet'],
            '.index.parquet.lock',
            '{}/index.parquet',
        ),
        (results_main.main, ['--work', '{}/results'], 'results/.lock', 'the results in {}/results'),
    ],
)
def test_a_second_command_is_refused_and_says_who_has_it(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    main: Callable[[Sequence[str]], int],
    words: list[str],
    lock: str,
    what: str,
) -> None:
    process = held(tmp_path / lock)
    try:
        before = sorted(tmp_path.rglob('*'))
        assert main([word.format(tmp_path) for word in words]) == 2
        assert sorted(tmp_path.rglob('*')) == before
    finally:
        process.kill()
        process.join()
    said = ' '.join(''.join(capfd.readouterr()).split())
    wanted = f'{what.format(tmp_path)} is being written by another process (id {process.pid})'
    assert wanted in said


@pytest.mark.parametrize(('lock', 'what'), [('recordings', 'recordings'), ('sweeps', 'the sweeps')])
def test_towns_are_made_by_one_process(tmp_path: Path, lock: str, what: str) -> None:
    """Each removes what it takes for left by a killed one, and recordings that are read."""
    config = replace(load_training(CONFIG / 'training' / 'demo.yaml'), work=str(tmp_path))
    process = held(tmp_path / lock / '.lock')
    try:
        with pytest.raises(InUse, match=rf'^{what} in {tmp_path}.* \(id {process.pid}\)'):
            if lock == 'recordings':
                record_towns(tmp_path / lock, [1], 0.1, lambda: None)
            else:
                sweep_files(config, Towns(1, 1, 0.1, 1), 60.0, QUIET)
    finally:
        process.kill()
        process.join()
