# SPDX-License-Identifier: Apache-2.0
"""How far a camera seems to be turned from its calibration, and how surely the images show it.

Edges in depth are sought in the images. The turn that brings them nearest to edges in brightness is
the estimate; how it changes when parts of the images are left out is its uncertainty.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import cv2
import numpy as np
from numpy.typing import NDArray

from cross4d_jepa_ros.bag_frames import BagFrame
from cross4d_jepa_ros.correspondence_picture import BLUR_PX, LEAST_STEP, STEEPEST
from cross4d_jepa_ros.sensing.cameras import CameraModel
from cross4d_jepa_ros.sensing.frames import BODY_FROM_OPTICAL, CameraView
from cross4d_jepa_ros.sensing.poses import invert, transform_points

AXES = ('yaw', 'pitch', 'roll')
# Axes of the optical frame: y down, x right, z forward. Positive is right, up and clockwise.
_VECTORS = {'yaw': (0, 1, 0), 'pitch': (1, 0, 0), 'roll': (0, 0, 1)}
# Neighbours in the LiDAR's own view: rows of so many degrees, and steps within and between them.
_ROW_DEG, _BESIDE_DEG, _ABOVE_DEG = 0.3, 0.9, 2.5
_JUMP_SHARE, _JUMP_M = 0.1, 0.5
_LIFT_SHARE, _LIFT_M = 0.25, 1.0
# How near an edge has to be to count for 1/e.
_NEAR_DEG = 0.3
_REACH_DEG, _COARSE_DEG, _FINE_DEG = 6.0, 1.0, 0.25
# Parts of the image, side by side, that may be left out.
_STRIPES = 16
_FEWEST_POINTS = 40
_MOST_POINTS = 600
_DRAWS = 200
# An estimate is one if nine of ten draws lie within so much of it. The gaps between beams may shift
# it by half a degree.
KNOWN_DEG, LEAST_DEG, _BEAMS_DEG = 1.0, 0.75, 0.5
# Standard errors by which a turn has to be better than none, the best of many tried.
_SURE = 3.0
_WAYS = {
    'yaw': ('too far to the left', 'too far to the right'),
    'pitch': ('too low', 'too high'),
    'roll': ('turned anticlockwise', 'turned clockwise'),
}
_FEWEST_UPRIGHT = 0.5


@dataclass(frozen=True)
class Turn:
    """How points lie in the images of a camera, as seen from it.

    Attributes:
        degrees: By which they lie too far to the right (yaw), too high (pitch) and turned clockwise
            (roll); in the best of all turns that were tried.
        within: Half of the range that holds nine of ten draws, likewise.
        sure: How much better that turn is than none, in standard errors.

    """

    degrees: dict[str, float]
    within: dict[str, float]
    sure: float

    def known(self, axis: str) -> bool:
        """Whether the images say anything of a turn about this axis."""
        inside = abs(self.degrees[axis]) <= _REACH_DEG - _BEAMS_DEG
        return self.within[axis] <= KNOWN_DEG and inside

    @property
    def is_known(self) -> bool:
        """Whether they say enough: of images that show something else, one axis may seem to fit."""
        return self.known('yaw') and self.known('pitch')

    @property
    def is_right(self) -> bool:
        """Whether the images show that the calibration is not turned."""
        return self.is_known and all(
            abs(self.degrees[axis]) <= LEAST_DEG for axis in AXES if self.known(axis)
        )

    @property
    def wrong(self) -> str:
        """Where the points lie instead; '' where it is not beyond doubt that they are misplaced."""
        parts = [
            f'{abs(self.degrees[axis]):.1f} degrees {_WAYS[axis][self.degrees[axis] > 0]} '
            f'(+- {self.within[axis]:.1f})'
            for axis in AXES
            if self.known(axis) and abs(self.degrees[axis]) > max(LEAST_DEG, self.within[axis])
        ]
        return ' and '.join(parts) if self.is_known and self.sure >= _SURE else ''

    @property
    def error(self) -> str:
        """What the images say of each axis, for a sentence."""
        return ', '.join(
            f'{axis} {self.degrees[axis]:.1f} +- {self.within[axis]:.1f}'
            if self.known(axis)
            else f'{axis} unknown'
            for axis in AXES
        )


@dataclass(frozen=True)
class _Edges:
    """Of one sweep and image, upright or lying edges: points (N, 3) in the camera's frame, m."""

    camera: CameraModel
    points: NDArray[np.float32]
    nearness: NDArray[np.float32]  # (H, W), what chance gives taken off


