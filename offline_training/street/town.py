# SPDX-License-Identifier: Apache-2.0
"""A town for every seed: a street with everything that stands along it and moves on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from offline_training.street.atlas import Atlas
from offline_training.street.camera import Weather
from offline_training.street.classes import BUILDING, POLE, VEGETATION
from offline_training.street.motion import Ego, drive
from offline_training.street.road import Road
from offline_training.street.roadside import OUTER_M, Side, Stretch, ground
from offline_training.street.scene import Scene, Thing
from offline_training.street.shapes.buildings import building, garden_wall, shelter
from offline_training.street.shapes.furniture import (
    bollard,
    lamp_post,
    sign_post,
    traffic_light,
    utility_pole,
)
from offline_training.street.shapes.mesh import Mesh
from offline_training.street.shapes.plants import bush, grass_tufts, hedge, tree
from offline_training.street.traffic import Traffic

Array = NDArray[np.float64]

SIGHT_M = 85.0
HEADROOM_M, CLEARANCE_M = 2.8, 0.9


@dataclass(frozen=True)
class Town:
    """All that a recording needs.

    Attributes:
        scene: What the sensors see.
        ego: What carries them.
        weather: The light.

    """

    scene: Scene
    ego: Ego
    weather: Weather


def make_town(seed: int, seconds: float) -> Town:
    """Build the town of a seed.

    Args:
        seed: Same seed and length, same town.
        seconds: Driving time that the street must last for.

    """
    random = np.random.default_rng((seed, 0))
    time, along = drive(random, -1.0, seconds + 12.0)
    end = float(np.interp(seconds, time, along))
    road = Road(random, -SIGHT_M, end + SIGHT_M)
    lane = random.uniform(3.1, 3.9)
    sides = (Side(random, road, 1, lane), Side(random, road, -1, lane))
    ego = Ego(road, -lane / 2, time, along)
    things = ground(random, road, sides)
    furnisher = _Furnisher(random, road)
    for side in sides:
        furnisher.furnish(side)
    things += furnisher.things
    traffic = Traffic(random, road, sides, ego, seconds, first_instance=len(furnisher.things) + 1)
    things += traffic.things()
    return Town(Scene(things, Atlas(random)), ego, Weather.draw(random))


class _Furnisher:
    """Puts up what never moves."""

    def __init__(self, random: np.random.Generator, road: Road) -> None:
        self.things: list[Thing] = []
        self._random = random
        self._road = road
        self._setback = random.uniform(0.3, 4.5)
        self._leafy = random.uniform(0.3, 1.0)

    def furnish(self, side: Side) -> None:
        """Furnish all stretches of one side."""
        for stretch in side.stretches:
            if stretch.kind == 'block':
                self._houses(side, stretch)
            elif stretch.kind == 'park':
                self._park(side, stretch)
            if stretch.kind in ('block', 'park'):
                self._sidewalk(side, stretch)
                self._front(side, stretch)
        self._poles(side)

    def _add(
        self,
        mesh: Mesh,
        class_id: int,
        side: Side,
        along: float,
        outwards: float,
        turn: float = 0.0,
        *,
        follow_slope: bool = False,
    ) -> None:
        """Stand a shape on the ground, its x axis along the road (turned by `turn` rad)."""
        position, heading = side.place(along, outwards)
        if not self._road.first < along < self._road.last:
            return
        placed = mesh.moved(position, float(heading) + turn)
        if follow_slope:
            self._road.drape(placed.corners, position)
        self.things.append(Thing(placed, class_id, len(self.things) + 1))

    def _houses(self, side: Side, stretch: Stretch) -> None:
        random = self._random
        here = stretch.start + random.uniform(0.0, 1.5)
        facing = 0.0 if side.sign > 0 else np.pi
        while here < stretch.end - 6.0:
            width = min(random.uniform(7.0, 17.0), stretch.end - here)
            if width < 5.0:
                return
            depth = random.uniform(6.5, 10.0)
            setback = side.walk_end(stretch) + max(0.15, self._setback + random.normal(0, 0.6))
            middle = here + width / 2
            # On a bend the corners of a straight front must not stand on the sidewalk.
            front, heading = side.place(middle, setback)
            half = np.array([np.cos(heading), np.sin(heading)]) * width / 2
            corners = np.stack([front[:2] - half, front[:2], front[:2] + half])
            lack = setback - 0.05 - self._road.distance(corners).min()
            if lack < 4.0:
                house = building(random, width, depth)
                self._add(house, BUILDING, side, middle, setback + max(lack, 0), facing)
            here += width + random.choice([0.0, random.uniform(0.5, 5.0)])
        if random.random() < 0.12:
            self._add(
                shelter(random),
                BUILDING,
                side,
                random.uniform(stretch.start, stretch.end),
                side.walk_end(stretch) - 0.2,
                facing,
                follow_slope=True,
            )

    def _park(self, side: Side, stretch: Stretch) -> None:
        random = self._random
        near = side.walk_end(stretch) + 1.0
        for _ in range(round((stretch.end - stretch.start) * 0.35)):
            along = random.uniform(stretch.start + 1, stretch.end - 1)
            shape = tree(random) if random.random() < 0.5 else bush(random)
            self._add(shape, VEGETATION, side, along, random.uniform(near, OUTER_M - 2))

    def _front(self, side: Side, stretch: Stretch) -> None:
        """Line the sidewalk's outer edge with walls and hedges, and plant the front gardens."""
        random = self._random
        edge = side.walk_end(stretch)
        if self._setback > 1.2 or stretch.kind == 'park':
            here = stretch.start + 0.3
            while here < stretch.end - 2.0:
                length = min(random.uniform(2.5, 7.0), stretch.end - 0.3 - here)
                kind = random.choice(['hedge', 'wall', 'none'])
                line = {'hedge': hedge, 'wall': garden_wall}.get(str(kind))
                if line is not None and length > 1.0:
                    class_id = VEGETATION if kind == 'hedge' else BUILDING
                    self._add(
                        line(random, length),
                        class_id,
                        side,
                        here + length / 2,
                        edge + 0.45,
                        follow_slope=True,
                    )
                here += length + random.choice([0.0, 0.9])
        for along in np.arange(stretch.start + 1, stretch.end - 1, 3.0):
            if self._setback > 1.2 and random.random() < 0.5 * self._leafy:
                shape = tree(random) if random.random() < 0.2 else bush(random)
                outwards = edge + random.uniform(0.9, max(1.0, self._setback))
                self._add(shape, VEGETATION, side, along + random.uniform(-1, 1), outwards)

    def _sidewalk(self, side: Side, stretch: Stretch) -> None:
        """Plant the verge, or trees in pits along the kerb."""
        random = self._random
        here = stretch.start + random.uniform(1.5, 6.0)
        wide = stretch.verge > 0.8
        outwards = side.kerb + (stretch.verge / 2 if wide else 0.6)
        while here < stretch.end - 1.5:
            if random.random() < (0.75 if wide else 0.4) * self._leafy:
                self._add(self._street_tree(), VEGETATION, side, here, outwards)
            elif wide and random.random() < 0.5:
                self._add(bush(random), VEGETATION, side, here, outwards)
            here += random.uniform(5.0, 12.0)
        if wide:
            for along in np.arange(stretch.start + 1, stretch.end - 2, 3.0):
                if random.random() < 0.6:
                    tufts = grass_tufts(random, 3.0, max(0.5, stretch.verge - 0.3))
                    middle = side.kerb + stretch.verge / 2
                    self._add(tufts, VEGETATION, side, along + 1, middle, follow_slope=True)

    def _street_tree(self) -> Mesh:
        """Draw a tree under which people and cars can pass."""
        while True:
            drawn = tree(self._random)
            low = drawn.corners[drawn.corners[..., 2] < HEADROOM_M]
            if np.abs(low[:, :2]).max() < CLEARANCE_M:
                return drawn

    def _poles(self, side: Side) -> None:
        random = self._random
        facing = -np.pi / 2 * side.sign
        kinds = [(lamp_post, 24.0, 0.45), (sign_post, 11.0, 0.4), (bollard, 13.0, 0.35)]
        if random.random() < 0.5:
            kinds.append((utility_pole, 30.0, 0.5))
        for make, gap, outwards in kinds:
            here = side.road.first + random.uniform(0, gap)
            while here < side.road.last:
                stretch = side.stretch_at(here)
                if stretch.kind in ('block', 'park'):
                    turn = facing if make in (lamp_post, utility_pole) else self._sign_turn(side)
                    spots = [0.0] if make is not bollard else np.arange(random.integers(1, 5)) * 1.5
                    for spot in spots:
                        self._add(make(random), POLE, side, here + spot, side.kerb + outwards, turn)
                here += gap * random.uniform(0.6, 1.4)
        for stretch in side.stretches:
            if stretch.kind == 'side_street' and random.random() < 0.7:
                for along in (stretch.start - 0.8, stretch.end + 0.8):
                    self._add(
                        traffic_light(random),
                        POLE,
                        side,
                        along,
                        side.kerb + 0.5,
                        self._sign_turn(side),
                    )

    def _sign_turn(self, side: Side) -> float:
        """Signs face the traffic of their side, more or less."""
        against = np.pi if side.sign < 0 else 0.0
        return against + self._random.normal(0, 0.25)
