# SPDX-License-Identifier: Apache-2.0
"""What a mere position gives away: a perceptron on Fourier features of x, y and z.

In a drive, where a thing is says much about what it is. An encoder that tells no more than this has
learnt nothing of shapes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LONGEST_M = 120.0
OCTAVES = 8
HIDDEN, LAYERS = 256, 4


def fourier_features(xyz: Tensor) -> Tensor:
    """Turn (N, 3) positions, m, into (N, 3 + 6 OCTAVES): x, y, z and their waves.

    Wavelengths halve from LONGEST_M on.
    """
    number = 2 * math.pi / LONGEST_M * 2.0 ** torch.arange(OCTAVES, device=xyz.device)  # (O,)
    phase = (xyz[:, :, None] * number).flatten(1)  # (N, 3 O)
    return torch.cat((2 * xyz / LONGEST_M, phase.sin(), phase.cos()), dim=1)  # (N, 3 + 6 O)


class PositionNetwork(nn.Module):
    """Four hidden layers of 256 channels; each point is seen alone.

    Args:
        components: Of the answer (P).
        generator: Draws the weights; on the CPU.

    """

    def __init__(self, components: int, generator: torch.Generator) -> None:
        super().__init__()
        widths = [len(fourier_features(torch.zeros(1, 3))[0]), *[HIDDEN] * LAYERS]
        self.hidden = nn.ModuleList(nn.Linear(inputs, HIDDEN) for inputs in widths[:LAYERS])
        self.out = nn.Linear(HIDDEN, components)
        with torch.no_grad():
            for name, value in self.named_parameters():
                if name.endswith('bias'):
                    value.zero_()
                else:
                    gain = 1.0 if name.startswith('out') else 2.0
                    value.normal_(0, (gain / value.shape[1]) ** 0.5, generator=generator)

    def forward(self, xyz: Tensor) -> Tensor:
        """Map (N, 3) positions, m, to (N, P)."""
        inner = fourier_features(xyz)  # (N, F)
        for layer in self.hidden:
            inner = F.gelu(layer(inner))  # (N, HIDDEN)
        answer: Tensor = self.out(inner)  # (N, P)
        return answer
