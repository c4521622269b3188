# SPDX-License-Identifier: Apache-2.0
"""The shipped checkpoint is what its YAML describes, and knows a street when it sees one."""

from __future__ import annotations

from pathlib import Path

import pytest

from cross4d_jepa_ros.model.checkpoint import load_checkpoint
from cross4d_jepa_ros.model.config import load_model_config
from cross4d_jepa_ros.pipeline import Output, Pipeline
from cross4d_jepa_ros.segmentation_scores import SegmentationScores
from offline_training.labelled_sweeps import labelled_frames
from offline_training.make_street_bag import VERSION, write_street_bag
from offline_training.street.classes import CLASS_NAMES, PALETTE
from offline_training.training_settings import load_training

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / 'config' / 'demo.safetensors'
SETTINGS = ROOT / 'config' / 'training' / 'demo.yaml'
UNSEEN_TOWN = 41


def test_the_shipped_file_is_what_its_settings_describe() -> None:
    contract = load_checkpoint(SHIPPED).contract
    settings = load_training(SETTINGS)
    assert SHIPPED.stat().st_size < 8_000_000
    assert contract.model == load_model_config(ROOT / 'config' / 'models' / settings.model)
    assert (contract.class_names, contract.palette) == (CLASS_NAMES, tuple(PALETTE.values()))
    training = contract.training
    assert training['kind'] == 'fine_tuned'
    assert (training['seed'], training['epochs']) == (settings.seed, settings.epochs)
    seeds = f'seeds {settings.towns.seeds[0]} to {settings.towns.seeds[-1]}'
    assert f'street {VERSION}, {settings.towns.count} towns ({seeds})' in str(training['data'])
    command = 'python -m offline_training.train_segmentation config/training/demo.yaml'
    assert str(training['command']).startswith(command)


@pytest.fixture(scope='module')
def town(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = load_training(SETTINGS)
    assert UNSEEN_TOWN not in {*settings.towns.seeds, *settings.held_out.seeds}
    path = tmp_path_factory.mktemp('street') / 'bag'
    write_street_bag(path, UNSEEN_TOWN, 0.5)
    return path


def test_it_labels_a_town_that_it_has_never_seen(town: Path) -> None:
    pipeline = Pipeline(SHIPPED, device='cpu')
    scores = SegmentationScores(CLASS_NAMES)
    for swept in labelled_frames(town, CLASS_NAMES, stride=2):
        answer = pipeline.step(swept.frame, Output.SEGMENTATION)
        assert swept.truth is not None
        assert answer.class_id is not None
        scores.add(swept.truth['class_id'], answer.class_id)
    assert scores.absent() == ()
    assert (scores.miou() or 0) > 0.5
