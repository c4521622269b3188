# SPDX-License-Identifier: Apache-2.0
"""What stands in several places is the same everywhere; the core imports no ROS."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import yaml

import cross4d_jepa_ros
from cross4d_jepa_ros.ros.outputs import OUTPUT_TOPICS
from cross4d_jepa_ros.ros.parameters import PARAMETERS, table

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / 'README.md').read_text()


def test_versions_agree() -> None:
    manifest = ET.parse(ROOT / 'package.xml').getroot()
    setup = re.search(r"version='([^']+)'", (ROOT / 'setup.py').read_text())
    assert setup is not None
    assert manifest.findtext('version') == setup[1] == cross4d_jepa_ros.__version__


def test_package_is_ament_python_with_a_valid_maintainer() -> None:
    manifest = ET.parse(ROOT / 'package.xml').getroot()
    maintainer = manifest.find('maintainer')
    assert manifest.get('format') == '3'
    assert manifest.findtext('export/build_type') == 'ament_python'
    assert maintainer is not None
    assert re.fullmatch(r'[-\w.]+@[-\w]+(\.[-\w]+)+', maintainer.get('email', ''))


def test_readme_has_the_parameter_table() -> None:
    shown = re.search(
        r'<!-- parameters: begin .*?-->\n(.*?)\n<!-- parameters: end -->', README, re.S
    )
    assert shown is not None
    assert shown[1] == table(), 'run: make parameters'


@pytest.mark.parametrize('parameter', PARAMETERS, ids=lambda p: p.name)
def test_parameter_is_documented(parameter: object) -> None:
    assert parameter.description
    numeric = parameter.type in ('integer', 'double', 'double_array')
    assert bool(parameter.bounds) == numeric, 'numbers have a range'


def test_readme_names_every_output() -> None:
    for name in OUTPUT_TOPICS:
        assert f'`~/output/{name}`' in README


def test_parameter_file_holds_declared_parameters_of_the_right_type() -> None:
    content = yaml.safe_load((ROOT / 'config' / 'perception.param.yaml').read_text())
    declared = {parameter.name: parameter for parameter in PARAMETERS}
    for name, value in content['/**']['ros__parameters'].items():
        assert type(value) is type(declared[name].default), name
        assert value == declared[name].default, f'{name}: the file shows the defaults'


@pytest.mark.parametrize(
    'path',
    [
        *sorted((ROOT / 'cross4d_jepa_ros' / 'sensing').glob('*.py')),
        *sorted((ROOT / 'cross4d_jepa_ros' / 'model').glob('*.py')),
        *(ROOT / 'cross4d_jepa_ros' / f'{n}.py' for n in ('pipeline', 'health', 'telemetry')),
    ],
    ids=lambda path: path.name,
)
def test_core_imports_neither_ros_nor_bags(path: Path) -> None:
    forbidden = {'rclpy', 'rosbags', 'sensor_msgs', 'offline_training'}
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or '']
        assert not {name.split('.')[0] for name in names} & forbidden


def test_the_package_never_imports_the_workstation_side() -> None:
    for path in (ROOT / 'cross4d_jepa_ros').rglob('*.py'):
        assert 'import offline_training' not in path.read_text(), path
        assert 'from offline_training' not in path.read_text(), path


@pytest.mark.parametrize('package', ['cross4d_jepa_ros', 'offline_training', 'launch'])
def test_one_room_alone_knows_the_libraries_of_recordings(package: str) -> None:
    room = ROOT / 'cross4d_jepa_ros' / 'bags'
    for path in (ROOT / package).rglob('*.py'):
        found = re.search(r'^\s*(?:import|from) (?:rosbags|mcap)\b', path.read_text(), re.M)
        assert not found or path.is_relative_to(room), path


@pytest.mark.parametrize('package', ['cross4d_jepa_ros', 'offline_training'])
@pytest.mark.parametrize('chosen', ['', '77'])
def test_waiting_threads_spin_shortly_unless_told_otherwise(package: str, chosen: str) -> None:
    environment = {key: value for key, value in os.environ.items() if key != 'GOMP_SPINCOUNT'}
    environment |= {'GOMP_SPINCOUNT': chosen} if chosen else {}
    code = f'import {package}, os, sys; print(os.environ["GOMP_SPINCOUNT"], "torch" in sys.modules)'
    command = [sys.executable, '-c', code]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == [chosen or '1000', 'False']
