# SPDX-License-Identifier: Apache-2.0
"""Say what perception will make of a recording, or of the topics that are live now, and why.

    python -m cross4d_jepa_ros.doctor --bag drive
    python -m cross4d_jepa_ros.doctor --bag drive --points /lidar --images /camera/image_raw
    python -m cross4d_jepa_ros.doctor --seconds 5

One line for each thing that has to be right: ok, a warning or an error, with the figures seen and
what to turn. Leaves report.json, perception.yaml (parameters that suit) and a picture of the points
in each camera in the output folder, and prints the launch command.

Exit codes: 0 no error, 1 errors were found, 2 it is not clear which topics to take.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console

from cross4d_jepa_ros.bag_setup import BagSetup, UnfitBag, colour_topics, settle
from cross4d_jepa_ros.bags import BadBag, Bag
from cross4d_jepa_ros.doctor.advice import launch_command, write_parameters
from cross4d_jepa_ros.doctor.machine import machine, model_file
from cross4d_jepa_ros.doctor.recording import Examined, examine, topics
from cross4d_jepa_ros.files import write_atomically
from cross4d_jepa_ros.health import Finding, Level
from cross4d_jepa_ros.ros.transport import use_large_message_profile
from cross4d_jepa_ros.shared_files import DEMO_CHECKPOINT, shared_file

STYLES = {Level.OK: 'green', Level.WARN: 'yellow', Level.ERROR: 'red'}
NAMES = {Level.OK: 'ok', Level.WARN: 'warning', Level.ERROR: 'error'}


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = _parser().parse_args(argv)
    console = Console()
    findings: list[Finding] = []

    def say(found: Sequence[Finding]) -> None:
        for finding in found:
            name = f'{NAMES[finding.level]:<7}'
            console.print(name, style=STYLES[finding.level], end=' ')
            line = f'{finding.about}: {finding.sentence}'
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        findings.extend(found)

    out: Path = arguments.out
    try:
        out.mkdir(parents=True, exist_ok=True)
        for old in ('report.json', 'perception.yaml'):
            (out / old).unlink(missing_ok=True)
        said = dict(os.environ)
        use_large_message_profile()
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
                setup = _settled(bag, arguments)
            except UnfitBag:
                say(topics(bag, (), arguments.reliability, live=arguments.bag is None))
                raise
            report = _look(bag, setup, arguments, say)
    except (BadBag, ValueError, OSError, ImportError) as error:
        console.print(f'error   {error}', style='red', markup=False, soft_wrap=True)
        return 2
    report['findings'] = [
        {'level': NAMES[found.level], 'about': found.about, 'sentence': found.sentence}
        for found in findings
    ]
    write_atomically(out / 'report.json', json.dumps(report, indent=2) + '\n')
    errors = sum(found.level == Level.ERROR for found in findings)
    warnings = sum(found.level == Level.WARN for found in findings)
    console.print(f'\n{errors} errors, {warnings} warnings; report and pictures in {out}')
    for title, name in (('on the robot', 'launch'), ('on the recording', 'replay')):
        if report[name]:
            line = f'{title}: {report[name]}'
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    return 1 if errors else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--bag', type=Path, help='rosbag2 folder, .mcap or .db3; left out: live')
    parser.add_argument('--points', default='', help='PointCloud2 topic; optional if unique')
    parser.add_argument(
        '--images', nargs='*', help='image topics; left out: one of each camera with colour'
    )
    parser.add_argument('--camera-infos', nargs='*', default=[], help='one each, else by rule')
    parser.add_argument('--odometry', default='', help='nav_msgs/Odometry topic')
    parser.add_argument('--extrinsics', type=Path, help='YAML; left out: TF')
    parser.add_argument('--model', type=Path, help='checkpoint; left out: the one of the package')
    parser.add_argument(
        '--reliability',
        choices=('auto', 'reliable', 'best_effort'),
        default='auto',
        help='qos.reliability that the node is to have',
    )
    parser.add_argument('--seconds', type=float, default=5.0, help='how long to listen, live')
    parser.add_argument('--out', type=Path, default=Path('out/doctor'))
    return parser


def _settled(bag: Bag, arguments: argparse.Namespace) -> BagSetup:
    return settle(
        bag,
        points=arguments.points,
        images=sorted(colour_topics(bag)) if arguments.images is None else arguments.images,
        camera_infos=arguments.camera_infos,
        odometry=arguments.odometry,
        extrinsics=arguments.extrinsics,
        folder=arguments.out,
    )


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
        'replay': '' if live else launch_command(*words, bag.path),
    }


if __name__ == '__main__':
    sys.exit(main())
