# SPDX-License-Identifier: Apache-2.0
"""The sweeps of a recording, or of the logs of an index, with their labels by name."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cross4d_jepa_ros.bag_frames import BagFrames, truth_class_names, truth_topic
from cross4d_jepa_ros.bag_setup import BagSetup, settle
from cross4d_jepa_ros.bags import Bag, note
from cross4d_jepa_ros.sensing.deskewing import in_base
from cross4d_jepa_ros.sensing.frames import CameraView, SensorFrame
from cross4d_jepa_ros.sensing.images import MalformedImage, decode_image
from cross4d_jepa_ros.sensing.point_clouds import CloudConfig, CloudDecoder, MalformedCloud
from offline_training.label_map import LabelMap
from offline_training.logs.bag_index import BagChoice
from offline_training.logs.kitti_folder import KittiFolder, is_kitti
from offline_training.logs.table import BadIndex, Index, IndexedSweep

INDEX_SUFFIX = '.parquet'


@dataclass(frozen=True)
class Swept:
    """One sweep of a source.

    Attributes:
        log: Which log it is of.
        first: Whether it is the first of its log: nothing before belongs to it.
        frame: With an image of each camera that has one near enough.
        message: The PointCloud2, P points.
        label: (P,) uint8 positions in the source's class names, 255 where unknown, in the order of
            the message; None where the source has no labels of this sweep.
        speed: (P,) m/s of what each point lies on, where the recording knows; else None.

    """

    log: str
    first: bool
    frame: SensorFrame
    message: Any
    label: NDArray[np.uint8] | None
    speed: NDArray[np.float32] | None


class Source:
    """A recording, or the logs of an index one after another.

    Recordings go through the node's own synchroniser and assembler (`BagFrames`), KITTI folders
    through their rows of the index. Every iteration reads anew.

    Args:
        path: What `Bag` opens, or an index (.parquet).
        choice: Topics and calibration, of every recording of an index too; where it names no
            topics those of the index are taken, or found by rule. Its stride is not looked at.
        label_map: Of labels to names; None where recordings name the classes of their truth.
        bag: Opens a recording.

    Attributes:
        class_names: Of the labels; () where there are none.
        cameras: Image topics of the log at hand, by camera index.
        dropped: Sweeps of the last iteration that gave no frame, by cause.
        problems: What of it cannot be read or scored; grows while it is read.

    Raises:
        BadBag: Nothing can be read.
        BadIndex: The index cannot be used.
        UnfitBag: A topic is not there, or not unique.
        BadLabels: The label map does not list a label.
        ValueError: The logs name different classes.

    """

    def __init__(
        self,
        path: Path,
        choice: BagChoice,
        label_map: LabelMap | None = None,
        bag: type[Bag] = Bag,
    ) -> None:
        self.path = path
        self.cameras: tuple[str, ...] = ()
        self.dropped: Counter[str] = Counter()
        self.problems: list[str] = []
        self._choice, self._label_map, self._bag = choice, label_map, bag
        self._logs = _logs_of(path)
        self.class_names = self._class_names()

    @property
    def logs(self) -> tuple[str, ...]:
        """Names of the logs."""
        return tuple(self._logs)

    def __len__(self) -> int:
        """Sweeps that there will be if none is dropped."""
        total = 0
        for path, rows in self._logs.values():
            if rows:
                total += sum(row.usable for row in rows)
            else:
                with self._bag(path) as bag, tempfile.TemporaryDirectory() as folder:
                    total += bag.topics[self._setup(bag, (), Path(folder)).points].count
        return total

    def __iter__(self) -> Iterator[Swept]:
        """Yield the sweeps as the node would have begun to work on them, log by log."""
        self.dropped = Counter()
        for log, (path, rows) in self._logs.items():
            first = True
            of_log = (
                self._kitti(log, path, rows) if is_kitti(path) else self._bagged(log, path, rows)
            )
            for swept in of_log:
                yield replace(swept, first=first)
                first = False

    def shared_log(self, other: Source) -> Path | None:
        """Say where a log lies that both have a sweep of; None where they have none in common."""
        theirs = {path.resolve(): rows for path, rows in other._logs.values()}
        for path, rows in self._logs.values():
            if path.resolve() not in theirs:
                continue
            # Without rows it is all of a recording.
            stamps = [{row.stamp_ns for row in some} for some in (rows, theirs[path.resolve()])]
            if not all(stamps) or stamps[0] & stamps[1]:
                return path
        return None

    def _class_names(self) -> tuple[str, ...]:
        if self._label_map is not None:
            return self._label_map.names
        found: dict[tuple[str, ...], str] = {}
        for log, (path, rows) in self._logs.items():
            if not is_kitti(path):
                with self._bag(path) as bag:
                    topic, names = truth_topic(bag), truth_class_names(bag)
                if topic:
                    found[names] = log
                    if not names:
                        note(self.problems, f'the classes of {topic} have no names: give --labels')
            elif any(row.labels for row in rows):
                note(self.problems, f'the labels of {log} are numbers: name them with --labels')
        if len(found) > 1:
            lists = '; '.join(
                f'{log}: {", ".join(names) or "none"}' for names, log in found.items()
            )
            msg = f'the logs of {self.path} name different classes ({lists}): give --labels'
            raise ValueError(msg)
        return next(iter(found), ())

    def _setup(self, bag: Bag, rows: Sequence[IndexedSweep], folder: Path) -> BagSetup:
        choice = self._choice
        images = choice.images
        if images is None and rows:
            images = tuple(filter(None, _indexed_cameras(rows)))
        return settle(
            bag,
            points=choice.points or (rows[0].topic if rows else ''),
            images=images,
            camera_infos=choice.camera_infos,
            odometry=choice.odometry,
            extrinsics=choice.extrinsics,
            folder=folder,
        )

    def _bagged(self, log: str, path: Path, rows: Sequence[IndexedSweep]) -> Iterator[Swept]:
        with self._bag(path) as bag, tempfile.TemporaryDirectory() as folder:
            truth = truth_topic(bag)
            named = truth_class_names(bag)
            setup = self._setup(bag, rows, Path(folder))
            self.cameras = setup.images
            wanted = {row.stamp_ns for row in rows if row.usable} if rows else None
            frames = BagFrames(bag, setup, truth=truth, wanted_ns=wanted)
            for made in frames:
                columns = made.truth or {}
                label = self._named(columns.get('class_id'), named, log)
                speed = columns.get('speed')
                yield Swept(log, False, made.frame, made.message, label, speed)
            self.dropped += frames.dropped
            for problem in bag.problems:
                note(self.problems, problem)

    def _kitti(self, log: str, path: Path, rows: Sequence[IndexedSweep]) -> Iterator[Swept]:
        folder = KittiFolder(path)
        self.cameras = _indexed_cameras(rows)
        for row in rows:
            if not row.usable:
                continue
            try:
                message, frame = _kitti_frame(folder, row)
            except (MalformedCloud, MalformedImage, OSError) as error:
                msg = f'{path} is not as it was when it was indexed ({error}): index it again'
                raise BadIndex(msg) from error
            label = folder.labels(row) if row.labels else None
            yield Swept(log, False, frame, message, self._named(label, (), log), None)
        for problem in folder.problems:
            note(self.problems, problem)

    def _named(
        self, label: NDArray[Any] | None, names: tuple[str, ...], source: str
    ) -> NDArray[np.uint8] | None:
        """Translate the labels of a recording, which names them or does not, to class names."""
        if label is None or not self.class_names:
            return None
        if self._label_map is None:
            return label.astype(np.uint8)
        return self._label_map.mapped(label, source, names)


def _logs_of(path: Path) -> dict[str, tuple[Path, list[IndexedSweep]]]:
    """Paths of the logs by name, and their rows; none of a recording by itself."""
    if path.suffix != INDEX_SUFFIX:
        if is_kitti(path):
            msg = f'{path} is a KITTI folder: index it first, python -m offline_training.index_bags'
            raise BadIndex(msg)
        return {path.name: (path, [])}
    index = Index.load(path)
    return {
        log: (index.path_of(of_log[0]), of_log)
        for log, rows in groupby(index.rows, key=lambda row: row.log)
        if (of_log := list(rows))
    }


def _indexed_cameras(rows: Sequence[IndexedSweep]) -> tuple[str, ...]:
    """Image topics of a log, by camera index; of a camera without any image: ''."""
    columns = zip(*(row.shots for row in rows), strict=True)
    return tuple(next((shot.topic for shot in shots if shot), '') for shots in columns)


def _kitti_frame(folder: KittiFolder, row: IndexedSweep) -> tuple[Any, SensorFrame]:
    message = folder.cloud(row)
    decoder = CloudDecoder(CloudConfig(), intensity_ceiling=row.intensity_ceiling)
    sweep = replace(decoder.decode(message), frame_id=row.frame_id)
    views = tuple(
        CameraView(
            camera,
            decode_image(folder.image(shot)),
            shot.stamp_ns,
            shot.camera,
            shot.camera_from_base,
        )
        for camera, shot in enumerate(row.shots)
        if shot is not None
    )
    frame = SensorFrame(
        row.stamp_ns,
        sweep,
        in_base(sweep, row.base_from_sensor, row.stamp_from_knot),
        row.base_from_sensor,
        row.fixed_from_base,
        views,
        row.stamp_from_knot,
    )
    return message, frame
