# SPDX-License-Identifier: Apache-2.0
"""Say what perception will make of a recording, or of the topics that are live now, and why.

    python -m cross4d_jepa_ros.doctor --bag drive
    python -m cross4d_jepa_ros.doctor --bag drive --points /lidar --images /camera/image_raw
    python -m cross4d_jepa_ros.doctor --seconds 5

One verdict for each thing that has to be right: ok, a warning or an error, with the figures seen
and what to turn. Leaves report.json, perception.yaml (parameters that suit) and a picture of the
points in each camera in the output folder, and prints the launch command.

Exit codes: 0 no error, 1 errors were found, 2 it is not clear which topics to take.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cross4d_jepa_ros.doctor.lines import wrapped
from cross4d_jepa_ros.doctor.packages import installed, interpreter, packages, pins, ros, wanted


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = _parser().parse_args(argv)
    found = [
        ('interpreter', *interpreter()),
        ('packages', *packages(wanted(), installed, *pins())),
        ('ROS', *ros(installed)),
    ]
    if any(level == 'error' for _, level, _ in found):
        for about, level, sentence in found:
            print(wrapped(level, about, sentence, 80))
        print('\nNothing else is looked at before these are there.')
        return 1
    # Needs the packages.
    from cross4d_jepa_ros.doctor.command import run

    return run(arguments, found)


def _parser() -> argparse.ArgumentParser:
    head, examples, rest = __doc__.split('\n\n', 2)
    parser = argparse.ArgumentParser(
        prog='doctor',
        usage=f'\n{examples}',
        description=f'{head}\n\n{rest}',
        formatter_class=argparse.RawDescriptionHelpFormatter,
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


if __name__ == '__main__':
    sys.exit(main())
