# SPDX-License-Identifier: Apache-2.0
"""Labelled sweeps of the recordings that an index names, through a label map."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cross4d_jepa_ros.bag_frames import truth_class_names
from cross4d_jepa_ros.bags import Bag
from cross4d_jepa_ros.segmentation_scores import UNKNOWN
from cross4d_jepa_ros.sensing.frames import CameraView
from cross4d_jepa_ros.sensing.point_colours import sample_colours
from offline_training.label_map import BadLabels, LabelMap
from offline_training.labelled_sweeps import FORMAT, LabelledSweep, SweepFiles, write_sweeps
from offline_training.logs.kitti_folder import LABELS, is_kitti
from offline_training.logs.reader import LogReader
from offline_training.logs.table import Index, IndexedSweep

# Of each log, the share at its end that is held out where nothing else is.
HELD_OUT = 0.15
# Most sweeps of a file: those of one file are in memory at once before they are written.
SWEEPS_PER_FILE = 100


def indexed_sweeps(
    index: Index,
    label_map: LabelMap,
    folder: Path,
    *,
    range_m: float,
    stride: int,
    colour: bool,
    on_sweep: Callable[[], object] = lambda: None,
) -> SweepFiles:
    """Open the labelled sweeps of an index, after writing the files that are not there yet.

    A file holds sweeps that a window may lie in: of one segment, `stride` apart, either all with
    ego-motion or all without. All sweeps are used: with a stride of 2, those of even and of odd
    number are recordings of their own. Where a stretch has no labels at all it is left out.

    Args:
        index: Of `index_bags`.
        label_map: What becomes of its labels.
        folder: For the files.
        range_m: Points farther than this from the base frame's origin are left out.
        stride: Steps between two sweeps that are read together.
        colour: Whether the points get the colour of the images.
        on_sweep: Called after each sweep of the index, written or found.

    Raises:
        BadLabels: There are none, a label is not listed, or labels do not fit their sweep.
        BadIndex: A log is gone or has changed since it was indexed.
        ValueError: A point is farther away than the files hold.
        OSError: The disk refuses.

    """
    paths = []
    with LogReader(index) as reader:
        for rows in stretches(index, stride):
            name = Path(rows[0].log).name or 'log'
            digest = _digest(index, rows, label_map, range_m, colour)
            path = folder / f'{name}_{digest}.safetensors'
            paths.append(path)
            if path.exists():
                for _ in rows:
                    on_sweep()
                continue
            names = _class_names(index, rows[0])
            sweeps = []
            for row in rows:
                sweeps.append(_labelled(reader, index, row, label_map, names, range_m, colour))
                on_sweep()
            write_sweeps(path, sweeps)
    if not paths:
        msg = (
            f'no sweep of the index in {index.folder} has labels: a bag needs a label cloud (uint8 '
            'class_id, no x, y and z, the stamps of the sweeps), a KITTI folder labels/*.label'
        )
        raise BadLabels(msg)
    return SweepFiles(paths)


def without_end(index: Index, share: float = HELD_OUT) -> tuple[Index, Index]:
    """Split each log in time: its beginning to learn from, the last `share` to be held out.

    Raises:
        BadLabels: There are too few sweeps to hold one out.

    """
    learnt: list[IndexedSweep] = []
    held_out: list[IndexedSweep] = []
    for _, of_log in groupby((row for row in index.rows if row.usable), key=lambda row: row.log):
        rows = list(of_log)
        first = len(rows) - round(share * len(rows))
        learnt += rows[:first]
        held_out += rows[first:]
    if not held_out:
        msg = f'the index in {index.folder} has too few sweeps to hold some out: give --held-out'
        raise BadLabels(msg)
    return Index(learnt, index.folder), Index(held_out, index.folder)


def stretches(index: Index, stride: int) -> Iterator[list[IndexedSweep]]:
    """Yield the sweeps of each file, oldest first."""
    for segment in index.segments():
        posed = groupby(segment, key=lambda row: row.fixed_from_base is not None)
        for together in [list(rows) for _, rows in posed]:
            for phase in range(stride):
                alike = together[phase::stride]
                for first in range(0, len(alike), SWEEPS_PER_FILE):
                    rows = alike[first : first + SWEEPS_PER_FILE]
                    if any(row.labels for row in rows):
                        yield rows


def _labelled(
    reader: LogReader,
    index: Index,
    row: IndexedSweep,
    label_map: LabelMap,
    names: tuple[str, ...],
    range_m: float,
    colour: bool,
) -> LabelledSweep:
    read = reader.sweep(row)
    seen = np.einsum('ij,ij->i', read.xyz, read.xyz) <= range_m**2
    xyz = read.xyz[seen]
    label: NDArray[np.uint8] = np.full(len(xyz), UNKNOWN, np.uint8)
    if row.labels:
        where = f'{index.path_of(row)} at {row.stamp_ns} ns'
        try:
            raw = reader.labels(row)
        except IndexError:
            raw = None
        if raw is None:
            msg = f'{where}: {row.labels} has not one label for each point: restore or remove it'
            raise BadLabels(msg)
        label = label_map.mapped(raw[seen], where, names)
    views = [
        CameraView(
            camera, reader.image(row, camera), shot.stamp_ns, shot.camera, shot.camera_from_base
        )
        for camera, shot in enumerate(row.shots if colour else ())
        if shot is not None
    ]
    return LabelledSweep(
        stamp_ns=row.stamp_ns,
        xyz=xyz,
        intensity=None if read.intensity is None else read.intensity[seen],
        rgb=sample_colours(xyz, tuple(views)),
        label=label,
        moving=np.full(len(xyz), UNKNOWN, np.uint8),
        fixed_from_base=row.fixed_from_base,
    )


def _class_names(index: Index, row: IndexedSweep) -> tuple[str, ...]:
    """What the log of a row calls its classes; a KITTI folder only has numbers."""
    if is_kitti(index.path_of(row)):
        return ()
    with Bag(index.path_of(row)) as bag:
        return truth_class_names(bag)


def _digest(
    index: Index, rows: Sequence[IndexedSweep], label_map: LabelMap, range_m: float, colour: bool
) -> str:
    """Tell files apart that hold something else."""
    path = index.path_of(rows[0])
    source = path / LABELS if is_kitti(path) else path
    files = sorted(source.iterdir()) if source.is_dir() else [source]
    settings = [FORMAT, range_m, colour, str(path), [file.stat().st_mtime_ns for file in files]]
    settings += [label_map.names, sorted((str(k), v) for k, v in label_map.ids.items())]
    settings += [label_map.others_ignored]
    digest = hashlib.sha256(json.dumps(settings).encode())
    for row in rows:
        plain = (row.topic, row.stamp_ns, row.message_ns, row.points, row.intensity_ceiling)
        digest.update(json.dumps([*plain, row.labels]).encode())
        for pose in (row.base_from_sensor, row.fixed_from_base, row.stamp_from_knot):
            digest.update(b'-' if pose is None else pose.tobytes())
        for shot in row.shots if colour else ():
            if shot is not None:
                digest.update(
                    json.dumps([shot.topic, shot.message_ns, asdict(shot.camera)]).encode()
                )
                digest.update(shot.camera_from_base.tobytes())
    return digest.hexdigest()[:16]
