# SPDX-License-Identifier: Apache-2.0
"""Depth-shaded pictures of a sweep's own points, for teachers where there is no camera.

Cross4D-JEPA (arXiv 2607.00514, section 3) shows its teacher such renders only.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from cross4d_jepa_ros.correspondence import HIDDEN_M, HIDDEN_SHARE, Correspondence
from cross4d_jepa_ros.sensing.cameras import CameraModel, nearest_depth
from cross4d_jepa_ros.sensing.frames import BODY_FROM_OPTICAL
from cross4d_jepa_ros.sensing.poses import invert, transform_points
from offline_training.logs.table import IndexedSweep, Shot

VIEWS = 4
# Nine rows and eighteen columns of 14-pixel patches.
WIDTH, HEIGHT = 252, 126
# A little more than a quarter turn, so that neighbours overlap.
WIDTH_DEG = 92.0
_FOCAL_PX = WIDTH / 2 / math.tan(math.radians(WIDTH_DEG / 2))
CAMERA = CameraModel(
    width=WIDTH, height=HEIGHT, fx=_FOCAL_PX, fy=_FOCAL_PX, cx=(WIDTH - 1) / 2, cy=(HEIGHT - 1) / 2
)
# Brightness falls with the logarithm of the depth; where nothing is, it is 0.
NEAREST_M, FARTHEST_M = 0.5, 100.0
DARKEST = 32
# Gaps between beams up to this wide are closed.
GAP_PX = 5
_EMPTY = float(np.finfo(np.float32).max)


def virtual_shots(row: IndexedSweep) -> tuple[Shot, ...]:
    """Place pinholes around the sensor of a sweep, upright in the base frame.

    The paper has one camera, backed off to the extent of its small clips; a sweep surrounds its
    sensor, so that four look outwards from there. Nothing then hides what the sensor has seen.

    Args:
        row: The sweep; nothing is read.

    Returns:
        Shots towards x, y, -x and -y of the base frame with the topics `render:0` to `render:3`,
        each 92 by 54 degrees, at the sweep's stamp. Their coverage is not known (NaN).

    """
    shots = []
    for view in range(VIEWS):
        cos, sin = (0, 1, 0, -1)[(view + 1) % 4], (0, 1, 0, -1)[view]
        turn = np.array([[cos, -sin, 0, 0], [sin, cos, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], float)
        base_from_camera = turn @ BODY_FROM_OPTICAL
        base_from_camera[:3, 3] = row.base_from_sensor[:3, 3]
        shots.append(
            Shot(
                topic=f'render:{view}',
                stamp_ns=row.stamp_ns,
                message_ns=row.message_ns,
                offset_ns=0,
                camera=CAMERA,
                camera_from_base=invert(base_from_camera),
                coverage=math.nan,
            )
        )
    return tuple(shots)


def render(xyz_base: NDArray[np.float32], shot: Shot) -> NDArray[np.uint8]:
    """Draw points by their depth, the nearest in front.

    Args:
        xyz_base: (N, 3) m.
        shot: Of `virtual_shots`.

    Returns:
        (H, W, 3) three equal channels: 255 up to 0.5 m, 32 from 100 m on and 0 where nothing is.
        A point covers 3 x 3 pixels, and gaps of up to 5 pixels are closed.

    """
    _, uv, depth = _projected(xyz_base, shot)
    column, row = np.floor(uv + 0.5).astype(np.intp).T
    nearest = np.full((shot.camera.height, shot.camera.width), _EMPTY, np.float32)
    np.minimum.at(nearest.reshape(-1), row * shot.camera.width + column, depth)
    drawn = cv2.erode(nearest, np.ones((3, 3), np.uint8))
    closed = cv2.erode(nearest, np.ones((GAP_PX, GAP_PX), np.uint8))
    drawn = np.where(drawn < _EMPTY, drawn, closed)
    far = np.log(np.clip(drawn, NEAREST_M, FARTHEST_M) / NEAREST_M)
    far /= math.log(FARTHEST_M / NEAREST_M)
    grey = np.where(drawn < _EMPTY, np.rint(255 - (255 - DARKEST) * far), 0).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def correspond_render(xyz_base: NDArray[np.float32], shot: Shot) -> Correspondence:
    """Find the pixels of the points in their own render, as the paper does: by its z-buffer.

    Nothing is late, calibrated or seen from elsewhere here: there is no gate, and every weight
    is 1.

    Args:
        xyz_base: (N, 3) m, as given to `render`.
        shot: Likewise.

    Returns:
        The points that no other one of the same pixel hides.

    """
    point, uv, depth = _projected(xyz_base, shot)
    nearest = nearest_depth(uv + 0.5, depth, 1)
    seen = depth <= nearest * (1 + HIDDEN_SHARE) + HIDDEN_M
    return Correspondence(
        point=point[seen],
        uv=uv[seen],
        depth=depth[seen],
        weight=np.ones(int(seen.sum()), np.float32),
    )


def _projected(
    xyz_base: NDArray[np.float32], shot: Shot
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
    """Rows (V,) of the points inside the image, their pixels (V, 2) and depths (V,)."""
    xyz_camera = transform_points(shot.camera_from_base, xyz_base)
    uv, inside = shot.camera.project(xyz_camera)
    point = np.flatnonzero(inside).astype(np.int64)
    return point, uv[point], xyz_camera[point, 2]
