# SPDX-License-Identifier: Apache-2.0
"""Tiles of what is walked and driven on, and of what grows."""

from __future__ import annotations

import cv2
import numpy as np

from offline_training.street.textures.noise import (
    SIZE,
    Field,
    Tile,
    U,
    V,
    around_seam,
    bent,
    canvas_of,
    courses,
    cracks,
    drawn,
    layered,
    noise,
    pebbles,
    pick,
    ramp,
    relief,
    strokes,
    tinted,
)

WHITE = 235.0


def _grain(random: np.random.Generator) -> Field:
    """Luminance of bitumen: mottled, with light and dark stones and a few cracks."""
    stones = noise(random, 128, 128) + 0.7 * noise(random, 256, 256)
    luma = 150 + 9 * noise(random, 3, 3, 4) + 13 * stones
    luma += 60 * ramp(1.9, 2.6, stones) - 40 * ramp(-1.7, -2.4, stones)
    return np.asarray(luma * (1 - 0.5 * cracks(random, int(random.integers(1, 5)), 30)), np.float32)


def _patched(random: np.random.Generator, luma: Field, count: int) -> Field:
    """Replace rectangles by newer, evener bitumen with a dark seam."""
    for _ in range(count):
        width, height = random.integers(24, 90, 2)
        tone = random.uniform(-34, 26)
        left, top = random.integers(0, SIZE, 2)
        rows = (np.arange(height) + top) % SIZE
        columns = (np.arange(width) + left) % SIZE
        for inset, value in ((0, 85.0), (2, 150 + tone)):
            at = np.ix_(rows[inset : height - inset], columns[inset : width - inset])
            luma[at] = value + 0.6 * (luma[at] - 150)
    return luma


def asphalt(random: np.random.Generator, variant: int) -> Tile:
    """Grain with cracks; the second variant has patches, the third more cracks."""
    luma = _grain(random)
    if variant == 1:
        luma = _patched(random, luma, 2)
    if variant == 2:
        luma *= 1 - 0.55 * cracks(random, 5, 45)
    return tinted(luma)


def _carriageway(random: np.random.Generator) -> Field:
    """Luminance of a road across its width: wheel tracks, dirt at the kerbs, patches."""
    luma = _patched(random, _grain(random), int(random.integers(0, 4)))
    luma += 7 * noise(random, 2, 40, 2)
    polish = random.uniform(-16, 16)
    for track in (0.16, 0.36, 0.64, 0.84):
        luma += polish * np.exp(-(((V - track) / 0.045) ** 2))
    for oil in (0.26, 0.74):
        luma -= 14 * np.exp(-(((V - oil + 0.01 * noise(random, 4, 1)) / 0.03) ** 2))
    kerb = np.minimum(V, 1 - V)
    luma -= 30 * ramp(0.045, 0.0, kerb + 0.012 * noise(random, 12, 1, 3))
    return np.asarray(luma, np.float32)


def _manhole(random: np.random.Generator, luma: Field) -> None:
    """Set an iron lid, round on the ground, into the road."""
    centre = (int(random.integers(30, 226)), int(pick(random, (70, 105, 150, 190))))
    for axes, tone in (((9, 13), 70.0), ((8, 11), 120.0), ((5, 8), 85.0), ((3, 4), 125.0)):
        cv2.ellipse(luma, centre, axes, 0, 0, 360, tone, -1)


def _painted(random: np.random.Generator, luma: Field, paint: Field) -> Tile:
    """Put worn white paint (a mask) on a tinted road."""
    wear = 0.62 * noise(random, 24, 24, 4) + 0.5 * noise(random, 3, 6)
    paint = paint * ramp(-1.3, -0.5, wear + random.uniform(-0.1, 0.5))
    bare = tinted(luma)[..., :1].astype(np.float32)
    return layered(bare + paint[..., None] * (WHITE + 0.25 * (bare - 160) - bare), 1 - paint)


def road(random: np.random.Generator, variant: int) -> Tile:
    """A two-lane road: dashes, dashes with edge lines, short dashes, a solid line."""
    luma = _carriageway(random)
    if variant != 1:
        _manhole(random, luma)
    half = random.uniform(0.007, 0.011)
    line = ramp(half + 0.002, half - 0.002, np.abs(V - 0.5))
    dashes, share = ((1, 0.45), (1, 0.33), (2, 0.5), (1, 2.0))[variant]
    paint = line * (((U + random.random()) * dashes) % 1 < share)
    if variant in (1, 3):
        edge = np.minimum(V, 1 - V)
        paint = np.maximum(paint, ramp(half + 0.002, half - 0.002, np.abs(edge - 0.06)))
    return _painted(random, luma, np.asarray(paint, np.float32))


def crossing(random: np.random.Generator, variant: int) -> Tile:
    """Zebra stripes along the road, eight or nine across it."""
    stripes = 8 + variant
    luma = _carriageway(random)
    phase = np.abs(((V * stripes) % 1) - 0.5)
    width = random.uniform(0.24, 0.28)
    return _painted(random, luma, ramp(width + 0.02, width - 0.02, phase))


