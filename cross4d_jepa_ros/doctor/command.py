# SPDX-License-Identifier: Apache-2.0
"""What the command does once the packages that it needs are known to be there."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console

from cross4d_jepa_ros.bag_setup import BagSetup, UnfitBag, settle_arguments
from cross4d_jepa_ros.bags import BadBag, Bag
from cross4d_jepa_ros.doctor.advice import (
    launch_command,
    over_lines,
    without_ros2,
    write_parameters,
)
from cross4d_jepa_ros.doctor.lines import wrapped
from cross4d_jepa_ros.doctor.machine import machine, model_file
from cross4d_jepa_ros.doctor.recording import Examined, examine, topics
from cross4d_jepa_ros.files import write_atomically
from cross4d_jepa_ros.health import Finding, Level
from cross4d_jepa_ros.ros.transport import use_large_message_profile
from cross4d_jepa_ros.shared_files import DEMO_CHECKPOINT, shared_file

STYLES = {Level.OK: 'green', Level.WARN: 'yellow', Level.ERROR: 'red'}
NAMES = {Level.OK: 'ok', Level.WARN: 'warning', Level.ERROR: 'error'}


def run(arguments: argparse.Namespace, machine_found: Sequence[tuple[str, str, str]]) -> int:
    """Look at everything and say what it is like.

    Args:
        arguments: Of the command line.
        machine_found: What was said of the interpreter and the packages: what it is on, level and
            sentence each.

    Returns:
        The exit code.

    """
    console = Console(soft_wrap=True, highlight=False)
    findings: list[Finding] = []

    def say(found: Sequence[Finding]) -> None:
        for finding in found:
            line = wrapped(NAMES[finding.level], finding.about, finding.sentence, _width(console))
            name = NAMES[finding.level]
            console.print(name, style=STYLES[finding.level], end='')
            console.print(line.removeprefix(name), markup=False)
        findings.extend(found)

    out: Path = arguments.out
    try:
        out.mkdir(parents=True, exist_ok=True)
        for old in ('report.json', 'perception.yaml'):
            (out / old).unlink(missing_ok=True)
        said = dict(os.environ)
        use_large_message_profile()
        levels = {name: level for level, name in NAMES.items()}
        say([Finding(levels[level], about, text) for about, level, text in machine_found])
        say(machine(said))
        say([model_file(arguments.model or shared_file(DEMO_CHECKPOINT))])
        with ExitStack() as stack:
            path = arguments.bag
            if path is None:
                from cross4d_jepa_ros.doctor.graph import overheard

                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix='doctor_')))
                path = folder / 'overheard'
                say(overheard(path, arguments.seconds))
            bag = stack.enter_context(Bag(path))
            try:
                setup = settle_arguments(bag, arguments, out)
            except UnfitBag:
                say(topics(bag, (), arguments.reliability, live=arguments.bag is None))
                raise
            report = _look(bag, setup, arguments, say)
    except (BadBag, ValueError, OSError, ImportError) as error:
        console.print(
            wrapped('error', 'topics', f'{error}', _width(console)), style='red', markup=False
        )
        return 2
    report['findings'] = [
        {'level': NAMES[found.level], 'about': found.about, 'sentence': found.sentence}
        for found in findings
    ]
    write_atomically(out / 'report.json', json.dumps(report, indent=2) + '\n')
    errors = sum(found.level == Level.ERROR for found in findings)
    warnings = sum(found.level == Level.WARN for found in findings)
    console.print(
        f'\n{errors} errors, {warnings} warnings; report and pictures in {out}', markup=False
    )
    titles = (
        ('on the robot', 'launch'),
        ('on the recording', 'replay'),
        ('here, without the ros2 command', 'without_ros2'),
    )
    for title, name in titles:
        if report[name]:
            console.print(f'\n{title}:\n{over_lines(report[name])}', markup=False)
    return 1 if errors else 0


def _width(console: Console) -> int:
    """Columns for text: wide terminals make lines that nobody can follow."""
    return min(console.width, 100)


def _look(bag: Bag, setup: BagSetup, arguments: argparse.Namespace, say: Any) -> dict[str, Any]:
    """Examine a recording; returns the report but for the findings."""
    live, out = arguments.bag is None, arguments.out
    used = (setup.points, *setup.images, *setup.camera_infos, setup.odometry)
    say(topics(bag, used, arguments.reliability, live=live))
    clock = 'clock' if live else 'time of recording'
    examined: Examined = examine(bag, setup, out, clock=clock)
    say(examined.findings)
    if not live:
        say([Finding(Level.WARN, 'recording', problem) for problem in bag.problems])
    write_parameters(out / 'perception.yaml', examined.parameters)
    # Live, the node hears TF itself.
    extrinsics = arguments.extrinsics if live else setup.extrinsics
    words = (setup, arguments.model, out / 'perception.yaml', extrinsics)
    return {
        'source': 'live' if live else str(bag.path),
        'points': setup.points,
        'images': list(setup.images),
        'camera_infos': list(setup.camera_infos),
        'odometry': setup.odometry,
        'cameras': examined.cameras,
        'parameters': examined.parameters,
        'launch': launch_command(*words),
        'replay': '' if live else launch_command(*words, arguments.bag),
        'without_ros2': '' if shutil.which('ros2') else without_ros2(*words, arguments.bag),
    }
