# SPDX-License-Identifier: Apache-2.0
"""The points of a sweep as if all had been measured at its stamp."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cross4d_jepa_ros.sensing.point_clouds import Sweep
from cross4d_jepa_ros.sensing.poses import transform_points

DESKEW_KNOTS = 17


def deskewed(
    xyz: NDArray[np.float32],
    time_offset_ns: NDArray[np.int64],
    stamp_from_knot: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Move every point from its own time to the sweep's stamp.

    Args:
        xyz: (N, 3) m, base frame at each point's own time.
        time_offset_ns: (N,) that time less the stamp.
        stamp_from_knot: (K, 3, 4) from the base frame at K even times, from the first point's to
            the last's, to the base frame at the stamp; linear in between.

    Returns:
        (N, 3) m, base frame at the stamp.

    """
    first, last = int(time_offset_ns.min()), int(time_offset_ns.max())
    knots = len(stamp_from_knot)
    place = (time_offset_ns - first) * ((knots - 1) / max(1, last - first))
    knot = np.minimum(place.astype(np.int64), knots - 2)
    weight = (place - knot).astype(np.float32)[:, None, None]
    point_motion = stamp_from_knot[knot]
    point_motion += weight * (stamp_from_knot[knot + 1] - point_motion)
    moved: NDArray[np.float32] = (
        np.einsum('nij,nj->ni', point_motion[:, :, :3], xyz) + point_motion[:, :, 3]
    )
    return moved


def in_base(
    sweep: Sweep,
    base_from_sensor: NDArray[np.float64],
    stamp_from_knot: NDArray[np.float32] | None,
) -> NDArray[np.float32]:
    """Bring the points of a sweep into the base frame at its stamp.

    Args:
        sweep: N points.
        base_from_sensor: (4, 4).
        stamp_from_knot: As of `deskewed`; None to take the points as if taken at once.

    Returns:
        (N, 3) m.

    """
    xyz = transform_points(base_from_sensor, sweep.xyz)
    if sweep.time_offset_ns is None or stamp_from_knot is None:
        return xyz
    return deskewed(xyz, sweep.time_offset_ns, stamp_from_knot)
