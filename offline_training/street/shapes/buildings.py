# SPDX-License-Identifier: Apache-2.0
"""Houses of bays and storeys with all that sticks out; garden walls, fences and shelters."""

from __future__ import annotations

import numpy as np

from offline_training.street.shapes.furniture import ROOT, box, tube
from offline_training.street.shapes.looks import random_part, shade
from offline_training.street.shapes.mesh import Mesh, join, quads
from offline_training.street.shapes.roofs import ROOFS, Block, Look, face, slab

FOUNDATION_M = 2.0  # depth of walls below z = 0, where the ground falls away


def _front(
    random: np.random.Generator, block: Block, look: Look, shops: bool, entrance: int
) -> list[Mesh]:
    """Build the front, bay by bay; its entrance may lie back in a niche."""
    solids = []
    accents = set(np.flatnonzero(random.random(block.bays) < 0.25).tolist())
    niche = random.uniform(0.4, 1.0) if random.random() < 0.35 else 0.0
    shop = random_part(random, 'shopfront', look.window.tint)
    for storey in range(block.storeys):
        low, high = block.level(storey), block.level(storey + 1)
        for index in range(block.bays):
            left, right = block.bay(index)
            part = look.other_window if index in accents else look.window
            if storey == 0 and (shops or index == entrance):
                part = look.door if index == entrance else shop
            y = block.front
            if storey == 0 and index == entrance and niche:
                solids += _niche(left, right, y, high, niche, look)
                y += niche
            solids.append(face((left, y), (right, y), low, high, part))
    return solids


def _niche(left: float, right: float, y: float, high: float, deep: float, look: Look) -> list[Mesh]:
    ceiling = [(left, y, high), (left, y + deep, high), (right, y + deep, high), (right, y, high)]
    floor = [(left, y, 0.0), (right, y, 0.0), (right, y + deep, 0.0), (left, y + deep, 0.0)]
    return [
        face((left, y), (left, y + deep), 0, high, look.wall),
        face((right, y + deep), (right, y), 0, high, look.wall),
        quads([ceiling, floor], look.trim),
    ]


def _shell(random: np.random.Generator, block: Block, look: Look) -> list[Mesh]:
    """Build side and back walls, and the foundation all around."""
    left, right, front, back = block.left, block.right, block.front, block.back
    ring = [(left, front), (right, front), (right, back), (left, back), (left, front)]
    solids = []
    for side in range(4):
        start, end = ring[side], ring[side + 1]
        solids.append(face(start, end, -FOUNDATION_M, 0.0, look.wall))
        if side:
            windows = random.random() < 0.35
            solids.append(face(start, end, 0.0, block.eaves, look.window if windows else look.wall))
    return solids


def _ledges(random: np.random.Generator, block: Block, look: Look) -> list[Mesh]:
    """Run a plinth, ledges between storeys, corner stones and downpipes over the front."""
    solids = []
    y, out = block.front, random.uniform(0.04, 0.15)
    plinth, left, right = random_part(random, 'concrete'), block.left, block.right
    high = random.uniform(0.15, 0.6)
    solids.append(box((left - 0.04, y - 0.05, -FOUNDATION_M), (right + 0.04, y, high), plinth))
    if block.bays * block.storeys <= 6 or (
        block.bays * block.storeys <= 16 and random.random() < 0.5
    ):
        for storey in range(block.storeys):
            for index in range(block.bays):
                solids.append(_lintel(block, storey, index, look))
    every = random.choice(['none', 'first', 'all'])
    for storey in range(1, {'none': 1, 'first': 2, 'all': block.storeys}[str(every)]):
        z = block.level(storey)
        solids.append(box((block.left, y - out, z - 0.1), (block.right, y, z + 0.1), look.trim))
    if random.random() < 0.3:
        for x in (block.left, block.right - 0.4):
            solids.append(box((x, y - 0.06, 0), (x + 0.4, y, block.eaves), look.trim))
    pipe = random_part(random, 'metal')
    pipes = [block.left + 0.15, block.right - 0.15]
    for x in pipes[: int(random.integers(1, 3))]:
        path = [(x, y - 0.1, -0.5), (x, y - 0.1, block.eaves)]
        solids.append(tube(path, 0.05, pipe, sides=5, caps=False))
    return solids


