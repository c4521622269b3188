# SPDX-License-Identifier: Apache-2.0
"""People who stand or walk: how one looks is drawn first, then the body is posed."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np
import trimesh
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray

from offline_training.street.shapes.cars import WHOLE_TILE
from offline_training.street.shapes.looks import random_part
from offline_training.street.shapes.mesh import Mesh, Part, from_trimesh, join, quads

Points = NDArray[np.float64]

# Lengths relative to the height of an adult.
HIP, KNEE, ANKLE, SHOULDER, CHIN, CROWN = 0.50, 0.27, 0.045, 0.81, 0.87, 1.0
UPPER_ARM, FOREARM, HAND = 0.165, 0.145, 0.085
HIP_SIDE, SHOULDER_SIDE = 0.050, 0.106


@dataclass(frozen=True)
class _Look:
    """What stays the same about a person in every pose.

    Attributes:
        height: m, without a hat.
        build: Thickness of the body relative to its height; 1 is slim.
        head: Size of the head relative to an adult's proportions.
        stride: How far the legs swing, rad.
        top: Shirt, jacket or coat.
        sleeves: Surface of the forearms.
        trousers: Surface of the thighs.
        calves: Surface of the lower legs.
        shoes: Shoes.
        skin: Neck and hands.
        face: Front of the head.
        hair: Back and top of the head.
        hem: Where the top ends, as a fraction of the height.
        skirt: Surface of a skirt, if one is worn.
        hair_length: How far hair hangs below the chin, in head heights; 0 is short hair.
        hat: Surface of a hat, if one is worn.
        brim: Radius of the hat's brim relative to the head.
        backpack: Surface of a backpack, if one is carried.
        bag: Surface of a bag in the left hand, if one is carried.
        stance: (7,) in [-1, 1]: how the joints of somebody who stands are turned.

    """

    height: float
    build: float
    head: float
    stride: float
    top: Part
    sleeves: Part
    trousers: Part
    calves: Part
    shoes: Part
    skin: Part
    face: Part
    hair: Part
    hem: float
    skirt: Part | None
    hair_length: float
    hat: Part | None
    brim: float
    backpack: Part | None
    bag: Part | None
    stance: NDArray[np.float64]

    @property
    def broad(self) -> float:
        """Width of the trunk; bones do not grow with the flesh."""
        return 0.45 + 0.55 * self.build


@dataclass(frozen=True)
class _Pose:
    """Angles in rad, each (2,) for left and right; forwards is positive."""

    thighs: Points
    knees: Points
    feet: Points
    arms: Points
    elbows: Points
    spread: Points


def _natural(
    random: Generator, darkest: float, brightest: float, vividness: float
) -> tuple[float, float, float]:
    """A tint between grey and reddish or yellowish brown."""
    hue, saturation = random.uniform(0.02, 0.12), random.uniform(0.1, vividness)
    return colorsys.hsv_to_rgb(hue, saturation, random.uniform(darkest, brightest))


def _draw_look(random: Generator) -> _Look:
    adult = random.random() < 0.8
    height = np.clip(random.normal(1.72, 0.10), 1.50, 1.95) if adult else random.uniform(1.1, 1.5)
    top = random_part(random, 'cloth')
    trousers = random_part(random, 'denim' if random.random() < 0.5 else 'cloth')
    skin = random_part(random, 'skin', _natural(random, 0.30, 0.95, 0.55))
    hair = random_part(random, 'hair', _natural(random, 0.08, 0.85, 0.70))
    skirt, hat, backpack, bag = (random_part(random, 'cloth') for _ in range(4))
    has = random.random(9) < (0.25, 0.15, 0.25, 0.15, 0.25, 0.25, 0.25, 0.3, 0.08)
    coated, skirted, short_sleeved, shorted, hatted, packed, bagged, long_haired, bald = has
    skirted &= ~coated
    return _Look(
        height=float(height),
        build=random.uniform(0.95, 1.30),
        head=1 + 0.5 * max(0.0, 1.6 - height) + random.uniform(-0.03, 0.05),
        stride=random.uniform(0.36, 0.50),
        top=top,
        sleeves=skin if short_sleeved and not coated else top,
        trousers=skin if skirted else trousers,
        calves=skin if skirted or shorted else trousers,
        shoes=random_part(random, 'plain'),
        skin=skin,
        face=random_part(random, 'face', skin.tint),
        hair=skin if bald else hair,
        hem=random.uniform(0.30, 0.44) if coated else random.uniform(0.48, 0.55),
        skirt=skirt if skirted else None,
        hair_length=random.uniform(0.1, 0.8) if long_haired and not bald else 0.0,
        hat=hat if hatted else None,
        brim=random.uniform(1.1, 1.6),
        backpack=backpack if packed else None,
        bag=bag if bagged else None,
        stance=random.uniform(-1, 1, 7),
    )


def _standing(look: _Look) -> _Pose:
    turn = look.stance
    # A strongly bent elbow holds a telephone; a bag pulls the left one straight.
    bent = (turn[2:4] > 0.5) & np.array([look.bag is None, True])
    elbows = np.where(bent, 1.0 + 1.2 * np.abs(turn[4:6]), 0.15 + 0.10 * turn[2:4])
    return _Pose(
        thighs=0.07 * turn[0] * np.array([1, -1]),
        knees=np.array([0.03, 0.03]),
        feet=np.zeros(2),
        arms=0.15 * turn[4:6],
        elbows=elbows,
        spread=0.14 + 0.08 * turn[5:7],
    )


def _walking(look: _Look, phase: float) -> _Pose:
    """At phase 0 the left heel touches down, at 0.5 the right one."""
    phases = phase + np.array([0.0, 0.5])

    def bump(middle: float, width: float) -> Points:
        off = (phases - middle + 0.5) % 1 - 0.5
        return np.exp(-0.5 * (off / width) ** 2)

    swing = np.cos(2 * np.pi * phases)
    return _Pose(
        thighs=0.06 + look.stride * swing,
        knees=0.06 + 0.95 * bump(0.74, 0.10) + 0.18 * bump(0.13, 0.07),
        feet=0.25 * bump(0.0, 0.05) - 0.85 * bump(0.60, 0.09),
        arms=-0.9 * look.stride * swing,
        elbows=0.30 - 0.20 * swing,
        spread=np.array([0.10, 0.10]),
    )


def _cells(grid: Points) -> Points:
    """Faces (S * K, 4, ...) between the points (S + 1, K + 1, ...) of a grid."""
    faces = np.stack([grid[:-1, :-1], grid[:-1, 1:], grid[1:, 1:], grid[1:, :-1]], 2)
    return faces.reshape(-1, 4, grid.shape[-1])


def _skin(rings: Points, part: Part, metres_per_tile: float = 1.0, *, caps: bool = False) -> Mesh:
    """Skin rings (S, K, 3) m that are counter-clockwise seen against the direction of their row.

    The texture is laid around and along the limb, so that it moves with it.
    """
    closed = np.concatenate([rings, rings[:, :1]], axis=1)  # (S, K + 1, 3)
    around = np.linalg.norm(np.diff(closed, axis=1), axis=2).mean() * np.arange(closed.shape[1])
    middles = rings.mean(axis=1)
    along = np.cumsum(np.linalg.norm(np.diff(middles, axis=0, prepend=middles[:1]), axis=1))
    uv = np.stack(np.broadcast_arrays(around, -along[:, None]), -1) / metres_per_tile

    meshes = [quads(_cells(closed), part, _cells(uv))]
    if caps:
        fan = [(0, i, i + 1, i + 2) for i in range(1, rings.shape[1] - 2, 2)]
        ends = np.concatenate([rings[0, ::-1][fan], rings[-1][fan]])
        meshes.append(quads(ends, part, ends[..., :2] / metres_per_tile))
    return join(meshes)


def _rings(middles: ArrayLike, widths: ArrayLike, depths: ArrayLike, around: int) -> Points:
    """Ellipses (S, K, 3) m across a path (S, 3) m that runs upwards; half axes (S,) m."""
    path = np.asarray(middles, np.float64)
    along = np.gradient(path, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    back = np.cross(along, (0, 1, 0))
    back /= np.linalg.norm(back, axis=1, keepdims=True)
    left = np.cross(back, along)
    angle = 2 * np.pi * (np.arange(around) + 0.5) / around
    widths, depths = np.asarray(widths)[:, None, None], np.asarray(depths)[:, None, None]
    return (
        path[:, None]
        + widths * left[:, None] * -np.sin(angle)[:, None]
        + depths * back[:, None] * np.cos(angle)[:, None]
    )


def _upright(
    scale: float, z: ArrayLike, widths: ArrayLike, depths: ArrayLike, x: ArrayLike = 0.0
) -> Points:
    """Rings of eight about a vertical axis, from below to above; all lengths times `scale`."""
    middles = np.stack(np.broadcast_arrays(x, 0.0, z), -1)
    return scale * _rings(middles, widths, depths, 8)


def _direction(pitch: float, sideways: float = 0.0) -> Points:
    """Direction (3,) of a limb that hangs down, swung forwards by `pitch` rad."""
    return np.array(
        [np.cos(sideways) * np.sin(pitch), np.sin(sideways), -np.cos(sideways) * np.cos(pitch)]
    )


def _limb(start: Points, end: Points, radii: ArrayLike, part: Part) -> Mesh:
    """A tapering tube from its upper to its lower end, with radii (S,) m."""
    radii = np.asarray(radii, np.float64)[::-1]
    steps = np.linspace(0, 1, len(radii))[:, None]
    return _skin(_rings(end + steps * (start - end), radii, radii, 6), part)


def _leg(look: _Look, pose: _Pose, side: int, unit: float) -> list[Mesh]:
    sign, thick = (1, -1)[side], unit * look.build
    hip = unit * np.array([0, sign * HIP_SIDE, HIP])
    shin = pose.thighs[side] - pose.knees[side]
    knee = hip + unit * (HIP - KNEE) * _direction(pose.thighs[side])
    ankle = knee + unit * (KNEE - ANKLE) * _direction(shin)
    bare = 0.8 if look.calves is look.skin else 1.0
    x = np.array([-0.030, 0.030, 0.085, 0.118])[:, None]
    widths = np.array([0.018, 0.025, 0.028, 0.018])[:, None]
    tops = np.array([0.045, 0.052, 0.030, 0.018])[:, None]
    y, z = np.array([(1, 0), (1, 0.6), (0.6, 1), (-0.6, 1), (-1, 0.6), (-1, 0)]).T
    shoe = np.stack(np.broadcast_arrays(x, widths * y, tops * z - ANKLE), -1)
    cos, sin = np.cos(pose.feet[side]), np.sin(pose.feet[side])
    shoe = unit * shoe @ np.array([(cos, 0, sin), (0, 1, 0), (-sin, 0, cos)]) + ankle
    return [
        _limb(hip, knee, thick * np.array([0.050, 0.046, 0.034]), look.trousers),
        _limb(knee, ankle, thick * bare * np.array([0.034, 0.034, 0.027]), look.calves),
        _skin(shoe, look.shoes, caps=True),
    ]


def _arm(look: _Look, pose: _Pose, side: int, unit: float) -> tuple[list[Mesh], Points]:
    """One arm, and where its hand ends (3,) m."""
    sign, thick = (1, -1)[side], unit * look.build
    sideways = sign * pose.spread[side]
    shoulder = unit * np.array([0, sign * SHOULDER_SIDE * look.broad, SHOULDER])
    bent = pose.arms[side] + pose.elbows[side]
    elbow = shoulder + unit * UPPER_ARM * _direction(pose.arms[side], sideways)
    wrist = elbow + unit * FOREARM * _direction(bent, 0.2 * sideways)
    tip = wrist + unit * HAND * _direction(bent + 0.2, 0.0)
    bare = 0.85 if look.sleeves is look.skin else 1.0
    meshes = [
        _limb(shoulder, elbow, thick * np.array([0.022, 0.034, 0.031, 0.026]), look.top),
        _limb(elbow, wrist, thick * bare * np.array([0.026, 0.019]), look.sleeves),
        _limb(wrist, tip, unit * np.array([0.020, 0.012]), look.skin),
    ]
    return meshes, tip


def _torso(look: _Look, pose: _Pose, unit: float) -> list[Mesh]:
    # Cloth that reaches below the hips hangs around both legs, wherever these are.
    swings = np.tan(pose.thighs)

    def draped(z: ArrayLike, widths: ArrayLike, depths: ArrayLike) -> Points:
        below = np.maximum(HIP - np.asarray(z), 0.0)
        depths = look.build * np.asarray(depths)
        legs = 0.055 * look.build + below * np.abs(swings[0] - swings[1]) / 2
        depths = np.where(below > 0.02, np.maximum(depths, 1.35 * legs), depths)
        return _upright(unit, z, look.broad * np.asarray(widths), depths, below * swings.mean())

    z = [0.60, 0.70, 0.77, 0.81, 0.835, 0.85]
    if look.hem < 0.46:  # a coat
        z, widths, depths = [look.hem, 0.47, *z], [0.124, 0.108], [0.078, 0.066]
    else:
        z, widths, depths = [look.hem, 0.575, *z], [0.098, 0.094], [0.068, 0.066]
    widths += [0.087, 0.101, 0.112, 0.105, 0.068, 0.030]
    depths += [0.060, 0.069, 0.062, 0.050, 0.036, 0.028]
    seat = look.broad * np.array([0.07, 0.096, 0.090])
    pelvis = _upright(unit, [0.46, 0.50, 0.56], seat, look.build * np.array([0.05, 0.064, 0.058]))
    neck = _upright(unit, [0.83, 0.89], [0.031, 0.031], [0.033, 0.033])
    meshes = [
        _skin(pelvis, look.trousers),
        _skin(draped(z, widths, depths), look.top),
        _skin(neck, look.skin),
    ]
    if look.skirt:
        rings = draped([0.31, 0.50, 0.61], [0.125, 0.108, 0.093], [0.09, 0.078, 0.070])
        meshes.append(_skin(rings, look.skirt))
    if look.backpack:
        widths, depths = [0.085, 0.09, 0.06], [0.05, 0.055, 0.03]
        sack = _upright(unit, [0.56, 0.72, 0.80], widths, depths, -0.105 * look.build)
        x_low, x_high = 0.075 * look.build, 0.072 * look.build
        straps = [
            [(x_low, y, 0.65), (x_low, y + 0.03, 0.65), (x_high, y + 0.03, 0.81), (x_high, y, 0.81)]
            for y in (-0.075, 0.045)
        ]
        meshes.append(_skin(sack, look.backpack, caps=True))
        meshes.append(quads(unit * np.array(straps), look.backpack))
    return meshes


def _head(look: _Look, unit: float) -> list[Mesh]:
    size = unit * (CROWN - CHIN) * look.head
    base = unit * CHIN
    level = np.array([0.0, 0.25, 0.50, 0.76, 0.93, 1.0])
    width = size * 0.36 * np.array([0.45, 0.84, 1.0, 1.0, 0.72, 0.30])
    depth = size * 0.43 * np.array([0.50, 0.84, 1.0, 1.0, 0.75, 0.30])
    forwards = size * np.array([0.13, 0.06, 0.0, -0.02, -0.03, -0.03])
    rings = _upright(1.0, base + size * level, width, depth, forwards)
    cells = _cells(np.concatenate([rings, rings[:, :1]], axis=1)).reshape(5, 8, 4, 3)
    # The rings begin at the back of the head: columns 2 to 4 look forwards.
    hairy = np.zeros((5, 8), bool)
    hairy[3:], hairy[1:, [0, 6, 7]], hairy[2, [1, 5]] = True, True, True
    front = np.zeros((5, 8), bool)
    front[:3, 2:5] = True
    face = cells[front]
    face_uv = np.stack(
        [0.5 + face[..., 1] / (2 * width[2]), 1 - (face[..., 2] - base) / (level[3] * size)], -1
    )
    middle = np.array([0, 0, base + 0.5 * size])
    hair = middle + (1.0 if look.hair is look.skin else 1.08) * (cells[hairy] - middle)
    meshes = [
        quads(face, look.face, face_uv),
        quads(cells[~hairy & ~front], look.skin),
        quads(hair, look.hair, 0.5 * np.array(WHOLE_TILE)),
    ]
    neck = CHIN / (CROWN - CHIN) / look.head  # height of the chin in head sizes
    if look.hair_length:
        z = neck + np.array([-look.hair_length, 0.75])
        rings = _upright(size, z, [0.36, 0.38], [0.27, 0.27], -0.24)
        meshes.append(_skin(rings, look.hair, 0.5))
    if look.hat:
        z = neck + np.array([0.72, 0.77, 1.07])
        radii = np.array([0.42 * look.brim, 0.45, 0.36])
        rings = _upright(size, z, 0.9 * radii, 1.08 * radii, -0.02)
        meshes.append(_skin(rings, look.hat, caps=True))
    return meshes


def person(random: Generator, phase: float | None) -> Mesh:
    """Draw one person.

    Args:
        random: Source of all draws; from one state of it comes one person, whatever the phase.
        phase: Position in the walking cycle in [0, 1), 0 where the left heel touches down, or
            None for somebody who stands.

    Returns:
        Facing +x, the hips over x = y = 0, the lower foot on z = 0; m.

    """
    look = _draw_look(random)
    pose = _standing(look) if phase is None else _walking(look, phase)
    unit = look.height / (CHIN + (CROWN - CHIN) * look.head)
    arms = [_arm(look, pose, side, unit) for side in (0, 1)]
    meshes = [
        *_torso(look, pose, unit),
        *_head(look, unit),
        *(mesh for arm, _ in arms for mesh in arm),
        *(mesh for side in (0, 1) for mesh in _leg(look, pose, side, unit)),
    ]
    if look.bag:
        hand = arms[0][1]
        size = unit * np.array([0.17, 0.05, 0.17])
        bag = from_trimesh(trimesh.creation.box(size), look.bag, 1.0)
        meshes.append(bag.moved(hand - (0, 0, size[2] / 2 - 0.02)))
    mesh = join(meshes)
    return mesh.moved((0, 0, -mesh.corners[..., 2].min()))
