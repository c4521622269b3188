# SPDX-License-Identifier: Apache-2.0
"""Make a short recording of a synthetic street: LiDAR, two cameras, transforms and odometry.

Example: `python -m offline_training.make_street_bag out/street --seed 0 --seconds 20`

Everything is ray-cast against boxes on a ground plane. The LiDAR turns while the car drives, so
its sweeps carry motion distortion and per-point times; the cameras expose a few ms later.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from cross4d_jepa_ros.bags import BadBag, BagWriter, message_class

START_NS = 1_700_000_000_000_000_000
SWEEP_S = 0.1
ODOMETRY_S = 0.02
EGO_SPEED = 8.0  # m/s
EGO_LATERAL = -1.75  # m: the right-hand lane
MAX_RANGE = 100.0  # m
ROAD_HALF_WIDTH = 4.0  # m
SIDEWALK_HALF_WIDTH = 7.0  # m
BEND_AMPLITUDE = 9.0  # m
BEND_WAVELENGTH = 220.0  # m

LIDAR_POSITION = (0.9, 0.0, 1.8)  # base_link, m
IMAGE_WIDTH, IMAGE_HEIGHT = 480, 192
FOCAL = 270.0  # px
DISTORTION = (-0.12, 0.03, 0.0006, -0.0004, 0.0)  # plumb_bob
CAMERAS = {  # name: position in base_link (m), yaw (rad)
    'camera_left': ((1.4, 0.35, 1.5), np.deg2rad(28.0)),
    'camera_right': ((1.4, -0.35, 1.5), np.deg2rad(-28.0)),
}
SUN = np.array([0.4, 0.5, 0.77], np.float32)

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Boxes:
    """Upright boxes of the street, one row each.

    Attributes:
        along: (B,) position along the road at time 0, m.
        lateral: (B,) position left of the road's middle, m.
        speed: (B,) along the road, m/s (0 for most).
        half: (B, 3) half length, half width, half height, m.
        yaw: (B,) relative to the road, rad.
        colour: (B, 3) RGB in [0, 1].
        reflectivity: (B,) LiDAR intensity at normal incidence, in [0, 1].

    """

    along: Array
    lateral: Array
    speed: Array
    half: Array
    yaw: Array
    colour: Array
    reflectivity: Array

    def pose(self, road: Road, time_s: float) -> tuple[Array, Array]:
        """Place the boxes at one instant: centres (B, 3) in the odom frame and yaws (B,)."""
        position, heading = road.pose(self.along + self.speed * time_s, self.lateral)
        return np.column_stack([position, self.half[:, 2]]), heading + self.yaw


class Road:
    """A gently winding road: y = A sin(2 pi x / wavelength) in the odom frame.

    Args:
        length: How far it reaches in both directions from the origin, m.

    """

    def __init__(self, length: float) -> None:
        self._x = np.arange(-length, length, 0.5)
        arc = np.cumsum(np.hypot(1.0, self.slope(self._x)) * 0.5)
        self._arc = arc - np.interp(0.0, self._x, arc)

    @staticmethod
    def y(x: Array) -> Array:
        """Height of the middle line above the x axis, m."""
        return BEND_AMPLITUDE * np.sin(2 * np.pi * x / BEND_WAVELENGTH)

    @staticmethod
    def slope(x: Array) -> Array:
        """Derivative dy/dx of the middle line."""
        bend = 2 * np.pi / BEND_WAVELENGTH
        return BEND_AMPLITUDE * bend * np.cos(bend * x)

    def pose(self, along: Array, lateral: Array) -> tuple[Array, Array]:
        """Return the position (..., 2) and heading (...) at an arc length and lateral offset."""
        x = np.interp(along, self._arc, self._x)
        heading = np.arctan(self.slope(x))
        left = np.stack([-np.sin(heading), np.cos(heading)], axis=-1)
        middle = np.stack([x, self.y(x)], axis=-1)
        return middle + np.asarray(lateral)[..., None] * left, heading

    def lateral(self, x: Array, y: Array) -> Array:
        """Distance left of the middle line, m (first order in the curvature)."""
        return (y - self.y(x)) * np.cos(np.arctan(self.slope(x)))


def street(seed: int, seconds: float) -> Boxes:
    """Line a street with buildings, parked and moving cars, poles and people.

    Args:
        seed: Same seed, same street.
        seconds: Driving time that the street must last for.

    """
    random = np.random.default_rng(seed)
    first, last = -90.0, EGO_SPEED * seconds + 110.0
    rows: list[tuple[Any, ...]] = []

    def add(
        along: float,
        lateral: float,
        size: tuple[float, float, float],
        colour: tuple[float, float, float],
        reflectivity: float,
        speed: float = 0.0,
        yaw: float = 0.0,
    ) -> None:
        half = (size[0] / 2, size[1] / 2, size[2] / 2)
        rows.append((along, lateral, speed, half, yaw, colour, reflectivity))

    def paint() -> tuple[float, float, float]:
        r, g, b = random.uniform(0.1, 0.95, 3)
        return float(r), float(g), float(b)

    for side in (-1.0, 1.0):
        along = first
        while along < last:
            length, depth, height = random.uniform((9, 7, 5), (24, 13, 16))
            grey, warm = random.uniform(0.4, 0.85), random.uniform(0.0, 0.15)
            lateral = side * (random.uniform(8.5, 12.5) + depth / 2)
            add(
                along + length / 2,
                lateral,
                (length, depth, height),
                (min(grey + warm, 1.0), grey, grey - warm),
                random.uniform(0.25, 0.5),
            )
            along += length + random.uniform(0.5, 8.0)
        for along in np.arange(first, last, 7.5):
            if random.random() < 0.5:
                size = (random.uniform(3.8, 4.8), 1.8, random.uniform(1.4, 1.9))
                place = side * 5.2, random.normal(0, 0.03)
                add(along, place[0], size, paint(), random.uniform(0.1, 0.6), yaw=place[1])
            if random.random() < 0.35:
                size = (
                    random.uniform(0.3, 0.5),
                    random.uniform(0.4, 0.6),
                    random.uniform(1.5, 1.9),
                )
                lateral = side * random.uniform(6.4, 7.2)
                speed = random.choice([-1.3, 0.0, 1.2])
                add(along + 2.5, lateral, size, paint(), 0.3, speed=speed)
        for along in np.arange(first + 10 * (side > 0), last, 20.0):
            add(along, side * 6.2, (0.2, 0.2, 6.0), (0.35, 0.35, 0.38), 0.7)
    for start in np.arange(first + 20.0, last + EGO_SPEED * seconds, 35.0):
        size = (random.uniform(4.0, 4.8), 1.8, random.uniform(1.4, 1.8))
        add(start, 1.75, size, paint(), 0.4, speed=-random.uniform(6, 10), yaw=np.pi)
    add(18.0, EGO_LATERAL, (4.4, 1.8, 1.5), (0.75, 0.1, 0.1), 0.5, speed=EGO_SPEED)
    columns = [np.array(column, np.float64) for column in zip(*rows, strict=True)]
    return Boxes(*columns)


def ego_pose(road: Road, time_s: Array) -> tuple[Array, Array]:
    """Return base_link's position (..., 3) and yaw (...) in odom at times since the start, s."""
    position, heading = road.pose(EGO_SPEED * time_s, np.full(np.shape(time_s), EGO_LATERAL))
    return np.concatenate([position, np.zeros((*np.shape(time_s), 1))], axis=-1), heading


