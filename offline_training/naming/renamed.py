# SPDX-License-Identifier: Apache-2.0
"""A frozen network with a new head, and the record of where its names came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cross4d_jepa_ros.model.checkpoint import Checkpoint, Contract
from cross4d_jepa_ros.model.config import Segmentation
from cross4d_jepa_ros.model.network import Network

Record = dict[str, str | int | float]


def record_of(start: Checkpoint, kind: str, command: str, seed: int) -> Record:
    """Begin the training record of a checkpoint whose encoder is another one's."""
    return {
        'kind': kind,
        'command': command,
        'seed': seed,
        'start_kind': start.contract.training['kind'],
        'start_sha256': start.sha256,
    }


def with_head(
    start: Checkpoint,
    names: Sequence[str],
    palette: Sequence[tuple[int, int, int]],
    segmentation: Segmentation,
    training: Record,
) -> tuple[Contract, Network]:
    """Take over a network but for its head, which is yet to be filled in.

    Args:
        start: Stays as it is.
        names: Of the new head's classes.
        palette: Their colours.
        segmentation: What the new head reads.
        training: Record of the new checkpoint.

    """
    contract = replace(
        start.contract,
        class_names=tuple(names),
        palette=tuple(palette),
        segmentation=segmentation,
        training=training,
    )
    network = Network(contract.model, len(names), contract.teacher, segmentation)
    kept = {
        name: value
        for name, value in start.network.state_dict().items()
        if not name.startswith('segmentation.')
    }
    network.load_state_dict(network.state_dict() | kept)
    return contract, network.eval()
