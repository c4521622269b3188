# SPDX-License-Identifier: Apache-2.0
"""What lies flat in a street: lanes, parking, kerbs, verges, sidewalks, yards, side streets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from offline_training.street.classes import ROAD, SIDEWALK, VEGETATION
from offline_training.street.road import Road
from offline_training.street.scene import Thing
from offline_training.street.shapes.mesh import Mesh, Part
from offline_training.street.textures.tiles import VARIANTS

Array = NDArray[np.float64]

OUTER_M = 18.0
STATION_M = 2.0
RAMP_M = 0.6
KERB_WIDTH_M = 0.15
CROSSFALL = 0.015
CROWN = 0.02
LAND_STEP_M = 5.0
LAND_DROP_M = 0.35
# A point this far beyond the kerb's line stands on top of it.
ON_KERB_M = 1e-6


@dataclass(frozen=True)
class Stretch:
    """A piece of one side of the street.

    Attributes:
        kind: `block` (houses), `driveway`, `side_street` or `park`.
        start: Arc length, m.
        end: Arc length, m.
        kerb: Height of the kerb, m.
        verge: Width of the strip of grass beside the kerb, m; may be 0.
        walk: Width of the sidewalk, m.

    """

    kind: str
    start: float
    end: float
    kerb: float
    verge: float
    walk: float


class Side:
    """One side of the street.

    Args:
        random: Draws the stretches.
        road: The street's line.
        sign: +1 for the left side, -1 for the right one.
        lane: From the middle line to the end of the lane, m.

    """

    def __init__(self, random: np.random.Generator, road: Road, sign: int, lane: float) -> None:
        self.road, self.sign, self.lane = road, sign, lane
        self.parking = float(random.choice([0.0, 2.1, 2.3]))
        self.kerb = lane + self.parking
        self.stretches = list(_stretches(random, road))
        knots, heights = [], []
        for stretch in self.stretches:
            # Kerbs rise and fall within the blocks, so that side streets meet the lane flat.
            inset = 0.0 if stretch.kind in ('side_street', 'driveway') else _inset(stretch)
            knots += [stretch.start + inset, stretch.end - inset]
            heights += [stretch.kerb, stretch.kerb]
        self._knots, self._heights = np.array(knots), np.array(heights)
        self._yard_knots = np.arange(road.first, road.last + 30, 25.0)
        self._yard_slope = random.uniform(-0.04, 0.10, len(self._yard_knots))

    def walk_end(self, stretch: Stretch) -> float:
        """Distance of the sidewalk's outer edge from the middle line, m."""
        return self.kerb + stretch.verge + stretch.walk

    def stretch_at(self, along: float) -> Stretch:
        """Find the stretch that an arc length lies in."""
        for stretch in self.stretches:
            if along < stretch.end:
                return stretch
        return self.stretches[-1]

    def place(self, along: ArrayLike, outwards: ArrayLike) -> tuple[Array, Array]:
        """Return positions (..., 3) on the ground and headings (...) along the road.

        Args:
            along: Arc length, m.
            outwards: Distance from the middle line on this side, m.

        """
        along, outwards = np.broadcast_arrays(np.asarray(along, float), np.asarray(outwards, float))
        xy, heading = self.road.place(along, self.sign * outwards)
        height = self.road.hill(xy) + self.profile(along, outwards)
        return np.concatenate([xy, height[..., None]], axis=-1), heading

    def profile(self, along: Array, outwards: Array) -> Array:
        """Height (...) above the bare land, m."""
        beyond = np.maximum(outwards - self.kerb, 0.0)
        raised = np.interp(along, self._knots, self._heights) - CROWN * self.kerb
        slope = np.interp(along, self._yard_knots, self._yard_slope)
        yard = np.maximum(beyond - 3.5, 0.0)
        on_walk = raised + CROSSFALL * beyond + slope * yard
        profile: Array = np.where(outwards <= self.kerb, -CROWN * np.abs(outwards), on_walk)
        return profile


