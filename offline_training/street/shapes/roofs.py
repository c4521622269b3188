# SPDX-License-Identifier: Apache-2.0
"""A house's body and surfaces, and the roofs that cover it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from offline_training.street.shapes.furniture import box
from offline_training.street.shapes.looks import random_part
from offline_training.street.shapes.mesh import Mesh, Part, join, quads

BAY_M = 3.2
WALL_TILE_M = {'brick': 2.0, 'plaster': 4.0, 'concrete': 2.0, 'wood': 2.0, 'metal': 2.0}


@dataclass(frozen=True)
class Block:
    """A house's body between its outer planes, in m; the front is at y = `front`.

    Attributes:
        left: Where it begins along x.
        right: Where it ends along x.
        front: Nearest y.
        back: Farthest y.
        ground: Height of the ground floor.
        storey: Height of each storey above.
        storeys: All of them, the ground floor too.

    """

    left: float
    right: float
    front: float
    back: float
    ground: float
    storey: float
    storeys: int

    @property
    def bays(self) -> int:
        """Whole bays that fit the front."""
        return max(1, round((self.right - self.left) / BAY_M))

    @property
    def eaves(self) -> float:
        """Where the walls end."""
        return self.level(self.storeys)

    def level(self, storey: int) -> float:
        """Height of a storey's floor."""
        return self.ground + (storey - 1) * self.storey if storey else 0.0

    def bay(self, index: int) -> tuple[float, float]:
        """Where a bay of the front begins and ends along x."""
        edges = np.linspace(self.left, self.right, self.bays + 1)
        return float(edges[index]), float(edges[index + 1])


@dataclass(frozen=True)
class Look:
    """The surfaces of one house."""

    window: Part
    other_window: Part
    door: Part
    wall: Part
    trim: Part
    roof: Part

    @classmethod
    def draw(cls, random: np.random.Generator) -> Look:
        """Draw surfaces: one tint for the walls, one for what trims them, one for the roof."""
        window = random_part(random, 'facade')
        trim = random_part(random, str(random.choice(['plain', 'concrete', 'wood'])))
        return cls(
            window,
            random_part(random, 'facade', window.tint),
            random_part(random, 'shopfront', window.tint),
            random_part(random, str(random.choice(['plaster', 'brick'])), window.tint),
            trim,
            random_part(random, 'rooftiles'),
        )


def face(start: ArrayLike, end: ArrayLike, low: float, high: float, part: Part) -> Mesh:
    """Build an upright wall between two points (2,) m, left to right seen from outside."""
    (x, y), (x_end, y_end) = np.asarray(start, float), np.asarray(end, float)
    corners = [(x, y, low), (x_end, y_end, low), (x_end, y_end, high), (x, y, high)]
    wide, tall = float(np.hypot(x_end - x, y_end - y)), high - low
    metres = WALL_TILE_M.get(part.tile)
    if metres is not None:
        wide, tall = wide / metres, tall / metres
    else:
        # Facades come in whole bays and storeys.
        wide, tall = max(1.0, round(wide / BAY_M)), max(1.0, round(tall / 3.0))
    return quads([corners], part, [(0, tall), (wide, tall), (wide, 0), (0, 0)])


def _slope(corners: ArrayLike, part: Part) -> Mesh:
    """Tile a flat, four-cornered roof face (4, 3) m, from its lower left corner on."""
    corners = np.asarray(corners, float)
    along = corners[1] - corners[0]
    along /= np.linalg.norm(along)
    offset = corners - corners[3]
    u = offset @ along
    v = np.linalg.norm(offset - u[:, None] * along, axis=1)
    return quads([corners], part, np.column_stack([u, v]) / 2.0)


def slab(corners: ArrayLike, thickness: float, top: Part, edge: Part) -> Mesh:
    """Build a slanting plate whose upper face is (4, 3) m and that is `thickness` m thick."""
    upper = np.asarray(corners, float)
    lower = upper - (0, 0, thickness)
    following = np.roll(np.arange(4), -1)
    rims = np.stack([lower, lower[following], upper[following], upper], axis=1)
    return join([_slope(upper, top), quads([lower[::-1]], edge), quads(rims, edge)])


