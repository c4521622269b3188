# SPDX-License-Identifier: Apache-2.0
"""The folder of a run keeps what the next step needs, and refuses what does not belong to it."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from offline_training.pretraining.run_folder import Log, RunFolder, UnfitRun

SETTINGS = {'seed': 0, 'objectives': {'ema': {'start': 0.9}}, 'data': {'index_sha256': 'aa'}}


def test_state_comes_back(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / 'run', SETTINGS)
    folder.begin()
    assert folder.resumed() is None
    folder.save(7, {'a': torch.arange(3), 'b': torch.tensor(0.1)})
    resumed = RunFolder(tmp_path / 'run', SETTINGS).resumed()
    assert resumed is not None
    steps, tensors = resumed
    assert steps == 7
    assert torch.equal(tensors['a'], torch.arange(3))
    assert tensors['b'] == torch.tensor(0.1)


@pytest.mark.parametrize(
    ('changed', 'named'),
    [
        (SETTINGS | {'seed': 1}, 'seed 0, not 1'),
        (SETTINGS | {'objectives': {'ema': {'start': 0.5}}}, 'objectives.ema.start 0.9, not 0.5'),
        (SETTINGS | {'data': {'index_sha256': 'bb'}}, "data.index_sha256 'aa', not 'bb'"),
        (SETTINGS | {'batch': 3}, 'batch None, not 3'),
    ],
)
def test_other_settings_are_refused(tmp_path: Path, changed: dict[str, object], named: str) -> None:
    folder = RunFolder(tmp_path, SETTINGS)
    folder.save(1, {'a': torch.zeros(1)})
    with pytest.raises(UnfitRun, match=named):
        RunFolder(tmp_path, changed).resumed()


def test_a_run_is_not_overwritten(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, SETTINGS)
    folder.save(1, {'a': torch.zeros(1)})
    with pytest.raises(UnfitRun, match='--resume'):
        folder.begin()


@pytest.mark.parametrize('size', [0, 5, 60])
def test_a_damaged_state_is_refused(tmp_path: Path, size: int) -> None:
    RunFolder(tmp_path, SETTINGS).save(1, {'a': torch.zeros(100)})
    state = tmp_path / 'state.safetensors'
    state.write_bytes(state.read_bytes()[:size])
    with pytest.raises(UnfitRun, match=r'state\.safetensors is damaged'):
        RunFolder(tmp_path, SETTINGS).resumed()


def logged(folder: RunFolder, steps: int) -> None:
    log = Log(folder.log, ['step', 'loss'])
    for step in range(steps):
        log.add({'step': step, 'loss': 0.1 * step})
    log.close()


@pytest.mark.parametrize(
    ('damage', 'lost'),
    [
        (lambda lines: lines[:-1], 12),
        (lambda lines: [*lines[:-1], lines[-1][:1]], 12),  # '1' of '12,...'
        (lambda lines: [*lines[:4], *lines[5:]], 3),
        (lambda lines: [], 0),
    ],
)
def test_a_log_that_lost_rows_is_refused(
    tmp_path: Path, damage: Callable[[list[str]], list[str]], lost: int
) -> None:
    """A full disk or a power cut may take them; the report would tell of another run."""
    folder = RunFolder(tmp_path, SETTINGS)
    folder.begin()
    logged(folder, 13)
    folder.log.write_text(''.join(damage(folder.log.read_text().splitlines(keepends=True))))
    with pytest.raises(UnfitRun, match=rf'log\.csv has lost the row of step {lost}: put it back'):
        folder.cut_log(13)
    folder.cut_log(min(3, lost))


def test_what_the_disk_refuses_names_the_log(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, SETTINGS)
    folder.begin()
    log = Log(folder.log, ['step', 'loss'])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The system itself refuses to write more; Python ignores the signal.
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(OSError, match=r'log\.csv'):
            for step in range(100):
                log.add({'step': step, 'loss': 0.5})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        with contextlib.suppress(OSError):
            log.close()
    # The last row is cut in two; those that a state was saved after are whole.
    folder.cut_log(5)
    assert [row['step'] for row in folder.rows()] == [0, 1, 2, 3, 4]


def test_a_damaged_log_is_named(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, SETTINGS)
    folder.begin()
    logged(folder, 2)
    folder.log.write_text(folder.log.read_text().replace('0.1', '0.x'))
    with pytest.raises(UnfitRun, match=r'log\.csv is damaged .*0\.x'):
        folder.rows()


def test_the_log_is_cut_where_the_state_was_saved(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, SETTINGS)
    folder.begin()
    log = Log(folder.log, ['step', 'loss', 'rest'])
    for step in range(5):
        log.add({'step': step, 'loss': 0.1 * step})
    log.close()
    folder.cut_log(3)
    log = Log(folder.log, ['step', 'loss', 'rest'])
    log.add({'step': 3, 'loss': 7.0, 'rest': 1.0})
    log.close()
    rows = folder.rows()
    assert [row['step'] for row in rows] == [0, 1, 2, 3]
    assert [row['loss'] for row in rows] == [0.0, 0.1, 0.2, 7.0]
    assert 'rest' not in rows[0] and rows[3]['rest'] == 1.0
