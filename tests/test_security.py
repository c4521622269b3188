# SPDX-License-Identifier: Apache-2.0
"""Nothing that comes from outside is run or unpickled, and every version is pinned."""

from __future__ import annotations

import re
import sys
import sysconfig
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pytest

from cross4d_jepa_ros.ros.message_types import message_type
from tests import audit
from tests.forbidden_calls import forbidden

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted(
    path
    for folder in ('cross4d_jepa_ros', 'offline_training', 'launch')
    for path in (ROOT / folder).rglob('*.py')
)
# Looked for and written into made-up sources; nothing here is called.
TORCH_LOAD, YAML_LOAD = ('.'.join((module, 'load')) for module in ('torch', 'yaml'))
# Each has a reason that a test below, or one that it names, holds.
EXCEPTIONS = {
    # Its file is refused unless its sha256 is the pinned one: test_lite0.py.
    'offline_training/teachers/lite0.py': [],
    # The names that may be imported are those of messages: below.
    'cross4d_jepa_ros/ros/message_types.py': ['importlib.import_module'],
    # Of offline_training only, and named by config/results.yaml.
    'offline_training/results/commands.py': ['importlib.import_module'],
    # All other YAML is read by it, within its limits: test_reading.py.
    'cross4d_jepa_ros/reading.py': ['yaml.SafeLoader'],
    # An argument of whoever launches, and ament's launch files import nothing of their package.
    'launch/perception.launch.py': ['yaml.safe_load'],
}


