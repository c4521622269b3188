# SPDX-License-Identifier: Apache-2.0
"""The launch command and the parameter file that suit what was found."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from cross4d_jepa_ros.bag_setup import TF_AS_ODOMETRY, BagSetup
from cross4d_jepa_ros.files import write_atomically
from cross4d_jepa_ros.reading import read_yaml
from cross4d_jepa_ros.sensing.frames import camera_info_topic
from cross4d_jepa_ros.shared_files import PACKAGE, shared_file

PARAMETER_FILE = 'config/perception.param.yaml'


def write_parameters(path: Path, found: Mapping[str, Any]) -> None:
    """Write the parameter file of the package with what was found in it.

    Args:
        path: File to write.
        found: Parameters by name; those that are not named keep what the package ships.

    """
    content = read_yaml(shared_file(PARAMETER_FILE))
    content['/**']['ros__parameters'] |= found
    text = yaml.safe_dump(content, sort_keys=False, default_flow_style=None)
    write_atomically(path, f'# What suits the topics that doctor looked at.\n{text}')


def launch_command(
    setup: BagSetup,
    model: Path | None,
    parameters: Path,
    extrinsics: Path | None,
    bag: Path | None = None,
) -> str:
    """Name the command that runs perception on these topics.

    Args:
        setup: The topics.
        model: Checkpoint; None for that of the package.
        parameters: The parameter file.
        extrinsics: Calibration file; None where TF and CameraInfo say all.
        bag: Recording that is to be replayed; None for a robot.

    """
    words = ['ros2', 'launch', PACKAGE]
    words += (
        ['perception.launch.py'] if bag is None else ['replay.launch.py', f'bag:={bag.resolve()}']
    )
    words.append(f'points:={setup.points}')
    if setup.images:
        words.append(f'images:=[{",".join(setup.images)}]')
        if setup.camera_infos != tuple(map(camera_info_topic, setup.images)):
            words.append(f'camera_infos:=[{",".join(setup.camera_infos)}]')
    # What replay_bag makes of /tf is on no robot.
    if setup.odometry and not (bag is None and setup.odometry == TF_AS_ODOMETRY):
        words.append(f'odometry:={setup.odometry}')
    for name, file in (('extrinsics', extrinsics), ('model', model), ('params_file', parameters)):
        if file is not None:
            # Another terminal may stand in another folder.
            words.append(f'{name}:={file.resolve()}')
    return shlex.join(words)


def without_ros2(
    setup: BagSetup,
    model: Path | None,
    parameters: Path,
    extrinsics: Path | None,
    bag: Path | None = None,
) -> str:
    """Name what does the same with this interpreter alone; arguments as of `launch_command`.

    The node on the live topics, or the demo on a recording, which finds out parameters by itself.
    """
    module = f'{PACKAGE}.perception_node' if bag is None else f'{PACKAGE}.demo'
    words = [sys.executable, '-m', module]
    if bag is not None:
        words += ['--bag', f'{bag.resolve()}', '--points', setup.points]
        words += ['--images', *setup.images, '--camera-infos', *setup.camera_infos]
        if setup.odometry not in ('', TF_AS_ODOMETRY):
            words += ['--odometry', setup.odometry]
        for option, file in (('--extrinsics', extrinsics), ('--model', model)):
            words += [] if file is None else [option, f'{file.resolve()}']
        return shlex.join(words)
    words += ['--ros-args', '--params-file', f'{parameters.resolve()}']
    inputs = {'points': setup.points, 'odometry': setup.odometry}
    inputs |= {f'image{i}': topic for i, topic in enumerate(setup.images)}
    inputs |= {f'camera_info{i}': topic for i, topic in enumerate(setup.camera_infos)}
    for name, topic in inputs.items():
        words += ['-r', f'~/input/{name}:={topic}'] if topic else []
    words += ['-p', f'cameras:={len(setup.images)}']
    for name, file in (('extrinsics_file', extrinsics), ('model', model)):
        words += [] if file is None else ['-p', f'{name}:={file.resolve()}']
    return shlex.join(words)


def over_lines(command: str, width: int = 79) -> str:
    """Break a command into lines of a shell, where it is longer than one of so many characters."""
    words = shlex.split(command)
    lines, line = [], ''
    for word in map(shlex.quote, words):
        if line and len(line) + len(word) + 3 > width:
            lines.append(line)
            line = f'    {word}'
        else:
            line = f'{line} {word}' if line else word
    return ' \\\n'.join((*lines, line))
