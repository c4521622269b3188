# SPDX-License-Identifier: Apache-2.0
"""Vehicles: hatchback, sedan, estate, van, pickup and box truck."""

from __future__ import annotations

from dataclasses import astuple, dataclass

import numpy as np
import trimesh
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray

from offline_training.street.shapes.looks import random_part
from offline_training.street.shapes.mesh import Mesh, Part, from_trimesh, join, loft, quads

RELIEF = 0.008  # m that panes and lamps stand out of the body, so that rays meet them first
WHOLE_TILE = ((0, 1), (1, 1), (1, 0), (0, 0))


@dataclass(frozen=True)
class _Kind:
    """Proportions of a kind of vehicle, in m unless said.

    Attributes:
        length: Nose to tail.
        width: Without mirrors.
        height: Top of the cabin's roof.
        belt: Height of the lower edge of the side windows.
        bonnet: Nose to the foot of the windscreen.
        windscreen: How far the windscreen runs back while it rises.
        tail: End of the roof to the tail.
        rear_run: How far the rear window runs back while it falls.
        lean: By how much the cabin's sides lean inwards per metre of height.
        wheel: Radius of the wheels.
        sill: Height of the floor over the ground.
        pane: About the length of one side window.
        rear_pane: How much of the rear window's slope is glass, in [0, 1].
        box: Height of the top of a truck's box; 0 without one.

    """

    length: float
    width: float
    height: float
    belt: float
    bonnet: float
    windscreen: float
    tail: float
    rear_run: float
    lean: float
    wheel: float
    sill: float
    pane: float
    rear_pane: float
    box: float = 0.0


KINDS = (
    _Kind(3.95, 1.75, 1.48, 0.92, 0.95, 0.80, 0.62, 0.42, 0.33, 0.31, 0.20, 1.05, 0.85),
    _Kind(4.70, 1.82, 1.45, 0.92, 1.25, 0.85, 1.55, 0.85, 0.36, 0.32, 0.20, 1.05, 0.88),
    _Kind(4.60, 1.85, 1.62, 1.00, 1.10, 0.75, 0.50, 0.32, 0.27, 0.35, 0.26, 0.95, 0.75),
    _Kind(5.20, 1.95, 2.10, 1.12, 0.75, 0.80, 0.16, 0.08, 0.12, 0.33, 0.26, 1.10, 0.50),
    _Kind(5.20, 1.85, 1.75, 1.08, 1.15, 0.70, 2.10, 0.15, 0.27, 0.38, 0.36, 0.95, 0.80),
    _Kind(5.95, 2.00, 2.15, 1.20, 0.60, 0.60, 4.00, 0.10, 0.12, 0.38, 0.42, 1.10, 0.00, 2.8),
)
SHARES = (0.27, 0.25, 0.24, 0.12, 0.06, 0.06)


