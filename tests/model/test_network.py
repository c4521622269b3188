# SPDX-License-Identifier: Apache-2.0
"""The assembled network."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

from cross4d_jepa_ros.model.config import ModelConfig, load_model_config
from cross4d_jepa_ros.model.network import Network
from tests.checkpoints import SHIPPED

NANO = Path(__file__).parents[2] / 'config' / 'models' / 'nano.yaml'


def weights(config: ModelConfig, seed: int) -> dict[str, torch.Tensor]:
    network = Network(config, 3)
    network.initialise(torch.Generator().manual_seed(seed))
    return network.state_dict()


def test_a_seed_fixes_every_weight(config: ModelConfig) -> None:
    first, second, third = weights(config, 4), weights(config, 4), weights(config, 5)
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert not torch.equal(first['tokenizer.point_in.weight'], third['tokenizer.point_in.weight'])


def test_training_mode_changes_nothing(network: Network, xyz: torch.Tensor) -> None:
    patches = network.tokenizer.group(xyz)

    def answer() -> torch.Tensor:
        token, point = network.tokenizer(patches, None, torch.zeros(500, 4))
        token = network.encoder(token, patches.cell, patches.centre)
        return network.decoder(token, point, patches.patch_of_kept)

    quiet = answer()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.train()
    assert torch.equal(answer(), quiet)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_every_weight_gets_a_gradient(network: Network, xyz: torch.Tensor) -> None:
    patches = network.tokenizer.group(xyz)
    token, point = network.tokenizer(patches, torch.rand(500), torch.rand(500, 4))
    token = network.encoder(token, patches.cell, patches.centre)
    embedding = network.decoder(token, point, patches.patch_of_kept)
    assert network.segmentation is not None
    network.segmentation(embedding).square().sum().backward()
    silent = [
        name
        for name, weight in network.named_parameters()
        if weight.grad is None or not weight.grad.abs().sum() > 0
    ]
    assert silent == []


def test_nano_is_small() -> None:
    count = sum(weight.numel() for weight in Network(load_model_config(NANO), 7).parameters())
    assert 5e4 < count < 7e5


def test_no_classes_build_no_head(config: ModelConfig) -> None:
    network = Network(config, 0)
    assert network.segmentation is None
    assert not [name for name in network.state_dict() if name.startswith('segmentation')]


def test_a_checkpoint_is_checked_without_the_symbolic_part_of_pytorch() -> None:
    # Which takes longer to import than everything else that a node does before it is ready.
    code = (
        'import sys; from pathlib import Path; '
        'from cross4d_jepa_ros.model.checkpoint import load_checkpoint; '
        'load_checkpoint(Path(sys.argv[1])); print("sympy" in sys.modules)'
    )
    command = [sys.executable, '-c', code, str(SHIPPED)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == 'False'
