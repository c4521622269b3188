# SPDX-License-Identifier: Apache-2.0
"""Which pixel of a camera image belongs to which point of a sweep, and how far to trust it.

The papers render the points and so know the pixels; real cameras stand elsewhere than the LiDAR,
are late and have patches that straddle two things. Points that the camera cannot see are left out;
the others carry a weight.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cross4d_jepa_ros.sensing.cameras import CameraModel, nearest_depth
from cross4d_jepa_ros.sensing.poses import transform_points

BORDER_PX = 2
# A point is seen if it is at most so far behind the nearest one of its cell and of those beside and
# above it. Judged by the synthetic cameras' own depth, 0.1 % of what is left is hidden in truth.
# With the cells below as well it is 0.02 %, but 94 % of the road beyond 10 m would be lost.
CELL_PX = 4
HIDDEN_SHARE, HIDDEN_M = 0.02, 0.2
# Depth range within a patch, as a share of the depth, at which the weight falls to 1/e.
MIXED_SHARE = 0.1
LATE_NS, LATE_SCALE_NS = 50_000_000, 30_000_000
LEAST_WEIGHT = 1e-6


@dataclass(frozen=True)
class Correspondence:
    """The points of a sweep that one camera sees.

    Attributes:
        point: (V,) int64 rows of the sweep's points, ascending.
        uv: (V, 2) float32 pixels of the image as published; the centre of pixel (0, 0) is at 0, 0.
        depth: (V,) float32 m in front of the camera.
        weight: (V,) float32 in (0, 1].

    """

    point: NDArray[np.int64]
    uv: NDArray[np.float32]
    depth: NDArray[np.float32]
    weight: NDArray[np.float32]


def correspond(
    xyz_base: NDArray[np.float32],
    camera: CameraModel,
    camera_from_base: NDArray[np.float64],
    offset_ns: int,
    time_offset_ns: NDArray[np.int64] | None = None,
    *,
    patch_px: float,
    min_depth_m: float = 1.0,
) -> Correspondence:
    """Find the pixels of the points that a camera sees.

    Args:
        xyz_base: (N, 3) m, base frame at the sweep's stamp, motion within the sweep undone.
        camera: Of the image.
        camera_from_base: (4, 4) from the base frame at the sweep's stamp to the camera at the
            image's, ego-motion included.
        offset_ns: The image's stamp less the sweep's.
        time_offset_ns: (N,) each point's time less the sweep's stamp; None where all are alike.
        patch_px: Side of the teacher's patches in pixels of this image.
        min_depth_m: Nearer points are left out.

    Returns:
        The points inside the image (less a border of 2 pixels) that no nearer one hides and that
        were taken at most 50 ms before or after the image. A point is hidden if it lies more than
        2 % and 0.2 m behind another one of its cell of 4 pixels, or of those beside and above.
        Weights are exp(-(dt / 30 ms)^2) times exp(-spread / 10 % of the depth), spread being the
        depth range of the patch's visible points.

    """
    matrix = camera_from_base.astype(np.float32)
    depth = xyz_base[:, 0] * matrix[2, 0]  # (N,)
    depth += xyz_base[:, 1] * matrix[2, 1]
    depth += xyz_base[:, 2] * matrix[2, 2]
    depth += matrix[2, 3]
    point = np.flatnonzero(depth > min_depth_m)
    uv, inside = camera.project(transform_points(camera_from_base, xyz_base[point]))
    point, uv = point[inside], uv[inside]
    depth = depth[point]

    nearest = nearest_depth(uv, depth, CELL_PX, dilated=True)
    u, v = uv.T
    seen = depth <= nearest * (1 + HIDDEN_SHARE) + HIDDEN_M
    seen &= (u >= BORDER_PX) & (u <= camera.width - 1 - BORDER_PX)
    seen &= (v >= BORDER_PX) & (v <= camera.height - 1 - BORDER_PX)
    point, uv, depth = point[seen], uv[seen], depth[seen]
    # Pixel i reaches from i - 0.5 to i + 0.5.
    spread = -nearest_depth(uv + 0.5, -depth, patch_px) - nearest_depth(uv + 0.5, depth, patch_px)

    late_ns = offset_ns - (np.zeros(1) if time_offset_ns is None else time_offset_ns[point])
    in_time = np.broadcast_to(np.abs(late_ns) <= LATE_NS, point.shape)
    weight = np.exp(-spread / (MIXED_SHARE * depth) - (late_ns / LATE_SCALE_NS) ** 2)
    weight = np.clip(weight, LEAST_WEIGHT, 1.0)
    return Correspondence(
        point=point[in_time].astype(np.int64),
        uv=uv[in_time],
        depth=depth[in_time],
        weight=weight[in_time].astype(np.float32),
    )