def _enter_box(
    origin: NDArray[np.float32], direction: NDArray[np.float32], half: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Intersect rays with a box around the origin of their coordinates (slab method).

    Args:
        origin: (..., 3) broadcastable to `direction`, m.
        direction: (..., 3); the distance counts in its length.
        half: (3,) half extents, m.

    Returns:
        Distance (...) to the entry, inf where missed, and the axis (...) of the face entered.

    """
    inverse = 1 / np.where(np.abs(direction) < 1e-9, np.float32(1e-9), direction)
    middle = -origin * inverse
    reach = np.abs(inverse) * half
    near, far = middle - reach, middle + reach
    axis = np.argmax(near, axis=-1)
    entry = np.max(near, axis=-1)
    missed = ~((entry < np.min(far, axis=-1)) & (entry > 0))
    entry[missed] = np.inf
    return entry, axis


def _surface_of_ground(road: Road, x: Array, y: Array) -> tuple[Array, Array]:
    """Return the colour (..., 3) and reflectivity (...) of the ground at odom coordinates."""
    lateral = road.lateral(x, y)
    side = np.abs(lateral)
    colour = np.broadcast_to([0.30, 0.45, 0.20], (*np.shape(x), 3)).copy()
    reflectivity = np.full(np.shape(x), 0.35)
    for inside, tone, value in (
        (side < SIDEWALK_HALF_WIDTH, (0.58, 0.56, 0.54), 0.28),
        (side < ROAD_HALF_WIDTH, (0.25, 0.25, 0.27), 0.12),
        ((side < 0.08) & (np.mod(x, 6.0) < 3.0), (0.9, 0.9, 0.9), 0.8),
        (np.abs(side - ROAD_HALF_WIDTH + 0.2) < 0.07, (0.9, 0.9, 0.9), 0.8),
    ):
        colour[inside] = tone
        reflectivity[inside] = value
    return colour, reflectivity


def _rotation(yaw: Array | float) -> NDArray[np.float32]:
    """Rotations (..., 3, 3) about z."""
    yaw = np.asarray(yaw)
    cos, sin, zero, one = np.cos(yaw), np.sin(yaw), np.zeros_like(yaw), np.ones_like(yaw)
    rows = [[cos, -sin, zero], [sin, cos, zero], [zero, zero, one]]
    return np.moveaxis(np.array(rows, np.float32), (0, 1), (-2, -1))


@dataclass(frozen=True)
class LidarSweep:
    """One sweep, in firing order.

    Attributes:
        xyz: (N, 3) float32, each point in the LiDAR's pose of its own firing, m.
        intensity: (N,) float32 in [0, 1].
        ring: (N,) uint16, 0 is the lowest beam.
        time: (N,) float32, s since the sweep's start.

    """

    xyz: NDArray[np.float32]
    intensity: NDArray[np.float32]
    ring: NDArray[np.uint16]
    time: NDArray[np.float32]


def lidar_sweep(
    road: Road, boxes: Boxes, time_s: float, random: np.random.Generator, beams: int, columns: int
) -> LidarSweep:
    """Fire one turn of the LiDAR, starting at `time_s`.

    Args:
        road: The road.
        boxes: What stands and moves along it.
        time_s: Seconds since the recording's start.
        random: Source of the range noise and of lost returns.
        beams: Beams between -24.8 and +6 degrees of elevation.
        columns: Firings per turn, backwards over the left to the front again.

    """
    since = np.arange(columns) / columns * SWEEP_S
    position, yaw = ego_pose(road, time_s + since)  # (C, 3), (C,)
    turn = _rotation(yaw).astype(np.float64)  # (C, 3, 3)
    origin = position + turn @ np.array(LIDAR_POSITION)  # (C, 3)
    azimuth = np.pi - 2 * np.pi * np.arange(columns) / columns
    elevation = np.deg2rad(np.linspace(-24.8, 6.0, beams))
    flat = np.stack([np.cos(azimuth + yaw), np.sin(azimuth + yaw)], axis=-1)  # (C, 2)
    level, lift = np.cos(elevation), np.sin(elevation)
    direction = np.empty((columns, beams, 3), np.float32)
    direction[..., :2] = flat[:, None] * level[:, None]
    direction[..., 2] = lift

    with np.errstate(divide='ignore'):
        to_ground = np.where(lift < 0, -origin[0, 2] / lift, np.inf)
    distance = np.tile(to_ground.astype(np.float32), (columns, 1))  # (C, beams)
    ground_x = origin[:, None, 0] + to_ground * direction[..., 0]
    ground_y = origin[:, None, 1] + to_ground * direction[..., 1]
    on_ground = distance < MAX_RANGE
    reflectivity = np.zeros((columns, beams), np.float32)
    reflectivity[on_ground] = _surface_of_ground(
        road, ground_x[on_ground].astype(np.float64), ground_y[on_ground].astype(np.float64)
    )[1]
    incidence = np.tile(np.abs(lift).astype(np.float32), (columns, 1))

    centres, _ = boxes.pose(road, time_s + SWEEP_S / 2)
    reach = np.hypot(boxes.half[:, 0], boxes.half[:, 1]) + np.abs(boxes.speed) * SWEEP_S
    offset = centres[:, None, :2] - origin[None, :, :2]  # (B, C, 2)
    gap = np.hypot(offset[..., 0], offset[..., 1])  # (B, C)
    ahead = offset[..., 0] * flat[:, 0] + offset[..., 1] * flat[:, 1]
    aside = np.abs(offset[..., 0] * flat[:, 1] - offset[..., 1] * flat[:, 0])
    touched = (aside <= reach[:, None]) & (ahead > -reach[:, None])
    touched &= gap - reach[:, None] < MAX_RANGE
    for box in np.flatnonzero(touched.any(axis=1)):
        hit_columns = np.flatnonzero(touched[box])
        # Cars move during the sweep: each column sees the box where it then is.
        along = boxes.along[box] + boxes.speed[box] * (time_s + since[hit_columns])
        place, heading = road.pose(along, np.full(len(along), boxes.lateral[box]))
        turn_back = _rotation(-(heading + boxes.yaw[box]))  # (K, 3, 3): box from odom
        from_box = origin[hit_columns].copy()
        from_box[:, :2] -= place
        from_box[:, 2] -= boxes.half[box, 2]
        local_origin = (turn_back @ from_box[..., None].astype(np.float32))[..., 0]
        local = direction[hit_columns] @ turn_back.transpose(0, 2, 1)
        entry, axis = _enter_box(local_origin[:, None], local, boxes.half[box].astype(np.float32))
        closer = entry < distance[hit_columns]
        if closer.any():
            column, beam = np.nonzero(closer)
            column_of_sweep = hit_columns[column]
            distance[column_of_sweep, beam] = entry[closer]
            reflectivity[column_of_sweep, beam] = boxes.reflectivity[box]
            incidence[column_of_sweep, beam] = np.abs(local[column, beam, axis[closer]])

    kept = (distance > 1.0) & (distance < MAX_RANGE) & (random.random(distance.shape) > 0.01)
    column, beam = np.nonzero(kept)
    measured = distance[kept] + random.normal(0, 0.015, len(column)).astype(np.float32)
    intensity = reflectivity[kept] * (0.3 + 0.7 * incidence[kept])
    intensity += random.normal(0, 0.01, len(column)).astype(np.float32)
    xyz = np.stack(
        [
            np.cos(azimuth)[column] * level[beam] * measured,
            np.sin(azimuth)[column] * level[beam] * measured,
            lift[beam] * measured,
        ],
        axis=-1,
    )
    return LidarSweep(
        xyz.astype(np.float32),
        np.clip(intensity, 0, 1).astype(np.float32),
        beam.astype(np.uint16),
        since[column].astype(np.float32),
    )


def camera_matrix() -> Array:
    """Return K (3, 3) of both cameras, in pixels."""
    return np.array([[FOCAL, 0, IMAGE_WIDTH / 2], [0, FOCAL, IMAGE_HEIGHT / 2], [0, 0, 1]])


def base_from_camera(name: str) -> Array:
    """Pose (4, 4) of a camera's optical frame (z forward, x right) in base_link."""
    position, yaw = CAMERAS[name]
    pose = np.eye(4)
    pose[:3, :3] = _rotation(yaw) @ np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0]])
    pose[:3, 3] = position
    return pose


