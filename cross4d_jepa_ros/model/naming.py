# SPDX-License-Identifier: Apache-2.0
"""From point embeddings to class names: the head, what was taught beside it, and thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cross4d_jepa_ros.model.network import Network
from cross4d_jepa_ros.model.prototypes import Prototypes, named_together
from cross4d_jepa_ros.segmentation_scores import UNKNOWN

# How far the nearest point of a sweep may be from where somebody pointed, m.
CLICK_RADIUS_M = 0.5


@dataclass(frozen=True, eq=False)
class TeachableSweep:
    """What is kept of an answered sweep, so that its points can become examples.

    Attributes:
        frame_id: Frame of `xyz`.
        xyz: (L, 3) points that were looked at, as the message has them, m.
        embedding: (L, C) theirs, on the device.

    """

    stamp_ns: int
    frame_id: str
    xyz: NDArray[np.float32]
    embedding: Tensor

    def embedding_at(self, xyz: NDArray[np.float64]) -> Tensor:
        """Take the embedding (C,) of the point that is nearest to `xyz` (3,).

        Raises:
            ValueError: None is within CLICK_RADIUS_M.

        """
        if not len(self.xyz):
            msg = 'the network saw no point of the newest sweep'
            raise ValueError(msg)
        distance = np.linalg.norm(self.xyz - xyz, axis=1)  # (L,)
        nearest = int(distance.argmin())
        if not distance[nearest] <= CLICK_RADIUS_M:
            msg = (
                f'the nearest point that the network saw is {distance[nearest]:.2f} m away, '
                f'the most is {CLICK_RADIUS_M} m'
            )
            raise ValueError(msg)
        return self.embedding[nearest]  # (C,)


def named(
    network: Network, class_names: tuple[str, ...], taught: Prototypes, embedding: Tensor
) -> tuple[Tensor, Tensor]:
    """Name points by what was taught, and where that resembles nothing by the head.

    Args:
        network: With or without a head.
        class_names: Of the head.
        taught: On the network's device; may be empty.
        embedding: (L, C) point embeddings.

    Returns:
        (L,) uint8 index into `named_together(class_names, taught.names)`, 255 for neither, and
        (L,) probability of the most probable class, 0 where there is none.

    """
    if network.segmentation is not None:
        best, certainty = network.segmentation.classify(embedding)  # (L,), (L,)
    else:
        best = embedding.new_full(embedding.shape[:1], UNKNOWN, dtype=torch.uint8)  # (L,)
        certainty = torch.zeros_like(best, dtype=torch.float32)  # (L,)
    if not taught.names:
        return best, certainty
    index, likeness, known = taught.answer(network.normalisation(embedding))  # (L,), (L,), (L,)
    names = named_together(class_names, taught.names)
    number = torch.tensor([names.index(name) for name in taught.names], dtype=torch.uint8)
    best = number.to(best.device)[index].where(known, best)  # (L,)
    if network.segmentation is None:
        return best, likeness
    return best, likeness.where(known, certainty)  # (L,), (L,)


def threshold_table(
    names: tuple[str, ...], otherwise: float, class_thresholds: Mapping[str, float]
) -> Tensor:
    """List the least probability of each class id, (256,); names of no class are passed over."""
    table = torch.full((256,), otherwise)  # (256,)
    for name, threshold in class_thresholds.items():
        if name in names:
            table[names.index(name)] = threshold
    return table
