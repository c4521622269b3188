# SPDX-License-Identifier: Apache-2.0
"""Damaged settings, clicks and labels: refused by name, or settings that somebody could have meant.

Text for people has no checksum: a digit that became another goes unseen where it stays in range.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from rclpy._rclpy_pybind11 import RCLError
from rclpy.context import Context

from cross4d_jepa_ros.model.config import BadConfig, load_model_config
from cross4d_jepa_ros.sensing.extrinsics import BadExtrinsics, load_extrinsics
from offline_training.label_map import LabelMap, load_label_map
from offline_training.naming.clicks import BadClicks, read_clicks
from offline_training.naming.labelled_images import BadImages, LabelledImage
from offline_training.pretraining.settings import load_pretraining
from offline_training.training_settings import load_training
from tests.damaged.damage import try_damaged

ROOT = Path(__file__).parents[2]
CONFIGS: dict[str, tuple[Callable[[Path], Any], type[Exception]]] = {
    'config/models/nano.yaml': (load_model_config, BadConfig),
    'config/training/demo_sweeps.yaml': (load_training, BadConfig),
    'config/pretraining/3d_jepa.yaml': (load_pretraining, BadConfig),
    'config/label_maps/street.yaml': (load_label_map, BadConfig),
    'tests/extrinsics.yaml': (load_extrinsics, BadExtrinsics),
}


@pytest.mark.parametrize('name', CONFIGS)
def test_settings(tmp_path: Path, name: str) -> None:
    load, refusal = CONFIGS[name]
    path = tmp_path / Path(name).name
    shutil.copy(ROOT / name, path)
    trials = try_damaged(path, lambda: repr(load(path)), refusal, 200, seed=1, may_change=True)
    assert sum(trials.refused.values()) > 0.4 * sum(trials.tried.values())


def test_node_parameters(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """ROS reads these itself: it has to refuse a file by name, and to live through any."""
    path = tmp_path / 'perception.param.yaml'
    shutil.copy(ROOT / 'config' / path.name, path)

    def read() -> None:
        context = Context()
        context.init(['--ros-args', '--params-file', str(path)])
        context.shutdown()

    trials = try_damaged(path, read, RCLError, 100, seed=4)
    assert sum(trials.refused.values()) > 0.2 * sum(trials.tried.values())
    capfd.readouterr()


def test_clicks(tmp_path: Path) -> None:
    path = tmp_path / 'clicks.csv'
    rows = [f'{1_700_000_000_000_000_000 + n},{0.5 * n},-2.25,{n}.0,car' for n in range(6)]
    path.write_text('\n'.join(['stamp_ns,x,y,z,class', *rows]) + '\n')

    def read() -> Any:
        return [(each.line, each.sweep, each.xyz.tolist(), each.name) for each in read_clicks(path)]

    try_damaged(path, read, BadClicks, 200, seed=2, may_change=True)


@pytest.mark.parametrize('part', ['image', 'label'])
def test_labelled_images(tmp_path: Path, part: str) -> None:
    draw = np.random.default_rng(0)
    pair = LabelledImage(tmp_path / 'image.png', tmp_path / 'label.png')
    cv2.imwrite(str(pair.image), draw.integers(0, 255, (24, 32, 3)).astype(np.uint8))
    cv2.imwrite(str(pair.label), draw.integers(0, 3, (24, 32)).astype(np.uint8))
    label_map = LabelMap(('a', 'b', 'c'), ((0, 0, 0),) * 3, {0: 'a', 1: 'b', 2: 'c'})

    def read() -> Any:
        return [values.tobytes() for values in pair.read(label_map)]

    path = pair.image if part == 'image' else pair.label
    assert try_damaged(path, read, BadImages, 150, seed=3).changed == 0
