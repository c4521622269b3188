# SPDX-License-Identifier: Apache-2.0
"""What can go wrong with sensors: changes of sweeps, calibrations and image stamps."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cross4d_jepa_ros.bag_setup import IMAGE_TYPES
from cross4d_jepa_ros.bags import Bag, BagMessage
from cross4d_jepa_ros.sensing.frames import SensorFrame
from cross4d_jepa_ros.sensing.point_clouds import Sweep

DROPPED = (0.25, 0.5, 0.75)
FEWER_BEAMS = (2, 4)
FEWER_SWEEPS = (2, 4)
TURNED_DEG = (0.25, 0.5, 1.0, 2.0)
SHIFTED_MS = (10, 50, 100)
# Of a sensor whose clouds do not tell the beam of a point.
USUAL_BEAMS = 64

Change = Callable[[SensorFrame, int], SensorFrame | None]
"""Takes a frame and its number in its log; None leaves the sweep out."""


@dataclass(frozen=True)
class Disturbance:
    """One thing that is wrong with every sweep.

    Attributes:
        name: What.
        amount: How much, in words.
        change: Of each frame.
        shift_ns: By which the stamps of images are too early.
        of_images: Whether it only touches images.

    """

    name: str
    amount: str
    change: Change
    shift_ns: int = 0
    of_images: bool = False


def disturbances(beams: int) -> list[Disturbance]:
    """List what is tried.

    Args:
        beams: Of the sensor.

    """
    found = [
        Disturbance('points dropped', f'{share:.0%}', partial(dropped, share=share))
        for share in DROPPED
    ]
    for factor in FEWER_BEAMS:
        thin = partial(fewer_beams, factor=factor)
        found.append(Disturbance('fewer beams', f'{beams // factor} of {beams}', thin))
    for factor in FEWER_SWEEPS:
        skip = partial(fewer_sweeps, factor=factor)
        found.append(Disturbance('fewer sweeps', f'1 of {factor}', skip))
    for degrees in TURNED_DEG:
        turn = partial(cameras_turned, degrees=degrees)
        found.append(Disturbance('cameras turned', f'{degrees:g} deg', turn, of_images=True))
    for shift_ms in SHIFTED_MS:
        shift_ns = shift_ms * 1_000_000
        found.append(
            Disturbance('images late', f'{shift_ms} ms', unchanged, shift_ns, of_images=True)
        )
    found.append(Disturbance('no camera', '', without_images, of_images=True))
    return found


def unchanged(frame: SensorFrame, _number: int) -> SensorFrame:
    """Leave a frame as it is."""
    return frame


def dropped(frame: SensorFrame, _number: int, share: float) -> SensorFrame:
    """Drop a share of the points at random: what a smaller share drops, a larger one drops too."""
    draw = np.random.default_rng(frame.stamp_ns)
    return _with_points(frame, draw.random(len(frame.xyz_base)) >= share)


def fewer_beams(frame: SensorFrame, _number: int, factor: int) -> SensorFrame:
    """Keep every so manieth beam."""
    return _with_points(frame, beam_of_point(frame.sweep) % factor == 0)


def fewer_sweeps(frame: SensorFrame, number: int, factor: int) -> SensorFrame | None:
    """Keep every so manieth sweep of a log; the memory takes what comes."""
    return None if number % factor else frame


def cameras_turned(frame: SensorFrame, _number: int, degrees: float) -> SensorFrame:
    """Turn each camera to the right, about the y axis of its optical frame (yaw)."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turned_from_camera = np.eye(4)
    turned_from_camera[:3, :3] = (cos, 0, -sin), (0, 1, 0), (sin, 0, cos)
    views = tuple(
        replace(view, camera_from_base=turned_from_camera @ view.camera_from_base)
        for view in frame.views
    )
    return replace(frame, views=views)


def without_images(frame: SensorFrame, _number: int) -> SensorFrame:
    """Take all images away."""
    return replace(frame, views=())


def beam_of_point(sweep: Sweep) -> NDArray[np.int64]:
    """Number the beam (N,) of each point.

    Returns:
        The ring as the cloud has it. Without: the nearest of USUAL_BEAMS elevations, evenly spaced
        between the lowest and the highest (but for a thousandth of the points at either end).

    """
    if sweep.ring is not None:
        return sweep.ring.astype(np.int64)
    if not len(sweep.xyz):
        return np.zeros(0, np.int64)
    x, y, z = sweep.xyz.astype(np.float64).T
    elevation = np.arctan2(z, np.hypot(x, y))
    low, high = np.quantile(elevation, (0.001, 0.999))
    step = max(high - low, 1e-6) / (USUAL_BEAMS - 1)
    beam: NDArray[np.int64] = np.rint((elevation - low) / step).astype(np.int64)
    return beam.clip(0, USUAL_BEAMS - 1)


def bags_with_late_images(shift_ns: int) -> type[Bag]:
    """Make a kind of recording whose images were taken later than their stamps say.

    Synchroniser and ego-motion believe the stamps, so that the image of a sweep is one that was
    taken so much later.

    Args:
        shift_ns: How much.

    """

    class LateImages(Bag):
        """A recording whose images were taken later than their stamps say."""

        def deserialise(self, message: BagMessage) -> Any:
            """Turn a raw message into an object; see `Bag`."""
            read = super().deserialise(message)
            if message.msgtype not in IMAGE_TYPES:
                return read
            stamp = read.header.stamp
            sec, nanosec = divmod(stamp.sec * 10**9 + stamp.nanosec - shift_ns, 10**9)
            earlier = replace(stamp, sec=sec, nanosec=nanosec)
            return replace(read, header=replace(read.header, stamp=earlier))

    return LateImages


def _with_points(frame: SensorFrame, kept: NDArray[np.bool_]) -> SensorFrame:
    sweep = frame.sweep
    less = replace(
        sweep,
        xyz=sweep.xyz[kept],
        intensity=None if sweep.intensity is None else sweep.intensity[kept],
        ring=None if sweep.ring is None else sweep.ring[kept],
        time_offset_ns=None if sweep.time_offset_ns is None else sweep.time_offset_ns[kept],
        index=sweep.index[kept],
    )
    return replace(frame, sweep=less, xyz_base=frame.xyz_base[kept])
