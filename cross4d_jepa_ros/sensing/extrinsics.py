# SPDX-License-Identifier: Apache-2.0
"""Reads and writes the calibration file: Kalibr camchain YAML, with LiDAR poses and static frames.

cam0:
  camera_model: pinhole
  intrinsics: [fu, fv, pu, pv]           # these five lines may be left out together:
  distortion_model: radtan               # then CameraInfo is used
  distortion_coeffs: [k1, k2, p1, p2]
  resolution: [width, height]
  rostopic: /camera/image_raw
  frame_id: camera_optical_frame
  T_cam_lidar: [[...], [...], [...], [0, 0, 0, 1]]
  timeshift_cam_lidar: 0.0               # s, LiDAR time = image stamp + shift
cam1:
  T_cn_cnm1: [...]                       # this camera from the one before
transforms:
  - {parent: base_link, child: lidar, translation: [x, y, z], rotation_xyzw: [x, y, z, w]}
"""

from __future__ import annotations

import difflib
import math
import re
import reprlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from cross4d_jepa_ros.files import write_atomically
from cross4d_jepa_ros.reading import BadYaml, read_yaml
from cross4d_jepa_ros.sensing.cameras import CameraModel
from cross4d_jepa_ros.sensing.poses import matrix_from_quaternion, quaternion_from_matrix, rigid

_INTRINSIC_KEYS = ('intrinsics', 'distortion_model', 'distortion_coeffs', 'resolution')
_CAMERA_KEYS = (
    'camera_model',
    *_INTRINSIC_KEYS,
    'rostopic',
    'frame_id',
    'T_cam_lidar',
    'T_cn_cnm1',
    'timeshift_cam_lidar',
)
_IGNORED_KEYS = ('T_cam_imu', 'timeshift_cam_imu', 'cam_overlaps')
_TRANSFORM_KEYS = ('parent', 'child', 'translation', 'rotation_xyzw')
# Kalibr's name or CameraInfo's -> CameraInfo's name, accepted lengths, length in the model.
_DISTORTIONS = {
    'none': ('none', (0,), 0),
    'radtan': ('plumb_bob', (4, 5), 5),
    'plumb_bob': ('plumb_bob', (4, 5), 5),
    'equidistant': ('equidistant', (4,), 4),
    'rational_polynomial': ('rational_polynomial', (8,), 8),
}


class BadExtrinsics(ValueError):
    """The calibration file cannot be used; says which file, which entry and what to give."""


@dataclass(frozen=True)
class CameraExtrinsics:
    """One camera; what the file leaves out is None and comes from CameraInfo and TF.

    Args:
        name: `cam0`, `cam1`, ...
        rostopic: Image topic.
        frame_id: Optical frame.
        camera_from_lidar: (4, 4), LiDAR to optical frame.
        time_offset_s: LiDAR time minus image stamp of the same instant.
        model: Intrinsics.
    """

    name: str
    rostopic: str | None
    frame_id: str | None
    camera_from_lidar: NDArray[np.float64] | None
    time_offset_s: float
    model: CameraModel | None


@dataclass(frozen=True)
class StaticTransform:
    """Where one frame is in another: parent_from_child, (4, 4)."""

    parent: str
    child: str
    parent_from_child: NDArray[np.float64]


@dataclass(frozen=True)
class Extrinsics:
    """The contents of a calibration file, cameras in the order of their numbers."""

    cameras: tuple[CameraExtrinsics, ...]
    transforms: tuple[StaticTransform, ...]


def load_extrinsics(path: Path | str) -> Extrinsics:
    """Reads a calibration file.

    Raises:
        BadExtrinsics: If it cannot be read or anything in it is not understood.
    """
    path = Path(path)
    try:
        return _parse(read_yaml(path))
    except BadExtrinsics as error:
        raise BadExtrinsics(f'{path}: {error}.') from None
    except BadYaml as error:
        raise BadExtrinsics(f'{path}: {error}.') from error
    except OSError as error:
        raise BadExtrinsics(f'{path}: cannot be read ({error.strerror}).') from error


