# SPDX-License-Identifier: Apache-2.0
"""The folder of a run keeps what the next step needs, and refuses what does not belong to it."""

from __future__ import annotations

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
