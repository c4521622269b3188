# SPDX-License-Identifier: Apache-2.0
"""Endless drives as the node's messages: a made-up street, or the sweeps of a recording."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from types import SimpleNamespace
from typing import Any, Protocol

import cv2
import numpy as np
from nav_msgs.msg import Odometry
from numpy.typing import NDArray
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, PointCloud2, PointField

from cross4d_jepa_ros.bag_setup import BagSetup, readable
from cross4d_jepa_ros.bags import Bag, moving_transforms, note, static_transforms
from cross4d_jepa_ros.ros.message_types import message_type
from cross4d_jepa_ros.sensing.extrinsics import load_extrinsics
from cross4d_jepa_ros.sensing.frames import BODY_FROM_OPTICAL, FrameAssembler, FrameConfig
from cross4d_jepa_ros.sensing.point_clouds import stamp_ns
from cross4d_jepa_ros.sensing.synchronisation import SweepSynchroniser, SyncConfig
from cross4d_jepa_ros.sensing.transforms import TransformBuffer

POINTS, IMAGE, INFO, ODOMETRY = (
    '/points',
    '/camera/image/compressed',
    '/camera/camera_info',
    '/odom',
)
SPEED = 10.0
PERIOD_NS = 100_000_000
START_NS = 1_700_000_000_000_000_000
BEAMS = 64
ELEVATION_DEG = (-24.8, 2.0)
SENSOR_HEIGHT_M = 1.73
# The street repeats itself each so many metres, that is after ten sweeps.
BLOCK_M = 10.0
WALL_Y_M, WALL_TOP_M, FARTHEST_M, NOISE_M = 12.0, 9.0, 120.0, 0.02
# x and y within a block, radius, lower and upper end above the ground, all in m.
CYLINDERS = (
    (0.0, -9.0, 0.15, 0.0, 6.0),
    (0.0, 9.0, 0.15, 0.0, 6.0),
    (5.0, -7.0, 1.0, 0.2, 1.6),
    (4.0, 7.0, 1.0, 0.2, 1.6),
    (7.5, -9.5, 1.8, 2.5, 7.0),
)
IMAGE_SIZE = (1280, 720)
# A longer recording would fill the memory with its messages and measure the same.
MOST_BAG_SWEEPS = 100

Sweep = tuple[PointCloud2, tuple[Any, ...]]


class Drive(Protocol):
    """Sweeps without an end, and what puts them together with images and poses.

    Attributes:
        ego_motion: `recorded`, `assumed` (10 m/s straight ahead) or `none`.
        points: Points of a message; their median where they differ.
        sweeps: How many follow each other before the past has to be forgotten; None: all.

    """

    assembler: FrameAssembler
    ego_motion: str
    points: int
    sweeps: int | None

    def stream(self) -> Iterator[tuple[PointCloud2, tuple[Any, ...], bool]]:
        """Yield sweep, images, and whether the sweep continues no earlier one."""


def stamped(message: Any, at_ns: int, frame_id: str) -> Any:
    """Fill a header."""
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(at_ns, 10**9)
    message.header.frame_id = frame_id
    return message


def odometry(at_ns: int, x: float, child: str) -> Odometry:
    """Say that a frame is x m along the first axis of `odom`."""
    message = stamped(Odometry(child_frame_id=child), at_ns, 'odom')
    message.pose.pose.position.x = x
    return message


class SyntheticDrive:
    """A straight street of walls, poles, parked boxes and crowns, driven through at 10 m/s.

    Ten sweeps come again and again with new stamps and poses, which fits: the street repeats
    itself. Points carry intensity, ring and time. One camera sends a JPEG with each sweep.

    Args:
        points: Of a message; a multiple of 64.

    """

    def __init__(self, points: int) -> None:
        self.points = points
        self.ego_motion = 'recorded'
        self.sweeps: int | None = None
        self._transforms = TransformBuffer()
        self._transforms.add_static('lidar', 'camera', BODY_FROM_OPTICAL)
        self.assembler = FrameAssembler(FrameConfig(), self._transforms, None, (IMAGE,))
        self.camera_info = _camera_info()
        self.assembler.set_camera_info(self.camera_info, 0)
        count = round(BLOCK_M / SPEED * 1e9 / PERIOD_NS)
        self._clouds = [_cloud(points, number) for number in range(count)]
        self._images = [_image(number) for number in range(count)]
        self._driven = 0

    def stream(self) -> Iterator[tuple[PointCloud2, tuple[Any, ...], bool]]:
        """Yield sweep, images, and whether the sweep continues no earlier one."""
        first = True
        while True:
            points, image, poses = self.next_messages()
            for pose in poses:
                self._transforms.add_odometry(pose)
            yield points, (image,), first
            first = False

    def next_messages(self) -> tuple[PointCloud2, CompressedImage, list[Odometry]]:
        """Drive on by one sweep; its messages are used again ten sweeps later."""
        number, self._driven = self._driven, self._driven + 1
        at_ns = START_NS + number * PERIOD_NS
        points = stamped(self._clouds[number % len(self._clouds)], at_ns, 'lidar')
        image = stamped(self._images[number % len(self._images)], at_ns, 'camera')
        times = [at_ns + part * PERIOD_NS // 4 for part in range(5)]
        return points, image, [odometry(at, _driven_m(at), 'lidar') for at in times]


def _driven_m(at_ns: int) -> float:
    return SPEED * (at_ns - START_NS) / 1e9


def _cloud(points: int, number: int) -> PointCloud2:
    columns = points // BEAMS
    draw = np.random.default_rng(number)
    share = np.arange(columns) / columns
    azimuth = 2 * np.pi * share - np.pi
    slope = np.tan(np.deg2rad(np.linspace(*ELEVATION_DEG, BEAMS)))
    ego_x = SPEED * PERIOD_NS / 1e9 * (number + share)
    distance = _horizontal_distance(azimuth, slope, ego_x)  # (columns, BEAMS)
    distance += draw.normal(0, NOISE_M, distance.shape)
    distance[distance > FARTHEST_M] = np.nan
    layout = [(name, '<f4') for name in ('x', 'y', 'z', 'intensity')]
    packed = np.zeros((columns, BEAMS), np.dtype([*layout, ('ring', '<u2'), ('time', '<f4')]))
    packed['x'] = distance * np.cos(azimuth)[:, None]
    packed['y'] = distance * np.sin(azimuth)[:, None]
    packed['z'] = distance * slope
    packed['intensity'] = draw.uniform(0, 1, distance.shape)
    packed['ring'] = np.arange(BEAMS)
    packed['time'] = (share * PERIOD_NS / 1e9)[:, None]
    message = PointCloud2(height=1, width=points, point_step=packed.itemsize)
    message.row_step = packed.nbytes
    kinds = {'<f4': PointField.FLOAT32, '<u2': PointField.UINT16}
    assert packed.dtype.fields is not None
    for name, (dtype, offset, *_) in packed.dtype.fields.items():
        message.fields.append(
            PointField(name=name, offset=offset, datatype=kinds[dtype.str], count=1)
        )
    message.data = array('B', packed.tobytes())
    return message


def _horizontal_distance(
    azimuth: NDArray[np.float64], slope: NDArray[np.float64], ego_x: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Nearest hit (columns, BEAMS) of each beam, m; infinite where there is none."""
    with np.errstate(divide='ignore'):
        wall = WALL_Y_M / np.abs(np.sin(azimuth))  # (columns,)
        ground = np.where(slope < 0, SENSOR_HEIGHT_M / -slope, np.inf)  # (BEAMS,)
    along = ego_x + np.clip(wall, 0, 1000) * np.cos(azimuth)
    # Every other window's breadth of the wall stands back.
    wall *= 1 + 0.04 * (np.floor(along / (BLOCK_M / 4)) % 2)
    nearest = np.broadcast_to(ground, (len(azimuth), BEAMS)).copy()
    _take_nearer(nearest, wall, slope, 0.0, WALL_TOP_M)
    blocks = np.arange(np.floor(-60 / BLOCK_M), np.ceil(60 / BLOCK_M) + 1) * BLOCK_M
    for x, y, radius, low, high in CYLINDERS:
        for block in blocks:
            away_x = block + x - ego_x
            ahead = away_x * np.cos(azimuth) + y * np.sin(azimuth)
            inside = radius**2 - (away_x**2 + y**2 - ahead**2)
            hit = np.where((inside > 0) & (ahead > 0), ahead - np.sqrt(inside.clip(0)), np.inf)
            _take_nearer(nearest, hit, slope, low, high)
    return nearest


