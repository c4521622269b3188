# SPDX-License-Identifier: Apache-2.0
"""Does again what a node did with a recording, frame by frame, and compares the bytes."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from cross4d_jepa_ros.bag_frames import truth_class_names, truth_topic
from cross4d_jepa_ros.bag_setup import colour_topics, settle
from cross4d_jepa_ros.bags import BadBag, Bag, note
from cross4d_jepa_ros.frame_log import LoggedRun, Settings, digests
from cross4d_jepa_ros.logged_frames import BadFrameLog, LoggedSweep, read_log, rebuilt
from cross4d_jepa_ros.pipeline import Output, Perception, Pipeline
from cross4d_jepa_ros.sensing.images import MalformedImage
from cross4d_jepa_ros.sensing.point_clouds import MalformedCloud, stamp_ns, structured_view
from offline_training.evaluation.sources import Swept
from offline_training.label_map import LabelMap
from offline_training.logs.bag_index import BagChoice


class ReplayedLog:
    """The sweeps of a frame log, with the messages of the recording that the node had.

    Args:
        path: What `Bag` opens.
        log: Frame log of a node that was fed from it.
        choice: Topics, where the recording calls them otherwise than the node heard them.
        label_map: As of `Source`.

    Attributes:
        class_names: Of the labels; () where there are none.
        cameras: Image topics.
        dropped: Logged sweeps that could not be put together again, by cause.
        problems: What cannot be read; grows while it is read.

    Raises:
        BadFrameLog: It cannot be read.
        BadBag: Nothing in the recording can be read.
        UnfitBag: A topic is not there, or not unique.

    """

    def __init__(
        self, path: Path, log: Path, choice: BagChoice, label_map: LabelMap | None = None
    ) -> None:
        self.path = path
        self.problems: list[str] = []
        self.dropped: Counter[str] = Counter()
        self._log = log
        self._sweeps, self._torn = read_log(log)
        if not self._sweeps:
            msg = f'{log} holds no sweep: the node worked on none'
            raise BadFrameLog(msg)
        self._label_map = label_map
        self._replayed = self._identical = self._compared = 0
        self._difference = ''
        with Bag(path) as bag, tempfile.TemporaryDirectory() as folder:
            self._points, self.cameras = self._topics(bag, choice, Path(folder))
            self._truth = truth_topic(bag)
            self._named = truth_class_names(bag)
        self.class_names = self._named if label_map is None else label_map.names

    @property
    def logs(self) -> tuple[str, ...]:
        """The recording alone."""
        return (self.path.name,)

    @property
    def run(self) -> LoggedRun:
        """Of the node; the last one where it was configured more than once."""
        return self._sweeps[-1].run

    @property
    def last_settings(self) -> Settings:
        """What the last sweep was answered with."""
        return self._sweeps[-1].settings

    def __len__(self) -> int:
        return len(self._sweeps)

    def answered(self, pipeline: Pipeline) -> Iterator[tuple[Swept, Perception]]:
        """Answer every sweep as the node did, and compare.

        Raises:
            BadFrameLog: The log is of another checkpoint.

        """
        for place, logged, swept in self._frames():
            if logged.run.model_sha256 != pipeline.model_sha256:
                msg = (
                    f'{self._log} is of the checkpoint {logged.run.model_sha256[:12]}, this one is '
                    f'{pipeline.model_sha256[:12]}: give the one that the node had'
                )
                raise BadFrameLog(msg)
            torch.set_num_threads(logged.run.threads)
            logged.settings.apply(pipeline)
            if logged.reset is not None:
                pipeline.reset(logged.reset)
            perception = pipeline.step(swept.frame, Output.ALL)
            self._compare(place, logged, perception)
            yield swept, perception

    def report(self) -> dict[str, Any]:
        """Count the sweeps of the log, and those whose answers have the same bytes.

        `compared` leaves out sweeps whose answer nobody had asked for.
        """
        return {
            'log': str(self._log),
            'sweeps': len(self._sweeps),
            'replayed': self._replayed,
            'compared': self._compared,
            'identical': self._identical,
            'torn_lines': self._torn,
            'first_difference': self._difference,
        }

    @property
    def agrees(self) -> bool:
        """Whether every sweep was found, and none differs."""
        return not self._difference

    def _topics(self, bag: Bag, choice: BagChoice, folder: Path) -> tuple[str, tuple[str, ...]]:
        """Name the sweeps and the images: as chosen, as the node heard them, or by rule."""
        run = self.run
        points = choice.points or (run.points if run.points in bag.topics else '')
        images = choice.images
        if images is None:
            heard = all(topic in bag.topics for topic in run.images)
            images = run.images if heard else tuple(sorted(colour_topics(bag)))
        setup = settle(
            bag,
            points=points,
            images=images[: len(run.images)],
            camera_infos=choice.camera_infos,
            odometry=choice.odometry,
            extrinsics=choice.extrinsics,
            folder=folder,
        )
        return setup.points, setup.images

    def _frames(self) -> Iterator[tuple[int, LoggedSweep, Swept]]:
        with Bag(self.path) as bag:
            points = _Messages(bag, self._points)
            images = [_Messages(bag, topic) for topic in self.cameras]
            truths = _Messages(bag, self._truth) if self._truth else None
            for place, logged in enumerate(self._sweeps):
                try:
                    message = points.at(logged.stamp_ns)
                    used = {
                        view.camera_index: images[view.camera_index].at(
                            logged.images_ns[view.camera_index]
                        )
                        for view in logged.views
                    }
                    frame = rebuilt(logged, message, used)
                except (LookupError, BadBag, MalformedCloud, MalformedImage) as error:
                    self.dropped['missing'] += 1
                    self._differs(place, logged, f'cannot be put together again: {error}')
                    continue
                label = None if truths is None else self._label(truths, logged.stamp_ns)
                first = logged.reset is not None
                yield place, logged, Swept(self.path.name, first, frame, message, label, None)
            for problem in bag.problems:
                note(self.problems, problem)

    def _label(self, truths: _Messages, at_ns: int) -> Any:
        try:
            label = structured_view(truths.at(at_ns))['class_id'].reshape(-1)
        except (LookupError, BadBag, MalformedCloud):
            return None
        if self._label_map is None:
            return label if self._named else None
        return self._label_map.mapped(label, self.path.name, self._named)

    def _compare(self, place: int, logged: LoggedSweep, perception: Perception) -> None:
        self._replayed += 1
        if not logged.digests:
            return
        self._compared += 1
        own = digests(perception)
        different = [name for name, digest in logged.digests.items() if own.get(name) != digest]
        if different:
            self._differs(place, logged, f'differs in {", ".join(different)}')
        else:
            self._identical += 1

    def _differs(self, place: int, logged: LoggedSweep, how: str) -> None:
        sentence = f'sweep {place + 1} of the log, stamp {logged.stamp_ns} ns, {how}'
        self._difference = self._difference or sentence


class _Messages:
    """The messages of a topic by their own stamps."""

    def __init__(self, bag: Bag, topic: str) -> None:
        self._bag, self._topic = bag, topic
        self._recorded: dict[int, int] = {}
        for message in bag.messages([topic]):
            try:
                at_ns = stamp_ns(bag.deserialise(message))
            except BadBag as error:
                note(bag.problems, str(error))
            else:
                self._recorded.setdefault(at_ns, message.bag_stamp_ns)

    def at(self, at_ns: int | None) -> Any:
        """Read the message of a stamp.

        Raises:
            LookupError: There is none.

        """
        if at_ns in self._recorded:
            for message in self._bag.messages_at(self._topic, self._recorded[at_ns]):
                content = self._bag.deserialise(message)
                if stamp_ns(content) == at_ns:
                    return content
        msg = f'{self._topic} has no message of the stamp {at_ns} ns'
        raise LookupError(msg)
