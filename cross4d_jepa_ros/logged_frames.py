# SPDX-License-Identifier: Apache-2.0
"""Reads what `frame_log` wrote, and puts the frames together again."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cross4d_jepa_ros.frame_log import CHECKSUM, VERSION, LoggedRun, Settings, checksum
from cross4d_jepa_ros.model.prototypes import Prototypes
from cross4d_jepa_ros.sensing.cameras import CameraModel
from cross4d_jepa_ros.sensing.deskewing import in_base
from cross4d_jepa_ros.sensing.frames import CameraView, SensorFrame
from cross4d_jepa_ros.sensing.images import decode_image
from cross4d_jepa_ros.sensing.point_clouds import CloudConfig, CloudDecoder

# Logs without checksums: damage to those may go unseen.
_UNCHECKED_VERSION = 1


class BadFrameLog(ValueError):
    """The file is no frame log that can be read; the sentence names it."""


@dataclass(frozen=True)
class LoggedView:
    """A camera view without its image; see `CameraView`."""

    camera_index: int
    stamp_ns: int
    camera: CameraModel
    camera_from_base: NDArray[np.float64]


@dataclass(frozen=True)
class LoggedSweep:
    """One sweep that was worked on.

    Attributes:
        run: Of the node at that time.
        reset: Why the memory was emptied before; None where it was not.
        images_ns: Header stamp of the image of each camera; None where it had none.
        views: Of the images that were used.
        digests: SHA-256 of each part of the answer that was computed; empty where the step failed.

    """

    run: LoggedRun
    stamp_ns: int
    frame_id: str
    reset: str | None
    images_ns: tuple[int | None, ...]
    base_from_sensor: NDArray[np.float64]
    fixed_from_base: NDArray[np.float64] | None
    stamp_from_knot: NDArray[np.float32] | None
    intensity_ceiling: float
    views: tuple[LoggedView, ...]
    settings: Settings
    digests: Mapping[str, str]


def read_log(path: Path) -> tuple[list[LoggedSweep], int]:
    """Read a frame log.

    Returns:
        The sweeps in the order in which they were worked on, and the number of lines that are torn
        or damaged, or of sweeps that build on such a line.

    Raises:
        BadFrameLog: It holds no run, or is of another version.
        OSError: It cannot be read.

    """
    sweeps: list[LoggedSweep] = []
    run: LoggedRun | None = None
    taught: Prototypes | None = None
    run_checksum = lesson = ''
    torn = 0
    for line in path.read_bytes().split(b'\n'):
        if not line:
            continue
        try:
            content, mark, rest = line.rpartition(CHECKSUM)
            if mark and rest != checksum(content).encode() + b'"}':
                raise ValueError
            record = json.loads(line)
            kind = record['kind']
            if kind == 'run' and record['version'] not in (VERSION, _UNCHECKED_VERSION):
                msg = (
                    f'{path} has frame log version {record["version"]}, this program reads '
                    f'{VERSION}: use the package version {record["package_version"]}'
                )
                raise BadFrameLog(msg)
            if kind == 'run':
                if bool(mark) != (record['version'] == VERSION):
                    raise ValueError
                run, taught = _logged_run(record), None
                run_checksum = checksum(line + b'\n') if mark else ''
            elif run is not None:
                if record.get('run', '') != run_checksum or bool(mark) != bool(run_checksum):
                    raise ValueError
                # The first of a run has it: one without is of a line that was torn.
                if taught is None or 'taught' in record:
                    taught = _prototypes(record['taught'])
                    lesson = checksum(json.dumps(record['taught']).encode()) if mark else ''
                if record.get('lesson', '') != lesson:
                    raise ValueError
                sweeps.append(_logged_sweep(run, record, taught))
        except BadFrameLog:
            raise
        except (
            ValueError,
            LookupError,
            TypeError,
            ArithmeticError,
            AttributeError,
            RecursionError,
        ):
            torn += 1
    if run is None:
        msg = f'{path} is no frame log: it has no line about the node'
        raise BadFrameLog(msg)
    return sweeps, torn


def rebuilt(logged: LoggedSweep, points: Any, images: Mapping[int, Any]) -> SensorFrame:
    """Put a frame together again.

    Args:
        logged: The sweep.
        points: Its PointCloud2.
        images: Message of each camera that has a view, by its index.

    Raises:
        MalformedCloud: It is not the message that the node had.
        MalformedImage: Likewise.

    """
    decoder = CloudDecoder(logged.run.cloud, intensity_ceiling=logged.intensity_ceiling)
    sweep = decoder.decode(points)
    views = tuple(
        CameraView(
            view.camera_index,
            decode_image(images[view.camera_index]),
            view.stamp_ns,
            view.camera,
            view.camera_from_base,
        )
        for view in logged.views
    )
    return SensorFrame(
        stamp_ns=logged.stamp_ns,
        sweep=sweep,
        xyz_base=in_base(sweep, logged.base_from_sensor, logged.stamp_from_knot),
        base_from_sensor=logged.base_from_sensor,
        fixed_from_base=logged.fixed_from_base,
        views=views,
        stamp_from_knot=logged.stamp_from_knot,
    )


def _matrix(numbers: Sequence[float] | None) -> NDArray[np.float64] | None:
    return None if numbers is None else np.array(numbers, np.float64).reshape(4, 4)


def _floats(text: str | None, shape: tuple[int, ...]) -> NDArray[np.float32] | None:
    if text is None:
        return None
    return np.frombuffer(base64.b64decode(text), '<f4').reshape(shape).astype(np.float32)


def _logged_run(record: Mapping[str, Any]) -> LoggedRun:
    fields = {k: v for k, v in record.items() if k not in ('kind', 'version', 'crc')}
    return LoggedRun(
        **fields | {'cloud': CloudConfig(**record['cloud']), 'images': tuple(record['images'])}
    )


def _logged_sweep(run: LoggedRun, record: Mapping[str, Any], taught: Prototypes) -> LoggedSweep:
    base_from_sensor = _matrix(record['base_from_sensor'])
    assert base_from_sensor is not None
    return LoggedSweep(
        run=run,
        stamp_ns=record['stamp_ns'],
        frame_id=record['frame_id'],
        reset=record['reset'],
        images_ns=tuple(record['images_ns']),
        base_from_sensor=base_from_sensor,
        fixed_from_base=_matrix(record['fixed_from_base']),
        stamp_from_knot=_floats(record['stamp_from_knot'], (-1, 3, 4)),
        intensity_ceiling=record['intensity_ceiling'],
        views=tuple(_logged_view(view) for view in record['views']),
        settings=Settings(
            record['probability_threshold'],
            record['class_thresholds'],
            record['answers_unknown'],
            taught,
        ),
        digests=record['digests'],
    )


def _prototypes(record: Mapping[str, Any]) -> Prototypes:
    vectors = _floats(record['vectors'], tuple(record['shape']))
    assert vectors is not None
    class_of = torch.tensor(record['class_of'], dtype=torch.int64)
    return Prototypes(tuple(record['names']), torch.from_numpy(vectors), class_of)


def _logged_view(record: Mapping[str, Any]) -> LoggedView:
    camera = dict(record['camera'])
    for name in ('coefficients', 'translation'):
        camera[name] = tuple(camera[name])
    pose = _matrix(record['camera_from_base'])
    assert pose is not None
    return LoggedView(record['camera_index'], record['stamp_ns'], CameraModel(**camera), pose)