def save_extrinsics(path: Path | str, extrinsics: Extrinsics) -> None:
    """Writes a calibration file that `load_extrinsics` reads back, all of it or nothing.

    Raises:
        BadExtrinsics: If a camera is not named cam0, cam1, ... or its model has a translation.
        OSError: If the file cannot be written.
    """
    path = Path(path)
    content: dict[str, Any] = {
        camera.name: _camera_content(camera) for camera in extrinsics.cameras
    }
    content['transforms'] = [
        {
            'parent': transform.parent,
            'child': transform.child,
            'translation': transform.parent_from_child[:3, 3].tolist(),
            'rotation_xyzw': quaternion_from_matrix(transform.parent_from_child).tolist(),
        }
        for transform in extrinsics.transforms
    ]
    text = yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=100)
    write_atomically(path, text)


def _camera_content(camera: CameraExtrinsics) -> dict[str, Any]:
    if not re.fullmatch(r'cam\d+', camera.name):
        raise BadExtrinsics(f"A camera is named '{camera.name}': name it cam0, cam1 and so on.")
    content: dict[str, Any] = {}
    model = camera.model
    if model is not None:
        if any(model.translation):
            raise BadExtrinsics(
                f'{camera.name}: its projection has the translation {model.translation}, which '
                'the file cannot hold: put it into camera_from_lidar.'
            )
        content['camera_model'] = 'pinhole'
        content['intrinsics'] = [float(v) for v in (model.fx, model.fy, model.cx, model.cy)]
        content['distortion_model'] = model.distortion
        content['distortion_coeffs'] = [float(value) for value in model.coefficients]
        content['resolution'] = [int(model.width), int(model.height)]
    if camera.rostopic is not None:
        content['rostopic'] = camera.rostopic
    if camera.frame_id is not None:
        content['frame_id'] = camera.frame_id
    if camera.camera_from_lidar is not None:
        content['T_cam_lidar'] = camera.camera_from_lidar.tolist()
    content['timeshift_cam_lidar'] = float(camera.time_offset_s)
    return content


def _parse(content: Any) -> Extrinsics:
    entries = _mapping(content, 'the file')
    names = [name for name in entries if re.fullmatch(r'cam\d+', name)]
    _refuse_unknown(entries, (*names, 'transforms'), 'the file', ('cam0', 'transforms'))
    cameras: list[CameraExtrinsics] = []
    previous: CameraExtrinsics | None = None
    for name in sorted(names, key=lambda name: int(name[3:])):
        before = previous if previous and int(previous.name[3:]) == int(name[3:]) - 1 else None
        previous = _camera(name, entries[name], before)
        cameras.append(previous)
    transforms = entries.get('transforms')
    if transforms is not None and not isinstance(transforms, list):
        raise BadExtrinsics(f'transforms is {reprlib.repr(transforms)}: give a list')
    return Extrinsics(
        cameras=tuple(cameras),
        transforms=tuple(_transform(i, entry) for i, entry in enumerate(transforms or ())),
    )


def _camera(name: str, content: Any, before: CameraExtrinsics | None) -> CameraExtrinsics:
    entry = _mapping(content, name)
    _refuse_unknown(entry, (*_CAMERA_KEYS, *_IGNORED_KEYS), name, _CAMERA_KEYS)
    camera_from_lidar = None
    if 'T_cam_lidar' in entry:
        camera_from_lidar = _matrix(entry, 'T_cam_lidar', name)
    elif 'T_cn_cnm1' in entry:
        camera_from_before = _matrix(entry, 'T_cn_cnm1', name)
        if before is not None and before.camera_from_lidar is not None:
            camera_from_lidar = camera_from_before @ before.camera_from_lidar
    shift = entry.get('timeshift_cam_lidar', 0.0)
    frame_id = _text(entry, 'frame_id', name)
    return CameraExtrinsics(
        name=name,
        rostopic=_text(entry, 'rostopic', name),
        frame_id=None if frame_id is None else frame_id.lstrip('/'),
        camera_from_lidar=camera_from_lidar,
        time_offset_s=_numbers([shift], (1,), f'{name}.timeshift_cam_lidar')[0],
        model=_model(name, entry),
    )


