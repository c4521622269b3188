# SPDX-License-Identifier: Apache-2.0
"""The page on training says what the presets and settings are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cross4d_jepa_ros.model.config import BadConfig
from offline_training.logs import table
from offline_training.pretraining.settings import load_pretraining
from offline_training.pretraining.watch import FIGURES
from tests.doc_commands import ROOT, commands

PAGE = (ROOT / 'docs' / 'training.md').read_text()
PRESETS = ROOT / 'config' / 'pretraining'
COMBINED = PRESETS / 'combined.yaml'


def rows(begin: str, end: str) -> list[list[str]]:
    """Cells of the table between two pieces of the page, less its head."""
    part = PAGE[PAGE.index(begin) :]
    lines = part[: part.index(end)].splitlines()
    cells = [[cell.strip() for cell in line.split('|')[1:-1]] for line in lines if line[:1] == '|']
    return cells[2:]


SETTINGS = rows('<!-- settings: begin', '<!-- settings: end')


def test_all_three_steps_are_shown() -> None:
    for text in ((ROOT / 'README.md').read_text(), PAGE):
        shown = ' '.join(commands(text))
        for step in ('index_bags', 'cache_targets', 'pretrain'):
            assert f'-m offline_training.{step} ' in shown


def test_every_preset_has_a_row_and_every_row_a_preset() -> None:
    shown = [row[0].strip('`') for row in rows('| preset | what it is', '\n\n')]
    assert sorted(shown) == sorted(path.stem for path in PRESETS.glob('*.yaml'))


@pytest.mark.parametrize('row', rows('| preset | what it is', '\n\n'), ids=lambda row: row[0])
def test_presets_are_what_their_rows_say(row: list[str]) -> None:
    config, _ = load_pretraining(PRESETS / f'{row[0].strip("`")}.yaml')
    assert row[2] == f'{config.model.removesuffix(".yaml")}, T = {config.sweeps}'
    needs = config.objectives.needs_images
    assert row[3].startswith('yes' if needs else 'no')
    assert ('poses' in row[3]) == ('future' in config.objectives.weights)


def leaves(mapping: dict[str, Any], above: str = '') -> Iterator[tuple[str, Any]]:
    for key, value in mapping.items():
        if isinstance(value, dict):
            yield from leaves(value, f'{above}{key}.')
        else:
            yield f'{above}{key}', value


@pytest.mark.parametrize('preset', sorted(PRESETS.glob('*.yaml')), ids=lambda path: path.stem)
def test_every_setting_has_a_row_of_its_type(preset: Path) -> None:
    kinds = {bool: 'bool', int: 'integer', float: 'number', str: 'string', list: 'two numbers'}
    stated = {
        name: kinds[type(value)] for name, value in leaves(yaml.safe_load(preset.read_text()))
    }
    shown = {row[0].strip('`'): row[1] for row in SETTINGS}
    assert shown == stated
    assert all(row[4] for row in SETTINGS)


def beyond(kind: str, limits: str) -> list[Any]:
    """Values just outside a range as the page has it."""
    low, high = limits.strip('`').split('..')
    step = 1 if kind == 'integer' else 0.01
    values = [float(low) - step, *([float(high) + step] if high.strip() else [])]
    if kind == 'two numbers':
        return [[value, value] for value in values]
    return [int(value) for value in values] if kind == 'integer' else values


@pytest.mark.parametrize('row', SETTINGS, ids=lambda row: row[0].strip('`'))
def test_ranges_are_those_that_are_kept(row: list[str]) -> None:
    setting, kind, limits = row[0].strip('`'), row[1], row[2]
    key = setting.split('.')[-1]
    if '..' in limits:
        for value in beyond(kind, limits):
            with pytest.raises(BadConfig, match=f'{key} is'):
                load_pretraining(COMBINED, [f'{setting}={value}'])
    elif '`' in limits:
        with pytest.raises(BadConfig, match=f"{key} is 'nonsense'") as caught:
            load_pretraining(COMBINED, [f'{setting}=nonsense'])
        offered = str(caught.value).split('give ')[1].replace(' or ', ', ').split(', ')
        assert sorted(offered) == sorted(re.findall('`(.+?)`', limits))
    else:
        assert (key, limits) == ('seed', '') or (kind, limits) in {('bool', ''), ('string', 'file')}


def test_every_flag_of_the_index_has_a_row() -> None:
    shown = [row[0].strip('`') for row in rows('| flag |', '\n\n')]
    flags = [
        value
        for name, value in vars(table).items()
        if name.isupper() and not name.startswith('_') and isinstance(value, str)
    ]
    assert sorted(shown) == sorted(flags)
    unusable = {row[0].strip('`') for row in rows('| flag |', '\n\n') if 'not used' in row[2]}
    assert unusable == table.UNUSABLE


def test_every_figure_of_the_log_has_a_row() -> None:
    shown = [row[0].split('`')[1] for row in rows('| figure |', '\n\n')]
    assert shown == list(FIGURES)
