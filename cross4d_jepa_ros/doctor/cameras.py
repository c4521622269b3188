# SPDX-License-Identifier: Apache-2.0
"""Whether the points of a recording land in its images: CameraInfo, transforms, calibration."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cross4d_jepa_ros.bag_frames import BagFrame
from cross4d_jepa_ros.calibration_check import (
    LEAST_COVERAGE,
    edge_distances_px,
    panel,
    placed,
    why_hardly_covered,
)
from cross4d_jepa_ros.correspondence_picture import draw
from cross4d_jepa_ros.doctor.chains import Chains
from cross4d_jepa_ros.doctor.turning import turn_of, usual_mistake
from cross4d_jepa_ros.health import Finding, Level
from cross4d_jepa_ros.sensing.cameras import BadCalibration, CameraModel
from cross4d_jepa_ros.sensing.extrinsics import CameraExtrinsics
from cross4d_jepa_ros.sensing.frames import CameraView, camera_info_topic, is_rectified
from cross4d_jepa_ros.sensing.images import MalformedImage, decode_image
from cross4d_jepa_ros.sensing.poses import invert


def picture_name(camera: int, topic: str) -> str:
    """Name the picture of a camera after the folder of its topic."""
    folder = camera_info_topic(topic).removesuffix('/camera_info').strip('/').replace('/', '_')
    return f'projection_{folder or f"image{camera}"}.png'


def calibrated(
    image: str, topic: str, info: Any | None, count: int, entry: CameraExtrinsics | None
) -> Finding:
    """Judge the intrinsics of a camera.

    Args:
        image: Topic of its images.
        topic: Of its CameraInfo.
        info: The first of these; None without any.
        count: How many there are.
        entry: Of the user's calibration file, which wins.

    """
    about = f'CameraInfo {image}'
    if entry is not None and entry.model is not None:
        return Finding(Level.OK, about, f'{_described(entry.model)}, from the extrinsics file')
    if info is None:
        text = (
            f'no CameraInfo: nothing is on {topic}, so that no point finds its pixel: publish '
            'and record it, name its topic with --camera-infos, or give intrinsics, '
            'distortion_coeffs and resolution with --extrinsics'
        )
        return Finding(Level.ERROR, about, text)
    try:
        model = CameraModel.from_camera_info(info, rectified=is_rectified(image))
    except BadCalibration as error:
        return Finding(Level.ERROR, about, f'{topic}: {error}')
    used = 'p, as the images are rectified' if is_rectified(image) else 'k and d'
    return Finding(Level.OK, about, f'{count} on {topic}: {_described(model)} (from {used})')


def _described(model: CameraModel) -> str:
    coefficients = [value for value in model.coefficients if value]
    kind = model.distortion if coefficients else f'{model.distortion} (no distortion)'
    return f'{model.width} x {model.height}, f = {model.fx:.0f} px, {kind}'


def readable_image(image: str, message: Any, info: Any | None) -> Finding:
    """Judge whether the images of a camera can be read, and whether they are of its CameraInfo.

    Args:
        image: Topic.
        message: The first of its images.
        info: The first of its CameraInfos; None without any.

    """
    about = f'image {image}'
    kind = getattr(message, 'encoding', '') or f'format {getattr(message, "format", "")!r}'
    try:
        height, width = decode_image(message).shape[:2]
    except MalformedImage as error:
        text = f'{error} Publish JPEG or PNG (image_transport: compressed), or the raw image'
        return Finding(Level.ERROR, about, text)
    frame = message.header.frame_id
    said = f'{width} x {height}, {kind}, frame {frame!r}'
    if not frame:
        text = f'{said}: the driver leaves frame_id empty, so that no transform is found for it'
        return Finding(Level.ERROR, about, text)
    if info is not None and info.header.frame_id and info.header.frame_id != frame:
        text = (
            f'{said}, but its CameraInfo has the frame {info.header.frame_id!r}: that of the '
            "image counts; correct the driver's frame_id if it is wrong"
        )
        return Finding(Level.WARN, about, text)
    return Finding(Level.OK, about, said)


def placement(
    image: str,
    camera: int,
    frames: Sequence[BagFrame],
    entry: CameraExtrinsics | None,
    names: tuple[str, str],
    chains: Chains,
) -> Finding:
    """Judge the transform from the LiDAR to a camera, and the size of its images.

    Args:
        image: Topic of its images.
        camera: Its number.
        frames: A few sweeps with their images.
        entry: Of the user's calibration file, which wins.
        names: Frames of the camera and of the LiDAR, as their messages have them.
        chains: All transforms that are known.

    """
    about = f'transform {image}'
    target, source = names
    target = (entry.frame_id if entry is not None else None) or target
    given = entry is not None and entry.camera_from_lidar is not None
    chain = f'{target} <- {source} (T_cam_lidar of the extrinsics file)'
    chain = chain if given else chains.between(target, source)
    hint = '' if given else chains.optical_hint(target)
    seen = _views(camera, frames)
    if not seen:
        broken = '' if given else chains.broken(target, source)
        if broken:
            text = (
                f'no transform from {source!r} to camera frame {target!r}: {broken}, or give it '
                'with --extrinsics'
            )
            return Finding(Level.ERROR, about, text)
        notes = [made.notes.get(f'image{camera}') for made in frames]
        text = next(filter(None, notes), 'not tried: no image meets a sweep')
        return Finding(Level.ERROR, about, f'{text}; {chain}')
    made, view = seen[len(seen) // 2]
    camera_from_sensor = view.camera_from_base @ made.frame.base_from_sensor
    x, y, z = invert(camera_from_sensor)[:3, 3]
    ahead = ', '.join(f'{part:.2f}' for part in camera_from_sensor[2, :3])
    height, width = view.image.shape[:2]
    text = (
        f'{chain}; the camera is at ({x:.2f}, {y:.2f}, {z:.2f}) m in {source!r} '
        f'and looks along ({ahead}); {width} x {height} images fit their calibration'
    )
    return Finding(Level.WARN if hint else Level.OK, about, f'{text}; {hint}' if hint else text)


def projection(
    image: str, camera: int, frames: Sequence[BagFrame], picture: Path
) -> tuple[Finding, dict[str, float | None]]:
    """Judge a calibration by the points in the images, and draw one sweep.

    Args:
        image: Topic.
        camera: Its number.
        frames: At least one of them with an image of this camera.
        picture: PNG to write.

    Returns:
        The finding; `coverage`, `edge_distance_px` and `edge_chance_px`.

    """
    about = f'projection {image}'
    panels, seen = [], _views(camera, frames)
    for made, view in seen:
        offset_ns = view.stamp_ns - made.frame.stamp_ns
        xyz, times = made.frame.xyz_base, made.frame.sweep.time_offset_ns
        panels.append(
            panel(image, view.image, view.camera, view.camera_from_base, xyz, offset_ns, times)
        )
    share = statistics.fmean(
        len(shown.found.point) / max(1, len(made.frame.xyz_base))
        for shown, (made, _) in zip(panels, seen, strict=True)
    )
    edges, chance = edge_distances_px(panels)
    figures = {'coverage': round(share, 4), 'edge_distance_px': edges, 'edge_chance_px': chance}
    draw(picture, panels[len(panels) // 2 :][:1], title=f'points of one sweep in {image}')
    said = f'{share:.1%} of the points have a visible pixel'
    if share < LEAST_COVERAGE:
        where = [
            placed(made.frame.xyz_base, view.camera, view.camera_from_base) for made, view in seen
        ]
        why = why_hardly_covered(*map(list, zip(*where, strict=True)))
        mistake = usual_mistake(seen)
        verdict = f'wrong extrinsics: {mistake}; {said}' if mistake else f'wrong extrinsics? {said}'
        return Finding(Level.ERROR, about, f'{verdict}; {why}; {picture}'), figures
    level, verdict = _turn(seen)
    if edges is not None and chance is not None:
        said += (
            f'; its edges lie {edges:.1f} px from those of the image, by chance it would be '
            f'{chance:.1f} px (a right calibration comes to about a third of that)'
        )
    return Finding(level, about, f'{verdict}; {said}; {picture}'), figures


def _turn(seen: Sequence[tuple[BagFrame, CameraView]]) -> tuple[Level, str]:
    """Judge by the edges of points and images how a camera is turned."""
    turn = turn_of(seen)
    if turn is not None and turn.wrong:
        text = (
            f'wrong extrinsics: the points lie {turn.wrong}: calibrate again, or correct '
            'the rotation with --extrinsics'
        )
        return Level.WARN, text
    if turn is not None and turn.is_right:
        return Level.OK, f'edges meet: the camera is turned by {turn.error} degrees'
    mistake = usual_mistake(seen)
    if mistake:
        return Level.ERROR, f'wrong extrinsics: {mistake}: correct them with --extrinsics'
    figures = turn.error if turn is not None else 'hardly any edges'
    text = (
        f'cannot tell from these images whether the extrinsics are right ({figures}): look at the '
        'picture, or record a drive past poles, walls and cars by day (fog, darkness and empty '
        'roads have no edges; a turn of more than 6 degrees is not found)'
    )
    return Level.WARN, text


def _views(camera: int, frames: Sequence[BagFrame]) -> list[tuple[BagFrame, CameraView]]:
    return [
        (made, view) for made in frames for view in made.frame.views if view.camera_index == camera
    ]
