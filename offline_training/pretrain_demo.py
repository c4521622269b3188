# SPDX-License-Identifier: Apache-2.0
"""Take bags through the whole chain: index, targets, four presets, and each result into the node.

    python -m offline_training.pretrain_demo --out out/pretrain_demo
    python -m offline_training.pretrain_demo --bag drive --points /lidar --images /camera/image_raw

Without a bag it records short drives through towns, of which the last is not learnt from. Of a bag
the last third is not. Prints each command of the chain before it runs it. Leaves report.json and
curves.png in the output folder, beside a folder for each step of the chain.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from cross4d_jepa_ros.files import write_atomically
from cross4d_jepa_ros.model.checkpoint import load_checkpoint
from cross4d_jepa_ros.progress import Bars
from cross4d_jepa_ros.shared_files import shared_file
from offline_training import cache_targets, index_bags, pretrain
from offline_training.logs.table import Index
from offline_training.pretraining.run_folder import RunFolder
from offline_training.pretraining.settings import load_pretraining, pretrained_model
from offline_training.pretraining.teacher_r2 import POSITION, RANDOM, teacher_r2
from offline_training.pretraining.windows import Windows
from offline_training.shown_commands import CommandFailed, command_line, run_shown, show_command
from offline_training.street_recordings import STREET_TOPICS, record_towns
from offline_training.teacher_cost import VIT_SMALL, epoch_ratio, some_images, teacher_s, vit_small
from offline_training.teachers.target_cache import TargetCache

PRESETS = ('3d_jepa', 'crossjepa', 'cross4d_jepa', 'combined')
FIGURES = (
    'loss_first',
    'loss_last',
    'target_std',
    'effective_rank',
    'r2',
    'r2_position',
    'r2_random',
    'seconds_per_step',
    'data_wait_share',
)
# Of a user's bag.
HELD_BACK = 1 / 3


@dataclass(frozen=True)
class Sizes:
    """How much is done.

    Attributes:
        towns: Seeds of the towns; the last is not learnt from.
        seconds: Of the drive through each.
        teacher: That makes the targets.
        input_height: Rows of the images that it sees.
        changes: Of every preset.
        replayed: Presets whose results go into the node.
        timed: Teachers that are timed, to tell what an epoch without cached targets would take.

    """

    towns: tuple[int, ...] = (20, 21, 22, 23, 24, 25, 26)
    seconds: float = 3.0
    teacher: str = 'lite0'
    input_height: int = 384
    changes: tuple[str, ...] = (
        'sweeps=2',
        'epochs=2',
        'batch=1',
        'learning_rate=0.002',
        'augmentation.points_kept=[0.2, 0.5]',
    )
    replayed: tuple[str, ...] = PRESETS
    timed: tuple[str, ...] = ('lite0', VIT_SMALL)


@dataclass(frozen=True)
class Recordings:
    """What the chain starts from.

    Attributes:
        bags: Folders or files.
        topics: Words that name their topics to `index_bags` and to the node's demo.

    """

    bags: tuple[Path, ...]
    topics: tuple[str, ...]


def chain(given: Recordings, sizes: Sizes, out: Path, console: Console) -> dict[str, Any]:
    """Run it all.

    Args:
        given: The recordings; of several, the last is not learnt from, of one its last third.
        sizes: How much is done.
        out: Folder for everything.
        console: Where commands and progress go.

    Returns:
        The report.

    Raises:
        CommandFailed: A step failed.

    """
    started = time.perf_counter()
    index, targets = out / 'index.parquet', out / 'targets'
    run_shown(index_bags, [*map(str, given.bags), *given.topics, '--out', str(index)], console)
    learnt, unseen = _parted(Index.load(index), out)
    words = [str(index), '--teacher', sizes.teacher, '--input-height', str(sizes.input_height)]
    run_shown(cache_targets, [*words, '--out', str(targets)], console)
    report: dict[str, Any] = {'presets': {}, 'node': {}}
    runs = {name: out / name for name in PRESETS}
    for name, run in runs.items():
        shutil.rmtree(run, ignore_errors=True)
        words = [str(shared_file(f'config/pretraining/{name}.yaml'))]
        words += ['--index', str(learnt), '--targets', str(targets), '--out', str(run)]
        for change in sizes.changes:
            words += ['--set', change]
        run_shown(pretrain, words, console)
        report['presets'][name] = json.loads((run / 'report.json').read_text())
    console.print('what a ridge reads of the teacher off frozen points that were not learnt from:')
    settings = shared_file('config/pretraining/cross4d_jepa.yaml')
    networks = {
        name: load_checkpoint(run / 'model.safetensors').network for name, run in runs.items()
    }
    found = teacher_r2(
        networks, load_pretraining(settings, sizes.changes)[0], learnt, unseen, targets, console
    )
    for name in PRESETS:
        report['presets'][name] |= {
            'r2': found[name],
            'r2_position': found[POSITION],
            'r2_random': found[RANDOM],
        }
    report['epoch_ratio'] = _epoch_ratios(report, sizes, learnt, targets, out)
    for name in sizes.replayed:
        report['node'][name] = _replayed(given, runs[name] / 'model.safetensors', out, console)
    report['minutes'] = (time.perf_counter() - started) / 60
    return report


def _parted(index: Index, out: Path) -> tuple[Path, Path]:
    """Write an index of what is learnt from, and one of what is not, beside the whole."""
    logs = sorted({row.log for row in index.rows})
    if len(logs) > 1:
        parts = [[row for row in index.rows if (row.log == logs[-1]) == last] for last in (0, 1)]
    else:
        first = round(len(index.rows) * (1 - HELD_BACK))
        parts = [index.rows[:first], index.rows[first:]]
    paths = out / 'learnt.parquet', out / 'unseen.parquet'
    for path, rows in zip(paths, parts, strict=True):
        Index(rows, index.folder).save(path)
    return paths


def _epoch_ratios(
    report: Mapping[str, Any], sizes: Sizes, learnt: Path, targets: Path, out: Path
) -> dict[str, float]:
    """Tell how many times longer an epoch of dense correspondence takes without cached targets."""
    preset = shared_file('config/pretraining/cross4d_jepa.yaml')
    config, _ = load_pretraining(preset, sizes.changes)
    index = Index.load(learnt)
    views = (
        config.batch * Windows(index, TargetCache(targets), config, pretrained_model(config)).views
    )
    step_s = report['presets']['cross4d_jepa']['seconds_per_step']
    images = some_images(index)
    ratios = {}
    for name in sizes.timed:
        teacher = vit_small(out / VIT_SMALL) if name == VIT_SMALL else name
        ratios[name] = epoch_ratio(step_s, views, teacher_s(teacher, sizes.input_height, images))
    return ratios


def _replayed(given: Recordings, model: Path, out: Path, console: Console) -> dict[str, Any]:
    """Replay the last recording into the node with a model.

    Raises:
        CommandFailed: The node did not answer as it should.

    """
    folder = out / 'node' / model.parent.name
    words = ['--bag', str(given.bags[-1]), *given.topics, '--model', str(model)]
    # A process of its own: the middleware's settings are those of a whole process.
    module, words = 'cross4d_jepa_ros.demo', [*words, '--out', str(folder)]
    show_command(command_line(module, words), console)
    if subprocess.run([sys.executable, '-m', module, *words], check=False).returncode != 0:
        msg = f'the node did not run {model}'
        raise CommandFailed(msg)
    told = json.loads((folder / 'report.json').read_text())
    books = ('sweeps_in', 'sweeps_out', 'dropped', 'in_flight')
    return {key: told[key] for key in (*books, 'answers', 'latency_ms')}


def draw_curves(report: Mapping[str, Any], out: Path) -> None:
    """Draw the losses of all presets, and what a ridge reads off each."""
    figure = Figure(figsize=(11, 4), layout='constrained')
    left, right = figure.subplots(1, 2)
    for name in report['presets']:
        rows = RunFolder(out / name, {}).rows()
        left.plot([row['step'] for row in rows], [row['loss'] for row in rows], label=name)
    left.set(xlabel='step', ylabel='loss (not comparable between presets)')
    left.legend()
    figures = next(iter(report['presets'].values()))
    bars = {name: told['r2'] for name, told in report['presets'].items()}
    bars |= {'random weights': figures['r2_random'], 'position only': figures['r2_position']}
    right.barh(list(bars), list(bars.values()))
    right.set(xlabel="R² of a ridge to the teacher's components, where nothing was learnt")
    right.invert_yaxis()
    figure.savefig(out / 'curves.png', dpi=110)


def _print(report: Mapping[str, Any], console: Console) -> None:
    presets = report['presets']
    table = Table('', *presets)
    for figure in FIGURES:
        told = (presets[name][figure] for name in presets)
        table.add_row(figure.replace('_', ' '), *(f'{value:.3g}' for value in told))
    console.print(table)
    for name, ratio in report['epoch_ratio'].items():
        console.print(f'an epoch with {name} in every step would take {ratio:.1f} times as long')
    for name, told in report['node'].items():
        wrong = sum(told['answers'].values())
        console.print(
            f'node with {name}: {told["sweeps_out"]} of {told["sweeps_in"]} sweeps answered, '
            f'{wrong} wrong, latency {told["latency_ms"]["p50"]:.0f} ms'
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--bag', type=Path, help='left out: drives through towns')
    parser.add_argument('--points', default='', help='PointCloud2 topic; optional if unique')
    parser.add_argument('--images', nargs='*', default=[], help='image topics')
    parser.add_argument('--extrinsics', type=Path, help='YAML; left out: /tf_static of the bag')
    parser.add_argument('--odometry', default='', help='nav_msgs/Odometry topic')
    parser.add_argument('--set', action='append', metavar='KEY=VALUE', help='of all presets')
    parser.add_argument('--out', type=Path, default=Path('out/pretrain_demo'))
    arguments = parser.parse_args(argv)
    console, out = Console(), arguments.out
    sizes = Sizes()
    if arguments.set:
        sizes = replace(sizes, changes=(*sizes.changes, *arguments.set))
    try:
        if arguments.bag:
            topics = ['--images', *arguments.images]
            for name in ('points', 'extrinsics', 'odometry'):
                if getattr(arguments, name):
                    topics += [f'--{name}', str(getattr(arguments, name))]
            given = Recordings((arguments.bag,), tuple(topics))
        else:
            given = Recordings(_towns(sizes, out / 'bags', console), STREET_TOPICS)
        report = chain(given, sizes, out, console)
    except (CommandFailed, ValueError, OSError) as error:
        console.print(str(error), style='red', markup=False, soft_wrap=True)
        return 2
    write_atomically(out / 'report.json', json.dumps(report, indent=2) + '\n')
    draw_curves(report, out)
    _print(report, console)
    console.print(f'{out}: {report["minutes"]:.1f} minutes; report.json, curves.png')
    return 0


def _towns(sizes: Sizes, folder: Path, console: Console) -> tuple[Path, ...]:
    with Bars(console) as progress:
        task = progress.add_task('driving through towns', total=len(sizes.towns))
        made = record_towns(folder, sizes.towns, sizes.seconds, lambda: progress.advance(task))
    return tuple(made[seed] for seed in sizes.towns)


if __name__ == '__main__':
    sys.exit(main())
