# SPDX-License-Identifier: Apache-2.0
"""Index the sweeps of recordings, with their images, poses, calibration and defects.

    python -m offline_training.index_bags drive_1 drive_2 --out out/index.parquet
    python -m offline_training.index_bags drives/* --points /lidar --images /cam/image_raw \
        --extrinsics calibration.yaml
    torchrun --nproc-per-node 8 -m offline_training.index_bags drives/* --out out/index.parquet

Takes rosbag2 recordings (folders, .mcap, .db3) and KITTI-style folders (velodyne, image_2,
calib.txt, poses.txt, times.txt, labels), in any mixture. Clouds and images are not copied. Beside
the index it leaves a report (.json) and, for each recording with images, a picture of its points
in them: look at these before training. Topics and extrinsics hold for all recordings given.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shlex
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch.distributed as dist
from rich.console import Console
from rich.progress import TaskID

from cross4d_jepa_ros.bag_setup import UnfitBag
from cross4d_jepa_ros.bags import BadBag
from cross4d_jepa_ros.files import InUse, one_writer, write_atomically
from cross4d_jepa_ros.progress import Bars
from cross4d_jepa_ros.sensing.extrinsics import BadExtrinsics
from offline_training.logs.bag_index import BagChoice, index_bag
from offline_training.logs.inspection import inspect
from offline_training.logs.kitti_folder import index_kitti, is_kitti
from offline_training.logs.report import doubts, log_report, low_coverage, report_table
from offline_training.logs.rows import LogFindings
from offline_training.logs.table import BadIndex, Index, IndexedSweep, log_name

# How long one process waits for the others.
LONGEST = timedelta(days=7)


@dataclass(frozen=True)
class Share:
    """Which of the recordings this process takes: every `world`-th, from `rank` on."""

    rank: int
    world: int

    @staticmethod
    def of_environment() -> Share:
        """Read what torchrun has set; alone without it."""
        return Share(int(os.environ.get('RANK', '0')), int(os.environ.get('WORLD_SIZE', '1')))


class CannotIndex(Exception):
    """There is nothing to write, or it would be of no use; the sentence says why."""


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    words = sys.argv[1:] if argv is None else argv
    arguments = _parser().parse_args(argv)
    if arguments.stride < 1:
        _parser().error(f'--stride is {arguments.stride}: give 1 for all sweeps, 2 for every other')
    console = Console(stderr=True)
    choice = replace(BagChoice.of(arguments), stride=arguments.stride)
    share = Share.of_environment()
    out: Path = arguments.out
    lock = one_writer(out.with_name(f'.{out.name}.lock'), str(out))
    try:
        # The others wait for the first one, and torchrun ends them where that is refused.
        with contextlib.nullcontext() if share.rank else lock:
            if share.world > 1:
                dist.init_process_group('gloo', timeout=LONGEST)
            return _run(arguments.bags, choice, out, share, words, console)
    except (CannotIndex, BadIndex, BadExtrinsics, InUse) as error:
        console.print(f'[red]{error}', highlight=False, soft_wrap=True)
    except OSError as error:
        text = f'[red]{arguments.out} cannot be written: {error}'
        console.print(text, highlight=False, soft_wrap=True)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('bags', type=Path, nargs='+', help='recordings and KITTI folders')
    parser.add_argument('--out', type=Path, default=Path('out/index.parquet'))
    BagChoice.add_arguments(parser)
    parser.add_argument('--stride', type=int, default=1, help='every so manieth sweep')
    return parser


def _run(
    bags: Sequence[Path],
    choice: BagChoice,
    out: Path,
    share: Share,
    words: Sequence[str],
    console: Console,
) -> int:
    rows: list[IndexedSweep] = []
    reports: list[dict[str, Any]] = []
    for findings, report in _indexed(bags[share.rank :: share.world], choice, out, share, console):
        reports.append(report)
        rows += findings.rows
        stop = low_coverage(findings)
        if stop:
            _write_report(out, rows, reports, words)
            msg = f'{findings.log}: {stop}; {out} is not written, see {_pictures(out)}'
            raise CannotIndex(msg)
    if share.world > 1:
        _write_part(out, share.rank, rows, reports)
        dist.barrier()
        if share.rank:
            return 0
        rows, reports = _merged(out, share.world)
    _write_report(out, rows, reports, words)
    Console().print(report_table(reports))
    for report in reports:
        for sentence in report['sentences']:
            console.print(
                f'[yellow]{report["log"]}[/]: {sentence}', highlight=False, soft_wrap=True
            )
    usable = sum(row.usable for row in rows)
    if not usable:
        msg = f'none of the recordings has a usable sweep: {out} is not written'
        raise CannotIndex(msg)
    Index(rows, out.parent).save(out)
    text = f'{out}: {usable} usable sweeps of {len(rows)}'
    console.print(text, highlight=False, soft_wrap=True)
    return 0


def _indexed(
    bags: Sequence[Path], choice: BagChoice, out: Path, share: Share, console: Console
) -> Iterator[tuple[LogFindings, dict[str, Any]]]:
    """Yield what was found in each recording, and its part of the report."""
    names = Counter(path.resolve().name for path in bags)
    with Bars(console, 'sweeps', disable=share.rank > 0) as progress:
        for path in bags:
            name = path.resolve().name
            task = progress.add_task(name, total=None, note='looking through')
            on_sweeps = partial(_show, progress, task)
            log = log_name(path, out.parent)
            try:
                if is_kitti(path):
                    findings = index_kitti(path, choice.stride, out.parent, on_sweeps)
                else:
                    findings = index_bag(path, choice, out.parent, on_sweeps)
            except (BadBag, UnfitBag) as error:
                # The others are still worth having.
                findings = LogFindings(log, [], problems=[str(error)])
            report = log_report(findings)
            # Recordings of one name lie in different folders.
            unique = name if names[name] == 1 else re.sub(r'\W+', '_', log).strip('_')
            picture = _pictures(out) / f'{unique}.png'
            progress.update(task, note='drawing')
            inspect(findings.rows, report['cameras'], out.parent, picture)
            report['sentences'] += doubts(report['cameras'])
            progress.remove_task(task)
            yield findings, report


def _show(progress: Bars, task: TaskID, done: int, total: int) -> None:
    progress.update(task, completed=done, total=total, note='')


def _pictures(out: Path) -> Path:
    return out.with_name(f'{out.stem}_pictures')


def _part(out: Path, rank: int) -> Path:
    return out.with_name(f'{out.stem}.part{rank}.parquet')


def _write_part(
    out: Path, rank: int, rows: Sequence[IndexedSweep], reports: Sequence[dict[str, Any]]
) -> None:
    _part(out, rank).unlink(missing_ok=True)  # of a run that was interrupted
    if rows:
        Index(rows, out.parent).save(_part(out, rank))
    write_atomically(_part(out, rank).with_suffix('.json'), json.dumps(reports))


def _merged(out: Path, world: int) -> tuple[list[IndexedSweep], list[dict[str, Any]]]:
    """Read what all processes have written, and remove it."""
    rows: list[IndexedSweep] = []
    reports: list[dict[str, Any]] = []
    for part in [_part(out, rank) for rank in range(world)]:
        rows += Index.load(part).rows if part.exists() else ()
        reports += json.loads(part.with_suffix('.json').read_text())
        part.unlink(missing_ok=True)
        part.with_suffix('.json').unlink()
    return rows, sorted(reports, key=lambda report: str(report['log']))


def _write_report(
    out: Path,
    rows: Sequence[IndexedSweep],
    reports: Sequence[dict[str, Any]],
    words: Sequence[str],
) -> None:
    report = {
        'rows': len(rows),
        'usable': sum(row.usable for row in rows),
        'logs': reports,
        'command': shlex.join(['python', '-m', 'offline_training.index_bags', *words]),
        'date': datetime.now(UTC).isoformat(timespec='seconds'),
    }
    write_atomically(out.with_suffix('.json'), json.dumps(report, indent=2) + '\n')


if __name__ == '__main__':
    sys.exit(main())
