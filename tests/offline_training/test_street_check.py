# SPDX-License-Identifier: Apache-2.0
"""What the rows of the street check see, how they are scored and when the check fails."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor

from cross4d_jepa_ros.bag_frames import BagFrame
from cross4d_jepa_ros.sensing.cameras import CameraModel
from cross4d_jepa_ros.sensing.frames import BODY_FROM_OPTICAL, CameraView, SensorFrame
from cross4d_jepa_ros.sensing.point_clouds import Sweep
from cross4d_jepa_ros.sensing.poses import invert
from offline_training import street_check, street_recordings
from offline_training.probes import LINEAR_PROBE
from offline_training.street.classes import BUILDING, CAR, CLASS_NAMES, PERSON, ROAD
from offline_training.street_check import (
    GEOMETRY,
    LITE0,
    LITE0_RANDOM,
    RGB,
    CheckConfig,
    Limits,
    Samples,
    compare,
    gather,
    samples_of,
    score_row,
    visible_pixels,
)
from tests.tiny_street import write_tiny_street

WIDTH, HEIGHT = 64, 32
UNLABELLED = 255
CONFIG = CheckConfig(points_per_sweep=40, points_per_image=15)


def view() -> CameraView:
    """A camera at the base frame's origin that looks along x; pixels tell row and column."""
    row, column = np.mgrid[:HEIGHT, :WIDTH]
    return CameraView(
        camera_index=0,
        image=np.stack((row, column, 0 * row), -1).astype(np.uint8),
        stamp_ns=0,
        camera=CameraModel(WIDTH, HEIGHT, fx=32, fy=32, cx=31.5, cy=15.5),
        camera_from_base=invert(BODY_FROM_OPTICAL),
    )


def swept(xyz: NDArray[np.float32], class_id: NDArray[np.uint8]) -> BagFrame:
    """Make a sweep whose message has its points the other way round, after an unusable one."""
    count = len(xyz)
    sweep = Sweep(
        stamp_ns=0,
        frame_id='lidar',
        height=1,
        width=count + 1,
        xyz=xyz,
        intensity=np.linspace(0, 1, count, dtype=np.float32),
        ring=None,
        time_offset_ns=None,
        index=np.arange(count, 0, -1),
    )
    raised = xyz + np.array((0, 0, 2), np.float32)
    frame = SensorFrame(0, sweep, raised, np.eye(4), None, (view(), view()))
    return BagFrame(
        frame, None, {'class_id': np.append(class_id, np.uint8(ROAD))[::-1]}, {}, 'none'
    )


def scattered() -> BagFrame:
    """Make a sweep of 100 points ahead, low ones of one class and high ones of another."""
    random = np.random.default_rng(0)
    xyz = random.uniform((4, -3, -3), (9, 3, -1), (100, 3)).astype(np.float32)
    class_id = np.where(xyz[:, 2] > -2, CAR, ROAD).astype(np.uint8)
    class_id[::10] = UNLABELLED
    return swept(xyz, class_id)


def where(image: Tensor) -> Tensor:
    """Stand in for a network: the row and column of each cell."""
    grid = torch.meshgrid(torch.arange(HEIGHT / 16), torch.arange(WIDTH / 16), indexing='ij')
    return torch.stack(grid)[None]


NETWORKS = {LITE0.name: where, LITE0_RANDOM.name: where}


def test_points_behind_others_or_outside_the_image_are_not_seen() -> None:
    xyz = [[5, 0, 0], [9, 0.02, 0], [5.1, 0, 0.05], [9, 3, 0], [-5, 0, 0], [5, 20, 0]]
    uv, seen = visible_pixels(view(), np.array(xyz, np.float32))
    assert seen.tolist() == [True, False, True, True, False, False]
    np.testing.assert_allclose(uv[3], (31.5 - 32 / 3, 15.5), rtol=1e-6)


def test_each_row_sees_what_it_says() -> None:
    frame = scattered()
    found = list(samples_of(frame, NETWORKS, CONFIG, np.random.default_rng(0)))
    image_rows = [RGB.name, LITE0.name, LITE0_RANDOM.name]
    assert [name for name, _ in found] == [GEOMETRY.name, *image_rows, *image_rows]
    geometry, rgb, lite0 = (samples for _, samples in found[:3])

    assert geometry.features.shape == (40, 3)
    height, reach, intensity = geometry.features.T
    np.testing.assert_array_equal(geometry.truth, np.where(height > 0, CAR, ROAD))
    point = np.rint(intensity * 99).astype(int)
    xyz = frame.frame.sweep.xyz[point]
    np.testing.assert_allclose(height, xyz[:, 2] + 2, rtol=1e-6)
    np.testing.assert_allclose(reach, np.linalg.norm(xyz, axis=1), rtol=1e-6)
    assert len(set(point)) == 40

    assert rgb.features.shape == (15, 3)
    # The horizon is in the middle row, and height 0 with it.
    np.testing.assert_array_equal(rgb.truth, np.where(rgb.features[:, 0] < 15.6, CAR, ROAD))
    assert rgb.truth is lite0.truth
    cells = (rgb.features[:, :2] - 7.5) / 16
    np.testing.assert_allclose(lite0.features, cells.clip(0, (1, 3)), atol=0.6 / 16)
    assert lite0.features.dtype == np.float16


def test_no_town_is_fitted_and_tested_on() -> None:
    with pytest.raises(ValueError, match='town 600 is fitted and tested on'):
        CheckConfig(fit_seeds=(5, 600))