def _sett_tones(random: np.random.Generator, count: int, jitter: float) -> Field:
    """Luminance of rounded stones between dark joints."""
    index, centre, edge = pebbles(random, count, jitter)
    luma = 172 + 26 * random.standard_normal(count * count, np.float32)[index]
    luma += 60 * relief(centre * -1.5) * ramp(0.05, 0.3, edge) + 9 * noise(random, 128, 128)
    return np.asarray(luma - 120 * ramp(0.17, 0.06, edge), np.float32)


def _slab_tones(random: np.random.Generator, rows: int, columns: int, shift: float) -> Field:
    """Luminance of flat slabs with dark joints, some of them stained."""
    laid = courses(rows, columns, (0.0, shift))
    luma = 165 + 13 * laid.tones(random) + 6 * noise(random, 6, 6, 4) + 8 * noise(random, 256, 256)
    return np.asarray(luma - 105 * laid.joint(random.uniform(2.2, 3.4)), np.float32)


def _basket_tones(random: np.random.Generator) -> Field:
    """Luminance of pairs of bricks that lie along and across by turns."""
    count = pick(random, (8, 10))
    block = courses(count, count)
    upright = (block.row + block.column) % 2 == 1
    across = np.where(upright, block.u, block.v)  # the direction in which two bricks lie
    brick = (across > 0.5).astype(np.intp)
    split = np.abs(across - 0.5) * SIZE / count
    joint = np.maximum(block.joint(2.4), ramp(1.9, 0.6, split))
    tones = random.standard_normal((count, count, 2), np.float32)[block.row, block.column, brick]
    return np.asarray(165 + 24 * tones + 8 * noise(random, 128, 128) - 95 * joint, np.float32)


def paving(random: np.random.Generator, variant: int) -> Tile:
    """Slabs in bond, cobbles, brick basket weave, large concrete slabs, small setts."""
    if variant == 0:
        luma = _slab_tones(random, pick(random, (4, 6)), pick(random, (4, 5, 6)), 0.5)
    elif variant == 1:
        luma = _sett_tones(random, int(random.integers(13, 18)), 0.75)
    elif variant == 2:
        luma = _basket_tones(random)
    elif variant == 3:
        luma = _slab_tones(random, 2, pick(random, (2, 3)), 0.0) - 10 * noise(random, 2, 64)
    else:
        luma = _sett_tones(random, int(random.integers(18, 23)), 0.3)
    return tinted(luma + 5 * noise(random, 3, 3, 3))


def kerb(random: np.random.Generator, variant: int) -> Tile:
    """Long stones, chipped at the joints."""
    laid = courses(1, 2)
    beside = np.minimum(laid.u, 1 - laid.u) * SIZE / 2 + 0.8 * noise(random, 32, 32)
    luma = (
        165 + 10 * laid.tones(random) + 12 * noise(random, 96, 96, 2) + 7 * noise(random, 4, 4, 3)
    )
    return tinted(luma - 100 * ramp(3.0, 1.0, beside.astype(np.float32)))


def grass(random: np.random.Generator, variant: int) -> Tile:
    """Blades over dark ground: a short lawn, a meadow, a lawn with bare spots."""
    count, length = ((3600, 11.0), (2400, 21.0), (2600, 12.0))[variant]
    thick = noise(random, 5, 5, 3)
    canvas = canvas_of(84 + 14 * noise(random, 64, 64, 2))
    root = random.uniform(0, SIZE, (count, 2))
    if variant == 2:
        at = root.astype(int)
        root = root[thick[at[:, 1], at[:, 0]] > -0.9]
    heading = random.normal(-np.pi / 2, 0.75, len(root))
    reach = length * random.uniform(0.5, 1.2, len(root))
    bend = heading + random.normal(0, 0.6, len(root))
    middle = root + 0.5 * reach[:, None] * np.stack([np.cos(heading), np.sin(heading)], -1)
    tip = middle + 0.5 * reach[:, None] * np.stack([np.cos(bend), np.sin(bend)], -1)
    # Few tones, so that many blades are drawn in one call, from the dark ones below upwards.
    tones = np.sort(random.integers(0, 20, len(root))) * 4.5 + 96
    strokes(canvas, np.stack([root, middle, tip], 1), tones)
    return tinted(drawn(canvas) * (1 + 0.13 * thick) + 10 * noise(random, 12, 12, 2))


def soil(random: np.random.Generator, variant: int) -> Tile:
    """Crumbs and pebbles."""
    _, _, edge = pebbles(random, 26, 0.9)
    luma = 150 + 18 * noise(random, 4, 4, 6) + 40 * relief(noise(random, 48, 48, 3)) * 0.4
    return tinted(luma + 45 * ramp(0.45, 0.7, edge) - 35 * ramp(0.06, 0.02, edge))


