# SPDX-License-Identifier: Apache-2.0
"""Draws one sweep from above and in its cameras, coloured by class or by embedding."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use('agg')

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from numpy.typing import NDArray

from cross4d_jepa_ros.sensing.frames import CameraView, SensorFrame
from cross4d_jepa_ros.sensing.poses import transform_points

EXTENT_M = 40.0


def draw_sweep(
    path: Path,
    frame: SensorFrame,
    rgb: NDArray[np.uint8],
    *,
    title: str,
    legend: Sequence[tuple[str, Sequence[int]]] = (),
) -> None:
    """Write a PNG: top-down view on the left, camera views with projected points on the right.

    Args:
        path: File to write.
        frame: The sweep with its camera views.
        rgb: (N, 3) colour of each valid point of the sweep.
        title: Headline.
        legend: Name and RGB colour of each entry.

    """
    rows = max(1, len(frame.views))
    figure = plt.figure(figsize=(15, max(6.4, 3.2 * rows)), dpi=110, layout='constrained')
    grid = figure.add_gridspec(rows, 2, width_ratios=(1, 1.5 if frame.views else 1e-3))
    _draw_from_above(figure.add_subplot(grid[:, 0]), frame, rgb)
    for row, view in enumerate(frame.views):
        _draw_in_camera(figure.add_subplot(grid[row, 1]), frame, view, rgb)
    if legend:
        patches = [
            Patch(color='#{:02x}{:02x}{:02x}'.format(*colour), label=name)
            for name, colour in legend
        ]
        figure.legend(handles=patches, loc='outside lower center', ncol=len(patches), frameon=False)
    figure.suptitle(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    plt.close(figure)


def _draw_from_above(axes: Axes, frame: SensorFrame, rgb: NDArray[np.uint8]) -> None:
    order = np.argsort(frame.xyz_base[:, 2])
    xyz = frame.xyz_base[order]
    axes.scatter(-xyz[:, 1], xyz[:, 0], s=0.6, c=rgb[order] / 255, linewidths=0, rasterized=True)
    axes.set(xlim=(-EXTENT_M, EXTENT_M), ylim=(-EXTENT_M, EXTENT_M), aspect='equal')
    axes.set(xlabel='to the right (m)', ylabel='ahead (m)', title='from above')
    axes.set_facecolor('#111111')


def _draw_in_camera(
    axes: Axes, frame: SensorFrame, view: CameraView, rgb: NDArray[np.uint8]
) -> None:
    xyz = transform_points(view.camera_from_base, frame.xyz_base)
    uv, inside = view.camera.project(xyz)
    order = np.flatnonzero(inside)
    order = order[np.argsort(-xyz[order, 2])]
    late_ms = (view.stamp_ns - frame.stamp_ns) / 1e6
    axes.imshow(view.image)
    axes.scatter(uv[order, 0], uv[order, 1], s=1.2, c=rgb[order] / 255, linewidths=0)
    axes.set(xlim=(0, view.camera.width), ylim=(view.camera.height, 0))
    axes.set(title=f'camera {view.camera_index}, {late_ms:+.1f} ms from the sweep')
    axes.axis('off')
