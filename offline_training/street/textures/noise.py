# SPDX-License-Identifier: Apache-2.0
"""What textures are made of: periodic noise, stones in courses, shapes drawn across the seam."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

SIZE = 256
MEAN_LUMA = 160.0  # of tinted texels: there the tint appears unchanged
_MARGIN = 4  # pixels: OpenCV leaves lines and outlines out next to the border of a picture

Field = NDArray[np.float32]
Values = NDArray[np.floating]
Tile = NDArray[np.uint8]
T = TypeVar('T')

U, V = np.meshgrid(*2 * [(np.arange(SIZE, dtype=np.float32) + 0.5) / SIZE])


def pick(random: np.random.Generator, options: Sequence[T]) -> T:
    """Draw one of the options."""
    return options[int(random.integers(len(options)))]


def ramp(low: float, high: float, x: Values) -> Field:
    """Rise smoothly from 0 at `low` to 1 at `high`, or fall where `high` is below `low`."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


@cache
def _interpolation(cells: int) -> Field:
    """(SIZE, cells) weights that interpolate a closed ring of values by cubics."""
    x = (np.arange(SIZE) + 0.5) * cells / SIZE
    base = np.floor(x).astype(int)
    f = x - base
    weights = np.zeros((SIZE, cells), np.float32)
    cubics = (
        f * (-0.5 + f * (1 - 0.5 * f)),
        1 + f * f * (-2.5 + 1.5 * f),
        f * (0.5 + f * (2 - 1.5 * f)),
        f * f * (-0.5 + 0.5 * f),
    )
    for step, cubic in enumerate(cubics, start=-1):
        np.add.at(weights, (np.arange(SIZE), (base + step) % cells), cubic)
    return weights


def noise(random: np.random.Generator, across: int, down: int, octaves: int = 1) -> Field:
    """Draw periodic noise of zero mean and unit deviation.

    Args:
        random: Where the draws come from.
        across: Cells along u of the coarsest octave.
        down: Cells along v of the coarsest octave.
        octaves: Each has twice the cells and 0.6 of the strength of the one before.

    """
    total = np.zeros((SIZE, SIZE), np.float32)
    for octave in range(octaves):
        cells = [min(n << octave, SIZE) for n in (down, across)]
        values = random.standard_normal(cells, np.float32) * np.float32(0.6**octave)
        total += _interpolation(cells[0]) @ values @ _interpolation(cells[1]).T
    total -= total.mean()
    return np.asarray(total / max(float(total.std()), 1e-6), np.float32)


def bent(field: Field, du: Values, dv: Values) -> Field:
    """Look `field` up at places moved by `du` and `dv` pixels, around the seam."""
    column = (U * SIZE - 0.5 + du).astype(np.float32)
    row = (V * SIZE - 0.5 + dv).astype(np.float32)
    return np.asarray(
        cv2.remap(field, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP), np.float32
    )


def relief(height: Values) -> Field:
    """Light a height field from the upper left: its slope, positive towards the light."""
    slope = 2 * height - np.roll(height, 1, axis=0) - np.roll(height, 1, axis=1)
    return np.asarray(slope, np.float32)


@dataclass(frozen=True)
class Courses:
    """Equal stones in rows.

    Attributes:
        row: (SIZE, SIZE) index of each texel's row.
        column: (SIZE, SIZE) index of its stone in the row.
        u: Position in the stone, 0 left to 1 right.
        v: Position in the stone, 0 top to 1 bottom.
        edge: Distance to the middle of the nearest joint, pixels.

    """

    row: NDArray[np.intp]
    column: NDArray[np.intp]
    u: Field
    v: Field
    edge: Field

    def joint(self, width: float) -> Field:
        """Mask of the joints, `width` pixels from stone to stone."""
        return ramp(width / 2 + 0.7, width / 2 - 0.7, self.edge)

    def tones(self, random: np.random.Generator) -> Field:
        """Draw one standard normal value per stone."""
        table = random.standard_normal((self.row.max() + 1, self.column.max() + 1), np.float32)
        return np.asarray(table[self.row, self.column], np.float32)


def courses(rows: int, columns: int, shifts: ArrayLike = 0.0) -> Courses:
    """Lay stones.

    Args:
        rows: Courses per tile.
        columns: Stones per course.
        shifts: Of each course along u, in stones; repeated over the rows, so let their number
            divide `rows`.

    """
    row = np.floor(V * rows).astype(np.intp)
    shift = np.resize(np.asarray(shifts, np.float32), rows)
    along = U * columns + shift[row]
    column = np.floor(along).astype(np.intp)
    u, v = along - column, V * rows - row
    beside = np.minimum(u, 1 - u) * (SIZE / columns)
    above = np.minimum(v, 1 - v) * (SIZE / rows)
    edge = np.minimum(beside, above)
    return Courses(row, column % columns, *(x.astype(np.float32) for x in (u, v, edge)))


