# SPDX-License-Identifier: Apache-2.0
"""Measures what a sweep costs, stage by stage, in multiples of a matrix product.

    python -m cross4d_jepa_ros.bench --out out/bench
    python -m cross4d_jepa_ros.bench --out out/bench --bag drive --points /lidar --images /camera
    python -m cross4d_jepa_ros.bench --out out/bench --page docs/performance.md

The first two leave report.json and bench.png; the third measures nothing and writes the tables of
the page from the report. Made-up sweeps of four sizes, or those of a recording.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import TaskID

from cross4d_jepa_ros.bag_setup import add_topic_arguments, settle_arguments
from cross4d_jepa_ros.bags import BadBag, Bag
from cross4d_jepa_ros.bench.live import SECONDS, live_recording, live_synthetic
from cross4d_jepa_ros.bench.report import draw, headline, rounded, show, stage_rows, write_page
from cross4d_jepa_ros.bench.stages import (
    Budget,
    Reference,
    Samples,
    machine,
    measure,
    model_of_size,
    with_window,
    write_checkpoint,
)
from cross4d_jepa_ros.bench.sweeps import Drive, Recording, SyntheticDrive
from cross4d_jepa_ros.compute import PRECISIONS
from cross4d_jepa_ros.demo import CannotRun
from cross4d_jepa_ros.files import write_atomically
from cross4d_jepa_ros.machine_load import OthersShare, own_pids
from cross4d_jepa_ros.model.checkpoint import load_checkpoint, read_contract
from cross4d_jepa_ros.pipeline import Pipeline
from cross4d_jepa_ros.progress import Bars
from cross4d_jepa_ros.ros.transport import use_large_message_profile, use_own_domain
from cross4d_jepa_ros.shared_files import DEMO_CHECKPOINT, shared_file

POINTS = (16384, 32768, 65536, 131072)
WINDOWS = (1, 2, 4, 8, 16)
OTHER_SIZES = ('small', 'base')
FEW_POINTS = (32768, 131072)
LIVE_POINTS = 131072
NOTE = (
    'weights: shipped is the checkpoint itself; adapted has its sizes but another number of '
    'sweeps, and its weights where shapes agree; fresh is untrained. Time does not depend on them.'
)


@dataclass(frozen=True)
class Setting:
    """What is measured: a size, its window, and the drive that it answers."""

    size: str
    window: int
    drive: Drive


@dataclass(frozen=True)
class Plan:
    """How everything is measured and where it goes."""

    model: Path
    device: str
    precision: str
    out: Path
    budget: Budget = Budget()


def settings(shipped: str, window: int, drives: Sequence[Drive], *, full: bool) -> list[Setting]:
    """List what to measure: the shipped size in every window, two windows of the larger ones.

    Args:
        shipped: Size of the checkpoint.
        window: Sweeps of the checkpoint (T).
        drives: Of every number of points.
        full: All sizes in all windows on all drives.

    """
    chosen = [
        Setting(shipped, sweeps, drive) for drive in drives for sweeps in sorted({*WINDOWS, window})
    ]
    for size in OTHER_SIZES:
        if size == shipped:
            continue
        windows = WINDOWS if full else (1, model_of_size(size).sweeps)
        few = [drive for drive in drives if drive.points in FEW_POINTS]
        for drive in drives if full or not few else few:
            chosen += [Setting(size, sweeps, drive) for sweeps in windows]
    return chosen


def measure_all(
    plan: Plan, chosen: Sequence[Setting], console: Console
) -> tuple[dict[str, Any], list[str]]:
    """Measure every setting.

    Args:
        plan: How.
        chosen: What.
        console: For the progress bar.

    Returns:
        The report but for `live`, and what could not be measured.

    """
    shipped = load_checkpoint(plan.model)
    work = plan.out / 'checkpoints'
    reference: Reference | None = None
    measured: list[tuple[dict[str, Any], Samples]] = []
    problems: list[str] = []
    rates: dict[str, Any] = {}
    load = OthersShare(own_pids())
    with Bars(console, 'settings') as bars:
        task = bars.add_task('', total=len(chosen))
        for number, setting in enumerate(chosen):
            bars.update(task, completed=number, description=_described(setting))
            checkpoint, weights = _checkpoint(plan, setting, shipped.contract.model.sweeps, work)
            pipeline = Pipeline(checkpoint, device=plan.device, precision=plan.precision)
            needed = (setting.window - 1) * pipeline.contract.model.sweep_stride + 1
            if setting.drive.sweeps is not None and needed + 3 > setting.drive.sweeps:
                problems.append(
                    f'T={setting.window} is not measured: it needs {needed + 3} sweeps, '
                    f'the recording has {setting.drive.sweeps}'
                )
                continue
            if reference is None:
                reference = Reference(pipeline.device)
                rates = machine(pipeline.device, PRECISIONS[pipeline.precision])
            samples = measure(
                pipeline, setting.drive, plan.budget, reference, _shown(bars, task, number)
            )
            measured.append((_named(setting, pipeline, weights), samples))
    shutil.rmtree(work, ignore_errors=True)
    if reference is None:
        msg = 'nothing was measured: ' + '; '.join(problems)
        raise CannotRun(msg)
    reference_ms = float(np.median(reference.ms))
    rows = [row for entry in measured for row in stage_rows(*entry, reference_ms)]
    report = {
        'date': datetime.now(UTC).isoformat(timespec='seconds'),
        'model': plan.model.name,
        'model_sha256': shipped.sha256,
        'note': NOTE,
        'machine': {'name': _machine_name(), 'torch': torch.__version__, **rates},
        'reference_ms': round(reference_ms, 3),
        'others_cpu_share': rounded(load.share()),
        'headline': headline(rows),
        'rows': rows,
    }
    return report, list(dict.fromkeys(problems))


def _described(setting: Setting) -> str:
    return f'{setting.size}, {setting.drive.points} points, T={setting.window}'


def _named(setting: Setting, pipeline: Pipeline, weights: str) -> dict[str, Any]:
    return {
        'size': setting.size,
        'device': pipeline.device.type,
        'dtype': pipeline.precision,
        'points': setting.drive.points,
        'window': setting.window,
        'ego_motion': setting.drive.ego_motion,
        'weights': weights,
    }


def _shown(bars: Bars, task: TaskID, number: int) -> Callable[[float, float], None]:
    def show(share: float, rate: float) -> None:
        bars.update(task, completed=number + share, note=f'{rate:.3g} sweeps/s')

    return show


def _checkpoint(plan: Plan, setting: Setting, sweeps: int, work: Path) -> tuple[Path, str]:
    """Find or write the network of a setting; says what its weights are."""
    shipped = read_contract(plan.model).model
    if setting.size == shipped.size and setting.window == sweeps:
        return plan.model, 'shipped'
    own = setting.size == shipped.size
    model = with_window(shipped if own else model_of_size(setting.size), setting.window)
    path = work / f'{setting.size}_{setting.window}.safetensors'
    if not path.exists():
        write_checkpoint(path, model, plan.model)
    return path, 'adapted' if own else 'fresh'


def _machine_name() -> str:
    try:
        found = re.search(r'model name\s*:\s*(.+)', Path('/proc/cpuinfo').read_text())
    except OSError:
        found = None
    return found[1].strip() if found else platform.machine()


@contextmanager
def _drives(
    arguments: argparse.Namespace,
) -> Iterator[tuple[list[Drive], Callable[[Path, Console], dict[str, Any]], dict[str, Any]]]:
    """Yield the drives, how to play them live, and what the report says of them."""
    folder = arguments.out / 'live'
    if arguments.bag is None:
        made: list[Drive] = [SyntheticDrive(points) for points in POINTS]

        def play(model: Path, console: Console) -> dict[str, Any]:
            return live_synthetic(LIVE_POINTS, SECONDS, model, folder, console)

        yield made, play, {'sweeps': 'synthetic', 'point_bytes': _point_bytes(made[0])}
        return
    with Bag(arguments.bag) as bag:
        setup = settle_arguments(bag, arguments, arguments.out)
        recorded: list[Drive] = [*Recording.read(bag, setup).drives()]

        def replay(model: Path, console: Console) -> dict[str, Any]:
            return live_recording(bag, setup, SECONDS, model, folder, console)

        yield recorded, replay, {'sweeps': str(bag.path), 'point_bytes': _point_bytes(recorded[0])}


def _point_bytes(drive: Drive) -> int:
    return int(next(drive.stream())[0].point_step)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = _parser().parse_args(argv)
    use_large_message_profile()
    use_own_domain()
    console = Console()
    file = arguments.out / 'report.json'
    try:
        if arguments.page:
            write_page(arguments.page, json.loads(file.read_text()))
            return 0
        arguments.out.mkdir(parents=True, exist_ok=True)
        for name in ('report.json', 'bench.png'):
            (arguments.out / name).unlink(missing_ok=True)
        model = arguments.model or shared_file(DEMO_CHECKPOINT)
        plan = Plan(model, arguments.device, arguments.precision, arguments.out)
        contract = read_contract(model).model
        with _drives(arguments) as (drives, play, said):
            chosen = settings(contract.size, contract.sweeps, drives, full=arguments.full)
            report, problems = measure_all(plan, chosen, console)
            console.print('live, over DDS')
            live = None
            try:
                live = play(model, console)
            except CannotRun as error:  # what was measured stands
                problems.append(f'not measured live: {error}')
            report = {**said, **report, 'live': live, 'problems': problems}
    except (BadBag, CannotRun, ValueError, OSError) as error:
        console.print(str(error), style='red', markup=False)
        return 2
    write_atomically(file, json.dumps(report, indent=1) + '\n')
    draw(arguments.out / 'bench.png', report['rows'])
    show(report, console)
    console.print(f'report.json and bench.png in {arguments.out}')
    return 0 if live else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--bag', type=Path, help='rosbag2 folder, .mcap or .db3')
    add_topic_arguments(parser, images=[])
    parser.add_argument('--model', type=Path, help='checkpoint; left out: the one of the package')
    parser.add_argument('--device', default='auto', help='auto, cpu, cuda or cuda:N')
    parser.add_argument('--precision', default='auto', help='auto, fp32, bf16 or fp16')
    parser.add_argument('--full', action='store_true', help='all sizes, windows and points')
    parser.add_argument('--out', type=Path, default=Path('out/bench'))
    parser.add_argument('--page', type=Path, help='write the tables of this page, measure nothing')
    return parser


if __name__ == '__main__':
    sys.exit(main())