class _Body:
    """The painted shell; `s` is the distance from the nose along the car in m."""

    def __init__(self, kind: _Kind) -> None:
        self.kind = kind
        length, belt, half = kind.length, kind.belt, kind.width / 2
        self.roof = kind.bonnet + kind.windscreen
        self.roof_end = length - kind.tail
        self.deck = self.roof_end + kind.rear_run
        drop = 0.04 if self.deck_length > 0.4 else 0.10
        self.top_line = np.array(
            [
                (0.0, 0.78 * belt),
                (0.10, 0.86 * belt),
                (0.30, 0.91 * belt),
                (kind.bonnet, belt + 0.05),
                (self.roof, kind.height - 0.05),
                ((self.roof + self.roof_end) / 2, kind.height),
                (self.roof_end, kind.height - 0.05),
                (self.deck, belt + 0.06),
                (length - 0.05, belt + 0.06 - drop),
                (length, belt - 0.04 - drop),
            ]
        )
        front = [(0, 0.82 * half), (0.10, 0.91 * half), (0.45, 0.99 * half), (0.70, half)]
        back = [(length - 0.6, half), (length - 0.1, 0.95 * half), (length, 0.89 * half)]
        self.half_width_line = np.array(front + back)
        self.axles = (0.55 + 0.9 * kind.wheel, length - 0.50 - 0.9 * kind.wheel)
        self.floor_line = np.array(
            [(0, kind.sill + 0.06), (0.15, kind.sill)]
            + [point for axle in self.axles for point in self._arch(axle)]
            + [(length - 0.1, kind.sill), (length, kind.sill + 0.08)]
        )

    @property
    def deck_length(self) -> float:
        """Length in m of the boot lid or bed behind the cabin."""
        return self.kind.length - self.deck

    def _arch(self, axle: float) -> list[tuple[float, float]]:
        radius = self.kind.wheel + 0.055
        s = axle + radius * np.array([-1, -0.7, 0, 0.7, 1])
        z = self.kind.wheel + radius * np.array([0, 0.72, 1, 0.72, 0])
        z[[0, -1]] = self.kind.sill
        return list(zip(s.tolist(), z.tolist(), strict=True))

    def sections(self, s: ArrayLike) -> NDArray[np.float64]:
        """Cross-sections (S, 12, 3) m at `s` (S,), counter-clockwise seen from the front.

        The first half is the left side: two points of the floor, the waist, the shoulder below
        the windows, the edge of the roof, and the roof.
        """
        s = np.asarray(s, np.float64)
        top, half, floor = (
            np.interp(s, *line.T) for line in (self.top_line, self.half_width_line, self.floor_line)
        )
        crown_at = [self.kind.bonnet, self.roof, self.roof_end, self.deck]
        edge = top - np.interp(s, crown_at, [0.03, 0.06, 0.06, 0.03])
        shoulder = np.minimum(self.kind.belt, edge - 0.04)
        waist = np.maximum(0.62 * self.kind.belt, floor + 0.03)
        y_shoulder = 0.965 * half
        # One lean for the whole cabin keeps its sides plane, so that flat panes fit on them.
        y_edge = y_shoulder - self.kind.lean * (edge - shoulder)
        y = np.stack([0.6 * half, 0.96 * half, half, y_shoulder, y_edge, 0.7 * y_edge], -1)
        z = np.stack([floor, floor + 0.02, waist, shoulder, edge, top], -1)
        x = np.repeat(self.kind.length / 2 - s, 12).reshape(-1, 12)
        return np.stack([x, np.hstack([y, -y[:, ::-1]]), np.hstack([z, z[:, ::-1]])], -1)

    def shell(self, paint: Part) -> Mesh:
        lines = (self.top_line, self.half_width_line, self.floor_line)
        stations = np.unique(np.concatenate([line[:, 0] for line in lines]))
        stations = stations[np.diff(stations, prepend=-1.0) > 0.02]
        return loft(self.sections(stations[::-1]), paint, 1.5)

    def on_left(self, s: ArrayLike, z: ArrayLike) -> NDArray[np.float64]:
        """Points (N, 3) m just outside the left side at `s` (N,) and heights `z` (N,) m."""
        rings = self.sections(s)
        heights = np.broadcast_to(np.asarray(z, np.float64), len(rings))
        y = [np.interp(h, r[1:5, 2], r[1:5, 1]) for h, r in zip(heights, rings, strict=True)]
        return np.column_stack([rings[:, 0, 0], np.array(y) + RELIEF, heights])


def _both_sides(faces: ArrayLike, part: Part, uv: ArrayLike = WHOLE_TILE) -> Mesh:
    """Faces (Q, 4, 3) of the left side, and their mirror images on the right."""
    left = np.asarray(faces, np.float64).reshape(-1, 4, 3)
    uv = np.broadcast_to(np.asarray(uv, np.float64), (len(left), 4, 2))
    mirrored = [1, 0, 3, 2]
    right = left[:, mirrored] * (1, -1, 1)
    return join([quads(left, part, uv), quads(right, part, uv[:, mirrored])])


def _strip(low: NDArray[np.float64], high: NDArray[np.float64]) -> NDArray[np.float64]:
    """Faces (N - 1, 4, ...) between two lines of points (N, ...), which run to the right."""
    return np.stack([low[:-1], low[1:], high[1:], high[:-1]], 1)


def _strip_uv(u: ArrayLike) -> NDArray[np.float64]:
    """Texture coordinates of a strip whose points have `u` (N,)."""
    u = np.asarray(u, np.float64)
    return _strip(np.stack([u, np.ones_like(u)], -1), np.stack([u, np.zeros_like(u)], -1))


def _box(centre: ArrayLike, size: ArrayLike, part: Part) -> Mesh:
    solid = trimesh.creation.box(np.asarray(size))
    solid.apply_translation(np.asarray(centre))
    return from_trimesh(solid, part, 2.0)


def _slope_pane(body: _Body, s_low: float, s_high: float, glass: Part) -> Mesh:
    """A windscreen or rear window from `s_low` at its lower to `s_high` at its upper edge."""
    low, high = body.sections([s_low, s_high])[:, 4:8]  # (4, 3) each, from left to right
    for line in (low, high):
        line[[0, 3]] += 0.15 * (line[[1, 2]] - line[[0, 3]])
    if s_low < s_high:  # seen from in front, the car's left is on the right
        low, high = low[::-1], high[::-1]
    faces = _strip(low, high)
    outwards = np.cross(low[2] - low[1], high[1] - low[1])
    faces += RELIEF * outwards / np.linalg.norm(outwards)
    return quads(faces, glass, _strip_uv([0, 0.15, 0.85, 1]))


