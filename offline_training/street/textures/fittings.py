# SPDX-License-Identifier: Apache-2.0
"""Tiles of vehicles, people and traffic signs."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from offline_training.street.textures.noise import (
    SIZE,
    Field,
    Tile,
    U,
    V,
    bent,
    courses,
    layered,
    noise,
    pebbles,
    pick,
    ramp,
    relief,
    tinted,
)

CENTRE = SIZE // 2
RED, BLUE, GREEN, YELLOW = (190, 25, 30), (25, 75, 160), (20, 110, 60), (240, 190, 30)
INK, PAPER = (20, 20, 22), (238, 238, 235)
RADIUS = np.hypot(U - 0.5, V - 0.5).astype(np.float32) * 2  # 1 at the rim of an inscribed disc
ANGLE = np.arctan2(V - 0.5, U - 0.5).astype(np.float32)


def car_body(random: np.random.Generator, variant: int) -> Tile:
    """Smooth paint with soft level highlights."""
    height = V + 0.02 * noise(random, 2, 3)
    sheen = np.cos(2 * np.pi * height) + 0.5 * np.cos(4 * np.pi * height + 1 + variant)
    return tinted(160 + 20 * sheen + 3 * noise(random, 3, 6, 3))


def wheel(random: np.random.Generator, variant: int) -> Tile:
    """A tyre round an alloy rim seen from the side."""
    rim = random.uniform(0.64, 0.74)
    spokes = (5, 7, 10, 6)[variant]
    turn = (ANGLE / (2 * np.pi) * spokes + random.random()) % 1
    off = np.abs(turn - 0.5) * 2 * np.pi / spokes * RADIUS
    width = random.uniform(0.5, 0.8) / spokes * np.pi * rim * 0.55
    metal = np.maximum(
        ramp(width + 0.03, width - 0.02, off.astype(np.float32)),
        np.maximum(ramp(0.2, 0.17, RADIUS), ramp(rim - 0.1, rim - 0.07, RADIUS)),
    )
    shine = random.uniform(150, 205) * (1 - 0.18 * np.sin(ANGLE)) * (0.85 + 0.2 * RADIUS)
    luma = 26 + metal * (shine - 26) - 70 * ramp(0.09, 0.07, RADIUS) * metal
    tyre = 40 + 12 * np.cos(RADIUS * 60) - 14 * ramp(0.93, 1.0, RADIUS)
    outside = ramp(rim - 0.01, rim + 0.01, RADIUS)
    return layered((luma + outside * (tyre - luma))[..., None], 0.0)


def _lamp(colour: tuple[int, int, int], dark: tuple[int, int, int]) -> NDArray[np.float32]:
    """A lens that glows in the middle, with ribs and a dark frame."""
    glow = np.clip(1.15 - 0.8 * RADIUS, 0, 1) * (0.9 + 0.1 * np.cos(2 * np.pi * 16 * U))
    rgb = np.array(dark) + glow[..., None] * (np.array(colour) - np.array(dark))
    edge = np.minimum(np.minimum(U, 1 - U), np.minimum(V, 1 - V))
    return np.asarray(rgb * (0.15 + 0.85 * ramp(0.02, 0.07, edge))[..., None], np.float32)


def headlight(random: np.random.Generator, variant: int) -> Tile:
    """Clear lens over two reflectors."""
    rgb = _lamp((225, 230, 235), (90, 98, 108))
    for x in (0.3, 0.7):
        ring = np.hypot(U - x, V - 0.5)
        rgb += (90 * ramp(0.14, 0.05, ring) - 70 * ramp(0.03, 0.0, np.abs(ring - 0.17)))[..., None]
    return layered(rgb, 0.0)


def taillight(random: np.random.Generator, variant: int) -> Tile:
    """Red lens with a clear band."""
    rgb = _lamp((235, 35, 30), (120, 8, 12))
    band = (ramp(0.06, 0.04, np.abs(V - 0.72)) * (np.abs(U - 0.5) < 0.4))[..., None]
    return layered(rgb + band * (np.array([235, 215, 205]) - rgb), 0.0)


def grille(random: np.random.Generator, variant: int) -> Tile:
    """Level bars; a mesh."""
    bars = courses(pick(random, (6, 8)), 1) if variant == 0 else courses(12, 12, (0.0, 0.5))
    luma = 22 + 120 * bars.joint(9.0 if variant == 0 else 5.0) + 6 * noise(random, 8, 8)
    return layered(luma[..., None], 0.0)


def _letters(random: np.random.Generator, count: int) -> str:
    return ''.join(pick(random, 'ABCDEFHJKLMNPRSTUVXYZ0123456789') for _ in range(count))


def write(
    rgb: Tile, text: str, box: tuple[int, int, int, int], colour: tuple[int, int, int]
) -> None:
    """Letter `text` so that it fills a box (left, top, right, bottom) of an RGB picture."""
    left, top, right, bottom = box
    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_DUPLEX, 4, 12)
    small = np.zeros((height + 24, width + 24), np.uint8)
    cv2.putText(small, text, (12, height + 12), cv2.FONT_HERSHEY_DUPLEX, 4, 255, 12, cv2.LINE_AA)
    mask = cv2.resize(small, (right - left, bottom - top), interpolation=cv2.INTER_AREA)[..., None]
    part = rgb[top:bottom, left:right]
    part[:] = part + (np.array(colour) - part) * (mask / 255.0)


def plate(random: np.random.Generator, variant: int) -> Tile:
    """Dark letters on white or yellow."""
    rgb = np.full((SIZE, SIZE, 3), pick(random, (PAPER, YELLOW)) if variant else PAPER, np.uint8)
    rgb[:, :26] = BLUE
    cv2.rectangle(rgb, (0, 0), (SIZE - 1, SIZE - 1), INK, 8)
    write(rgb, f'{_letters(random, 2)} {_letters(random, 4)}', (34, 50, 244, 206), INK)
    return layered(rgb.astype(np.float32), 0.0)


def tyre(random: np.random.Generator, variant: int) -> Tile:
    """Dark rubber with a tread."""
    tread = courses(16, 6, (0.0, 0.5))
    return layered((46 - 26 * tread.joint(5) + 4 * noise(random, 64, 64))[..., None], 0.0)


def _folds(random: np.random.Generator) -> Field:
    """Light on hanging cloth, about -1 to 1."""
    sway = 14 * noise(random, 3, 3)
    return np.asarray(
        np.clip(0.75 * bent(noise(random, 7, 2, 2), sway, sway), -1.6, 1.6), np.float32
    )


def cloth(random: np.random.Generator, variant: int) -> Tile:
    """Even, level stripes, upright stripes, checks, dots, knit, quilted, print; all in folds."""
    lines = pick(random, (4, 8, 16))
    level, upright = np.sin(2 * np.pi * lines * V), np.sin(2 * np.pi * lines * U)
    strength = random.uniform(24, 48)
    if variant == 1:
        pattern = strength * ramp(-0.3, 0.3, level)
    elif variant == 2:
        pattern = strength * ramp(0.2, 0.6, upright)
    elif variant == 3:
        pattern = 0.6 * strength * (ramp(-0.2, 0.2, level) + ramp(-0.2, 0.2, upright))
    elif variant == 4:
        pattern = strength * ramp(-0.4, -0.7, level * upright)
    elif variant == 5:
        knit = courses(32, 32, (0.0, 0.5))
        pattern = -strength * knit.joint(3.0)
    elif variant == 6:
        seams = courses(6, 1)
        pattern = 40 * np.sin(np.pi * seams.v) - 50 * seams.joint(3.0)
    elif variant == 7:
        pattern = strength * 1.3 * ramp(0.3, 0.5, noise(random, 5, 5, 3))
    else:
        pattern = 0 * U
    return tinted(160 + 27 * _folds(random) + pattern + 4 * noise(random, 128, 128))


def denim(random: np.random.Generator, variant: int) -> Tile:
    """Twill, worn light in places."""
    twill = np.sin(2 * np.pi * (48 * U + 48 * V))
    worn = noise(random, 3, 2, 3)
    return tinted(160 + 7 * twill + 14 * worn + 16 * _folds(random) + 6 * noise(random, 128, 64))


def skin(random: np.random.Generator, variant: int) -> Tile:
    """Soft blotches."""
    return tinted(160 + 6 * noise(random, 4, 4, 3) + 2 * noise(random, 96, 96))


def hair(random: np.random.Generator, variant: int) -> Tile:
    """Strands along v with a sheen; the second is curly."""
    if variant == 1:
        _, centre, _ = pebbles(random, 22, 0.8)
        return tinted(165 + 60 * relief(centre * -2) - 50 * centre + 14 * noise(random, 5, 5, 2))
    sway = 8 * noise(random, 3, 4)
    strands = bent(noise(random, 72, 3, 2), sway, 0 * sway)
    return tinted(155 + 30 * strands + 22 * np.cos(2 * np.pi * V) + 8 * noise(random, 4, 3))


def face(random: np.random.Generator, variant: int) -> Tile:
    """The front of a head: brows, eyes, nose, mouth; the second has a beard or glasses."""
    luma = 172 - 38 * ramp(0.25, 0.5, np.abs(U - 0.5)) + 3 * noise(random, 4, 4, 3)
    luma += 22 * np.exp(-(((U - 0.5) / 0.05) ** 2) - ((V - 0.53) / 0.1) ** 2)  # bridge of the nose
    luma -= 45 * np.exp(-(((U - 0.5) / 0.09) ** 2) - ((V - 0.645) / 0.018) ** 2)
    for x in (0.32, 0.68):
        luma -= 40 * np.exp(-(((U - x) / 0.11) ** 2) - ((V - 0.45) / 0.06) ** 2)
        luma += 12 * np.exp(-(((U - x) / 0.1) ** 2) - ((V - 0.62) / 0.08) ** 2)
    if variant == 1:
        beard = ramp(0.68, 0.78, V + 0.5 * np.abs(U - 0.5)) * random.uniform(0, 1)
        luma *= 1 - 0.55 * beard
    rgb = np.ascontiguousarray(tinted(luma)[..., :3])
    untouched = rgb.copy()
    brow = int(random.integers(86, 98))
    iris = pick(random, ((40, 30, 25), (50, 70, 90), (60, 75, 45)))
    for x in (82, 174):
        cv2.ellipse(rgb, (x, 115), (20, 8), 0, 0, 360, (215, 212, 208), -1, cv2.LINE_AA)
        cv2.circle(rgb, (x, 115), 8, iris, -1, cv2.LINE_AA)
        cv2.ellipse(rgb, (x, brow), (26, 8), 0, 180, 360, (50, 40, 34), 6, cv2.LINE_AA)
        if variant == 1 and brow % 2:
            cv2.circle(rgb, (x, 115), 34, (28, 28, 30), 5, cv2.LINE_AA)
    cv2.ellipse(rgb, (128, 192), (34, 9), 0, 0, 360, (150, 75, 70), -1, cv2.LINE_AA)
    cv2.line(rgb, (96, 192), (160, 192), (80, 36, 36), 3, cv2.LINE_AA)
    same = (rgb == untouched).all(-1).astype(np.float32)
    return layered(rgb.astype(np.float32), cv2.GaussianBlur(same, (0, 0), 1.0))


def _disc(rgb: Tile, radius: int, colour: tuple[int, int, int]) -> None:
    cv2.circle(rgb, (CENTRE, CENTRE), radius, colour, -1, cv2.LINE_AA)


def _arrow(rgb: Tile, colour: tuple[int, int, int], left: int, right: int) -> None:
    cv2.arrowedLine(rgb, (left, CENTRE), (right, CENTRE), colour, 26, cv2.LINE_AA, tipLength=0.45)


def _round_sign(random: np.random.Generator, variant: int) -> Tile:
    """No entry, speed limit, no stopping, direction; the rim's colour fills the corners."""
    rgb = np.full((SIZE, SIZE, 3), BLUE if variant == 3 else RED, np.uint8)
    if variant == 0:
        cv2.rectangle(rgb, (44, 104), (212, 152), PAPER, -1)
    elif variant == 1:
        _disc(rgb, 96, PAPER)
        write(rgb, pick(random, ('30', '40', '50', '60', '70')), (62, 76, 194, 180), INK)
    elif variant == 2:
        _disc(rgb, 100, BLUE)
        for x in (56, 200) if random.random() < 0.5 else (56,):
            cv2.line(rgb, (x, 56), (SIZE - x, 200), RED, 24, cv2.LINE_AA)
    else:
        _arrow(rgb, PAPER, *pick(random, ((50, 206), (206, 50))))
    return rgb


