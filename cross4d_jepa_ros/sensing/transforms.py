# SPDX-License-Identifier: Apache-2.0
"""The tree of coordinate frames over time (REP-105), from TF, odometry and calibration files."""

from __future__ import annotations

import bisect
import math
import threading
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cross4d_jepa_ros.sensing.point_clouds import header_fault
from cross4d_jepa_ros.sensing.point_clouds import stamp_ns as header_stamp_ns
from cross4d_jepa_ros.sensing.poses import (
    FARTHEST_M,
    invert,
    matrix_from_quaternion,
    rigid,
    slerp,
)

_SECOND_NS = 1_000_000_000
_JUMP_BACK_NS = _SECOND_NS
_MAX_SAMPLES = 10_000
_MAX_FRAMES = 1000
_QUATERNION_TOLERANCE = 1e-2
# A velocity from samples closer than this is mostly noise.
_VELOCITY_BASELINE_NS = 1_000_000

_Pose = tuple[float, float, float, float, float, float, float]  # x y z, qx qy qz qw


class TransformError(LookupError):
    """A transform is not known.

    Args:
        message: One sentence.
        kind: `unknown_frame`, `not_connected`, `past` or `future` (known, but not for that stamp).
    """

    def __init__(self, message: str, *, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


class _Edge:
    """parent_from_child, fixed or sampled over time. Not thread-safe."""

    def __init__(self, parent: str, child: str, source: str) -> None:
        self.parent = parent
        self.child = child
        self.source = source  # calibration | static | tf | odometry
        self.fixed: NDArray[np.float64] | None = None
        self.stamps_ns: list[int] = []
        self.poses: list[_Pose] = []

    def insert(self, stamp_ns: int, pose: _Pose, keep_ns: int) -> None:
        if self.stamps_ns and self.stamps_ns[-1] - stamp_ns > _JUMP_BACK_NS:
            self.stamps_ns.clear()
            self.poses.clear()
        at = bisect.bisect_left(self.stamps_ns, stamp_ns)
        replaced = at < len(self.stamps_ns) and self.stamps_ns[at] == stamp_ns
        self.stamps_ns[at : at + replaced] = [stamp_ns]
        self.poses[at : at + replaced] = [pose]
        old = bisect.bisect_left(self.stamps_ns, self.stamps_ns[-1] - keep_ns)
        old = max(old, len(self.stamps_ns) - _MAX_SAMPLES)
        del self.stamps_ns[:old], self.poses[:old]

    def at(self, stamps_ns: NDArray[np.int64], max_extrapolation_ns: int) -> NDArray[np.float64]:
        """parent_from_child (K, 4, 4), or one for all stamps where it does not change."""
        if self.fixed is not None:
            return self.fixed
        known = self.stamps_ns
        first_ns, last_ns = int(stamps_ns.min()), int(stamps_ns.max())
        if known[0] - first_ns > max_extrapolation_ns:
            raise TransformError(
                f'{self} is known only from {(known[0] - first_ns) / 1e9:.3f} s after the wanted '
                f'stamp {first_ns / 1e9:.3f} s',
                kind='past',
            )
        if last_ns - known[-1] > max_extrapolation_ns:
            raise TransformError(
                f'{self} is known only until {(last_ns - known[-1]) / 1e9:.3f} s before the wanted '
                f'stamp {last_ns / 1e9:.3f} s',
                kind='future',
            )
        if len(known) == 1:
            pose = np.array(self.poses, dtype=np.float64)
            return matrix_from_quaternion(pose[:, :3], pose[:, 3:])
        begin = bisect.bisect_left(known, first_ns) - 1
        end = bisect.bisect_left(known, last_ns) + 1
        # Outside the samples the motion between the outermost two goes on.
        if first_ns < known[0]:
            end = max(end, bisect.bisect_left(known, known[0] + _VELOCITY_BASELINE_NS) + 1)
        if last_ns > known[-1]:
            begin = min(begin, bisect.bisect_right(known, known[-1] - _VELOCITY_BASELINE_NS) - 1)
        begin = min(max(begin, 0), len(known) - 2)
        return self._interpolated(stamps_ns, begin, max(end, begin + 2))

    def _interpolated(
        self, stamps_ns: NDArray[np.int64], begin: int, end: int
    ) -> NDArray[np.float64]:
        known_ns = np.array(self.stamps_ns[begin:end], dtype=np.int64)
        poses = np.array(self.poses[begin:end], dtype=np.float64)
        upper = np.searchsorted(known_ns, stamps_ns, side='left').clip(1, len(known_ns) - 1)
        lower = upper - 1
        before, after = stamps_ns < known_ns[0], stamps_ns > known_ns[-1]
        if before.any():
            lower[before] = 0
            start = np.searchsorted(known_ns, known_ns[0] + _VELOCITY_BASELINE_NS)
            upper[before] = min(int(start), len(known_ns) - 1)
        if after.any():
            upper[after] = len(known_ns) - 1
            start = np.searchsorted(known_ns, known_ns[-1] - _VELOCITY_BASELINE_NS, side='right')
            lower[after] = max(int(start) - 1, 0)
        span_ns = known_ns[upper] - known_ns[lower]
        fraction = (stamps_ns - known_ns[lower]) / span_ns
        hold = (before | after) & (span_ns < _VELOCITY_BASELINE_NS)
        fraction[hold] = np.where(before, 0.0, 1.0)[hold]
        first, second = poses[lower], poses[upper]
        shift = first[:, :3] + fraction[:, None] * (second[:, :3] - first[:, :3])
        return matrix_from_quaternion(shift, slerp(first[:, 3:], second[:, 3:], fraction))

    def __str__(self) -> str:
        return f"the transform '{self.parent}' -> '{self.child}'"


class TransformBuffer:
    """Static and moving transforms between named frames; thread-safe.

    Every frame has one parent. What cannot be used (numbers that are not finite, quaternions that
    are not unit, places beyond a million km, names that are empty or longer than 256 characters,
    stamps beyond the year 2255, loops, a second parent, a 1001st frame) is refused: `rejected`
    counts, and `last_rejection` says why. TF wins over odometry for the same pair of frames.
    Between samples, translations go in a straight line and rotations at constant angular velocity.

    Args:
        keep_s: How far behind its newest sample a moving transform is remembered; never more than
            10000 samples.
    """

    def __init__(self, *, keep_s: float = 10.0) -> None:
        self.rejected = 0
        self.last_rejection = ''
        self._keep_ns = round(keep_s * _SECOND_NS)
        self._lock = threading.RLock()
        self._edges: dict[str, _Edge] = {}  # by child

    def add_static(self, parent: str, child: str, parent_from_child: ArrayLike) -> None:
        """Adds a (4, 4) transform from a calibration file: it always holds, whatever TF says."""
        with self._lock:
            try:
                matrix = rigid(parent_from_child)
            except ValueError as error:
                self._reject(parent, child, str(error))
                return
            edge = self._edge(parent, child, 'calibration')
            if edge is not None:
                edge.fixed = matrix

    def add_tf_message(self, msg: Any, *, static: bool) -> None:
        """Adds the transforms of a tf2_msgs/TFMessage-like message."""
        for stamped in msg.transforms:
            transform = stamped.transform
            self._add(
                stamped.header,
                stamped.child_frame_id,
                transform.translation,
                transform.rotation,
                'static' if static else 'tf',
            )

    def add_odometry(self, msg: Any) -> None:
        """Adds the pose of a nav_msgs/Odometry-like message: header.frame_id <- child_frame_id."""
        pose = msg.pose.pose
        self._add(msg.header, msg.child_frame_id, pose.position, pose.orientation, 'odometry')

    def lookup(
        self, target: str, source: str, stamp_ns: int, *, max_extrapolation_ns: int = 0
    ) -> NDArray[np.float64]:
        """Looks up target_from_source (4, 4) at one stamp; see `lookup_many`."""
        one = self.lookup_many(
            target,
            source,
            np.array([stamp_ns], dtype=np.int64),
            max_extrapolation_ns=max_extrapolation_ns,
        )
        return one.reshape(4, 4)

    def lookup_many(
        self,
        target: str,
        source: str,
        stamps_ns: NDArray[np.int64],
        *,
        max_extrapolation_ns: int = 0,
    ) -> NDArray[np.float64]:
        """Looks up where one frame is in another.

        Args:
            target: Frame to map to.
            source: Frame to map from; a frame in itself is the identity, known or not.
            stamps_ns: (K,) when, ns.
            max_extrapolation_ns: How far before the oldest or beyond the newest sample of a moving
                transform its velocity is assumed to go on.

        Returns:
            (K, 4, 4) target_from_source.

        Raises:
            TransformError: If it is not known, or not at one of the stamps.
        """
        result = np.broadcast_to(np.eye(4), (len(stamps_ns), 4, 4))
        if not len(stamps_ns):
            return result.copy()
        with self._lock:
            down, up = self._path(_plain(target), _plain(source))
            for edge in up:
                result = edge.at(stamps_ns, max_extrapolation_ns) @ result
            common_from_target = np.eye(4)
            for edge in down:
                common_from_target = edge.at(stamps_ns, max_extrapolation_ns) @ common_from_target
        return invert(common_from_target) @ result

    def motion_source(self, target: str, source: str) -> str | None:
        """Says what moves one frame in another.

        Returns:
            `tf`, `odometry` (where any part comes from it), `static` where nothing moves, None
            where the frames are not connected.
        """
        with self._lock:
            try:
                down, up = self._path(_plain(target), _plain(source))
            except TransformError:
                return None
            sources = {edge.source for edge in (*down, *up)}
        return next((name for name in ('odometry', 'tf') if name in sources), 'static')

    def moving_ancestors(self, frame: str) -> list[str]:
        """Frames in which this one moves, nearest first: above it in the tree, past a moving edge.

        A wheel or a pan-tilt head below or beside the frame moves it in nothing.
        """
        result: list[str] = []
        moving = False
        with self._lock:
            for child in self._ancestors(_plain(frame)):
                edge = self._edges.get(child)
                if edge is not None:
                    moving = moving or edge.source in ('tf', 'odometry')
                    result += [edge.parent] if moving else []
        return result

    def frames(self) -> list[str]:
        """All frames, sorted."""
        with self._lock:
            return sorted(self._edges.keys() | {edge.parent for edge in self._edges.values()})

    def _add(self, header: Any, child: str, translation: Any, rotation: Any, source: str) -> None:
        parent = header.frame_id
        shift = (float(translation.x), float(translation.y), float(translation.z))
        turn = (float(rotation.x), float(rotation.y), float(rotation.z), float(rotation.w))
        norm = math.hypot(*turn)
        stamp_ns = header_stamp_ns(header)
        with self._lock:
            if fault := header_fault(stamp_ns, max(parent, child, key=len)):
                self._reject(parent, child, fault.rstrip('.'))
            elif not all(abs(part) <= FARTHEST_M for part in shift):
                self._reject(parent, child, f'its translation is {shift}')
            elif not abs(norm - 1) <= _QUATERNION_TOLERANCE:
                self._reject(parent, child, f'its quaternion has norm {norm:.3g} instead of 1')
            elif source != 'static' and stamp_ns <= 0:
                self._reject(parent, child, 'it moves but its stamp is zero')
            else:
                edge = self._edge(parent, child, source)
                x, y, z, w = (part / norm for part in turn)
                if edge is None:
                    return
                if source == 'static':
                    edge.fixed = matrix_from_quaternion(shift, (x, y, z, w))
                else:
                    edge.insert(stamp_ns, (*shift, x, y, z, w), self._keep_ns)

    def _edge(self, parent: str, child: str, source: str) -> _Edge | None:
        """The edge to write to; None where the tree or a better source forbids it."""
        parent, child = _plain(parent), _plain(child)
        edge = self._edges.get(child)
        if edge is not None and edge.parent == parent:
            if edge.source == source:
                return edge
            if edge.source == 'calibration' or (edge.source, source) == ('tf', 'odometry'):
                return None
            if source != 'calibration' and 'static' in (edge.source, source):
                self._reject(parent, child, f'it is {source} but was {edge.source} before')
                return None
        elif not parent or not child:
            self._reject(parent, child, 'a frame name is empty')
            return None
        elif edge is None and len(self._edges) == _MAX_FRAMES:
            self._reject(parent, child, f'there are {_MAX_FRAMES} frames already')
            return None
        elif any(frame == child for frame in self._ancestors(parent)):
            self._reject(parent, child, 'it closes a loop in the frame tree')
            return None
        elif edge is not None:
            self._reject(parent, child, f"'{child}' already has the parent '{edge.parent}'")
            return None
        self._edges[child] = _Edge(parent, child, source)
        return self._edges[child]

    def _reject(self, parent: str, child: str, reason: str) -> None:
        self.rejected += 1
        names = f"'{parent[:80]}' -> '{child[:80]}'"
        self.last_rejection = f'The transform {names} is ignored: {reason}.'

    def _ancestors(self, frame: str) -> list[str]:
        """The frame itself, its parent and so on to the root."""
        chain = [frame]
        while (edge := self._edges.get(chain[-1])) is not None:
            chain.append(edge.parent)
        return chain

    def _path(self, target: str, source: str) -> tuple[list[_Edge], list[_Edge]]:
        """Edges from the target and from the source up to their nearest common ancestor."""
        if target == source and target:
            return [], []
        known = self.frames()
        for frame in (target, source):
            if frame not in known:
                names = ', '.join(known[:10]) + (', ...' if len(known) > 10 else '')
                raise TransformError(
                    f"the frame '{frame}' is not in the tree (frames: {names or 'none'})",
                    kind='unknown_frame',
                )
        from_target, from_source = self._ancestors(target), self._ancestors(source)
        if from_target[-1] != from_source[-1]:
            raise TransformError(
                f"'{target}' and '{source}' are in separate trees, "
                f"below '{from_target[-1]}' and '{from_source[-1]}'",
                kind='not_connected',
            )
        below_source = set(from_source)
        common = next(frame for frame in from_target if frame in below_source)
        down = [self._edges[frame] for frame in from_target[: from_target.index(common)]]
        up = [self._edges[frame] for frame in from_source[: from_source.index(common)]]
        return down, up


def _plain(frame: str) -> str:
    return frame.lstrip('/')
