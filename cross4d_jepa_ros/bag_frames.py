# SPDX-License-Identifier: Apache-2.0
"""Sensor frames of a recording, put together as the live node does it, with their truth."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cross4d_jepa_ros.bag_setup import POINTS_TYPE, BagSetup, readable
from cross4d_jepa_ros.bags import BadBag, Bag, note, static_transforms, tf_topics
from cross4d_jepa_ros.ledger import Drop
from cross4d_jepa_ros.sensing.extrinsics import load_extrinsics
from cross4d_jepa_ros.sensing.frames import (
    GROUND_SWEEPS,
    FrameAssembler,
    FrameConfig,
    NoTransform,
    SensorFrame,
)
from cross4d_jepa_ros.sensing.point_clouds import MalformedCloud, stamp_ns, structured_view
from cross4d_jepa_ros.sensing.synchronisation import SweepSynchroniser, SyncConfig
from cross4d_jepa_ros.sensing.transforms import TransformBuffer

CLASS_NAMES_KEY = 'class_names'


@dataclass(frozen=True)
class BagFrame:
    """One sweep of a recording.

    Attributes:
        frame: With an image of each camera that has one near enough.
        message: The PointCloud2.
        truth: Columns of the truth cloud, each (P,) with P the height x width of `message` and in
            its order; None where the recording holds no truth for this sweep.
        notes: What the assembler found wrong: cause to sentence, as of `FrameAssembler.notes`.
        ego_motion: tf, odometry or none.

    """

    frame: SensorFrame
    message: Any
    truth: dict[str, NDArray[Any]] | None
    notes: dict[str, str]
    ego_motion: str


class BagFrames:
    """Reads a recording once per iteration, in the order in which it was recorded.

    Sweeps and images meet in the node's own synchroniser, with the recording's clock for the
    steady one: an image that came too late for the node comes too late here. Only the
    CameraInfos are known from the start. Images are kept undecoded and no longer than the
    synchroniser keeps them.

    Args:
        bag: Opened recording.
        setup: Its topics and extrinsics.
        truth: Topic of the truth clouds (see `truth_topic`); empty for none.
        stride: Only every so manieth sweep is put together.
        wanted_ns: Only sweeps of these stamps are; None for all.

    Attributes:
        dropped: Sweeps of the current or last iteration that gave no frame, by `Drop` cause.

    """

    def __init__(
        self,
        bag: Bag,
        setup: BagSetup,
        *,
        truth: str = '',
        stride: int = 1,
        wanted_ns: Collection[int] | None = None,
    ) -> None:
        """Check the numbers; nothing is read yet.

        Raises:
            ValueError: `stride` is below 1.

        """
        if stride < 1:
            msg = f'stride is {stride}: give 1 for every sweep, 2 for every other one'
            raise ValueError(msg)
        self._bag = bag
        self._setup = setup
        self._truth = truth
        self._stride = stride
        self._wanted_ns = None if wanted_ns is None else frozenset(wanted_ns)
        self.dropped: Counter[str] = Counter()

    def __len__(self) -> int:
        """Frames that there will be if no sweep is dropped."""
        topic = self._bag.topics.get(self._setup.points)
        sweeps = -(-topic.count // self._stride) if topic else 0
        return sweeps if self._wanted_ns is None else min(sweeps, len(self._wanted_ns))

    def __iter__(self) -> Iterator[BagFrame]:
        """Yield the frames by the time at which the node would have begun to work on them."""
        self.dropped = Counter()
        transforms = TransformBuffer()
        assembler = assembler_of(self._bag, self._setup, transforms, FrameConfig())
        truths = _Truths(self._bag, self._truth)
        left = None if self._wanted_ns is None else set(self._wanted_ns)
        for number, (points, images) in enumerate(self._synchronised(assembler, transforms)):
            at_ns = stamp_ns(points)
            wanted = number % self._stride == 0 and (left is None or at_ns in left)
            if not wanted and number >= GROUND_SWEEPS:
                continue
            # The first sweeps settle ground and intensity range for all that follow.
            try:
                frame = assembler.assemble(points, images if wanted else (), views=wanted)
            except (MalformedCloud, NoTransform) as error:
                malformed = isinstance(error, MalformedCloud)
                if wanted:
                    self.dropped[Drop.MALFORMED if malformed else Drop.NO_TRANSFORM] += 1
                continue
            if wanted:
                truth, notes = truths.of(frame), dict(assembler.notes)
                yield BagFrame(frame, points, truth, notes, assembler.ego_motion)
            if left is not None:
                left.discard(at_ns)
                if not left:
                    return

    def _synchronised(
        self, assembler: FrameAssembler, transforms: TransformBuffer
    ) -> Iterator[tuple[Any, tuple[Any, ...]]]:
        """Yield each sweep with an image or None of every camera."""
        setup = self._setup
        now_ns = self._bag.start_ns
        ready: deque[tuple[Any, tuple[Any, ...]]] = deque()
        config = SyncConfig(offsets_s=(0.0,) * len(setup.images))
        synchroniser = SweepSynchroniser(
            config,
            steady_ns=lambda: now_ns,
            on_drop=lambda _, cause: self.dropped.update((cause,)),
            on_reset=lambda _: assembler.reset(),
            on_error=lambda error: note(self._bag.problems, repr(error)),
        )
        synchroniser.registerCallback(lambda points, *images: ready.append((points, images)))
        take = geometry_takers(self._bag, setup, transforms, assembler)
        for camera, topic in enumerate(setup.images):
            take[topic] = partial(synchroniser.add_image, camera=camera)
        take[setup.points] = synchroniser.add_sweep
        for recorded in self._bag.messages(take):
            now_ns = recorded.bag_stamp_ns
            synchroniser.poll()
            try:
                take[recorded.topic](self._bag.deserialise(recorded))
            except BadBag as error:
                note(self._bag.problems, str(error))
                if recorded.topic == setup.points:
                    self.dropped[Drop.MALFORMED] += 1
            while ready:
                yield ready.popleft()
        now_ns += round(config.timeout_s * 1e9)
        synchroniser.poll()
        yield from ready


def assembler_of(
    bag: Bag, setup: BagSetup, transforms: TransformBuffer, config: FrameConfig
) -> FrameAssembler:
    """Make the assembler of a recording; it knows static transforms and CameraInfos from the start.

    Args:
        bag: Opened recording.
        setup: Its topics and extrinsics.
        transforms: For this assembler alone; the recording's static transforms are added.
        config: Of the assembler.

    Raises:
        BadExtrinsics: The calibration file is refused.

    """
    extrinsics = load_extrinsics(setup.extrinsics) if setup.extrinsics else None
    assembler = FrameAssembler(config, transforms, extrinsics, setup.images)
    static = SimpleNamespace(transforms=static_transforms(bag))
    transforms.add_tf_message(static, static=True)
    for camera, topic in enumerate(setup.camera_infos):
        info = next(readable(bag, topic), None)
        if info is not None:
            assembler.set_camera_info(info, camera)
    return assembler


def geometry_takers(
    bag: Bag, setup: BagSetup, transforms: TransformBuffer, assembler: FrameAssembler
) -> dict[str, Callable[[Any], Any]]:
    """Name who takes the messages of each topic with moving transforms or CameraInfos."""
    take: dict[str, Callable[[Any], Any]] = {
        topic: partial(transforms.add_tf_message, static=False)
        for topic in tf_topics(bag)
        if not topic.endswith('/tf_static')
    }
    take[setup.odometry] = transforms.add_odometry
    for camera, topic in enumerate(setup.camera_infos):
        take[topic] = partial(assembler.set_camera_info, camera=camera)
    return take


class _Truths:
    """The truth clouds of a recording, read alongside the sweeps."""

    def __init__(self, bag: Bag, topic: str) -> None:
        self._problems, self._topic = bag.problems, topic
        self._messages = readable(bag, topic) if topic else iter(())
        self._next: Any = next(self._messages, None)

    def of(self, frame: SensorFrame) -> dict[str, NDArray[Any]] | None:
        """Columns of the truth cloud of this stamp, if it has as many points as the sweep."""
        while self._next is not None and stamp_ns(self._next) < frame.stamp_ns:
            self._next = next(self._messages, None)
        if self._next is None or stamp_ns(self._next) != frame.stamp_ns:
            return None
        try:
            columns = structured_view(self._next).reshape(-1)
        except MalformedCloud as error:
            note(self._problems, f'{self._topic} at {frame.stamp_ns} ns is left out: {error}')
            return None
        if len(columns) != frame.sweep.point_count:
            note(
                self._problems,
                f'{self._topic} at {frame.stamp_ns} ns is left out: it has {len(columns)} points, '
                f'its sweep {frame.sweep.point_count}',
            )
            return None
        return {name: np.ascontiguousarray(columns[name]) for name in columns.dtype.names or ()}


def truth_topic(bag: Bag) -> str:
    """Name the PointCloud2 topic with a uint8 `class_id` and no x, y and z.

    Returns:
        The topic; '' where there is none, or (noted in the bag's problems) more than one.

    """
    found = []
    for name in sorted(bag.topics):
        if bag.topics[name].msgtype != POINTS_TYPE:
            continue
        message = next(readable(bag, name), None)
        fields = {field.name: field for field in message.fields} if message is not None else {}
        labels = fields.get('class_id')
        if labels is None or {name.lower() for name in fields} >= {'x', 'y', 'z'}:
            continue
        if (labels.datatype, labels.count) == (labels.UINT8, 1):
            found.append(name)
        else:
            note(bag.problems, f'{name} is not taken for truth: its class_id is no single uint8')
    if len(found) > 1:
        note(bag.problems, f'none of {", ".join(found)} is taken for truth: one is expected')
    return found[0] if len(found) == 1 else ''


def truth_class_names(bag: Bag) -> tuple[str, ...]:
    """Names of the classes that the truth counts, as the recording notes them.

    Returns:
        Names by id; () where the recording has none, or (noted in its problems) an empty one.

    """
    text = bag.custom_data.get(CLASS_NAMES_KEY, '')
    names = tuple(name.strip() for name in text.split(',')) if text else ()
    if all(names):
        return names
    note(bag.problems, f'its {CLASS_NAMES_KEY} are not taken: one of {text!r} is empty')
    return ()