def pixel_rays() -> NDArray[np.float32]:
    """Directions (H, W, 3) in the optical frame, z = 1, of the pixels' centres."""
    u, v = np.meshgrid(np.arange(IMAGE_WIDTH), np.arange(IMAGE_HEIGHT))
    seen = np.stack([(u - IMAGE_WIDTH / 2) / FOCAL, (v - IMAGE_HEIGHT / 2) / FOCAL], axis=-1)
    ideal = seen.copy()
    for _ in range(20):  # the distortion is mild, so the fixed point is near
        ideal += seen - _distorted(ideal)
    return np.concatenate([ideal, np.ones((*ideal.shape[:2], 1))], axis=-1).astype(np.float32)


def _distorted(ideal: Array) -> Array:
    """Apply plumb_bob distortion to normalised image coordinates (..., 2)."""
    k1, k2, p1, p2, k3 = DISTORTION
    x, y = ideal[..., 0], ideal[..., 1]
    r2 = x * x + y * y
    radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    return np.stack(
        [
            x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
            y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
        ],
        axis=-1,
    )


def camera_image(
    road: Road, boxes: Boxes, time_s: float, name: str, rays: NDArray[np.float32]
) -> NDArray[np.uint8]:
    """Render what a camera sees at one instant, flat-shaded, (H, W, 3) RGB.

    Args:
        road: The road.
        boxes: What stands and moves along it.
        time_s: Seconds since the recording's start.
        name: Key of `CAMERAS`.
        rays: From `pixel_rays`.

    """
    position, yaw = ego_pose(road, np.array(time_s))
    odom_from_base = np.eye(4)
    odom_from_base[:3, :3] = _rotation(yaw)
    odom_from_base[:3, 3] = position
    odom_from_camera = odom_from_base @ base_from_camera(name)
    origin = odom_from_camera[:3, 3]
    direction = rays @ odom_from_camera[:3, :3].T.astype(np.float32)

    up = np.clip(direction[..., 2:] * 2, 0, 1)
    image = (1 - up) * np.float32([0.78, 0.85, 0.93]) + up * np.float32([0.35, 0.55, 0.85])
    down = direction[..., 2] < -1e-3
    depth = np.full(rays.shape[:2], np.inf, np.float32)
    depth[down] = -origin[2] / direction[down, 2]
    near = depth < 3 * MAX_RANGE
    hit = origin[:2] + depth[near, None] * direction[near, :2]
    image[near] = 0.85 * _surface_of_ground(road, hit[:, 0], hit[:, 1])[0]

    centres, yaws = boxes.pose(road, time_s)
    turns = _rotation(yaws)  # (B, 3, 3): odom from box
    signs = np.stack(np.meshgrid([-1, 1], [-1, 1], [-1, 1]), axis=-1).reshape(8, 3)
    corners = centres[:, None] + (signs * boxes.half[:, None]) @ turns.transpose(0, 2, 1)
    in_camera = (corners - origin) @ odom_from_camera[:3, :3]  # (B, 8, 3)
    for box in np.flatnonzero(in_camera[..., 2].max(axis=1) > 0.1):
        if np.linalg.norm(centres[box] - origin) > 2 * MAX_RANGE:
            continue
        window = _window(in_camera[box])
        if window is None:
            continue
        rows, columns = window
        local_origin = ((origin - centres[box]) @ turns[box]).astype(np.float32)
        local = direction[rows, columns] @ turns[box]
        entry, axis = _enter_box(local_origin, local, boxes.half[box].astype(np.float32))
        closer = entry < depth[rows, columns]
        if not closer.any():
            continue
        face = axis[closer]
        outward = -np.sign(local[closer, face])
        light = 0.55 + 0.45 * np.clip(outward * (SUN @ turns[box])[face], -0.5, 1)
        image[rows, columns][closer] = light[:, None] * boxes.colour[box]
        depth[rows, columns][closer] = entry[closer]
    return (np.clip(image, 0, 1) * 255).astype(np.uint8)


