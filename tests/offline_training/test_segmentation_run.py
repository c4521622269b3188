# SPDX-License-Identifier: Apache-2.0
"""Learning from windows, and answering recordings as a stream does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from offline_training.labelled_sweeps import SweepFiles
from offline_training.segmentation_run import Run, answered, score, sweep_input
from offline_training.training_settings import trained_model
from tests.tiny_drives import MODEL, drive, settings


@pytest.fixture(scope='module')
def drives(tmp_path_factory: pytest.TempPathFactory) -> tuple[SweepFiles, SweepFiles]:
    folder = tmp_path_factory.mktemp('drives')
    return (
        SweepFiles([drive(folder / f'learnt_{seed}', seed) for seed in range(8)]),
        SweepFiles([drive(folder / f'held_out_{seed}', 100 + seed) for seed in range(3)]),
    )


@pytest.mark.parametrize(('memory', 'least', 'most'), [(True, 0.8, 1.0), (False, 0.0, 0.65)])
def test_only_a_memory_sees_motion(
    drives: tuple[SweepFiles, SweepFiles], memory: bool, least: float, most: float
) -> None:
    config = settings(memory=memory)
    run = Run(config, trained_model(config, MODEL), drives[0])
    assert all(np.isfinite(loss) for loss in run.run(run.steps))
    scores, moving_ap = score(run.network, run.motion, drives[1])
    assert moving_ap is not None
    assert least <= moving_ap <= most
    iou = scores.class_iou()['car']
    assert iou is not None and iou > 0.9


@pytest.mark.parametrize(('sweeps', 'windows'), [(1, 48), (3, 16), (4, 16), (6, 8), (20, 8)])
def test_an_epoch_has_as_many_sweeps_as_there_are_in_whole_windows(
    drives: tuple[SweepFiles, SweepFiles],
    sweeps: int,
    windows: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = settings(sweeps=sweeps, memory=sweeps > 1, batch=5)
    run = Run(config, trained_model(config, MODEL), drives[0])
    assert run.steps_per_epoch == -(-windows // 5)
    seen: list[tuple[int, int]] = []

    def window(position: int, count: int) -> list[object]:
        read = SweepFiles.window(drives[0], position, count)
        seen.append((position, len(read)))
        return read[-1:]

    monkeypatch.setattr(drives[0], 'window', window)
    assert len(list(run.run(run.steps_per_epoch))) == run.steps_per_epoch
    assert len(seen) == len(set(seen)) == windows
    assert {length for _, length in seen} == {min(sweeps, 6)}


@pytest.mark.parametrize('at_once', [2, 16])
def test_a_recording_is_answered_as_its_windows_are(
    drives: tuple[SweepFiles, SweepFiles], at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('offline_training.segmentation_run.ANSWERED_AT_ONCE', at_once)
    run = Run(settings(), MODEL, drives[0])
    list(run.run(run.steps_per_epoch))  # else the memory adds nothing yet
    sweeps = drives[1]
    found = list(answered(run.network, sweeps))
    assert [sweep.stamp_ns for sweep, *_ in found] == [
        200_000_000 * number for _ in range(3) for number in range(6)
    ]
    for position in (0, 2, 5, 7, 11):
        window = sweeps.window(position, MODEL.sweeps)
        with torch.inference_mode():
            rows = run.network.forward_window([sweep_input(run.network, s) for s in window])
        sweep, point, embedding = found[position]
        torch.testing.assert_close(embedding, rows[-1][1])
        np.testing.assert_array_equal(sweep.xyz, window[-1].xyz)
        near = np.linalg.norm(sweep.xyz, axis=1) <= MODEL.range_m
        np.testing.assert_array_equal(point, np.flatnonzero(near))


def test_the_motion_head_is_saved_with_the_state(
    drives: tuple[SweepFiles, SweepFiles], tmp_path: Path
) -> None:
    first, second = (Run(settings(), MODEL, drives[0]) for _ in range(2))
    list(first.run(3))
    first.save(tmp_path / 'state')
    second.load(tmp_path / 'state')
    assert first.motion is not None and second.motion is not None
    assert first.motion.weight.abs().sum() > 0
    assert second.done == 3
    for run in (first, second):
        list(run.run(first.steps_per_epoch))
    torch.testing.assert_close(first.motion.weight, second.motion.weight, rtol=0, atol=0)
    assert not any('motion' in name for name in first.network.state_dict())


def test_sweeps_without_a_known_label_teach_nothing(
    drives: tuple[SweepFiles, SweepFiles], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(settings(), MODEL, drives[0])

    def unknown(position: int, count: int) -> list[object]:
        window = SweepFiles.window(drives[0], position, count)
        for sweep in window:
            sweep.label[:] = 255
        return window

    monkeypatch.setattr(drives[0], 'window', unknown)
    assert list(run.run(4)) == [0.0] * 4