def _take_nearer(
    nearest: NDArray[np.float64],
    hit: NDArray[np.float64],
    slope: NDArray[np.float64],
    low_m: float,
    high_m: float,
) -> None:
    """Put a hit (columns,) into `nearest` where it is nearer and between two heights."""
    column = np.flatnonzero(np.isfinite(hit))
    height = SENSOR_HEIGHT_M + hit[column, None] * slope
    taken = (height > low_m) & (height < high_m) & (hit[column, None] < nearest[column])
    nearest[column] = np.where(taken, hit[column, None], nearest[column])


def _image(number: int) -> CompressedImage:
    width, height = IMAGE_SIZE
    draw = np.random.default_rng(number)
    coarse = draw.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)
    smooth = cv2.resize(coarse, IMAGE_SIZE, interpolation=cv2.INTER_CUBIC)
    grain = draw.integers(0, 12, smooth.shape, dtype=np.uint8)
    _, jpeg = cv2.imencode('.jpg', cv2.add(smooth, grain), [cv2.IMWRITE_JPEG_QUALITY, 90])
    message = CompressedImage(format='bgr8; jpeg compressed bgr8')
    message.data = array('B', jpeg.tobytes())
    return message


def _camera_info() -> CameraInfo:
    width, height = IMAGE_SIZE
    focal = width / 2
    message = CameraInfo(height=height, width=width, distortion_model='plumb_bob', d=[0.0] * 5)
    message.k = [focal, 0.0, width / 2, 0.0, focal, height / 2, 0.0, 0.0, 1.0]
    message.p = [focal, 0.0, width / 2, 0.0, 0.0, focal, height / 2, 0.0, 0.0, 0.0, 1.0, 0.0]
    return stamped(message, START_NS, 'camera')


