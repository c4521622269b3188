# SPDX-License-Identifier: Apache-2.0
"""Scores of labelled points against their ground truth: confusion, IoU of each class, mIoU."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

UNKNOWN = 255


class SegmentationScores:
    """Adds up points, sweep by sweep.

    Attributes:
        class_names: Classes of the truth; ids are positions.
        confusion: (C, C + 1) int64 point counts: rows truth, columns answer, the last one unknown.

    """

    def __init__(self, class_names: tuple[str, ...]) -> None:
        """Start with no points."""
        self.class_names = class_names
        count = len(class_names)
        self.confusion: NDArray[np.int64] = np.zeros((count, count + 1), np.int64)

    @property
    def points(self) -> int:
        """Number of points scored."""
        return int(self.confusion.sum())

    def add(self, truth: NDArray[np.uint8], answer: NDArray[np.uint8]) -> None:
        """Count the points of one sweep.

        Args:
            truth: (P,) class ids; points of 255 are left out.
            answer: (P,) class ids; any that is not a class of the truth counts as unknown.

        Raises:
            ValueError: The lengths differ, or the truth has an id without a name.

        """
        if truth.shape != answer.shape:
            msg = f'{answer.shape} answers for {truth.shape} true labels: give one for each point'
            raise ValueError(msg)
        count = len(self.class_names)
        nameless = (truth >= count) & (truth != UNKNOWN)
        if nameless.any():
            msg = (
                f'the truth has the class id {truth[nameless].max()}, but only {count} classes '
                'have names: name all of them'
            )
            raise ValueError(msg)
        rows = np.minimum(truth, count).astype(np.intp)
        pairs = rows * (count + 1) + np.minimum(answer, count)
        counts = np.bincount(pairs, minlength=(count + 1) ** 2)
        self.confusion += counts.reshape(count + 1, count + 1)[:count]

    def class_iou(self) -> dict[str, float | None]:
        """Intersection over union of each class; None where the truth has no point of it."""
        hits = np.diagonal(self.confusion)
        truth = self.confusion.sum(axis=1)
        union = truth + self.confusion[:, :-1].sum(axis=0) - hits
        return {
            name: float(hits[i] / union[i]) if truth[i] else None
            for i, name in enumerate(self.class_names)
        }

    def miou(self) -> float | None:
        """Mean IoU of the classes that the truth has; None where it has none."""
        present = [iou for iou in self.class_iou().values() if iou is not None]
        return sum(present) / len(present) if present else None

    def absent(self) -> tuple[str, ...]:
        """Classes without a point in the truth."""
        return tuple(name for name, iou in self.class_iou().items() if iou is None)


def ids_by_name(answered: tuple[str, ...], wanted: tuple[str, ...]) -> NDArray[np.uint8]:
    """Translate class ids between two lists of names.

    Args:
        answered: Names behind the ids at hand.
        wanted: Names behind the ids asked for.

    Returns:
        (256,) the wanted id of each id at hand, 255 where the name is not among those wanted.

    """
    table = np.full(256, UNKNOWN, np.uint8)
    for position, name in enumerate(answered):
        if name in wanted:
            table[position] = wanted.index(name)
    return table
