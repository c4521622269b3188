# SPDX-License-Identifier: Apache-2.0
"""The commands that the doctor prints are such as the launch files and the node take."""

from __future__ import annotations

import ast
import shlex
import subprocess
from pathlib import Path

import pytest

from cross4d_jepa_ros import demo
from cross4d_jepa_ros.bag_setup import TF_AS_ODOMETRY, BagSetup
from cross4d_jepa_ros.doctor.advice import launch_command, over_lines, without_ros2
from cross4d_jepa_ros.doctor.lines import wrapped

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ('/left/image_raw/compressed', '/right/image_raw')


def setup(odometry: str) -> BagSetup:
    return BagSetup('/lidar', IMAGES, ('/left/info', '/right/info'), odometry, None)


def arguments(name: str) -> set[str]:
    """Names in the table of a launch file."""
    tree = ast.parse((ROOT / 'launch' / name).read_text())
    (rows,) = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == 'ARGUMENTS'
    ]
    return {row[0] for row in rows}


@pytest.mark.parametrize('bag', [None, Path('drive')])
@pytest.mark.parametrize('odometry', ['', '/odom', TF_AS_ODOMETRY])
def test_the_launch_files_take_every_argument(bag: Path | None, odometry: str) -> None:
    files = Path('model.safetensors'), Path('perception.yaml'), Path('calibration.yaml')
    command = launch_command(setup(odometry), *files, bag)
    ros2, launch, package, file, *words = shlex.split(command)

    assert (ros2, launch, package) == ('ros2', 'launch', 'cross4d_jepa_ros')
    assert file == ('perception.launch.py' if bag is None else 'replay.launch.py')
    taken = arguments('perception.launch.py') | (arguments(file) if bag else set())
    given = dict(word.split(':=', 1) for word in words)
    assert set(given) <= taken
    assert given['images'] == f'[{",".join(IMAGES)}]'
    assert given['camera_infos'] == '[/left/info,/right/info]'
    assert all(Path(given[name]).is_absolute() for name in ('model', 'params_file', 'extrinsics'))
    assert ('odometry' in given) == (odometry == '/odom' or bool(bag and odometry))


def test_the_demo_takes_every_option() -> None:
    files = Path('model.safetensors'), Path('perception.yaml'), Path('calibration.yaml')
    words = shlex.split(without_ros2(setup('/odom'), *files, Path('drive')))
    taken = demo._parser().parse_args(words[3:])

    assert taken.bag == Path('drive').resolve()
    assert taken.points == '/lidar'
    assert taken.images == list(IMAGES)
    assert taken.camera_infos == ['/left/info', '/right/info']
    assert taken.odometry == '/odom'
    assert (taken.model, taken.extrinsics) == (files[0].resolve(), files[2].resolve())


def test_a_command_over_lines_is_the_same_command() -> None:
    command = launch_command(setup('/odom'), None, Path('a b.yaml'), Path('c.yaml'), Path('drive'))
    lines = over_lines(command)
    assert '\\\n' in lines
    assert max(len(line) for line in over_lines('word ' * 60).splitlines()) <= 80
    shell = ['bash', '-c', f'ros2() {{ printf "%s\\n" ros2 "$@"; }}; {lines}']
    done = subprocess.run(shell, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == shlex.split(command)


def test_a_verdict_reads_well_in_80_columns() -> None:
    sentence = 'a sentence of figures, ' * 12
    lines = wrapped('warning', 'sync /camera/image_raw', sentence, 80).splitlines()
    assert lines[0].startswith('warning sync /camera/image_raw: a sentence')
    assert all(line.startswith(' ' * 8) and line[8] != ' ' for line in lines[1:])
    assert max(map(len, lines)) <= 80
