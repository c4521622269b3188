# SPDX-License-Identifier: Apache-2.0
"""Pictures of an evaluation: confusion, calibration, and one sweep from above and in its images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use('agg')

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from cross4d_jepa_ros.pictures import Paint, draw_cameras, draw_sweep
from cross4d_jepa_ros.pipeline import Perception
from cross4d_jepa_ros.ros.messages import UNKNOWN_COLOUR, palette_colours
from cross4d_jepa_ros.segmentation_scores import UNKNOWN, ids_by_name
from offline_training.evaluation.sources import Swept

PICTURES = ('confusion.png', 'reliability.png', 'topdown.png', 'camera.png')
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Shown:
    """The sweep that is drawn, its answer, and the image topic of each camera."""

    swept: Swept
    perception: Perception
    cameras: Sequence[str]


def draw(
    folder: Path,
    report: Mapping[str, Any],
    shown: Shown | None,
    colours: Mapping[str, Colour],
    label_names: Sequence[str],
) -> None:
    """Write what can be drawn; pictures of an earlier evaluation are removed.

    Args:
        folder: Where to.
        report: Of report.json.
        shown: One sweep; None where there is none.
        colours: Of the answered classes, in the order of their ids.
        label_names: Of the labels.

    """
    for name in PICTURES:
        (folder / name).unlink(missing_ok=True)
    if 'scores' in report:
        draw_confusion(folder / 'confusion.png', report['scores']['confusion'])
        draw_reliability(folder / 'reliability.png', report['scores']['calibration'])
    if shown is None:
        return
    frame = shown.swept.frame
    paint = paint_of(shown, colours, label_names)
    title = f'{shown.swept.log}, the sweep of stamp {frame.stamp_ns} ns'
    draw_sweep(
        folder / 'topdown.png',
        replace(frame, views=()),
        paint,
        title=title,
        camera_names=shown.cameras,
        faces_x=False,
    )
    if frame.views:
        draw_cameras(folder / 'camera.png', frame, paint, title=title, camera_names=shown.cameras)


def paint_of(shown: Shown, colours: Mapping[str, Colour], label_names: Sequence[str]) -> Paint:
    """Colour the valid points of a sweep by its answers, and by its labels; or by its embeddings.

    Args:
        shown: The sweep.
        colours: Of the answered classes, in the order of their ids; empty without classes.
        label_names: Of the labels.

    """
    index = shown.swept.frame.sweep.index
    answer, names = shown.perception.class_id, tuple(colours)
    if answer is None:
        assert shown.perception.embedding_rgb is not None
        return Paint(shown.perception.embedding_rgb[index])
    palette = list(colours.values())
    ids = [answer[index]]
    if shown.swept.label is not None:
        ids.append(ids_by_name(tuple(label_names), names)[shown.swept.label[index]])
    present = np.unique(np.concatenate(ids))
    legend: list[tuple[str, Sequence[int]]] = [
        (names[number], palette[number]) for number in present.tolist() if number != UNKNOWN
    ]
    if UNKNOWN in present:
        legend.append(('unknown', UNKNOWN_COLOUR))
    rgb = [palette_colours(each, palette) for each in ids]
    return Paint(rgb[0], rgb[1] if len(rgb) > 1 else None, legend)


def draw_confusion(path: Path, confusion: Mapping[str, Any]) -> None:
    """Draw the share of each true class (rows) that was answered with each class (columns).

    Args:
        path: PNG.
        confusion: As in the report: `true`, `answered`, `points`.

    """
    points = np.array(confusion['points'], np.float64)
    share = points / np.maximum(points.sum(axis=1, keepdims=True), 1)
    rows, columns = share.shape
    figure, axes = plt.subplots(
        figsize=(2.5 + 0.75 * columns, 1.8 + 0.62 * rows), dpi=110, layout='constrained'
    )
    axes.imshow(share, cmap='Blues', vmin=0, vmax=1, aspect='auto')
    for row, column in np.ndindex(rows, columns):
        if points[row].sum():
            ink = 'white' if share[row, column] > 0.55 else 'black'
            text = f'{100 * share[row, column]:.1f}'
            axes.text(column, row, text, ha='center', va='center', color=ink, fontsize=9)
    axes.set_xticks(range(columns), confusion['answered'], rotation=35, ha='right')
    axes.set_yticks(range(rows), confusion['true'])
    axes.set(xlabel='answered', ylabel='true', title='% of the points of each true class')
    _save(path, figure)


def draw_reliability(path: Path, calibration: Mapping[str, Any]) -> None:
    """Draw how often answers of each probability are right, and how many there are.

    Args:
        path: PNG.
        calibration: As in the report: `expected_error` and `bins`.

    """
    bins = [row for row in calibration['bins'] if row['count']]
    total = sum(row['count'] for row in bins)
    figure, (above, below) = plt.subplots(
        2,
        1,
        figsize=(6, 7),
        dpi=110,
        layout='constrained',
        height_ratios=(3, 1),
        sharex=True,
    )
    above.plot((0, 1), (0, 1), '--', color='grey', linewidth=1, label='as it should be')
    probability = [row['mean_probability'] for row in bins]
    accuracy = [row['accuracy'] for row in bins]
    above.plot(probability, accuracy, 'o-', color='tab:blue', label='found')
    above.set(ylabel='share of right answers', xlim=(0, 1), ylim=(0, 1))
    error = calibration['expected_error']
    if error is not None:
        above.set_title(f'expected calibration error {error:.3f}')
    above.legend(loc='upper left')
    width = 1 / max(1, len(calibration['bins']))
    shares = [row['count'] / total for row in bins]
    below.bar([row['from'] for row in bins], shares, width, align='edge', edgecolor='white')
    below.set(xlabel='probability of the answer', ylabel='share of points')
    _save(path, figure)


def _save(path: Path, figure: Figure) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    plt.close(figure)
