# SPDX-License-Identifier: Apache-2.0
"""What a frozen network makes of indexed sweeps, each with those before it, as the live node does.

Labels of the recordings are never asked for.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cross4d_jepa_ros.model.network import Network, SweepInput
from cross4d_jepa_ros.model.tokenizer import Patches
from cross4d_jepa_ros.sensing.frames import CameraView
from cross4d_jepa_ros.sensing.point_colours import sample_colours
from offline_training.logs.bag_index import BagChoice, index_bag
from offline_training.logs.kitti_folder import index_kitti, is_kitti
from offline_training.logs.reader import LogReader, ReadSweep
from offline_training.logs.table import BadIndex, Index, IndexedSweep
from offline_training.objectives.dense_correspondence import answering_rows

# Segment of the index, and position of the sweep in it.
Place = tuple[int, int]


@dataclass(frozen=True)
class AnsweredSweep:
    """One sweep and its point embeddings.

    Attributes:
        patches: Which of the sweep's points the network looks at.
        embedding: (L, C) of these.

    """

    row: IndexedSweep
    read: ReadSweep
    patches: Patches
    embedding: Tensor

    def answering(self) -> NDArray[np.int64]:
        """For each of the N points the row of `embedding` that answers for it, -1 without: (N,)."""
        rows: NDArray[np.int64] = answering_rows(self.patches, len(self.read.xyz)).numpy()
        return rows


class Answers:
    """Sweeps of an index through a network; a context manager.

    Attributes:
        places: Of all usable sweeps.
        index: Where they come from.
        reader: Of that index.

    Args:
        network: In eval mode, on the CPU.
        index: Of the logs.

    Raises:
        BadIndex: No sweep is usable.

    """

    def __init__(self, network: Network, index: Index) -> None:
        self._network = network
        self._segments = index.segments()
        self.places: list[Place] = [
            (number, position)
            for number, segment in enumerate(self._segments)
            for position in range(len(segment))
        ]
        if not self.places:
            msg = f'no sweep of the index in {index.folder} is usable: see the report beside it'
            raise BadIndex(msg)
        self.index = index
        self.reader = LogReader(index)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.reader.close()

    def row(self, place: Place) -> IndexedSweep:
        """Row of the index."""
        return self._segments[place[0]][place[1]]

    def spread(self, count: int) -> list[Place]:
        """At most `count` places, evenly over all."""
        chosen = np.unique(np.linspace(0, len(self.places) - 1, count).astype(int))
        return [self.places[number] for number in chosen]

    def after(self, place: Place) -> Place | None:
        """Place of the next sweep; None where its segment ends."""
        number, position = place
        return (number, position + 1) if position + 1 < len(self._segments[number]) else None

    @torch.inference_mode()
    def answer(self, place: Place) -> AnsweredSweep:
        """Answer a sweep from itself and those before it.

        Raises:
            BadIndex: The log is gone or has changed since it was indexed.

        """
        number, position = place
        config, segment = self._network.config, self._segments[number]
        rows = [segment[at] for at in range(position, -1, -config.sweep_stride)][: config.sweeps]
        reads = [self.reader.sweep(row) for row in reversed(rows)]
        window = [self._input(row, read) for row, read in zip(reversed(rows), reads, strict=True)]
        _, embedding = self._network.forward_window(window)[-1]  # (L, C)
        return AnsweredSweep(rows[0], reads[-1], window[-1].patches, embedding)

    def _input(self, row: IndexedSweep, read: ReadSweep) -> SweepInput:
        patches = self._network.tokenizer.group(torch.from_numpy(read.xyz))
        intensity = rgb = None
        if read.intensity is not None:
            intensity = torch.from_numpy(read.intensity)[patches.kept_point]  # (L,)
        if self._network.config.colour:
            colours = sample_colours(read.xyz, self._views(row))  # (N, 4)
            rgb = torch.from_numpy(colours)[patches.kept_point]  # (L, 4)
        return SweepInput(patches, intensity, rgb, row.stamp_ns, row.fixed_from_base)

    def _views(self, row: IndexedSweep) -> tuple[CameraView, ...]:
        return tuple(
            CameraView(
                camera_index=number,
                image=self.reader.image(row, number),
                stamp_ns=shot.stamp_ns,
                camera=shot.camera,
                camera_from_base=shot.camera_from_base,
            )
            for number, shot in enumerate(row.shots)
            if shot is not None
        )


def add_source(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `index_of`, one of which has to be given."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument('--bag', type=Path, help='recording or KITTI folder')
    source.add_argument('--index', type=Path, help='file of index_bags, for more than one')


def index_of(bag: Path | None, index: Path | None) -> Index:
    """Load an index, or make one of a single recording in memory.

    Args:
        bag: Recording or KITTI folder; its topics must tell themselves.
        index: File of index_bags, where there is no bag.

    Raises:
        BadBag: Nothing in the recording can be read.
        UnfitBag: Its topics do not tell themselves.
        BadIndex: The index is refused, or holds no sweep.

    """
    if bag is None:
        assert index is not None
        return Index.load(index)
    if is_kitti(bag):
        findings = index_kitti(bag, 1, bag.parent, _say_nothing)
    else:
        findings = index_bag(bag, BagChoice(), bag.parent, _say_nothing)
    if not findings.rows:
        msg = f'{bag} has no sweep' + ''.join(f'; {problem}' for problem in findings.problems[:1])
        raise BadIndex(msg)
    return Index(findings.rows, bag.parent)


def _say_nothing(done: int, total: int) -> None:
    """Take what an indexing reports."""
