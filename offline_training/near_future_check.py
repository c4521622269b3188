# SPDX-License-Identifier: Apache-2.0
"""Check that the dense objective teaches shapes, not places: learn the beginning of a real drive,
then tell the image teacher's features at the points of its end.

    python -m offline_training.near_future_check path/to/kitti_drive

A network that sees nothing but each point's position (in the sensor's axes, from the ground below
it) learns from the same points with the same loss and as many steps, and an encoder that has learnt
nothing is asked too. The encoder's sweeps are changed at random, which would only blur positions:
the other network learns more without. What each predicts passes through one linear map in closed
form, fitted to the sweeps that were learnt from: the loss leaves the scale open. R² is that of the
judged points, averaged over the components of the teacher's space. Takes half an hour.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from cross4d_jepa_ros.machine_load import OthersShare, own_pids
from cross4d_jepa_ros.model.config import ModelConfig
from cross4d_jepa_ros.progress import Bars
from cross4d_jepa_ros.shared_files import shared_file
from offline_training import cache_targets, index_bags
from offline_training.augmentation import AS_RECORDED
from offline_training.check_report import limits_table, write_report
from offline_training.logs.table import Index
from offline_training.near_future import (
    Predict,
    from_positions,
    from_sweeps,
    learn_positions,
    scored,
)
from offline_training.optimisation import deterministic
from offline_training.position_network import PositionNetwork
from offline_training.pretraining.processes import Processes
from offline_training.pretraining.run import Run
from offline_training.pretraining.samples import Samples
from offline_training.pretraining.settings import Pretraining, load_pretraining, pretrained_model
from offline_training.pretraining.windows import Windows
from offline_training.teachers.target_cache import TargetCache

PRESET = 'config/pretraining/cross4d_jepa.yaml'
NETWORKS = DISTILLED, POSITION, RANDOM = 'distilled', 'position_only', 'random_encoder'
ALL_POINTS = 1 << 20
# As the preset has it, but for large turns and mirror images: these drives lead one way.
LEARNT_WITH = replace(
    AS_RECORDED,
    points_kept=(0.5, 1.0),
    scale=(0.95, 1.05),
    turn_deg=5.0,
    height_m=0.05,
    jitter_m=0.01,
    intensity_gain=(0.8, 1.2),
)


@dataclass(frozen=True)
class CheckConfig:
    """What is learnt, how, and what is judged.

    Attributes:
        learnt: Sweeps with an image at the beginning of the drive.
        judged: At its end.
        teacher: Of `cache_targets`.
        input_height: Rows that images are scaled to.
        changes: Of the preset, as `--set` of the pretraining gives them.
        position_learning_rate: Peak of that of the network that sees positions only.
        voxel_m: Of the encoder: it has to tell things apart that are near each other.
        width: Likewise.
        point_width: Likewise.

    """

    seeds: tuple[int, ...] = (0, 1, 2)
    learnt: int = 16
    judged: int = 8
    teacher: str = 'lite0'
    input_height: int = 384
    changes: tuple[str, ...] = (
        'sweeps=1',
        'epochs=150',
        'batch=1',
        'learning_rate=0.004',
        'view_only=true',
        'objectives.dense_correspondence.points_per_view=4096',
    )
    position_learning_rate: float = 0.002
    voxel_m: float = 0.4
    width: int = 128
    point_width: int = 64


@dataclass(frozen=True)
class Limits:
    """What the means over the seeds have to keep to."""

    position_only_at_least: float = 0.25
    distilled_over_position_at_least: float = 0.15


class Parts(NamedTuple):
    """The sweeps that are learnt from and those that are judged, with cached targets."""

    learnt: Index
    judged: Index
    targets: TargetCache


class CannotCheck(ValueError):
    """The drive does not serve; the sentence says why."""


def parts_of(bag: Path, config: CheckConfig, work: Path) -> Parts:
    """Index a drive, have the teacher look at it, and part it.

    Raises:
        CannotCheck: It cannot be indexed, or is too short.
        OSError: The disk refuses.

    """
    path, targets = work / 'index.parquet', work / 'targets'
    if index_bags.main([str(bag), '--out', str(path)]) != 0:
        msg = f'{bag} cannot be indexed: see above'
        raise CannotCheck(msg)
    words = ['--teacher', config.teacher, '--input-height', str(config.input_height)]
    if cache_targets.main([str(path), *words, '--out', str(targets)]) != 0:
        msg = f'{config.teacher} cannot look at {bag}: see above'
        raise CannotCheck(msg)
    index = Index.load(path)
    seen = [row for row in index.rows if row.usable and any(row.shots)]
    if len(seen) < config.learnt + config.judged:
        msg = (
            f'{bag} has {len(seen)} sweeps with an image, but {config.learnt} are to be learnt '
            f'from and {config.judged} to be judged: give a longer drive'
        )
        raise CannotCheck(msg)
    first, last = seen[: config.learnt], seen[-config.judged :]
    return Parts(Index(first, index.folder), Index(last, index.folder), TargetCache(targets))


def rows_of(
    parts: Parts, config: CheckConfig, seed: int, on_step: Callable[[], None]
) -> list[dict[str, Any]]:
    """Train both networks with one seed and score them and the untrained encoder."""
    settings, model = settings_of(config, seed)

    def windows(index: Index, settings: Pretraining) -> Windows:
        return Windows(index, parts.targets, settings, model)

    dense = replace(settings.objectives.dense_correspondence, points_per_view=ALL_POINTS)
    whole = replace(settings.objectives, dense_correspondence=dense)
    untouched = replace(settings, augmentation=AS_RECORDED)
    learnt, places = windows(parts.learnt, settings), windows(parts.learnt, untouched)
    asked = [
        windows(index, replace(untouched, objectives=whole))
        for index in (parts.learnt, parts.judged)
    ]
    run = Run(settings, model, learnt, parts.targets, Processes(0, 1, torch.device('cpu')))
    for each in (places, *asked):
        each.teacher_space = learnt.teacher_space
    rows: list[dict[str, Any]] = []

    def score(name: str, predict: Predict, began: float) -> None:
        seconds = time.perf_counter() - began
        found = {'name': name, 'seed': seed, 'seconds': seconds}
        rows.append(found | scored(predict, *asked))

    score(RANDOM, from_sweeps(run.network), time.perf_counter())

    began = time.perf_counter()
    samples = Samples(learnt, settings.batch, range(run.steps))
    given = (learnt.window(*sample) for sample in samples)
    for step in range(run.steps):
        run.step(step, given)
        on_step()
    score(DISTILLED, from_sweeps(run.network), began)

    began = time.perf_counter()
    network = PositionNetwork(settings.components, torch.Generator().manual_seed(seed))
    learn_positions(network, places, settings, run.steps, config.position_learning_rate, on_step)
    score(POSITION, from_positions(network), began)
    return rows


def settings_of(config: CheckConfig, seed: int) -> tuple[Pretraining, ModelConfig]:
    """Return the pretraining of one seed, and the sizes of its encoder."""
    changes = (*config.changes, f'seed={seed}')
    settings = load_pretraining(shared_file(PRESET), changes)[0]
    settings = replace(settings, augmentation=LEARNT_WITH)
    model = replace(
        pretrained_model(settings),
        voxel_m=config.voxel_m,
        width=config.width,
        point_width=config.point_width,
    )
    return settings, model


def run(bag: Path, config: CheckConfig, work: Path, console: Console) -> dict[str, Any]:
    """Learn and judge.

    Args:
        bag: rosbag2 folder, or what else `index_bags` reads.
        config: What is learnt and judged.
        work: Folder for index and targets.
        console: For the progress bar.

    Returns:
        The report, all but the command and the date.

    Raises:
        CannotCheck: The drive does not serve.
        ValueError: Index or targets are refused.
        OSError: The disk refuses.

    """
    load = OthersShare(own_pids())
    parts = parts_of(bag, config, work)
    settings, model = settings_of(config, 0)
    steps = max(1, -(-settings.epochs * config.learnt // settings.batch))
    rows: list[dict[str, Any]] = []
    with Bars(console) as progress, deterministic():
        task = progress.add_task('steps', total=2 * steps * len(config.seeds))
        for seed in config.seeds:
            rows += rows_of(parts, config, seed, lambda: progress.advance(task))
            for row in rows[-len(NETWORKS) :]:
                console.print(f'{row["name"]}, seed {seed}: R² {row["r2"]:.3f}', highlight=False)
    limits = compare(rows, Limits())
    return {
        'config': asdict(config),
        'model': asdict(model),
        'steps': steps,
        'components': settings.components,
        'rows': rows,
        'mean': means(rows),
        'limits': limits,
        'passed': all(limit['kept'] for limit in limits),
        'others_cpu_share': load.share(),
    }


def means(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Average each figure of each network over the seeds."""
    figures = ('r2', 'r2_weighted', 'cosine', 'seconds')
    return {
        name: {
            figure: float(np.mean([row[figure] for row in rows if row['name'] == name]))
            for figure in figures
        }
        for name in NETWORKS
    }


