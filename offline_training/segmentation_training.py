# SPDX-License-Identifier: Apache-2.0
"""Learn a segmentation from labelled sweeps: a head on a frozen network, or all of a network."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from cross4d_jepa_ros.files import one_writer
from cross4d_jepa_ros.heap import keep_freed_memory
from cross4d_jepa_ros.model.checkpoint import Checkpoint, Contract, load_checkpoint
from cross4d_jepa_ros.model.config import BadConfig, ModelConfig, Segmentation, load_model_config
from cross4d_jepa_ros.model.network import Network
from cross4d_jepa_ros.model.prototypes import Prototypes
from cross4d_jepa_ros.model.tokenizer import input_features
from cross4d_jepa_ros.progress import Bars
from cross4d_jepa_ros.segmentation_scores import SegmentationScores
from cross4d_jepa_ros.shared_files import shared_file
from offline_training.frozen_head import HeadTraining, learn_head
from offline_training.labelled_sweeps import MAX_RANGE_M, SweepFiles
from offline_training.naming.renamed import with_head
from offline_training.optimisation import deterministic
from offline_training.segmentation_run import Run, score, sweep_input
from offline_training.street.classes import CLASS_NAMES
from offline_training.training_settings import Training, trained_model
from offline_training.warm_start import take_over

BASIS_SWEEPS = 8
HEAD = 'segmentation.'
# Width of a figure in the table of scores; seven classes fit into 80 columns.
CELL = 5
# A new head on a trained network is fitted before all else, to points of so many sweeps: what it
# would do to the network while it knows nothing takes long to mend.
HEAD_SWEEPS = 32
FIRST_HEAD = HeadTraining(
    points_per_sweep=1000,
    epochs=None,
    steps=300,
    batch=2048,
    learning_rate=0.05,
    weight_decay=0.0,
    seed=0,
)


@dataclass(frozen=True)
class LabelledData:
    """What is learnt from, and what it is scored on.

    Attributes:
        learnt: Sweeps with labels.
        held_out: Others, from the same classes.
        class_names: Behind the labels.
        palette: RGB of each class.
        source: What they are, for the training record.

    """

    learnt: SweepFiles
    held_out: SweepFiles
    class_names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    source: str


@dataclass(frozen=True)
class Trained:
    """What a training gave.

    Attributes:
        contract: Of the checkpoint.
        network: In eval mode.
        prototypes: What the start had been taught, where embeddings are still the same.
        rows: Scores on what was held out; see `Run.rows`.

    """

    contract: Contract
    network: Network
    prototypes: Prototypes | None
    rows: list[dict[str, float]]


def started(config: Training) -> tuple[ModelConfig, Checkpoint | None]:
    """Settle what is trained, and what from.

    Raises:
        BadConfig: The model's file is refused, the towns are driven at another stride, or files of
            sweeps do not reach as far as it sees.
        BadCheckpoint: What to start from is refused.

    """
    start = None if config.warm_start is None else load_checkpoint(Path(config.warm_start))
    if config.model is not None:
        model = load_model_config(shared_file(f'config/models/{config.model}'))
    else:
        assert start is not None
        model = start.contract.model
    model = trained_model(config, model)
    if model.range_m > MAX_RANGE_M:
        name = config.model or config.warm_start
        msg = f'{name} sees {model.range_m:g} m far, files of sweeps hold {MAX_RANGE_M:g} m'
        raise BadConfig(msg)
    return model, start


def train_on(
    config: Training,
    data: LabelledData,
    *,
    command: str,
    console: Console,
    state: Path | None = None,
) -> Trained:
    """Train, and score on what is held out.

    Args:
        config: The run; its towns are not looked at.
        data: What it learns from.
        command: How to make the checkpoint again; goes into its contract.
        console: Where progress goes.
        state: Folder for the state to go on from; None to keep none.

    Raises:
        BadConfig: The settings do not fit the model or the data.
        BadCheckpoint: What to start from is refused.
        BadState: The state to go on from is damaged.
        InUse: Another process trains the same.
        ValueError: There are no labels to learn from.
        OSError: The disk refuses.

    """
    model, start = started(config)
    if config.motion_weight and data.class_names != CLASS_NAMES:
        msg = 'motion_weight is for towns, which know what moves: set it to 0'
        raise BadConfig(msg)
    learnt = data.learnt
    if config.label_fraction < 1:
        learnt = learnt.with_fraction(config.label_fraction, config.seed)
    keep_freed_memory()
    with deterministic():
        if config.frozen:
            assert start is not None
            trained = _with_head(config, data, learnt, start, console)
        else:
            trained = _fine_tuned(config, data, learnt, model, start, console, state)
    length = {'epochs': config.epochs} if config.epochs else {'steps': config.steps or 0}
    record: dict[str, str | int | float] = {
        'kind': _kind(config, start),
        'data': data.source,
        'command': command,
        'seed': config.seed,
        **length,
        'label_fraction': config.label_fraction,
    }
    if start is not None:
        record |= {'warm_start': config.warm_start or '', 'warm_start_sha256': start.sha256}
    record['miou'] = round(trained.rows[-1]['miou'], 4)
    return replace(trained, contract=replace(trained.contract, training=record))


def _with_head(
    config: Training, data: LabelledData, learnt: SweepFiles, start: Checkpoint, console: Console
) -> Trained:
    """Learn a head for a network that stays as it is."""
    segmentation = Segmentation('point', config.hidden)
    contract, network = with_head(
        start, data.class_names, data.palette, segmentation, start.contract.training
    )
    how = HeadTraining(
        points_per_sweep=config.points_per_sweep,
        epochs=config.epochs,
        steps=config.steps,
        batch=config.batch,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        seed=config.seed,
    )
    learn_head(network, learnt, learnt.labelled.tolist(), how, console)
    row = _row(*score(network, None, data.held_out, data.class_names))
    return Trained(contract, network, start.prototypes, [row])


def _fine_tuned(
    config: Training,
    data: LabelledData,
    learnt: SweepFiles,
    model: ModelConfig,
    start: Checkpoint | None,
    console: Console,
    folder: Path | None,
) -> Trained:
    """Learn all of a network."""
    run = Run(config, model, learnt, data.class_names)
    state = None
    alone: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
    if folder is not None:
        state = folder / f'state_{_digest(config, data, model, start)}.safetensors'
        alone = one_writer(state.with_name(f'.{state.stem}.lock'), f'the run of {state}')
    with alone:
        _trained(run, config, data, learnt, start, console, state)
    contract = Contract(
        model=model,
        features=input_features(model),
        base_height_m=0.0 if start is None else start.contract.base_height_m,
        class_names=data.class_names,
        palette=data.palette,
        training={'kind': 'supervised'},
    )
    return Trained(contract, run.network.eval(), None, run.rows)


def _trained(
    run: Run,
    config: Training,
    data: LabelledData,
    learnt: SweepFiles,
    start: Checkpoint | None,
    console: Console,
    state: Path | None,
) -> None:
    """Go on with a run to its end."""
    resumed = state is not None and state.exists()
    if start is not None:
        taken = take_over(run.network, start, data.class_names)
        console.print(f'starts from {len(taken)} tensors of {config.warm_start}')
        if not resumed and not any(name.startswith(HEAD) for name in taken):
            places = np.linspace(0, len(learnt.labelled) - 1, HEAD_SWEEPS).astype(int)
            some = np.unique(learnt.labelled[places]).tolist()
            learn_head(run.network, learnt, some, replace(FIRST_HEAD, seed=config.seed), console)
    if resumed:
        assert state is not None
        run.load(state)
        console.print(f'goes on after step {run.done}, from {state}')
    moving = ('moving_ap',) if run.motion else ()
    columns = ('step', 'epoch', 'loss', 'miou', *data.class_names, *moving)
    console.print(' '.join(f'{name:>{CELL}}' for name in columns), soft_wrap=True)
    for row in run.rows:
        _print_row(row, columns, console)
    every = config.score_every or (run.steps_per_epoch if config.epochs else run.steps)
    while run.done < run.steps:
        loss = _advance(run, min(every, run.steps - run.done), console)
        figures = _row(*score(run.network, run.motion, data.held_out, data.class_names))
        epoch = run.done / run.steps_per_epoch
        run.rows.append({'step': run.done, 'epoch': round(epoch, 3), 'loss': loss, **figures})
        if state is not None:
            run.save(state)
        _print_row(run.rows[-1], columns, console)
    _fit_projections(run.network, learnt)


def _advance(run: Run, steps: int, console: Console) -> float:
    """Take some steps; returns their mean loss."""
    losses: list[float] = []
    with Bars(console, 'steps') as progress:
        task = progress.add_task('training', total=run.steps, completed=run.done)
        for loss in run.run(steps):
            losses.append(loss)
            note = f'loss {np.mean(losses[-50:]):.3f}'
            progress.update(task, completed=run.done, note=note)
    return float(np.mean(losses))


def _row(scores: SegmentationScores, moving_ap: float | None) -> dict[str, float]:
    row = {name: iou for name, iou in scores.class_iou().items() if iou is not None}
    if moving_ap is not None:
        row['moving_ap'] = moving_ap
    return {'miou': scores.miou() or 0.0, **row}


def _print_row(row: dict[str, float], columns: tuple[str, ...], console: Console) -> None:
    cells = [f'{row["step"]:.0f}', f'{row["epoch"]:g}']
    cells += [f'{row.get(name, math.nan):.3f}' for name in columns[2:]]
    wide = (max(CELL, len(name)) for name in columns)
    line = ' '.join(f'{cell:>{width}}' for cell, width in zip(cells, wide, strict=True))
    console.print(line, highlight=False, soft_wrap=True)


@torch.inference_mode()
def _fit_projections(network: Network, sweeps: SweepFiles) -> None:
    network.eval()
    embeddings = []
    for position in np.linspace(0, len(sweeps) - 1, BASIS_SWEEPS).astype(int):
        window = sweeps.window(int(position), network.config.sweeps)
        rows = network.forward_window([sweep_input(network, sweep) for sweep in window])
        embeddings.append(rows[-1][1])  # (L, C)
    network.fit_projections(torch.cat(embeddings))


def _kind(config: Training, start: Checkpoint | None) -> str:
    """Name the training; weights that only labels have shaped so far stay supervised."""
    if config.frozen:
        return config.method
    before = None if start is None else start.contract.training['kind']
    return 'supervised' if before in (None, 'supervised') else 'fine_tuned'


def _digest(
    config: Training, data: LabelledData, model: ModelConfig, start: Checkpoint | None
) -> str:
    """Tell runs apart that must not go on from each other."""
    settings = dataclasses.asdict(config) | {'work': '', 'warm_start': start and start.sha256}
    settings['model'] = dataclasses.asdict(model)
    settings['data'] = [data.source, data.class_names]
    settings['files'] = [[path.name for path in of.paths] for of in (data.learnt, data.held_out)]
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
