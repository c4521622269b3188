# SPDX-License-Identifier: Apache-2.0
"""Labelled sweeps of recordings, as the network sees them, in compact files on disk.

One file holds one recording. A point takes 13 bytes: coordinates in steps of 2 mm; intensity,
colour, label and whether it moves in one byte each.
"""

from __future__ import annotations

import bisect
import copy
import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from cross4d_jepa_ros.bag_frames import BagFrame, BagFrames, truth_class_names, truth_topic
from cross4d_jepa_ros.bag_setup import IMAGE_TYPES, UnfitBag, settle
from cross4d_jepa_ros.bags import Bag
from cross4d_jepa_ros.files import write_atomically
from cross4d_jepa_ros.segmentation_scores import UNKNOWN
from cross4d_jepa_ros.sensing.point_colours import sample_colours
from offline_training.checked_tensors import Damaged, checked, read_about

# Part of the files' names: raised by every change of what they hold.
FORMAT = 2
GRID_M = 0.002
# What a coordinate in steps of GRID_M holds in 16 bits.
MAX_RANGE_M = 65.0
# What is slower stands.
MOVING_M_S = 0.5


class BadSweeps(ValueError):
    """A file of sweeps cannot be used; the sentence names it and what to do."""


@dataclass(frozen=True)
class LabelledSweep:
    """The points of one sweep.

    Attributes:
        xyz: (N, 3) float32 m, base frame, the ground near z = 0.
        intensity: (N,) float32 in [0, 1]; None where the sensor has none.
        rgb: (N, 4) float32: red, green, blue in [0, 1] and 1, or zeros where no image sees it.
        label: (N,) uint8 class id, 255 where unknown.
        moving: (N,) uint8: 1 on things faster than MOVING_M_S, 0 elsewhere, 255 where unknown.
        fixed_from_base: (4, 4) pose at `stamp_ns`, m; None without ego-motion.

    """

    stamp_ns: int
    xyz: NDArray[np.float32]
    intensity: NDArray[np.float32] | None
    rgb: NDArray[np.float32]
    label: NDArray[np.uint8]
    moving: NDArray[np.uint8]
    fixed_from_base: NDArray[np.float64] | None


def labelled_frames(path: Path, class_names: tuple[str, ...], *, stride: int) -> Iterator[BagFrame]:
    """Read every `stride`-th sweep of a recording with all its images and its truth.

    Args:
        path: rosbag2 folder.
        class_names: What its truth has to count.
        stride: 1 for every sweep.

    Raises:
        UnfitBag: It carries no truth, or not of every sweep, or that of other classes.

    """
    with Bag(path) as bag, tempfile.TemporaryDirectory() as folder:
        truth = truth_topic(bag)
        named = truth_class_names(bag)
        if not truth or named != class_names:
            msg = (
                f'{path} has truth on {truth or "no topic"} for the classes '
                f'{", ".join(named) or "none"}; wanted are {", ".join(class_names)}'
            )
            raise UnfitBag(msg)
        setup = settle(
            bag,
            points='',
            images=sorted(t.name for t in bag.topics.values() if t.msgtype in IMAGE_TYPES),
            camera_infos=(),
            odometry='',
            extrinsics=None,
            folder=Path(folder),
        )
        for swept in BagFrames(bag, setup, truth=truth, stride=stride):
            if swept.truth is None:
                msg = f'{path} has no truth for the sweep of {swept.frame.stamp_ns} ns on {truth}'
                raise UnfitBag(msg)
            yield swept


def read_recording(
    path: Path, class_names: tuple[str, ...], *, stride: int, range_m: float
) -> Iterator[LabelledSweep]:
    """Read every `stride`-th sweep of a recording as the network sees it.

    Args:
        path: rosbag2 folder.
        class_names: What its truth has to count.
        stride: 1 for every sweep.
        range_m: Points farther than this from the base frame's origin are left out.

    Raises:
        UnfitBag: As `labelled_frames`.

    """
    for swept in labelled_frames(path, class_names, stride=stride):
        frame = swept.frame
        assert swept.truth is not None
        xyz = frame.xyz_base
        seen = np.einsum('ij,ij->i', xyz, xyz) <= range_m**2
        intensity = frame.sweep.intensity
        index = frame.sweep.index[seen]
        moving = np.full(len(index), UNKNOWN, np.uint8)
        if 'speed' in swept.truth:
            moving[:] = swept.truth['speed'][index] > MOVING_M_S
        yield LabelledSweep(
            stamp_ns=frame.stamp_ns,
            xyz=xyz[seen],
            intensity=None if intensity is None else intensity[seen],
            rgb=sample_colours(xyz[seen], frame.views),
            label=swept.truth['class_id'][index],
            moving=moving,
            fixed_from_base=frame.fixed_from_base,
        )


