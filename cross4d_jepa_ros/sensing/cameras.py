# SPDX-License-Identifier: Apache-2.0
"""Pinhole and fisheye camera models: from CameraInfo, and from points to pixels.

Cameras look along +z with x to the right and y down (REP 103, optical frames).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.polynomial import Polynomial
from numpy.typing import NDArray

_NEAREST_M = 0.05
# Keeps the polynomials below from overflowing; no lens comes near.
_LARGEST = 1e9

# How many coefficients each model takes: plumb_bob k1 k2 p1 p2 [k3], rational_polynomial
# k1 k2 p1 p2 k3 k4 k5 k6, equidistant k1 k2 k3 k4.
_COUNTS = {'none': (0,), 'plumb_bob': (4, 5), 'rational_polynomial': (8,), 'equidistant': (4,)}
# Longer vectors that drivers publish; the surplus (thin prism, tilt, padding) must be zero.
_PADDED = {'rational_polynomial': (12, 14), 'equidistant': (5,)}
_ALIASES = {'fisheye': 'equidistant', 'kannala_brandt4': 'equidistant', 'radtan': 'plumb_bob'}
# A point this far behind another one, in m and as a share of the distance, is hidden by it.
HIDDEN_M, HIDDEN_SHARE = 0.5, 0.06


class BadCalibration(ValueError):
    """A camera calibration that cannot be used; the sentence says why, with the numbers seen."""


@dataclass(frozen=True)
class CameraModel:
    """One camera image's projection; plain numbers, hashable.

    Pixel (0, 0) has its centre at u = v = 0.

    Args:
        width: Of the image as published, after binning and region of interest; pixels.
        height: Likewise.
        fx: Focal lengths and principal point of that image; pixels.
        fy: Likewise.
        cx: Likewise.
        cy: Likewise.
        distortion: none, plumb_bob, rational_polynomial or equidistant.
        coefficients: In OpenCV's order; their number belongs to the model.
        translation: Added to points in the camera frame before projecting, metres: the fourth
            column of a rectified projection matrix, zero otherwise.

    Raises:
        BadCalibration: A size or focal length that is not positive, a number that is not finite,
            an unknown model, or the wrong number of coefficients.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    distortion: str = 'none'
    coefficients: tuple[float, ...] = ()
    translation: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        """Refuse what no point could be projected with."""
        if self.width < 1 or self.height < 1:
            text = f'The camera image has an impossible size of {self.width} x {self.height}.'
            raise BadCalibration(text)
        numbers = (self.fx, self.fy, self.cx, self.cy, *self.coefficients, *self.translation)
        worst = max(numbers, key=lambda number: abs(number) if number == number else math.inf)
        if not abs(worst) <= _LARGEST:
            text = f'The camera is not calibrated: one of its parameters is {worst:g}.'
            raise BadCalibration(text)
        if not (self.fx > 0 and self.fy > 0):
            text = (
                f'The camera is not calibrated: its focal lengths are {self.fx:g} and {self.fy:g} '
                'pixels; calibrate it, or give its intrinsics in the extrinsics file.'
            )
            raise BadCalibration(text)
        if self.distortion not in _COUNTS:
            text = (
                f'The distortion model {self.distortion[:40]!r} is not one of '
                f'{", ".join(_COUNTS)}; use the rectified image and its projection matrix.'
            )
            raise BadCalibration(text)
        if len(self.coefficients) not in _COUNTS[self.distortion]:
            wanted = ' or '.join(str(count) for count in _COUNTS[self.distortion])
            text = (
                f'The distortion model {self.distortion} takes {wanted} coefficients, '
                f'not {len(self.coefficients)}.'
            )
            raise BadCalibration(text)

    @staticmethod
    def from_camera_info(msg: Any, *, rectified: bool) -> CameraModel:
        """Read a sensor_msgs CameraInfo.

        The matrices refer to the full-resolution image: the region of interest (offsets in full
        pixels) is cut out first and binning divides afterwards, as image_geometry does.

        Args:
            msg: The message.
            rectified: Whether the images are rectified. They are then projected with `p`,
                undistorted; otherwise with `k` and `d`.

        Returns:
            The model of the image as published.

        Raises:
            BadCalibration: An uncalibrated camera (zeros or NaN), an impossible size, region or
                binning, an unknown distortion model or the wrong number of coefficients.
        """
        full_width, full_height = int(msg.width), int(msg.height)
        roi = msg.roi
        x_offset, y_offset = int(roi.x_offset), int(roi.y_offset)
        width = int(roi.width) or full_width - x_offset
        height = int(roi.height) or full_height - y_offset
        if (
            min(x_offset, y_offset) < 0
            or not 0 < width <= full_width - x_offset
            or not 0 < height <= full_height - y_offset
        ):
            text = (
                f'The camera info has a region of interest of {width} x {height} at '
                f'({x_offset}, {y_offset}) in an image of {full_width} x {full_height}.'
            )
            raise BadCalibration(text)
        bin_x, bin_y = max(int(msg.binning_x), 1), max(int(msg.binning_y), 1)

        name, columns = ('p', 4) if rectified else ('k', 3)
        values = [float(value) for value in getattr(msg, name)]
        if len(values) != 3 * columns:
            text = f'The camera info has {len(values)} numbers in {name}, not {3 * columns}.'
            raise BadCalibration(text)
        fx, fy, cx, cy = values[0], values[columns + 1], values[2], values[columns + 2]
        if not any(values) or not all(math.isfinite(value) for value in values):
            text = (
                f'The camera is not calibrated: {name} of its camera info is zero or not finite; '
                'calibrate it, or give its intrinsics in the extrinsics file.'
            )
            raise BadCalibration(text)
        distortion, coefficients = 'none', tuple[float, ...]()
        translation = (0.0, 0.0, 0.0)
        if not rectified:
            distortion, coefficients = _distortion_of(str(msg.distortion_model), msg.d)
        elif fx and fy:
            tx, ty, tz = values[3], values[7], values[11]
            translation = ((tx - cx * tz) / fx, (ty - cy * tz) / fy, tz)
        return CameraModel(
            width=width // bin_x,
            height=height // bin_y,
            fx=fx / bin_x,
            fy=fy / bin_y,
            cx=(cx - x_offset) / bin_x,
            cy=(cy - y_offset) / bin_y,
            distortion=distortion,
            coefficients=coefficients,
            translation=translation,
        )

    def project(self, xyz_camera: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Project points into the image.

        Args:
            xyz_camera: (N, 3) in metres in the camera's optical frame.

        Returns:
            (N, 2) pixel coordinates u, v, and (N,) whether the point is seen: more than 5 cm in
            front, no farther from the axis than the distortion is invertible, and between the
            centres of the outermost pixels, so that rounding or flooring u and v gives a pixel.
            Points that cannot be projected at all have u = v = -1.
        """
        xyz = np.asarray(xyz_camera)
        uv = np.full((len(xyz), 2), -1, np.float32)
        ahead = xyz[:, 2] + self.translation[2] > _NEAREST_M
        columns = (xyz[:, 0], xyz[:, 1], xyz[:, 2])
        everything = bool(ahead.all())
        x, y, z = (
            (column if everything else column[ahead]).astype(np.float64) + offset
            for column, offset in zip(columns, self.translation, strict=True)
        )
        with np.errstate(over='ignore', invalid='ignore'):
            x /= z
            y /= z
            r2 = x * x
            r2 += y * y
        projectable = r2 < self._largest_r2  # False for NaN
        if not projectable.all():
            x, y, r2 = x[projectable], y[projectable], r2[projectable]
            ahead[ahead] = projectable
            everything = False
        x, y = self._distort(x, y, r2)
        x *= self.fx
        x += self.cx
        y *= self.fy
        y += self.cy
        if everything:
            uv[:, 0], uv[:, 1] = x, y
        else:
            uv[ahead, 0], uv[ahead, 1] = x, y
        u, v = uv[:, 0], uv[:, 1]
        inside = (u >= 0) & (v >= 0) & (u <= self.width - 1) & (v <= self.height - 1)
        return uv, inside

    def scaled(self, width: int, height: int) -> CameraModel:
        """Adapt to images published at another resolution.

        Args:
            width: Of those images; pixels.
            height: Likewise.

        Returns:
            The model with focal lengths and principal point scaled, as image_proc's resize does.

        Raises:
            BadCalibration: Another aspect ratio (beyond a pixel of rounding): a crop, say, of
                which only the camera info's region of interest could tell the place.
        """
        if (width, height) == (self.width, self.height):
            return self
        sx, sy = width / self.width, height / self.height
        if abs(height - self.height * sx) > 1 and abs(width - self.width * sy) > 1:
            text = (
                f'The images are {width} x {height}, but their calibration is for '
                f'{self.width} x {self.height}, another aspect ratio.'
            )
            raise BadCalibration(text)
        return replace(
            self,
            width=width,
            height=height,
            fx=self.fx * sx,
            fy=self.fy * sy,
            cx=self.cx * sx,
            cy=self.cy * sy,
        )

    def _distort(
        self, x: NDArray[np.float64], y: NDArray[np.float64], r2: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Bend normalised coordinates, as OpenCV's calib3d and its fisheye module define it."""
        if not any(self.coefficients) and self.distortion != 'equidistant':
            return x, y
        if self.distortion == 'equidistant':
            r = np.sqrt(r2)
            theta = np.arctan(r)
            bent = theta * _horner((1.0, *self.coefficients), theta * theta)
            scale = np.divide(bent, r, out=np.ones_like(r), where=r > 1e-9)
            return x * scale, y * scale
        numerator, denominator = self._radial
        radial = _horner(numerator, r2)
        if len(denominator) > 1:
            radial /= _horner(denominator, r2)
        p1, p2 = self.coefficients[2:4]
        if p1 or p2:
            radial += 2 * p1 * y + 2 * p2 * x
            return x * radial + p2 * r2, y * radial + p1 * r2
        return x * radial, y * radial

    @property
    def _radial(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Numerator and denominator of the radial factor, as polynomials in r squared."""
        k1, k2, _, _, *rest = self.coefficients
        return (1.0, k1, k2, *rest[:1]), (1.0, *rest[1:])

    @cached_property
    def _largest_r2(self) -> float:
        """Squared distance from the axis (at z = 1) up to which the radius still grows.

        Beyond it the polynomial folds back and would put far-off points into the image.
        """
        if self.distortion == 'equidistant':
            # Derivative of theta (1 + k1 theta^2 + ...), as a polynomial in theta^2.
            slope = [(2 * i + 1) * k for i, k in enumerate((1.0, *self.coefficients))]
            limit = _first_root(Polynomial(slope))
            return math.inf if limit >= (math.pi / 2) ** 2 else math.tan(math.sqrt(limit)) ** 2
        if self.distortion == 'none':
            return math.inf
        numerator, denominator = (Polynomial(part) for part in self._radial)
        # d/dr of r N / D has the sign of N D + 2 s (N' D - N D'), with s = r^2.
        bend = numerator.deriv() * denominator - numerator * denominator.deriv()
        slope_sign = numerator * denominator + Polynomial((0, 2)) * bend
        return min(_first_root(slope_sign), _first_root(denominator))


def _distortion_of(model: str, d: Sequence[float]) -> tuple[str, tuple[float, ...]]:
    coefficients = tuple(float(value) for value in d)
    name = _ALIASES.get(model.lower(), model.lower())
    if not any(coefficients) and name in ('', 'none', 'pinhole', 'plumb_bob'):
        if name == 'plumb_bob' and len(coefficients) not in (0, 4, 5):
            return name, coefficients  # the model refuses their number
        return 'none', ()
    if name in ('', 'none', 'pinhole'):
        text = (
            f'The camera info has {len(coefficients)} distortion coefficients but names the '
            f'distortion model {model[:40]!r}; set distortion_model in the camera driver.'
        )
        raise BadCalibration(text)
    if len(coefficients) in _PADDED.get(name, ()):
        count = _COUNTS[name][0]
        if any(coefficients[count:]):
            text = (
                f'The {name} distortion has {len(coefficients)} coefficients; the ones after the '
                f'first {count} (thin prism, tilt) are only supported when zero.'
            )
            raise BadCalibration(text)
        coefficients = coefficients[:count]
    return name, coefficients


def _first_root(polynomial: Polynomial) -> float:
    """Smallest positive real root; infinity where there is none."""
    roots = polynomial.trim(1e-12).roots()
    real = roots.real[(np.abs(roots.imag) < 1e-9) & (roots.real > 0)]
    return float(real.min(initial=math.inf))


def _horner(coefficients: Sequence[float], x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Evaluate a polynomial whose constant term comes first."""
    value = np.full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        value *= x
        value += coefficient
    return value


def nearest_depth(
    uv: NDArray[np.float32], depth: NDArray[np.floating], cell_px: float, *, dilated: bool = False
) -> NDArray[np.floating]:
    """Find how near the nearest point around each point is: a z-buffer of coarse cells.

    Args:
        uv: (N, 2) pixel positions, not negative.
        depth: (N,) m in front of the camera.
        cell_px: Side of a cell; wide enough that no gaps are left between neighbouring beams.
        dilated: Whether the neighbouring cells on the left, on the right and in the row above
            count as well. Those below never do: the ground runs towards the camera there, and
            would hide itself.

    Returns:
        (N,) m.

    """
    column, row = (uv / np.float32(cell_px)).astype(np.intp).T
    # A border of empty cells.
    columns, rows = int(column.max(initial=0)) + 3, int(row.max(initial=0)) + 3
    cell = (row + 1) * columns + column + 1
    buffer = np.full(rows * columns, np.inf, depth.dtype)
    np.minimum.at(buffer, cell, depth)
    if dilated:
        grid = buffer.reshape(rows, columns)
        grid[1:] = np.minimum(grid[1:], grid[:-1])
        grid[:, 1:-1] = np.minimum(grid[:, 1:-1], np.minimum(grid[:, :-2], grid[:, 2:]))
        buffer = grid.ravel()
    nearest: NDArray[np.floating] = buffer[cell]
    return nearest


def unhidden(
    uv: NDArray[np.float32], depth: NDArray[np.floating], cell_px: float
) -> NDArray[np.bool_]:
    """Find the points that no nearer point of their cell hides.

    Args:
        uv: (N, 2) pixel positions, not negative.
        depth: (N,) m in front of the camera.
        cell_px: As of `nearest_depth`.

    Returns:
        (N,) whether a point is at most 0.5 m or 6 % behind the nearest one of its cell.

    """
    limit = nearest_depth(uv, depth, cell_px)
    visible: NDArray[np.bool_] = depth <= limit + np.maximum(HIDDEN_M, HIDDEN_SHARE * limit)
    return visible
