# SPDX-License-Identifier: Apache-2.0
"""Puts a sweep, its images, the calibration and the ego-motion together into one SensorFrame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cross4d_jepa_ros.sensing.cameras import BadCalibration, CameraModel
from cross4d_jepa_ros.sensing.deskewing import DESKEW_KNOTS, in_base
from cross4d_jepa_ros.sensing.extrinsics import CameraExtrinsics, Extrinsics
from cross4d_jepa_ros.sensing.ground import estimate_ground_z
from cross4d_jepa_ros.sensing.images import MalformedImage, decode_image
from cross4d_jepa_ros.sensing.point_clouds import (
    CloudConfig,
    CloudDecoder,
    Sweep,
    cloud_header,
    header_fault,
    stamp_ns,
)
from cross4d_jepa_ros.sensing.poses import invert, transform_points
from cross4d_jepa_ros.sensing.transforms import TransformBuffer, TransformError

FIXED_FRAMES = ('odom', 'map', 'world')
GROUND_SWEEPS = 10
# REP-103: an optical frame looks along z with x to the right; bodies look along x with z up.
BODY_FROM_OPTICAL = np.array(
    [[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]], dtype=np.float64
)


class NoTransform(LookupError):
    """The pose of the sensor is not known; the sentence names the frames and the knob."""


@dataclass(frozen=True)
class FrameConfig:
    """How sweeps are brought into the coordinates that the network sees."""

    cloud: CloudConfig = CloudConfig()
    base_frame: str = ''
    base_height_m: float | None = None
    fixed_frame: str = ''
    max_extrapolation_s: float = 0.15
    deskew: bool = True


@dataclass(frozen=True)
class CameraView:
    """One image with everything needed to find the pixel of a point.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        camera_from_base: (4, 4); from the base frame at the sweep's stamp to the camera at the
            image's stamp, so that it contains the ego-motion between the two.

    """

    camera_index: int
    image: NDArray[np.uint8]
    stamp_ns: int
    camera: CameraModel
    camera_from_base: NDArray[np.float64]


@dataclass(frozen=True)
class SensorFrame:
    """What the pipeline takes.

    Attributes:
        xyz_base: (N, 3) m; the sweep's points at `stamp_ns`, motion within the sweep undone, in
            the gravity-aligned base frame with the ground near z = 0.
        base_from_sensor: (4, 4), the shift to the ground included.
        fixed_from_base: (4, 4) pose at `stamp_ns`; None without ego-motion.
        stamp_from_knot: (K, 3, 4) how the motion was undone (see `deskewed` in `deskewing.py`);
            None where it was not.

    """

    stamp_ns: int
    sweep: Sweep
    xyz_base: NDArray[np.float32]
    base_from_sensor: NDArray[np.float64]
    fixed_from_base: NDArray[np.float64] | None
    views: tuple[CameraView, ...]
    stamp_from_knot: NDArray[np.float32] | None = None


class FrameAssembler:
    """Turns messages (live or from a bag, duck-typed) into SensorFrames.

    Not thread-safe but for `set_camera_info`: one thread assembles.

    Attributes:
        notes: What is wrong with an input that did not stop the frame: cause to sentence, as of
            the last frame. Keys: `image{i}`, `ego_motion`, `deskew`, `ground`, and the decoder's.
        ego_motion: `tf`, `odometry` or `none`, as of the last frame.

    """

    def __init__(
        self,
        config: FrameConfig,
        transforms: TransformBuffer,
        extrinsics: Extrinsics | None = None,
        image_topics: Sequence[str] = (),
    ) -> None:
        """Prepare for one sensor set.

        Args:
            config: Frames and units.
            transforms: Fed by its owner; the static transforms of `extrinsics` are added here.
            extrinsics: Calibrations that win over CameraInfo and TF.
            image_topics: Topic of each camera: pairs it with the entry of `extrinsics` of the same
                `rostopic` (else of the same position), and says whether its images are rectified.

        """
        self._config = config
        self._transforms = transforms
        self._decoder = CloudDecoder(config.cloud)
        self._rectified = [is_rectified(topic) for topic in image_topics]
        self._calibrations = calibrations(extrinsics, image_topics)
        self._unused = [
            entry.rostopic or entry.name
            for entry in (extrinsics.cameras if extrinsics else ())
            if entry not in self._calibrations.values()
        ]
        self._camera_infos: dict[int, Any] = {}
        self._cameras: dict[int, tuple[Any, CameraModel]] = {}
        self._ground: list[float] = []
        self._fixed_frame = ''
        self._fixed_for = ''
        self.notes: dict[str, str] = {}
        self.ego_motion = 'none'
        for transform in extrinsics.transforms if extrinsics else ():
            transforms.add_static(transform.parent, transform.child, transform.parent_from_child)

    def set_camera_info(self, message: Any, camera: int) -> None:
        """Keep the newest CameraInfo of a camera."""
        self._camera_infos[camera] = message

    def time_offset_ns(self, camera: int) -> int:
        """Say what the calibration adds to the stamps of a camera's images."""
        calibration = self._calibrations.get(camera)
        return int(calibration.time_offset_s * 1e9) if calibration is not None else 0

    def reset(self) -> None:
        """Forget what was learnt from earlier sweeps (time jumped)."""
        self._fixed_frame = ''

    def assemble(self, points: Any, images: Sequence[Any | None], *, views: bool) -> SensorFrame:
        """Build the frame of one sweep.

        Args:
            points: PointCloud2-like message.
            images: Image- or CompressedImage-like message of each camera, None where missing.
            views: Whether anybody needs the images decoded.

        Raises:
            MalformedCloud: The cloud's header and data do not fit together.
            NoTransform: `base_frame` is set but its transform to the sensor is not known.

        """
        self.notes = {}
        stamp, frame_id = cloud_header(points)
        # First: from a sweep that is dropped, the decoder must not learn a range of intensities.
        upright_from_sensor = self._upright_from_sensor(frame_id, stamp)
        sweep = self._decoder.decode(points)
        self.notes.update(self._decoder.notes)
        self._find_fixed_frame(sweep)
        base_from_sensor = upright_from_sensor.copy()
        base_from_sensor[2, 3] += self._height(sweep, upright_from_sensor)
        stamp_from_knot = self._motion(sweep, base_from_sensor)
        fixed_from_base = None
        if self._fixed_frame:
            fixed_from_base = self._pose(sweep, base_from_sensor, np.array([sweep.stamp_ns]))
        return SensorFrame(
            stamp_ns=sweep.stamp_ns,
            sweep=sweep,
            xyz_base=in_base(sweep, base_from_sensor, stamp_from_knot),
            base_from_sensor=base_from_sensor,
            fixed_from_base=None if fixed_from_base is None else fixed_from_base[0],
            views=tuple(self._views(sweep, images, base_from_sensor)) if views else (),
            stamp_from_knot=stamp_from_knot,
        )

    def _upright_from_sensor(self, frame_id: str, stamp: int) -> NDArray[np.float64]:
        base = self._config.base_frame
        if not base:
            optical = frame_id.endswith('optical_frame')
            return BODY_FROM_OPTICAL.copy() if optical else np.eye(4)
        try:
            return self._transforms.lookup(
                base, frame_id, stamp, max_extrapolation_ns=self._extrapolation_ns
            )
        except TransformError as error:
            msg = (
                f'no transform from {frame_id!r} to base_frame {base!r}: {error}; publish it '
                'on /tf_static, give extrinsics_file, or leave base_frame empty'
            )
            raise NoTransform(msg) from error

    @property
    def _extrapolation_ns(self) -> int:
        return int(self._config.max_extrapolation_s * 1e9)

    def _height(self, sweep: Sweep, upright_from_sensor: NDArray[np.float64]) -> float:
        if self._config.base_height_m is not None:
            return self._config.base_height_m
        if len(self._ground) < GROUND_SWEEPS:
            xyz = transform_points(upright_from_sensor, sweep.xyz) - upright_from_sensor[:3, 3]
            found = estimate_ground_z(xyz.astype(np.float32))
            if found is not None:
                self._ground.append(-found - float(upright_from_sensor[2, 3]))
        if not self._ground:
            self.notes['ground'] = (
                'no ground found below the sensor; labels assume it at the frame origin: '
                'set base_height (and base_frame where the sensor is tilted)'
            )
            return 0.0
        return float(np.median(self._ground))

    def _find_fixed_frame(self, sweep: Sweep) -> None:
        """Settle on a frame in which the sensor moves, once there is one."""
        chosen = self._config.fixed_frame
        if not self._fixed_frame or sweep.frame_id != self._fixed_for:
            self._fixed_for = sweep.frame_id
            moving = self._transforms.moving_ancestors(sweep.frame_id)
            wanted = [chosen] if chosen else [*FIXED_FRAMES, *moving[-1:]]
            self._fixed_frame = next((frame for frame in wanted if frame in moving), '')
        if not self._fixed_frame:
            self.ego_motion = 'none'
            self.notes['ego_motion'] = (
                f'no ego-motion: nothing on /tf or ~/input/odometry moves {sweep.frame_id!r}'
                + (f' in {chosen!r}; set fixed_frame' if chosen else '')
                + (f' ({self._transforms.last_rejection})' if self._transforms.rejected else '')
            )

    def _pose(
        self,
        sweep: Sweep,
        base_from_sensor: NDArray[np.float64],
        stamps: NDArray[np.int64],
    ) -> NDArray[np.float64] | None:
        """Look up fixed_from_base (K, 4, 4) at several times; None (and a note) without."""
        try:
            fixed_from_sensor = self._transforms.lookup_many(
                self._fixed_frame,
                sweep.frame_id,
                stamps.astype(np.int64),
                max_extrapolation_ns=self._extrapolation_ns,
            )
        except TransformError as error:
            self.ego_motion = 'none'
            self.notes['ego_motion'] = f'no ego-motion for this sweep: {error}; max_extrapolation'
            return None
        self.ego_motion = (
            self._transforms.motion_source(self._fixed_frame, sweep.frame_id) or 'none'
        )
        moved: NDArray[np.float64] = fixed_from_sensor @ invert(base_from_sensor)
        return moved

    def _motion(
        self, sweep: Sweep, base_from_sensor: NDArray[np.float64]
    ) -> NDArray[np.float32] | None:
        """Look up stamp_from_knot (K, 3, 4); None where nothing moves, or (noted) is known to."""
        offsets = sweep.time_offset_ns
        if not self._config.deskew or offsets is None or not len(offsets) or not self._fixed_frame:
            return None
        first, last = int(offsets.min()), int(offsets.max())
        if first == last == 0:
            return None
        knots = np.linspace(first, last, DESKEW_KNOTS).astype(np.int64)
        poses = self._pose(sweep, base_from_sensor, sweep.stamp_ns + np.append(knots, 0))
        if poses is None:
            self.notes['deskew'] = 'points are used as if taken at once: no ego-motion over them'
            return None
        stamp_from_knot: NDArray[np.float32] = (invert(poses[-1]) @ poses[:-1]).astype(np.float32)
        return stamp_from_knot[:, :3]

    def _views(
        self, sweep: Sweep, images: Sequence[Any | None], base_from_sensor: NDArray[np.float64]
    ) -> list[CameraView]:
        views = []
        for camera, message in enumerate(images):
            if message is None:
                continue
            try:
                views.append(self._view(sweep, camera, message, base_from_sensor))
            except (MalformedImage, BadCalibration, TransformError) as error:
                self.notes[f'image{camera}'] = str(error)
        return views

    def _view(
        self, sweep: Sweep, camera: int, message: Any, base_from_sensor: NDArray[np.float64]
    ) -> CameraView:
        image = decode_image(message)
        calibration = self._calibrations.get(camera)
        model = self._camera(camera, calibration).scaled(image.shape[1], image.shape[0])
        taken_ns = stamp_ns(message) + self.time_offset_ns(camera)
        frame = message.header.frame_id
        if fault := header_fault(taken_ns, frame):
            raise MalformedImage(fault)
        if calibration is not None:
            frame = calibration.frame_id or frame
        if calibration is not None and calibration.camera_from_lidar is not None:
            camera_from_sensor = calibration.camera_from_lidar
        else:
            try:
                camera_from_sensor = self._transforms.lookup(frame, sweep.frame_id, taken_ns)
            except TransformError as error:
                msg = (
                    f'no transform from {sweep.frame_id!r} to camera frame {frame!r}: {error}; '
                    'publish it on /tf_static or give extrinsics_file'
                )
                raise TransformError(msg, kind=error.kind) from error
        camera_from_base = camera_from_sensor @ invert(base_from_sensor)
        if self._fixed_frame and taken_ns != sweep.stamp_ns:
            poses = self._pose(sweep, base_from_sensor, np.array([taken_ns, sweep.stamp_ns]))
            if poses is not None:
                camera_from_base = camera_from_base @ invert(poses[0]) @ poses[1]
        return CameraView(camera, image, taken_ns, model, camera_from_base)

    def _camera(self, camera: int, calibration: CameraExtrinsics | None) -> CameraModel:
        if calibration is not None and calibration.model is not None:
            return calibration.model
        info = self._camera_infos.get(camera)
        if info is None:
            msg = (
                f'no CameraInfo for image{camera} yet: publish it, remap '
                f'~/input/camera_info{camera}, or give extrinsics_file'
            )
            if self._unused:
                msg += f' (the one given is for {", ".join(self._unused)})'
            raise BadCalibration(msg)
        cached = self._cameras.get(camera)
        if cached is None or cached[0] is not info:
            model = CameraModel.from_camera_info(info, rectified=self._rectified[camera])
            self._cameras[camera] = cached = (info, model)
        return cached[1]


def is_rectified(image_topic: str) -> bool:
    """Tell by its name whether a topic carries rectified images (`image_rect…`)."""
    return any(part.startswith('image_rect') for part in PurePosixPath(image_topic).parts)


def camera_info_topic(image_topic: str) -> str:
    """Name the CameraInfo topic that belongs to an image topic, by image_transport's rule."""
    base = image_topic.removesuffix('/compressed')
    return f'{base.rsplit("/", 1)[0]}/camera_info'


def calibrations(
    extrinsics: Extrinsics | None, image_topics: Sequence[str]
) -> dict[int, CameraExtrinsics]:
    """Pair cameras with the entries of a calibration file: by `rostopic`, else by position."""
    if extrinsics is None:
        return {}
    by_topic = {entry.rostopic: entry for entry in extrinsics.cameras if entry.rostopic}
    unnamed = [entry for entry in extrinsics.cameras if not entry.rostopic]
    pairs = {}
    for camera, topic in enumerate(image_topics):
        named = by_topic.get(topic) or by_topic.get(topic.removesuffix('/compressed'))
        if named is not None:
            pairs[camera] = named
        elif camera < len(unnamed):
            pairs[camera] = unnamed[camera]
    return pairs
