# SPDX-License-Identifier: Apache-2.0
"""Weights of an earlier checkpoint in a network that begins with the same answers."""

from __future__ import annotations

import torch
from torch import Tensor

from cross4d_jepa_ros.model.checkpoint import Checkpoint
from cross4d_jepa_ros.model.config import LINEAR, BadConfig
from cross4d_jepa_ros.model.network import Network

# Of the encoder, what a network of single sweeps lacks.
MEMORY = 'temporal.'
ENCODER = ('tokenizer.', 'encoder.', MEMORY, 'decoder.')
_INPUT = 'tokenizer.point_in.weight'


def take_over(network: Network, start: Checkpoint, class_names: tuple[str, ...]) -> tuple[str, ...]:
    """Give a network the weights of a checkpoint.

    A network that looks at colour starts from one that does not with zeros where colour comes in.
    A memory that the start lacks stays as it was drawn. The segmentation head is taken over where
    it names the same classes.

    Args:
        network: With weights of its own; changed.
        start: Where they come from.
        class_names: Of the network's segmentation head.

    Returns:
        Names of the tensors that were taken.

    Raises:
        BadConfig: The two are not of one size.

    """
    own = network.state_dict()
    same_head = start.contract.segmentation == LINEAR and class_names == start.contract.class_names
    taken: dict[str, Tensor] = {}
    for name, value in start.network.state_dict().items():
        if name.startswith(ENCODER):
            if name not in own and name.startswith(MEMORY):
                continue
            taken[name] = _widened(name, value, own)
        elif name.startswith('segmentation.') and same_head:
            taken[name] = value
    network.load_state_dict({**own, **taken})
    return tuple(taken)


def _widened(name: str, value: Tensor, own: dict[str, Tensor]) -> Tensor:
    wanted = own[name].shape if name in own else None
    if wanted == value.shape:
        return value
    if name == _INPUT and wanted is not None and wanted[0] == value.shape[0]:
        more = wanted[1] - value.shape[1]
        if more > 0:  # colour is last among the inputs
            return torch.cat((value, value.new_zeros(len(value), more)), 1)  # (C, F)
    found = 'nothing' if wanted is None else tuple(wanted)
    msg = (
        f'warm_start: its {name} is {tuple(value.shape)}, the model has {found}: start from a '
        'checkpoint of the same size, or leave model out to take its'
    )
    raise BadConfig(msg)
