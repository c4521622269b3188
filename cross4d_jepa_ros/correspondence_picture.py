# SPDX-License-Identifier: Apache-2.0
"""Whether a camera's calibration is right: its points over the photo, and how edges coincide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import matplotlib

matplotlib.use('agg')

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LogNorm
from numpy.typing import NDArray

from cross4d_jepa_ros.correspondence import Correspondence

DOTS_PER_INCH = 110
# Large enough to judge whether edges coincide.
ENLARGEMENT, INCHES = 1.25, (7.0, 15.0)
DEPTH_LIMITS_M = (2.0, 60.0)
# Marker areas in square points: a sparse sweep has room for large ones.
AREA_LIMITS, AREA_OF_ALL = (1.5, 12.0), 40_000.0

# LiDAR edges: neighbours in a band of rows, of which one is this much farther away.
BAND_PX, NEIGHBOUR_PX = 4.0, 12.0
JUMP_SHARE, JUMP_M = 0.1, 0.5
FEWEST_EDGE_POINTS = 10
# Image edges begin where the brightness changes faster than at all but this share of pixels.
STEEPEST, LEAST_STEP = 0.1, 8.0
BLUR_PX = 1.0
# Of the image's width.
SHIFTS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class Panel:
    """One camera's part of the picture.

    Attributes:
        title: Above it.
        image: (H, W, 3) uint8 RGB.
        found: The points seen in it.

    """

    title: str
    image: NDArray[np.uint8]
    found: Correspondence


def draw(path: Path, panels: Sequence[Panel], *, title: str) -> None:
    """Write a PNG: in each camera the points it sees, coloured by depth over the darkened photo.

    Args:
        path: File to write.
        panels: One for each camera, at least one.
        title: Headline.

    """
    widest = max(panel.image.shape[1] for panel in panels)
    inches = float(np.clip(ENLARGEMENT * widest / DOTS_PER_INCH, *INCHES))
    heights = [inches * panel.image.shape[0] / panel.image.shape[1] + 0.4 for panel in panels]
    figure, axes = plt.subplots(
        len(panels),
        figsize=(inches + 1, sum(heights) + 0.4),
        dpi=DOTS_PER_INCH,
        layout='constrained',
        height_ratios=heights,
        squeeze=False,
    )
    norm = LogNorm(*DEPTH_LIMITS_M, clip=True)
    for axis, panel in zip(axes[:, 0], panels, strict=True):
        height, width = panel.image.shape[:2]
        found = panel.found
        axis.imshow((panel.image * 0.7).astype(np.uint8))
        order = np.argsort(-found.depth, kind='stable')
        area = float(np.clip(AREA_OF_ALL / max(len(order), 1), *AREA_LIMITS))
        u, v = found.uv[order].T
        dots = axis.scatter(
            u, v, s=area, c=found.depth[order], cmap='turbo_r', norm=norm, linewidths=0
        )
        axis.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), xticks=[], yticks=[])
        axis.set_title(panel.title)
    bar = figure.colorbar(dots, ax=axes[:, 0].tolist(), pad=0.01, shrink=0.8)
    bar.set_label('m in front of the camera')
    bar.set_ticks([2, 5, 10, 20, 40, 60], labels=['2', '5', '10', '20', '40', '60'])
    bar.ax.minorticks_off()
    figure.suptitle(title, fontsize=15)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    plt.close(figure)


def edge_distance_px(
    image: NDArray[np.uint8],
    uv: NDArray[np.float32],
    depth: NDArray[np.float32],
    *,
    shifted: bool = False,
) -> float | None:
    """Measure how far the near sides of depth edges lie from the nearest edge in the image.

    Upright edges only: those that a sweep's rows cross. Where the calibration is right it is a few
    pixels; compare it with that of the shifted image, which is what chance gives. Fog, night and
    empty roads have too few edges to tell.

    Args:
        image: (H, W, 3) uint8 RGB.
        uv: (V, 2) pixels of the points that the camera sees.
        depth: (V,) m.
        shifted: Whether to shift the image sideways by many parts of its width, and take all
            distances together.

    Returns:
        Median distance in pixels; None where there are hardly any edges.

    """
    edge = _depth_edges(uv, depth)
    distance = _distance_to_edge(image)
    if edge.sum() < FEWEST_EDGE_POINTS or distance is None:
        return None
    width = image.shape[1]
    column, row = np.rint(uv[edge]).astype(np.intp).T
    shifts = [round(share * width) for share in SHIFTS] if shifted else [0]
    found = [distance[row, (column + shift) % width] for shift in shifts]
    return float(np.median(found))


def _depth_edges(uv: NDArray[np.float32], depth: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Find the points (V,) beside which, in their band of rows, the depth jumps up."""
    band = np.floor(uv[:, 1] / BAND_PX)
    order = np.lexsort((uv[:, 0], band))
    band, u, z = band[order], uv[order, 0], depth[order]
    beside = (band[1:] == band[:-1]) & (u[1:] - u[:-1] < NEIGHBOUR_PX)
    limit = z * (1 + JUMP_SHARE) + JUMP_M
    edge = np.zeros(len(z), bool)
    edge[:-1] = beside & (z[1:] > limit[:-1])
    edge[1:] |= beside & (z[:-1] > limit[1:])
    found = np.zeros(len(z), bool)
    found[order] = edge
    return found


def _distance_to_edge(image: NDArray[np.uint8]) -> NDArray[np.float32] | None:
    """Distance (H, W) in pixels to the nearest upright edge; None for an image without."""
    grey = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (0, 0), BLUR_PX)
    across = cv2.Sobel(grey, cv2.CV_16S, 1, 0)
    # The contrast differs from camera to camera and with the weather.
    steep = max(float(np.quantile(np.abs(across), 1 - STEEPEST)), LEAST_STEP)
    edges = cv2.Canny(across, np.zeros_like(across), steep / 2, steep)
    if not edges.any():
        return None
    distance: NDArray[np.float32] = cv2.distanceTransform(255 - edges, cv2.DIST_L2, 5)
    return distance