def _window(corners: Array) -> tuple[slice, slice] | None:
    """Bound the pixels that may see a box, given its corners (8, 3) in the optical frame."""
    if corners[:, 2].min() < 0.1:  # it reaches beside or behind the camera
        return slice(0, IMAGE_HEIGHT), slice(0, IMAGE_WIDTH)
    # Beyond this the distortion polynomial folds back; no pixel looks there anyway.
    ideal = np.clip(corners[:, :2] / corners[:, 2:], -1.4, 1.4)
    pixels = _distorted(ideal) * FOCAL + (IMAGE_WIDTH / 2, IMAGE_HEIGHT / 2)
    low = np.floor(pixels.min(axis=0)).astype(int) - 6  # straight edges bulge a little
    high = np.ceil(pixels.max(axis=0)).astype(int) + 7
    left, top = np.maximum(low, 0)
    right, bottom = np.minimum(high, (IMAGE_WIDTH, IMAGE_HEIGHT))
    if left >= right or top >= bottom:
        return None
    return slice(top, bottom), slice(left, right)


def write_street_bag(
    path: Path,
    seed: int,
    seconds: float,
    *,
    beams: int = 64,
    columns: int = 1800,
    storage: Literal['mcap', 'sqlite3'] = 'mcap',
) -> int:
    """Write the recording.

    Args:
        path: Folder to create.
        seed: Same seed, same recording.
        seconds: Length; a sweep every 0.1 s.
        beams: LiDAR beams.
        columns: LiDAR firings per turn.
        storage: Storage plugin.

    Returns:
        Number of sweeps.

    Raises:
        BadBag: The folder exists already or cannot be made.

    """
    road = Road(2 * EGO_SPEED * seconds + 400.0)
    boxes = street(seed, seconds)
    random = np.random.default_rng((seed, 1))
    rays = pixel_rays()
    sweeps = max(1, round(seconds / SWEEP_S))
    with BagWriter(path, storage=storage) as bag:
        bag.add_topic('/tf_static', 'tf2_msgs/msg/TFMessage', transient_local=True)
        bag.add_topic('/tf', 'tf2_msgs/msg/TFMessage')
        bag.add_topic('/odom', 'nav_msgs/msg/Odometry')
        bag.add_topic('/lidar/points', 'sensor_msgs/msg/PointCloud2', best_effort=True)
        for name in CAMERAS:
            compressed = f'/{name}/image_raw/compressed'
            bag.add_topic(compressed, 'sensor_msgs/msg/CompressedImage', best_effort=True)
            bag.add_topic(f'/{name}/camera_info', 'sensor_msgs/msg/CameraInfo')
        bag.write('/tf_static', 'tf2_msgs/msg/TFMessage', START_NS, _static_tree())
        progress = track(range(sweeps), description='street', console=Console(stderr=True))
        for sweep in progress:
            messages = list(_odometry(road, sweep * SWEEP_S))
            messages.append(_cloud(road, boxes, sweep * SWEEP_S, random, beams, columns))
            for name in CAMERAS:
                late_s = random.uniform(0.008, 0.015)
                messages += _camera(road, boxes, sweep * SWEEP_S + late_s, name, rays)
            for stamp_ns, topic, msg in sorted(messages, key=lambda entry: entry[0]):
                bag.write(topic, msg.__msgtype__, stamp_ns, msg)
    return sweeps


