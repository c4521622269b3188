# SPDX-License-Identifier: Apache-2.0
"""What pretraining is worth to a linear probe, method by method, where nothing was learnt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console

from cross4d_jepa_ros.model.checkpoint import Contract, load_checkpoint, save_checkpoint
from cross4d_jepa_ros.model.network import Network
from cross4d_jepa_ros.model.tokenizer import input_features
from cross4d_jepa_ros.shared_files import shared_file
from offline_training.evaluation.feature_probes import (
    LINEAR,
    LINEAR_RAW,
    NEIGHBOURS,
    probed,
)
from offline_training.evaluation.features import PointFeatures, collect, position_features
from offline_training.pretraining.settings import load_pretraining, pretrained_model
from offline_training.results.commands import run
from offline_training.results.recordings import Recordings
from offline_training.results.rows import Row, RowStore
from offline_training.results.settings import Results
from offline_training.street.classes import CLASS_NAMES

TASK = 'linear probe'
RANDOM, POSITION = 'random init', 'position only'
FITTED_POINTS, JUDGED_POINTS = 750, 3000
WITH_TOKEN = 'miou_with_token'
METRICS = {LINEAR: 'miou', LINEAR_RAW: 'miou_raw', NEIGHBOURS: 'miou_neighbours'}


def model_of(config: Results, name: str, seed: int, out: Path) -> Path:
    """Say where the checkpoint of a method and seed lies."""
    return out / 'runs' / f'{name.replace(" ", "_")}_{seed}' / 'model.safetensors'


def pretrain_all(config: Results, given: Recordings, out: Path, console: Console) -> None:
    """Train what is not trained yet: every method with every seed.

    Raises:
        CommandFailed: A training failed.

    """
    for seed in config.seeds:
        for name in config.methods:
            pretrain_one(config, given, name, seed, out, console)


def pretrain_one(
    config: Results, given: Recordings, name: str, seed: int, out: Path, console: Console
) -> None:
    """Train one method with one seed; see `pretrain_all`."""
    method = config.methods[name]
    preset = shared_file(f'config/pretraining/{method.preset}.yaml')
    words = [str(preset), '--index', str(given.learnt.index), '--targets', str(given.targets)]
    words += ['--out', str(model_of(config, name, seed, out).parent), '--resume']
    for change in (*config.changes, *method.changes, f'seed={seed}'):
        words += ['--set', change]
    run('pretrain', words, out / 'done', console)


def draw_all(config: Results, out: Path) -> None:
    """Write the networks that all methods train, as they were before."""
    method = next(iter(config.methods.values()))
    preset = shared_file(f'config/pretraining/{method.preset}.yaml')
    settings, _ = load_pretraining(preset, (*config.changes, *method.changes))
    model = pretrained_model(settings)
    contract = Contract(model, input_features(model), 0.0, (), (), {'kind': 'drawn'})
    for seed in config.seeds:
        path = model_of(config, RANDOM, seed, out)
        path.parent.mkdir(parents=True, exist_ok=True)
        network = Network(model, 0)
        network.initialise(torch.Generator().manual_seed(seed))
        save_checkpoint(path, contract, network)


def linear_probes(
    config: Results, given: Recordings, store: RowStore, out: Path, console: Console
) -> Iterator[Row]:
    """Fit probes to the frozen features of each network and judge them in other towns.

    A point's embedding is what a network says of it, and what the head of a checkpoint reads; the
    token of its patch stands beside it in one figure, as not all methods train the point decoder.
    The encoder has seen the learnt towns, without labels; the probe sees their labels.
    """
    for seed in config.seeds:
        for name in (*config.methods, RANDOM, POSITION):
            settings: dict[str, int | str] = {'fitted': FITTED_POINTS, 'judged': JUDGED_POINTS}
            if name != POSITION:
                path = model_of(config, name, seed, out)
                settings['model'] = load_checkpoint(path).sha256

            def measure(name: str = name, seed: int = seed) -> dict[str, float]:
                console.print(f'{TASK}: {name}, seed {seed}')
                return _probed(*_features(config, given, name, seed, out), name, seed)

            data = f'learnt: {given.learnt.told}; judged: {given.judged.told}'
            yield from store.measured(TASK, name, seed, data, settings, measure)


def _probed(
    fit: Sequence[PointFeatures], judged: Sequence[PointFeatures], name: str, seed: int
) -> dict[str, float]:
    """Probe a point's embedding, and beside it all that is known of the point."""
    rows = probed(fit[0], judged[0], CLASS_NAMES, seed, tuple(METRICS))
    found = {METRICS[probe]: row['miou'] for probe, row in rows.items()}
    if name != POSITION:
        more = probed(fit[1], judged[1], CLASS_NAMES, seed, (LINEAR,))
        found[WITH_TOKEN] = more[LINEAR]['miou']
    return found | {f'iou_{each}': iou for each, iou in rows[LINEAR]['class_iou'].items()}


def _features(
    config: Results, given: Recordings, name: str, seed: int, out: Path
) -> tuple[list[PointFeatures], list[PointFeatures]]:
    """Of the learnt and of the judged towns: embeddings alone, and with their tokens."""
    drawn = RANDOM if name == POSITION else name
    network = load_checkpoint(model_of(config, drawn, seed, out)).network
    found = []
    for part, points in ((given.learnt, FITTED_POINTS), (given.judged, JUDGED_POINTS)):
        both = collect(network, part.sweeps, points_per_sweep=points, seed=seed)
        if name == POSITION:
            found.append([position_features(both)])
        else:
            found.append([embeddings(both, network.config.width), both])
    return found[0], found[1]


def embeddings(points: PointFeatures, width: int) -> PointFeatures:
    """Leave out the tokens, `width` channels, of what `collect` gives."""
    return replace(points, features=points.features[:, width:])