def compare(rows: Sequence[Mapping[str, Any]], limits: Limits) -> list[dict[str, Any]]:
    """Hold the mean R² against the limits.

    Returns:
        For each limit its name, the value found, the limit and whether it is kept.

    """
    mean = means(rows)
    position = mean[POSITION]['r2']
    found = {
        'position_only_at_least': position,
        'distilled_over_position_at_least': mean[DISTILLED]['r2'] - position,
    }
    return [
        {'name': name, 'value': found[name], 'limit': limit, 'kept': found[name] >= limit}
        for name, limit in asdict(limits).items()
    ]


def print_report(report: Mapping[str, Any], console: Console) -> None:
    """Show rows and limits as tables."""
    table = Table('network', 'seed', 'R²', 'R² by variance', 'cosine', 'seconds')
    rows = sorted(report['rows'], key=lambda row: row['name'])
    means = [{'name': name, 'seed': 'mean', **row} for name, row in report['mean'].items()]
    for row in [*rows, *means]:
        figures = [f'{row[name]:.3f}' for name in ('r2', 'r2_weighted', 'cosine')]
        table.add_row(row['name'], str(row['seed']), *figures, f'{row["seconds"]:.0f}')
    console.print(table)
    console.print(limits_table(report['limits']))


def main(argv: list[str] | None = None) -> int:
    """Run the command; 1 where a limit is not kept, 2 where it could not be checked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('bag', type=Path, help='recording of a drive, with a camera')
    parser.add_argument('--out', type=Path, default=Path('out/near_future_check.json'))
    parser.add_argument(
        '--work', type=Path, default=Path('out/near_future'), help='for the targets'
    )
    parser.add_argument('--seeds', type=int, nargs='+', default=CheckConfig.seeds)
    words = sys.argv[1:] if argv is None else argv
    arguments = parser.parse_args(words)
    console = Console()
    try:
        check = CheckConfig(seeds=tuple(arguments.seeds))
        report = run(arguments.bag, check, arguments.work, console)
    except (ValueError, OSError) as error:
        console.print(str(error), style='red', markup=False, soft_wrap=True)
        return 2
    code = write_report(report, 'near_future_check', words, arguments.out)
    print_report(report, console)
    return code


if __name__ == '__main__':
    sys.exit(main())
