# SPDX-License-Identifier: Apache-2.0
"""Presets are read strictly, and changed from the command line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cross4d_jepa_ros.model.config import BadConfig
from offline_training.pretraining.settings import load_pretraining, pretrained_model

PRESETS = Path(__file__).parents[3] / 'config' / 'pretraining'
WANTED = {
    '3d_jepa': {'masked_latent'},
    '3d_jepa_described': {'masked_latent'},
    '3d_jepa_paper': {'masked_latent'},
    'crossjepa': {'latent_view'},
    'crossjepa_described': {'latent_view', 'masked_latent'},
    'cross4d_jepa': {'dense_correspondence'},
    'cross4d_jepa_described': {'dense_correspondence', 'future'},
    'cross4d_jepa_render': {'dense_correspondence'},
    'combined': {'dense_correspondence', 'latent_view', 'masked_latent'},
    'demo': {'dense_correspondence', 'latent_view', 'masked_latent'},
}


def test_every_preset_is_known_here() -> None:
    found = {path.stem for path in PRESETS.glob('*.yaml')}
    assert found - {'near_future'} == set(WANTED)


@pytest.mark.parametrize('name', WANTED)
def test_presets_switch_on_what_their_names_say(name: str) -> None:
    config, mapping = load_pretraining(PRESETS / f'{name}.yaml')
    assert set(config.objectives.weights) == WANTED[name]
    assert mapping['objectives']['ema']['start'] == config.objectives.ema.start
    model = pretrained_model(config)
    assert not model.colour
    assert model.sweeps == config.sweeps


def test_described_presets_say_what_the_description_says() -> None:
    config, _ = load_pretraining(PRESETS / '3d_jepa_described.yaml')
    model, masked = pretrained_model(config), config.objectives.masked_latent
    assert (model.tokenizer, model.max_tokens, model.patch_points) == ('fps_knn', 64, 32)
    assert (model.width, model.blocks, model.heads) == (384, 12, 6)
    assert (masked.mode, masked.predictor, masked.loss) == ('predict', 'concatenated', 'l2')
    assert (masked.blocks, masked.ratio, masked.target_tokens) == (4, 0.6, 'hidden')
    assert config.objectives.predictor.depth == 6
    assert (config.objectives.ema.start, config.objectives.ema.end) == (0.996, 1.0)
    assert (config.learning_rate, config.weight_decay) == (1.5e-4, 0.05)
    assert config.warm_up * config.epochs == pytest.approx(10, abs=0.1)


def test_changes_take_the_place_of_settings() -> None:
    changes = ['epochs=3', 'objectives.ema.start=0.5', 'augmentation.points_kept=[0.2, 0.3]']
    config, mapping = load_pretraining(PRESETS / '3d_jepa.yaml', changes)
    assert (config.epochs, config.objectives.ema.start) == (3, 0.5)
    assert config.augmentation.points_kept == (0.2, 0.3)
    assert mapping['epochs'] == 3


@pytest.mark.parametrize(
    ('change', 'named'),
    [
        ('epoch=3', "unknown key 'epoch': did you mean 'epochs'"),
        ('epochs', 'give key=value'),
        ('objective.ema.start=1', "no group 'objective'"),
        ('epochs=0', 'epochs is 0: give 1 or more'),
        ('epochs=many', "epochs is 'many', expected int"),
        ('seed=-1', 'seed is -1: give 0 or more'),
        ('learning_rate=2', 'learning_rate is 2'),
        ('precision=fp8', 'fp32'),
        ('objectives.masked_latent.weight=0', 'raise one'),
    ],
)
def test_bad_changes_are_named(change: str, named: str) -> None:
    with pytest.raises(BadConfig, match=named):
        load_pretraining(PRESETS / '3d_jepa.yaml', [change])


def test_a_model_without_memory_refuses_windows() -> None:
    config, _ = load_pretraining(PRESETS / '3d_jepa_paper.yaml')
    with pytest.raises(BadConfig, match='no memory'):
        pretrained_model(replace(config, sweeps=2))
    assert pretrained_model(replace(config, model='nano.yaml')).temporal_blocks == 0
