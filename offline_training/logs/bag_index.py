# SPDX-License-Identifier: Apache-2.0
"""Rows of the index from a rosbag2 recording, with the live node's geometry.

Unlike the node, whoever indexes knows what comes next: the nearest image may be one that was
recorded after the sweep, and no transform is extrapolated.
"""

from __future__ import annotations

import argparse
import bisect
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from cross4d_jepa_ros.bag_frames import assembler_of, geometry_takers, truth_topic
from cross4d_jepa_ros.bag_setup import BagSetup, add_topic_arguments, settle
from cross4d_jepa_ros.bags import BadBag, Bag, BagMessage, note
from cross4d_jepa_ros.correspondence import LATE_NS
from cross4d_jepa_ros.sensing.frames import (
    GROUND_SWEEPS,
    FrameConfig,
)
from cross4d_jepa_ros.sensing.point_clouds import stamp_ns
from cross4d_jepa_ros.sensing.transforms import TransformBuffer
from offline_training.logs.rows import LogFindings, Message, RowBuilder
from offline_training.logs.table import log_name

# A sweep waits so long, on the recording's clock, for what was recorded after it: transforms on
# both sides of its points, and late images.
AHEAD_NS = 1_000_000_000
KEEP_TRANSFORMS_S = 60.0


@dataclass(frozen=True)
class BagChoice:
    """What the user says of the recordings; topics as for `settle`.

    Attributes:
        images: None for one topic of every camera with colour images.
        stride: Every so manieth sweep gets a row.

    """

    points: str = ''
    images: tuple[str, ...] | None = None
    camera_infos: tuple[str, ...] = ()
    odometry: str = ''
    extrinsics: Path | None = None
    stride: int = 1

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add what a command is told of topics and calibration."""
        add_topic_arguments(parser, images=None)

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> BagChoice:
        """Make a choice of what was said to `add_arguments`; every sweep gets a row."""
        return cls(
            points=arguments.points,
            images=None if arguments.images is None else tuple(arguments.images),
            camera_infos=tuple(arguments.camera_infos),
            odometry=arguments.odometry,
            extrinsics=arguments.extrinsics,
        )


class _Recorded(NamedTuple):
    """When a message was recorded, and its own stamp."""

    bag_stamp_ns: int
    stamp_ns: int


class _Image(NamedTuple):
    """The image with the nearest stamp, the calibration's time offset added."""

    topic: str
    at: _Recorded
    offset_ns: int

    @property
    def is_near(self) -> bool:
        return abs(self.offset_ns) <= LATE_NS


def index_bag(
    path: Path, choice: BagChoice, folder: Path, on_sweeps: Callable[[int, int], None]
) -> LogFindings:
    """Make the rows of a recording.

    Args:
        path: What `Bag` opens.
        choice: Topics and calibration.
        folder: Of the index.
        on_sweeps: Called with the sweeps done so far, and with all.

    Raises:
        BadBag: Nothing in it can be read.
        UnfitBag: A topic is not there, or not unique.
        BadExtrinsics: The calibration file is refused.

    """
    with Bag(path) as bag, tempfile.TemporaryDirectory() as temporary:
        setup = settle(
            bag,
            points=choice.points,
            images=choice.images,
            camera_infos=choice.camera_infos,
            odometry=choice.odometry,
            extrinsics=choice.extrinsics,
            folder=Path(temporary),
        )
        findings = _Indexing(bag, setup, log_name(path, folder)).run(choice.stride, on_sweeps)
        findings.problems += bag.problems
    return findings