@pytest.mark.parametrize('path', SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_source_runs_and_unpickles_nothing_from_outside(path: Path) -> None:
    allowed = EXCEPTIONS.get(str(path.relative_to(ROOT)), [])
    found = forbidden(path.read_text())
    assert [problem for problem in found if problem.split()[0] not in allowed] == []


def test_only_the_pinned_weights_of_one_teacher_are_loaded_by_torch() -> None:
    loading = [path for path in SOURCES if f'{TORCH_LOAD}(' in path.read_text()]
    assert [path.name for path in loading] == ['lite0.py']
    source = loading[0].read_text()
    assert source.index('if found != WEIGHTS_SHA256') < source.index(f'{TORCH_LOAD}(')


@pytest.mark.parametrize(
    'source',
    [
        'import pickle',
        'from pickle import loads as safe',
        'import xml.etree.ElementTree as ET',
        'from urllib import request',
        'import urllib.request',
        'import joblib, os',
        'eval("1")',
        'exec(text)',
        'code = compile(text, "", "exec")',
        '__import__(name)',
        'from importlib import import_module\nimport_module(name)',
        'import os\nos.system("ls " + path)',
        'from os import popen\npopen(command)',
        'import os\nos.execvp(name, words)',
        f'import torch\n{TORCH_LOAD}(path)',
        'import torch as t\nt.load(path, weights_only=False)',
        'from torch import load\nload(path)',
        'import torch\ntorch.hub.load("a/b", "c")',
        'import numpy as np\nnp.load(path)',
        'import numpy as np\nnp.load(path, allow_pickle=True)',
        f'import yaml\n{YAML_LOAD}(text, Loader=yaml.Loader)',
        'import yaml\nread = yaml.full_load',
        'from yaml import unsafe_load',
        'from yaml import safe_load\nsafe_load(text)',
        'import yaml\nyaml.CUnsafeLoader(text)',
        'import subprocess\nsubprocess.run(line, shell=True)',
        'import subprocess\nsubprocess.run(line, shell=chosen)',
        'import subprocess as s\ns.Popen(f"rosbag {path}")',
        'import subprocess\nsubprocess.getoutput(line)',
        'import tempfile\ntempfile.mktemp()',
        'from transformers import AutoModel\nAutoModel.from_pretrained(name)',
        'from transformers import AutoModel\n'
        'AutoModel.from_pretrained(name, trust_remote_code=False)',
        'from transformers import AutoConfig\n'
        'AutoConfig.from_pretrained(name, trust_remote_code=True)',
    ],
)
def test_each_rule_can_fail(source: str) -> None:
    assert forbidden(source)


@pytest.mark.parametrize(
    'source',
    [
        'import re\nre.compile("a")',
        'network.eval()',
        f'import torch, io\n{TORCH_LOAD}(io.BytesIO(b""), weights_only=True)',
        'import numpy as np\nnp.load(path, allow_pickle=False)',
        'import yaml\nyaml.safe_dump(content)',
        'import subprocess\nsubprocess.run([program, path], check=False)',
        'import json\njson.load(stream)',
        'from transformers import AutoModel\n'
        'AutoModel.from_pretrained(name, trust_remote_code=False, use_safetensors=True)',
    ],
)
def test_no_rule_forbids_what_is_harmless(source: str) -> None:
    assert forbidden(source) == []


@pytest.mark.parametrize(
    'name',
    [
        'planted/msg/Name',
        'planted/Name',
        'planted//Name',
        'planted.inside/msg/Name',
        '../planted/msg/Name',
        'os/path/join',
        'sensor_msgs/msg/_image',
        'sensor_msgs/msg/__builtins__',
        'sensor_msgs/msg/Nothing',
        'sensor_msgs/msg/Image; import os',
        '',
        '/',
    ],
)
def test_a_recording_cannot_have_modules_run_by_calling_its_types_after_them(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    run = tmp_path / 'run'
    (tmp_path / 'planted').mkdir()
    (tmp_path / 'planted' / '__init__.py').write_text(f'open({str(run)!r}, "w")')
    with pytest.raises(ImportError, match='is not installed here'):
        message_type(name)
    # A package of that very name is what Python is told to import: there it is up to the path.
    assert run.exists() == (name == 'planted/msg/Name')


# Python's own, which a virtual environment comes with, and this package.
UNPINNED = {'pip', 'setuptools', 'cross4d-jepa-ros'}


def pinned(line: str) -> dict[str, str]:
    """Read the constraints of a ROS line."""
    lines = (ROOT / 'constraints' / f'{line}.txt').read_text().splitlines()
    return dict(line.split('==') for line in lines if line and not line.startswith('#'))


@pytest.mark.parametrize('line', ['jazzy', 'kilted'])
def test_every_constraint_pins_one_version(line: str) -> None:
    text = (ROOT / 'constraints' / f'{line}.txt').read_text()
    for constraint in text.splitlines():
        assert re.fullmatch(r'[\w.-]+==[\w.+!]+', constraint, re.ASCII), constraint


def test_what_is_installed_is_what_is_pinned() -> None:
    if not (Path(sys.prefix) / 'ready').is_file():
        return  # not installed from the constraints, such as next to a ROS from apt
    folders = {sysconfig.get_path('purelib'), sysconfig.get_path('platlib')}
    # ROS's wheels hold records of distributions that nobody installed.
    found = [one for one in distributions(path=sorted(folders)) if one.read_text('INSTALLER')]
    # 2.13.0+cpu is one of the builds of 2.13.0.
    installed = {_canonical(one.name): one.version.partition('+')[0] for one in found}
    line = 'jazzy' if 'ros-jazzy-rclpy' in installed else 'kilted'
    wanted = {_canonical(name): version for name, version in pinned(line).items()}
    installed = {name: installed[name] for name in installed.keys() - UNPINNED}
    assert len(installed) > 100
    assert installed == {name: wanted.get(name) for name in installed}


@pytest.mark.parametrize(
    ('asked', 'code', 'said'),
    [
        ([], 2, 'NOT AUDITED'),
        ([{'name': 'a', 'skip_reason': 'not found'}], 2, 'NOT AUDITED'),
        ([{'name': 'a', 'version': '1', 'vulns': []}], 0, '1 of 1 versions'),
        (
            [{'name': 'a', 'version': '1', 'vulns': []}, {'name': 'b', 'skip_reason': 'x'}],
            2,
            'nothing is known of them: b',
        ),
        (
            [{'name': 'a', 'version': '1', 'vulns': [{'id': 'CVE-1', 'fix_versions': ['2']}]}],
            1,
            'a 1: CVE-1, fixed in 2',
        ),
        (
            [{'name': 'a', 'version': '1', 'vulns': [{'id': 'CVE-1', 'fix_versions': []}]}],
            1,
            'fixed in no version yet',
        ),
    ],
)
def test_an_audit_that_could_not_look_everything_up_says_so(
    asked: list[dict[str, Any]], code: int, said: str
) -> None:
    found, lines = audit.verdict({'dependencies': asked})
    assert found == code
    assert said in '\n'.join(lines)


def test_an_audit_without_a_report_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    # This environment has no pip-audit: it would be a part of what it audits.
    assert audit.main([]) == 2
    assert 'NOT AUDITED' in capsys.readouterr().out


def _canonical(name: str) -> str:
    return re.sub(r'[-_.]+', '-', name).lower()
