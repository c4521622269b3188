# SPDX-License-Identifier: Apache-2.0
"""Trees, bushes, hedges and tufts: wood, and many small leaf cards that rays slip between."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from offline_training.street.shapes.furniture import ROOT, box, tube
from offline_training.street.shapes.looks import random_part, shade
from offline_training.street.shapes.mesh import Mesh, Part, join

Array = NDArray[np.float64]

LEAF_TILE_M = 1.2
UP = np.array([0.0, 0.0, 1.0])


@dataclass(frozen=True)
class _Clumps:
    """Ellipsoids that leaves grow in.

    Attributes:
        centre: (C, 3) m.
        radius: (C, 3) m, half axes along x, y and z.

    """

    centre: Array
    radius: Array

    def area(self) -> float:
        """Surface of all of them together, roughly, in m^2."""
        return float(4 * np.pi * (self.radius.prod(axis=1) ** (2 / 3)).sum())

    def sample(self, random: np.random.Generator, count: int) -> tuple[Array, Array]:
        """Draw `count` points (N, 3) near the outer surface, and their outward directions."""
        share = self.radius.prod(axis=1) ** (2 / 3)
        which = random.choice(len(share), 3 * count, p=share / share.sum())
        outward = _unit(random.normal(size=(3 * count, 3)))
        depth = 1.08 * random.random((3 * count, 1)) ** 0.2
        point = self.centre[which] + depth * self.radius[which] * outward
        inside = (((point[:, None] - self.centre) / self.radius) ** 2).sum(axis=2).min(axis=1)
        # Points that lie deep within some clump come last: they would hardly be seen.
        order = np.argsort(inside < 0.45, kind='stable')[:count]
        return point[order], outward[order]


def _unit(vector: Array) -> Array:
    unit: Array = vector / np.linalg.norm(vector, axis=-1, keepdims=True)
    return unit


def _leaves(
    random: np.random.Generator,
    part: Part,
    point: Array,
    facing: Array,
    size: ArrayLike,
    light: Array,
) -> Mesh:
    """Build one leaf card, a ragged triangle, at every point.

    Args:
        random: Source of all draws.
        part: Surface; cards take one of three brightnesses of it.
        point: (N, 3) m, middles of the cards.
        facing: (N, 3) unit vectors that their normals scatter around.
        size: m, length of their edges, one or N.
        light: (N,) in [0, 1], how likely a card is one of the bright ones.

    """
    count = len(point)
    normal = _unit(facing + 0.55 * random.normal(size=(count, 3)))
    first = _unit(np.cross(normal, random.normal(size=(count, 3))))
    second = np.cross(normal, first)
    angle = np.array([0, 2, 4]) * np.pi / 3 + random.uniform(-0.45, 0.45, (count, 3))
    reach = np.broadcast_to(size, count)[:, None] / 1.73 * random.uniform(0.65, 1.45, (count, 3))
    flat = reach[..., None] * np.stack([np.cos(angle), np.sin(angle)], axis=2)  # (N, 3, 2)
    corners = point[:, None] + flat[..., :1] * first[:, None] + flat[..., 1:] * second[:, None]
    uv = flat / LEAF_TILE_M + random.random((count, 1, 2))
    brightness = np.clip(light + random.normal(0, 0.22, count), 0, 0.999)
    return Mesh(
        corners.astype(np.float32),
        uv.astype(np.float32),
        (3 * brightness).astype(np.int32),
        (shade(part, 0.7), shade(part, 1.05), shade(part, 1.5)),
    )


def _foliage(
    random: np.random.Generator, part: Part, clumps: _Clumps, count: int, cover: float
) -> Mesh:
    """Fill clumps with `count` leaf cards, whose areas add up to `cover` times the surface."""
    point, outward = clumps.sample(random, count)
    size = np.clip(np.sqrt(cover * clumps.area() / count / 0.43), 0.12, 0.55)
    low, high = point[:, 2].min(), point[:, 2].max()
    light = 0.25 + 0.35 * (point[:, 2] - low) / (high - low + 0.01) + 0.2 * outward[:, 2]
    sizes = size * random.uniform(0.75, 1.3, count)
    return _leaves(random, part, point, _unit(outward + 0.35 * UP), sizes, light)


def _limb(random: np.random.Generator, start: Array, end: Array, sag: float) -> Array:
    """Lay a crooked path (4, 3) between two points; `sag` m is how far its middle hangs."""
    steps = np.linspace(0, 1, 4)[:, None]
    path: Array = start + steps * (end - start) - 4 * sag * steps * (1 - steps) * UP
    path[1:3] += random.normal(0, 0.04 * np.linalg.norm(end - start), (2, 3))
    return path


def _trunk(
    random: np.random.Generator, bark: Part, height: float, top: Array, radius: float
) -> tuple[Mesh, Array]:
    """Build a trunk from the ground to `top` (3,) that swells at its foot; and its axis (5, 3)."""
    levels = np.array([-ROOT / height, 0.05, 0.35, 0.7, 1.0])[:, None]
    axis = levels * (*top[:2], height)
    axis[2:4, :2] += random.normal(0, 0.015 * height, (2, 2))
    radii = radius * np.array([1.35, 1.05, 0.9, 0.75, 0.5])
    return tube(axis, radii, bark, sides=7, caps=False), axis


def _broadleaf(random: np.random.Generator) -> Mesh:
    """Draw a tree with a forked trunk and a crown of several clumps."""
    height = random.uniform(4.5, 11.0)
    clear = max(2.3, height * random.uniform(0.22, 0.38))
    deep = height - clear
    wide = min(0.5 * deep * random.uniform(0.6, 1.25), 3.6)
    bark, leaf = random_part(random, 'bark'), random_part(random, 'leaves')
    radius = np.clip(0.02 * height * random.uniform(0.6, 1.2), 0.06, 0.2)
    fork = np.array([*random.normal(0, 0.03 * height, 2), clear + 0.15 * deep])
    trunk, axis = _trunk(random, bark, float(fork[2]), fork, float(radius))

    count = int(random.integers(7, 17))
    turn = random.uniform(0, 2 * np.pi) + 2.4 * np.arange(count)
    level = (np.arange(count) + random.uniform(0.1, 0.9, count)) / count  # 0: crown's foot
    bulge = np.sqrt(np.clip(1 - (1.6 * level - 0.7) ** 2, 0.05, 1))
    bulk = wide * random.uniform(0.28, 0.52, count)
    out = (wide - 0.8 * bulk) * bulge * random.uniform(0.55, 1.1, count)
    centre = np.column_stack([out * np.cos(turn), out * np.sin(turn), 0 * turn]) + axis[-1]
    half = bulk * random.uniform(0.6, 0.95)
    centre[:, 2] = clear + half + level * (deep - 2 * half)
    clumps = _Clumps(centre, np.column_stack([bulk, bulk, half]))

    wood = [trunk]
    for middle in centre[random.permutation(count)[:6]]:
        path = _limb(random, axis[-1] - (0, 0, random.uniform(0, 0.3)), middle, 0.1)
        thin = radius * np.array([0.55, 0.4, 0.3, 0.15])
        wood.append(tube(path, thin, bark, sides=5, caps=False))
    cards = int(np.clip(340 * wide * np.sqrt(deep), 1300, 2600))
    cover = random.uniform(0.75, 1.2)
    return join([*wood, _foliage(random, leaf, clumps, cards, cover)])


def _conifer(random: np.random.Generator) -> Mesh:
    """Draw a tree with a straight trunk and drooping tiers that narrow towards its tip."""
    height = random.uniform(4.0, 11.0)
    clear = random.uniform(0.3, 1.8)
    wide = min(height * random.uniform(0.15, 0.26), 1.4 if clear < 1.5 else 2.0)
    bark, leaf = random_part(random, 'bark'), random_part(random, 'leaves')
    trunk = tube(
        [[0, 0, -ROOT], [0, 0, 0.5 * height], [0, 0, 0.97 * height]],
        [0.016 * height, 0.011 * height, 0.02],
        bark,
        sides=7,
        caps=False,
    )
    tiers = int(height * random.uniform(1.3, 2.2))
    droop, taper = random.uniform(0.1, 0.6), random.uniform(0.8, 1.3)
    cards = int(random.integers(1200, 2000))
    # Bright tips far out, dark needles within; more of them where tiers are wider.
    level = 1 - np.sqrt(random.random(cards))
    tier = np.floor(level * tiers)
    spokes = 7 + tier % 3
    turn = (np.floor(random.random(cards) * spokes) + random.normal(0, 0.16, cards)) / spokes
    turn = 2 * np.pi * turn + 1.3 * tier
    edge = wide * (1 - (tier + 0.2) / (tiers + 0.4)) ** taper + 0.12
    out = edge * np.sqrt(random.random(cards)) * random.uniform(0.85, 1.1, cards)
    z = clear + (tier + 0.5) / tiers * (height - clear) - droop * out
    z = np.maximum(z + random.normal(0, 0.08, cards), 0.15)
    outward = np.column_stack([np.cos(turn), np.sin(turn), 0 * turn])
    point = outward * out[:, None] + z[:, None] * UP
    light = 0.1 + 0.65 * out / edge
    sizes = random.uniform(0.22, 0.42, cards) * (0.7 + 0.05 * height)
    facing = _unit(0.5 * outward + UP)
    return join([trunk, _leaves(random, leaf, point, facing, sizes, light)])


def _young(random: np.random.Generator) -> Mesh:
    """Draw a slender tree with thin, half bare branches; some are tied to stakes."""
    height = random.uniform(3.0, 5.5)
    bark, leaf = random_part(random, 'bark'), random_part(random, 'leaves')
    radius = random.uniform(0.03, 0.07)
    trunk, axis = _trunk(random, bark, height, random.normal(0, 0.05, 3), radius)
    wood, ends = [trunk], [axis[-1]]
    for turn in 2.4 * np.arange(int(random.integers(8, 13))) + random.uniform(0, 6.3):
        z = random.uniform(0.45, 0.92) * height
        start = np.array([np.interp(z, axis[:, 2], axis[:, i]) for i in range(3)])
        length = random.uniform(0.35, 0.75) * (1.25 - z / height) * 0.45 * height
        end = start + length * np.array([np.cos(turn), np.sin(turn), random.uniform(0.5, 1.3)])
        path = _limb(random, start, end, 0.05)
        thin = radius * np.array([0.5, 0.4, 0.3, 0.15])
        wood.append(tube(path, thin, bark, sides=4, caps=False))
        ends += [path[2], end]
    if random.random() < 0.5:
        stake = random_part(random, 'wood')
        for y in (-0.35, 0.35):
            wood.append(tube([[0, y, -ROOT], [0, y, 1.7]], 0.035, stake, sides=5))
    size = random.uniform(0.25, 0.5, len(ends))
    clumps = _Clumps(np.array(ends), size[:, None] * (1, 1, 0.8))
    cards = int(random.integers(1050, 1300))
    return join([*wood, _foliage(random, leaf, clumps, cards, random.uniform(0.35, 0.8))])


def tree(random: np.random.Generator) -> Mesh:
    """Draw a tree of 3-11 m: a broadleaf tree, a conifer or a young one."""
    kind = random.choice(3, p=[0.55, 0.2, 0.25])
    return (_broadleaf, _conifer, _young)[kind](random)


def bush(random: np.random.Generator) -> Mesh:
    """Draw a bush of 0.4-2 m: one or several clumps on the ground, or a bunch on short stems."""
    height = random.uniform(0.45, 1.9)
    count = int(random.integers(1, 6))
    bulk = height * random.uniform(0.3, 0.5, (count, 3)) * (1, 1, random.uniform(0.7, 1.1))
    bulk[:, :2] = np.minimum(bulk[:, :2], 0.6)
    centre = random.normal(0, 0.25 * height * np.sqrt(count - 1) / 2, (count, 3))
    centre[:, :2] = np.clip(centre[:, :2], -0.5, 0.5)
    bulk[0, 2] = 0.55 * height
    centre[:, 2] = bulk[:, 2] * random.uniform(0.6, 0.9, count)
    centre[0, 2] = 0.45 * height
    leaf, bark = random_part(random, 'leaves'), random_part(random, 'bark')
    stems = [
        tube([[0, 0, -ROOT], middle * (0.5, 0.5, 0.6), middle], 0.015, bark, sides=3, caps=False)
        for middle in centre
    ]
    cards = int(np.clip(250 * height, 200, 440))
    clumps = _Clumps(centre, bulk)
    leaves = _foliage(random, leaf, clumps, cards, random.uniform(1.3, 2.0))
    np.maximum(leaves.corners[..., 2], 0.0, out=leaves.corners[..., 2])
    return join([*stems, leaves])


def hedge(random: np.random.Generator, length: float) -> Mesh:
    """Draw a trimmed hedge 0.5-2 m high along x, centred on the origin, of `length` m."""
    height, half = random.uniform(0.55, 1.9), random.uniform(0.22, 0.45)
    leaf = random_part(random, 'leaves')
    reach = np.array([length / 2, half, height])
    core = reach - 0.1
    low = (-core[0], -core[1], -ROOT)
    dark = box(low, core, shade(leaf, 0.6), LEAF_TILE_M)
    # Cards cover the two long sides, the top and the two ends, each by its area.
    sides = np.array([[0, -1, 0], [0, 1, 0], [0, 0, 1], [-1, 0, 0], [1, 0, 0]], np.float64)
    areas = np.array([length * height] * 2 + [length * 2 * half] + [2 * half * height] * 2)
    count = int(110 * length)
    normal = sides[random.choice(5, count, p=areas / areas.sum())]
    point = random.uniform((-1, -1, 0), 1, (count, 3))
    point = np.where(normal != 0, normal, point) * reach
    rough = random.uniform(0.04, 0.1)
    point -= normal * np.abs(random.normal(0.05, rough, (count, 1)))
    size = np.clip(np.sqrt(1.1 * areas.sum() / count / 0.43), 0.12, 0.4)
    light = 0.2 + 0.3 * point[:, 2] / height + 0.25 * normal[:, 2]
    sizes = size * random.uniform(0.7, 1.3, count)
    leaves = _leaves(random, leaf, point, _unit(normal + 0.2 * UP), sizes, light)
    np.maximum(leaves.corners[..., 2], 0.0, out=leaves.corners[..., 2])
    return join([dark, leaves])


def grass_tufts(random: np.random.Generator, length: float, width: float) -> Mesh:
    """Draw tufts and flowers 0.1-0.4 m high on a verge.

    Args:
        random: Source of all draws.
        length: m along x, centred on the origin.
        width: m along y.

    """
    tall = random.uniform(0.12, 0.36)
    tufts = max(2, int(length * width * random.uniform(2.0, 6.0)))
    blades = 8
    root = random.uniform((-length / 2, -width / 2), (length / 2, width / 2), (tufts, 2))
    foot = root.repeat(blades, axis=0) + random.normal(0, 0.05, (tufts * blades, 2))
    foot = np.clip(foot, (-length / 2, -width / 2), (length / 2, width / 2))
    count = len(foot)
    turn = random.uniform(0, 2 * np.pi, count)
    side = np.column_stack([np.cos(turn), np.sin(turn)]) * random.uniform(0.015, 0.05, (count, 1))
    lean = random.normal(0, 0.3 * tall, (count, 2))
    rise = np.minimum(tall * random.uniform(0.5, 1.2, count), 0.4)
    corners = np.zeros((count, 3, 3))
    corners[:, 0, :2], corners[:, 1, :2], corners[:, 2, :2] = foot - side, foot + side, foot + lean
    corners[:, 2, 2] = rise
    flat = np.stack([corners[..., 0] + corners[..., 1], -corners[..., 2]], axis=2)
    leaf = random_part(random, 'leaves')
    grass = Mesh(
        corners.astype(np.float32),
        (flat / LEAF_TILE_M).astype(np.float32),
        random.integers(0, 2, count).astype(np.int32),
        (leaf, shade(leaf, 1.3)),
    )
    if random.random() < 0.5:
        return grass
    tips = corners[random.permutation(count)[: count // 6], 2]
    petals = _leaves(
        random,
        random_part(random, 'plain'),
        tips,
        np.broadcast_to(UP, tips.shape),
        random.uniform(0.05, 0.12),
        np.full(len(tips), 0.6),
    )
    np.clip(petals.corners[..., 2], 0.0, 0.4, out=petals.corners[..., 2])
    return join([grass, petals])
