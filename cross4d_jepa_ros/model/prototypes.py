# SPDX-License-Identifier: Apache-2.0
"""Classes that are taught by a few examples: a point is named after the examples it resembles."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from cross4d_jepa_ros.model.config import Taught

# Similarities are divided by it before the softmax.
TEMPERATURE = 0.07
# A point whose best class is less similar than this is none of them.
BACKGROUND = 0.1
# Of a turn around the wheel of hues: each next colour lies in the widest gap.
GOLDEN_ANGLE = (3 - 5**0.5) / 2


@dataclass(frozen=True, eq=False)
class Prototypes:
    """Examples of classes, as normalised point embeddings. Never changed: `added` makes new ones.

    Attributes:
        names: Taught classes in the order of their first examples.
        vectors: (n, C) float32, one unit row an example, in the order in which they came.
        class_of: (n,) int64 index of each example into `names`.

    """

    names: tuple[str, ...]
    vectors: Tensor
    class_of: Tensor

    @classmethod
    def none(cls, point_width: int) -> Prototypes:
        """Before anything is taught."""
        return cls((), torch.zeros(0, point_width), torch.zeros(0, dtype=torch.int64))

    @property
    def counts(self) -> tuple[int, ...]:
        """Examples of each class."""
        return tuple(torch.bincount(self.class_of, minlength=len(self.names)).tolist())

    @property
    def record(self) -> Taught | None:
        """What a contract says of them."""
        return Taught(self.names, self.counts) if self.names else None

    def added(self, name: str, vector: Tensor) -> Prototypes:
        """Return these and one more example.

        Args:
            name: Class, known or new.
            vector: (C,) of `EmbeddingNormalisation`.

        Raises:
            ValueError: The name is empty, or the vector has no direction.

        """
        vector = vector.to(self.vectors)  # (C,)
        if not name:
            msg = 'a taught class needs a name'
            raise ValueError(msg)
        if not (vector.isfinite().all() and vector.norm() > 0):
            msg = f'an example of {name!r} has an embedding without direction'
            raise ValueError(msg)
        names = self.names if name in self.names else (*self.names, name)
        number = torch.tensor([names.index(name)]).to(self.class_of)  # (1,)
        return Prototypes(
            names,
            torch.cat((self.vectors, F.normalize(vector, dim=0)[None])),  # (n + 1, C)
            torch.cat((self.class_of, number)),  # (n + 1,)
        )

    def centres(self) -> Tensor:
        """Mean direction of the examples of each class, (classes, C)."""
        numbers = torch.arange(len(self.names)).to(self.class_of)  # (classes,)
        member = (self.class_of == numbers[:, None]).to(self.vectors.dtype)  # (classes, n)
        return F.normalize(member @ self.vectors, dim=1)  # (classes, C)

    def answer(self, embedding: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compare points with the classes, and all of these with being none of them.

        Args:
            embedding: (L, C) of `EmbeddingNormalisation`.

        Returns:
            (L,) int64 index of the most similar class, (L,) its probability, and (L,) whether it
            is more probable than being none of them.

        """
        similarity = self.centres() @ embedding.T  # (classes, L)
        best, index = similarity.max(dim=0)  # (L,), (L,)
        each = ((similarity - best) / TEMPERATURE).exp().sum(dim=0)  # (L,)
        none = ((BACKGROUND - best) / TEMPERATURE).exp()  # (L,)
        return index, 1 / (each + none), best > BACKGROUND  # (L,), (L,), (L,)

    def to(self, device: torch.device) -> Prototypes:
        """Return the same on another device."""
        return Prototypes(self.names, self.vectors.to(device), self.class_of.to(device))


def named_together(head: Sequence[str], taught: Sequence[str]) -> tuple[str, ...]:
    """List the classes of a head and those taught beside them, which may be the same."""
    return (*head, *(name for name in taught if name not in head))


def taught_colour(number: int) -> tuple[int, int, int]:
    """Give the RGB of the taught class that comes as this one, from 0, after those of the head."""
    hue = (0.85 + number * GOLDEN_ANGLE) % 1
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.75, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)
