# SPDX-License-Identifier: Apache-2.0
"""Tiles of what houses and posts are covered with."""

from __future__ import annotations

import numpy as np

from offline_training.street.textures.noise import (
    Field,
    Tile,
    U,
    V,
    courses,
    cracks,
    layered,
    noise,
    pebbles,
    pick,
    ramp,
    tinted,
)


def brick_tones(random: np.random.Generator, rows: int, columns: int) -> Field:
    """Luminance of bricks, in a bond drawn at random, with light or dark mortar."""
    shifts = pick(random, ((0.0, 0.5), (0.0, 0.25), (0.0, 0.5, 0.25, 0.75)))
    laid = courses(rows, columns, shifts)
    luma = 155 + random.uniform(14, 30) * laid.tones(random) + 8 * noise(random, 96, 96, 2)
    luma += pick(random, (55.0, -85.0)) * laid.joint(random.uniform(1.6, 2.4))
    return np.asarray(luma + 6 * noise(random, 3, 3, 3), np.float32)


def brick(random: np.random.Generator, variant: int) -> Tile:
    """Courses of about 8 cm."""
    return tinted(brick_tones(random, pick(random, (20, 24, 28)), pick(random, (7, 8, 9))))


def plaster_tones(random: np.random.Generator) -> Field:
    """Luminance of plaster: fine grain, soft stains, faint streaks where rain ran down."""
    luma = 160 + 7 * noise(random, 3, 3, 4) + 4 * noise(random, 128, 128, 2)
    streaks = noise(random, 40, 2, 2)
    return np.asarray(luma - random.uniform(4, 16) * ramp(0.6, 2.2, streaks), np.float32)


def plaster(random: np.random.Generator, variant: int) -> Tile:
    """Stained, stained with cracks, patchy."""
    luma = plaster_tones(random)
    if variant == 1:
        luma *= 1 - 0.35 * cracks(random, 4, 30)
    if variant == 2:
        luma -= 24 * ramp(0.7, 0.9, noise(random, 3, 4, 5))
    return tinted(luma)


def concrete(random: np.random.Generator, variant: int) -> Tile:
    """Cast in panels with tie holes; cast between boards."""
    luma = 160 + 10 * noise(random, 4, 4, 5) - 45 * ramp(2.0, 2.8, noise(random, 96, 96))
    if variant == 0:
        cast = courses(2, 2)
        hole = np.hypot(np.abs(cast.u - 0.5) - 0.28, np.abs(cast.v - 0.5) - 0.28)
        luma += 7 * cast.tones(random) - 85 * cast.joint(2.4) - 90 * ramp(0.03, 0.018, hole)
    else:
        boards = courses(12, 1, random.random(2))
        luma += 9 * boards.tones(random) - 50 * boards.joint(1.6) + 5 * noise(random, 3, 96)
    return tinted(luma - 14 * ramp(0.5, 2.0, noise(random, 28, 2)))


def rooftiles(random: np.random.Generator, variant: int) -> Tile:
    """Pantiles, flat tiles in bond, slates; each row throws a shadow on the next."""
    if variant == 0:
        laid = courses(pick(random, (6, 7)), pick(random, (8, 9, 10)))
        luma = 160 + 16 * laid.tones(random) + 62 * np.sin(2 * np.pi * laid.u + 0.6)
    else:
        laid = courses(pick(random, (8, 10)), pick(random, (8, 10, 12)), (0.0, 0.5))
        beside = np.minimum(laid.u, 1 - laid.u)
        luma = 170 + (18 + 8 * variant) * laid.tones(random) - 80 * ramp(0.07, 0.03, beside)
    luma -= 95 * ramp(0.22, 0.0, laid.v) - 30 * ramp(0.75, 0.95, laid.v)
    return tinted(luma + 8 * noise(random, 5, 5, 5))


def _siding_tones(random: np.random.Generator) -> Field:
    """Luminance of weather boards that overlap downwards."""
    boards = courses(pick(random, (12, 16, 20)), 1)
    luma = 168 + 5 * boards.tones(random) + 3 * noise(random, 3, 96, 2)
    return np.asarray(luma - 75 * ramp(0.16, 0.0, boards.v) + 14 * boards.v, np.float32)


def _panel_tones(random: np.random.Generator) -> Field:
    """Luminance of large plates with open joints."""
    plates = courses(pick(random, (1, 2, 3)), pick(random, (1, 2, 4)))
    luma = 162 + 9 * plates.tones(random) + 4 * noise(random, 4, 4, 4)
    return np.asarray(luma - 85 * plates.joint(3), np.float32)


def _ashlar_tones(random: np.random.Generator) -> Field:
    """Luminance of cut stone in bond."""
    laid = courses(pick(random, (6, 8)), pick(random, (3, 4)), (0.0, 0.5))
    luma = 165 + 13 * laid.tones(random) + 9 * noise(random, 24, 24, 4)
    return np.asarray(luma - 70 * laid.joint(3.4), np.float32)


def plain(random: np.random.Generator, variant: int) -> Tile:
    """Almost even."""
    return tinted(160 + (3 + 2 * variant) * noise(random, 4, 4, 6))


def metal(random: np.random.Generator, variant: int) -> Tile:
    """Brushed and stained; galvanised, in flakes."""
    if variant == 0:
        luma = 160 + 6 * noise(random, 128, 3) + 8 * noise(random, 3, 5, 4)
    else:
        index, _, _ = pebbles(random, 18, 1.0)
        luma = 160 + 15 * random.standard_normal(18 * 18, np.float32)[index]
    return tinted(luma - 40 * ramp(1.4, 2.4, noise(random, 12, 6, 3)))


def glass(random: np.random.Generator, variant: int) -> Tile:
    """Dark and bluish, with bright reflections aslant."""
    aslant = 2 * np.pi * (U + V + random.random())
    bright = ramp(0.35, 0.9, np.cos(aslant) + 0.12 * noise(random, 3, 3, 2))
    bright += 0.5 * ramp(0.85, 0.97, np.cos(2 * aslant + 1.9 + variant).astype(np.float32))
    luma = 46 + 8 * noise(random, 3, 3, 3) + random.uniform(70, 110) * bright
    return layered(luma[..., None] * np.array([0.86, 1.0, 1.14], np.float32), 0.0)


def _brickwork_tones(random: np.random.Generator) -> Field:
    """Luminance of bricks, one storey of them."""
    return brick_tones(random, pick(random, (32, 36, 40)), pick(random, (10, 12, 13)))


WALLS = (_brickwork_tones, plaster_tones, _siding_tones, _panel_tones, _ashlar_tones)


def wall(random: np.random.Generator, variant: int) -> Field:
    """Luminance of a house wall, one storey high; neighbouring variants differ in kind."""
    return WALLS[variant % len(WALLS)](random)