class _Indexing:
    """One recording on its way into the index."""

    def __init__(self, bag: Bag, setup: BagSetup, log: str) -> None:
        self._bag = bag
        self._setup = setup
        self._transforms = TransformBuffer(keep_s=KEEP_TRANSFORMS_S)
        config = FrameConfig(max_extrapolation_s=0.0)
        self._assembler = assembler_of(bag, setup, self._transforms, config)
        self._builder = RowBuilder(log, setup.points, setup.images, self._assembler)

    def run(self, stride: int, on_sweeps: Callable[[int, int], None]) -> LogFindings:
        """Survey the stamps, then read again and make a row of every `stride`-th sweep."""
        truth = truth_topic(self._bag)
        recorded = self._survey([self._setup.points, *self._setup.images, *filter(None, [truth])])
        labelled = {entry.stamp_ns for entry in recorded[truth]} if truth else set()
        images = [sorted(recorded[topic]) for topic in self._setup.images]
        for camera, entries in zip(self._builder.findings.cameras, images, strict=True):
            camera.images = len(entries)
        nearest = {
            sweep: [self._nearest(sweep, entries, camera) for camera, entries in enumerate(images)]
            for sweep in recorded[self._setup.points]
        }
        wanted = {
            (self._setup.images[camera], image.at.bag_stamp_ns)
            for row in nearest.values()
            for camera, image in enumerate(row)
            if image is not None and image.is_near
        }
        total = -(-self._bag.topics[self._setup.points].count // stride)
        done = 0
        for is_row, message, held in self._due(wanted, stride):
            try:
                content = self._bag.deserialise(message)
            except BadBag as error:
                if is_row:
                    self._builder.add_unreadable(message.bag_stamp_ns, str(error))
            else:
                at = _Recorded(message.bag_stamp_ns, stamp_ns(content))
                if is_row:
                    self._builder.add(
                        Message(content, at.bag_stamp_ns),
                        [image and self._content(image, held) for image in nearest[at]],
                        [image and image.offset_ns for image in nearest[at]],
                        truth if at.stamp_ns in labelled else '',
                    )
                else:
                    self._builder.settle(content)
            done += is_row
            on_sweeps(done, total)
        return self._builder.finish()

    def _survey(self, topics: Sequence[str]) -> dict[str, list[_Recorded]]:
        """Read the stamps of some topics, in recording order."""
        recorded: dict[str, list[_Recorded]] = {topic: [] for topic in topics}
        for message in self._bag.messages(topics):
            try:
                at_ns = stamp_ns(self._bag.deserialise(message))
            except BadBag as error:
                note(self._bag.problems, str(error))
            else:
                recorded[message.topic].append(_Recorded(message.bag_stamp_ns, at_ns))
        return recorded

    def _nearest(self, sweep: _Recorded, images: Sequence[_Recorded], camera: int) -> _Image | None:
        """Find the image with the nearest stamp among those recorded at about the same time.

        In a recording whose clock jumped back, a stamp alone may name another scene.
        """
        first = bisect.bisect_left(images, (sweep.bag_stamp_ns - AHEAD_NS,))
        last = bisect.bisect_left(images, (sweep.bag_stamp_ns + AHEAD_NS,))
        shift_ns = self._assembler.time_offset_ns(camera) - sweep.stamp_ns
        topic = self._setup.images[camera]
        return min(
            (_Image(topic, image, image.stamp_ns + shift_ns) for image in images[first:last]),
            key=lambda image: (
                abs(image.offset_ns),
                abs(image.at.bag_stamp_ns - sweep.bag_stamp_ns),
            ),
            default=None,
        )

    def _content(self, image: _Image, held: Sequence[BagMessage]) -> Message | None:
        """Return the image's message, if it is near enough."""
        for message in held if image.is_near else ():
            if (message.topic, message.bag_stamp_ns) == (image.topic, image.at.bag_stamp_ns):
                content = self._bag.deserialise(message)
                if stamp_ns(content) == image.at.stamp_ns:
                    return Message(content, message.bag_stamp_ns)
        return None

    def _due(
        self, wanted: set[tuple[str, int]], stride: int
    ) -> Iterator[tuple[bool, BagMessage, list[BagMessage]]]:
        """Yield sweeps once all around them is known: whether it gets a row, and the images."""
        take = geometry_takers(self._bag, self._setup, self._transforms, self._assembler)
        queue: deque[tuple[bool, BagMessage]] = deque()
        held: deque[BagMessage] = deque()
        number, now_ns = 0, 0
        for message in self._bag.messages([*take, *self._setup.images, self._setup.points]):
            now_ns = max(now_ns, message.bag_stamp_ns)
            if message.topic == self._setup.points:
                is_row = number % stride == 0
                # The first sweeps settle ground and intensity for all that follow.
                if is_row or number < GROUND_SWEEPS:
                    queue.append((is_row, message))
                number += 1
            elif message.topic in take:
                try:
                    take[message.topic](self._bag.deserialise(message))
                except BadBag as error:
                    note(self._bag.problems, str(error))
            elif (message.topic, message.bag_stamp_ns) in wanted:
                held.append(message)
            while queue and queue[0][1].bag_stamp_ns + AHEAD_NS < now_ns:
                yield *queue.popleft(), list(held)
            while held and held[0].bag_stamp_ns + 2 * AHEAD_NS < now_ns:
                held.popleft()
        while queue:
            yield *queue.popleft(), list(held)
