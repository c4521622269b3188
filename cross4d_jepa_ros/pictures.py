# SPDX-License-Identifier: Apache-2.0
"""Draws the answers to one sweep from above and in its cameras, by class and by embedding."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use('agg')

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Circle, Patch
from numpy.typing import NDArray

from cross4d_jepa_ros.bag_frames import BagFrame, BagFrames, truth_class_names
from cross4d_jepa_ros.bag_setup import BagSetup
from cross4d_jepa_ros.bags import Bag
from cross4d_jepa_ros.model.checkpoint import Contract
from cross4d_jepa_ros.ros.messages import UNKNOWN_COLOUR, palette_colours
from cross4d_jepa_ros.segmentation_scores import UNKNOWN, ids_by_name
from cross4d_jepa_ros.sensing.cameras import unhidden
from cross4d_jepa_ros.sensing.frames import CameraView, SensorFrame
from cross4d_jepa_ros.sensing.point_clouds import stamp_ns, structured_view
from cross4d_jepa_ros.sensing.poses import invert, transform_points

PICTURES = {'segmentation': 'segmentation.png', 'embeddings_rgb': 'embeddings.png'}
HEADLINES = {
    'segmentation': 'What the network says about {}',
    'embeddings_rgb': 'Which points of {} the network finds alike: like colours, like embeddings',
}
EXTENT_M = 42.0
RINGS_M = (10, 20, 30, 40)
NIGHT = '#0c0e12'
FAINT = '#5b6470'
# Inches of height that a row of the legend takes.
LEGEND_ROW_IN = 0.4
# Marker areas in square points. Points far away lie far apart, and what is rare in a sweep
# (people, poles) would not be seen.
AREA_PER_M, AREA_LIMITS = 0.1, (0.7, 3.5)
RARE_SHARE, RARE_FACTOR = 0.02, 3.0
CAMERA_AREA = 4.0
# Of the brightness of an image that points are drawn over.
DARKENED = 0.55
# Of the image's width: about the distance of neighbouring beams of a LiDAR with 64 of them.
CELLS_ACROSS = 110
# How many sweeps back, and how far the vehicle must have come between two of them, to say where
# it drives. It may stand or turn in some.
DRIVEN_SWEEPS, DRIVEN_M = (8, 16, 32, 64), 0.3


@dataclass(frozen=True)
class Paint:
    """What the points of a sweep are drawn in.

    Attributes:
        rgb: (N, 3) colour of each valid point.
        truth_rgb: (N, 3) the same of the ground truth, where there is one.
        legend: Name and RGB colour of each class; empty where colours are no classes.

    """

    rgb: NDArray[np.uint8]
    truth_rgb: NDArray[np.uint8] | None = None
    legend: Sequence[tuple[str, Sequence[int]]] = ()


def draw_answers(
    folder: Path,
    bag: Bag,
    setup: BagSetup,
    contract: Contract,
    answers: Mapping[str, Any],
    truth: str,
    stamps: Collection[int],
) -> None:
    """Draw answers of the node over the sweeps and images that they belong to.

    Args:
        folder: Where the pictures go.
        bag: The recording that was replayed.
        setup: Its topics.
        contract: Of the model that answered.
        answers: PointCloud2 by topic name, as in `PICTURES`.
        truth: Topic of the truth clouds; empty for none.
        stamps: Of all sweeps of the recording, ns.

    Raises:
        LookupError: The recording gives no frame for an answer.

    """
    untrained = contract.training['kind'] == 'untrained'
    answered = {stamp_ns(answer) for answer in answers.values()}
    frames = {at_ns: _frame_of(bag, setup, truth, stamps, at_ns) for at_ns in answered}
    for name, answer in answers.items():
        at_ns = stamp_ns(answer)
        drawn, faces_x = frames[at_ns]
        columns = structured_view(answer).reshape(-1)
        if name == 'segmentation':
            wanted = truth_class_names(bag)
            paint = _class_paint(columns['class_id'], drawn, contract, wanted)
        else:
            packed = np.ascontiguousarray(columns['rgb']).view(np.uint32)
            rgb = np.stack([packed >> 16, packed >> 8, packed], axis=1).astype(np.uint8)
            paint = Paint(rgb[drawn.frame.sweep.index])
        title = HEADLINES[name].format(_moment(bag, at_ns))
        draw_sweep(
            folder / PICTURES[name],
            drawn.frame,
            paint,
            title=title + ('\nuntrained weights: it has learnt nothing yet' if untrained else ''),
            camera_names=setup.images,
            faces_x=faces_x,
        )


def _frame_of(
    bag: Bag, setup: BagSetup, truth: str, stamps: Collection[int], wanted_ns: int
) -> tuple[BagFrame, bool]:
    """Put the sweep of a stamp together, and find out whether x is where the vehicle drives."""
    before = sorted({stamp for stamp in stamps if stamp <= wanted_ns}, reverse=True)
    earlier = {before[min(sweeps, len(before) - 1)] for sweeps in DRIVEN_SWEEPS}
    found = list(BagFrames(bag, setup, truth=truth, wanted_ns=earlier | {wanted_ns}))
    drawn = next((made for made in found if made.frame.stamp_ns == wanted_ns), None)
    if drawn is None:
        msg = f'{bag.path} gives no frame for the sweep of {wanted_ns}'
        raise LookupError(msg)
    faces_x = any(_drives_along_x(*pair) for pair in pairwise(made.frame for made in found))
    return drawn, faces_x


def _drives_along_x(before: SensorFrame, now: SensorFrame) -> bool:
    if before.fixed_from_base is None or now.fixed_from_base is None:
        return False
    x, y, _ = (invert(before.fixed_from_base) @ now.fixed_from_base)[:3, 3]
    return bool(x > DRIVEN_M and abs(y) < 0.5 * x)


def _class_paint(
    class_id: NDArray[np.uint8], drawn: BagFrame, contract: Contract, true_names: tuple[str, ...]
) -> Paint:
    """Colour the valid points by their class, the true ones by the colour of the same name."""
    index = drawn.frame.sweep.index
    shown = [class_id[index]]
    if drawn.truth is not None and true_names:
        shown.append(ids_by_name(true_names, contract.answer_names)[drawn.truth['class_id'][index]])
    legend = [*zip(contract.answer_names, contract.answer_palette, strict=True)]
    if any((ids == UNKNOWN).any() for ids in shown):
        legend.append(('unknown', UNKNOWN_COLOUR))
    colours = [palette_colours(ids, contract.answer_palette) for ids in shown]
    return Paint(colours[0], colours[1] if len(colours) > 1 else None, legend)


def _moment(bag: Bag, at_ns: int) -> str:
    """Say which sweep it is; by seconds only where its stamp is of the recording's clock."""
    if bag.start_ns <= at_ns <= bag.end_ns:
        return f'the sweep at {(at_ns - bag.start_ns) / 1e9:.1f} s of {bag.path.name}'
    return f'the sweep of stamp {at_ns} ns of {bag.path.name}'


