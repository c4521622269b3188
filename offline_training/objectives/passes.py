# SPDX-License-Identifier: Apache-2.0
"""What the objectives share: forward passes of one sample, and the form of their answer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from cross4d_jepa_ros.model.network import Network, SweepInput
from offline_training.objectives.window import Window, WindowSweep

# Rows that the collapse watch is shown of one term.
WATCHED_ROWS = 1024


@dataclass(frozen=True)
class Term:
    """What an objective makes of one sample.

    Attributes:
        loss: (), the sample's own weighted mean.
        prediction: (n, d) float32, detached; n is at most WATCHED_ROWS.
        target: (n, d) float32, detached.

    """

    loss: Tensor
    prediction: Tensor
    target: Tensor


def term(loss: Tensor, prediction: Tensor, target: Tensor) -> Term:
    """Show the watch evenly spaced rows of (m, d) predictions and targets."""
    every = -(-len(prediction) // WATCHED_ROWS)
    shown, wanted = (rows[::every].detach().float() for rows in (prediction, target))  # (n, d)
    return Term(loss, shown, wanted)


class Pass:
    """One sample and what the networks make of it; nothing is computed that nobody asks for.

    The target encoder sees the whole sample; the network that learns is kept from what the window
    says.

    Args:
        network: The one that learns.
        target_network: Its moving average; None where no objective needs one.
        window: The sample.

    Attributes:
        window: The sample.
        sweeps: Of the window, those that the network that learns sees, oldest first.

    """

    def __init__(self, network: Network, target_network: Network | None, window: Window) -> None:
        self.network = network
        self.window = window
        self._target_network = target_network
        self._seen = [n for n in range(len(window.sweeps)) if n not in window.forgotten]
        self.sweeps = [window.sweeps[number] for number in self._seen]

    @cached_property
    def target_inputs(self) -> list[SweepInput]:
        """All sweeps of the window with all that is known of them, oldest first."""
        return [self._input(sweep) for sweep in self.window.sweeps]

    @cached_property
    def remembered(self) -> list[SweepInput]:
        """All that is known of the sweeps that the network that learns sees."""
        return [self.target_inputs[number] for number in self._seen]

    @cached_property
    def inputs(self) -> list[SweepInput]:
        """What the network that learns is given: `sweeps`, blinded."""
        return [self.blinded(sweep) for sweep in self.remembered]

    def blinded(self, sweep: SweepInput) -> SweepInput:
        """Take from a sweep what the network that learns is kept from."""
        return replace(
            sweep,
            intensity=None if self.window.without_intensity else sweep.intensity,
            fixed_from_base=None if self.window.without_poses else sweep.fixed_from_base,
        )

    @cached_property
    def future(self) -> SweepInput | None:
        """The sweep that is to be foreseen."""
        return None if self.window.future is None else self._input(self.window.future)

    @cached_property
    def encoded(self) -> list[tuple[Tensor, Tensor]]:
        """The learning network's (M, D) tokens and (L, C) undecoded point features."""
        return self.network.encode_window(self.inputs)

    @cached_property
    def rows(self) -> list[tuple[Tensor, Tensor]]:
        """The learning network's (M, D) tokens and (L, C) point embeddings of each sweep."""
        decode = self.network.decode
        return [
            (token, decode(token, point, sweep.patches))
            for sweep, (token, point) in zip(self.inputs, self.encoded, strict=True)
        ]

    @cached_property
    def target_rows(self) -> list[tuple[Tensor, Tensor]]:
        """The target encoder's (M, D) tokens and (L, C) point features of each sweep.

        The future sweep, where there is one, comes last.
        """
        future = [] if self.future is None else [self.future]
        return self.encode_targets([*self.target_inputs, *future])

    @torch.no_grad()
    def encode_targets(self, sweeps: list[SweepInput]) -> list[tuple[Tensor, Tensor]]:
        """Have the target encoder encode other sweeps than those of the sample."""
        assert self._target_network is not None
        return self._target_network.encode_window(sweeps)

    def generator(self) -> torch.Generator:
        """Start drawing for this sample, on the CPU."""
        return torch.Generator().manual_seed(self.window.seed)

    def _input(self, sweep: WindowSweep) -> SweepInput:
        patches = self.network.tokenizer.group(sweep.xyz)
        intensity = sweep.intensity
        if intensity is not None:
            intensity = intensity.index_select(0, patches.kept_point)  # (L,)
        return SweepInput(patches, intensity, None, sweep.stamp_ns, sweep.fixed_from_base)
