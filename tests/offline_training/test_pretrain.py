# SPDX-License-Identifier: Apache-2.0
"""Bags in, a checkpoint out: the whole command, killed, resumed, shared and refused."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cross4d_jepa_ros.model.checkpoint import load_checkpoint
from cross4d_jepa_ros.pipeline import Output, Pipeline, _warm_up_frame
from offline_training import pretrain, teachers
from offline_training.logs.table import Index
from offline_training.pretraining.run_folder import RunFolder
from offline_training.teachers import lite0
from tests.tiny_logs import indexed, with_targets, write_log

ROOT = Path(__file__).parents[2]
PRESETS = ROOT / 'config' / 'pretraining'
CHANGES = [
    'batch=2',
    'components=8',
    'sweeps=2',
    'save_every=3',
    'objectives.predictor={width: 24, depth: 1, heads: 2}',
    'objectives.dense_correspondence.hidden=16',
    'objectives.dense_correspondence.points_per_view=128',
]


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Index and targets of two drives; some sweeps of the second have no image."""
    folder = tmp_path_factory.mktemp('logs')
    bags = [
        write_log(folder / 'one', 1, 8),
        write_log(folder / 'two', 2, 8, blind=(0, 1, 2, 3, 6)),
    ]
    index = indexed(folder, bags)
    return index, with_targets(folder, index)


def words(preset: str, data: tuple[Path, Path], out: Path, *changes: str) -> list[str]:
    given = [str(PRESETS / f'{preset}.yaml'), '--index', str(data[0]), '--targets', str(data[1])]
    given += ['--out', str(out), '--device', 'cpu']
    for change in [*CHANGES, *changes]:
        given += ['--set', change]
    return given


def losses(out: Path) -> list[float]:
    return [row['loss'] for row in RunFolder(out, {}).rows()]


@pytest.mark.parametrize(
    'preset', ['3d_jepa', 'crossjepa', 'crossjepa_described', 'cross4d_jepa_described', 'combined']
)
def test_every_objective_gives_a_checkpoint_that_the_node_runs(
    preset: str, data: tuple[Path, Path], tmp_path: Path
) -> None:
    horizon = ['objectives.dense_correspondence.horizon=1'] if 'cross4d' in preset else []
    assert pretrain.main(words(preset, data, tmp_path / 'run', 'epochs=1', *horizon)) == 0
    curve = losses(tmp_path / 'run')
    # Without masked latents, four windows have nothing to learn from.
    assert len(curve) == (6 if preset == 'crossjepa' else 8) and all(np.isfinite(curve))
    loaded = load_checkpoint(tmp_path / 'run' / 'model.safetensors')
    assert loaded.contract.training['kind'] == 'pretrained'
    learns_teacher = 'cross4d' in preset or preset == 'combined'
    assert (loaded.contract.teacher is not None) == learns_teacher
    pipeline = Pipeline(tmp_path / 'run' / 'model.safetensors', device='cpu')
    answer = pipeline.step(_warm_up_frame(20.0, 0), Output.ALL)
    assert answer.class_id is None
    assert answer.token_embedding is not None and len(answer.token_embedding)
    assert answer.embedding_rgb is not None and answer.embedding_rgb.std() > 1


