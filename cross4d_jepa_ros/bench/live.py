# SPDX-License-Identifier: Apache-2.0
"""Plays sweeps in real time, over DDS, into the node in another process, as `make demo` does."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rclpy.serialization import serialize_message
from rich.console import Console

from cross4d_jepa_ros.bag_setup import BagSetup, readable, settle
from cross4d_jepa_ros.bags import TF_TYPE, Bag, BagWriter, message_class
from cross4d_jepa_ros.bench.sweeps import IMAGE, INFO, ODOMETRY, PERIOD_NS, POINTS, SyntheticDrive
from cross4d_jepa_ros.demo import Plan, run
from cross4d_jepa_ros.model.checkpoint import read_contract
from cross4d_jepa_ros.model.live_memory import MAX_GAP_S
from cross4d_jepa_ros.sensing.frames import BODY_FROM_OPTICAL
from cross4d_jepa_ros.sensing.point_clouds import stamp_ns
from cross4d_jepa_ros.sensing.poses import quaternion_from_matrix

SECONDS = 25.0
# Between two passes of a recording; longer than any memory waits for the next sweep.
PAUSE_NS = int(1.5 * MAX_GAP_S * 1e9)


def live(bag: Bag, setup: BagSetup, model: Path, folder: Path, console: Console) -> dict[str, Any]:
    """Play a recording once at its own speed.

    Args:
        bag: Opened recording.
        setup: Its topics.
        model: Checkpoint.
        folder: Where logs and pictures go.
        console: Where progress goes.

    Returns:
        `size`, `rate_hz`, `sweeps_in`, `sweeps_out`, `dropped` by cause, `in_flight`, `latency_ms`,
        and the share of the CPU that others used meanwhile.

    Raises:
        CannotRun: The node did not become active.

    """
    folder.mkdir(parents=True, exist_ok=True)
    report = run(bag, Plan(setup, model, 1.0, folder), console)
    stamps = [stamp_ns(message) for message in readable(bag, setup.points)]
    steps = np.diff(stamps)
    return {
        'size': read_contract(model).model.size,
        'rate_hz': round(1e9 / float(np.median(steps)), 2) if len(steps) else None,
        **{
            key: report[key]
            for key in (
                'sweeps_in',
                'sweeps_out',
                'dropped',
                'in_flight',
                'latency_ms',
                'ego_motion',
                'others_cpu_share',
            )
        },
    }


def live_synthetic(
    points: int, seconds: float, model: Path, folder: Path, console: Console
) -> dict[str, Any]:
    """Play a made-up street; arguments and result as of `live`."""
    path = _cleared(folder / 'bag')
    write_synthetic(path, points, seconds)
    try:
        with Bag(path) as bag:
            setup = _settled(bag, POINTS, (IMAGE,), folder)
            return live(bag, setup, model, folder, console)
    finally:
        shutil.rmtree(path, ignore_errors=True)


def live_recording(
    bag: Bag, setup: BagSetup, seconds: float, model: Path, folder: Path, console: Console
) -> dict[str, Any]:
    """Play a recording as many times as it takes; arguments and result as of `live`.

    Stamps go on from one pass to the next after a pause, so that each finds an empty memory.
    """
    passes = max(1, round(seconds * 1e9 / max(1, bag.end_ns - bag.start_ns)))
    path = _cleared(folder / 'bag')
    write_repeated(path, bag, setup, passes)
    try:
        with Bag(path) as repeated:
            again = settle(
                repeated,
                points=setup.points,
                images=setup.images,
                camera_infos=setup.camera_infos,
                odometry=setup.odometry if setup.odometry in repeated.topics else '',
                extrinsics=setup.extrinsics,
                folder=folder,
            )
            return {**live(repeated, again, model, folder, console), 'passes': passes}
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _settled(bag: Bag, points: str, images: tuple[str, ...], folder: Path) -> BagSetup:
    return settle(
        bag,
        points=points,
        images=images,
        camera_infos=(),
        odometry='',
        extrinsics=None,
        folder=folder,
    )


def _cleared(path: Path) -> Path:
    shutil.rmtree(path, ignore_errors=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def write_synthetic(path: Path, points: int, seconds: float) -> None:
    """Record a made-up street.

    Raises:
        BadBag: The folder cannot be made.

    """
    drive = SyntheticDrive(points)
    with BagWriter(path) as bag:
        bag.add_topic('/tf_static', TF_TYPE, transient_local=True)
        for number in range(round(seconds * 1e9 / PERIOD_NS)):
            cloud, image, poses = drive.next_messages()
            at_ns = stamp_ns(cloud)
            if number == 0:
                bag.write('/tf_static', TF_TYPE, at_ns, _camera_pose(at_ns))
                _write(bag, INFO, 'CameraInfo', at_ns, drive.camera_info)
            for pose in poses[:-1]:
                raw = serialize_message(pose)
                bag.write(ODOMETRY, 'nav_msgs/msg/Odometry', stamp_ns(pose), raw)
            _write(bag, IMAGE, 'CompressedImage', at_ns, image)
            # A sweep is there once it has been turned.
            _write(bag, POINTS, 'PointCloud2', at_ns + PERIOD_NS, cloud)


def _write(bag: BagWriter, topic: str, kind: str, at_ns: int, message: Any) -> None:
    bag.write(topic, f'sensor_msgs/msg/{kind}', at_ns, serialize_message(message))


def _camera_pose(at_ns: int) -> Any:
    stamp = message_class('builtin_interfaces/msg/Time')(*divmod(at_ns, 10**9))
    turn = (float(part) for part in quaternion_from_matrix(BODY_FROM_OPTICAL))
    transform = message_class('geometry_msgs/msg/Transform')(
        message_class('geometry_msgs/msg/Vector3')(0.0, 0.0, 0.0),
        message_class('geometry_msgs/msg/Quaternion')(*turn),
    )
    header = message_class('std_msgs/msg/Header')(stamp, 'lidar')
    stamped = message_class('geometry_msgs/msg/TransformStamped')(header, 'camera', transform)
    return message_class(TF_TYPE)([stamped])


def write_repeated(path: Path, bag: Bag, setup: BagSetup, passes: int) -> None:
    """Record the messages of a recording several times over, with stamps that go on after a pause.

    Raises:
        BadBag: The folder cannot be made, or a message cannot be read.

    """
    wanted = setup.replayed(bag)
    stamps = [stamp_ns(message) for message in readable(bag, setup.points)]
    period_ns = int(np.median(np.diff(stamps))) if len(stamps) > 1 else PERIOD_NS
    pass_ns = bag.end_ns - bag.start_ns + period_ns + PAUSE_NS
    with BagWriter(path) as target:
        for name in wanted:
            topic = bag.topics[name]
            target.add_topic(
                name,
                topic.msgtype,
                best_effort=topic.offered_best_effort is True,
                transient_local=topic.transient_local or name.endswith('/tf_static'),
            )
        for number in range(passes):
            for recorded in bag.messages(wanted):
                if number and recorded.topic.endswith('/tf_static'):
                    continue
                message = bag.deserialise(recorded)
                for stamp in _stamps(message):
                    later_ns = stamp_ns(stamp) + number * pass_ns
                    stamp.sec, stamp.nanosec = divmod(later_ns, 10**9)
                at_ns = recorded.bag_stamp_ns + number * pass_ns
                target.write(recorded.topic, recorded.msgtype, at_ns, message)


def _stamps(message: Any) -> Iterator[Any]:
    """Yield the stamps of a message or of its transforms."""
    for stamped in getattr(message, 'transforms', (message,)):
        yield stamped.header.stamp
