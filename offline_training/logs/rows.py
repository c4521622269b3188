# SPDX-License-Identifier: Apache-2.0
"""From the messages of one log to its rows of the index, and to what there is to say of it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from cross4d_jepa_ros.calibration_check import LEAST_COVERAGE, PATCH_PX, placed
from cross4d_jepa_ros.correspondence import correspond
from cross4d_jepa_ros.model.live_memory import MAX_GAP_S, SweepStream
from cross4d_jepa_ros.sensing.frames import FrameAssembler, NoTransform, SensorFrame
from cross4d_jepa_ros.sensing.point_clouds import MalformedCloud, stamp_ns
from offline_training.logs import table
from offline_training.logs.table import IndexedSweep, Shot

# A step between sweeps longer than this many usual ones is a gap.
GAP_STEPS = 1.5


class Message(NamedTuple):
    """A message and where it is read again."""

    content: Any
    message_ns: int


@dataclass
class CameraFindings:
    """What one camera has given.

    Attributes:
        images: Images in the log.
        offsets_ns: Of every usable sweep, stamp of the nearest image less its own; None where
            there is none at all near it in the recording.
        sentence: Why the first image that could not be used could not.
        ahead: Of each sweep that is hardly covered, the share of its points in front of the
            camera.
        inside: Likewise, the share that falls into the image, hidden or not.

    """

    topic: str
    images: int = 0
    offsets_ns: list[int | None] = field(default_factory=list)
    sentence: str = ''
    ahead: list[float] = field(default_factory=list)
    inside: list[float] = field(default_factory=list)


@dataclass
class LogFindings:
    """The rows of one log in recording order, and what cannot be seen from them.

    Attributes:
        log: Name in the index.
        notes: What is wrong with points or ego-motion: cause to (first sentence, sweeps).
        problems: What is wrong with the log as a whole.

    """

    log: str
    cameras: list[CameraFindings]
    rows: list[IndexedSweep] = field(default_factory=list)
    notes: dict[str, tuple[str, int]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


class RowBuilder:
    """Makes the rows of one log, sweep by sweep in recording order.

    Args:
        log: Name in the index.
        topic: Of the clouds.
        cameras: Image topics.
        assembler: The live node's, of this log alone.

    """

    def __init__(
        self, log: str, topic: str, cameras: Sequence[str], assembler: FrameAssembler
    ) -> None:
        self.findings = LogFindings(log, [CameraFindings(camera) for camera in cameras])
        self._topic = topic
        self._assembler = assembler
        self._stream = SweepStream()
        self._last: IndexedSweep | None = None
        self._segment = 0

    def settle(self, points: Any) -> None:
        """Let a sweep that gets no row settle ground and intensity, as the live node would."""
        try:
            self._assembler.assemble(points, (), views=False)
        except (MalformedCloud, NoTransform):
            pass

    def add(
        self,
        points: Message,
        images: Sequence[Message | None],
        offsets_ns: Sequence[int | None],
        labels: str,
    ) -> None:
        """Add the row of a sweep.

        Args:
            points: PointCloud2-like.
            images: Image- or CompressedImage-like message of each camera, near enough in time.
            offsets_ns: Of each camera's nearest image, near enough or not.
            labels: Where the row's labels are; '' for none.

        """
        at_ns = stamp_ns(points.content)
        last = self._last
        if last is not None and at_ns == last.stamp_ns:
            self._add_unusable(points, at_ns, table.DUPLICATE_STAMP)
            return
        if last is not None and (at_ns - last.stamp_ns) / 1e9 < -MAX_GAP_S:
            self._assembler.reset()
        try:
            frame = self._assembler.assemble(
                points.content, [image and image.content for image in images], views=True
            )
        except MalformedCloud as error:
            self._note(table.TRUNCATED_CLOUD, str(error))
            self._add_unusable(points, at_ns, table.TRUNCATED_CLOUD)
            return
        except NoTransform as error:
            self._note(table.NO_TRANSFORM, str(error))
            self._add_unusable(points, at_ns, table.NO_TRANSFORM)
            return
        if not len(frame.xyz_base):
            self._add_unusable(points, at_ns, table.EMPTY_CLOUD)
            return
        for cause, sentence in self._assembler.notes.items():
            if not cause.startswith('image'):
                self._note(cause, sentence)
        for camera, offset_ns in zip(self.findings.cameras, offsets_ns, strict=True):
            camera.offsets_ns.append(offset_ns)
        shots, coverage = self._shots(frame, images)
        row = IndexedSweep(
            log=self.findings.log,
            topic=self._topic,
            frame_id=frame.sweep.frame_id,
            stamp_ns=at_ns,
            message_ns=points.message_ns,
            points=len(frame.xyz_base),
            base_from_sensor=frame.base_from_sensor,
            fixed_from_base=frame.fixed_from_base,
            stamp_from_knot=frame.stamp_from_knot,
            intensity_ceiling=frame.sweep.intensity_ceiling,
            shots=shots,
            coverage=coverage,
            flags=(*self._image_flags(images, shots), *self._motion_flags(frame)),
            segment=0,
            labels=labels,
        )
        breaks = self._breaks(row)
        row = replace(row, segment=self._segment, flags=(*row.flags, *breaks))
        self.findings.rows.append(row)
        self._last = row

    def add_unreadable(self, message_ns: int, sentence: str) -> None:
        """Add the row of a sweep whose message does not deserialise; its stamp is not known."""
        self._note(table.TRUNCATED_CLOUD, sentence)
        self._add_unusable(Message(None, message_ns), message_ns, table.TRUNCATED_CLOUD)

    def finish(self) -> LogFindings:
        """Flag the gaps, which only all sweeps together tell."""
        findings = self.findings
        places = [place for place, row in enumerate(findings.rows) if row.usable]
        steps = {
            place: findings.rows[place].stamp_ns - findings.rows[before].stamp_ns
            for before, place in pairwise(places)
        }
        usual = statistics.median([step for step in steps.values() if step > 0] or [0])
        for place, step in steps.items():
            row = findings.rows[place]
            if step > GAP_STEPS * usual:
                findings.rows[place] = replace(row, flags=(*row.flags, table.GAP))
        return findings

    def _note(self, cause: str, sentence: str) -> None:
        first, count = self.findings.notes.get(cause, (sentence, 0))
        self.findings.notes[cause] = (first, count + 1)

    def _add_unusable(self, points: Message, at_ns: int, flag: str) -> None:
        row = IndexedSweep(
            log=self.findings.log,
            topic=self._topic,
            frame_id='' if points.content is None else str(points.content.header.frame_id),
            stamp_ns=at_ns,
            message_ns=points.message_ns,
            points=0,
            base_from_sensor=np.eye(4),
            fixed_from_base=None,
            stamp_from_knot=None,
            intensity_ceiling=1.0,
            shots=(None,) * len(self.findings.cameras),
            coverage=0.0,
            flags=(flag,),
            segment=self._segment,
            labels='',
        )
        self.findings.rows.append(row)

    def _shots(
        self, frame: SensorFrame, images: Sequence[Message | None]
    ) -> tuple[tuple[Shot | None, ...], float]:
        seen = np.zeros(len(frame.xyz_base), bool)
        shots: list[Shot | None] = [None] * len(images)
        for view in frame.views:
            camera, image = self.findings.cameras[view.camera_index], images[view.camera_index]
            assert image is not None
            visible = correspond(
                frame.xyz_base,
                view.camera,
                view.camera_from_base,
                view.stamp_ns - frame.stamp_ns,
                frame.sweep.time_offset_ns,
                patch_px=PATCH_PX,
            ).point
            seen[visible] = True
            coverage = len(visible) / len(seen)
            if coverage < LEAST_COVERAGE:
                ahead, inside = placed(frame.xyz_base, view.camera, view.camera_from_base)
                camera.ahead.append(ahead)
                camera.inside.append(inside)
            shots[view.camera_index] = Shot(
                topic=camera.topic,
                stamp_ns=view.stamp_ns,
                message_ns=image.message_ns,
                offset_ns=view.stamp_ns - frame.stamp_ns,
                camera=view.camera,
                camera_from_base=view.camera_from_base,
                coverage=coverage,
            )
        return tuple(shots), float(seen.mean())

    def _image_flags(
        self, images: Sequence[Message | None], shots: Sequence[Shot | None]
    ) -> list[str]:
        flags = []
        for number, (camera, image, shot) in enumerate(
            zip(self.findings.cameras, images, shots, strict=True)
        ):
            if image is None:
                flags.append(f'{table.MISSING_IMAGE}:{camera.topic}')
            elif shot is None:
                flags.append(f'{table.UNUSABLE_IMAGE}:{camera.topic}')
                camera.sentence = camera.sentence or self._assembler.notes[f'image{number}']
        return flags

    def _motion_flags(self, frame: SensorFrame) -> list[str]:
        flags = [table.NO_POSE] if 'ego_motion' in self._assembler.notes else []
        offsets = frame.sweep.time_offset_ns
        if offsets is not None and frame.stamp_from_knot is None and offsets.any():
            flags.append(table.NO_DESKEW)
        return flags

    def _breaks(self, row: IndexedSweep) -> list[str]:
        """Begin a new segment where the live node would forget; name what is seen at once."""
        last = self._last
        reason = self._stream.follow(row.stamp_ns, row.frame_id, row.fixed_from_base)
        if not reason or last is None:
            return []
        self._segment += 1
        step_s = (row.stamp_ns - last.stamp_ns) / 1e9
        if step_s < 0:
            return [table.STAMP_REGRESSION]
        if row.frame_id != last.frame_id:
            return [table.FRAME_CHANGE]
        return [table.POSE_JUMP] if step_s <= MAX_GAP_S else []