Entry = tuple[int, str, Any]  # bag stamp (ns), topic, message


def _stamp_ns(time_s: float) -> int:
    return START_NS + round(time_s * 1e9)


def _header(time_s: float, frame_id: str) -> Any:
    seconds, nanoseconds = divmod(_stamp_ns(time_s), 1_000_000_000)
    stamp = message_class('builtin_interfaces/msg/Time')(seconds, nanoseconds)
    return message_class('std_msgs/msg/Header')(stamp, frame_id)


def _vector(xyz: Array) -> Any:
    return message_class('geometry_msgs/msg/Vector3')(*(float(value) for value in xyz))


def _quaternion(yaw: float) -> Any:
    half = float(yaw) / 2
    return message_class('geometry_msgs/msg/Quaternion')(0.0, 0.0, np.sin(half), np.cos(half))


def _transform(header: Any, child: str, translation: Array, rotation: Any) -> Any:
    transform = message_class('geometry_msgs/msg/Transform')(_vector(translation), rotation)
    return message_class('geometry_msgs/msg/TransformStamped')(header, child, transform)


def _static_tree() -> Any:
    tree = [
        _transform(_header(0.0, 'base_link'), 'lidar', np.array(LIDAR_POSITION), _quaternion(0.0))
    ]
    quaternion = message_class('geometry_msgs/msg/Quaternion')
    for name, (position, yaw) in CAMERAS.items():
        # Rotation about z by yaw, times the (-0.5, 0.5, -0.5, 0.5) of an optical frame.
        sin, cos = np.sin(yaw / 2) / 2, np.cos(yaw / 2) / 2
        rotation = quaternion(-cos - sin, cos - sin, -cos + sin, cos + sin)
        frame = f'{name}_optical_frame'
        tree.append(_transform(_header(0.0, 'base_link'), frame, np.array(position), rotation))
    return message_class('tf2_msgs/msg/TFMessage')(tree)


