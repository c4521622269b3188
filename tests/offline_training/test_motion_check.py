# SPDX-License-Identifier: Apache-2.0
"""The motion check on tiny drives: whole, resumed, and its limits."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from offline_training import motion_check, segmentation_training, train_segmentation
from offline_training.labelled_sweeps import SweepFiles
from offline_training.motion_check import CheckConfig, Limits, compare, run
from offline_training.training_settings import Towns
from tests.tiny_drives import MODEL, drive, settings

QUIET = Console(quiet=True)
CHECK = CheckConfig(seeds=(0,), fit=Towns(50, 4, 1.0, 1), test=Towns(60, 3, 1.0, 1))


def test_a_memory_is_found_to_see_motion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def files(_: object, towns: Towns, *__: object) -> SweepFiles:
        paths = [tmp_path / f'drive_{seed}' for seed in towns.seeds]
        return SweepFiles(
            [path if path.exists() else drive(path, int(path.name[6:])) for path in paths]
        )

    for module in (motion_check, train_segmentation):
        monkeypatch.setattr(module, 'sweep_files', files)
    for module in (motion_check, segmentation_training):
        monkeypatch.setattr(module, 'load_model_config', lambda _: MODEL)
        monkeypatch.setattr(module, 'shared_file', Path)
    monkeypatch.setattr(motion_check, 'ProcessPoolExecutor', lambda *_: ThreadPoolExecutor(1))
    training = settings(
        work=str(tmp_path / 'work'), towns=Towns(0, 8, 1.0, 1), held_out=Towns(70, 1, 1.0, 1)
    )
    report = run(training, CHECK, QUIET)
    one, three = report['rows']
    assert (one['T'], three['T'], one['seed']) == (1, 3, 0)
    # Half of the boxes move, and neither looks nor places tell which.
    assert one['prevalence'] == three['prevalence'] == pytest.approx(0.5, abs=0.05)
    assert one['average_precision'] < 0.65
    assert three['average_precision'] > 0.8
    assert one['position_only'] == three['position_only']
    assert one['range_only'] < 0.65
    assert three['car_iou'] > 0.9
    assert three['person_iou'] is None
    # What is there is not measured again.
    row = next((tmp_path / 'work').glob('motion_*/row_3_0.json'))
    row.write_text(json.dumps({**three, 'average_precision': 0.123}))
    monkeypatch.setattr(motion_check, 'measured', None)
    assert run(training, CHECK, QUIET)['rows'][1]['average_precision'] == 0.123
    assert motion_check._folder(replace(training, epochs=7), CHECK) != row.parent


@pytest.mark.parametrize(('gain', 'kept'), [(0.16, True), (0.14, False)])
def test_limits_hold_for_the_mean_over_the_seeds(gain: float, kept: bool) -> None:
    def row(sweeps: int, seed: int, precision: float, person: float) -> dict[str, Any]:
        return {
            'T': sweeps,
            'seed': seed,
            'average_precision': precision,
            'car_iou': 0.5,
            'person_iou': person,
        }

    rows = [row(1, 0, 0.3, 0.4), row(4, 0, 0.3 + gain - 0.1, 0.2)]
    rows += [row(1, 1, 0.5, 0.4), row(4, 1, 0.5 + gain + 0.1, 0.5)]
    precision, car, person = compare(rows, Limits())
    assert precision['value'] == pytest.approx(gain)
    assert precision['kept'] is kept
    assert (car['value'], car['kept']) == (0, True)
    assert person['value'] == pytest.approx(-0.05)
    assert not person['kept']


def test_a_class_that_is_absent_keeps_no_limit() -> None:
    rows = [
        {'T': sweeps, 'seed': 0, 'average_precision': 0.5, 'car_iou': 0.5, 'person_iou': None}
        for sweeps in (1, 4)
    ]
    person = compare(rows, Limits())[2]
    assert person == {'name': 'person_iou_gain', 'value': None, 'limit': 0.0, 'kept': False}
