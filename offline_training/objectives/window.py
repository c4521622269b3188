# SPDX-License-Identifier: Apache-2.0
"""One sample of a pretraining: a window of sweeps, and what the cameras saw of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Sighting:
    """What one camera saw of one sweep; V of its points have a target.

    Attributes:
        point: (V,) int64, rows of the sweep's `xyz`.
        target: (V, P) float32, the teacher's patch feature at each of these points, in the space
            that is learnt (`TeacherSpace.project`).
        weight: (V,) float32 in (0, 1], how much each target is believed.
        view: (D,) float32, the teacher's raw embedding of the whole image.
        histogram: (48,) float32, of the image's colours.
        patch_map: (h, w, C) float32, the teacher's raw patches, pooled to at most 8 x 16; None
            where no objective looks at images.
        intrinsics: (4,) float32, fx / W, fy / H, cx / W, cy / H.
        camera_from_base: (4, 4) float32, from the base frame of the augmented sweep, m.
        offset_s: Image stamp minus sweep stamp, s.

    """

    point: Tensor
    target: Tensor
    weight: Tensor
    view: Tensor
    histogram: Tensor
    patch_map: Tensor | None
    intrinsics: Tensor
    camera_from_base: Tensor
    offset_s: float


@dataclass(frozen=True)
class WindowSweep:
    """One sweep of a window, augmented.

    Attributes:
        stamp_ns: When.
        xyz: (N, 3) float32 m, base frame.
        intensity: (N,) float32 in [0, 1]; None where the sensor has none.
        fixed_from_base: (4, 4) float64 pose, m; None without ego-motion.
        sightings: Of the cameras that have an image near the sweep.

    """

    stamp_ns: int
    xyz: Tensor
    intensity: Tensor | None
    fixed_from_base: NDArray[np.float64] | None
    sightings: tuple[Sighting, ...]


@dataclass(frozen=True)
class Window:
    """A sample.

    What is kept from the network that learns is not from the target encoder.

    Attributes:
        sweeps: Oldest first, the newest last; at most as many as the network looks at.
        future: The sweep that is to be foreseen; None where nothing is, or where the log ends.
        seed: Of all that the objectives draw for this sample.
        forgotten: Numbers of the sweeps that the network does not see; never the newest.
        without_intensity: Whether it is told no intensities.
        without_poses: Whether it is told no poses.

    """

    sweeps: tuple[WindowSweep, ...]
    future: WindowSweep | None
    seed: int
    forgotten: frozenset[int] = frozenset()
    without_intensity: bool = False
    without_poses: bool = False