def _model(name: str, entry: dict[str, Any]) -> CameraModel | None:
    kind = entry.get('camera_model', 'pinhole')
    if kind != 'pinhole':
        raise BadExtrinsics(f'{name}.camera_model is {reprlib.repr(kind)}: only pinhole is known')
    given = [key for key in _INTRINSIC_KEYS if key in entry]
    if not given:
        return None
    distortion = entry.get('distortion_model', 'none')
    if not isinstance(distortion, str) or distortion not in _DISTORTIONS:
        raise BadExtrinsics(
            f'{name}.distortion_model is {reprlib.repr(distortion)}: use {", ".join(_DISTORTIONS)}'
        )
    missing = [key for key in ('intrinsics', 'resolution') if key not in given]
    if missing:
        raise BadExtrinsics(f'{name} has {given[0]} but no {missing[0]}: give both or neither')
    model_name, lengths, padded = _DISTORTIONS[distortion]
    coefficients = _numbers(
        entry.get('distortion_coeffs', []), lengths, f'{name}.distortion_coeffs of {distortion}'
    )
    fx, fy, cx, cy = _numbers(entry['intrinsics'], (4,), f'{name}.intrinsics')
    width, height = _numbers(entry['resolution'], (2,), f'{name}.resolution')
    if min(fx, fy) <= 0:
        raise BadExtrinsics(f'{name}.intrinsics has the focal lengths {fx} and {fy}: calibrate it')
    if min(width, height) < 1 or width % 1 or height % 1:
        raise BadExtrinsics(f'{name}.resolution is {width} x {height}: give whole pixels')
    return CameraModel(
        width=int(width),
        height=int(height),
        fx=fx,
        fy=fy,
        cx=cx,
        cy=cy,
        distortion=model_name,
        coefficients=(*coefficients, *[0.0] * (padded - len(coefficients))),
    )


def _transform(index: int, content: Any) -> StaticTransform:
    place = f'transforms[{index}]'
    entry = _mapping(content, place)
    _refuse_unknown(entry, _TRANSFORM_KEYS, place, _TRANSFORM_KEYS)
    for key in _TRANSFORM_KEYS:
        if key not in entry:
            raise BadExtrinsics(f'{place} has no {key}')
    parent, child = ((_text(entry, key, place) or '').lstrip('/') for key in ('parent', 'child'))
    if not parent or not child or parent == child:
        raise BadExtrinsics(f"{place} goes from '{parent}' to '{child}': name two frames")
    translation = _numbers(entry['translation'], (3,), f'{place}.translation')
    xyzw = np.array(_numbers(entry['rotation_xyzw'], (4,), f'{place}.rotation_xyzw'))
    norm = float(np.linalg.norm(xyzw))
    if abs(norm - 1) > 1e-2:
        raise BadExtrinsics(f'{place}.rotation_xyzw has norm {norm:.3g}: give a unit quaternion')
    return StaticTransform(parent, child, matrix_from_quaternion(translation, xyzw / norm))


def _mapping(content: Any, place: str) -> dict[str, Any]:
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise BadExtrinsics(f'{place} is {reprlib.repr(content)}: give named entries')
    return content


def _refuse_unknown(
    entry: dict[str, Any], accepted: Collection[str], place: str, suggested: Collection[str]
) -> None:
    for key in entry:
        if key not in accepted:
            (near,) = difflib.get_close_matches(key[:100], suggested, n=1, cutoff=0)
            raise BadExtrinsics(f'{place} has the unknown entry {reprlib.repr(key)}: is it {near}')


def _text(entry: dict[str, Any], key: str, place: str) -> str | None:
    value = entry.get(key)
    if value is not None and (not isinstance(value, str) or not value):
        raise BadExtrinsics(f'{place}.{key} is {reprlib.repr(value)}: give a name')
    return value


def _matrix(entry: dict[str, Any], key: str, place: str) -> NDArray[np.float64]:
    rows = entry[key]
    if not isinstance(rows, list) or len(rows) != 4:
        raise BadExtrinsics(f'{place}.{key} is {reprlib.repr(rows)}: give 4 rows of 4 numbers')
    try:
        return rigid([_numbers(row, (4,), f'{place}.{key}') for row in rows])
    except BadExtrinsics:
        raise
    except ValueError as error:
        raise BadExtrinsics(f'{place}.{key}: {error}') from None


def _numbers(values: Any, lengths: tuple[int, ...], place: str) -> list[float]:
    if not isinstance(values, list) or len(values) not in lengths:
        wanted = ' or '.join(str(length) for length in lengths)
        raise BadExtrinsics(f'{place} is {reprlib.repr(values)}: give {wanted} numbers')
    numbers = []
    for value in values:
        try:
            # YAML 1.1 reads 1e-5 as text.
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            raise BadExtrinsics(f'{place} holds {reprlib.repr(value)}: give finite numbers')
        numbers.append(number)
    return numbers
