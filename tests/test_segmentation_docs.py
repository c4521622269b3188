# SPDX-License-Identifier: Apache-2.0
"""The page on segmentation says what the presets, maps and settings are."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from cross4d_jepa_ros.model.config import BadConfig
from offline_training.label_map import load_label_map
from offline_training.training_settings import METHODS, Training, load_training
from tests.doc_commands import ROOT
from tests.test_training_docs import beyond

PAGE = (ROOT / 'docs' / 'segmentation.md').read_text()
PRESETS = ROOT / 'config' / 'training'
START = 'warm_start=start.safetensors'
KINDS = {'int': 'integer', 'float': 'number', 'str': 'string', 'bool': 'bool'}


def rows(begin: str) -> list[list[str]]:
    """Cells of a table of the page, less its head."""
    lines = PAGE[PAGE.index(begin) :].split('\n\n')[0].splitlines()
    cells = [[cell.strip() for cell in line.split('|')[1:-1]] for line in lines if line[:1] == '|']
    return cells[2:]


SETTINGS = {row[0].strip('`'): row[1:] for row in rows('| setting |')}


@pytest.mark.parametrize('method', METHODS)
def test_each_method_has_a_preset_of_its_name(method: str) -> None:
    assert load_training(PRESETS / f'{method}.yaml', [START]).method == method
    assert method in {row[0].strip('`') for row in rows('| preset |')}


def test_every_setting_has_a_row_of_its_type() -> None:
    assert list(SETTINGS) == [field.name for field in fields(Training)]
    for field in fields(Training):
        kind = str(field.type).split(' | ')[0]
        assert SETTINGS[field.name][0] == KINDS.get(kind, 'mapping'), field.name


@pytest.mark.parametrize('setting', SETTINGS)
def test_ranges_are_those_that_are_kept(setting: str) -> None:
    kind, limits, of, _ = SETTINGS[setting]
    preset = 'mlp_head' if of.endswith('mlp_head') else 'fine_tune'
    values: list[Any] = []
    if '..' in limits:
        values = beyond(kind, limits)
    elif setting == 'method':
        assert limits == ', '.join(f'`{method}`' for method in METHODS)
        values = ['nonsense']
    else:
        assert limits in ('file', 'folder') if kind == 'string' else limits == ''
    for value in values:
        with pytest.raises(BadConfig, match=f'{setting} is'):
            load_training(PRESETS / f'{preset}.yaml', [START, f'{setting}={value}'])


@pytest.mark.parametrize('setting', [name for name, row in SETTINGS.items() if row[2] != 'all'])
def test_settings_of_one_method_mean_nothing_to_others(setting: str) -> None:
    of = SETTINGS[setting][2].split(', ')
    assert set(of) < set(METHODS)
    given = {
        'model': 'nano.yaml',
        'memory': 'false',
        'sweeps': 2,
        'hidden': 9,
        'points_per_sweep': 9,
        'encoder_learning_rate': 0.1,
        'warm_up': 0.1,
        'motion_weight': 0.1,
        'score_every': 3,
        'augmentation': yaml.safe_load((PRESETS / 'demo.yaml').read_text())['augmentation'],
    }
    for method in set(METHODS) - set(of):
        value = given[setting]
        with pytest.raises(BadConfig, match=f'{setting} (is|means nothing)'):
            load_training(PRESETS / f'{method}.yaml', [START, f'{setting}={value}'])


def test_every_label_map_has_a_row() -> None:
    shown = {row[0].strip('`'): row for row in rows('| file of `config/label_maps`')}
    files = {path.stem: path for path in (ROOT / 'config' / 'label_maps').glob('*.yaml')}
    assert sorted(shown) == sorted(files)
    for name, row in shown.items():
        assert f' {len(load_label_map(files[name]).names)} classes' in row[2]


def test_the_label_map_on_the_page_is_one(tmp_path: Path) -> None:
    shown = re.search(r'^```yaml\n(.*?)^```', PAGE, re.S | re.M)
    assert shown is not None
    (tmp_path / 'map.yaml').write_text(shown[1])
    loaded = load_label_map(tmp_path / 'map.yaml')
    assert loaded.others_ignored
    assert loaded.table[[40, 252, 0]].tolist() == [0, 1, 255]