def draw_sweep(
    path: Path,
    frame: SensorFrame,
    paint: Paint,
    *,
    title: str,
    camera_names: Sequence[str],
    faces_x: bool,
) -> None:
    """Write a PNG: the sweep from above, its truth if known, and its points in the cameras.

    Args:
        path: File to write.
        frame: The sweep with its camera views.
        paint: Colours of the sweep's points.
        title: Headline.
        camera_names: Of each camera, by index.
        faces_x: Whether the vehicle is known to look along x of the frame.

    """
    figure, grid, above, in_camera = _arrange(len(frame.views), paint.truth_rgb is not None)
    up = 'ahead' if faces_x else "along the sensor's x"
    panels = [('what the network says, from above' if paint.legend else 'from above', paint.rgb)]
    if paint.truth_rgb is not None:
        panels.append(('the truth, from above', paint.truth_rgb))
    for place, (name, rgb) in zip(above, panels, strict=True):
        axes = figure.add_subplot(grid[place])
        _draw_from_above(axes, frame.xyz_base, rgb, enlargement(rgb, paint.legend), up)
        axes.set_title(name)
    for place, view in zip(in_camera, frame.views, strict=True):
        _draw_view(figure.add_subplot(grid[place]), frame, view, paint, camera_names)
    _finish(path, figure, paint, title)


