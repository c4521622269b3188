# SPDX-License-Identifier: Apache-2.0
"""The shipped checkpoint, and others of its sizes for the tests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from cross4d_jepa_ros.model.checkpoint import Contract, load_checkpoint, save_checkpoint
from cross4d_jepa_ros.model.network import Network
from cross4d_jepa_ros.model.tokenizer import input_features

SHIPPED = Path(__file__).parents[1] / 'config' / 'demo.safetensors'
MEMORY = {
    'sweeps': 4,
    'sweep_stride': 2,
    'neighbours': 8,
    'neighbour_radius_m': 1.0,
    'latents': 4,
    'temporal_blocks': 1,
}


def fresh_checkpoint(path: Path, **changes: object) -> None:
    """Write the shipped sizes with changes and fresh weights for two classes."""
    model = replace(load_checkpoint(SHIPPED).contract.model, **changes)
    network = Network(model, 2)
    generator = torch.Generator().manual_seed(0)
    network.initialise(generator)
    for module in network.temporal.modules() if network.temporal else ():
        if isinstance(module, nn.Linear):  # fresh ones add nothing
            module.weight.data.normal_(0, module.in_features**-0.5, generator=generator)
    contract = Contract(
        model, input_features(model), 0.0, ('a', 'b'), ((0, 0, 0), (1, 1, 1)), {'kind': 'untrained'}
    )
    save_checkpoint(path, contract, network)