def _flat_roof(random: np.random.Generator, block: Block, look: Look) -> list[Mesh]:
    """Cover a block with a flat roof behind a parapet, with what stands on such roofs."""
    left, right, front, back, top = block.left, block.right, block.front, block.back, block.eaves
    rim, out = top + random.uniform(0.2, 1.0), random.uniform(0.0, 0.15)
    solids = [
        quads(
            [[(left, front, top), (right, front, top), (right, back, top), (left, back, top)]],
            random_part(random, 'concrete'),
        ),
        box((left - out, front - out, top - 0.1), (right + out, front + 0.2, rim), look.trim),
        box((left - out, back - 0.2, top - 0.1), (right + out, back + out, rim), look.trim),
        box((left - out, front + 0.2, top - 0.1), (left + 0.2, back - 0.2, rim), look.trim),
        box((right - 0.2, front + 0.2, top - 0.1), (right + out, back - 0.2, rim), look.trim),
    ]
    for _ in range(int(random.integers(0, 4))):
        x, y = random.uniform(left + 1, right - 1), random.uniform(front + 1.5, back - 1)
        half = random.uniform(0.4, 0.9, 2)
        high = top + random.uniform(0.6, 2.2)
        solids.append(
            box(
                (x - half[0], y - half[1], top),
                (x + half[0], y + half[1], high),
                random_part(random, 'metal'),
            )
        )
    return solids


def _gable_roof(random: np.random.Generator, block: Block, look: Look) -> list[Mesh]:
    """Cover a block with two slopes; the ridge runs along the front, or away from it."""
    along_front = block.right - block.left > 7.5 or random.random() < 0.4
    half = (block.back - block.front if along_front else block.right - block.left) / 2
    length = block.right - block.left if along_front else block.back - block.front
    pitch = random.uniform(0.5, 1.1)
    out, verge = random.uniform(0.15, 0.6), random.uniform(0.05, 0.4)
    rise, drop, long = pitch * half, pitch * out, length / 2 + verge
    # Built with the ridge along x and the middle at the origin, then turned.
    low, high = -half - out, 0.12
    slope = [
        (-long, low, high - drop),
        (long, low, high - drop),
        (long, 0, high + rise),
        (-long, 0, high + rise),
    ]
    solid = slab(slope, 0.14, look.roof, look.trim)
    gable = np.array([(length / 2, -half, 0), (length / 2, half, 0), (length / 2, 0, rise)])
    uv = np.column_stack([gable[:, 1], -gable[:, 2]]) / WALL_TILE_M[look.wall.tile]
    end = Mesh(
        gable[None].astype(np.float32),
        uv[None].astype(np.float32),
        np.zeros(1, np.int32),
        (look.wall,),
    )
    sides = [mesh.moved((0, 0, 0), turn) for turn in (0.0, np.pi) for mesh in (solid, end)]
    middle = ((block.left + block.right) / 2, (block.front + block.back) / 2, block.eaves)
    solids = [join(sides).moved(middle, 0.0 if along_front else np.pi / 2)]
    if along_front:
        solids += _dormers(random, block, look, out=0.3 * half, pitch=pitch)
    return solids + _chimney(random, block, look, block.eaves + rise)


def _dormers(
    random: np.random.Generator, block: Block, look: Look, out: float, pitch: float
) -> list[Mesh]:
    """Put windows with small roofs of their own on the front slope, `out` m behind the front."""
    if random.random() < 0.5:
        return []
    solids = []
    y, low = block.front + out, block.eaves + pitch * out
    half, tall = random.uniform(0.6, 0.9), min(1.5, 0.55 * pitch * (block.back - block.front) / 2)
    deep = tall / pitch + 0.3
    for index in range(0, block.bays, int(random.integers(1, 3))):
        x = float(np.mean(block.bay(index)))
        high = low + tall
        lid = [
            (x - half - 0.1, y - 0.2, high),
            (x + half + 0.1, y - 0.2, high),
            (x + half + 0.1, y + deep, high + 0.15),
            (x - half - 0.1, y + deep, high + 0.15),
        ]
        solids += [
            face((x - half, y), (x + half, y), low - 0.1, high, look.window),
            face((x + half, y), (x + half, y + deep), low - 0.1, high, look.wall),
            face((x - half, y + deep), (x - half, y), low - 0.1, high, look.wall),
            slab(lid, 0.1, look.roof, look.trim),
        ]
    return solids


