# SPDX-License-Identifier: Apache-2.0
"""Probes of frozen features: fitted on some recordings, judged on others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cross4d_jepa_ros.segmentation_scores import SegmentationScores
from offline_training.evaluation.features import PointFeatures
from offline_training.evaluation.neighbours_probe import NeighboursConfig, nearest_answers
from offline_training.evaluation.scores import RANGES_M, summary
from offline_training.probes import MLP_PROBE, ProbeConfig, fit_probe

LINEAR, LINEAR_RAW, MLP, NEIGHBOURS, NEIGHBOURS_RAW = (
    'linear',
    'linear_raw',
    'mlp',
    'neighbours',
    'neighbours_raw',
)
# Probes that are still on their way favour features of one scale over others.
_LINEAR = ProbeConfig(learning_rate=1e-2, least_steps=2000)
PROBES: dict[str, ProbeConfig | NeighboursConfig] = {
    LINEAR: _LINEAR,
    LINEAR_RAW: replace(_LINEAR, standardised=False),
    MLP: replace(MLP_PROBE, least_steps=2000),
    NEIGHBOURS: NeighboursConfig(),
    NEIGHBOURS_RAW: NeighboursConfig(standardised=False),
}


def probed(
    fit: PointFeatures,
    judged: PointFeatures,
    class_names: tuple[str, ...],
    seed: int,
    probes: tuple[str, ...] = tuple(PROBES),
    on_probe: Callable[[], None] = lambda: None,
) -> dict[str, dict[str, Any]]:
    """Fit probes and judge them.

    Args:
        fit: What they are fitted on.
        judged: What they are judged on. Nearest neighbours are asked about some of it, evenly.
        class_names: Behind the labels of both.
        seed: Of weights and batches.
        probes: Some of `PROBES`.
        on_probe: Called after each.

    Returns:
        For each probe a `summary` of all points, and of those of each range as `by_range_m`.

    """
    rows = {}
    for name in probes:
        config = PROBES[name]
        asked = judged
        if isinstance(config, NeighboursConfig) and len(judged) > config.most:
            asked = judged.at(np.linspace(0, len(judged) - 1, config.most).astype(np.int64))
        answer = answers(config, fit, asked, len(class_names), seed)
        rows[name] = scored(asked, answer, class_names)
        on_probe()
    return rows


def answers(
    config: ProbeConfig | NeighboursConfig,
    fit: PointFeatures,
    judged: PointFeatures,
    classes: int,
    seed: int,
) -> NDArray[np.uint8]:
    """Fit one probe and return the class id (N,) that it gives each of the judged points."""
    if isinstance(config, NeighboursConfig):
        return nearest_answers(config, fit.features, fit.label, judged.features, classes)
    return fit_probe(config, fit.features, fit.label, classes, seed).answer(judged.features)


def scored(
    judged: PointFeatures, answer: NDArray[np.uint8], class_names: tuple[str, ...]
) -> dict[str, Any]:
    """Summarise answers (N,) to the judged points, all of them and those of each range."""
    overall = SegmentationScores(class_names)
    overall.add(judged.label, answer)
    by_range = {}
    for low, high in RANGES_M:
        inside = (judged.range_m >= low) & (judged.range_m < high)
        scores = SegmentationScores(class_names)
        scores.add(judged.label[inside], answer[inside])
        by_range[f'{low}-{high}'] = summary(scores)
    return {**summary(overall), 'by_range_m': by_range}
