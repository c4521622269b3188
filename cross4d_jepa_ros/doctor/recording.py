# SPDX-License-Identifier: Apache-2.0
"""Examines a recording: everything that does not need a running graph."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from rich.console import Console

from cross4d_jepa_ros.bag_frames import BagFrame, BagFrames, assembler_of
from cross4d_jepa_ros.bag_setup import (
    IMAGE_TYPES,
    INFO_TYPE,
    ODOMETRY_TYPE,
    POINTS_TYPE,
    BagSetup,
    readable,
)
from cross4d_jepa_ros.bags import TF_TYPE, BadBag, Bag, BagTopic, moving_transforms, note
from cross4d_jepa_ros.doctor.cameras import (
    calibrated,
    picture_name,
    placement,
    projection,
    readable_image,
)
from cross4d_jepa_ros.doctor.chains import FIRST_TRANSFORMS, Chains, base_frame, chains_of
from cross4d_jepa_ros.doctor.clouds import fields
from cross4d_jepa_ros.doctor.stamps import (
    LATE_NS,
    TOLERANCE_NS,
    Offsets,
    Stamps,
    clocks_apart_ns,
    matching,
    offsets_of,
    timing,
)
from cross4d_jepa_ros.health import Finding, Level, best_effort_refused
from cross4d_jepa_ros.progress import Bars
from cross4d_jepa_ros.sensing.extrinsics import CameraExtrinsics, load_extrinsics
from cross4d_jepa_ros.sensing.frames import FrameConfig, calibrations
from cross4d_jepa_ros.sensing.point_clouds import stamp_ns
from cross4d_jepa_ros.sensing.transforms import TransformBuffer

INPUT_TYPES = (POINTS_TYPE, *IMAGE_TYPES, INFO_TYPE, ODOMETRY_TYPE, TF_TYPE)
_OTHER_CARRIERS = re.compile(
    'FFMPEGPacket|theora|CompressedPointCloud2|CustomMsg|VelodyneScan|PacketMsg', re.IGNORECASE
)
# Sweeps whose points are projected.
SAMPLES = 8
# Among these one with points is looked for.
FIRST_CLOUDS = 20


@dataclass
class Examined:
    """What was found.

    Attributes:
        findings: One line each, in the order in which data flow.
        parameters: Of the node, that differ from what it assumes.
        cameras: For each image topic: offsets in ms and figures of the projection.

    """

    findings: list[Finding] = field(default_factory=list)
    parameters: dict[str, Any] = field(default_factory=dict)
    cameras: dict[str, dict[str, Any]] = field(default_factory=dict)


def topics(bag: Bag, used: Sequence[str], reliability: str, *, live: bool) -> list[Finding]:
    """List every topic that the node could take, with type, count, rate and QoS.

    Args:
        bag: Opened recording.
        used: Topics that the node is to take.
        reliability: `qos.reliability` of the node.
        live: Whether it was recorded just now; then the QoS is what publishers offer.

    """
    seconds = (bag.end_ns - bag.start_ns) / 1e9
    found = []
    for topic in sorted(bag.topics.values(), key=lambda topic: topic.name):
        if topic.msgtype not in INPUT_TYPES:
            # Video, point cloud codecs and what drivers call their own.
            if _OTHER_CARRIERS.search(topic.msgtype):
                text = (
                    f'{topic.msgtype}, {topic.count} messages, is not read: let image_transport or '
                    'point_cloud_transport republish it as raw'
                )
                found.append(Finding(Level.WARN, f'topic {topic.name}', text))
            continue
        rate = f', {topic.count / seconds:.1f} a second' if seconds > 0 and topic.count > 1 else ''
        said = f'{topic.msgtype}, {topic.count} messages{rate}, {_quality(topic, live)}'
        is_used = topic.name in used or topic.msgtype == TF_TYPE
        doubt = _refused(topic, reliability, live) if is_used else ''
        said += '' if is_used else ' (not used)'
        level = Level.ERROR if doubt else Level.OK
        if not topic.count:
            level, doubt = max(level, Level.WARN), doubt or 'nothing came'
        elif topic.msgtype == INFO_TYPE and topic.count == 1 and _is_volatile(topic):
            doubt = 'sent once and not transient_local: a node that starts later never gets it'
            level = Level.WARN
        text = f'{said}; {doubt}' if doubt else said
        found.append(Finding(level, f'topic {topic.name}', text))
    return found


def _quality(topic: BagTopic, live: bool) -> str:
    kept = ', transient_local' if topic.transient_local else ''
    if topic.offered_best_effort is None:
        return 'QoS not recorded (replay_bag offers reliable)'
    name = 'best_effort' if topic.offered_best_effort else 'reliable'
    return f'offers {name}{kept}' if live else f'recorded as {name}{kept} (replayed as such)'


def _is_volatile(topic: BagTopic) -> bool:
    return topic.offered_best_effort is not None and not topic.transient_local


def _refused(topic: BagTopic, reliability: str, live: bool) -> str:
    if reliability != 'reliable' or not topic.offered_best_effort:
        return ''
    if live:
        return best_effort_refused(topic.name)
    sentence = best_effort_refused(topic.name, 'the recorded publisher')
    return f'{sentence}, or replay it with --reliability reliable'


def examine(bag: Bag, setup: BagSetup, out: Path, *, clock: str) -> Examined:
    """Judge stamps, fields, synchronisation, calibration and ego-motion of a recording.

    Args:
        bag: Opened recording.
        setup: Its topics.
        out: Folder for the pictures.
        clock: What its record times are, for sentences.

    """
    result = Examined()
    stamps = _stamps(bag, (setup.points, *setup.images))
    empty = [topic for topic, seen in stamps.items() if not seen.header_ns]
    for topic in (setup.points, *setup.images):
        result.findings.append(
            Finding(Level.ERROR, f'stamps {topic}', 'no readable message')
            if topic in empty
            else timing(topic, stamps[topic], clock, paced=topic == setup.points)
        )
    if setup.points in empty:
        return result
    sweeps, cloud = stamps[setup.points], _first_cloud(bag, setup.points)
    judged, result.parameters = fields(setup.points, cloud, sweeps.period_ns)
    result.findings.append(judged)
    offsets = [offsets_of(sweeps, stamps[topic]) for topic in setup.images]
    if setup.images:
        result.parameters['sync.offsets'] = [found.aim_s for found in offsets]
    for topic in setup.images:
        apart_ns = clocks_apart_ns(sweeps, stamps[topic])
        if topic not in empty and (apart_ns is None or abs(apart_ns) > LATE_NS):
            result.parameters['sync.stamp_source'] = 'arrival'
    extrinsics = load_extrinsics(setup.extrinsics) if setup.extrinsics else None
    chains = chains_of(bag, setup, extrinsics.transforms if extrinsics else ())
    sensor = cloud.header.frame_id
    judged, found = base_frame(chains, _transforms(bag, setup), sensor, stamp_ns(cloud))
    result.findings.append(judged)
    result.parameters |= found
    frames = _frames(bag, setup, sweeps, offsets)
    known = calibrations(extrinsics, setup.images)
    for camera, topic in enumerate(setup.images):
        if topic not in empty:
            result.findings.append(matching(topic, sweeps, stamps[topic], offsets[camera]))
            seen = _Camera(camera, known.get(camera), sensor, chains)
            judgements, figures = _calibration(bag, setup, seen, frames, out)
            result.findings += judgements
            result.cameras[topic] = {'offset_ms': _summary(offsets[camera]), **figures}
    result.findings += _motion(frames, ' <- '.join(reversed(chains.up(sensor))))
    return result


def _first_cloud(bag: Bag, topic: str) -> Any:
    """Return the first cloud, of the first few one with points."""
    clouds = list(islice(readable(bag, topic), FIRST_CLOUDS))
    return next((cloud for cloud in clouds if cloud.width * cloud.height), clouds[0])


def _transforms(bag: Bag, setup: BagSetup) -> TransformBuffer:
    """All static transforms of a recording, and the first moving ones."""
    transforms = TransformBuffer(keep_s=1e6)
    assembler_of(bag, setup, transforms, FrameConfig())
    first = list(islice(moving_transforms(bag), FIRST_TRANSFORMS))
    transforms.add_tf_message(SimpleNamespace(transforms=first), static=False)
    return transforms


@dataclass(frozen=True)
class _Camera:
    """A camera with what is known of it: number, entry of the user's file, LiDAR's frame, tree."""

    number: int
    entry: CameraExtrinsics | None
    sensor: str
    chains: Chains


def _calibration(
    bag: Bag, setup: BagSetup, camera: _Camera, frames: Sequence[BagFrame], out: Path
) -> tuple[list[Finding], dict[str, float | None]]:
    """Judge image, CameraInfo, transform and projection, as far as each is worth a look."""
    image, info_topic = setup.images[camera.number], setup.camera_infos[camera.number]
    picture = out / picture_name(camera.number, image)
    picture.unlink(missing_ok=True)
    info, first = next(readable(bag, info_topic), None), next(readable(bag, image))
    count = bag.topics[info_topic].count if info_topic in bag.topics else 0
    found = [
        readable_image(image, first, info),
        calibrated(image, info_topic, info, count, camera.entry),
    ]
    if all(finding.level < Level.ERROR for finding in found):
        names = (first.header.frame_id, camera.sensor)
        found.append(placement(image, camera.number, frames, camera.entry, names, camera.chains))
    if any(finding.level == Level.ERROR for finding in found):
        return found, {}
    judged, figures = projection(image, camera.number, frames, picture)
    return [*found, judged], figures


def _stamps(bag: Bag, wanted: Sequence[str]) -> dict[str, Stamps]:
    found = {topic: Stamps() for topic in wanted}
    total = sum(bag.topics[topic].count for topic in found if topic in bag.topics)
    with Bars(Console(stderr=True), 'messages') as bars:
        reading = bars.add_task('reading the stamps', total=total)
        for message in bag.messages(wanted):
            bars.advance(reading)
            try:
                at_ns = stamp_ns(bag.deserialise(message))
            except BadBag as error:
                note(bag.problems, str(error))
            else:
                found[message.topic].header_ns.append(at_ns)
                found[message.topic].recorded_ns.append(message.bag_stamp_ns)
    return found


def _frames(
    bag: Bag, setup: BagSetup, sweeps: Stamps, offsets: Sequence[Offsets]
) -> list[BagFrame]:
    """Put a few sweeps together, of those that have the most images."""
    every = sweeps.usable_ns
    near = np.zeros(len(every), int)
    for camera in offsets:
        if camera.nearest_ns:
            near += np.abs(camera.nearest_ns) <= TOLERANCE_NS
    best = [stamp for stamp, count in zip(every, near, strict=True) if count == near.max()]
    # Of the first ones the transforms may not be known yet.
    places = np.unique(np.linspace(len(best) // 8, len(best) - 1, SAMPLES).astype(int))
    wanted = {best[place] for place in places} if best else set()
    return list(BagFrames(bag, setup, wanted_ns=wanted))


def _motion(frames: Sequence[BagFrame], chain: str) -> list[Finding]:
    """Judge ego-motion and ground; `chain` leads from the root to the LiDAR."""
    if not frames:
        text = 'no sweep could be put together: see what is said of its stamps and fields'
        return [Finding(Level.ERROR, 'ego-motion', text)]
    moved = [made for made in frames if made.frame.fixed_from_base is not None]
    notes = {cause: text for made in frames for cause, text in made.notes.items()}
    if moved:
        seen = (
            f'{chain}, from {moved[-1].ego_motion}, for {len(moved)} of {len(frames)} sweeps tried'
        )
        findings = [Finding(Level.OK, 'ego-motion', seen)]
    else:
        reason = notes.get('ego_motion', 'none is known')
        text = f'{reason}: the memory keeps little of earlier sweeps; give --odometry, or TF'
        findings = [Finding(Level.WARN, 'ego-motion', text)]
    if 'ground' in notes:
        findings.append(Finding(Level.WARN, 'ground', notes['ground']))
    else:
        height = frames[-1].frame.base_from_sensor[2, 3]
        text = f'the sensor is {height:.2f} m above it (base_height: -1 measures it)'
        findings.append(Finding(Level.OK, 'ground', text))
    return findings


def _summary(offsets: Offsets) -> dict[str, Any]:
    near = [offset / 1e6 for offset in offsets.near_ns]
    middle = {'median': float(np.median(near)), 'min': near[0], 'max': near[-1]} if near else {}
    return {
        **{name: round(value, 3) for name, value in middle.items()},
        'missing': offsets.sweeps - len(near),
        'usual': [round(group[1] / 1e6, 3) for group in offsets.groups],
    }
