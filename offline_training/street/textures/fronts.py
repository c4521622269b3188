# SPDX-License-Identifier: Apache-2.0
"""Tiles of house fronts: one storey of one bay, 3.2 m wide and 3.0 m high, about 12 mm a texel."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from offline_training.street.textures.fittings import write
from offline_training.street.textures.noise import (
    SIZE,
    Field,
    Tile,
    U,
    V,
    layered,
    noise,
    pick,
    ramp,
    tinted,
)
from offline_training.street.textures.walls import wall

Box = tuple[int, int, int, int]  # left, top, right, bottom, pixels
Colour = tuple[float, float, float]

WORDS = ('CAFE', 'BAKERY', 'BOOKS', 'HAIR', 'PIZZA', 'SHOES', 'OPTIK', 'BAR', 'FLOWERS', 'BANK')


def _bleak(random: np.random.Generator, low: float, high: float) -> Colour:
    """Draw a colour of little saturation, of a brightness between `low` and `high`."""
    red, green, blue = random.uniform(low, high) * random.uniform(0.95, 1.05, 3)
    return red, green, blue


def _bold(random: np.random.Generator) -> Colour:
    """Draw a colour of any saturation."""
    red, green, blue = random.uniform(25, 215, 3)
    return red, green, blue


class Front:
    """A picture that is painted from the wall outwards.

    Attributes:
        rgb: (SIZE, SIZE, 3) 0 to 255.
        tint: (SIZE, SIZE) 0 as it is to 1 tinted.

    """

    def __init__(self, luma: Field) -> None:
        """Start from a tinted wall."""
        self.rgb = tinted(luma)[..., :3].astype(np.float32)
        self.tint = np.ones((SIZE, SIZE), np.float32)

    def fill(self, box: Box, colour: Colour, tint: float = 0.0) -> None:
        """Cover a box."""
        left, top, right, bottom = box
        self.rgb[top:bottom, left:right] = colour
        self.tint[top:bottom, left:right] = tint

    def shade(self, box: Box, factor: float) -> None:
        """Darken a box, or lighten it where `factor` is above 1."""
        left, top, right, bottom = box
        self.rgb[max(top, 0) : bottom, max(left, 0) : right] *= factor

    def frame(self, box: Box, width: int, colour: Colour, tint: float = 0.0) -> None:
        """Cover a rim inside a box."""
        left, top, right, bottom = box
        self.fill((left, top, right, top + width), colour, tint)
        self.fill((left, bottom - width, right, bottom), colour, tint)
        self.fill((left, top, left + width, bottom), colour, tint)
        self.fill((right - width, top, right, bottom), colour, tint)

    def ledge(self, box: Box, colour: Colour, tint: float = 0.0) -> None:
        """Cover a box that stands out: lit from above, its shadow below."""
        left, top, right, bottom = box
        self.fill(box, colour, tint)
        self.shade((left, top, right, top + 2), 1.2)
        self.shade((left, bottom - 2, right, bottom), 0.75)
        self.shade((left, bottom, right, bottom + 7), 0.62)

    def tile(self) -> Tile:
        """Finish."""
        return layered(self.rgb, self.tint)


def _reflection(random: np.random.Generator) -> NDArray[np.float32]:
    """What panes mirror: sky above, dark house outlines below, a slanting gleam."""
    skyline = 0.5 + 0.12 * noise(random, 6, 1)
    sky = ramp(0.06, -0.06, V - skyline)
    luma = 38 + sky * random.uniform(35, 120) * (1.1 - 0.7 * V) + 7 * noise(random, 5, 5, 3)
    gleam = np.abs((U + 0.55 * V + random.random()) % 1 - 0.5)
    luma += random.uniform(10, 45) * ramp(0.09, 0.07, gleam)
    return np.asarray(luma[..., None] * np.array([0.84, 0.98, 1.16]), np.float32)


def _inside(
    random: np.random.Generator, front: Front, box: Box, glass: NDArray[np.float32]
) -> None:
    """Glaze an opening, with curtains or a blind behind it at times."""
    left, top, right, bottom = box
    pane = glass[top:bottom, left:right].copy()
    width, height = right - left, bottom - top
    kind = random.random()
    if kind < 0.45:
        part = int(width * random.uniform(0.16, 0.34))
        folds = np.cos(np.arange(part) * 2 * np.pi / max(part / 3.5, 4))[None, :, None]
        drape = np.array(_bleak(random, 130, 205)) + 24 * folds
        pane[:, :part] += 0.8 * (drape - pane[:, :part])
        pane[:, width - part :] += 0.8 * (drape[:, ::-1] - pane[:, width - part :])
    elif kind < 0.7:
        down = int(height * random.uniform(0.2, 0.75))
        slats = 14 * np.sign(np.sin(np.arange(down) * 0.9))[:, None, None]
        pane[:down] = np.array(_bleak(random, 140, 205)) + slats
    front.rgb[top:bottom, left:right] = pane
    front.tint[top:bottom, left:right] = 0
    front.shade((left, top, right, top + 6), 0.5)
    front.shade((left, top, left + 4, bottom), 0.65)


def _window(
    random: np.random.Generator, front: Front, box: Box, columns: int, rows: tuple[float, ...]
) -> None:
    """Set a window into an opening.

    Args:
        random: Where the draws come from.
        front: What is painted on.
        box: The opening.
        columns: Panes side by side.
        rows: Heights of the bars between panes, as shares of the opening from the top.

    """
    left, top, right, bottom = box
    _inside(random, front, box, _reflection(random))
    frame = _bleak(random, 195, 230) if random.random() < 0.65 else _bleak(random, 35, 95)
    width = int(random.integers(5, 9))
    front.frame(box, width, frame)
    for column in range(1, columns):
        x = left + (right - left) * column // columns
        front.fill((x - width // 2 - 1, top, x + width // 2 + 1, bottom), frame)
    for share in rows:
        y = int(top + (bottom - top) * share)
        front.fill((left, y - 2, right, y + 3), frame)
    front.shade((left, top, right, top + 4), 0.55)
    front.shade((left, top, left + 3, bottom), 0.7)


def _surround(random: np.random.Generator, front: Front, box: Box) -> None:
    """Put a lintel, a moulded frame or nothing round an opening."""
    left, top, right, bottom = box
    kind = random.integers(3)
    colour, tint = pick(random, ((_bleak(random, 170, 225), 0.0), (_bleak(random, 200, 240), 1.0)))
    if kind == 0:
        front.ledge((left - 14, top - 20, right + 14, top), colour, tint)
    elif kind == 1:
        front.shade((left - 12, top - 9, right + 16, bottom + 14), 0.75)
        front.fill((left - 12, top - 12, right + 12, bottom), colour, tint)


def _sill(random: np.random.Generator, front: Front, box: Box) -> None:
    """Put a sill under an opening, with streaks of dirt beneath its ends."""
    left, _, right, bottom = box
    streaks = ramp(0.2, 1.6, noise(random, 48, 1)) * ramp(1.0, 0.0, (V * SIZE - bottom) / 60)
    streaks[:bottom] = 0
    streaks[:, : left - 8] = 0
    streaks[:, right + 8 :] = 0
    front.rgb *= 1 - 0.22 * streaks[..., None]
    front.ledge((left - 9, bottom, right + 9, bottom + 8), _bleak(random, 150, 215))


def _shutters(random: np.random.Generator, front: Front, box: Box) -> None:
    """Open a pair of slatted shutters beside an opening."""
    left, top, right, bottom = box
    wide = min((right - left) // 2, left - 4)
    colour = _bold(random)
    for start in (left - wide - 2, right + 2):
        front.shade((start, top, start + wide + 4, bottom + 5), 0.7)
        front.fill((start, top, start + wide, bottom), colour)
        for y in range(top + 8, bottom - 8, 5):
            front.shade((start + 5, y, start + wide - 5, y + 2), 0.6)
        middle = (top + bottom) // 2
        front.fill((start, middle - 3, start + wide, middle + 3), colour)


def _railing(random: np.random.Generator, front: Front, left: int, right: int) -> None:
    """Hang a railing in front of the lower part, over the edge of a balcony's floor."""
    top = int(random.integers(160, 174))
    colour = pick(random, (_bleak(random, 25, 60), _bleak(random, 170, 215)))
    if random.random() < 0.35:
        front.ledge((left, top, right, 240), _bleak(random, 120, 215))
    for x in range(left, right, pick(random, (8, 10, 12))):
        front.fill((x, top, x + 3, 240), colour)
    front.fill((left, top, right, top + 5), colour)
    front.ledge((left, 240, right, 249), _bleak(random, 140, 200))