def _warning_sign(random: np.random.Generator, variant: int) -> Tile:
    """A red-rimmed triangle, point up, on red."""
    rgb = np.full((SIZE, SIZE, 3), RED, np.uint8)
    inside = np.array([[128, 48], [222, 228], [34, 228]], np.int32)
    cv2.fillConvexPoly(rgb, inside, PAPER if variant == 4 else YELLOW, cv2.LINE_AA)
    if random.random() < 0.5:
        cv2.line(rgb, (128, 112), (128, 170), INK, 16, cv2.LINE_AA)
        cv2.circle(rgb, (128, 200), 11, INK, -1, cv2.LINE_AA)
    else:
        cv2.line(rgb, (128, 120), (128, 212), INK, 13, cv2.LINE_AA)
        cv2.line(rgb, (98, 160), (158, 160), INK, 13, cv2.LINE_AA)
    return rgb


def _board_sign(random: np.random.Generator, variant: int) -> Tile:
    """Parking, street name, one way, directions: a lettered board with a rim."""
    ground = pick(random, (BLUE, GREEN) if variant < 9 else (YELLOW, PAPER))
    ink = PAPER if variant < 9 else INK
    rgb = np.full((SIZE, SIZE, 3), ground, np.uint8)
    cv2.rectangle(rgb, (8, 8), (SIZE - 9, SIZE - 9), ink, 7)
    if variant == 6:
        write(rgb, 'P', (70, 44, 186, 212), ink)
    elif variant == 8:
        _arrow(rgb, ink, *pick(random, ((40, 216), (216, 40))))
    else:
        for top in (40, 140) if variant == 9 else (70,):
            name = pick(random, ('Mill St', 'Park Rd', 'Lindenweg', 'Am Markt', 'High St'))
            write(rgb, name, (26, top, 230, top + (76 if variant == 9 else 116)), ink)
    return rgb


def sign(random: np.random.Generator, variant: int) -> Tile:
    """Variants 0-3 suit round plates, 4-5 triangular ones with the point up, 6-9 rectangles."""
    draw = _round_sign if variant < 4 else _warning_sign if variant < 6 else _board_sign
    rgb = draw(random, variant).astype(np.float32)
    return layered(rgb + 5 * noise(random, 6, 6, 4)[..., None], 0.0)