def _panes(body: _Body, glass: Part, only_first: bool) -> list[Mesh]:
    """All windows; the sides of a delivery van have only the first ones."""
    kind = body.kind
    edge_line = body.sections([kind.bonnet, body.roof, body.roof_end, body.deck])[:, 4, 2]
    z = np.array([kind.belt + 0.03, edge_line[1] - 0.05])
    first = np.interp(z, edge_line[:2], [kind.bonnet, body.roof]) + 0.09
    last = np.interp(z, edge_line[:1:-1], [body.deck, body.roof_end]) - 0.12
    count = max(1, round((last.mean() - first.mean()) / kind.pane))
    posts = np.linspace(first, last, count + 1)  # (count + 1, 2) s at the lower and upper edge
    if count > 1:  # only the outermost ones follow the slopes of the ends
        posts[1:-1] = posts[1:-1].mean(axis=1, keepdims=True)
    gap = 0.035
    left, right = posts[:-1] + gap, np.maximum(posts[1:] - gap, posts[:-1] + gap + 0.02)
    s = np.stack([left[:, 0], right[:, 0], right[:, 1], left[:, 1]], 1)
    s = s[:1] if only_first else s
    sides = body.on_left(s.ravel(), np.tile(z[[0, 0, 1, 1]], len(s)))
    rear = body.roof_end + kind.rear_run * np.array([0.08, kind.rear_pane])
    panes = [
        _both_sides(sides, glass),
        _slope_pane(body, kind.bonnet + 0.05, body.roof - 0.06 * kind.windscreen, glass),
    ]
    if kind.rear_pane > 0:
        panes.append(_slope_pane(body, rear[1], rear[0], glass))
    return panes


def _seams(body: _Body, dark: Part) -> Mesh:
    """Gaps round the front doors, and dark rocker panels between the wheels."""
    kind, faces = body.kind, []
    rows = np.array([kind.sill + 0.14, 0.62 * kind.belt, kind.belt - 0.01])
    for s in (kind.bonnet + 0.30, kind.bonnet + 0.30 + kind.pane):
        line = body.on_left(np.full(3, s), rows)
        faces.append(_strip(line, line - (0.018, 0, 0))[:, [0, 3, 2, 1]])
    s = np.array([body.axles[0] + kind.wheel + 0.07, body.axles[1] - kind.wheel - 0.07])
    faces.append(_strip(body.on_left(s, kind.sill + 0.01), body.on_left(s, kind.sill + 0.12)))
    return _both_sides(np.concatenate(faces), dark)


def _wheels(body: _Body, tyre: Part, rim: Part) -> list[Mesh]:
    kind, sides = body.kind, 12
    angle = 2 * np.pi * np.arange(sides) / sides
    fan = [(0, i, i + 1, i + 2) for i in range(1, sides - 2, 2)]
    disc_uv = np.stack([0.5 + 0.5 * np.cos(angle), 0.5 - 0.5 * np.sin(angle)], -1)[fan]
    meshes = []
    for s in body.axles:
        for side in (1, -1):
            # Seen from outside the circle runs counter-clockwise on either side of the car.
            x = kind.length / 2 - s - side * kind.wheel * np.cos(angle)
            z = kind.wheel * (1 + np.sin(angle))
            reach = np.array([kind.width / 2 - 0.20, kind.width / 2 + 0.01])
            rings = np.stack([np.stack([x, np.full(sides, side * y), z], -1) for y in reach])
            meshes += [
                loft(rings, tyre, 0.5, caps=False),
                quads(rings[1][fan], rim, disc_uv),
                quads(rings[0][fan][:, ::-1], tyre),
            ]
    return meshes


def _bumper(body: _Body, front: bool, part: Part) -> Mesh:
    kind = body.kind
    half, end = kind.width / 2, kind.length / 2
    right = np.array([(end - 0.3, -1.0), (end, -0.95), (end + 0.05, -0.66)])
    plan = np.vstack([right, right[::-1] * (1, -1)]) * (1, half)
    if not front:
        plan = -plan  # half a turn
    heights = kind.sill + np.array([0.06, 0.28])
    return loft([np.column_stack([plan, np.full(6, z)]) for z in heights], part, 1.5)