def _odometry(road: Road, start_s: float) -> Iterator[Entry]:
    """/tf and /odom of one sweep's duration."""
    pose = message_class('geometry_msgs/msg/Pose')
    point = message_class('geometry_msgs/msg/Point')
    twist = message_class('geometry_msgs/msg/Twist')
    for step in range(round(SWEEP_S / ODOMETRY_S)):
        time_s = start_s + step * ODOMETRY_S
        (before, position, after), (yaw_before, yaw, yaw_after) = ego_pose(
            road, time_s + np.array([-0.01, 0.0, 0.01])
        )
        header = _header(time_s, 'odom')
        stamped = _transform(header, 'base_link', position, _quaternion(yaw))
        tf = message_class('tf2_msgs/msg/TFMessage')([stamped])
        yield _stamp_ns(time_s), '/tf', tf
        speed = np.linalg.norm(after - before) / 0.02
        turning = (yaw_after - yaw_before) / 0.02
        velocity = twist(_vector(np.array([speed, 0, 0])), _vector(np.array([0, 0, turning])))
        zeros = np.zeros(36)
        odometry = message_class('nav_msgs/msg/Odometry')(
            header,
            'base_link',
            message_class('geometry_msgs/msg/PoseWithCovariance')(
                pose(point(*(float(value) for value in position)), _quaternion(yaw)), zeros
            ),
            message_class('geometry_msgs/msg/TwistWithCovariance')(velocity, zeros),
        )
        yield _stamp_ns(time_s), '/odom', odometry


