# SPDX-License-Identifier: Apache-2.0
"""Which topics and calibrations of a recording the node is to be fed, or what there is instead."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from cross4d_jepa_ros.bag_transforms import static_tree
from cross4d_jepa_ros.bags import (
    BadBag,
    Bag,
    moving_transforms,
    note,
    static_transforms,
    tf_topics,
)
from cross4d_jepa_ros.sensing.extrinsics import Extrinsics, load_extrinsics, save_extrinsics
from cross4d_jepa_ros.sensing.frames import camera_info_topic
from cross4d_jepa_ros.sensing.transforms import TransformBuffer

POINTS_TYPE = 'sensor_msgs/msg/PointCloud2'
IMAGE_TYPES = ('sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage')
INFO_TYPE = 'sensor_msgs/msg/CameraInfo'
ODOMETRY_TYPE = 'nav_msgs/msg/Odometry'
# Encodings that hold distances or temperatures.
_NO_COLOUR = ('16uc1', '32fc1', 'mono16')
# Where replay_bag sends the moving part of /tf on machines without tf2_msgs.
TF_AS_ODOMETRY = '/tf_as_odometry'


class UnfitBag(ValueError):
    """The recording lacks a topic that was asked for; the sentence lists those that it has."""


@dataclass(frozen=True)
class BagSetup:
    """Topics of a recording, as the node is to be told of them.

    Attributes:
        camera_infos: One per image.
        odometry: Topic of the ego-motion; empty where it comes from `/tf`, or not at all.
        extrinsics: File with the recording's static transforms and the user's calibrations.

    """

    points: str
    images: tuple[str, ...]
    camera_infos: tuple[str, ...]
    odometry: str
    extrinsics: Path | None

    def replayed(self, bag: Bag) -> tuple[str, ...]:
        """Topics to play."""
        named = [self.points, *self.images, *self.camera_infos, self.odometry, *tf_topics(bag)]
        return tuple(topic for topic in dict.fromkeys(named) if topic in bag.topics)


def settle(
    bag: Bag,
    *,
    points: str = '',
    images: Sequence[str] | None = (),
    camera_infos: Sequence[str] = (),
    odometry: str = '',
    extrinsics: Path | None = None,
    folder: Path,
) -> BagSetup:
    """Check what the user named and find the rest by rule.

    Args:
        bag: Opened recording.
        points: PointCloud2 topic; empty where it has only one.
        images: Image topics; None for one of every camera with colour images.
        camera_infos: One per image; empty for the `camera_info` beside each image topic.
        odometry: Odometry topic; empty to look for one where `/tf` does not move the LiDAR.
        extrinsics: The user's calibrations, which win over those of the recording.
        folder: Where the merged extrinsics go.

    Raises:
        UnfitBag: A topic is not there, or not unique.
        BadExtrinsics: The user's file is refused.

    """

    def of_type(*types: str) -> list[str]:
        return sorted(name for name, topic in bag.topics.items() if topic.msgtype in types)

    def known(topic: str, *types: str) -> str:
        if topic not in of_type(*types):
            found = ', '.join(of_type(*types)) or 'none'
            msg = f'{bag.path} has no {topic!r} of type {" or ".join(types)}; it has: {found}'
            raise UnfitBag(msg)
        return topic

    if not points:
        points = _only_cloud(bag, of_type(POINTS_TYPE))
    known(points, POINTS_TYPE)
    chosen = sorted(colour_topics(bag)) if images is None else images
    images = [known(topic, *IMAGE_TYPES) for topic in chosen]
    infos = tuple(camera_infos) or tuple(camera_info_topic(topic) for topic in images)
    if len(infos) != len(images):
        msg = f'{len(infos)} camera infos for {len(images)} images: give one each, in that order'
        raise UnfitBag(msg)
    if odometry:
        known(odometry, ODOMETRY_TYPE)
    return BagSetup(
        points=points,
        images=tuple(images),
        camera_infos=infos,
        odometry=odometry or _ego_motion_of(bag, points, of_type(ODOMETRY_TYPE)),
        extrinsics=_extrinsics_of(bag, extrinsics, folder),
    )


def add_topic_arguments(parser: argparse.ArgumentParser, *, images: list[str] | None) -> None:
    """Add what a command is told of topics and calibration, for `settle_arguments`.

    Args:
        parser: Of the command.
        images: Where none are named; None for one topic of every camera with colour images.

    """
    rest = '' if images is not None else '; left out: one of each camera with colour'
    parser.add_argument('--points', default='', help='PointCloud2 topic; optional if unique')
    parser.add_argument('--images', nargs='*', default=images, help=f'image topics{rest}')
    parser.add_argument('--camera-infos', nargs='*', default=[], help='one each, else by rule')
    parser.add_argument('--odometry', default='', help='nav_msgs/Odometry topic')
    parser.add_argument('--extrinsics', type=Path, help='YAML; left out: /tf_static of the bag')


def settle_arguments(bag: Bag, arguments: argparse.Namespace, folder: Path) -> BagSetup:
    """Settle what was said to `add_topic_arguments`; raises as `settle` does."""
    return settle(
        bag,
        points=arguments.points,
        images=arguments.images,
        camera_infos=arguments.camera_infos,
        odometry=arguments.odometry,
        extrinsics=arguments.extrinsics,
        folder=folder,
    )


def readable(bag: Bag, topic: str) -> Iterator[Any]:
    """Yield the messages of a topic that deserialise."""
    for message in bag.messages([topic]):
        try:
            yield bag.deserialise(message)
        except BadBag as error:
            note(bag.problems, str(error))


def colour_topics(bag: Bag) -> list[str]:
    """Name an image topic of each camera, that is of each CameraInfo, that has colour or grey."""
    chosen: dict[str, str] = {}
    # Raw images cost no decoding.
    names = sorted(bag.topics, key=lambda name: (name.endswith('/compressed'), name))
    for name in names:
        if bag.topics[name].msgtype not in IMAGE_TYPES or name.endswith('/compressedDepth'):
            continue
        message = next(readable(bag, name), None)
        kind = str(getattr(message, 'encoding', '') or getattr(message, 'format', '')).lower()
        if message is None or kind.startswith(_NO_COLOUR):
            note(bag.problems, f'{name} is left out: {kind or "no readable image"}')
        else:
            chosen.setdefault(camera_info_topic(name), name)
    return list(chosen.values())


def _only_cloud(bag: Bag, topics: Sequence[str]) -> str:
    clouds = [topic for topic in topics if _may_have_positions(bag, topic)]
    if len(clouds) > 1:
        msg = f'{bag.path} has several clouds, say which to take: {", ".join(clouds)}'
        raise UnfitBag(msg)
    if not clouds:
        found = ', '.join(topics) or 'none'
        msg = f'{bag.path} has no cloud with x, y and z; of type {POINTS_TYPE} it has: {found}'
        raise UnfitBag(msg)
    return clouds[0]


def _may_have_positions(bag: Bag, topic: str) -> bool:
    """Whether the first cloud has x, y and z, or no fields to tell by: labels alone have none."""
    message = next(readable(bag, topic), None)
    fields = {field.name.lower() for field in message.fields} if message is not None else set()
    return not fields or fields >= {'x', 'y', 'z'}


def _ego_motion_of(bag: Bag, points: str, odometry_topics: list[str]) -> str:
    """Name the Odometry topic that moves the LiDAR; empty where `/tf` does, or nothing."""
    sweep = next(readable(bag, points), None)
    if sweep is None:
        return ''
    statics = list(static_transforms(bag))

    def moves(feed: Callable[[TransformBuffer], None]) -> bool:
        transforms = TransformBuffer()
        transforms.add_tf_message(SimpleNamespace(transforms=statics), static=True)
        feed(transforms)
        return bool(transforms.moving_ancestors(sweep.header.frame_id))

    first = list(islice(moving_transforms(bag), 5000))
    if moves(lambda b: b.add_tf_message(SimpleNamespace(transforms=first), static=False)):
        return '' if importlib.util.find_spec('tf2_msgs') else TF_AS_ODOMETRY
    for topic in odometry_topics:
        message = next(readable(bag, topic), None)
        if message is not None and moves(partial(TransformBuffer.add_odometry, msg=message)):
            return topic
    return ''


def _extrinsics_of(bag: Bag, given: Path | None, folder: Path) -> Path | None:
    """Write the static tree of the bag, below what the user gave, where the node can read it."""
    known = load_extrinsics(given) if given else Extrinsics(cameras=(), transforms=())
    own = {transform.child for transform in known.transforms}
    recorded = [transform for transform in static_tree(bag) if transform.child not in own]
    if not (known.cameras or known.transforms or recorded):
        return None
    path = folder / 'extrinsics.yaml'
    save_extrinsics(path, Extrinsics(known.cameras, (*known.transforms, *recorded)))
    return path