def write_sweeps(path: Path, sweeps: Sequence[LabelledSweep]) -> None:
    """Write the file of a recording, atomically.

    Args:
        path: Target.
        sweeps: In the order of their stamps; either all have an intensity or none has, and so
            with poses.

    Raises:
        ValueError: There is no sweep, some only have an intensity or a pose, or a point is
            farther away than MAX_RANGE_M.

    """
    if not sweeps:
        msg = f'{path} would hold no sweep: the recording is too short or has no truth'
        raise ValueError(msg)
    xyz = np.concatenate([sweep.xyz for sweep in sweeps])
    if np.abs(xyz).max(initial=0) > MAX_RANGE_M:
        msg = f'a point is {np.abs(xyz).max():.1f} m away, the most is {MAX_RANGE_M} m: cut range_m'
        raise ValueError(msg)
    columns: dict[str, NDArray[Any]] = {
        'start': np.cumsum([0] + [len(sweep.xyz) for sweep in sweeps]).astype(np.int64),
        'stamp_ns': np.array([sweep.stamp_ns for sweep in sweeps], np.int64),
        'xyz': np.rint(xyz / GRID_M).astype(np.int16),
        'rgb': _bytes(np.concatenate([sweep.rgb for sweep in sweeps])),
        'label': np.concatenate([sweep.label for sweep in sweeps]),
        'moving': np.concatenate([sweep.moving for sweep in sweeps]),
    }
    intensity = _of_all(path, 'an intensity', [sweep.intensity for sweep in sweeps])
    if intensity:
        columns['intensity'] = _bytes(np.concatenate(intensity))
    poses = _of_all(path, 'a pose', [sweep.fixed_from_base for sweep in sweeps])
    if poses:
        columns['fixed_from_base'] = np.stack(poses)
    write_atomically(path, checked(columns, {}))


def _of_all(path: Path, what: str, values: Sequence[NDArray[Any] | None]) -> list[NDArray[Any]]:
    present = [value for value in values if value is not None]
    if len(present) not in (0, len(values)):
        msg = f'{path}: {len(present)} of {len(values)} sweeps have {what}, all or none must'
        raise ValueError(msg)
    return present


