# SPDX-License-Identifier: Apache-2.0
"""Sweeps of files answered by a network that stays as it is, each with its memory."""

from __future__ import annotations

import bisect
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cross4d_jepa_ros.model.network import Network, SweepInput
from cross4d_jepa_ros.model.temporal_memory import Remembered
from offline_training.labelled_sweeps import LabelledSweep, SweepFiles
from offline_training.objectives.dense_correspondence import answering_rows
from offline_training.segmentation_run import sweep_input


@dataclass(frozen=True)
class SweepAnswer:
    """What a network says of one sweep, itself and those before it in its recording given.

    Attributes:
        position: Of the sweep in its `SweepFiles`.
        token: (M, D)
        embedding: (L, C) of the points that are looked at.

    """

    position: int
    sweep: LabelledSweep
    given: SweepInput
    token: Tensor
    embedding: Tensor

    @property
    def row(self) -> Tensor:
        """Which of the L points answers for each of the sweep's (N,) int64; -1: out of range."""
        return answering_rows(self.given.patches, len(self.sweep.xyz))


@torch.inference_mode()
def answered_sweeps(
    network: Network, sweeps: SweepFiles, recording: range, wanted: Sequence[int]
) -> Iterator[SweepAnswer]:
    """Answer some sweeps of a recording as a stream would; skips what no answer depends on.

    Args:
        network: Is only read.
        sweeps: Files.
        recording: One of theirs.
        wanted: Positions of the sweeps to answer, ascending; those of other recordings may be
            among them.

    """
    network.eval()
    reach = network.config.sweeps - 1
    memory: deque[Remembered] = deque(maxlen=reach)
    for position in recording:
        number = bisect.bisect_left(wanted, position)
        if number == len(wanted) or wanted[number] >= recording.stop:
            return
        if wanted[number] - position > reach:
            continue
        sweep = sweeps[position]
        given = sweep_input(network, sweep)
        token, point, newest = network.encode_sweep(given, list(memory))  # (M, D), (L, C)
        if newest is not None:
            memory.appendleft(newest)
        if wanted[number] == position:
            embedding = network.decode(token, point, given.patches)  # (L, C)
            yield SweepAnswer(position, sweep, given, token, embedding)