@dataclass(frozen=True)
class Recording:
    """The messages of a bag, as the node gets them; the first 100 sweeps at most."""

    bag: Bag
    setup: BagSetup
    matched: tuple[Sweep, ...]

    @classmethod
    def read(cls, bag: Bag, setup: BagSetup) -> Recording:
        """Read and match.

        Raises:
            ValueError: There is no readable sweep.

        """
        matched = tuple(islice(_matched(bag, setup), MOST_BAG_SWEEPS))
        if not matched:
            msg = f'{bag.path} has no readable sweep on {setup.points}'
            raise ValueError(msg)
        return cls(bag, setup, matched)

    def drives(self) -> list[BagDrive]:
        """As it is; where nothing moves the LiDAR, also with an assumed motion."""
        as_it_is = BagDrive(self, assume_motion=False)
        return [as_it_is] if as_it_is.moves else [as_it_is, BagDrive(self, assume_motion=True)]


class BagDrive:
    """The sweeps of a recording, from the beginning again and again."""

    def __init__(self, recording: Recording, *, assume_motion: bool) -> None:
        bag, setup = recording.bag, recording.setup
        self.matched = recording.matched
        self.points = int(np.median([cloud.height * cloud.width for cloud, _ in self.matched]))
        self.sweeps: int | None = len(self.matched)
        stamps = [stamp_ns(cloud) for cloud, _ in self.matched]
        transforms = TransformBuffer(keep_s=3600.0)
        extrinsics = load_extrinsics(setup.extrinsics) if setup.extrinsics else None
        self.assembler = FrameAssembler(FrameConfig(), transforms, extrinsics, setup.images)
        static = static_transforms(bag)
        transforms.add_tf_message(SimpleNamespace(transforms=static), static=True)
        frame_id = self.matched[0][0].header.frame_id
        if assume_motion:
            parent = {entry.child_frame_id: entry.header.frame_id for entry in static}
            root = frame_id
            for _ in parent:
                root = parent.get(root, root)
            for at_ns in (*stamps, stamps[-1] + 2 * PERIOD_NS):
                x = SPEED * (at_ns - stamps[0]) / 1e9
                transforms.add_odometry(odometry(at_ns, x, root))
        else:
            _add_recorded_motion(transforms, bag, setup, stamps[-1] + 10**9)
        self.moves = bool(transforms.moving_ancestors(frame_id))
        self.ego_motion = 'assumed' if assume_motion else 'recorded' if self.moves else 'none'
        for camera, topic in enumerate(setup.camera_infos):
            info = next(readable(bag, topic), None)
            if info is not None:
                self.assembler.set_camera_info(info, camera)

    def stream(self) -> Iterator[tuple[PointCloud2, tuple[Any, ...], bool]]:
        """Yield sweep, images, and whether the sweep continues no earlier one."""
        while True:
            for number, (points, images) in enumerate(self.matched):
                yield points, images, number == 0


def _add_recorded_motion(
    transforms: TransformBuffer, bag: Bag, setup: BagSetup, end_ns: int
) -> None:
    for entry in moving_transforms(bag):
        if stamp_ns(entry) > end_ns:
            break
        transforms.add_tf_message(SimpleNamespace(transforms=[entry]), static=False)
    for message in readable(bag, setup.odometry) if setup.odometry in bag.topics else ():
        if stamp_ns(message) > end_ns:
            break
        transforms.add_odometry(message)


def _matched(bag: Bag, setup: BagSetup) -> Iterator[Sweep]:
    """Yield each sweep with an image or None of every camera, as the node's synchroniser does."""
    now_ns = bag.start_ns
    ready: deque[Sweep] = deque()
    config = SyncConfig(offsets_s=(0.0,) * len(setup.images))
    synchroniser = SweepSynchroniser(
        config,
        steady_ns=lambda: now_ns,
        on_drop=lambda points, cause: note(
            bag.problems, f'the sweep at {stamp_ns(points)} ns is left out ({cause})'
        ),
        on_reset=lambda sentence: note(bag.problems, sentence),
        on_error=lambda error: note(bag.problems, repr(error)),
    )
    synchroniser.registerCallback(lambda points, *images: ready.append((points, images)))
    for recorded in bag.messages((setup.points, *setup.images)):
        now_ns = recorded.bag_stamp_ns
        synchroniser.poll()
        message = deserialize_message(recorded.raw, message_type(recorded.msgtype))
        if recorded.topic == setup.points:
            synchroniser.add_sweep(message)
        else:
            synchroniser.add_image(message, camera=setup.images.index(recorded.topic))
        while ready:
            yield ready.popleft()
    now_ns += round(config.timeout_s * 1e9)
    synchroniser.poll()
    yield from ready