def _lamps(body: _Body, front: bool, lamp: Part, height: float, tall: float) -> Mesh:
    """Lamps on both corners of one end, which reach round onto the sides."""
    s = np.array([0.0, 0.10, 0.30]) if front else body.kind.length - np.array([0.0, 0.10, 0.22])
    rows = []
    for z in (height - tall / 2, height + tall / 2):
        side = body.on_left(s, z)
        side[0, 0] += RELIEF if front else -RELIEF
        rows.append(np.vstack([side[0] * (1, 0.45, 1), side]))
    uv = _strip_uv([0, 0.65, 0.8, 1])
    if front:
        return _both_sides(_strip(*rows), lamp, uv)
    return _both_sides(_strip(*rows)[:, [1, 0, 3, 2]], lamp, uv[:, [1, 0, 3, 2]])


def _ends(body: _Body, random: Generator, bumper: Part) -> list[Mesh]:
    """Lamps, grille, bumpers and number plates."""
    kind = body.kind
    end, half = kind.length / 2, kind.width / 2
    front_height, back_height = 0.68 * kind.belt, kind.belt - 0.24
    if kind.box:
        back_height = kind.sill + 0.36

    def upright(x: float, y: float, z: tuple[float, float]) -> list[tuple[float, float, float]]:
        turn = np.sign(x)
        return [
            (x, -turn * y, z[0]),
            (x, turn * y, z[0]),
            (x, turn * y, z[1]),
            (x, -turn * y, z[1]),
        ]

    plate_x, plate_z = end + 0.05 + RELIEF, (kind.sill + 0.11, kind.sill + 0.23)
    plates = [upright(x, 0.26, plate_z) for x in (plate_x, -plate_x)]
    grille = upright(end + RELIEF, 0.33 * half, (front_height - 0.10, front_height + 0.05))
    return [
        _lamps(body, True, random_part(random, 'headlight'), front_height, 0.14),
        _lamps(body, False, random_part(random, 'taillight'), back_height, 0.18),
        _bumper(body, True, bumper),
        _bumper(body, False, bumper),
        quads(plates, random_part(random, 'plate')),
        quads(grille, random_part(random, 'grille')),
    ]


def _load(body: _Body, dark: Part, walls: Part) -> list[Mesh]:
    """The box of a truck or the open bed of a pickup."""
    kind = body.kind
    first, last = body.deck + 0.06, kind.length - 0.08
    if kind.box:
        floor = 0.72 * kind.belt
        size = (last - first + 0.10, kind.width + 0.08, kind.box - floor)
        return [_box(((kind.length - first - last) / 2, 0, floor + size[2] / 2), size, walls)]
    if body.deck_length > 1.2:
        ends = body.sections([last, first])[:, 5] + (0, 0.05, RELIEF)
        back, front = ends
        return [quads([back * (1, -1, 1), front * (1, -1, 1), front, back], dark)]
    return []


def car(random: Generator) -> Mesh:
    """Draw one vehicle.

    Args:
        random: Source of all draws.

    Returns:
        Facing +x, the middle of its bounding box at x = y = 0, its wheels on z = 0; m.

    """
    typical = np.array(astuple(KINDS[random.choice(len(KINDS), p=SHARES)]))
    kind = _Kind(*(typical * random.uniform(0.95, 1.05, len(typical))).tolist())
    body = _Body(kind)
    paint = random_part(random, 'car_body')
    darkness = random.uniform(0.06, 0.16)
    dark = random_part(random, 'plain', (darkness, darkness, darkness))
    trim = paint if random.random() < 0.6 else dark
    glass = random_part(random, 'glass')
    delivery = kind.height > 1.9 and random.random() < 0.6
    walls = random_part(random, 'metal' if random.random() < 0.5 else 'plain')
    mirror = np.array(
        [kind.length / 2 - kind.bonnet - 0.32, kind.width / 2 + 0.05, kind.belt + 0.07]
    )
    under = (kind.length - 0.5, kind.width - 0.48, 0.62 * kind.belt - kind.sill)
    mesh = join(
        [
            body.shell(paint),
            *_panes(body, glass, delivery),
            _seams(body, dark),
            *_wheels(body, random_part(random, 'tyre'), random_part(random, 'wheel')),
            *_ends(body, random, trim),
            *(_box(mirror * (1, side, 1), (0.12, 0.18, 0.14), trim) for side in (1, -1)),
            _box((0, 0, kind.sill + under[2] / 2), under, dark),
            *_load(body, dark, walls),
        ]
    )
    x = mesh.corners[..., 0]
    return mesh.moved((-(x.min() + x.max()) / 2, 0, 0))