def _arch(front: Front, box: Box, wall_rgb: NDArray[np.float32], wall_tint: Field) -> None:
    """Round the top of an opening off by what the wall was before."""
    left, top, right, _ = box
    half = (right - left) / 2
    x, y = U * SIZE - (left + right) / 2, V * SIZE - (top + half * 0.6)
    outside = (np.abs(x) <= half) & (y < 0) & ((x / half) ** 2 + (y / (half * 0.6)) ** 2 > 1)
    front.rgb[outside], front.tint[outside] = wall_rgb[outside], wall_tint[outside]


def _trim(random: np.random.Generator, front: Front) -> None:
    """Draw a band between storeys or a pilaster between bays at times; both close at the seam."""
    colour = _bleak(random, 185, 240)
    tint = float(random.integers(2))
    if random.random() < 0.4:
        front.ledge((0, 2, SIZE, int(random.integers(10, 22))), colour, tint)
    if random.random() < 0.25:
        wide = int(random.integers(6, 16))
        front.fill((0, 0, wide, SIZE), colour, tint)
        front.fill((SIZE - wide, 0, SIZE, SIZE), colour, tint)
        front.shade((wide, 0, wide + 4, SIZE), 0.7)


def _flowers(random: np.random.Generator, front: Front, box: Box) -> None:
    """Put a box of plants on the sill."""
    left, _, right, bottom = box
    front.ledge((left, bottom - 6, right, bottom + 8), _bleak(random, 60, 130))
    blooms = _bold(random)
    for _ in range(90):
        centre = (int(random.uniform(left, right)), int(random.normal(bottom - 10, 6)))
        green = random.uniform(30, 120)
        leaf = (0.6 * green, green, 0.5 * green)
        cv2.circle(front.rgb, centre, 4, blooms if random.random() < 0.3 else leaf, -1)
    front.tint[bottom - 30 : bottom + 8, left - 4 : right + 4] = 0


