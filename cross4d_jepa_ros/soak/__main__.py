# SPDX-License-Identifier: Apache-2.0
"""Lets everything go wrong that goes wrong on robots, and times what the node makes of it.

    python -m cross4d_jepa_ros.soak --minutes 30 --seed 7 --out out/soak

Five processes, as on a robot: the node under test, its sensors, a second LiDAR, a reader of its
answers, and this one. Leaves report.json, rss.png and the logs of all lives of the node. Exit
code 1: a promise was broken.
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import ExitStack
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from cross4d_jepa_ros.files import write_atomically
from cross4d_jepa_ros.machine_load import OthersShare, own_pids
from cross4d_jepa_ros.ros.transport import use_large_message_profile, use_own_domain
from cross4d_jepa_ros.soak.conductor import Conductor
from cross4d_jepa_ros.soak.report import crashes, draw, memory, show, summed, untried, verdicts
from cross4d_jepa_ros.soak.stage import WATCHED, Stage
from cross4d_jepa_ros.soak.watch import Watch, wrong_answers

OLD = ('*.log', 'report.json', 'rss.png')


def main(argv: list[str] | None = None) -> int:
    """Run the soak; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n', 1)[0] if __doc__ else '')
    parser.add_argument('--minutes', type=float, default=2.0, help='no fault begins after them')
    parser.add_argument('--seed', type=int, default=7, help='of the order of the faults')
    parser.add_argument('--out', type=Path, default=Path('out/soak'))
    arguments = parser.parse_args(argv)
    use_large_message_profile()
    use_own_domain()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for old in chain.from_iterable(map(arguments.out.glob, OLD)):
        old.unlink(missing_ok=True)
    console = Console()
    report = soak(arguments.out, arguments.minutes, arguments.seed, console)
    write_atomically(arguments.out / 'report.json', json.dumps(report, indent=2) + '\n')
    show(report, console)
    console.print(f'report.json, rss.png and logs in {arguments.out}')
    return int(any(report['verdicts'].values()))


def soak(out: Path, minutes: float, seed: int, console: Console) -> dict[str, Any]:
    """Play faults for some minutes.

    Args:
        out: Where logs and the picture go.
        minutes: No fault begins after them.
        seed: Of the order of the faults.
        console: Where progress goes.

    Returns:
        The report.

    """
    problem = ''
    others = OthersShare(own_pids())
    with ExitStack() as stack:
        rclpy.init()
        stack.callback(rclpy.try_shutdown)
        watch = Watch(f'/{WATCHED}')
        stack.callback(watch.destroy_node)
        executor = SingleThreadedExecutor()
        stack.callback(executor.shutdown)
        executor.add_node(watch)
        stage = Stage(out, seed, watch, stack)
        conductor = Conductor(stage, executor)
        columns = (TextColumn('{task.description:40.40}'), BarColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task('starting', total=60 * minutes)
            try:
                conductor.play(
                    seed,
                    minutes,
                    lambda text: progress.update(
                        task, description=text, completed=conductor.seconds
                    ),
                )
            except RuntimeError as error:
                problem = str(error)
    # Now that its processes have ended, what they used counts as this one's.
    others_share = others.share()
    score = conductor.score
    if score.memory:
        draw(out / 'rss.png', score)
    report = {
        **summed(stage.ended),
        'in_flight_max': watch.in_flight_most,
        'faults': [asdict(fault) for fault in score.faults],
        'rss_mb': memory(score.memory, score.cycles),
        'crashes': crashes(stage.ended) + ([problem] if problem else []),
        'silence_s': round(score.silence_s, 2),
        'unbalanced': watch.unbalanced,
        'sent': len(stage.sent),
        'answers_received': len(watch.answers),
        'wrong_answers': wrong_answers(stage.sent, watch.answers),
        'lives': len(stage.ended),
        'cycles_s': score.cycles,
        'untried': untried(score.faults),
        'others_cpu_share': None if others_share is None else round(others_share, 3),
        'model_sha256': watch.model_sha256,
        'seed': seed,
        'minutes': minutes,
    }
    return {**report, 'verdicts': verdicts(report)}


if __name__ == '__main__':
    sys.exit(main())