def _cloud(
    road: Road,
    boxes: Boxes,
    time_s: float,
    random: np.random.Generator,
    beams: int,
    columns: int,
) -> Entry:
    sweep = lidar_sweep(road, boxes, time_s, random, beams, columns)
    layout = np.dtype(
        {
            'names': ['x', 'y', 'z', 'intensity', 'ring', 'time'],
            'formats': ['<f4', '<f4', '<f4', '<f4', '<u2', '<f4'],
            'offsets': [0, 4, 8, 12, 16, 20],
            'itemsize': 24,
        }
    )
    points = np.zeros(len(sweep.xyz), layout)
    points['x'], points['y'], points['z'] = sweep.xyz.T
    points['intensity'], points['ring'], points['time'] = sweep.intensity, sweep.ring, sweep.time
    field = message_class('sensor_msgs/msg/PointField')
    datatypes = {'<f4': field.FLOAT32, '<u2': field.UINT16}
    fields = [
        field(name, layout.fields[name][1], datatypes[layout[name].str], 1) for name in layout.names
    ]
    cloud = message_class('sensor_msgs/msg/PointCloud2')(
        _header(time_s, 'lidar'),
        1,
        len(points),
        fields,
        False,
        layout.itemsize,
        layout.itemsize * len(points),
        points.view(np.uint8),
        True,
    )
    # A sweep can be recorded only once it has been turned.
    return _stamp_ns(time_s + SWEEP_S), '/lidar/points', cloud


def _camera(
    road: Road, boxes: Boxes, time_s: float, name: str, rays: NDArray[np.float32]
) -> list[Entry]:
    """One image and its camera_info."""
    header = _header(time_s, f'{name}_optical_frame')
    image = camera_image(road, boxes, time_s, name, rays)
    _, jpeg = cv2.imencode('.jpg', image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
    compressed = message_class('sensor_msgs/msg/CompressedImage')(
        header, 'rgb8; jpeg compressed bgr8', jpeg.reshape(-1)
    )
    projection = np.zeros((3, 4))
    projection[:, :3] = camera_matrix()
    info = message_class('sensor_msgs/msg/CameraInfo')(
        header,
        IMAGE_HEIGHT,
        IMAGE_WIDTH,
        'plumb_bob',
        np.array(DISTORTION),
        camera_matrix().reshape(-1),
        np.eye(3).reshape(-1),
        projection.reshape(-1),
        0,
        0,
        message_class('sensor_msgs/msg/RegionOfInterest')(0, 0, 0, 0, False),
    )
    # Exposed, compressed and sent: the recorder has it some milliseconds later.
    recorded_ns = _stamp_ns(time_s + 0.02)
    return [
        (recorded_ns, f'/{name}/image_raw/compressed', compressed),
        (recorded_ns, f'/{name}/camera_info', info),
    ]


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('out', type=Path, help='folder to create')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--seconds', type=float, default=20.0)
    parser.add_argument('--storage', choices=('mcap', 'sqlite3'), default='mcap')
    arguments = parser.parse_args(argv)
    if not 0 < arguments.seconds <= 3600:
        parser.error(f'--seconds must lie in (0, 3600], not {arguments.seconds:g}')
    try:
        sweeps = write_street_bag(
            arguments.out, arguments.seed, arguments.seconds, storage=arguments.storage
        )
    except BadBag as error:
        print(error, file=sys.stderr)
        return 2
    print(f'{arguments.out}: {sweeps} sweeps')
    return 0


if __name__ == '__main__':
    sys.exit(main())