def _lintel(block: Block, storey: int, index: int, look: Look) -> Mesh:
    left, right = block.bay(index)
    z, middle = block.level(storey) + 2.6, (left + right) / 2
    low = (middle - 0.27 * (right - left), block.front - 0.1, z - 0.06)
    return box(low, (middle + 0.27 * (right - left), block.front, z), look.trim)


def _balconies(random: np.random.Generator, block: Block, look: Look) -> list[Mesh]:
    """Hang balconies on some bays of the upper storeys."""
    rail = random_part(random, str(random.choice(['metal', 'glass', 'wood', 'plain'])))
    deep, wide = random.uniform(0.6, 1.4), random.uniform(0.7, 1.0)
    bays = np.flatnonzero(random.random(block.bays) < 0.5)[:2]
    y, solids = block.front, []
    for storey in range(1, min(block.storeys, 5)):
        z = block.level(storey)
        for index in bays:
            left, right = block.bay(int(index))
            trim = (1 - wide) / 2 * (right - left)
            left, right = left + trim, right - trim
            top = z + 1.0
            solids += [
                box((left, y - deep, z - 0.15), (right, y, z), look.trim),
                box((left, y - deep, z), (right, y - deep + 0.06, top), rail),
                face((left, y), (left, y - deep), z, top, rail),
                face((right, y - deep), (right, y), z, top, rail),
            ]
    return solids


def _oriel(random: np.random.Generator, block: Block, look: Look) -> list[Mesh]:
    """Build a bay window with slanting sides, from the ground or from the first floor up."""
    left, right = block.bay(int(random.integers(block.bays)))
    out = random.uniform(0.4, 0.9)
    first = int(random.integers(0, 2)) if block.storeys > 1 else 0
    last = block.storeys if random.random() < 0.5 else first + 1
    low, high = block.level(first), block.level(last)
    y, slant = block.front, random.uniform(0.05, 0.5)
    ring = [
        (left + 0.2, y),
        (left + 0.2 + slant, y - out),
        (right - 0.2 - slant, y - out),
        (right - 0.2, y),
    ]
    solids = [face(ring[i], ring[i + 1], low, high, look.other_window) for i in range(3)]
    lid = np.array([(x, y, high) for x, y in ring])
    floor = np.array([(x, y, low) for x, y in ring[::-1]])
    solids.append(quads(np.stack([lid, floor]), look.trim))
    if first == 0:
        solids += [face(ring[i], ring[i + 1], -FOUNDATION_M, 0.0, look.wall) for i in range(3)]
    return solids


def _entrance(random: np.random.Generator, block: Block, look: Look, index: int) -> list[Mesh]:
    """Put steps, posts and a roof, or only a canopy, before the entrance."""
    left, right = block.bay(index)
    middle, y = (left + right) / 2, block.front
    half, out = random.uniform(0.8, 1.4), random.uniform(0.6, 1.0)
    z = block.ground - 0.3
    solids = []
    if random.random() < 0.6:
        for step in range(int(random.integers(1, 4))):
            tread = y - out + 0.3 * step
            if tread < y - 0.1:
                high = 0.15 * (step + 1)
                low = (middle - half, tread, -FOUNDATION_M)
                solids.append(box(low, (middle + half, y, high), look.trim))
    solids.append(box((middle - half, y - out, z), (middle + half, y, z + 0.15), look.trim))
    if random.random() < 0.5:
        for x in (middle - half + 0.1, middle + half - 0.1):
            path = [(x, y - out + 0.1, -0.5), (x, y - out + 0.1, z)]
            solids.append(tube(path, random.uniform(0.05, 0.12), look.trim))
    return solids


def _awnings(random: np.random.Generator, block: Block) -> list[Mesh]:
    """Hang awnings or a sign band over the shops."""
    cloth = random_part(random, 'cloth')
    out, y = random.uniform(0.7, 1.4), block.front
    low, high = 2.35, min(block.ground - 0.1, 3.0)
    solids = []
    for index in np.flatnonzero(random.random(block.bays) < 0.6):
        left, right = block.bay(int(index))
        lid = [
            (left + 0.15, y - out, low),
            (right - 0.15, y - out, low),
            (right - 0.15, y, high),
            (left + 0.15, y, high),
        ]
        solids.append(slab(lid, 0.12, cloth, cloth))
    band = random_part(random, 'plain')
    left, right = block.left + 0.3, block.right - 0.3
    if random.random() < 0.5:
        solids.append(box((left, y - 0.12, high), (right, y, high + 0.6), band))
    return solids


