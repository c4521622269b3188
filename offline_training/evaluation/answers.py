# SPDX-License-Identifier: Apache-2.0
"""What a pipeline answers to the sweeps of a source, as it would live, and how good it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from cross4d_jepa_ros.pipeline import Output, Perception, Pipeline
from cross4d_jepa_ros.segmentation_scores import UNKNOWN, ids_by_name
from offline_training.evaluation.scores import StreamScores, rounded
from offline_training.evaluation.sources import Swept


def answered(
    pipeline: Pipeline, source: Iterable[Swept], outputs: Output = Output.ALL
) -> Iterator[tuple[Swept, Perception]]:
    """Answer every sweep; the memory is emptied where a log begins.

    Args:
        pipeline: Its memory is emptied first.
        source: Sweeps, log after log.
        outputs: What is to be computed.

    """
    for swept in source:
        if swept.first:
            pipeline.reset()
        yield swept, pipeline.step(swept.frame, outputs)


class AnswerScores:
    """Adds up the answers to a source.

    Attributes:
        sweeps: Answered.
        scores: Against the labels; None where labels and answers share no class.
        problems: What could not be scored.

    """

    def __init__(
        self, class_names: tuple[str, ...], label_names: tuple[str, ...], range_m: float
    ) -> None:
        """Start with no sweeps.

        Args:
            class_names: Of the answers.
            label_names: Of the source's labels.
            range_m: Of the network, from the base frame's origin.

        """
        self.sweeps = 0
        self.problems: list[str] = []
        self.scores: StreamScores | None = None
        self._class_names = class_names
        self._range_m = range_m
        self._translate = ids_by_name(class_names, label_names)
        self._class_points = np.zeros(256, np.int64)
        self._probability = 0.0
        self._points = self._seen = 0
        self._resets: Counter[str] = Counter()
        shared = [name for name in label_names if name in class_names]
        if shared:
            self.scores = StreamScores(label_names)
            missing = [name for name in label_names if name not in shared]
            if missing:
                self.problems.append(
                    f'the model has no class {", ".join(missing)}: all of it scores as wrong'
                )
        elif label_names and class_names:
            self.problems.append(
                f'the labels are not scored: no class name is shared: {", ".join(label_names)} '
                f'against {", ".join(class_names)}'
            )

    def add(self, swept: Swept, perception: Perception) -> None:
        """Count the usable points of one sweep.

        Raises:
            ValueError: A label has no name.

        """
        self.sweeps += 1
        self._resets.update([perception.reset] if perception.reset else [])
        if perception.class_id is None or perception.probability is None:
            return
        frame = swept.frame
        index = frame.sweep.index  # (N,)
        class_id, probability = perception.class_id[index], perception.probability[index]  # (N,)
        xyz = frame.xyz_base
        seen = np.einsum('ij,ij->i', xyz, xyz) <= self._range_m**2  # (N,)
        self._class_points += np.bincount(class_id[seen], minlength=256)
        self._probability += float(probability[seen].sum(dtype=np.float64))
        self._points += len(seen)
        self._seen += int(seen.sum())
        if swept.label is None or self.scores is None:
            return
        offset = xyz[:, :2] - frame.base_from_sensor[:2, 3].astype(np.float32)
        distance_m = np.hypot(offset[:, 0], offset[:, 1])  # (N,)
        answer = self._translate[class_id]  # (N,)
        label = swept.label[index]  # (N,)
        known = class_id != UNKNOWN  # (N,)
        self.scores.add(label, answer, known, probability, distance_m, seen)

    def report(self) -> dict[str, Any]:
        """Lay everything out: what was answered, and how good it is where there are labels."""
        report: dict[str, Any] = {
            'sweeps': self.sweeps,
            'points': self._points,
            'points_out_of_range': self._points - self._seen,
            'resets': dict(sorted(self._resets.items())),
        }
        if self._seen and self._class_names:
            known = self._class_points[: len(self._class_names)]
            report |= {
                'unknown_share': rounded(1 - int(known.sum()) / self._points),
                'unknown_share_in_range': rounded(1 - int(known.sum()) / self._seen),
                'class_share_in_range': {
                    name: rounded(count / self._seen)
                    for name, count in zip(self._class_names, known.tolist(), strict=True)
                },
                'mean_probability_in_range': rounded(self._probability / self._seen),
            }
        if self.scores is not None:
            report['scores'] = self.scores.report()
        return report
