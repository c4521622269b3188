# SPDX-License-Identifier: Apache-2.0
"""What stands in several places is the same everywhere; the core imports no ROS."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from datetime import date
from pathlib import Path

import pytest
import yaml

import cross4d_jepa_ros
from cross4d_jepa_ros.ledger import Drop
from cross4d_jepa_ros.ros.parameters import PARAMETERS
from cross4d_jepa_ros.ros.tables import with_tables

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / 'README.md').read_text()


def changelog() -> list[tuple[str, list[str]]]:
    """Sections of CHANGELOG.rst, newest first, with the lines below their underline (REP-132)."""
    title = 'Changelog for package cross4d_jepa_ros'
    lines = (ROOT / 'CHANGELOG.rst').read_text().splitlines()
    assert lines[:4] == ['^' * len(title), title, '^' * len(title), '']
    heads = [at for at in range(4, len(lines)) if re.fullmatch('-{3,}', lines[at])]
    assert heads[0] == 5
    for at in heads:
        assert len(lines[at]) == len(lines[at - 1]), f'underline of {lines[at - 1]}'
        assert at == 5 or not lines[at - 2], f'an empty line goes before {lines[at - 1]}'
    ends = [at - 1 for at in heads[1:]] + [len(lines)]
    return [(lines[at - 1], lines[at + 1 : end]) for at, end in zip(heads, ends, strict=True)]


def test_versions_agree() -> None:
    manifest = ET.parse(ROOT / 'package.xml').getroot()
    setup = re.search(r"version='([^']+)'", (ROOT / 'setup.py').read_text())
    assert setup is not None
    assert manifest.findtext('version') == setup[1] == cross4d_jepa_ros.__version__
    released = [head.split()[0] for head, _ in changelog() if head != 'Forthcoming']
    assert not released or released[0] == setup[1]


def test_the_changelog_has_the_form_that_release_tools_read() -> None:
    numbers, days = [], []
    for place, (head, lines) in enumerate(changelog()):
        if head != 'Forthcoming' or place:
            release = re.fullmatch(r'(\d+)\.(\d+)\.(\d+) \((\d{4}-\d{2}-\d{2})\)', head)
            assert release, head
            numbers.append(tuple(map(int, release.groups()[:3])))
            days.append(date.fromisoformat(release[4]))
        entries = [line for line in lines if line]
        assert entries, f'{head} is empty'
        assert entries[0].startswith('* ')
        for line in entries:
            assert re.match(r'(\* |  )\S', line), line
            assert line.count('``') % 2 == 0, line
    assert numbers == sorted(numbers, reverse=True)
    assert days == sorted(days, reverse=True)


def test_package_is_ament_python_with_a_valid_maintainer() -> None:
    manifest = ET.parse(ROOT / 'package.xml').getroot()
    maintainer = manifest.find('maintainer')
    assert manifest.get('format') == '3'
    assert manifest.findtext('export/build_type') == 'ament_python'
    assert maintainer is not None
    assert re.fullmatch(r'[-\w.]+@[-\w]+(\.[-\w]+)+', maintainer.get('email', ''))


def test_readme_has_the_tables() -> None:
    assert with_tables(README) == README, 'run: make tables'


@pytest.mark.parametrize(
    'damage', ['| `qos.depth` | integer', '| `~/input/odometry` | in', 'end -->']
)
def test_a_table_that_drifts_would_be_noticed(damage: str) -> None:
    assert README.count(damage)
    drifted = README.replace(damage, 'nonsense', 1)
    try:
        assert with_tables(drifted) != drifted
    except ValueError as error:
        assert 'wanted once' in str(error)


def test_readme_names_every_cause_of_a_drop() -> None:
    (sentence,) = re.findall(r'Causes of a drop: (.*?)\n\n', README, re.S)
    assert re.findall(r'`(\w+)`', sentence) == [str(cause) for cause in Drop]


@pytest.mark.parametrize('parameter', PARAMETERS, ids=lambda p: p.name)
def test_parameter_is_documented(parameter: object) -> None:
    assert parameter.description
    numeric = parameter.type in ('integer', 'double', 'double_array')
    assert bool(parameter.bounds) == numeric, 'numbers have a range'


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
