# SPDX-License-Identifier: Apache-2.0
"""What the node did with each sweep, line by line, so that it can be done again to the same bytes.

One JSON object a line: one about the node whenever it is configured (`"kind": "run"`), then one for
each sweep in the order in which they were worked on (`"kind": "sweep"`): all of its frame that is
not in the messages themselves, the settings that may change while running, and SHA-256 digests of
the answer. A line is one write, so that a killed node leaves at most one torn line. Each ends with
its checksum, and a sweep's tells those of the lines that it builds on: that of its run, and that
with the classes that had been taught.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cross4d_jepa_ros import __version__
from cross4d_jepa_ros.model.prototypes import Prototypes
from cross4d_jepa_ros.pipeline import Perception, Pipeline
from cross4d_jepa_ros.sensing.frames import CameraView, SensorFrame
from cross4d_jepa_ros.sensing.point_clouds import CloudConfig

# Raised by every change of what the lines hold.
VERSION = 2
CHECKSUM = b',"crc":"'
ANSWERS = (
    'class_id',
    'probability',
    'token_xyz',
    'token_embedding',
    'embedding_rgb',
    'frame_embedding',
)


@dataclass(frozen=True)
class Settings:
    """What may change while the pipeline runs; see `Pipeline`."""

    probability_threshold: float
    class_thresholds: Mapping[str, float]
    answers_unknown: bool
    prototypes: Prototypes

    @staticmethod
    def of(pipeline: Pipeline) -> Settings:
        """Read them off a pipeline."""
        return Settings(
            pipeline.probability_threshold,
            pipeline.class_thresholds,
            pipeline.answers_unknown,
            pipeline.prototypes,
        )

    def apply(self, pipeline: Pipeline) -> None:
        """Give them to a pipeline."""
        pipeline.probability_threshold = self.probability_threshold
        pipeline.class_thresholds = dict(self.class_thresholds)
        pipeline.answers_unknown = self.answers_unknown
        pipeline.prototypes = self.prototypes


@dataclass(frozen=True)
class LoggedRun:
    """One configured life of the node.

    Attributes:
        threads: CPU threads of PyTorch.
        cloud: How clouds were read.
        points: Topic of the sweeps.
        images: Of each camera.

    """

    model_sha256: str
    package_version: str
    device: str
    precision: str
    threads: int
    cloud: CloudConfig
    points: str
    images: tuple[str, ...]


class FrameLog:
    """Appends to a file. A disk that refuses ends the log, not the node."""

    def __init__(self, path: Path) -> None:
        """Open the file, behind what it holds already.

        Args:
            path: Its folder is made.

        Raises:
            OSError: It cannot be opened.

        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_fifo():  # opening it waits for a reader
                raise OSError(errno.EINVAL, 'is a pipe: give a file')
            self._file = path.open('ab', buffering=0)
            self._torn = _ends_within_a_line(path)
        except OSError as error:
            raise OSError(error.errno, f'frame_log: {error.strerror}', str(path)) from error
        self._path = path
        self._broken = False
        self._reset: str | None = None
        self._taught: Prototypes | None = None
        self._run = self._lesson = ''

    def begin(self, run: LoggedRun) -> str:
        """Write the line of a run; returns as `add`."""
        self._taught = None
        line = _line({'kind': 'run', 'version': VERSION, **asdict(run)})
        self._run = checksum(line)
        return self._append(line)

    def reset(self, reason: str) -> None:
        """Note that the memory was emptied before the next sweep."""
        self._reset = reason

    def add(
        self,
        frame: SensorFrame,
        images_ns: Sequence[int | None],
        perception: Perception | None,
        settings: Settings,
    ) -> str:
        """Write the line of a sweep.

        Args:
            frame: What the pipeline was given.
            images_ns: Header stamp of the image chosen for each camera.
            perception: Its answer; None where the step failed, or it is not known whether it is
                of these settings.
            settings: That it answered with.

        Returns:
            Why nothing more is logged, once; else empty.

        """
        knots = frame.stamp_from_knot
        record = {
            'kind': 'sweep',
            'stamp_ns': frame.stamp_ns,
            'frame_id': frame.sweep.frame_id,
            'reset': self._reset,
            'cleared': '' if perception is None else perception.reset,
            'images_ns': list(images_ns),
            'base_from_sensor': _numbers(frame.base_from_sensor),
            'fixed_from_base': _numbers(frame.fixed_from_base),
            'stamp_from_knot': None if knots is None else _base64(knots),
            'intensity_ceiling': frame.sweep.intensity_ceiling,
            'views': [_view(view) for view in frame.views],
            'probability_threshold': settings.probability_threshold,
            'class_thresholds': dict(settings.class_thresholds),
            'answers_unknown': settings.answers_unknown,
            'digests': digests(perception),
        }
        self._reset = None
        if settings.prototypes is not self._taught:
            self._taught = settings.prototypes
            record['taught'] = _taught(settings.prototypes)
            self._lesson = checksum(json.dumps(record['taught']).encode())
        return self._append(_line(record | {'run': self._run, 'lesson': self._lesson}))

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _append(self, line: bytes) -> str:
        if self._broken:
            return ''
        rest = memoryview(b'\n' + line if self._torn else line)
        self._torn = False
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except (OSError, ValueError) as error:  # ValueError: it was closed
            self._broken = True
            return f'frame_log: {self._path} cannot be written ({error}): logging has ended'
        return ''


def checksum(content: bytes) -> str:
    """CRC-32 as eight hexadecimal digits."""
    return f'{zlib.crc32(content):08x}'


def digests(perception: Perception | None) -> dict[str, str]:
    """SHA-256 of the bytes of each part of an answer that was computed."""
    parts = {name: getattr(perception, name, None) for name in ANSWERS}
    return {
        name: hashlib.sha256(np.ascontiguousarray(part).data).hexdigest()
        for name, part in parts.items()
        if part is not None
    }


def run_of(pipeline: Pipeline, cloud: CloudConfig, points: str, images: Sequence[str]) -> LoggedRun:
    """Describe a node that is being configured."""
    return LoggedRun(
        model_sha256=pipeline.model_sha256,
        package_version=__version__,
        device=str(pipeline.device),
        precision=pipeline.precision,
        threads=torch.get_num_threads(),
        cloud=cloud,
        points=points,
        images=tuple(images),
    )


def _line(record: Mapping[str, Any]) -> bytes:
    content = json.dumps(record, separators=(',', ':')).encode()[:-1]
    return content + CHECKSUM + checksum(content).encode() + b'"}\n'


def _ends_within_a_line(path: Path) -> bool:
    with path.open('rb') as file:
        if not file.seek(0, 2):
            return False
        file.seek(-1, 2)
        return file.read(1) != b'\n'


def _view(view: CameraView) -> dict[str, Any]:
    return {
        'camera_index': view.camera_index,
        'stamp_ns': view.stamp_ns,
        'camera': asdict(view.camera),
        'camera_from_base': _numbers(view.camera_from_base),
    }


def _taught(prototypes: Prototypes) -> dict[str, Any]:
    return {
        'names': prototypes.names,
        'shape': tuple(prototypes.vectors.shape),
        'vectors': _base64(prototypes.vectors.cpu().numpy()),
        'class_of': prototypes.class_of.tolist(),
    }


def _numbers(matrix: NDArray[np.float64] | None) -> list[float] | None:
    """Write float64 so that reading gives the same bits: JSON has their shortest exact form."""
    return None if matrix is None else matrix.reshape(-1).tolist()


def _base64(values: NDArray[np.float32]) -> str:
    return base64.b64encode(values.astype('<f4').tobytes()).decode()
