# SPDX-License-Identifier: Apache-2.0
"""Model sizes are read strictly."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from cross4d_jepa_ros.model.config import BadConfig, ModelConfig, from_mapping, load_model_config

NANO = Path(__file__).parents[2] / 'config' / 'models' / 'nano.yaml'


def test_nano_is_read_from_its_file() -> None:
    nano = load_model_config(NANO)
    assert asdict(nano) == yaml.safe_load(NANO.read_text())
    assert (nano.size, nano.voxel_m, nano.range_m) == ('nano', 0.8, 60.0)


def test_whole_numbers_stand_for_floats(config: ModelConfig) -> None:
    read = from_mapping(ModelConfig, {**asdict(config), 'range_m': 30})
    assert read.range_m == 30.0
    assert isinstance(read.range_m, float)


@pytest.mark.parametrize(
    ('change', 'sentence'),
    [
        ({'voxel': 1.0}, "unknown key 'voxel': did you mean 'voxel_m'"),
        ({7: 1.0}, 'unknown key 7'),
        ({'width': 'wide'}, "width is 'wide', expected int"),
        ({'width': True}, 'width is True, expected int'),
        ({'width': 96.0}, 'width is 96.0, expected int'),
        ({'colour': 1}, 'colour is 1, expected bool'),
        ({'voxel_m': None}, 'voxel_m is None, expected float'),
        ({'voxel_m': True}, 'voxel_m is True, expected float'),
        ({'size': ['x' * 200]}, r'size is \[.{0,60}\.\.\., expected str'),
    ],
)
def test_wrong_keys_and_types_are_named(
    config: ModelConfig, change: dict[Any, Any], sentence: str
) -> None:
    with pytest.raises(BadConfig, match=sentence):
        from_mapping(ModelConfig, {**asdict(config), **change})


def test_missing_keys_are_named(config: ModelConfig) -> None:
    mapping = asdict(config)
    del mapping['width'], mapping['heads']
    with pytest.raises(BadConfig, match='missing key width, heads'):
        from_mapping(ModelConfig, mapping)


@pytest.mark.parametrize(
    ('key', 'value', 'sentence'),
    [
        ('voxel_m', float('nan'), 'voxel_m is nan'),
        ('voxel_m', 0.0, 'voxel_m is 0.0'),
        ('range_m', float('inf'), 'range_m is inf'),
        ('max_points', 0, 'max_points is 0'),
        ('blocks', 10**9, 'blocks is 1000000000'),
        ('sweeps', 65, 'sweeps is 65'),
        ('heads', 5, 'width 12 over 5 heads gives 2.4 channels'),
        ('heads', 3, 'width 12 over 3 heads gives 4 channels'),
    ],
)
def test_sizes_out_of_bounds_are_refused(
    config: ModelConfig, key: str, value: Any, sentence: str
) -> None:
    with pytest.raises(BadConfig, match=sentence):
        replace(config, **{key: value})


def test_a_grid_too_fine_for_its_range_is_refused(config: ModelConfig) -> None:
    with pytest.raises(BadConfig, match='raise voxel_m'):
        replace(config, voxel_m=0.005, range_m=1000.0)


@pytest.mark.parametrize('text', ['', '3', '[1, 2]', 'width: [', 'width: 3', '\x00'])
def test_a_bad_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / 'tiny.yaml'
    path.write_text(text)
    with pytest.raises(BadConfig, match=r'tiny\.yaml'):
        load_model_config(path)