def facade(random: np.random.Generator, variant: int) -> Tile:
    """An upper storey; the layout of its windows follows the variant, all else is drawn."""
    front = Front(wall(random, variant + variant // 8))
    _trim(random, front)
    layout = variant % 8
    middle = 128 + int(random.integers(-6, 7))
    half = int(random.integers(*((44, 58), (38, 50), (76, 94), (0, 1))[layout % 4]))
    top, bottom = int(random.integers(46, 62)), int(random.integers(176, 190))
    box = (middle - half, top, middle + half, bottom)
    bars = pick(random, ((), (0.3,), (0.5,), (0.33, 0.66)))
    if layout == 3:
        wide = int(random.integers(50, 66))
        pane = (middle - wide - 15, top, middle - 15, bottom)
        _surround(random, front, pane)
        _window(random, front, pane, 1, bars)
        _sill(random, front, pane)
        first, second = slice(middle - wide - 30, middle), slice(middle, middle + wide + 30)
        front.rgb[:, second], front.tint[:, second] = front.rgb[:, first], front.tint[:, first]
    elif layout == 7:  # a ribbon of glass from bay to bay
        front.fill((0, top - 4, SIZE, top), _bleak(random, 60, 120))
        _inside(random, front, (0, top, SIZE, bottom + 6), _reflection(random))
        frame = _bleak(random, 40, 190)
        for x in range(0, SIZE, pick(random, (64, 128))):
            front.fill((x, top, x + 5, bottom + 6), frame)
        front.ledge((0, bottom + 6, SIZE, bottom + 12), _bleak(random, 120, 200))
    elif layout in (4, 6):  # doors onto a balcony, wide or narrow
        doors = (middle - half, top, middle + half, 240)
        _surround(random, front, doors)
        _window(random, front, doors, pick(random, (2, 3)), bars)
        reach = pick(random, (half + 6, 118))
        _railing(random, front, middle - reach, middle + reach)
    else:
        wall_rgb, wall_tint = front.rgb.copy(), front.tint.copy()
        arched = layout == 5 and random.random() < 0.6
        if not arched:
            _surround(random, front, box)
        _window(random, front, box, (2, 1, 3, 1, 1, 2)[layout], bars)
        if arched:
            _arch(front, box, wall_rgb, wall_tint)
        _sill(random, front, box)
        if layout in (0, 1, 5) and random.random() < 0.5:
            _shutters(random, front, box)
        elif random.random() < 0.25:
            _flowers(random, front, box)
    return front.tile()


def _door(random: np.random.Generator, front: Front, box: Box) -> None:
    """Hang a panelled door, with a light over it and a step before it."""
    left, top, right, bottom = box
    _window(random, front, (left, top, right, top + 34), pick(random, (1, 2)), ())
    front.fill((left, top + 34, right, bottom), _bold(random))
    height = (bottom - top - 34) // 3
    for row in range(3):
        y = top + 40 + row * height
        panel = (left + 9, y, right - 9, y + height - 10)
        if row == 0 and random.random() < 0.5:
            _inside(random, front, panel, _reflection(random))
        front.shade((panel[0], panel[1], panel[2], panel[1] + 3), 0.55)
        front.shade(panel, 0.85)
    front.fill(
        (right - 14, (top + bottom) // 2 + 14, right - 8, (top + bottom) // 2 + 28), (205,) * 3
    )
    front.shade((left, top, left + 5, bottom), 0.55)
    front.ledge((left - 10, bottom, right + 10, SIZE), _bleak(random, 120, 180))


def _goods(random: np.random.Generator, front: Front, box: Box) -> None:
    """Glaze a shop window, with things on shelves that are seen through it."""
    left, top, right, bottom = box
    glass = _reflection(random)
    front.rgb[top:bottom, left:right] = glass[top:bottom, left:right]
    front.tint[top:bottom, left:right] = 0
    for shelf in pick(random, ((bottom - 4,), (bottom - 50, bottom - 4))):
        x = left + 8
        while x < right - 16:
            wide, high = (int(n) for n in random.integers((7, 10), (22, 44)))
            thing = (x, shelf - high, min(x + wide, right - 6), shelf)
            front.fill(thing, _bold(random))
            front.shade((thing[2] - 3, thing[1], thing[2], shelf), 0.6)
            x += wide + int(random.integers(2, 16))
    kept = front.rgb[top:bottom, left:right]
    kept += 0.45 * (glass[top:bottom, left:right] - kept)
    front.shade((left, top, right, top + 9), 0.5)
    front.frame(box, 4, _bleak(random, 40, 190))


def _board(random: np.random.Generator, front: Front) -> None:
    """Put a sign board over the shop."""
    ground, ink = _bold(random), _bleak(random, 215, 245)
    if sum(ground) > 400:
        ink = _bleak(random, 20, 50)
    front.ledge((0, 14, SIZE, 54), ground)
    text = front.rgb[:54].astype(np.uint8)
    write(text, pick(random, WORDS), (52, 20, 204, 48), (int(ink[0]), int(ink[1]), int(ink[2])))
    front.rgb[14:54] = text[14:54]


def _awning(random: np.random.Generator, front: Front) -> None:
    """Stretch a striped awning over the shop window."""
    stripes = ((U * pick(random, (8, 10))) % 1 < 0.5)[52:98, :, None]
    cloth = np.where(stripes, _bold(random), _bleak(random, 200, 235))
    front.rgb[52:98] = cloth * np.linspace(1.05, 0.8, 46)[:, None, None]
    front.tint[52:98] = 0
    front.shade((0, 98, SIZE, 118), 0.55)


def _gate(random: np.random.Generator, front: Front, box: Box) -> None:
    """Close an opening by a garage door or roller shutter of level slats."""
    left, top, right, bottom = box
    front.fill(box, pick(random, (_bold(random), _bleak(random, 130, 215))))
    pitch = pick(random, (7, 10, 40))
    for y in range(top + pitch, bottom, pitch):
        front.shade((left, y - 2, right, y), 0.6)
        front.shade((left, y, right, y + 2), 1.12)
    front.shade((left, top, right, top + 10), 0.5)
    front.shade((left, top, left + 5, bottom), 0.6)


def shopfront(random: np.random.Generator, variant: int) -> Tile:
    """A ground floor, by variant.

    House door, shop window, shop with a door, garage, shop under an awning, closed shutter,
    window over a cellar, wide glazed entrance.
    """
    front = Front(wall(random, variant))
    plinth = int(random.integers(206, 232))
    front.rgb[plinth:] *= random.uniform(0.55, 0.85)
    front.shade((0, plinth, SIZE, plinth + 3), 1.25)
    if variant == 0:
        door = (84, 46, 172, 246)
        _surround(random, front, door)
        _door(random, front, door)
    elif variant in (1, 4):
        _goods(random, front, (12, 66, 244, int(random.integers(196, 226))))
    elif variant == 2:
        _goods(random, front, (92, 66, 246, 210))
        _door(random, front, (14, 62, 82, 250))
    elif variant in (3, 5):
        _gate(random, front, (18, int(random.integers(44, 74)), 238, 252))
    elif variant == 6:
        pane = (74, 50, 182, 160)
        _surround(random, front, pane)
        _window(random, front, pane, 2, ())
        _sill(random, front, pane)
        _window(random, front, (96, 214, 160, 244), 2, ())
    else:
        _inside(random, front, (8, 64, 248, 250), _reflection(random))
        for x in (8, 66, 124, 182, 244):
            front.fill((x, 64, x + 5, 250), _bleak(random, 60, 90))
        front.fill((66, 150, 187, 155), _bleak(random, 60, 90))
    if variant in (1, 2, 4, 5, 7):
        _board(random, front)
    if variant == 4:
        _awning(random, front)
    return front.tile()