def draw_cameras(
    path: Path, frame: SensorFrame, paint: Paint, *, title: str, camera_names: Sequence[str]
) -> None:
    """Write a PNG: the points of a sweep over the image of each camera, one below the other.

    Args:
        path: File to write.
        frame: The sweep with at least one camera view.
        paint: Colours of the sweep's points.
        title: Headline.
        camera_names: Of each camera, by index.

    """
    shapes = [view.camera.height / view.camera.width for view in frame.views]
    figure = plt.figure(figsize=(14, 1.5 + 13.5 * sum(shapes)), dpi=110, layout='constrained')
    grid = figure.add_gridspec(len(shapes), 1, height_ratios=shapes)
    for place, view in enumerate(frame.views):
        _draw_view(figure.add_subplot(grid[place]), frame, view, paint, camera_names)
    _finish(path, figure, paint, title)


def _draw_view(
    axes: Axes, frame: SensorFrame, view: CameraView, paint: Paint, camera_names: Sequence[str]
) -> None:
    larger = enlargement(paint.rgb, paint.legend)
    _draw_in_camera(axes, view, frame.xyz_base, paint.rgb, larger)
    axes.set_title(camera_title(view, frame.stamp_ns, camera_names))


def camera_title(view: CameraView, sweep_ns: int, camera_names: Sequence[str]) -> str:
    """Say which camera it is, and how long before or after the sweep its image was taken."""
    offset_ms = (view.stamp_ns - sweep_ns) / 1e6
    when = f'{abs(offset_ms):.0f} ms {"before" if offset_ms < 0 else "after"} the sweep'
    return f'{camera_names[view.camera_index]}, {when}'


def _finish(path: Path, figure: Figure, paint: Paint, title: str) -> None:
    if paint.legend:
        _draw_legend(figure, paint.legend)
    figure.suptitle(title, fontsize=17)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    plt.close(figure)


Place = tuple[slice | int, slice | int]