def _chimney(random: np.random.Generator, block: Block, look: Look, ridge: float) -> list[Mesh]:
    if random.random() < 0.3:
        return []
    half = random.uniform(0.25, 0.5)
    x = random.uniform(block.left + 1, block.right - 1)
    y = (block.front + block.back) / 2 + random.uniform(-1, 1)
    top = ridge + random.uniform(0.4, 1.0)
    brick = random_part(random, 'brick')
    return [
        box((x - half, y - 0.3, block.eaves), (x + half, y + 0.3, top), brick),
        box((x - half - 0.06, y - 0.36, top), (x + half + 0.06, y + 0.36, top + 0.1), look.trim),
    ]


def _tapered(low: ArrayLike, high: ArrayLike, inset: ArrayLike, part: Part) -> Mesh:
    """Build four slopes and a flat top that lies within a box (3,) m, `inset` (2,) m from it."""
    (x, y, z), (x_end, y_end, z_end) = np.asarray(low, float), np.asarray(high, float)
    dx, dy = np.asarray(inset, float)
    foot = np.array([(x, y, z), (x_end, y, z), (x_end, y_end, z), (x, y_end, z)])
    top = np.array(
        [
            (x + dx, y + dy, z_end),
            (x_end - dx, y + dy, z_end),
            (x_end - dx, y_end - dy, z_end),
            (x + dx, y_end - dy, z_end),
        ]
    )
    slopes = [_slope([foot[i], foot[i - 3], top[i - 3], top[i]], part) for i in range(4)]
    return join([*slopes, _slope(top, part)])


def _hip_roof(random: np.random.Generator, block: Block, look: Look) -> list[Mesh]:
    """Cover a block with four slopes that meet in a short ridge."""
    out, pitch = random.uniform(0.2, 0.7), random.uniform(0.4, 0.9)
    low = np.array([block.left - out, block.front - out, block.eaves - 0.05])
    high = np.array([block.right + out, block.back + out, block.eaves + 0.12])
    inset = (high - low)[:2].min() / 2 - 0.1
    ridge = high[2] + pitch * inset
    roof = _tapered((*low[:2], high[2]), (*high[:2], ridge), (inset, inset), look.roof)
    return [box(low, high, look.trim), roof, *_chimney(random, block, look, float(ridge))]


def _mansard_roof(random: np.random.Generator, block: Block, look: Look) -> list[Mesh]:
    """Cover a block with a steep storey of tiles with dormers, flat on top."""
    tall, inset = random.uniform(2.2, 3.0), random.uniform(0.7, 1.2)
    low = (block.left - 0.2, block.front - 0.2, block.eaves - 0.1)
    high = (block.right + 0.2, block.back + 0.2, block.eaves + 0.15)
    foot = (block.left, block.front, high[2])
    top = (block.right, block.back, high[2] + tall)
    solids = [box(low, high, look.trim), _tapered(foot, top, (inset, inset), look.roof)]
    for index in range(block.bays):
        x = float(np.mean(block.bay(index)))
        solids.append(
            box(
                (x - 0.75, block.front + 0.1, high[2]),
                (x + 0.75, block.front + inset + 0.2, high[2] + 0.75 * tall),
                look.trim,
            )
        )
        y = block.front + 0.09
        solids.append(
            face((x - 0.65, y), (x + 0.65, y), high[2], high[2] + 0.7 * tall, look.window)
        )
    return solids + _chimney(random, block, look, high[2] + tall)


ROOFS: tuple[Callable[[np.random.Generator, Block, Look], list[Mesh]], ...] = (
    _flat_roof,
    _gable_roof,
    _hip_roof,
    _mansard_roof,
)
