# SPDX-License-Identifier: Apache-2.0
"""The colours of points, out of the images that see them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cross4d_jepa_ros.sensing.frames import CameraView
from cross4d_jepa_ros.sensing.poses import transform_points


@np.errstate(invalid='ignore', over='ignore')
def sample_colours(
    xyz_base: NDArray[np.float32], views: tuple[CameraView, ...]
) -> NDArray[np.float32]:
    """Look up the colour of each point in the first image that sees it.

    Args:
        xyz_base: (N, 3) base frame, m; no image sees those that are not finite.
        views: Each image has the size that its camera says.

    Returns:
        (N, 4): red, green, blue in [0, 1] and 1, or four zeros where no image sees the point.

    Raises:
        ValueError: An image has another size or type.

    """
    colours = np.zeros((len(xyz_base), 4), dtype=np.float32)
    for view in views:
        camera, image = view.camera, view.image
        if image.shape != (camera.height, camera.width, 3) or image.dtype != np.uint8:
            msg = (
                f'image of camera {view.camera_index} is {image.shape} {image.dtype}, its '
                f'calibration says ({camera.height}, {camera.width}, 3) uint8'
            )
            raise ValueError(msg)
        xyz_camera = transform_points(view.camera_from_base, xyz_base)
        # Half the points lie behind a camera; dropping them early halves the projection.
        ahead = np.flatnonzero((xyz_camera[:, 2] > 0) & (colours[:, 3] == 0))
        uv, inside = camera.project(xyz_camera[ahead])
        pixel = np.floor(uv[inside] + 0.5).astype(np.int64)
        column = pixel[:, 0].clip(0, camera.width - 1)
        row = pixel[:, 1].clip(0, camera.height - 1)
        lit = ahead[inside]
        colours[lit, :3] = image[row, column] / np.float32(255)
        colours[lit, 3] = 1
    return colours