def test_a_run_in_half_precision_learns_without_a_teacher_and_is_logged(
    data: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_teacher(*_: object, **__: object) -> None:
        raise AssertionError('a step asks for cached targets only')

    monkeypatch.setattr(teachers, 'load_teacher', no_teacher)
    monkeypatch.setattr(lite0.Lite0, 'forward', no_teacher)
    given = words('combined', data, tmp_path, 'epochs=4', 'precision=bf16', 'learning_rate=0.003')
    assert pretrain.main(given) == 0
    curve = losses(tmp_path)
    assert np.mean(curve[-5:]) < 0.9 * np.mean(curve[:5])
    report = json.loads((tmp_path / 'report.json').read_text())
    assert report['steps'] == len(curve) == 32
    assert report['effective_rank'] > 1 and report['target_std'] > 0
    events = EventAccumulator(str(tmp_path / 'tensorboard'))
    events.Reload()
    logged = [event.value for event in events.Scalars('loss')]
    np.testing.assert_allclose(logged, curve, rtol=1e-5)
    network = load_checkpoint(tmp_path / 'model.safetensors').network
    assert all(value.dtype == torch.float32 for value in network.parameters())


def test_two_processes_follow_one(data: tuple[Path, Path], tmp_path: Path) -> None:
    one, two = tmp_path / 'one', tmp_path / 'two'
    changes = ['epochs=3', 'precision=fp32']
    environment = os.environ | {'OMP_NUM_THREADS': '1'}
    single = [sys.executable, '-m', 'offline_training.pretrain']
    shared = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node']
    shared += ['2', '-m', 'offline_training.pretrain']
    for start, out in ((single, one), (shared, two)):
        command = [*start, *words('combined', data, out, *changes)]
        subprocess.run(command, cwd=ROOT, check=True, env=environment, timeout=300)
    ours, theirs = losses(one)[:20], losses(two)[:20]
    assert len(ours) == len(theirs) == 20
    np.testing.assert_allclose(theirs, ours, rtol=1e-4)
    shots = [shot for row in Index.load(data[0]).rows for shot in row.shots]
    assert None in shots and any(shots)


def test_a_run_is_not_overwritten_and_needs_the_same_settings(
    data: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert pretrain.main(words('3d_jepa', data, tmp_path, 'epochs=1')) == 0
    assert pretrain.main(words('3d_jepa', data, tmp_path, 'epochs=1')) == 2
    assert '--resume' in capfd.readouterr().err
    assert pretrain.main([*words('3d_jepa', data, tmp_path, 'epochs=2'), '--resume']) == 2
    assert 'epochs 1, not 2' in capfd.readouterr().err.replace('\n', ' ')


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_what_was_saved(
    data: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    original = pretrain.Run.step

    def poisoned(run: pretrain.Run, number: int, *rest: object) -> dict[str, float]:
        if number == 5:
            with torch.no_grad():
                next(run.network.parameters()).fill_(torch.nan)
        return original(run, number, *rest)

    monkeypatch.setattr(pretrain.Run, 'step', poisoned)
    assert pretrain.main(words('cross4d_jepa', data, tmp_path, 'epochs=1')) == 2
    assert 'the loss of step 5 is nan' in capfd.readouterr().err
    resumed = RunFolder(tmp_path, {}).path / 'state.safetensors'
    monkeypatch.undo()
    assert resumed.exists()
    assert pretrain.main([*words('cross4d_jepa', data, tmp_path, 'epochs=1'), '--resume']) == 0
    assert all(np.isfinite(losses(tmp_path)))


def test_a_full_disk_ends_the_run_and_leaves_a_state_to_go_on_from(
    data: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    saved = 0
    original = os.fsync

    def full(handle: int) -> None:
        nonlocal saved
        if '.state.safetensors' in str(Path(f'/proc/self/fd/{handle}').readlink()):
            saved += 1
            if saved == 2:
                raise OSError(errno.ENOSPC, 'No space left on device')
        original(handle)

    monkeypatch.setattr(os, 'fsync', full)
    assert pretrain.main(words('3d_jepa', data, tmp_path / 'run', 'epochs=1')) == 2
    said = capfd.readouterr().err
    assert 'No space left' in said and 'run/state.safetensors' in said
    monkeypatch.undo()
    resumed = [*words('3d_jepa', data, tmp_path / 'run', 'epochs=1'), '--resume']
    assert pretrain.main(resumed) == 0
    assert 'goes on after step 3' in capfd.readouterr().out
    assert len(losses(tmp_path / 'run')) == 8


@pytest.mark.parametrize(
    ('preset', 'targets', 'named'),
    [
        ('cross4d_jepa', False, 'give the folder of cache_targets'),
        ('cross4d_jepa_render', True, 'render'),
    ],
)
def test_missing_or_other_targets_are_named(
    preset: str,
    targets: bool,
    named: str,
    data: tuple[Path, Path],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    given = words(preset, data, tmp_path)
    if not targets:
        place = given.index('--targets')
        del given[place : place + 2]
    assert pretrain.main(given) == 2
    assert named in capfd.readouterr().err


def test_a_log_without_images_teaches_masked_latents_only(
    data: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    index = indexed(tmp_path, [write_log(tmp_path / 'blind', 3, 5, blind=range(5))], images=())
    given = words('3d_jepa', (index, data[1]), tmp_path / 'masked', 'epochs=1')
    assert pretrain.main(given) == 0
    assert len(losses(tmp_path / 'masked')) == 3
    assert pretrain.main(words('combined', (index, data[1]), tmp_path / 'all')) == 2
    assert 'no sweep of the index has an image' in capfd.readouterr().err


def test_a_log_that_changes_under_a_run_is_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bag = write_log(tmp_path / 'gone', 4, 4, blind=range(4))
    index = indexed(tmp_path, [bag], images=())
    shutil.rmtree(bag)
    assert pretrain.main(words('3d_jepa', (index, tmp_path), tmp_path / 'run')) == 2
    said = capfd.readouterr().err
    assert 'gone is not as it was when it was indexed' in said and 'Traceback' not in said
