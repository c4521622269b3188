# SPDX-License-Identifier: Apache-2.0
"""What a checkpoint's features are worth, beside random weights and beside mere positions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from cross4d_jepa_ros.model.checkpoint import load_checkpoint
from cross4d_jepa_ros.model.network import Network
from cross4d_jepa_ros.progress import Bars
from cross4d_jepa_ros.shared_files import shared_file
from offline_training.evaluation.feature_probes import PROBES, probed
from offline_training.evaluation.features import PointFeatures, collect_live, position_features
from offline_training.evaluation.label_efficiency import (
    SEEDS,
    SHARES,
    draw_label_efficiency,
    label_efficiency,
    mean_miou,
)
from offline_training.evaluation.sources import Source
from offline_training.pretraining.settings import load_pretraining
from offline_training.pretraining.teacher_r2 import teacher_r2

MODEL, RANDOM, POSITION = 'model', 'random', 'position'
FITTED_POINTS, JUDGED_POINTS = 1000, 2000
CURVES = 'curves.png'
_PRESET = 'config/pretraining/cross4d_jepa.yaml'


def feature_report(
    checkpoint: Path, fit: Source, judged: Source, out: Path, console: Console
) -> dict[str, Any]:
    """Fit probes on one source and judge them on another.

    Args:
        checkpoint: Whose features; is not changed.
        fit: With labels.
        judged: With labels of the same classes.
        out: Folder of the curves.
        console: For the progress.

    Returns:
        Rows of the probes and of the label efficiency, by whose features they are.

    Raises:
        ValueError: As `common_classes`.

    """
    names = common_classes(fit, judged)
    network = load_checkpoint(checkpoint).network
    drawn = Network(network.config, 0)
    drawn.initialise(torch.Generator().manual_seed(0))
    networks = {MODEL: network, RANDOM: drawn}
    found: list[dict[str, PointFeatures]] = []
    with Bars(console) as progress:
        for source, points, what in (
            (fit, FITTED_POINTS, 'features to fit probes on'),
            (judged, JUDGED_POINTS, 'features to judge them on'),
        ):
            task = progress.add_task(what, total=len(source))
            features = collect_live(
                networks,
                source,
                points_per_sweep=points,
                seed=0,
                on_sweep=lambda task=task: progress.advance(task),  # type: ignore[misc]
            )
            found.append(features | {POSITION: position_features(features[MODEL])})
        fitted, asked = found
        runs = len(PROBES) + len(SHARES) * len(SEEDS)
        task = progress.add_task('probes', total=len(fitted) * runs)

        def advance() -> None:
            progress.advance(task)

        probes = {
            name: probed(fitted[name], asked[name], names, 0, on_probe=advance) for name in fitted
        }
        curves = {
            name: label_efficiency(fitted[name], asked[name], names, on_probe=advance)
            for name in fitted
        }
    draw_label_efficiency(out / CURVES, curves)
    return {
        'fitted_on': {'source': str(fit.path), 'points': len(fitted[MODEL])},
        'judged_on': {'source': str(judged.path), 'points': len(asked[MODEL])},
        'probes': probes,
        'label_efficiency': curves,
    }


def common_classes(fit: Source, judged: Source) -> tuple[str, ...]:
    """Return the classes that the labels of two sources count.

    Raises:
        ValueError: The sources have no labels, not those of the same classes, or a sweep in common.

    """
    shared = fit.shared_log(judged)
    if shared is not None:
        msg = (
            f'probes would be judged on sweeps of {shared} that they are fitted on: give other '
            'recordings to --features'
        )
        raise ValueError(msg)
    names = judged.class_names
    if not names or fit.class_names != names:
        msg = (
            f'probes are fitted on {fit.path} with the classes '
            f'{", ".join(fit.class_names) or "none"} and judged on {judged.path} with '
            f'{", ".join(names) or "none"}: give labels of the same classes to both, or --labels'
        )
        raise ValueError(msg)
    return names


def teacher_report(
    checkpoint: Path, fit: Path, judged: Path, targets: Path, console: Console
) -> dict[str, float]:
    """Tell how much of an image teacher's features a ridge reads off; see `teacher_r2`.

    Args:
        checkpoint: Whose features; of a model that does not look at colour.
        fit: Index that the ridge is fitted on.
        judged: Index that it is judged on.
        targets: Folder of `cache_targets` for both.
        console: For the progress.

    Raises:
        BadConfig: The windows do not suit the model.
        BadIndex: One of the two is no index.
        UnfitData: Targets are missing, or no point is visible.

    """
    network = load_checkpoint(checkpoint).network
    changes = (f'sweeps={network.config.sweeps}', 'batch=1')
    config, _ = load_pretraining(shared_file(_PRESET), changes)
    return teacher_r2({MODEL: network}, config, fit, judged, targets, console)


def print_features(report: Mapping[str, Any], console: Console) -> None:
    """Show the figures of `feature_report`, and of `teacher_report` as `teacher_r2`, as tables."""
    whose = list(report['probes'])
    table = Table('mIoU', *whose, title='what features are worth')
    table.caption = 'linear, N %: learnt from N % of the labelled sweeps; means, least to most'
    for probe in PROBES:
        table.add_row(probe, *(f'{report["probes"][name][probe]["miou"]:.3f}' for name in whose))
    table.add_section()
    means = {name: mean_miou(report['label_efficiency'][name]) for name in whose}
    for share in SHARES:
        cells = [
            f'{mean:.3f} ({low:.2f}-{high:.2f})'
            for mean, low, high in (means[name][share] for name in whose)
        ]
        table.add_row(f'linear, {100 * share:g} %', *cells)
    if 'teacher_r2' in report:
        table.add_section()
        r2 = report['teacher_r2']
        table.add_row("teacher's R²", *(f'{r2[name]:.3f}' for name in whose))
    console.print(table)