def ground(random: np.random.Generator, road: Road, sides: tuple[Side, Side]) -> list[Thing]:
    """Lay out all surfaces of a street between its two sides (left, right)."""
    left, right = sides
    things = list(_lanes(random, road, left, right))
    for side in sides:
        parking = surface(random, str(random.choice(['asphalt', 'paving'])), 0.14, 0.6)
        walk = surface(random, 'paving', 0.2, 0.75)
        kerb = surface(random, 'kerb', 0.3, 0.7)
        for stretch in side.stretches:
            if random.random() < 0.35:
                walk = surface(random, str(random.choice(['paving', 'asphalt'])), 0.18, 0.75)
            for part, class_id, near, far in _strips(random, side, stretch, parking, walk, kerb):
                things.append(Thing(_strip(side, stretch, near, far, part), class_id, 0))
            if stretch.kerb > 0:
                things.append(Thing(_kerb_face(side, stretch, kerb), SIDEWALK, 0))
    things.append(Thing(_land(road, green(random)), VEGETATION, 0))
    return things


def surface(random: np.random.Generator, tile: str, low: float, high: float) -> Part:
    """Draw one look of a ground surface, its greyness between `low` and `high`."""
    tone = random.uniform(low, high) * random.uniform(0.78, 1.22, 3)
    return _part(random, tile, np.clip(tone, 0.03, 0.95), random.uniform(0.06, 0.5))


def green(random: np.random.Generator) -> Part:
    """Draw grass: fresh, dry, or hardly any."""
    tile = str(random.choice(['grass', 'grass', 'grass', 'soil']))
    tone = random.uniform((0.22, 0.25, 0.10), (0.62, 0.60, 0.38))
    return _part(random, tile, tone, random.uniform(0.1, 0.5))


def _part(random: np.random.Generator, tile: str, tone: Array, reflectivity: float) -> Part:
    red, green_, blue = (float(value) for value in tone)
    return Part(tile, int(random.integers(VARIANTS[tile])), (red, green_, blue), reflectivity)


def _stretches(random: np.random.Generator, road: Road) -> Iterator[Stretch]:
    def widths() -> tuple[float, float]:
        return float(random.choice([0.0, random.uniform(0.9, 2.2)])), random.uniform(1.7, 3.6)

    here = road.first
    verge, walk = widths()
    while here < road.last:
        length = random.uniform(14.0, 42.0)
        kind = 'park' if random.random() < 0.12 else 'block'
        yield Stretch(kind, here, here + length, random.uniform(0.03, 0.17), verge, walk)
        here += length
        if random.random() < 0.5:
            verge, walk = widths()
        kind = str(random.choice(['driveway', 'side_street', 'driveway', 'none']))
        if kind == 'side_street':
            length = random.uniform(5.5, 8.0)
            yield Stretch(kind, here, here + length, 0.0, 0.0, walk)
            here += length
        elif kind == 'driveway':
            length = random.uniform(3.0, 4.5)
            yield Stretch(kind, here, here + length, random.uniform(0.01, 0.03), 0.0, walk)
            here += length


def _strips(
    random: np.random.Generator, side: Side, stretch: Stretch, parking: Part, walk: Part, kerb: Part
) -> Iterator[tuple[Part, int, float, float]]:
    """Surface, class and bounds (from the middle line, m) of each strip of a stretch."""
    edge, end = side.kerb, side.walk_end(stretch)
    if side.parking:
        yield parking, ROAD, side.lane, edge
    if stretch.kind == 'side_street':
        yield surface(random, 'asphalt', 0.14, 0.6), ROAD, edge, OUTER_M
        return
    yield kerb, SIDEWALK, edge, edge + KERB_WIDTH_M
    inner = edge + KERB_WIDTH_M
    if stretch.verge > KERB_WIDTH_M:
        yield green(random), VEGETATION, inner, edge + stretch.verge
        inner = edge + stretch.verge
    yield walk, SIDEWALK, inner, end
    if stretch.kind == 'driveway':
        yield surface(random, 'concrete', 0.25, 0.7), SIDEWALK, end, OUTER_M
    elif stretch.kind == 'park' or random.random() < 0.6:
        yield green(random), VEGETATION, end, OUTER_M
    else:
        yield surface(random, 'paving', 0.2, 0.75), SIDEWALK, end, OUTER_M


def _inset(stretch: Stretch) -> float:
    return min(RAMP_M, (stretch.end - stretch.start) / 3)


