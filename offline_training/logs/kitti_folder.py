# SPDX-License-Identifier: Apache-2.0
"""KITTI-style folders: rows of the index, and their files as messages.

velodyne/000000.bin      x y z intensity, float32
image_2/000000.png       rectified; image_3 likewise
calib.txt                P2, P3 (3 x 4 projections of camera 0's frame) and Tr (camera 0 from LiDAR)
times.txt                s, a line for each sweep
poses.txt                camera 0 in its first frame, 3 x 4, a line for each sweep
labels/000000.label      SemanticKITTI: class in the lower 16 of 32 bits
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cross4d_jepa_ros.bags import BadBag
from cross4d_jepa_ros.sensing.cameras import BadCalibration, CameraModel
from cross4d_jepa_ros.sensing.extrinsics import CameraExtrinsics, Extrinsics
from cross4d_jepa_ros.sensing.frames import GROUND_SWEEPS, FrameAssembler, FrameConfig
from cross4d_jepa_ros.sensing.images import MalformedImage, decode_image
from cross4d_jepa_ros.sensing.poses import invert, quaternion_from_matrix, rigid
from cross4d_jepa_ros.sensing.transforms import TransformBuffer
from offline_training.logs.rows import LogFindings, Message, RowBuilder
from offline_training.logs.table import IndexedSweep, Shot, log_name

POINTS, LABELS, CAMERAS = 'velodyne', 'labels', ('image_2', 'image_3')
# Where times.txt is missing: that of the sensor.
PERIOD_NS = 100_000_000
# Added to all times: they begin at zero, by which ROS means that none is set.
START_NS = 1_000_000_000
_POINT_BYTES = 16


def is_kitti(path: Path) -> bool:
    """Tell a KITTI folder from a bag."""
    return (path / POINTS).is_dir()


class KittiFolder:
    """One drive.

    Attributes:
        numbers: Of its sweeps, ascending.
        cameras: Those of the image folders that are there.
        problems: What is missing or damaged; grows while it is read.

    Raises:
        BadBag: It holds no sweep.

    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[str] = []
        self._files = {
            folder: {int(file.stem): file for file in files if file.stem.isdecimal()}
            for folder in (POINTS, LABELS, *CAMERAS)
            if (files := sorted((path / folder).glob('*.*')))
        }
        self.numbers = sorted(self._files.get(POINTS, {}))
        if not self.numbers:
            msg = f'{path / POINTS} holds no numbered .bin file'
            raise BadBag(msg)
        self.cameras = tuple(camera for camera in CAMERAS if self._files.get(camera))
        self._times = self._lines('times.txt', 1, 'sweeps are taken to be 0.1 s apart')
        self._poses = self._lines('poses.txt', 12, 'there is no ego-motion')

    def stamp_ns(self, number: int) -> int:
        """Time of a sweep and its images."""
        if number < len(self._times):
            return START_NS + round(float(self._times[number, 0]) * 1e9)
        return START_NS + number * PERIOD_NS

    def cloud(self, row: IndexedSweep) -> Any:
        """Read the sweep of a row."""
        return self.points(row.message_ns)

    def image(self, shot: Shot) -> Any:
        """Read the image of a shot."""
        return self.picture(shot.topic, shot.message_ns)

    def labels(self, row: IndexedSweep) -> NDArray[np.uint16] | None:
        """Read SemanticKITTI's class of each point; None where it does not fit the sweep."""
        raw = np.fromfile(self._files[LABELS][row.message_ns], '<u4')
        if len(raw) * _POINT_BYTES != self._files[POINTS][row.message_ns].stat().st_size:
            return None
        return (raw & 0xFFFF).astype(np.uint16)

    def close(self) -> None:
        """Nothing is kept open."""

    def has_labels(self, number: int) -> bool:
        """Whether a sweep has a label file."""
        return number in self._files.get(LABELS, {})

    def images(self, camera: str) -> int:
        """Count the images of a camera."""
        return len(self._files[camera])

    def points(self, number: int) -> SimpleNamespace:
        """Read a sweep as a PointCloud2-like message."""
        data = self._files[POINTS][number].read_bytes()
        names = ('x', 'y', 'z', 'intensity')
        count = -(-len(data) // _POINT_BYTES)  # of a file cut within a point: one too many
        return SimpleNamespace(
            header=_header(self.stamp_ns(number), POINTS),
            height=1,
            width=count,
            fields=[
                SimpleNamespace(name=name, offset=4 * place, datatype=7, count=1)
                for place, name in enumerate(names)
            ],
            is_bigendian=False,
            point_step=_POINT_BYTES,
            row_step=_POINT_BYTES * count,
            data=data,
        )

    def picture(self, camera: str, number: int) -> SimpleNamespace | None:
        """Read an image as a CompressedImage-like message; None where there is none."""
        file = self._files[camera].get(number)
        if file is None:
            return None
        return SimpleNamespace(
            header=_header(self.stamp_ns(number), camera), format='', data=file.read_bytes()
        )

    def calibrations(self) -> Extrinsics:
        """Read calib.txt; cameras that it does not place are left out and said in `problems`."""
        matrices = self._matrices()
        cameras = []
        for number, camera in enumerate(self.cameras):
            projection = matrices.get(f'P{camera[-1]}')
            if projection is None or 'Tr' not in matrices:
                continue
            try:
                cameras.append(
                    CameraExtrinsics(
                        name=f'cam{number}',
                        rostopic=camera,
                        frame_id=None,
                        camera_from_lidar=matrices['Tr'],
                        time_offset_s=0.0,
                        model=self._model(camera, projection),
                    )
                )
            except (BadCalibration, MalformedImage) as error:
                self.problems.append(f'{camera}: {error}')
        return Extrinsics(tuple(cameras), ())

    def transforms(self) -> TransformBuffer:
        """Read where the LiDAR was, from its own first frame."""
        transforms = TransformBuffer(keep_s=1e9)
        camera_from_lidar = self._matrices().get('Tr')
        if not len(self._poses) or camera_from_lidar is None:
            return transforms
        lidar_from_camera = invert(camera_from_lidar)
        for number in (number for number in self.numbers if number < len(self._poses)):
            first_from_camera = _square(self._poses[number])
            pose = lidar_from_camera @ first_from_camera @ camera_from_lidar
            transforms.add_tf_message(_tf(self.stamp_ns(number), pose), static=False)
        if transforms.rejected:
            self.problems.append(f'poses.txt: {transforms.last_rejection}')
        return transforms

    def _model(self, camera: str, projection: NDArray[np.float64]) -> CameraModel:
        first = self.picture(camera, min(self._files[camera]))
        height, width = decode_image(first).shape[:2]
        info = SimpleNamespace(
            width=width,
            height=height,
            p=projection[:3].reshape(-1),
            roi=SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0),
            binning_x=0,
            binning_y=0,
        )
        return CameraModel.from_camera_info(info, rectified=True)

    def _matrices(self) -> dict[str, NDArray[np.float64]]:
        """Read calib.txt as 4 x 4 matrices by name, Tr made exactly rigid."""
        matrices: dict[str, NDArray[np.float64]] = {}
        file = self.path / 'calib.txt'
        if not file.is_file():
            self._note('calib.txt is missing: neither images nor poses can be placed')
            return matrices
        for line in file.read_text(errors='replace').splitlines():
            name, _, numbers = line.partition(':')
            name = 'Tr' if name.strip() == 'Tr_velo_to_cam' else name.strip()
            try:
                matrix = _square(np.array(numbers.split(), np.float64))
                matrices[name] = rigid(matrix) if name == 'Tr' else matrix
            except ValueError as error:
                if name in ('Tr', 'P2', 'P3'):
                    self._note(f'calib.txt: {name} is no 3 x 4 matrix ({error})')
        for name in ('Tr', *(f'P{camera[-1]}' for camera in self.cameras)):
            if name not in matrices:
                self._note(f'calib.txt has no {name}: images or poses cannot be placed')
        return matrices

    def _lines(self, name: str, width: int, without: str) -> NDArray[np.float64]:
        """Read a file of `width` numbers a line, as far as it can be read."""
        rows = []
        file = self.path / name
        if not file.is_file():
            self._note(f'{name} is missing: {without}')
            return np.empty((0, width))
        for line in file.read_text(errors='replace').splitlines():
            try:
                rows.append(np.array(line.split(), np.float64).reshape(width))
            except ValueError:
                self._note(f'{name}: line {len(rows) + 1} is not {width} numbers, nor read on')
                break
        if rows and len(rows) <= self.numbers[-1]:
            self._note(
                f'{name} has {len(rows)} lines, the last sweep is {self.numbers[-1]}: {without}'
            )
        return np.array(rows).reshape(-1, width)

    def _note(self, sentence: str) -> None:
        if sentence not in self.problems:
            self.problems.append(sentence)