def test_towns_without_labels_are_refused() -> None:
    frames = [replace(scattered(), truth=None)] * 2
    with pytest.raises(ValueError, match='no labelled points'):
        gather(iter(frames), NETWORKS, CONFIG, seed=0)


def test_samples_of_all_sweeps_come_together() -> None:
    samples = gather(iter([scattered(), scattered()]), NETWORKS, CONFIG, seed=0)
    assert {name: part.features.shape for name, part in samples.items()} == {
        GEOMETRY.name: (80, 3),
        RGB.name: (60, 3),
        LITE0.name: (60, 2),
        LITE0_RANDOM.name: (60, 2),
    }
    again = gather(iter([scattered(), scattered()]), NETWORKS, CONFIG, seed=0)
    np.testing.assert_array_equal(samples[RGB.name].features, again[RGB.name].features)


def test_a_row_is_scored_once_for_each_seed_over_the_classes_that_are_there() -> None:
    random = np.random.default_rng(0)
    truth = random.choice((ROAD, BUILDING, PERSON), 1000).astype(np.uint8)
    features = (np.eye(len(CLASS_NAMES))[truth] + random.normal(0, 0.05, (1000, 7))).astype('f4')
    samples = Samples(features, truth)
    told: list[int] = []
    row = replace(LITE0, probe=replace(LINEAR_PROBE, epochs=4, batch=64, learning_rate=5e-2))
    scored = score_row(row, samples, samples, (0, 1, 2), lambda: told.append(1))
    assert scored['miou_seeds'] == pytest.approx([1, 1, 1])
    assert scored['miou'] == pytest.approx(1)
    present = {name for name, iou in scored['class_iou'].items() if iou is not None}
    assert present == {'road', 'building', 'person'}
    assert len(told) == 3 * 4
    wrong = Samples(features, np.full(1000, CAR, np.uint8))
    assert score_row(row, samples, wrong, (0,), lambda: None)['class_iou']['car'] == 0


@pytest.mark.parametrize(
    ('changed', 'broken'),
    [
        ({}, []),
        ({GEOMETRY.name: 0.41}, ['geometry_at_most']),
        ({RGB.name: 0.31}, ['rgb_at_most']),
        ({LITE0.name: 0.44, LITE0_RANDOM.name: 0.2}, ['lite0_at_least']),
        ({LITE0_RANDOM.name: 0.38}, ['lite0_over_random_at_least']),
    ],
)
def test_every_limit_can_be_broken(changed: dict[str, float], broken: list[str]) -> None:
    miou = {GEOMETRY.name: 0.40, RGB.name: 0.30, LITE0.name: 0.45, LITE0_RANDOM.name: 0.30}
    found = compare(miou | changed, Limits())
    assert [limit['name'] for limit in found if not limit['kept']] == broken


def report(random: float) -> dict[str, Any]:
    """Make up a report that depends on the row of random weights."""
    miou = {GEOMETRY.name: 0.3, RGB.name: 0.2, LITE0.name: 0.6, LITE0_RANDOM.name: random}
    ious = dict.fromkeys(CLASS_NAMES, 0.25) | {'person': None}
    rows = [
        {'name': name, 'inputs': '', 'miou': mean, 'miou_seeds': [mean, mean], 'class_iou': ious}
        for name, mean in miou.items()
    ]
    limits = compare(miou, Limits())
    return {'rows': rows, 'limits': limits, 'passed': all(limit['kept'] for limit in limits)}


@pytest.mark.parametrize(('random', 'code'), [(0.4, 0), (0.55, 1)])
def test_the_command_fails_with_the_check(
    random: float,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(street_check, 'run', lambda config, work, console: report(random))
    out = tmp_path / 'report.json'
    assert street_check.main(['--out', str(out)]) == code
    written = json.loads(out.read_text())
    assert written['passed'] is (code == 0)
    assert written['command'].endswith(f'street_check --out {out}')
    assert 'geometry_mlp' in capsys.readouterr().out


def test_the_whole_check_on_tiny_streets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Intensity, which is the same everywhere, and a grey image tell nothing; height does."""
    monkeypatch.setattr(street_recordings, 'write_street_bag', write_tiny_street)
    monkeypatch.setattr(
        street_recordings, 'ProcessPoolExecutor', lambda count, *_, **__: ThreadPoolExecutor(count)
    )

    def cells(_: Tensor) -> Tensor:
        return torch.zeros(1, 2, 1, 1)

    networks = SimpleNamespace(pretrained=lambda: cells, random=lambda seed: cells)
    monkeypatch.setattr(street_check, 'Lite0', networks)
    config = CheckConfig((1, 2), (3,), seconds=0.2, sweep_stride=1, probe_seeds=(0,))
    report = street_check.run(config, tmp_path, Console(quiet=True))
    rows = {row['name']: row for row in report['rows']}
    assert set(rows) == {GEOMETRY.name, RGB.name, LITE0.name, LITE0_RANDOM.name}
    assert rows[GEOMETRY.name]['fit_points'] == 2 * 2 * 920
    assert rows[GEOMETRY.name]['test_points'] == 2 * 920
    assert rows[GEOMETRY.name]['miou'] > 0.5 > rows[LITE0.name]['miou']
    assert rows[LITE0.name]['class_iou']['car'] is None
    assert report['towns']['test_seeds'] == (3,)
    assert not report['passed']
