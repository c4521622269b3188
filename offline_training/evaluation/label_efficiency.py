# SPDX-License-Identifier: Apache-2.0
"""How good a linear probe gets with few labels: its score over the share of labelled sweeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use('agg')

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

from offline_training.evaluation.feature_probes import LINEAR, PROBES, answers, scored
from offline_training.evaluation.features import PointFeatures
from offline_training.labelled_sweeps import label_order

SHARES = (0.001, 0.01, 0.1, 1.0)
SEEDS = (0, 1, 2)


def labelled_share(points: PointFeatures, share: float, seed: int) -> PointFeatures:
    """Keep the labels of a share of the sweeps.

    What a smaller share keeps, a larger one of the same seed keeps too. A share below one sweep
    keeps one, with that share of its points, at least one.

    Args:
        points: Of all sweeps.
        share: In (0, 1].
        seed: Of `label_order`, and of the points of a single sweep.

    """
    recordings = [
        np.unique(points.sweep[points.recording == number]).tolist()
        for number in np.unique(points.recording)
    ]
    order = label_order(recordings, seed)
    wanted = share * len(order)
    kept = points.at(np.isin(points.sweep, order[: max(1, round(wanted))]))
    if wanted >= 1:
        return kept
    chosen = np.random.default_rng(seed).permutation(len(kept))
    return kept.at(np.sort(chosen[: max(1, round(wanted * len(kept)))]))


def label_efficiency(
    fit: PointFeatures,
    judged: PointFeatures,
    class_names: tuple[str, ...],
    seeds: Sequence[int] = SEEDS,
    on_probe: Callable[[], None] = lambda: None,
) -> list[dict[str, Any]]:
    """Fit a standardised linear probe with each share of the labels and each seed.

    Args:
        fit: Whose labels are left out.
        judged: What all probes are judged on.
        class_names: Behind the labels of both.
        seeds: Of the choice of sweeps and of the probe.
        on_probe: Called after each.

    Returns:
        For each a row: `share`, `seed`, `sweeps` and `points` that were learnt from, and the
        figures of `scored`.

    """
    rows = []
    for share in SHARES:
        for seed in seeds:
            some = labelled_share(fit, share, seed)
            answer = answers(PROBES[LINEAR], some, judged, len(class_names), seed)
            rows.append(
                {
                    'share': share,
                    'seed': seed,
                    'sweeps': len(np.unique(some.sweep)),
                    'points': len(some),
                    **scored(judged, answer, class_names),
                }
            )
            on_probe()
    return rows


def mean_miou(rows: Sequence[Mapping[str, Any]]) -> dict[float, tuple[float, float, float]]:
    """Mean, least and greatest mIoU over the seeds of each share."""
    found: dict[float, list[float]] = {}
    for row in rows:
        found.setdefault(row['share'], []).append(row['miou'])
    return {share: (float(np.mean(of)), min(of), max(of)) for share, of in found.items()}


def draw_label_efficiency(path: Path, curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Draw the mean mIoU over the share of labelled sweeps, and between which seeds it lies.

    Args:
        path: PNG.
        curves: Rows of `label_efficiency` by what they are called.

    """
    figure, axes = plt.subplots(figsize=(6.4, 4.4), layout='constrained')
    for name, rows in curves.items():
        means = mean_miou(rows)
        shares: NDArray[np.float64] = 100 * np.array(list(means))
        mean, low, high = np.array(list(means.values())).T
        (line,) = axes.plot(shares, mean, marker='o', label=name)
        axes.fill_between(shares, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    axes.set_xscale('log')
    axes.set_xticks([100 * share for share in SHARES], [f'{100 * share:g} %' for share in SHARES])
    axes.set_xlabel('labelled sweeps')
    axes.set_ylabel('mIoU')
    axes.set_ylim(0, 1)
    axes.grid(alpha=0.3)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120, metadata={'Software': None})
    plt.close(figure)