def index_kitti(
    path: Path, stride: int, folder: Path, on_sweeps: Callable[[int, int], None]
) -> LogFindings:
    """Make the rows of a KITTI folder; see `index_bag`.

    Raises:
        BadBag: It holds no sweep.

    """
    log = KittiFolder(path)
    assembler = FrameAssembler(
        FrameConfig(max_extrapolation_s=0.0), log.transforms(), log.calibrations(), log.cameras
    )
    builder = RowBuilder(log_name(path, folder), POINTS, log.cameras, assembler)
    for camera in builder.findings.cameras:
        camera.images = log.images(camera.topic)
    total = -(-len(log.numbers) // stride)
    for place, number in enumerate(log.numbers):
        if place % stride == 0:
            pictures = [log.picture(camera, number) for camera in log.cameras]
            builder.add(
                Message(log.points(number), number),
                [None if picture is None else Message(picture, number) for picture in pictures],
                [None if picture is None else 0 for picture in pictures],
                LABELS if log.has_labels(number) else '',
            )
            on_sweeps(place // stride + 1, total)
        elif place < GROUND_SWEEPS:
            builder.settle(log.points(number))
    findings = builder.finish()
    findings.problems += log.problems
    return findings


def _square(numbers: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Put the fourth row below 12 numbers."""
    return np.vstack((np.reshape(numbers, (3, 4)), (0.0, 0.0, 0.0, 1.0)))


def _header(at_ns: int, frame_id: str) -> SimpleNamespace:
    sec, nanosec = divmod(at_ns, 1_000_000_000)
    return SimpleNamespace(stamp=SimpleNamespace(sec=sec, nanosec=nanosec), frame_id=frame_id)


def _tf(at_ns: int, fixed_from_lidar: NDArray[np.float64]) -> SimpleNamespace:
    translation = SimpleNamespace(**dict(zip('xyz', fixed_from_lidar[:3, 3], strict=True)))
    turn = quaternion_from_matrix(fixed_from_lidar)
    transform = SimpleNamespace(
        translation=translation, rotation=SimpleNamespace(**dict(zip('xyzw', turn, strict=True)))
    )
    stamped = SimpleNamespace(
        header=_header(at_ns, 'odom'), child_frame_id=POINTS, transform=transform
    )
    return SimpleNamespace(transforms=[stamped])