def _arrange(views: int, truth: bool) -> tuple[Figure, GridSpec, list[Place], list[Place]]:
    """Lay the panels out: places of those from above and of those in a camera."""
    if truth:
        rows = (views + 1) // 2
        figure = plt.figure(figsize=(15, 8.2 + 3.3 * rows), dpi=110, layout='constrained')
        grid = figure.add_gridspec(1 + rows, 2, height_ratios=(7, *[3] * rows))
        return figure, grid, [(0, 0), (0, 1)], [(1 + i // 2, i % 2) for i in range(views)]
    rows = max(1, views)
    figure = plt.figure(figsize=(16, max(7.4, 3.7 * rows)), dpi=110, layout='constrained')
    grid = figure.add_gridspec(rows, 2, width_ratios=(1, 1.35 if views else 1e-3))
    return figure, grid, [(slice(None), 0)], [(row, 1) for row in range(views)]


def enlargement(
    rgb: NDArray[np.uint8], legend: Sequence[tuple[str, Sequence[int]]]
) -> NDArray[np.float64]:
    """Say how much larger (N,) the area of each point is drawn: above 1 for classes with few."""
    factor = np.ones(len(rgb))
    for _, colour in legend:
        of_class = (rgb == np.array(colour, np.uint8)).all(axis=1)
        if of_class.sum() < RARE_SHARE * len(rgb):
            factor[of_class] = RARE_FACTOR
    return factor


def _draw_legend(figure: Figure, legend: Sequence[tuple[str, Sequence[int]]]) -> None:
    patches = [
        Patch(color='#{:02x}{:02x}{:02x}'.format(*colour), label=name.replace('_', ' '))
        for name, colour in legend
    ]
    columns = min(len(patches), 10)
    # That of Ubuntu 24.04 cannot place it outside of the panels by itself.
    strip = LEGEND_ROW_IN * -(-len(patches) // columns) / figure.get_figheight()
    engine = figure.get_layout_engine()
    assert isinstance(engine, ConstrainedLayoutEngine)
    engine.set(rect=(0, strip, 1, 1 - strip))
    figure.legend(handles=patches, loc='lower center', ncol=columns, frameon=False, fontsize=13)


def _draw_from_above(
    axes: Axes,
    xyz: NDArray[np.float32],
    rgb: NDArray[np.uint8],
    larger: NDArray[np.float64],
    up: str,
) -> None:
    """Draw points (N, 3) of the base frame with x up; the rare ones last, then by height."""
    axes.set_facecolor(NIGHT)
    label: dict[str, Any] = {
        'ha': 'center',
        'va': 'center',
        'zorder': 4,
        'bbox': {'facecolor': NIGHT, 'alpha': 0.7, 'linewidth': 0, 'pad': 1.5},
    }
    for radius in RINGS_M:
        axes.add_patch(Circle((0, 0), radius, fill=False, color=FAINT, linewidth=0.6, zorder=1))
        side = radius * np.sqrt(0.5)
        axes.text(side, -side, f'{radius} m', color='#aab2bd', fontsize=8, **label)
    area = np.clip(AREA_PER_M * np.hypot(xyz[:, 0], xyz[:, 1]), *AREA_LIMITS) * larger
    order = np.lexsort((xyz[:, 2], larger))
    right, forward = -xyz[order, 1], xyz[order, 0]
    colours = rgb[order] / 255
    axes.scatter(right, forward, s=area[order], c=colours, linewidths=0, zorder=2)
    arrow = {'arrowstyle': '-|>', 'color': 'white', 'linewidth': 2.0, 'mutation_scale': 16}
    axes.annotate('', xy=(0, 5), xytext=(0, -1.5), arrowprops=arrow, zorder=5)
    axes.plot(0, -1.5, 'o', color='white', markersize=5, zorder=5)
    axes.text(0, 6.5, up, color='white', fontsize=10, **label)
    axes.set(xlim=(-EXTENT_M, EXTENT_M), ylim=(-EXTENT_M, EXTENT_M), aspect='equal')
    axes.set(xticks=[], yticks=[])


def seen_by(
    view: CameraView, xyz: NDArray[np.float32]
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Find the points that a camera sees, the farthest first.

    Args:
        view: Of the camera.
        xyz: (N, 3) m in the base frame.

    Returns:
        Which they are (V,), and their pixels (V, 2).

    """
    in_camera = transform_points(view.camera_from_base, xyz)
    uv, inside = view.camera.project(in_camera)
    seen = np.flatnonzero(inside)
    cell_px = view.camera.width / CELLS_ACROSS
    seen = seen[unhidden(uv[seen], in_camera[seen, 2], cell_px)]
    order = seen[np.argsort(-in_camera[seen, 2])]
    return order, uv[order]


def _draw_in_camera(
    axes: Axes,
    view: CameraView,
    xyz: NDArray[np.float32],
    rgb: NDArray[np.uint8],
    larger: NDArray[np.float64],
) -> None:
    """Draw the points (N, 3) of the base frame that the camera sees over its darkened image."""
    order, uv = seen_by(view, xyz)
    axes.imshow((view.image * DARKENED).astype(np.uint8))
    u, v = uv.T
    area = CAMERA_AREA * np.sqrt(larger[order])
    axes.scatter(u, v, s=area, c=rgb[order] / 255, alpha=0.8, linewidths=0)
    axes.set(xlim=(-0.5, view.camera.width - 0.5), ylim=(view.camera.height - 0.5, -0.5))
    axes.axis('off')