def turn_of(views: Sequence[tuple[BagFrame, CameraView]]) -> Turn | None:
    """Estimate how far a camera is turned from its calibration.

    Args:
        views: Frames with their view of this camera.

    Returns:
        The turn; None where there are hardly any edges.

    """
    edges = _edges(views)
    if sum(len(seen.points) for seen in edges) < _FEWEST_POINTS:
        return None
    return _estimate(edges)


def usual_mistake(views: Sequence[tuple[BagFrame, CameraView]]) -> str:
    """Name the mistake in the extrinsics that explains where the points lie.

    Args:
        views: Frames with their view of this camera.

    Returns:
        What is wrong; '' where no correction of the usual mistakes makes the edges meet.

    """
    found = {}
    for name, corrected in _CORRECTIONS.items():
        tried = [(made, corrected(made, view)) for made, view in views]
        # Cameras stand upright.
        if not tried or tried[0][1].camera_from_base[1, 2] > -_FEWEST_UPRIGHT:
            continue
        turn = turn_of(tried)
        if turn is not None and turn.is_known:
            found[name] = max(turn.within['yaw'], turn.within['pitch'])
    return min(found, key=lambda name: found[name], default='')


def _seen_from(view: CameraView, matrix: NDArray[np.float64]) -> CameraView:
    """The same view by a camera that is turned: `matrix` (4, 4) is turned_from_camera."""
    return replace(view, camera_from_base=matrix @ view.camera_from_base)


def _inverted(made: BagFrame, view: CameraView) -> CameraView:
    base_from_sensor = made.frame.base_from_sensor
    sensor_from_camera = view.camera_from_base @ base_from_sensor
    return replace(view, camera_from_base=invert(sensor_from_camera) @ invert(base_from_sensor))


_Correction = Callable[[BagFrame, CameraView], CameraView]
_CORRECTIONS: dict[str, _Correction] = {
    'the points lie 90 degrees too far to the left': lambda _, view: _seen_from(
        view, turned({'yaw': 90})
    ),
    'the points lie 90 degrees too far to the right': lambda _, view: _seen_from(
        view, turned({'yaw': -90})
    ),
    'the camera looks the other way: it is turned by 180 degrees': lambda _, view: _seen_from(
        view, turned({'yaw': 180})
    ),
    'it is the transform of the body frame (x forward), not of the optical one (z forward)': (
        lambda _, view: _seen_from(view, invert(BODY_FROM_OPTICAL))
    ),
    'it is inverted (LiDAR from camera in place of camera from LiDAR)': _inverted,
}


def _estimate(edges: Sequence[_Edges]) -> Turn:
    coarse = np.arange(-_REACH_DEG, _REACH_DEG + 1e-9, _COARSE_DEG)
    fine = np.arange(-_REACH_DEG, _REACH_DEG + 1e-9, _FINE_DEG)
    tried = ({'yaw': y, 'pitch': p, 'roll': 0.0} for y, p in product(coarse, coarse))
    best = max(tried, key=lambda turn: float(_scores(edges, turn).sum()))
    profiles = {}
    # Twice: each depends on where the others stand.
    for axis in (*AXES, *AXES):
        profiles[axis] = np.stack([_scores(edges, {**best, axis: angle}) for angle in fine])
        best[axis] = float(fine[profiles[axis].sum(axis=1).argmax()])
    draws = np.random.default_rng(0).multinomial(_STRIPES, [1 / _STRIPES] * _STRIPES, _DRAWS)
    within = {}
    for axis, profile in profiles.items():
        drawn = fine[(profile @ draws.T).argmax(axis=0)]  # (draws,)
        low, high = np.quantile(drawn - best[axis], (0.05, 0.95))
        within[axis] = float(max(-low, high, _BEAMS_DEG))
    gain = _scores(edges, best) - _scores(edges, {})
    error = float(gain.std(ddof=1)) * _STRIPES**0.5
    degrees = {axis: 0.0 - angle for axis, angle in best.items()}  # no -0.0
    return Turn(degrees, within, float(gain.sum()) / error if error > 0 else 0.0)


