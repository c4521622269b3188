# SPDX-License-Identifier: Apache-2.0
"""Cars and people: parked, waiting in the lanes, driving, standing, walking, crossing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from offline_training.street.classes import CAR, PERSON
from offline_training.street.motion import STEP_S, Ego, Track
from offline_training.street.road import Road
from offline_training.street.roadside import Side
from offline_training.street.scene import Thing
from offline_training.street.shapes.cars import car
from offline_training.street.shapes.people import person

Array = NDArray[np.float64]

SLOT_M = 6.6
PHASES = 4
CLEAR_M = 9.0


class Traffic:
    """Draws everything of the classes car and person.

    Args:
        random: Draws them.
        road: The street's line.
        sides: Left and right.
        ego: The vehicle with the sensors; nothing may stand in its way.
        seconds: Length of the recording.
        first_instance: Number of the first thing.

    """

    def __init__(
        self,
        random: np.random.Generator,
        road: Road,
        sides: tuple[Side, Side],
        ego: Ego,
        seconds: float,
        first_instance: int,
    ) -> None:
        self._random, self._road, self._sides, self._ego = random, road, sides, ego
        self._instance = first_instance
        self._time = np.arange(-1.0, seconds + 1.0, STEP_S)
        self._ego_along = np.interp(self._time, ego.time, ego.along)
        self._things: list[Thing] = []

    def things(self) -> list[Thing]:
        """Draw them all."""
        for side in self._sides:
            self._parked(side)
            self._people(side)
        self._lead_car()
        self._opposite_lane()
        self._ahead_in_lane()
        self._crossing()
        return self._things

    def _stand(self, class_id: int, side: Side, along: float, outwards: float, turn: float) -> None:
        if not self._road.first + 2 < along < self._road.last - 2:
            return
        random = self._random
        mesh = car(random) if class_id == CAR else person(random, None)
        position, heading = side.place(along, outwards)
        placed = mesh.moved(position, float(heading) + turn)
        self._road.drape(placed.corners, position)
        self._things.append(Thing(placed, class_id, self._next()))

    def _next(self) -> int:
        self._instance += 1
        return self._instance - 1

    def _parked(self, side: Side) -> None:
        random = self._random
        ahead = 0.0 if side.sign < 0 else np.pi
        crowded = random.uniform(0.3, 0.75)
        for along in np.arange(self._road.first + 4, self._road.last - 4, SLOT_M):
            stretch = side.stretch_at(float(along))
            if stretch.kind in ('side_street', 'driveway'):
                continue
            if side.parking and random.random() < crowded:
                turn = ahead + random.normal(0, 0.03) + np.pi * (random.random() < 0.15)
                outwards = side.lane + side.parking / 2 + random.normal(0, 0.06)
                self._stand(CAR, side, along + random.normal(0, 0.15), outwards, turn)
            elif stretch.walk > 2.6 and stretch.verge == 0 and random.random() < 0.12:
                self._stand(CAR, side, along, side.kerb + 0.75, ahead)
        for stretch in side.stretches:
            middle = (stretch.start + stretch.end) / 2
            inwards = -np.pi / 2 * side.sign
            if stretch.kind == 'driveway' and random.random() < 0.6:
                turn = inwards + np.pi * (random.random() < 0.5)
                outwards = side.walk_end(stretch) + random.uniform(2.6, 4.0)
                self._stand(CAR, side, middle, outwards, turn)
            if stretch.kind == 'side_street' and random.random() < 0.6:
                self._stand(CAR, side, middle, side.kerb + random.uniform(3.2, 7.0), inwards)

    def _people(self, side: Side) -> None:
        random = self._random
        here = self._road.first + random.uniform(2, 8)
        while here < self._road.last - 2:
            stretch = side.stretch_at(here)
            if stretch.kind != 'side_street':
                inner = side.kerb + max(stretch.verge, 0.9) + 0.2
                outer = side.walk_end(stretch) - 0.35
                group = int(random.choice([1, 1, 2, 3]))
                walking = random.random() < 0.5
                lateral = random.uniform(min(inner, outer), outer, group)
                speed = random.uniform(0.8, 1.7) * random.choice([-1.0, 1.0])
                for member in range(group):
                    along = here + random.normal(0, 0.7)
                    if walking:
                        self._walk(side, along, float(lateral[member]), speed)
                    else:
                        turn = random.uniform(0, 2 * np.pi)
                        self._stand(PERSON, side, along, float(lateral[member]), turn)
            here += random.uniform(4.0, 16.0)

    def _walk(self, side: Side, along: float, outwards: float, speed: float) -> None:
        path = along + speed * self._time
        inside = (path > self._road.first + 1) & (path < self._road.last - 1)
        if inside.all():
            self._mover(
                PERSON, side, path, np.full(len(path), outwards), 0.0 if speed > 0 else np.pi
            )

    def _mover(
        self, class_id: int, side: Side, along: Array, outwards: Array, turn: float | None
    ) -> None:
        """Add a thing that moves; `turn` from the road's heading, or None to look where it goes."""
        position, heading = side.place(along, outwards)
        if turn is None:
            step = np.gradient(position[:, :2], axis=0)
            yaw = np.arctan2(step[:, 1], step[:, 0])
        else:
            yaw = heading + turn
        track = Track(float(self._time[0]), position, yaw)
        instance, random = self._next(), self._random
        if class_id == CAR:
            self._things.append(Thing(car(random), CAR, instance, track))
            return
        looks = int(random.integers(2**31))
        for phase in range(PHASES):
            mesh = person(np.random.default_rng(looks), phase / PHASES)
            self._things.append(Thing(mesh, PERSON, instance, track, phase))

    def _lead_car(self) -> None:
        """Drive ahead of the ego vehicle, braking a moment before it does."""
        right = self._sides[1]
        gap = self._random.uniform(9.0, 14.0)
        earlier = np.interp(self._time + 1.0, self._ego.time, self._ego.along)
        path = np.minimum(earlier + gap, self._road.last - 3)
        self._mover(CAR, right, path, np.full(len(path), -self._ego.lateral), 0.0)

    def _opposite_lane(self) -> None:
        """Moving cars first, then a queue that stands still."""
        random, left = self._random, self._sides[0]
        outwards = left.lane / 2
        reach = self._road.last - 10
        queue = random.uniform(0.35, 1.0) * reach
        for number in range(int(random.integers(2, 6))):
            along = queue + number * random.uniform(6.8, 8.0)
            self._stand(CAR, left, along, outwards + random.normal(0, 0.1), np.pi)
        speed = random.uniform(5.0, 11.0)
        here = queue - 12.0
        while here > self._road.first:
            path = here - speed * np.maximum(self._time, 0)
            path = np.maximum(path, self._road.first + 4 + random.uniform(0, 1))
            if path[0] - path[-1] > 5:
                self._mover(CAR, left, path, np.full(len(path), outwards), np.pi)
            here -= random.uniform(14.0, 40.0)

    def _ahead_in_lane(self) -> None:
        """A car that stands in the ego lane, beyond where the lead car ends up, and one behind."""
        random, right = self._random, self._sides[1]
        beyond = float(self._ego_along[-1]) + 40.0
        self._stand(CAR, right, beyond, -self._ego.lateral, 0.0)
        self._stand(CAR, right, beyond + 8.0, -self._ego.lateral + random.normal(0, 0.1), 0.0)
        behind = float(self._ego_along[0]) - random.uniform(9.0, 20.0)
        self._stand(CAR, right, behind, -self._ego.lateral, 0.0)

    def _crossing(self) -> None:
        """People who cross the street where no car comes."""
        random = self._random
        left = self._sides[0]
        width = self._sides[0].kerb + self._sides[1].kerb + 2.0
        for _ in range(12):
            along = random.uniform(self._ego_along[0] - 20, self._ego_along[-1] + 40)
            speed = random.uniform(0.9, 1.6)
            start_s = random.uniform(self._time[0], self._time[-1])
            lateral = -width / 2 + np.clip((self._time - start_s) * speed, 0, width)
            if random.random() < 0.5:
                lateral = -lateral
            moving = (lateral > -width / 2) & (lateral < width / 2)
            clear = np.abs(self._ego_along - along)[moving] > CLEAR_M
            ahead = self._ego_along[moving] + 22.0 < along
            behind = self._ego_along[moving] - CLEAR_M > along
            if clear.all() and (ahead | behind).all():
                self._mover(PERSON, left, np.full(len(lateral), along), lateral, None)
