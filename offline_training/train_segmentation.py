# SPDX-License-Identifier: Apache-2.0
"""Train a network with a segmentation head on synthetic streets with labels; one YAML is one run.

    python -m offline_training.train_segmentation config/training/demo.yaml config/demo.safetensors

Makes the streets that are not there yet. Interrupted and started again, it goes on after the last
whole epoch and ends with the same bytes.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import math
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from cross4d_jepa_ros.model.checkpoint import Contract, load_checkpoint, save_checkpoint
from cross4d_jepa_ros.model.config import BadConfig, ModelConfig, load_model_config
from cross4d_jepa_ros.model.network import Network
from cross4d_jepa_ros.model.tokenizer import input_features
from cross4d_jepa_ros.pipeline import keep_freed_memory
from cross4d_jepa_ros.shared_files import shared_file
from offline_training.labelled_sweeps import (
    FORMAT,
    MAX_RANGE_M,
    SweepFiles,
    read_recording,
    write_sweeps,
)
from offline_training.make_street_bag import VERSION
from offline_training.optimisation import deterministic
from offline_training.segmentation_run import Run, score, sweep_input
from offline_training.street.classes import CLASS_NAMES, PALETTE
from offline_training.street_recordings import record_towns
from offline_training.training_settings import Towns, Training, load_training, trained_model

BASIS_SWEEPS = 8


def sweep_files(config: Training, towns: Towns, range_m: float, console: Console) -> SweepFiles:
    """Open the sweeps of some towns, after making what is not there yet."""
    work = Path(config.work)
    ending = f'{towns.seconds:g}s_{towns.sweep_stride}_{range_m:g}m_{FORMAT}.safetensors'
    paths = {seed: work / 'sweeps' / f'street_{VERSION}_{seed}_{ending}' for seed in towns.seeds}
    absent = [seed for seed, path in paths.items() if not path.exists()]
    if absent:
        with Progress(console=console) as progress:
            driving = progress.add_task('driving through towns', total=len(absent))
            reading = progress.add_task('reading their sweeps', total=len(absent))
            recordings = record_towns(
                work / 'recordings', absent, towns.seconds, lambda: progress.advance(driving)
            )
            for seed, recording in recordings.items():
                sweeps = read_recording(
                    recording, CLASS_NAMES, stride=towns.sweep_stride, range_m=range_m
                )
                write_sweeps(paths[seed], list(sweeps))
                # Some 40 MB a second of driving; the sweeps are all that is learnt from.
                shutil.rmtree(recording)
                progress.advance(reading)
    return SweepFiles(list(paths.values()))


def train(config: Training, command: str, out: Path, console: Console) -> Contract:
    """Train, score after each epoch, and write the checkpoint.

    Args:
        config: The run.
        command: How to make the checkpoint again; goes into its contract.
        out: Checkpoint to write.
        console: Where progress goes.

    Raises:
        BadConfig: The model's file is refused, or the towns are driven at another stride.
        BadCheckpoint: What to start from is refused.
        BadBag: A recording cannot be made.
        UnfitBag: A recording is of another street.
        OSError: The disk refuses.

    """
    model = trained_model(config, load_model_config(shared_file(f'config/models/{config.model}')))
    if model.range_m > MAX_RANGE_M:
        msg = f'{config.model} sees {model.range_m:g} m far, files of sweeps hold {MAX_RANGE_M:g} m'
        raise BadConfig(msg)
    start, start_record = _warm_start(config)
    learnt = sweep_files(config, config.towns, model.range_m, console)
    held_out = sweep_files(config, config.held_out, model.range_m, console)
    keep_freed_memory()
    state = Path(config.work) / f'state_{_digest(config, model, start_record)}.safetensors'
    with deterministic():
        run = Run(config, model, learnt)
        if start:
            taken = run.start_from(start)
            console.print(f'starts from {taken} tensors of {config.warm_start}')
        if state.exists():
            run.load(state)
            console.print(f'goes on after epoch {run.epoch}, from {state}')
        columns = ('epoch', 'loss', 'miou', *CLASS_NAMES, *(('moving_ap',) if run.motion else ()))
        console.print(' '.join(f'{name:>10}' for name in columns), soft_wrap=True)
        for row in run.rows:
            _print_row(row, columns, console)
        while run.epoch < config.epochs:
            _train_epoch(run, held_out, console)
            run.save(state)
            _print_row(run.rows[-1], columns, console)
        _fit_projections(run.network, learnt)
    contract = Contract(
        model=model,
        features=input_features(model),
        base_height_m=0.0,
        class_names=CLASS_NAMES,
        palette=tuple(PALETTE.values()),
        training={
            'kind': 'supervised',
            'data': (
                f'street {VERSION}, {config.towns.count} towns (seeds {config.towns.seeds[0]} to '
                f'{config.towns.seeds[-1]}) of {config.towns.seconds:g} s, {len(learnt)} sweeps'
            ),
            'command': command,
            'seed': config.seed,
            'epochs': config.epochs,
            **start_record,
            'miou': round(run.rows[-1]['miou'], 4),
        },
    )
    save_checkpoint(out, contract, run.network)
    return contract


def _train_epoch(run: Run, held_out: SweepFiles, console: Console) -> None:
    columns = (
        TextColumn('epoch {task.fields[epoch]}'),
        BarColumn(),
        TextColumn('{task.completed}/{task.total} loss {task.fields[loss]:.3f}'),
        TextColumn('{task.fields[rate]:.1f} steps/s'),
        TimeRemainingColumn(),
    )
    losses: list[float] = []
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(
            '', total=run.steps_per_epoch, epoch=run.epoch + 1, loss=0.0, rate=0.0
        )
        for loss in run.run_epoch():
            losses.append(loss)
            rate = progress.tasks[0].speed or 0.0
            progress.update(task, advance=1, loss=np.mean(losses[-50:]), rate=rate)
    scores, moving_ap = score(run.network, run.motion, held_out)
    row = {name: iou for name, iou in scores.class_iou().items() if iou is not None}
    if moving_ap is not None:
        row['moving_ap'] = moving_ap
    run.rows.append(
        {
            'epoch': run.epoch,
            'loss': float(np.mean(losses)),
            'miou': scores.miou() or 0.0,
            **row,
        }
    )


def _print_row(row: dict[str, float], columns: tuple[str, ...], console: Console) -> None:
    cells = [f'{row["epoch"]:10.0f}']
    cells += [f'{row.get(name, math.nan):10.3f}' for name in columns[1:]]
    console.print(' '.join(cells), highlight=False, soft_wrap=True)


@torch.inference_mode()
def _fit_projections(network: Network, sweeps: SweepFiles) -> None:
    network.eval()
    embeddings = []
    for position in np.linspace(0, len(sweeps) - 1, BASIS_SWEEPS).astype(int):
        window = sweeps.window(int(position), network.config.sweeps)
        rows = network.forward_window([sweep_input(network, sweep) for sweep in window])
        embeddings.append(rows[-1][1])  # (L, C)
    network.fit_projections(torch.cat(embeddings))


def _warm_start(config: Training) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read the tensors to start from, and what the training record says of them."""
    if config.warm_start is None:
        return {}, {}
    loaded = load_checkpoint(Path(config.warm_start))
    record = {'warm_start': config.warm_start, 'warm_start_sha256': loaded.sha256}
    return loaded.network.state_dict(), record


def _digest(config: Training, model: ModelConfig, start_record: dict[str, str]) -> str:
    """Tell runs apart that must not go on from each other."""
    settings = dataclasses.asdict(config) | {'work': '', 'street': VERSION, 'format': FORMAT}
    settings |= start_record | {'warm_start': ''}
    settings['model'] = dataclasses.asdict(model)
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', type=Path, help='a file of config/training')
    parser.add_argument('out', type=Path, help='checkpoint to write')
    arguments = parser.parse_args(argv)
    console = Console()
    command = f'python -m offline_training.train_segmentation {arguments.config} {arguments.out}'
    try:
        contract = train(load_training(arguments.config), command, arguments.out, console)
    except (ValueError, OSError) as error:
        console.print(str(error), style='red', markup=False)
        return 2
    console.print(f'{arguments.out}: held-out mIoU {contract.training["miou"]}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
