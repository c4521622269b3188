# SPDX-License-Identifier: Apache-2.0
"""What the doctor says of packages, torch and GPU."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from cross4d_jepa_ros.doctor import __main__ as doctor
from cross4d_jepa_ros.doctor import machine
from cross4d_jepa_ros.doctor.packages import MODULES, packages, pins, ros
from cross4d_jepa_ros.health import Level

ROOT = Path(__file__).resolve().parents[2]
FILE = Path('constraints/jazzy.txt')
PINNED = {'numpy': '2.4.6', 'torch': '2.13.0', 'rosbags': '0.11.9'}
HERE = {'numpy': '2.4.6', 'torch': '2.13.0+cpu', 'rosbags': '0.11.10', 'unpinned': ''}


@pytest.mark.parametrize(
    ('changes', 'level', 'words'),
    [
        ({}, 'ok', 'none older than in constraints/jazzy.txt'),
        ({'numpy': '2.10.0'}, 'ok', 'numpy 2.10.0'),
        (
            {'numpy': '1.26.4'},
            'warning',
            'numpy 1.26.4 (tested: 2.4.6); it may do, else: '
            f'{sys.executable} -m pip install -c constraints/jazzy.txt --upgrade numpy ',
        ),
        (
            {'torch': None, 'rosbags': None},
            'error',
            f'missing: torch, rosbags; {sys.executable} -m pip install -c constraints/jazzy.txt '
            'torch rosbags (',
        ),
    ],
)
def test_what_is_missing_or_old_gets_its_command(
    changes: dict[str, str | None], level: str, words: str
) -> None:
    found, sentence = packages(list(HERE), (HERE | changes).get, FILE, PINNED)
    assert found == level
    assert words in sentence


def test_the_pins_are_those_of_the_checkout_and_hold_here(tmp_path: Path) -> None:
    file, pinned = pins()
    assert file is not None
    assert file.parent == ROOT / 'constraints'
    assert {name.lower() for name in MODULES} <= set(pinned)
    assert pins(tmp_path) == (None, {})


def test_the_names_are_those_of_setup_py() -> None:
    tree = ast.parse((ROOT / 'setup.py').read_text())
    (wanted,) = [
        ast.literal_eval(word.value)
        for word in ast.walk(tree)
        if isinstance(word, ast.keyword) and word.arg == 'install_requires'
    ]
    assert list(MODULES) == wanted


def test_a_missing_ros_is_named() -> None:
    level, sentence = ros({'rclpy': '7'}.get)
    assert level == 'error'
    assert 'missing: sensor_msgs, ' in sentence
    assert 'source the ROS' in sentence


def test_without_torch_the_command_says_so() -> None:
    """In a fresh interpreter, because nothing but the check may be imported before."""
    code = (
        'import sys; sys.modules["torch"] = None\n'
        'import importlib.metadata as m; version = m.version\n'
        'def without(name):\n'
        '    if name == "torch": raise m.PackageNotFoundError(name)\n'
        '    return version(name)\n'
        'm.version = without\n'
        'import importlib.util as u; spec = u.find_spec\n'
        'u.find_spec = lambda name: None if name == "torch" else spec(name)\n'
        'from cross4d_jepa_ros.doctor.__main__ import main\n'
        'sys.exit(main(["--bag", "nowhere"]))\n'
    )
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 1, done.stderr
    assert 'error   packages: missing: torch;' in done.stdout


@pytest.mark.parametrize(
    ('there', 'cuda', 'level', 'words'),
    [
        (False, None, Level.OK, 'none: the node runs on the CPU'),
        (True, None, Level.WARN, 'is built without CUDA'),
        (True, '12.8', Level.WARN, '(CUDA 12.8) cannot use it'),
    ],
)
def test_a_gpu_that_torch_does_not_use_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    there: bool,
    cuda: str | None,
    level: Level,
    words: str,
) -> None:
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(torch.version, 'cuda', cuda)
    driver = tmp_path / 'version'
    if there:
        driver.touch()
    finding = machine.gpu(driver)
    assert finding.level == level
    assert words in finding.sentence


def test_help_begins_with_examples(capsys: Any) -> None:
    with pytest.raises(SystemExit):
        doctor.main(['--help'])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].strip() == 'python -m cross4d_jepa_ros.doctor --bag drive'
