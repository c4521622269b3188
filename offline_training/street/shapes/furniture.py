# SPDX-License-Identifier: Apache-2.0
"""Street furniture: lamps, lights, signs, bollards and poles; and the solids they are built of."""

from __future__ import annotations

import numpy as np
import trimesh
from numpy.typing import ArrayLike

from offline_training.street.shapes.looks import random_part, shade
from offline_training.street.shapes.mesh import Mesh, Part, from_trimesh, join, loft, quads

# How far posts and trunks reach below z = 0 (m), so that they stand on sloping ground too.
ROOT = 0.2


def box(low: ArrayLike, high: ArrayLike, part: Part, metres_per_tile: float = 2.0) -> Mesh:
    """Build an upright box between two opposite corners (3,) m."""
    solid = trimesh.creation.box(bounds=np.array([low, high], np.float64))
    return from_trimesh(solid, part, metres_per_tile)


def tube(
    path: ArrayLike,
    radii: ArrayLike,
    part: Part,
    *,
    sides: int = 6,
    metres_per_tile: float = 1.0,
    caps: bool = True,
) -> Mesh:
    """Build a round rod along a path.

    Args:
        path: (S, 3) m, not turning by more than about 90 degrees in all.
        radii: m, one or S of them.
        part: Surface.
        sides: Corners of its cross-section.
        metres_per_tile: Edge of one repetition of the texture.
        caps: Whether its ends are closed.

    """
    path = np.asarray(path, np.float64)
    along = np.gradient(path, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    across = np.eye(3)[np.abs(along.sum(axis=0)).argmin()]
    first = np.cross(along, across)
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    second = np.cross(along, first)
    angle = np.linspace(0, 2 * np.pi, sides, endpoint=False)[None, :, None]
    ring = np.cos(angle) * first[:, None] + np.sin(angle) * second[:, None]  # (S, sides, 3)
    rings = path[:, None] + np.broadcast_to(radii, len(path))[:, None, None] * ring
    return loft(rings, part, metres_per_tile, caps=caps)


def _post(part: Part, height: float, radii: tuple[float, float], sides: int = 6) -> Mesh:
    return tube([[0, 0, -ROOT], [0, 0, height]], radii, part, sides=sides)


def lamp_post(random: np.random.Generator) -> Mesh:
    """Draw a street lamp of 3-9 m whose arm, if any, reaches towards +x."""
    metal, head = random_part(random, 'metal'), random_part(random, 'metal')
    light = random_part(random, 'plain', (0.95, 0.95, 0.9))
    foot = random.uniform(0.06, 0.12)
    kind = random.choice(['lantern', 'curved', 'straight', 'double'], p=[0.3, 0.3, 0.25, 0.15])
    height = random.uniform(2.8, 4.5) if kind == 'lantern' else random.uniform(5.0, 8.5)
    post = _post(metal, height, (foot, 0.55 * foot), sides=8)
    sleeve = tube(
        [[0, 0, -ROOT], [0, 0, random.uniform(0.3, 1.2)]],
        foot * random.uniform(1.2, 1.6),
        metal,
        sides=8,
    )
    solids = [post, sleeve]
    if kind == 'lantern':
        wide = random.uniform(0.14, 0.24)
        tall = wide * random.uniform(1.4, 2.4)
        levels = height + np.array([0.0, tall, tall + 0.04, tall + 0.25])
        axis = np.column_stack([np.zeros(4), np.zeros(4), levels])
        bulge = random.uniform(0.6, 1.0)
        solids += [
            tube(axis[:2], [bulge * wide, wide], light, sides=6),
            tube(axis[1:], [1.15 * wide, 1.15 * wide, 0.02], head, sides=6),
        ]
        return join(solids)
    reach = random.uniform(0.5, 2.2)
    rise = random.uniform(0.3, 0.9) if kind == 'curved' else random.uniform(-0.05, 0.25)
    bend = np.linspace(0, np.pi / 2, 4 if kind == 'curved' else 2)
    arm = np.column_stack(
        [reach * (1 - np.cos(bend)), 0 * bend, height - 0.05 + rise * np.sin(bend)]
    )
    size = random.uniform((0.4, 0.09, 0.06), (0.8, 0.17, 0.13))
    for side in (1, -1) if kind == 'double' else (1,):
        tip = arm[-1] * (side, 1, 1)
        near, far = tip[0] - 0.1 * side, tip[0] + size[0] * side
        solids += [
            tube(arm * (side, 1, 1), 0.5 * foot, metal, sides=5),
            box(
                (min(near, far), -size[1], tip[2] - size[2] / 2),
                (max(near, far), size[1], tip[2] + size[2] / 2),
                head,
            ),
            box(
                (min(near, far) + 0.12, -0.8 * size[1], tip[2] - size[2] / 2 - 0.04),
                (max(near, far) - 0.06, 0.8 * size[1], tip[2] - size[2] / 2),
                light,
            ),
        ]
    return join(solids)


def _signal(random: np.random.Generator, housing: Part, at: ArrayLike, lenses: int) -> Mesh:
    """Build a signal head that faces +x; the top middle of its back is at (3,) m."""
    x, y, top = np.asarray(at, np.float64)
    lens, lit = random.uniform(0.1, 0.13), int(random.integers(lenses))
    wide, pitch = 1.5 * lens, 2.5 * lens
    lamps = ((0.9, 0.12, 0.08), (0.95, 0.6, 0.08), (0.1, 0.85, 0.4))
    colours = lamps if lenses == 3 else lamps[::2]
    solids = [box((x, y - wide, top - lenses * pitch), (x + 0.18, y + wide, top), housing)]
    angle = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    for i, colour in enumerate(colours):
        z = top - (i + 0.5) * pitch
        part = shade(random_part(random, 'plain', colour), 1.0 if i == lit else 0.3)
        disc = np.column_stack(
            [np.full(8, x + 0.19), y + lens * np.cos(angle), z + lens * np.sin(angle)]
        )
        solids.append(_polygon(disc, part, np.zeros((8, 2))))
        for side in (-1, 1):  # the visor: two panes that meet above the lens
            low, high = (y + side * lens, z + 0.3 * lens), (y, z + 1.2 * lens)
            first, second = (low, high) if side > 0 else (high, low)
            pane = [
                (x + 0.18, *first),
                (x + 0.38, *first),
                (x + 0.38, *second),
                (x + 0.18, *second),
            ]
            solids.append(quads([pane], housing))
    return join(solids)


def _polygon(corners: ArrayLike, part: Part, uv: ArrayLike) -> Mesh:
    """Build a convex flat face: (K, 3) m, counter-clockwise seen from outside; (K, 2) tiles."""
    corners, uv = np.asarray(corners, np.float32), np.asarray(uv, np.float32)
    second = np.arange(1, len(corners) - 1)
    fan = np.column_stack([0 * second, second, second + 1])
    return Mesh(corners[fan], uv[fan], np.zeros(len(fan), np.int32), (part,))


def traffic_light(random: np.random.Generator) -> Mesh:
    """Draw a traffic light of 2.6-6 m that shows its lenses towards +x."""
    metal, housing = random_part(random, 'metal'), random_part(random, 'metal')
    housing = shade(housing, 0.5)
    radius = random.uniform(0.05, 0.09)
    has_arm = random.random() < 0.35
    height = random.uniform(4.8, 6.0) if has_arm else random.uniform(2.6, 3.8)
    solids = [_post(metal, height, (radius, 0.85 * radius))]
    lower = min(height, 3.4) - 0.05
    solids.append(_signal(random, housing, (radius, 0, lower), 3))
    if has_arm:
        reach = random.uniform(2.0, 4.0)
        solids.append(
            tube([[0, 0, height - 0.2], [0, -reach, height]], 0.7 * radius, metal, sides=5)
        )
        solids.append(_signal(random, housing, (0.6 * radius, -reach + 0.2, height + 0.3), 3))
    if random.random() < 0.5:
        man = _signal(random, housing, (radius, 0, lower - 0.9), 2)
        solids.append(man.moved((0, 0, 0), random.choice([-1, 1]) * np.pi / 2))
    if random.random() < 0.5:
        solids.append(
            box((-0.12, -0.09, 0.9), (radius + 0.03, 0.09, 1.2), random_part(random, 'plain'))
        )
    return join(solids)


def _plate(kind: str, centre: ArrayLike, size: float, front: Part, back: Part) -> Mesh:
    """Build a plate that faces +x: 'round', 'triangle', 'diamond' or 'board', `size` m wide."""
    angles, ratio = {
        'round': (np.linspace(0, 2 * np.pi, 14, endpoint=False), 1.0),
        'triangle': (np.array([np.pi / 2, 7 * np.pi / 6, 11 * np.pi / 6]), 1.0),
        'diamond': (np.array([0, 0.5, 1, 1.5]) * np.pi, 1.0),
        'board': (np.array([0.25, 0.75, 1.25, 1.75]) * np.pi, 0.3 + 1.1 * size % 1.1),
    }[kind]
    flat = np.column_stack([np.cos(angles), np.sin(angles)])
    flat = flat / np.abs(flat).max(axis=0) * (0.5, 0.5)  # fills one tile
    uv = np.column_stack([0.5 + flat[:, 0], 0.5 - flat[:, 1]])
    shape = flat * (size, ratio * size)
    outline = np.column_stack([0 * angles, shape]) + np.asarray(centre)
    return join(
        [
            _polygon(outline, front, uv),
            _polygon(outline[::-1] - (0.02, 0, 0), back, uv[::-1]),
        ]
    )


def sign_post(random: np.random.Generator) -> Mesh:
    """Draw a thin post of 2-3.4 m with one or two plates that face +x."""
    metal = random_part(random, 'metal')
    radius, height = random.uniform(0.03, 0.05), random.uniform(2.0, 3.4)
    solids = [_post(metal, height, (radius, radius))]
    top = height + random.uniform(-0.05, 0.1)
    for _ in range(1 + (random.random() < 0.4)):
        kind = random.choice(['round', 'triangle', 'diamond', 'board'], p=[0.4, 0.2, 0.1, 0.3])
        size = random.uniform(0.45, 0.8)
        front = random_part(random, 'sign')
        solids.append(_plate(kind, (radius + 0.03, 0, top - size / 2), size, front, metal))
        top -= size + random.uniform(0.03, 0.1)
    return join(solids)


def bollard(random: np.random.Generator) -> Mesh:
    """Draw a bollard of 0.8-1.1 m: round or square, plain, capped or with a band."""
    body = random_part(random, str(random.choice(['metal', 'concrete', 'plain', 'wood'])))
    radius, height = random.uniform(0.05, 0.12), random.uniform(0.8, 1.1)
    sides = 4 if random.random() < 0.25 else 8
    dome = random.uniform(0.02, 0.1)
    top = [height - dome, height - 0.4 * dome, height]
    neck = random.uniform(0.7, 1.0)
    path = [[0, 0, z] for z in (-ROOT, 0.7 * height, *top)]
    solids = [
        tube(
            path,
            [radius, radius * neck, radius * neck, 0.8 * radius * neck, 0.02],
            body,
            sides=sides,
        )
    ]
    if random.random() < 0.6:
        band = random_part(random, 'plain')
        solids.append(
            tube([[0, 0, 0.75 * height], [0, 0, 0.86 * height]], 1.12 * radius, band, sides=sides)
        )
    return join(solids)


def utility_pole(random: np.random.Generator) -> Mesh:
    """Draw a pole of 6-9 m for wires, with cross arms along x, of wood or concrete."""
    body = random_part(random, str(random.choice(['wood', 'bark', 'concrete'])))
    timber, ceramic = random_part(random, 'wood'), random_part(random, 'plain')
    height, foot = random.uniform(6.0, 8.8), random.uniform(0.11, 0.19)
    solids = [_post(body, height, (foot, 0.65 * foot), sides=8)]
    for i in range(int(random.integers(1, 3))):
        z, half = height - 0.3 - 0.8 * i, random.uniform(0.6, 1.2)
        solids.append(
            box((foot * 0.6, -half, z - 0.06), (foot * 0.6 + 0.1, half, z + 0.06), timber)
        )
        for y in (-0.9 * half, -0.45 * half, 0.45 * half, 0.9 * half):
            foot_of = [foot * 0.6 + 0.05, y, z + 0.05]
            solids.append(tube([foot_of, [foot_of[0], y, z + 0.22]], 0.045, ceramic, sides=4))
    if random.random() < 0.4:
        z = height - random.uniform(1.6, 2.2)
        can = tube([[0, -0.3, z - 0.8], [0, -0.3, z]], 0.22, random_part(random, 'metal'), sides=8)
        solids.append(can)
    if random.random() < 0.4:
        stay = random.uniform(0.8, 1.5) * random.choice([-1, 1])
        solids.append(tube([[0, stay, -ROOT], [0, 0, 0.55 * height]], 0.6 * foot, body, sides=5))
    return join(solids)
