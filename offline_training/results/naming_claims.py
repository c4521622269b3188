# SPDX-License-Identifier: Apache-2.0
"""Names without LiDAR labels: from labelled images, and from a few clicks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor

from cross4d_jepa_ros.model.checkpoint import Checkpoint, load_checkpoint
from cross4d_jepa_ros.shared_files import shared_file
from offline_training.evaluation.features import PointFeatures, collect
from offline_training.naming.clicks import few_click_miou
from offline_training.results.commands import run
from offline_training.results.pretraining_claim import JUDGED_POINTS, embeddings, model_of
from offline_training.results.recordings import Recordings
from offline_training.results.rows import Row, RowStore
from offline_training.results.settings import Results
from offline_training.segmentation_run import score
from offline_training.street.classes import CLASS_NAMES

IMAGES, CLICKS = 'image labels only', 'clicks'
DRAWS = (0, 1, 2, 3, 4)
PER_CLASS = (1, 5, 20)
CLICKABLE_POINTS = 750


def named_by_images(
    config: Results, given: Recordings, store: RowStore, out: Path, console: Console
) -> Iterator[Row]:
    """Learn a head from labelled images, and compare it on pixels and on points of other towns."""
    for seed in config.seeds:
        start = model_of(config, config.naming, seed, out)
        named = out / 'named' / f'{seed}.safetensors'
        words = [str(start), str(named), '--images', str(given.learnt.label_images)]
        words += ['--held-out', str(given.judged.label_images)]
        words += ['--labels', str(shared_file('config/label_maps/street.yaml'))]
        words += ['--index', str(given.learnt.index)]
        run('label_by_images', words, out / 'done', console)

        def measure(named: Path = named) -> dict[str, float]:
            report = json.loads(named.with_suffix('.json').read_text())
            network = load_checkpoint(named).network
            scores, _ = score(network, None, given.judged.sweeps, CLASS_NAMES)
            points, pixels = scores.miou() or 0.0, report['miou']
            found = {'miou_points': points, 'miou_pixels': pixels, 'share': points / pixels}
            return found | {f'iou_{name}': iou or 0.0 for name, iou in scores.class_iou().items()}

        data = f'images of {given.learnt.told}; judged: {given.judged.told}'
        settings = {'start': load_checkpoint(start).sha256}
        yield from store.measured(IMAGES, config.naming, seed, data, settings, measure)


def taught_by_clicks(
    config: Results, given: Recordings, store: RowStore, out: Path, console: Console
) -> Iterator[Row]:
    """Click on random points of each class, and name the points of other towns."""
    for seed in config.seeds:
        start = load_checkpoint(model_of(config, config.naming, seed, out))

        def measure(seed: int = seed, start: Checkpoint = start) -> dict[str, float]:
            console.print(f'{CLICKS}: {config.naming}, seed {seed}')
            width = start.contract.model.width
            clicked, judged = (
                _embeddings(
                    collect(start.network, part.sweeps, points_per_sweep=points, seed=seed), width
                )
                for part, points in (
                    (given.learnt, CLICKABLE_POINTS),
                    (given.judged, JUDGED_POINTS),
                )
            )
            found = {}
            for count in PER_CLASS:
                scores = few_click_miou(
                    start.network.normalisation, clicked, judged, CLASS_NAMES, count, DRAWS
                )
                mious = [each.miou() or 0.0 for each in scores]
                found[f'miou_{count}_per_class'] = float(np.mean(mious))
            return found

        data = f'clicks in {given.learnt.told}, mean of {len(DRAWS)} draws; judged: '
        settings = {'start': start.sha256, 'per_class': list(PER_CLASS)}
        told = data + given.judged.told
        yield from store.measured(CLICKS, config.naming, seed, told, settings, measure)


def _embeddings(points: PointFeatures, width: int) -> tuple[Tensor, NDArray[np.uint8]]:
    found = torch.from_numpy(embeddings(points, width).features).float()  # (N, C)
    return found, points.label