def _leaf_outline(kind: int) -> Field:
    """(K, 2) corners of a leaf of unit length along x, its stalk at the origin."""
    t = np.linspace(0, 1, 6)
    if kind == 3:  # lobed
        angle = np.linspace(-2.6, 2.6, 11)
        radius = np.where(np.arange(11) % 2 == 0, 0.55, 0.3)
        lobes = np.stack([0.5 + radius * np.cos(angle), radius * np.sin(angle)], -1)
        return np.concatenate([[[0.0, 0.0]], lobes]).astype(np.float32)
    width = (0.30, 0.36, 0.13, 0.3, 0.05, 0.24)[kind]
    side = width * np.sin(np.pi * t**0.8)
    upper, lower = np.stack([t, side], -1), np.stack([t, -side], -1)
    return np.concatenate([upper, lower[-2:0:-1]]).astype(np.float32)


def leaves(random: np.random.Generator, variant: int) -> Tile:
    """Foliage: oval, small, long, lobed leaves, needles, pointed leaves; dark between them."""
    count, length = ((720, 22), (1300, 13), (1100, 27), (480, 32), (1500, 30), (900, 20))[variant]
    outline = _leaf_outline(variant)
    clump = noise(random, 5, 5, 2)
    canvas = canvas_of(0 * U + 26)
    centre = random.uniform(0, SIZE, (count, 2))
    at = centre.astype(int)
    depth = np.linspace(0, 1, count)  # the last drawn are the outermost
    light = clump[at[:, 1], at[:, 0]]
    kept = (depth < 0.45) | (light + random.normal(0, 0.5, count) > -1.0)
    centre, depth, light = centre[kept], depth[kept], light[kept]
    heading = random.uniform(0, 2 * np.pi, len(centre))
    if variant in (2, 4):  # hanging twigs and needles keep together
        heading = (
            np.pi / 2 + 1.3 * clump[at[kept, 1], at[kept, 0]] + random.normal(0, 0.5, len(centre))
        )
    cos, sin = np.cos(heading), np.sin(heading)
    turn = np.stack([np.stack([cos, sin], -1), np.stack([-sin, cos], -1)], 1)  # (N, 2, 2)
    scale = length * random.uniform(0.65, 1.2, len(centre))
    shapes = (outline - [0.5, 0]) @ turn * scale[:, None, None] + centre[:, None]
    facing = random.beta(1.4, 1.4, len(centre))
    tones = 62 + 58 * depth + 88 * facing * (0.3 + 0.7 * depth) + 15 * light
    corners, source = around_seam(shapes)
    half = len(outline) // 2 + 1
    for corner, tone in zip(corners, np.clip(tones, 12, 255)[source].tolist(), strict=True):
        cv2.fillConvexPoly(canvas, corner, tone, cv2.LINE_AA, 4)
        if variant != 4:
            cv2.fillConvexPoly(canvas, corner[:half], tone * 0.8, cv2.LINE_AA, 4)
    return tinted(drawn(canvas))


def bark(random: np.random.Generator, variant: int) -> Tile:
    """Upright ridges between dark fissures; the second is smoother with level scars."""
    sway = 9 * noise(random, 4, 5, 2)
    if variant == 0:
        ridges = bent(noise(random, 20, 4, 2), 0.5 * sway, 4 * noise(random, 6, 6))
        luma = 165 - 125 * ramp(0.6, 0.0, np.abs(ridges)) + 30 * relief(ridges)
    else:
        scars = noise(random, 5, 44) + 0.6 * noise(random, 3, 3)
        luma = 170 - 95 * ramp(1.35, 2.1, scars) + 9 * bent(noise(random, 16, 3), sway, sway)
    return tinted(luma + 10 * noise(random, 64, 24, 2) + 8 * noise(random, 3, 3))


def wood(random: np.random.Generator, variant: int) -> Tile:
    """Planks along u."""
    laid = courses(pick(random, (6, 8)), 1, random.random(2))
    grain = bent(noise(random, 2, 64, 2), 0 * U, 3 * noise(random, 3, 6))
    luma = 165 + 16 * laid.tones(random) + 14 * grain + 5 * noise(random, 4, 4, 3)
    return tinted(luma - 115 * laid.joint(3.2))


def sky(random: np.random.Generator, variant: int) -> Tile:
    """Clouds: white where dense, grey-blue where clear."""
    shape = bent(noise(random, 3, 4, 6), 14 * noise(random, 3, 3), 10 * noise(random, 4, 4))
    dense = ramp(-0.7 + 0.6 * variant, 1.0 + 0.6 * variant, shape)[..., None]
    clear = np.array([116, 142, 176], np.float32) * random.uniform(0.92, 1.05)
    shade = 236 + 14 * relief(noise(random, 4, 5, 3))[..., None]
    return layered(clear + dense * (shade - clear), 0.0)