def _stations(start: float, end: float, inset: float) -> Array:
    """Arc lengths of a lattice, with one at both ends of the kerb's ramps."""
    count = max(2, int(np.ceil((end - start - 2 * inset) / STATION_M)) + 1)
    between = np.linspace(start + inset, end - inset, count)
    return np.concatenate([[start], between, [end]]) if inset else between


def _grid(corner: Array, uv: Array, part: Part) -> Mesh:
    """Skin a lattice of corners (S, L, 3) with texture coordinates (S, L, 2), facing up."""

    def cells(values: Array) -> Array:
        a, b = values[:-1, :-1], values[1:, :-1]
        c, d = values[1:, 1:], values[:-1, 1:]
        halves = np.stack([np.stack([a, b, c], -2), np.stack([a, c, d], -2)], axis=2)
        return halves.reshape(-1, 3, values.shape[-1])

    corners = cells(corner)
    up = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])[:, 2]
    order = np.where((up < 0)[:, None], [[0, 2, 1]], [[0, 1, 2]])[..., None]
    return Mesh(
        np.take_along_axis(corners, order, axis=1).astype(np.float32),
        np.take_along_axis(cells(uv), order, axis=1).astype(np.float32),
        np.zeros(len(corners), np.int32),
        (part,),
    )


def _strip(side: Side, stretch: Stretch, near: float, far: float, part: Part) -> Mesh:
    along = _stations(stretch.start, stretch.end, _inset(stretch))
    across = np.linspace(near, far, 1 + max(1, round((far - near) / 4.0)))
    outwards = across + ON_KERB_M * (across == side.kerb) * (near == side.kerb)
    corner, _ = side.place(along[:, None], outwards[None])
    uv = np.stack(np.broadcast_arrays(along[:, None] / 2.0, across[None] / 2.0), axis=-1)
    return _grid(corner, uv, part)


def _kerb_face(side: Side, stretch: Stretch, part: Part) -> Mesh:
    along = _stations(stretch.start, stretch.end, _inset(stretch))
    low, _ = side.place(along, side.kerb)
    high, _ = side.place(along, side.kerb + ON_KERB_M)
    low[:, 2] -= 0.05
    corner = np.stack([low, high], axis=1)
    uv = np.stack(np.broadcast_arrays(along[:, None] / 2.0, np.array([[0.08, 0.0]])), axis=-1)
    return _grid(corner, uv, part)


def _lanes(random: np.random.Generator, road: Road, left: Side, right: Side) -> Iterator[Thing]:
    paved = surface(random, 'road', 0.14, 0.6)
    lateral = np.array([-right.lane, -right.lane / 2, 0.0, left.lane / 2, left.lane])
    v = (left.lane - lateral) / (left.lane + right.lane)
    here, crossed = road.first, True
    while here < road.last:
        length, part, first_u, period = random.uniform(20.0, 50.0), paved, 0.0, 12.0
        crossed = not crossed and random.random() < 0.6
        if crossed:
            length, first_u, period = 4.0, here, 4.0
            variant = int(random.integers(VARIANTS['crossing']))
            part = Part('crossing', variant, paved.tint, paved.reflectivity)
        end = min(here + length, road.last)
        along = _stations(here, end, 0.0)
        xy, _ = road.place(along[:, None], lateral[None])
        height = road.hill(xy) - CROWN * np.abs(lateral)
        u = (along - first_u) / period
        uv = np.stack(np.broadcast_arrays(u[:, None], v[None]), axis=-1)
        corner = np.concatenate([xy, height[..., None]], axis=-1)
        yield Thing(_grid(corner, uv, part), ROAD, 0)
        here = end


def _land(road: Road, part: Part) -> Mesh:
    """Make the bare land, a little below everything else."""
    ends, _ = road.place(np.linspace(road.first, road.last, 200), 0.0)
    low, high = ends.min(axis=0) - 70.0, ends.max(axis=0) + 70.0
    x = np.arange(low[0], high[0] + LAND_STEP_M, LAND_STEP_M)
    y = np.arange(low[1], high[1] + LAND_STEP_M, LAND_STEP_M)
    xy = np.stack(np.meshgrid(x, y, indexing='ij'), axis=-1)
    height = road.hill(xy) - LAND_DROP_M
    return _grid(np.concatenate([xy, height[..., None]], axis=-1), xy / 2.0, part)
