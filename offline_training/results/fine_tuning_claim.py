# SPDX-License-Identifier: Apache-2.0
"""What pretraining is worth where all weights are trained, with few labels and with many."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from cross4d_jepa_ros.model.checkpoint import load_checkpoint
from cross4d_jepa_ros.shared_files import shared_file
from offline_training.pretraining.settings import load_pretraining
from offline_training.results.pretraining_claim import RANDOM, model_of
from offline_training.results.recordings import Recordings
from offline_training.results.rows import Row, RowStore
from offline_training.results.settings import Results
from offline_training.segmentation_training import LabelledData, train_on
from offline_training.street.classes import CLASS_NAMES, PALETTE
from offline_training.training_settings import Training

TASK = 'fine-tuning'
SCRATCH = 'from scratch'


def fine_tuned(
    config: Results, given: Recordings, store: RowStore, out: Path, console: Console
) -> Iterator[Row]:
    """Train all weights with a share of the labels, pretrained and not, the same steps for both.

    From scratch means from weights as they were drawn; either way the head is fitted first. Both
    choose their learning rate with the share of labels that the claim is about, and keep it for
    the other shares.
    """
    tuning = config.fine_tuning
    data = LabelledData(
        given.learnt.sweeps,
        given.judged.sweeps,
        CLASS_NAMES,
        tuple(PALETTE.values()),
        given.learnt.told,
    )

    def tuned(name: str, share: float, rate: float) -> list[Row]:
        return [
            row
            for seed in config.seeds
            for row in _measured(config, name, share, rate, seed, data, store, out, console)
        ]

    for name, rates in (
        (tuning.method, tuning.learning_rates),
        (SCRATCH, tuning.scratch_learning_rates),
    ):
        best: tuple[float, float] = (-1.0, 0.0)
        for rate in rates:
            rows = tuned(name, tuning.claim, rate)
            best = max(best, (sum(row.value for row in rows) / len(rows), rate))
            yield from rows
        for share in tuning.shares:
            if share != tuning.claim:
                yield from tuned(name, share, best[1])


def _measured(
    config: Results,
    name: str,
    share: float,
    rate: float,
    seed: int,
    data: LabelledData,
    store: RowStore,
    out: Path,
    console: Console,
) -> list[Row]:
    start = model_of(config, RANDOM if name == SCRATCH else name, seed, out)
    settings = _training(config, start, share, rate, seed, out)
    about = {
        'steps': settings.steps,
        'kept': list(config.fine_tuning.points_kept),
        'start': load_checkpoint(start).sha256,
    }

    def measure() -> dict[str, float]:
        console.print(f'{TASK}: {name}, {share:.1%} of the labels, {rate:g}, seed {seed}')
        trained = train_on(settings, data, command=store.command, console=console)
        return {'miou': trained.rows[-1]['miou']}

    told = f'{share:.1%} of the labels of {data.source}'
    method = f'{name}, learning rate {rate:g}'
    return store.measured(f'{TASK} {share:.1%}', method, seed, told, about, measure)


def _training(
    config: Results, start: Path, share: float, rate: float, seed: int, out: Path
) -> Training:
    tuning = config.fine_tuning
    method = config.methods[tuning.method]
    preset = shared_file(f'config/pretraining/{method.preset}.yaml')
    pretraining, _ = load_pretraining(preset, (*config.changes, *method.changes))
    return Training(
        seed=seed,
        warm_start=str(start),
        memory=pretraining.sweeps > 1,
        work=str(out),
        label_fraction=share,
        steps=tuning.steps,
        batch=tuning.batch,
        learning_rate=rate,
        weight_decay=0.02,
        warm_up=0.05,
        augmentation=replace(pretraining.augmentation, points_kept=tuning.points_kept),
    )
