# SPDX-License-Identifier: Apache-2.0
"""One picture of a video: a sweep in its cameras and from above.

`cross4d_jepa_ros.pictures` draws for print and takes a second or two; this takes 0.15 s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cross4d_jepa_ros.pictures import (
    DARKENED,
    EXTENT_M,
    FAINT,
    NIGHT,
    RINGS_M,
    Paint,
    camera_title,
    enlargement,
    seen_by,
)
from cross4d_jepa_ros.sensing.frames import CameraView

WIDEST, HIGHEST = 1920, 960
GAP, HEADER, LEGEND_ROW = 8, 44, 34
TEXT, SMALL, INK = 20, 15, (232, 236, 241)
AROUND = (0, 0, 0)
# Pictures are painted in that many pixels for one, so that dots are round and edges smooth.
FINER = 2
# Of images that are wider than that, a lone camera shows the photo as well.
PHOTO_ASPECT = 0.7
# Dots from above, in pixels of a panel of 900, grow with the distance, as points lie farther apart.
DOT_PX, DOT_PX_PER_M, DOT_LIMITS = 0.9, 0.05, (1.2, 3.0)
USUAL_POINTS, LARGEST_BOOST = 60_000.0, 1.6
# Dots in a camera cover about this share of its image together.
COVERED, CAMERA_DOT_LIMITS = 0.12, (2.0, 5.0)

Picture = NDArray[np.uint8]
Colour = Sequence[int]


@dataclass(frozen=True)
class Scene:
    """What one picture shows.

    Attributes:
        headline: Above on the left.
        remark: Above on the right.
        stamp_ns: Of the sweep.
        xyz: (N, 3) m, valid points in the base frame.
        paint: Their colours.
        views: Images.
        cameras: Image topic of each camera, by index.

    """

    headline: str
    remark: str
    stamp_ns: int
    xyz: NDArray[np.float32]
    paint: Paint
    views: Sequence[CameraView]
    cameras: Sequence[str]


@dataclass(frozen=True)
class Tile:
    """Where the image of a camera is.

    Attributes:
        camera: By index.
        labelled: Whether the points are painted over it.
        below_photo: Whether it stands below the photo alone.
        x, y, width, height: In pixels.

    """

    camera: int
    labelled: bool
    below_photo: bool
    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Layout:
    """Where everything is in all pictures of a video.

    Attributes:
        width, height: Of the picture, even.
        tiles: Of the cameras.
        side: Of the squares from above.
        squares: Their left upper corners: of the answer, then of the truth, if there is one.
        legend: (y, x, name, colour) of each class.

    """

    width: int
    height: int
    tiles: tuple[Tile, ...]
    side: int
    squares: tuple[tuple[int, int], ...]
    legend: tuple[tuple[int, int, str, Colour], ...]


def arranged(
    aspects: dict[int, float], truth: bool, legend: Sequence[tuple[str, Colour]]
) -> Layout:
    """Lay pictures out: cameras on the left, from above on the right, classes below.

    Args:
        aspects: Height / width of the images of each camera, by index.
        truth: Whether the truth is shown beside the answers.
        legend: Name and RGB of each class.

    """
    wanted = [(camera, True) for camera in sorted(aspects)]
    if len(wanted) == 1 and min(aspects.values()) < PHOTO_ASPECT:
        wanted.insert(0, (wanted[0][0], False))
    squares = 2 if truth else 1
    aspect = max(aspects.values(), default=1.0)
    columns, rows, tile_width = _grid(len(wanted), aspect, squares)
    tile_height = round(tile_width * aspect)
    side = rows * tile_height + (rows - 1) * GAP if wanted else _side(0, squares)
    tiles = tuple(
        Tile(
            camera,
            labelled,
            labelled and (camera, False) in wanted,
            GAP + place // rows * (tile_width + GAP),
            HEADER + place % rows * (tile_height + GAP),
            tile_width,
            tile_height,
        )
        for place, (camera, labelled) in enumerate(wanted)
    )
    left = GAP + columns * (tile_width + GAP)
    corners = tuple((left + number * (side + GAP), HEADER) for number in range(squares))
    width = _even(left + squares * (side + GAP))
    placed, bottom = _placed(legend, width, HEADER + side + GAP)
    return Layout(width, _even(bottom), tiles, side, corners, placed)


def _grid(tiles: int, aspect: float, squares: int) -> tuple[int, int, int]:
    """Columns, rows and width of the tiles with which both cameras and squares are large."""
    best, found = 0, (0, 0, 0)
    for columns in range(1, tiles + 1):
        rows = -(-tiles // columns)
        side = _side(columns, squares, columns / (rows * aspect))
        width = int((side - (rows - 1) * GAP) / (rows * aspect))
        # With the sum of the areas, one of the two would get everything.
        large = width * side
        if large > best:
            best, found = large, (columns, rows, width)
    return found


def _side(columns: int, squares: int, cameras_share: float = 0.0) -> int:
    """Side of the squares beside a block of cameras of their height and that share of it wide."""
    free = WIDEST - GAP * (columns + squares + 1)
    return min(HIGHEST, int(free / (cameras_share + squares)))


def _placed(
    legend: Sequence[tuple[str, Colour]], width: int, top: int
) -> tuple[tuple[tuple[int, int, str, Colour], ...], int]:
    """Wrap the legend into rows; says where it ends."""
    x, y, placed = GAP, top, []
    for name, colour in legend:
        wide = LEGEND_ROW + _written(name, TEXT).shape[1] + GAP
        if x > GAP and x + wide > width:
            x, y = GAP, y + LEGEND_ROW
        placed.append((y, x, name, colour))
        x += wide
    return tuple(placed), y + (LEGEND_ROW if placed else 0)


def _even(pixels: int) -> int:
    return pixels + pixels % 2


def painted(layout: Layout, scene: Scene) -> Picture:
    """Paint a picture (height, width, 3), RGB."""
    picture = np.full((layout.height, layout.width, 3), AROUND, np.uint8)
    middle = layout.width // 2
    _write(picture, scene.headline, GAP, (HEADER - 30) // 2, TEXT, middle - GAP)
    room = min(_written(scene.remark, TEXT).shape[1], middle - GAP)
    _write(picture, scene.remark, layout.width - GAP - room, (HEADER - 30) // 2, TEXT, room)
    views = {view.camera_index: view for view in scene.views}
    for tile in layout.tiles:
        place = picture[tile.y : tile.y + tile.height, tile.x : tile.x + tile.width]
        place[:] = _rgb(NIGHT)
        _paint_camera(place, tile, views.get(tile.camera), scene)
    paint = scene.paint
    titles = (f'{_title(scene)}, from above', 'the truth')
    for (x, y), rgb, title in zip(
        layout.squares, (paint.rgb, paint.truth_rgb), titles, strict=False
    ):
        place = picture[y : y + layout.side, x : x + layout.side]
        if rgb is None:
            _write(place, f'{title}: none of this sweep', GAP, GAP, SMALL, layout.side)
        else:
            _paint_from_above(place, scene.xyz, rgb, paint.legend)
            _write(place, title, GAP, GAP, SMALL, layout.side, boxed=True)
    for y, x, name, colour in layout.legend:
        edge = LEGEND_ROW // 4
        picture[y + edge : y + 3 * edge, x : x + 2 * edge] = colour
        _write(picture, name, x + 2 * edge + GAP, y + 2, TEXT, layout.width - x)
    return picture


def _title(scene: Scene) -> str:
    return 'what the network says' if scene.paint.legend else 'like colours, like embeddings'


def _paint_from_above(
    place: Picture,
    xyz: NDArray[np.float32],
    rgb: NDArray[np.uint8],
    legend: Sequence[tuple[str, Colour]],
) -> None:
    side = FINER * len(place)
    metre = side / (2 * EXTENT_M)
    large = np.full((side, side, 3), _rgb(NIGHT), np.uint8)
    for radius in RINGS_M:
        centre = (side // 2, side // 2)
        cv2.circle(large, centre, round(radius * metre), _rgb(FAINT), FINER, cv2.LINE_AA)
    near = np.flatnonzero(np.abs(xyz[:, :2]).max(axis=1, initial=0.0) < EXTENT_M)
    order = near[np.argsort(xyz[near, 2], kind='stable')]
    xyz, rgb = xyz[order], rgb[order]
    larger = enlargement(rgb, legend)
    boost = np.clip((USUAL_POINTS / max(1, len(xyz))) ** 0.25, 1, LARGEST_BOOST)
    wide = np.clip(DOT_PX + DOT_PX_PER_M * np.hypot(xyz[:, 0], xyz[:, 1]), *DOT_LIMITS)
    wide = np.maximum(1, np.rint(wide * boost * np.sqrt(larger) * side / 900)).astype(int)
    at = side / 2 - metre * xyz[:, [1, 0]]
    # What is rare goes over the rest.
    for rare, diameter in sorted(set(zip(larger.tolist(), wide.tolist(), strict=True))):
        some = (larger == rare) & (wide == diameter)
        _dot(large, at[some], rgb[some], diameter)
    tip, tail = (round(side / 2 - metre * x) for x in (5.0, -1.5))
    white = (255, 255, 255)
    cv2.arrowedLine(
        large, (side // 2, tail), (side // 2, tip), white, 3 * FINER, cv2.LINE_AA, tipLength=0.3
    )
    place[:] = cv2.resize(large, place.shape[1::-1], interpolation=cv2.INTER_AREA)
    for radius in RINGS_M:
        text = f'{radius} m'
        along = round(len(place) / 2 + radius * np.sqrt(0.5) * metre / FINER)
        half = _written(text, SMALL).shape[1] // 2
        _write(place, text, along - half, along - SMALL, SMALL, len(place), boxed=True)
    up = round(len(place) / 2 - 5.0 * metre / FINER)
    _write(place, 'x', len(place) // 2 - 5, up - 2 * SMALL, SMALL, len(place), boxed=True)


def _paint_camera(place: Picture, tile: Tile, view: CameraView | None, scene: Scene) -> None:
    if view is None:
        name = scene.cameras[tile.camera] if tile.camera < len(scene.cameras) else ''
        _write(place, f'{name}, no image of this sweep', GAP, GAP, SMALL, tile.width)
        return
    rows, columns = view.image.shape[:2]
    scale = min(tile.width / columns, tile.height / rows)
    size = (round(columns * scale), round(rows * scale))
    x, y = (tile.width - size[0]) // 2, (tile.height - size[1]) // 2
    if tile.labelled:
        large = cv2.resize(view.image, (FINER * size[0], FINER * size[1]))
        large = (large * DARKENED).astype(np.uint8)
        seen, uv = seen_by(view, scene.xyz)
        rgb = scene.paint.rgb[seen]
        covered = COVERED * size[0] * size[1] / max(1, len(seen))
        wide = FINER * float(np.clip(np.sqrt(covered), *CAMERA_DOT_LIMITS))
        at = (uv + 0.5) * FINER * scale - 0.5
        larger = enlargement(rgb, scene.paint.legend)
        for rare in np.unique(larger):
            some = larger == rare
            _dot(large, at[some], rgb[some], round(wide * float(rare) ** 0.25))
        image = cv2.resize(large, size, interpolation=cv2.INTER_AREA)
    else:
        image = cv2.resize(view.image, size, interpolation=cv2.INTER_AREA)
    place[y : y + size[1], x : x + size[0]] = image
    title = camera_title(view, scene.stamp_ns, scene.cameras)
    if tile.below_photo:
        title = _title(scene)
    _write(place, title, x + GAP, y + GAP, SMALL, tile.width, boxed=True)


def _dot(picture: Picture, at: NDArray[np.float32], rgb: NDArray[np.uint8], diameter: int) -> None:
    """Paint round dots of (K, 3) colours at (K, 2) pixels x, y; later ones over earlier ones."""
    reach = np.arange(diameter) - (diameter - 1) / 2
    dx, dy = (axis.ravel() for axis in np.meshgrid(reach, reach))
    disc = dx**2 + dy**2 <= (diameter / 2) ** 2
    height, width = picture.shape[:2]
    x = np.rint(at[:, :1] + dx[disc]).astype(np.int32).ravel()
    y = np.rint(at[:, 1:] + dy[disc]).astype(np.int32).ravel()
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    picture[y[inside], x[inside]] = np.repeat(rgb, int(disc.sum()), axis=0)[inside]


def _rgb(colour: str) -> tuple[int, int, int]:
    red, green, blue = (round(255 * part) for part in to_rgb(colour))
    return red, green, blue


@lru_cache(maxsize=256)
def _written(text: str, size: int) -> NDArray[np.float32]:
    """Cover (1.5 size, W, 1) of a text, 0 .. 1."""
    figure = Figure(figsize=(len(text) * size / 72 + 1, 1.5 * size / 72), dpi=72)
    canvas = FigureCanvasAgg(figure)
    figure.patch.set_alpha(0)
    figure.text(0, 0.3, text, fontsize=size, color='white', parse_math=False)
    canvas.draw()
    cover = np.asarray(canvas.buffer_rgba())[..., 3:].astype(np.float32) / 255
    used = np.flatnonzero(cover.any(axis=(0, 2)))
    return cover[:, : used[-1] + 1 if len(used) else 1]


def _write(
    picture: Picture, text: str, x: int, y: int, size: int, room: int, *, boxed: bool = False
) -> None:
    """Write a text, as much of it as fits into `room` pixels and the picture."""
    cover = _written(text, size)
    height = max(0, min(cover.shape[0], picture.shape[0] - y))
    width = max(0, min(cover.shape[1], room, picture.shape[1] - x))
    cover = cover[:height, :width]
    if boxed:
        box = picture[max(0, y - 2) : y + height + 2, max(0, x - 4) : x + width + 4]
        box[:] = box // 3
    place = picture[y : y + height, x : x + width]
    place[:] = (place * (1 - cover) + np.array(INK) * cover).astype(np.uint8)