def _house(random: np.random.Generator, block: Block, look: Look, roof: int) -> Mesh:
    """Build one block with its roof and all that sticks out of its front."""
    entrance = int(random.integers(block.bays))
    shops = block.storeys > 1 and random.random() < 0.35
    solids = _front(random, block, look, shops, entrance) + _shell(random, block, look)
    solids += ROOFS[roof](random, block, look) + _ledges(random, block, look)
    if shops:
        solids += _awnings(random, block)
    elif random.random() < 0.7:
        solids += _entrance(random, block, look, entrance)
    if block.storeys > 1 and random.random() < 0.4:
        solids += _balconies(random, block, look)
    elif random.random() < 0.4:
        solids += _oriel(random, block, look)
    return join(solids)


def building(random: np.random.Generator, width: float, depth: float) -> Mesh:
    """Draw a house whose front stands on y = 0 and looks towards -y.

    Args:
        random: Source of all draws.
        width: m; the front reaches from -width / 2 to width / 2.
        depth: m; the back wall stands on y = depth.

    Returns:
        Its triangles. Walls reach down to z = -2 m. Balconies, awnings, steps and eaves stick
        out up to 1.4 m before the front, and eaves 0.7 m beyond the other walls.

    """
    look = Look.draw(random)
    storeys = 1 + int(random.choice(6, p=[0.14, 0.3, 0.24, 0.16, 0.1, 0.06]))
    ground, storey = random.uniform(2.9, 3.8), random.uniform(2.7, 3.2)
    # Tall houses are more often flat on top, low ones hardly ever.
    shares = [0.45, 0.2, 0.15, 0.2] if storeys > 3 else [0.2, 0.4, 0.25, 0.15]
    left, right, wing = -width / 2, width / 2, []
    if width > 9.5 and random.random() < 0.4:
        # A lower wing, such as a garage, that stands back.
        lower, back_by = int(random.integers(1, max(2, storeys))), random.uniform(0.0, 2.0)
        part = random.uniform(3.0, 0.4 * width)
        low = Block(right - part, right, back_by, depth, ground, storey, lower)
        right -= part
        wing = [_house(random, low, look, int(random.choice(3, p=[0.6, 0.2, 0.2])))]
    main = Block(left, right, 0.0, depth, ground, storey, storeys)
    mesh = join([_house(random, main, look, int(random.choice(4, p=shares))), *wing])
    if wing and random.random() < 0.5:
        mesh = _mirrored(mesh)
    return mesh


def _mirrored(mesh: Mesh) -> Mesh:
    """Swap left and right; the order of corners turns so that faces still look outwards."""
    corners = mesh.corners[:, ::-1] * np.array([-1, 1, 1], np.float32)
    uv = mesh.uv[:, ::-1] * np.array([-1, 1], np.float32)
    return Mesh(corners, uv, mesh.part, mesh.parts)


def garden_wall(random: np.random.Generator, length: float) -> Mesh:
    """Draw a low wall, a railing or a fence of 0.5-1.6 m along x, `length` m long, centred."""
    kind = str(random.choice(['masonry', 'railing', 'pickets', 'boards'], p=[0.4, 0.2, 0.2, 0.2]))
    if kind == 'masonry':
        stone = random_part(random, str(random.choice(['brick', 'plaster', 'concrete'])))
        high, half = random.uniform(0.5, 1.4), random.uniform(0.08, 0.16)
    else:
        stone = random_part(random, str(random.choice(['metal', 'wood', 'concrete', 'brick'])))
        high, half = random.uniform(0.8, 1.5), 0.03
    post = random.uniform(0.16, 0.24) if stone.tile == 'brick' or kind == 'masonry' else 0.05
    end, cap = length / 2 - post, random_part(random, 'concrete')
    solids = []
    posts = np.linspace(-end, end, max(2, round(length / random.uniform(2.0, 3.5)) + 1))
    for x in posts:
        low, top = (x - post, -post, -2 * ROOT), (x + post, post, high + 0.06)
        solids.append(box(low, top, stone))
    if kind == 'masonry':
        solids.append(box((-end, -half, -2 * ROOT), (end, half, high - 0.08), stone))
        coping = ((-end, -half - 0.03, high - 0.08), (end, half + 0.03, high))
        solids.append(box(*coping, cap))
        return join(solids)
    bar = random_part(random, 'metal' if kind == 'railing' else 'wood')
    wide, gap = {'railing': (0.025, 0.12), 'pickets': (0.08, 0.14), 'boards': (0.14, 0.15)}[kind]
    for z in (0.2 * high, 0.85 * high):
        solids.append(box((-end, 0.0, z - 0.03), (end, half, z + 0.03), bar))
    left = np.arange(-end, end - wide, gap)
    bars = np.zeros((len(left), 4, 3))
    bars[:, :, 0] = left[:, None] + np.array([0, wide, wide, 0])
    bars[:, 2:, 2] = high * random.uniform(0.93, 1.0, (len(left), 1))
    bars[:, :2, 2] = 0.05
    front, back = bars - (0, 0.005, 0), bars[:, ::-1] + (0, half, 0)
    uv = np.array([(0, high), (wide, high), (wide, 0), (0, 0)]) / 2.0
    solids += [quads(front, bar, uv), quads(back, bar, uv[::-1])]
    return join(solids)