def pebbles(
    random: np.random.Generator, count: int, jitter: float
) -> tuple[NDArray[np.intp], Field, Field]:
    """Part the tile into irregular stones, `count` x `count` of them.

    Returns:
        index: (SIZE, SIZE) number of each texel's stone.
        centre: Distance to the stone's centre, in stones.
        edge: How much farther the second nearest centre is, in stones.

    """
    offset = 0.5 + jitter * (random.random((count, count, 2), np.float32) - 0.5)
    x, y = U * count, V * count
    column, row = np.floor(x).astype(np.intp), np.floor(y).astype(np.intp)
    first = np.full((SIZE, SIZE), 9.0, np.float32)
    second = first.copy()
    index = np.zeros((SIZE, SIZE), np.intp)
    for j in (-1, 0, 1):
        for i in (-1, 0, 1):
            r, c = (row + j) % count, (column + i) % count
            centre = offset[r, c]
            far = np.hypot(column + i + centre[..., 0] - x, row + j + centre[..., 1] - y)
            second = np.minimum(second, np.maximum(first, far))
            index = np.where(far < first, r * count + c, index)
            first = np.minimum(first, far)
    return index, first.astype(np.float32), (second - first).astype(np.float32)


def canvas_of(field: Values) -> Tile:
    """Start a drawing on a tile, with a margin around it for what crosses the seam."""
    return np.pad(np.clip(field, 0, 255).astype(np.uint8), _MARGIN, mode='wrap')


def drawn(canvas: Tile) -> Field:
    """Take a drawing off its canvas, without the margin."""
    inner = slice(_MARGIN, _MARGIN + SIZE)
    return canvas[inner, inner].astype(np.float32)


def around_seam(shapes: Values) -> tuple[NDArray[np.int32], NDArray[np.intp]]:
    """Repeat shapes that reach over an edge of the tile at the opposite edge.

    Args:
        shapes: (N, K, 2) corners, pixels.

    Returns:
        corners: (M, K, 2) on a `canvas_of` a tile, in 1/16 pixel: for OpenCV with shift=4.
        source: (M,) ascending index of the shape that each is a copy of.

    """
    moves = np.stack(np.meshgrid([-SIZE, 0, SIZE], [-SIZE, 0, SIZE]), -1).reshape(9, 1, 2)
    copies = shapes[:, None] + moves  # (N, 9, K, 2)
    near = ((copies.max(2) > -2 * _MARGIN) & (copies.min(2) < SIZE + 2 * _MARGIN)).all(-1)  # (N, 9)
    return np.rint((copies[near] + _MARGIN) * 16).astype(np.int32), near.nonzero()[0]


def strokes(canvas: Tile, lines: Values, tones: Values, width: int = 1) -> None:
    """Draw open lines around the seam; neighbours in the list that share a tone are fastest.

    Args:
        canvas: From `canvas_of`; drawn on.
        lines: (N, K, 2) points, pixels.
        tones: (N,) 0 to 255.
        width: Pixels.

    """
    corners, source = around_seam(lines)
    value = np.clip(tones, 0, 255)[source]
    for group in np.split(np.arange(len(source)), np.flatnonzero(np.diff(value)) + 1):
        tone = float(value[group[0]])
        cv2.polylines(canvas, list(corners[group]), False, tone, width, cv2.LINE_AA, 4)


def cracks(random: np.random.Generator, count: int, length: int) -> Field:
    """Draw a mask of crooked thin lines; `length` in steps of about 5 pixels."""
    canvas = canvas_of(0 * U)
    heading = random.uniform(0, 2 * np.pi, (count, 1)) + np.cumsum(
        random.normal(0, 0.35, (count, length)), axis=1
    )
    steps = 5 * np.stack([np.cos(heading), np.sin(heading)], -1)
    lines = random.uniform(0, SIZE, (count, 1, 2)) + np.cumsum(steps, axis=1)
    strokes(canvas, lines, np.full(count, 255.0))
    return drawn(canvas) / np.float32(255)


def tinted(luma: Values) -> Tile:
    """Make a fully tinted tile of a luminance, whose mean is brought to 160."""
    for _ in range(4):
        luma = luma * (MEAN_LUMA / np.clip(luma, 0, 255).mean())
    return layered(np.rint(luma)[..., None], 1.0)


def layered(rgb: Values, tint: Field | float) -> Tile:
    """Make a tile of colours.

    Args:
        rgb: (SIZE, SIZE, 3), or 1 instead of 3 for grey; 0 to 255.
        tint: (SIZE, SIZE) or scalar, 0 as it is to 1 fully tinted.

    """
    tile = np.empty((SIZE, SIZE, 4), np.uint8)
    tile[..., :3] = np.clip(rgb, 0, 255)
    tile[..., 3] = np.clip(np.float32(255) * np.asarray(tint), 0, 255)
    return tile