class SweepFiles:
    """The sweeps of some files of `write_sweeps`, read when asked for.

    Args:
        paths: Files, in order; each is one recording. All of each is read once, for its checksum.

    Raises:
        BadSweeps: One is not there or damaged.

    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = tuple(paths)
        for path in paths:
            try:
                read_about(path, older=())
            except Damaged as error:
                msg = f'{path} is damaged ({error}): delete it, and it is made again'
                raise BadSweeps(msg) from error
        self._files = [safe_open(str(path), 'np') for path in paths]
        # Of `with_fraction`: sweeps that keep labels; of the only one, the share and a seed.
        self._kept: dict[int, tuple[float, int]] | None = None
        self._starts: list[NDArray[np.int64]] = [file.get_tensor('start') for file in self._files]
        self._first = np.cumsum([0] + [len(start) - 1 for start in self._starts]).tolist()

    def __len__(self) -> int:
        return int(self._first[-1])

    @property
    def recordings(self) -> list[range]:
        """Positions of the sweeps of each recording."""
        return [range(first, last) for first, last in pairwise(self._first)]

    def __getitem__(self, position: int) -> LabelledSweep:
        number, local = self._found(position)
        file, start = self._files[number], self._starts[number]
        points = slice(*start[local : local + 2].tolist())
        names = file.keys()
        intensity = pose = None
        if 'intensity' in names:
            intensity = file.get_slice('intensity')[points].astype(np.float32) / np.float32(255)
        if 'fixed_from_base' in names:
            pose = file.get_tensor('fixed_from_base')[local]
        return LabelledSweep(
            stamp_ns=int(file.get_tensor('stamp_ns')[local]),
            xyz=file.get_slice('xyz')[points].astype(np.float32) * np.float32(GRID_M),
            intensity=intensity,
            rgb=file.get_slice('rgb')[points].astype(np.float32) / np.float32(255),
            label=self._labels(position),
            moving=file.get_slice('moving')[points],
            fixed_from_base=pose,
        )

    def _labels(self, position: int) -> NDArray[np.uint8]:
        number, local = self._found(position)
        points = slice(*self._starts[number][local : local + 2].tolist())
        share, seed = (1.0, 0) if self._kept is None else self._kept.get(position, (0.0, 0))
        if not share:
            return np.full(points.stop - points.start, UNKNOWN, np.uint8)
        label: NDArray[np.uint8] = self._files[number].get_slice('label')[points]
        if share == 1:
            return label
        known = np.flatnonzero(label != UNKNOWN)
        order = np.random.default_rng((seed, position)).permutation(known)
        label[order[math.ceil(share * len(known)) :]] = UNKNOWN
        return label

    def window(self, position: int, sweeps: int) -> list[LabelledSweep]:
        """Read a sweep and those before it in its recording.

        Args:
            position: Of the newest.
            sweeps: How many at most; fewer where the recording begins.

        Returns:
            Oldest first.

        Raises:
            IndexError: There is no sweep at `position`.

        """
        before = min(self._found(position)[1], sweeps - 1)
        return [self[earlier] for earlier in range(position - before, position + 1)]

    def _found(self, position: int) -> tuple[int, int]:
        """Number of the file, and of the sweep in it."""
        if not 0 <= position < len(self):
            msg = f'sweep {position} of {len(self)}'
            raise IndexError(msg)
        number = bisect.bisect_right(self._first, position) - 1
        return number, position - self._first[number]

    def with_fraction(self, fraction: float, seed: int) -> SweepFiles:
        """Return the same sweeps, most of them without their labels.

        Labels are kept by whole sweeps, the same share of each recording's as far as that goes;
        where the fraction is less than one sweep, by points of one. With equal seeds a smaller
        fraction's labels are among those of a larger one.

        Args:
            fraction: Of the sweeps with labels, above 0 and up to 1.
            seed: Of the draw.

        Raises:
            ValueError: The fraction is out of its bounds, or there are no labels.

        """
        if not 0 < fraction <= 1:
            msg = f'label_fraction is {fraction}: give more than 0, up to 1'
            raise ValueError(msg)
        labelled = self.labelled
        if not len(labelled):
            msg = 'no sweep has labels: nothing can be learnt from them'
            raise ValueError(msg)
        parts = [
            labelled[(labelled >= recording.start) & (labelled < recording.stop)].tolist()
            for recording in self.recordings
        ]
        order = label_order(parts, seed)
        count = fraction * len(order)
        share = min(1.0, count)
        less = copy.copy(self)
        less._kept = dict.fromkeys(order[: max(1, round(count))], (share, seed))
        return less

    @property
    def labelled(self) -> NDArray[np.int64]:
        """Positions of the sweeps with a known label, ascending."""
        there = [pos for pos in range(len(self)) if (self._labels(pos) != UNKNOWN).any()]
        return np.array(there, np.int64)

    def label_counts(self) -> NDArray[np.int64]:
        """Points of each label over all sweeps, (256,)."""
        total = np.zeros(256, np.int64)
        for position in range(len(self)):
            total += np.bincount(self._labels(position), minlength=256)
        return total

    def moving_counts(self, labels: Sequence[int]) -> NDArray[np.int64]:
        """Points of each value of `moving`, (256,), among those of some labels."""
        total = np.zeros(256, np.int64)
        for position in range(len(self)):
            number, local = self._found(position)
            points = slice(*self._starts[number][local : local + 2].tolist())
            chosen = np.isin(self._labels(position), labels)
            moving = self._files[number].get_slice('moving')[points]
            total += np.bincount(moving[chosen], minlength=256)
        return total


def label_order(recordings: Sequence[Sequence[int]], seed: int) -> list[int]:
    """Draw the order in which sweeps are labelled.

    Every beginning of it has the same share of each recording's sweeps, as far as that goes.

    Args:
        recordings: Positions of the sweeps of each.
        seed: Of the draw.

    Returns:
        All of these positions.

    """
    draw = np.random.default_rng(seed)
    turn: list[tuple[float, int]] = []
    offsets = draw.permutation(len(recordings)) / len(recordings)
    for recording, offset in zip(recordings, offsets.tolist(), strict=True):
        own = draw.permutation(np.array(recording, np.int64)).tolist()
        turn += [((rank + offset) / len(own), position) for rank, position in enumerate(own)]
    return [position for _, position in sorted(turn)]


def _bytes(unit: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.rint(unit * 255).astype(np.uint8)