def shelter(random: np.random.Generator) -> Mesh:
    """Draw a bus shelter, a kiosk or a cabinet of 1.2-3 m that faces -y, centred."""
    return (_bus_shelter, _kiosk, _cabinet)[int(random.integers(3))](random)


def _bus_shelter(random: np.random.Generator) -> Mesh:
    half, deep, high = random.uniform((1.3, 0.6, 2.2), (2.2, 0.8, 2.6))
    metal, glass = random_part(random, 'metal'), random_part(random, 'glass')
    solids = [box((-half - 0.1, -deep - 0.2, high), (half + 0.1, deep, high + 0.14), metal)]
    for x in (-half, half):
        for y in (-deep, deep - 0.08):
            solids.append(box((x - 0.04, y, -ROOT), (x + 0.04, y + 0.08, high), metal))
    edges = np.linspace(-half + 0.05, half - 0.05, int(random.integers(2, 4)) + 1)
    for left, right in zip(edges[:-1], edges[1:] - 0.06, strict=True):
        low, top = (left, deep - 0.05, 0.25), (right, deep - 0.03, high - 0.15)
        solids.append(box(low, top, glass, high - 0.4))
    if random.random() < 0.7:
        poster = random_part(random, 'shopfront')
        for x in (half - 0.06, half + 0.06):
            start, end = ((x, deep - 0.1), (x, -deep + 0.1))
            if x > half:
                start, end = end, start
            solids.append(face(start, end, 0.2, high - 0.2, poster))
    bench = random_part(random, 'wood')
    solids.append(box((-0.8 * half, 0.25 * deep, 0.42), (0.5 * half, 0.8 * deep, 0.48), bench))
    for x in (-0.7 * half, 0.4 * half):
        solids.append(box((x - 0.03, 0.4 * deep, -ROOT), (x + 0.03, 0.6 * deep, 0.42), metal))
    return join(solids)


def _kiosk(random: np.random.Generator) -> Mesh:
    half, deep, high = random.uniform((1.0, 0.7, 2.3), (1.8, 1.2, 2.6))
    look = Look.draw(random)
    block = Block(-half, half, -deep, deep, high, high, 1)
    solids = [*_front(random, block, look, True, 0), *_shell(random, block, look)]
    out = random.uniform(0.1, 0.4)
    low, top = (-half - out, -deep - out, high), (half + out, deep + out, high + 0.2)
    return join([*solids, box(low, top, look.trim)])


def _cabinet(random: np.random.Generator) -> Mesh:
    half, deep, high = random.uniform((0.4, 0.2, 1.2), (1.0, 0.45, 1.7))
    body, base = random_part(random, 'metal'), random_part(random, 'concrete')
    solids = [
        box((-half - 0.03, -deep - 0.03, -ROOT), (half + 0.03, deep + 0.03, 0.15), base),
        box((-half, -deep, 0.15), (half, deep, high - 0.05), body),
        box((-half - 0.04, -deep - 0.06, high - 0.05), (half + 0.04, deep + 0.04, high), body),
    ]
    doors = shade(body, 0.7)
    for x in (-half + 0.06, 0.03):
        low, top = (x, -deep - 0.015, 0.22), (x + half - 0.09, -deep, high - 0.12)
        solids.append(box(low, top, doors))
    return join(solids)
