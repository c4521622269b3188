# SPDX-License-Identifier: Apache-2.0
"""Whether a camera's calibration is right, from the points of a few sweeps in its images."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cross4d_jepa_ros.correspondence import LATE_NS, correspond
from cross4d_jepa_ros.correspondence_picture import Panel, edge_distance_px
from cross4d_jepa_ros.sensing.cameras import CameraModel
from cross4d_jepa_ros.sensing.poses import transform_points

# Of an embedded network's finest map; only the weights depend on it, which no picture shows.
PATCH_PX = 16.0
# Of the points of a sweep: what a camera has to see.
LEAST_COVERAGE = 0.05
# Below this share of the points in front of a camera, or in its image, it looks elsewhere.
_HARDLY_AHEAD, _HARDLY_INSIDE = 0.1, 0.05
# Right calibrations of clear recordings come to a third of what chance gives, wrong ones to all.
_HARDLY_BETTER = 0.8


def panel(
    topic: str,
    image: NDArray[np.uint8],
    camera: CameraModel,
    camera_from_base: NDArray[np.float64],
    xyz_base: NDArray[np.float32],
    offset_ns: int,
    time_offset_ns: NDArray[np.int64] | None,
) -> Panel:
    """Find the points of a sweep in an image.

    Args:
        topic: Of the image.
        image: (H, W, 3) uint8 RGB.
        camera: Of the image.
        camera_from_base: (4, 4) as of `correspond`.
        xyz_base: (N, 3) m.
        offset_ns: The image's stamp less the sweep's.
        time_offset_ns: (N,) as of `correspond`.

    """
    found = correspond(
        xyz_base, camera, camera_from_base, offset_ns, time_offset_ns, patch_px=PATCH_PX
    )
    share = len(found.point) / max(1, len(xyz_base))
    title = f'{topic}: {offset_ns / 1e6:+.1f} ms from the sweep, {share:.1%} of its points'
    return Panel(title, image, found)


def edge_distances_px(panels: Sequence[Panel]) -> tuple[float | None, float | None]:
    """Measure how far edges of the points lie from those of one camera's images.

    Returns:
        The median of the panels, and the same for shifted images, which is what chance gives; None
        where there are too few edges.

    """
    return _median(panels, shifted=False), _median(panels, shifted=True)


def _median(panels: Sequence[Panel], *, shifted: bool) -> float | None:
    distances = [
        edge_distance_px(panel.image, panel.found.uv, panel.found.depth, shifted=shifted)
        for panel in panels
    ]
    known = [distance for distance in distances if distance is not None]
    return round(statistics.median(known), 2) if known else None


def edge_doubt(edges_px: float | None, chance_px: float | None) -> str:
    """Say that edges are no nearer to those of the points than chance has it; '' where they are."""
    if edges_px is None or chance_px is None or edges_px <= _HARDLY_BETTER * chance_px:
        return ''
    return (
        f'edges of the points lie {edges_px:.1f} px from those of the '
        f'image, by chance it would be {chance_px:.1f} px: look at the picture, is the '
        'calibration right? (In fog or darkness there are no edges to tell by)'
    )


def placed(
    xyz_base: NDArray[np.float32], camera: CameraModel, camera_from_base: NDArray[np.float64]
) -> tuple[float, float]:
    """Shares of the points in front of a camera and, hidden or not, inside its image."""
    xyz = transform_points(camera_from_base, xyz_base)
    return float((xyz[:, 2] > 0).mean()), float(camera.project(xyz)[1].mean())


def why_hardly_covered(ahead: Sequence[float], inside: Sequence[float]) -> str:
    """Name the likely cause where a camera sees hardly any point.

    Args:
        ahead: Of each sweep, what `placed` gives first; at least one.
        inside: Likewise, what it gives second.

    """
    in_front, in_image = statistics.median(ahead), statistics.median(inside)
    if in_front < _HARDLY_AHEAD:
        return (
            f'only {in_front:.0%} of the points lie in front of it: is its transform inverted, '
            'or not that of the optical frame (z forward)? Correct it with --extrinsics'
        )
    if in_image < _HARDLY_INSIDE:
        return (
            f'{in_front:.0%} of the points lie in front of it, but {in_image:.1%} in the image: is '
            'it turned the wrong way (an optical frame looks along z), or are the intrinsics those '
            'of another camera? Correct them with --extrinsics'
        )
    return (
        f'{in_image:.0%} of the points fall into the image, but nearly all are hidden there or '
        f'taken more than {LATE_NS / 1e6:.0f} ms from it: is the translation right, and are '
        'the times?'
    )
