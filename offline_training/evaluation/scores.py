# SPDX-License-Identifier: Apache-2.0
"""Scores of the answers of a stream: over all points, by range, and of their probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cross4d_jepa_ros.segmentation_scores import UNKNOWN, SegmentationScores

# Horizontal distance from the sensor, m.
RANGES_M = ((0, 10), (10, 30), (30, 60))
BINS = 15


class Calibration:
    """Whether probabilities are the share of right answers: points in bins of equal width.

    Attributes:
        count: (BINS,) answers.
        probability: (BINS,) sum of their probabilities.
        right: (BINS,) right ones.

    """

    def __init__(self) -> None:
        """Start with no answers."""
        self.count: NDArray[np.int64] = np.zeros(BINS, np.int64)
        self.probability: NDArray[np.float64] = np.zeros(BINS)
        self.right: NDArray[np.int64] = np.zeros(BINS, np.int64)

    def add(self, probability: NDArray[np.float32], right: NDArray[np.bool_]) -> None:
        """Count answers.

        Args:
            probability: (K,) in [0, 1].
            right: (K,) whether the answer is true.

        """
        place = np.clip((probability * BINS).astype(np.int64), 0, BINS - 1)  # (K,)
        self.count += np.bincount(place, minlength=BINS)
        self.probability += np.bincount(place, probability.astype(np.float64), BINS)
        self.right += np.bincount(place[right], minlength=BINS)

    def error(self) -> float | None:
        """Expected calibration error: mean distance of probability and accuracy over all answers.

        Guo et al., On Calibration of Modern Neural Networks (ICML 2017), equation 3. None where
        there are no answers.
        """
        total = int(self.count.sum())
        return float(np.abs(self.probability - self.right).sum() / total) if total else None

    def rows(self) -> list[dict[str, Any]]:
        """For each bin its bounds, the number of answers, their mean probability and accuracy."""
        rows = []
        for place, count in enumerate(self.count.tolist()):
            row: dict[str, Any] = {'from': place / BINS, 'to': (place + 1) / BINS, 'count': count}
            if count:
                row['mean_probability'] = float(self.probability[place] / count)
                row['accuracy'] = float(self.right[place] / count)
            rows.append(row)
        return rows


class StreamScores:
    """Adds up labelled points, sweep by sweep.

    Attributes:
        overall: All labelled points; those out of the network's range answered unknown.
        in_range: Labelled points within the network's range.
        by_range: As `overall`, by the bounds of `RANGES_M`.
        calibration: Of labelled points that were given a class.

    """

    def __init__(self, class_names: tuple[str, ...]) -> None:
        """Start with no points.

        Args:
            class_names: Of the labels; answers count by the same ids.

        """
        self.overall = SegmentationScores(class_names)
        self.in_range = SegmentationScores(class_names)
        self.by_range = {bounds: SegmentationScores(class_names) for bounds in RANGES_M}
        self.calibration = Calibration()

    def add(
        self,
        label: NDArray[np.uint8],
        answer: NDArray[np.uint8],
        known: NDArray[np.bool_],
        probability: NDArray[np.float32],
        distance_m: NDArray[np.float32],
        seen: NDArray[np.bool_],
    ) -> None:
        """Count the points of one sweep.

        Args:
            label: (N,) true class ids, 255 where unknown.
            answer: (N,) class ids of the same names; 255 where the class is not among them.
            known: (N,) whether the answer was a class at all.
            probability: (N,) of that class.
            distance_m: (N,) horizontally from the sensor.
            seen: (N,) whether the point is within the network's range.

        Raises:
            ValueError: A label has no name.

        """
        self.overall.add(label, answer)
        self.in_range.add(label[seen], answer[seen])
        for (low, high), scores in self.by_range.items():
            inside = (distance_m >= low) & (distance_m < high)
            scores.add(label[inside], answer[inside])
        judged = (label != UNKNOWN) & known
        self.calibration.add(probability[judged], (label == answer)[judged])

    def report(self) -> dict[str, Any]:
        """Lay everything out for a report."""
        names = list(self.overall.class_names)
        return {
            **summary(self.overall),
            'classes_absent': list(self.overall.absent()),
            'in_range_of_network': summary(self.in_range),
            'by_range_m': {
                f'{low}-{high}': summary(scores) for (low, high), scores in self.by_range.items()
            },
            'confusion': {
                'true': names,
                'answered': [*names, 'unknown'],
                'points': self.overall.confusion.tolist(),
            },
            'calibration': {
                'expected_error': rounded(self.calibration.error()),
                'bins': [
                    {name: rounded(value) for name, value in row.items()}
                    for row in self.calibration.rows()
                ],
            },
        }


def summary(scores: SegmentationScores) -> dict[str, Any]:
    """Lay scores out for a report: mIoU, accuracy, IoU of each class, points."""
    return {
        'miou': rounded(scores.miou()),
        'accuracy': rounded(accuracy(scores)),
        'class_iou': {name: rounded(iou) for name, iou in scores.class_iou().items()},
        'points_scored': scores.points,
    }


def accuracy(scores: SegmentationScores) -> float | None:
    """Share of right answers; None without points."""
    right = int(np.diagonal(scores.confusion).sum())
    return right / scores.points if scores.points else None


def rounded(value: Any) -> Any:
    """Six digits behind the point of a float; anything else as it is."""
    return round(value, 6) if isinstance(value, float) else value
