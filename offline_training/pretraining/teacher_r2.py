# SPDX-License-Identifier: Apache-2.0
"""How much of the teacher's features a ridge reads off frozen points, where nothing was learnt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from cross4d_jepa_ros.model.network import Network
from cross4d_jepa_ros.progress import Bars
from offline_training.augmentation import AS_RECORDED
from offline_training.feature_regression import RidgeSums, r2, whitened_components
from offline_training.logs.table import Index
from offline_training.objectives.dense_correspondence import answering_rows
from offline_training.objectives.passes import Pass
from offline_training.objectives.window import Window
from offline_training.position_network import fourier_features
from offline_training.pretraining.settings import Pretraining
from offline_training.pretraining.windows import Windows
from offline_training.teachers.target_cache import TargetCache

# Of the teacher's features, each counting the same.
COMPONENTS = 16
# That the ridge is fitted to, and that it is judged on, evenly over the data.
WINDOWS = 24
# Against tens of thousands of points: keeps a short drive's chance relations small.
STRENGTH = 1000.0
POSITION, RANDOM = 'position', 'random'


def teacher_r2(
    networks: Mapping[str, Network],
    config: Pretraining,
    learnt: Path,
    unseen: Path,
    targets: Path,
    console: Console,
) -> dict[str, float]:
    """Fit a ridge from frozen point embeddings to the teacher's whitened principal components.

    Args:
        networks: By name; all of the same sizes.
        config: A run with dense correspondence; how it changes windows is not looked at.
        learnt: Index that the ridge is fitted on.
        unseen: Index that it is judged on.
        targets: Of both.
        console: For the progress.

    Returns:
        R², the mean over COMPONENTS, of each network on the points that the cameras see of the
        newest sweep; of a network with drawn weights (RANDOM) and of positions alone (POSITION).
        A network's features of a point are its patch's token and its own embedding: objectives
        without a term per point leave the point decoder as it was drawn.

    Raises:
        UnfitData: No point is visible, or targets are missing.

    """
    networks = dict(networks)
    model = next(iter(networks.values())).config
    networks[RANDOM] = Network(model, 0)
    networks[RANDOM].initialise(torch.Generator().manual_seed(config.seed))
    config = replace(config, augmentation=AS_RECORDED)
    cache = TargetCache(targets)
    fitted, judged = (Windows(Index.load(path), cache, config, model) for path in (learnt, unseen))
    mean, components = whitened_components(fitted.teacher_features(64, 256), COMPONENTS)
    space = mean.float(), components.float()
    sums = {name: RidgeSums() for name in (*networks, POSITION)}
    answers: dict[str, list[Tensor]] = {name: [] for name in sums}
    wanted: list[Tensor] = []
    with Bars(console) as progress:
        task = progress.add_task('reading features', total=2 * WINDOWS)
        for window in _spread(fitted, space):
            target, features = _features(window, networks)
            for name, given in features.items():
                sums[name].add(given, target)
            progress.advance(task)
        ridges = {name: each.solve(STRENGTH) for name, each in sums.items()}
        for window in _spread(judged, space):
            target, features = _features(window, networks)
            wanted.append(target)
            for name, given in features.items():
                answers[name].append(ridges[name](given))
            progress.advance(task)
    truth = torch.cat(wanted)  # (N, P)
    return {name: float(r2(torch.cat(each), truth).mean()) for name, each in answers.items()}


def _spread(windows: Windows, space: tuple[Tensor, Tensor]) -> Iterator[Window]:
    """Yield windows from all over the data, with targets in the space of some components."""
    windows.teacher_space = space
    for place in torch.linspace(0, len(windows) - 1, WINDOWS).long().unique().tolist():
        yield windows.window(0, place)


@torch.inference_mode()
def _features(window: Window, networks: Mapping[str, Network]) -> tuple[Tensor, dict[str, Tensor]]:
    """Targets (V, P) of the newest sweep's visible points, and what each network says of these."""
    newest = window.sweeps[-1]
    point = torch.cat([torch.zeros(0).long(), *(each.point for each in newest.sightings)])  # (V,)
    target = [torch.zeros(0, COMPONENTS), *(each.target for each in newest.sightings)]
    features = {POSITION: fourier_features(newest.xyz[point])}
    seen = torch.ones(len(point), dtype=torch.bool)  # (V,)
    for name, network in networks.items():
        given = Pass(network.eval(), None, window)
        patches = given.inputs[-1].patches
        row = answering_rows(patches, len(newest.xyz))[point]  # (V,)
        seen, row = row >= 0, row.clamp_min(0)  # (V,), (V,)
        token, embedding = given.rows[-1]  # (M, D), (L, C)
        features[name] = torch.cat((token[patches.patch_of_kept[row]], embedding[row]), dim=1)
    kept = {name: values[seen] for name, values in features.items()}
    return torch.cat(target)[seen], kept
