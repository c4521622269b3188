# SPDX-License-Identifier: Apache-2.0
"""Pretrain an encoder without labels on an index of logs; one YAML is one run.

    python -m offline_training.pretrain config/pretraining/cross4d_jepa.yaml \
        --index out/index.parquet --targets out/targets --out runs/first
    python -m offline_training.pretrain config/pretraining/3d_jepa.yaml \
        --index out/index.parquet --out runs/no_camera --set epochs=5 --set model=small.yaml
    torchrun --nproc-per-node 4 -m offline_training.pretrain … --out runs/first --resume

The folder of a run gets config.yaml, log.csv, tensorboard/, state.safetensors to go on from with
--resume, and in the end model.safetensors, which the node loads, and report.json. Masked
objectives alone need neither images nor targets.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import resource
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter

from cross4d_jepa_ros.files import one_writer, write_atomically
from cross4d_jepa_ros.heap import keep_freed_memory
from cross4d_jepa_ros.model.checkpoint import Contract, save_checkpoint
from cross4d_jepa_ros.model.config import BadConfig
from cross4d_jepa_ros.model.tokenizer import input_features
from cross4d_jepa_ros.progress import Bars
from offline_training.logs.table import Index
from offline_training.objectives.window import Window
from offline_training.optimisation import deterministic
from offline_training.pretraining.processes import Processes, joined
from offline_training.pretraining.run import Run, columns_of
from offline_training.pretraining.run_folder import Log, RunFolder
from offline_training.pretraining.samples import Samples
from offline_training.pretraining.settings import Pretraining, load_pretraining, pretrained_model
from offline_training.pretraining.watch import FIGURES, DeadRun
from offline_training.pretraining.windows import UnfitData, Windows
from offline_training.teachers.target_cache import TargetCache

# Processes that read windows, for each one that learns.
MOST_READERS = 4
OPEN_FILES = 65536
# Steps at either end of a run whose mean loss the report tells.
ENDS = 10


def pretrain(
    settings: tuple[Pretraining, dict[str, Any]],
    index: Path,
    targets: Path | None,
    out: Path,
    *,
    resume: bool,
    command: str,
    processes: Processes,
    console: Console,
) -> None:
    """Train, log every step, and write the checkpoint; the caller has the folder to itself.

    Args:
        settings: Of `load_pretraining`.
        index: Parquet file of `index_bags`.
        targets: Folder of `cache_targets`; None where no objective asks for targets.
        out: Folder of the run.
        resume: Whether to go on with the run that it holds, if any.
        command: How to make the checkpoint again; goes into its contract.
        processes: That share the work.
        console: Where progress goes.

    Raises:
        BadConfig: The settings do not fit the model, the targets or the processes.
        BadIndex: The index is refused.
        BadTargets: The cache is refused.
        UnfitData: Index and cache do not hold what the objectives need.
        UnfitRun: The folder holds another run.
        DeadRun: The loss is no number, or a latent collapsed; what was saved before stays.
        OSError: The disk refuses; what was saved before stays.

    """
    config, mapping = settings
    model = pretrained_model(config)
    if config.objectives.needs_teacher and targets is None:
        needing = ' and '.join(
            name for name in config.objectives.weights if name != 'masked_latent'
        )
        msg = f'{needing} needs the features of a teacher: give the folder of cache_targets'
        raise BadConfig(msg)
    cache = TargetCache(targets) if config.objectives.needs_teacher and targets else None
    if cache is not None:
        cache.check_input(config.objectives.dense_correspondence.teacher_input)
    windows = Windows(Index.load(index), cache, config, model)
    if processes.device.type == 'cpu':
        keep_freed_memory()
    identity = {'index_sha256': hashlib.sha256(index.read_bytes()).hexdigest()}
    if cache is not None:
        identity['teacher_sha256'] = cache.manifest.weights_sha256
    folder = RunFolder(out, mapping | {'data': identity})
    run = Run(config, model, windows, cache, processes)
    saved = folder.resumed() if resume else None
    first, main = 0, processes.rank == 0
    if saved is not None:
        first, tensors = saved
        run.restore(tensors)
    if main:
        if saved is None:
            folder.begin()
        folder.cut_log(first)
        parameters = sum(value.numel() for value in run.network.parameters())
        console.print(
            f'{len(windows)} windows, {run.steps} steps of {config.batch}, {parameters} weights, '
            f'{run.precision} on {processes.device}'
            + (f'; goes on after step {first}' if first else '')
        )
    _learn(run, config, windows, folder, first, processes, console)
    if not main:
        return
    run.fit_projections(windows)
    save_checkpoint(folder.model, _contract(run, config, command, identity), run.network)
    report = run_report(folder, config)
    write_atomically(folder.report, json.dumps(report, indent=2) + '\n')
    console.print(
        f'{folder.model}: loss {report["loss_first"]:.4f} to {report["loss_last"]:.4f}, '
        f'{report["seconds_per_step"]:.2f} s a step, {report["data_wait_share"]:.0%} of it waiting '
        'for data'
    )


def _learn(
    run: Run,
    config: Pretraining,
    windows: Windows,
    folder: RunFolder,
    first: int,
    processes: Processes,
    console: Console,
) -> None:
    samples = Samples(
        windows, config.batch, range(first, run.steps), processes.rank, processes.world
    )
    readers = _readers(processes.world)
    loaded = iter(
        DataLoader(
            windows,
            sampler=samples,
            batch_size=None,
            num_workers=readers,
            collate_fn=_as_it_is,
            prefetch_factor=2 if readers else None,
        )
    )
    main = processes.rank == 0
    ends = contextlib.ExitStack()
    if readers:  # a traceback would keep them
        ends.callback(loaded._shutdown_workers)
    log = Log(folder.log, columns_of(config, FIGURES)) if main else None
    board = SummaryWriter(str(folder.tensorboard), purge_step=first) if main else None
    for opened in (log, board):
        if opened is not None:
            ends.callback(opened.close)
    progress = Bars(console, 'steps', disable=not main)
    on_cpu = processes.device.type == 'cpu'
    with ends, progress, deterministic() if on_cpu else contextlib.nullcontext():
        task = progress.add_task('pretraining', total=run.steps, completed=first)
        for number in range(first, run.steps):
            row = run.step(number, loaded)
            if log is not None and board is not None:
                log.add(row)
                for name, value in row.items():
                    if name != 'step':
                        board.add_scalar(name.replace('.', '/'), value, number)
                progress.update(task, advance=1, note=f'loss {row["loss"]:.4f}')
            if log is not None and (
                (number + 1) % config.save_every == 0 or number + 1 == run.steps
            ):
                log.sync()
                folder.save(number + 1, run.tensors())


def run_report(folder: RunFolder, config: Pretraining) -> dict[str, Any]:
    """Tell of a run from its log: ends of the loss curve, latents at the end, time.

    Returns:
        `loss_first` and `loss_last` (means over ENDS steps), `target_std` and `effective_rank` (of
        the term with the largest weight), `seconds_per_step`, `data_wait_share`, `steps`.

    """
    rows = folder.rows()
    losses = [row['loss'] for row in rows if np.isfinite(row['loss'])]
    waited, took = sum(row['data_s'] for row in rows), sum(row['step_s'] for row in rows)
    weights = config.objectives.weights
    main = max(weights, key=lambda name: weights[name])
    last = [row for row in rows if f'{main}.target_std' in row][-1:]
    return {
        'loss_first': float(np.mean(losses[:ENDS])),
        'loss_last': float(np.mean(losses[-ENDS:])),
        'target_std': last[0][f'{main}.target_std'] if last else None,
        'effective_rank': last[0][f'{main}.effective_rank'] if last else None,
        'seconds_per_step': took / len(rows),
        'data_wait_share': waited / took,
        'steps': len(rows),
    }


def _contract(run: Run, config: Pretraining, command: str, identity: dict[str, str]) -> Contract:
    weights = ', '.join(f'{name} {weight:g}' for name, weight in run.losses.weights.items())
    return Contract(
        model=run.network.config,
        features=input_features(run.network.config),
        base_height_m=0.0,
        class_names=(),
        palette=(),
        teacher=run.teacher,
        training={
            'kind': 'pretrained',
            'objectives': weights,
            'command': command,
            'seed': config.seed,
            'steps': run.steps,
            'batch': config.batch,
            **identity,
        },
    )


def _readers(world: int) -> int:
    """Processes that read windows; they are forked, and more than there are cores only wait."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Every tensor that a reader hands over is an open file until it is used.
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, OPEN_FILES)), hard))
    return max(1, min(MOST_READERS, len(os.sched_getaffinity(0)) // world - 1))


def _as_it_is(window: Window | UnfitData) -> Window | UnfitData:
    return window


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', type=Path, help='a file of config/pretraining')
    parser.add_argument('--index', type=Path, required=True, help='file of index_bags')
    parser.add_argument('--targets', type=Path, help='folder of cache_targets')
    parser.add_argument('--out', type=Path, required=True, help='folder of the run')
    parser.add_argument('--resume', action='store_true', help='go on with the run in --out')
    parser.add_argument(
        '--set', action='append', default=[], metavar='KEY=VALUE', help='change a setting'
    )
    parser.add_argument('--device', default='auto', help='auto, cpu or cuda')
    words = list(sys.argv[1:] if argv is None else argv)
    arguments = parser.parse_args(words)
    console = Console()
    command = shlex.join(['python', '-m', 'offline_training.pretrain', *words])
    try:
        with joined(arguments.device) as processes:
            if processes.rank:
                console = Console(quiet=True)
            settings = load_pretraining(arguments.config, arguments.set)
            lock = one_writer(arguments.out / '.lock', f'the run in {arguments.out}')
            with contextlib.nullcontext() if processes.rank else lock:
                pretrain(
                    settings,
                    arguments.index,
                    arguments.targets,
                    arguments.out,
                    resume=arguments.resume,
                    command=command,
                    processes=processes,
                    console=console,
                )
    except (ValueError, OSError, DeadRun) as error:
        message = Console(stderr=True)
        message.print(str(error), style='red', markup=False, highlight=False, soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        console.print(f'interrupted: go on with --resume --out {arguments.out}')
        return 130
    return 0


if __name__ == '__main__':
    sys.exit(main())
