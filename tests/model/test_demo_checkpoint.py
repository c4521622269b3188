# SPDX-License-Identifier: Apache-2.0
"""The shipped checkpoint is what its command makes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from cross4d_jepa_ros.model.checkpoint import load_checkpoint
from offline_training.make_demo_checkpoint import make_demo_checkpoint, street_points

SHIPPED = Path(__file__).parents[2] / 'config' / 'demo.safetensors'


def test_the_command_makes_the_same_bytes_twice_and_the_shipped_network(tmp_path: Path) -> None:
    first, second = tmp_path / 'demo.safetensors', tmp_path / 'again' / 'demo.safetensors'
    make_demo_checkpoint(first, 0)
    torch.rand(3)
    make_demo_checkpoint(second, 0)
    assert first.read_bytes() == second.read_bytes()
    made, shipped = load_checkpoint(first), load_checkpoint(SHIPPED)
    assert made.contract == shipped.contract
    expected = shipped.network.state_dict()
    for name, value in made.network.state_dict().items():
        # Fitted values may differ in the last digit between processors.
        torch.testing.assert_close(value, expected[name], atol=2e-3, rtol=0)


def test_another_seed_makes_another_network(tmp_path: Path) -> None:
    make_demo_checkpoint(tmp_path / 'other.safetensors', 1)
    made, shipped = load_checkpoint(tmp_path / 'other.safetensors'), load_checkpoint(SHIPPED)
    assert made.sha256 != shipped.sha256
    assert made.contract.training['seed'] == 1


def test_the_shipped_file_says_what_it_is() -> None:
    contract = load_checkpoint(SHIPPED).contract
    assert SHIPPED.stat().st_size < 3_000_000
    assert contract.training['kind'] == 'untrained'
    assert contract.model.size == 'nano'
    names = ('road', 'sidewalk', 'building', 'vegetation', 'pole', 'car', 'person')
    assert contract.class_names == names
    assert len(set(contract.palette)) == len(names)


def test_streets_stand_on_the_ground() -> None:
    xyz, rgb = street_points(np.random.default_rng(0))
    assert xyz.shape == (len(rgb), 3)
    assert np.abs(np.median(xyz[:20000, 2])) < 0.1
    assert set(np.unique(rgb[:, 3])) == {0.0, 1.0}
    assert (rgb[rgb[:, 3] == 0] == 0).all()
