# SPDX-License-Identifier: Apache-2.0
"""Check that a memory sees motion: train with four sweeps and with one, then ask a linear probe
which cars move.

    python -m offline_training.motion_check --out out/motion_check.json

In these streets the lane that a car is in gives away whether it moves: `position_only` is what a
probe makes of x, y, z and range. So networks are compared with each other, not with nothing. Trains
and probes in two processes of one thread each. Interrupted and started again, it goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from cross4d_jepa_ros.files import write_atomically
from cross4d_jepa_ros.model.checkpoint import load_checkpoint
from cross4d_jepa_ros.model.config import BadConfig, load_model_config
from cross4d_jepa_ros.model.network import Network
from cross4d_jepa_ros.progress import Bars
from cross4d_jepa_ros.segmentation_scores import UNKNOWN, SegmentationScores
from cross4d_jepa_ros.shared_files import shared_file
from offline_training.average_precision import average_precision
from offline_training.check_report import write_report
from offline_training.labelled_sweeps import FORMAT, SweepFiles
from offline_training.make_street_bag import VERSION
from offline_training.probes import LINEAR_PROBE, MLP_PROBE, ProbeConfig, fit_probe
from offline_training.segmentation_run import answered
from offline_training.street.classes import CAR, CLASS_NAMES
from offline_training.street_recordings import one_thread
from offline_training.train_segmentation import sweep_files, train
from offline_training.training_settings import Towns, Training, load_training

TRAINING = Path('config/training/motion.yaml')
PROCESSES = 2


@dataclass(frozen=True)
class CheckConfig:
    """Where the probes are fitted and tested.

    Attributes:
        fit: Towns in which the probes are fitted; nothing else learns from them.
        test: Towns in which they are tested.
        points_per_sweep: Most points on cars that are taken of a sweep.

    """

    seeds: tuple[int, ...] = (0, 1, 2)
    fit: Towns = Towns(700, 12, 2.0, 2)
    test: Towns = Towns(800, 12, 2.0, 2)
    points_per_sweep: int = 3000


@dataclass(frozen=True)
class Limits:
    """What the means over the seeds have to keep to: with a memory less without."""

    average_precision_gain: float = 0.15
    car_iou_gain: float = 0.0
    person_iou_gain: float = 0.0


class Cars(NamedTuple):
    """Points on cars: (N, D) features, (N,) whether they move."""

    features: NDArray[np.float32]
    moving: NDArray[np.uint8]


@torch.inference_mode()
def cars(
    network: Network, sweeps: SweepFiles, window: int, most: int
) -> tuple[Cars, Cars, SegmentationScores]:
    """Collect what the network, and what a mere position, says of points on cars.

    The first sweeps of a recording, which no whole window ends in, are left out of everything.

    Args:
        network: With a segmentation head.
        sweeps: Files.
        window: Sweeps of a window, whether the network remembers them or not.
        most: Points of a sweep.

    Returns:
        Point embeddings; x, y, z and range in m of the same points; scores of the segmentation.

    """
    early = {pos for recording in sweeps.recordings for pos in recording[: window - 1]}
    draw = np.random.default_rng(0)
    scores = SegmentationScores(CLASS_NAMES)
    assert network.segmentation is not None
    embedded, placed, moving = [], [], []
    for position, (sweep, point, embedding) in enumerate(answered(network, sweeps)):
        if position in early:
            continue
        label = sweep.label[point]  # (K,)
        scores.add(label, network.segmentation.classify(embedding)[0].byte().numpy())
        on_car = np.flatnonzero((label == CAR) & (sweep.moving[point] != UNKNOWN))
        chosen = np.sort(draw.permutation(on_car)[:most])
        xyz = sweep.xyz[point[chosen]]
        embedded.append(embedding.numpy()[chosen])
        placed.append(np.column_stack((xyz, np.linalg.norm(xyz, axis=1))))
        moving.append(sweep.moving[point[chosen]])
    truth = np.concatenate(moving)
    return Cars(np.concatenate(embedded), truth), Cars(np.concatenate(placed), truth), scores


def probed(fit: Cars, test: Cars, probe: ProbeConfig, seed: int) -> float:
    """Fit a probe and return the average precision with which it finds what moves."""
    fitted = fit_probe(probe, fit.features, fit.moving, 2, seed)
    with torch.inference_mode():
        logits = fitted(torch.from_numpy(test.features))  # (N, 2)
    return average_precision(test.moving == 1, (logits[:, 1] - logits[:, 0]).numpy())


def measured(training: Training, config: CheckConfig, memory: bool, seed: int) -> dict[str, Any]:
    """Train one network and probe it.

    Args:
        training: What all networks have in common.
        config: Towns and points of the probes.
        memory: Whether it has one. Without, it learns from the same windows in the same order
            and with the same changes, sweep by sweep.
        seed: Of the training and the probe.

    Returns:
        A row of the report.

    """
    torch.set_num_threads(1)
    quiet = Console(quiet=True)
    sweeps = training.sweeps if memory else 1
    out = _folder(training, config) / f'network_{sweeps}_{seed}.safetensors'
    if not out.exists():
        command = 'python -m offline_training.motion_check'
        train(replace(training, seed=seed, memory=memory), command, out, quiet)
    network = load_checkpoint(out).network
    (fit_cars, fit_places, _), (test_cars, test_places, scores) = (
        cars(
            network,
            sweep_files(training, towns, network.config.range_m, quiet),
            training.sweeps or 1,
            config.points_per_sweep,
        )
        for towns in (config.fit, config.test)
    )
    iou = scores.class_iou()
    return {
        'T': sweeps,
        'seed': seed,
        'average_precision': probed(fit_cars, test_cars, LINEAR_PROBE, seed),
        'position_only': probed(fit_places, test_places, MLP_PROBE, seed),
        'range_only': probed(_range(fit_places), _range(test_places), MLP_PROBE, seed),
        'prevalence': float(test_cars.moving.mean()),
        'car_iou': iou['car'],
        'person_iou': iou['person'],
        'miou': scores.miou(),
        'epochs': training.epochs,
        'motion_weight': training.motion_weight,
    }


def _range(places: Cars) -> Cars:
    return Cars(places.features[:, 3:], places.moving)


def _folder(training: Training, config: CheckConfig) -> Path:
    """Folder of everything that these settings gave so far."""
    settings = {'training': asdict(training), 'check': asdict(config)}
    settings['training']['work'] = ''
    settings['check']['seeds'] = ''
    settings['model'] = asdict(load_model_config(shared_file(f'config/models/{training.model}')))
    settings['version'] = [VERSION, FORMAT]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
    return Path(training.work) / f'motion_{digest}'


def run(training: Training, config: CheckConfig, console: Console) -> dict[str, Any]:
    """Measure what is not there yet, two networks at a time.

    Raises:
        BadConfig: The model's file is refused, or the settings name no towns or sweeps.
        BadBag: A recording cannot be made.
        OSError: The disk refuses, or a process died.

    """
    if training.towns is None or training.held_out is None or training.sweeps is None:
        msg = f'the motion check needs towns, held_out and sweeps: see {TRAINING}'
        raise BadConfig(msg)
    model = load_model_config(shared_file(f'config/models/{training.model}'))
    for towns in (training.towns, training.held_out, config.fit, config.test):
        sweep_files(training, towns, model.range_m, console)
    folder = _folder(training, config)
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        (memory, seed): folder / f'row_{training.sweeps if memory else 1}_{seed}.json'
        for seed in config.seeds
        for memory in (False, True)
    }
    missing = {key: path for key, path in files.items() if not path.exists()}
    spawn = multiprocessing.get_context('spawn')
    with one_thread(), ProcessPoolExecutor(PROCESSES, spawn) as pool, Bars(console) as progress:
        task = progress.add_task('networks', total=len(missing))
        jobs = {pool.submit(measured, training, config, *key): key for key in missing}
        try:
            for job in as_completed(jobs):
                row = job.result()
                write_atomically(files[jobs[job]], json.dumps(row, indent=2) + '\n')
                console.print(_line(row), highlight=False)
                progress.advance(task)
        except BaseException:
            # Leaving the pool would otherwise first train all networks that are left.
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    rows = [json.loads(path.read_text()) for path in files.values()]
    limits = compare(rows, Limits())
    return {
        'generator_version': VERSION,
        'training': asdict(training),
        'towns': asdict(config),
        'rows': rows,
        'limits': limits,
        'passed': all(limit['kept'] for limit in limits),
    }


def compare(rows: Sequence[Mapping[str, Any]], limits: Limits) -> list[dict[str, Any]]:
    """Say of each limit what was found, as a mean over the seeds, and whether it is kept.

    A class without a point in the test towns leaves nothing to compare.
    """
    lengths = sorted({row['T'] for row in rows})
    compared = []
    for name, limit in asdict(limits).items():
        short, long = (
            [row[name.removesuffix('_gain')] for row in rows if row['T'] == length]
            for length in (lengths[0], lengths[-1])
        )
        absent = None in short or None in long
        value = None if absent else float(np.mean(long) - np.mean(short))
        kept = value is not None and value >= limit
        compared.append({'name': name, 'value': value, 'limit': limit, 'kept': kept})
    return compared


def _line(row: Mapping[str, Any]) -> str:
    return f'T {row["T"]}, seed {row["seed"]}: average precision {row["average_precision"]:.3f}'


def _cell(value: float | None) -> str:
    return '-' if value is None else f'{value:.3f}'


def print_report(report: Mapping[str, Any], console: Console) -> None:
    """Show rows and limits as tables: average precisions (what moves is `share`), then IoU."""
    shown = {
        'average_precision': 'AP',
        'position_only': 'position',
        'range_only': 'range',
        'prevalence': 'share',
        'car_iou': 'car',
        'person_iou': 'person',
        'miou': 'mIoU',
    }
    table = Table('T', 'seed', *shown.values())
    for row in sorted(report['rows'], key=lambda row: (row['T'], row['seed'])):
        table.add_row(str(row['T']), str(row['seed']), *(_cell(row[name]) for name in shown))
    limits = Table('limit', 'found', 'at least', 'kept')
    for limit in report['limits']:
        kept = '[green]yes' if limit['kept'] else '[red]no'
        limits.add_row(limit['name'], _cell(limit['value']), f'{limit["limit"]:.2f}', kept)
    console.print(table)
    console.print(limits)


def main(argv: list[str] | None = None) -> int:
    """Run the command; 1 where a limit is not kept, 2 where it could not be checked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--out', type=Path, required=True, help='report to write, JSON')
    parser.add_argument('--seeds', type=int, nargs='+', default=CheckConfig.seeds)
    arguments = parser.parse_args(argv)
    console = Console()
    try:
        check = CheckConfig(seeds=tuple(arguments.seeds))
        report = run(load_training(TRAINING), check, console)
    except (ValueError, OSError) as error:
        console.print(str(error), style='red', markup=False)
        return 2
    code = write_report(report, 'motion_check', argv or sys.argv[1:], arguments.out)
    print_report(report, console)
    return code


if __name__ == '__main__':
    sys.exit(main())
