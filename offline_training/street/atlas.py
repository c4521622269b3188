# SPDX-License-Identifier: Apache-2.0
"""All textures of a town at all sizes in one flat array, so that a texel is one look-up."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from offline_training.street.textures.tiles import draw_tiles

LEVELS = 9  # 256, 128, ... 1 texels
TILE = 256
_SIZES = TILE >> np.arange(LEVELS)
_LEVEL_START = np.concatenate([[0], np.cumsum(_SIZES**2)]).astype(np.int32)


class Atlas:
    """Tiles by name and variant.

    Args:
        random: Draws the textures.

    """

    def __init__(self, random: np.random.Generator) -> None:
        self._first: dict[str, int] = {}
        texels: list[NDArray[np.uint8]] = []
        for name, variants in draw_tiles(random).items():
            self._first[name] = len(texels)
            for tile in variants:
                texels.append(_pyramid(tile))
        self.texels = np.concatenate(texels).view(np.uint32).reshape(-1)

    def start(self, name: str, variant: int) -> int:
        """Where the texels of a tile begin."""
        return (self._first[name] + variant) * int(_LEVEL_START[-1])

    def look_up(
        self,
        start: NDArray[np.int32],
        level: NDArray[np.int32],
        u: NDArray[np.float32],
        v: NDArray[np.float32],
    ) -> NDArray[np.uint8]:
        """Fetch texels (N, 4) RGBA.

        Args:
            start: (N,) from `start`.
            level: (N,) halvings of the tile's 256 texels, 0 to 8.
            u: (N,) in tiles; repeats.
            v: (N,) likewise.

        """
        bits = 8 - level
        mask = (1 << bits) - 1
        scale = (mask + 1).astype(np.float32)
        column = np.floor(u * scale).astype(np.int32) & mask
        row = np.floor(v * scale).astype(np.int32) & mask
        index = start + _LEVEL_START[level] + (row << bits) + column
        return self.texels[index].view(np.uint8).reshape(-1, 4)


def _pyramid(tile: NDArray[np.uint8]) -> NDArray[np.uint8]:
    levels = [tile]
    while len(levels[-1]) > 1:
        half = len(levels[-1]) // 2
        levels.append(cv2.resize(levels[-1], (half, half), interpolation=cv2.INTER_AREA))
    return np.concatenate([np.ascontiguousarray(level).reshape(-1, 4) for level in levels])