def _edges(views: Sequence[tuple[BagFrame, CameraView]]) -> list[_Edges]:
    found = []
    for made, view in views:
        near_px = view.camera.fx * np.radians(_NEAR_DEG)
        kinds = (_upright_edges(made), _lying_edges(made))
        for across, points in enumerate(kinds):
            points = transform_points(view.camera_from_base, points)
            nearness = _nearness(view.image, across, near_px)
            if nearness is not None and len(points):
                step = -(-len(points) // _MOST_POINTS)
                found.append(_Edges(view.camera, points[::step], nearness))
    return found


def _scores(edges: Sequence[_Edges], turn: Mapping[str, float]) -> NDArray[np.float64]:
    """Sum the nearness of edges, by stripe (S,); of all together it is their mean."""
    near, count = np.zeros(_STRIPES), 0
    matrix = turned(turn)
    for seen in edges:
        height, width = seen.nearness.shape
        uv, inside = seen.camera.project(transform_points(matrix, seen.points))
        column, row = np.rint(uv[inside]).astype(np.intp).T
        column, row = column.clip(0, width - 1), row.clip(0, height - 1)
        stripe = column * _STRIPES // width
        near += np.bincount(stripe, seen.nearness[row, column], _STRIPES)
        count += len(column)
    return near / max(count, _FEWEST_POINTS)


def turned(turn: Mapping[str, float]) -> NDArray[np.float64]:
    """Return turned_from_camera (4, 4) that moves points to the right, up and clockwise.

    Args:
        turn: Degrees of yaw, pitch and roll; what is left out is 0.

    """
    vector = np.zeros(3)
    for axis, degrees in turn.items():
        vector += np.radians(degrees) * np.array(_VECTORS[axis])
    matrix = np.eye(4)
    matrix[:3, :3] = cv2.Rodrigues(vector)[0]
    return matrix


def _upright_edges(made: BagFrame) -> NDArray[np.float32]:
    """Find points (N, 3) in the base frame beside which the distance jumps up."""
    distance, azimuth, elevation = _polar(made.frame.sweep.xyz)
    row = np.floor(elevation / _ROW_DEG)
    order = np.lexsort((azimuth, row))
    row, azimuth, distance = row[order], azimuth[order], distance[order]
    beside = (row[1:] == row[:-1]) & (np.diff(azimuth) < _BESIDE_DEG)
    limit = distance * (1 + _JUMP_SHARE) + _JUMP_M
    edge = np.zeros(len(distance), bool)
    edge[:-1] = beside & (distance[1:] > limit[:-1])
    edge[1:] |= beside & (distance[:-1] > limit[1:])
    return made.frame.xyz_base[order[edge]]


def _lying_edges(made: BagFrame) -> NDArray[np.float32]:
    """Find upper ends (N, 3) of things in the base frame, halfway to the next beam."""
    xyz = made.frame.sweep.xyz
    distance, azimuth, elevation = _polar(xyz)
    column = np.floor(azimuth / _ROW_DEG)
    order = np.lexsort((elevation, column))
    column, far = column[order], distance[order]
    above = (column[1:] == column[:-1]) & (np.diff(elevation[order]) < _ABOVE_DEG)
    edge = np.flatnonzero(above & (far[1:] > far[:-1] * (1 + _LIFT_SHARE) + _LIFT_M))
    point = order[edge]
    lift = np.radians((elevation[order[edge + 1]] - elevation[point]) / 2)
    lifted = (
        np.stack(
            (
                -np.sin(np.radians(elevation[point])) * np.cos(np.radians(azimuth[point])),
                -np.sin(np.radians(elevation[point])) * np.sin(np.radians(azimuth[point])),
                np.cos(np.radians(elevation[point])),
            ),
            axis=1,
        )
        * (distance[point] * lift)[:, None]
    )
    raised = lifted @ made.frame.base_from_sensor[:3, :3].T
    return made.frame.xyz_base[point] + raised.astype(np.float32)


def _polar(xyz: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
    """Distances in m, azimuths and elevations in degrees; (N,) each."""
    distance = np.linalg.norm(xyz, axis=1)
    azimuth = np.degrees(np.arctan2(xyz[:, 1], xyz[:, 0]))
    return distance, azimuth, np.degrees(np.arcsin(xyz[:, 2] / distance))


def _nearness(image: NDArray[np.uint8], across: int, near_px: float) -> NDArray[np.float32] | None:
    """How near each pixel (H, W) is to an upright or (`across`) lying edge, less the mean."""
    grey = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (0, 0), BLUR_PX)
    slope = cv2.Sobel(grey, cv2.CV_16S, 1 - across, across)
    steep = max(float(np.quantile(np.abs(slope), 1 - STEEPEST)), LEAST_STEP)
    flat = np.zeros_like(slope)
    found = cv2.Canny(*((flat, slope) if across else (slope, flat)), steep / 2, steep)
    if not found.any():
        return None
    nearness = np.exp(-cv2.distanceTransform(255 - found, cv2.DIST_L2, 5) / np.float32(near_px))
    centred: NDArray[np.float32] = nearness - nearness.mean()
    return centred
