# SPDX-License-Identifier: Apache-2.0
"""The commands that the pages show, and what would understand them."""

from __future__ import annotations

import argparse
import ast
import importlib
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from rclpy.parameter import Parameter as RosParameter
from torch.distributed.run import get_args_parser

from cross4d_jepa_ros.ros.inputs import INPUTS
from cross4d_jepa_ros.ros.parameters import PARAMETERS, refused
from offline_training.label_map import load_label_map
from offline_training.pretraining.settings import load_pretraining
from offline_training.training_settings import load_training

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *sorted((ROOT / 'docs').glob('*.md'))]
MAKEFILE = (ROOT / 'Makefile').read_text()
SETUP = (ROOT / 'setup.py').read_text()
DECLARED = {parameter.name: parameter for parameter in PARAMETERS}
MODULE = re.compile(r'-m ((?:cross4d_jepa_ros|offline_training)[\w.]*)(.*)')
SHOWN_IN_TEXT = re.compile(r'(?:[A-Z_]+=\S+ )*(?:python3?|torchrun|make|ros2|export|pip|\.) ')


def fenced(text: str, kind: str) -> list[str]:
    """Blocks between fences of a kind."""
    found = re.findall(r'^```(\w*)\n(.*?)^```', text, re.S | re.M)
    return [block for kind_of, block in found if kind_of == kind]


def spans(text: str) -> list[str]:
    """What stands in backticks, on one line each."""
    prose = re.sub(r'^```.*?^```', '', text, flags=re.S | re.M)
    return [' '.join(span.split()) for span in re.findall(r'`([^`]+)`', prose)]


def commands(text: str) -> list[str]:
    """Lines of the blocks for a shell, and what in the text begins like a command."""
    found = []
    for block in [*fenced(text, ''), *fenced(text, 'bash')]:
        if '|\n' not in block:  # the picture of the data flow
            found += block.replace('\\\n', ' ').splitlines()
    found += [span for span in spans(text) if SHOWN_IN_TEXT.match(span) and '…' not in span]
    lines = [' '.join(line.split()) for line in found]
    return list(dict.fromkeys(line for line in lines if line and not line.startswith('#')))


# What understands them


class Parsed(Exception):
    """Instead of running: what a command understood."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments


def parsed(module: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace:
    """Let a module parse its words, and nothing else."""
    parse = argparse.ArgumentParser.parse_args

    def parse_only(self: Any, words: Any = None, namespace: Any = None) -> None:
        raise Parsed(parse(self, words, namespace))

    path = ROOT.joinpath(*module.split('.'))
    name = f'{module}.__main__' if path.is_dir() else module
    source = path / '__main__.py' if path.is_dir() else path.with_suffix('.py')
    assert 'parse_args(' in source.read_text(), f'{name} would run'
    with monkeypatch.context() as patched:
        patched.setattr(argparse.ArgumentParser, 'parse_args', parse_only)
        with pytest.raises(Parsed) as caught:
            importlib.import_module(name).main(words)
    return caught.value.arguments


def check_module(module: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Parse a command; what it names of this repository has to be there."""
    arguments = parsed(module, words, monkeypatch)
    for word in words:
        if word.startswith(('config/', 'launch/', 'docs/', 'tests/')):
            path = ROOT / word
            assert path.exists() or word == str(getattr(arguments, 'out', '')), word
    if module == 'offline_training.pretrain':
        load_pretraining(ROOT / arguments.config, arguments.set)
    elif module == 'offline_training.train_segmentation':
        start = [] if arguments.start is None else [f'warm_start={arguments.start}']
        load_training(ROOT / arguments.config, [*arguments.set, *start])
    labels = getattr(arguments, 'labels', None)
    if labels is not None and labels.parts[0] == 'config':
        load_label_map(ROOT / labels)


@cache
def launch_arguments(name: str) -> frozenset[str]:
    """Names that a launch file declares; that of a recording takes all of the other one too."""
    tree = ast.parse((ROOT / 'launch' / name).read_text())
    (table,) = (
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == 'ARGUMENTS'
    )
    found = frozenset(argument for argument, _, _ in ast.literal_eval(table))
    return found | (launch_arguments('perception.launch.py') if 'replay' in name else frozenset())


def check_value(name: str, value: Any) -> None:
    """A parameter of the node has to take this value."""
    row = DECLARED[name]
    assert type(value) is type(row.default), name
    assert refused([RosParameter(name, value=value)], '') == ''
    numbers = value if isinstance(value, list) else [value]
    assert not row.bounds or all(row.bounds[0] <= one <= row.bounds[1] for one in numbers), name


def check_launch(words: list[str]) -> None:
    known = launch_arguments(words[3])
    for argument in words[4:]:
        name, assigned, value = argument.partition(':=')
        assert assigned and value
        assert name in known, argument


def check_run(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    entry = re.search(rf"'{words[3]} = {{NAME}}([\w.]*?)(?:\.__main__)?:main", SETUP)
    assert entry, words[3]
    if words[3] != 'perception_node':
        check_module(f'cross4d_jepa_ros{entry[1]}', words[4:], monkeypatch)
        return
    inputs = [re.escape(row.name).replace(r'\{i\}', r'\d') for row in INPUTS]
    assert words[4] == '--ros-args'
    for option, argument in zip(words[5::2], words[6::2], strict=True):
        name, _, value = argument.partition(':=')
        assert value
        if option == '-p':
            check_value(name, yaml.safe_load(value))
        else:
            assert option == '-r'
            assert any(re.fullmatch(row, name) for row in inputs), name


def check_pytest(words: list[str]) -> None:
    for word in words:
        assert not word.startswith('tests/') or (ROOT / word).exists(), word


def recipe(words: list[str]) -> Iterator[str]:
    """Commands that make would run, with its environment in place."""
    asked = ['make', '--dry-run', '--old-file=.venv/ready', '--old-file=.venv-kilted/ready', *words]
    # Without what the make that runs the tests was told.
    environment = {name: value for name, value in os.environ.items() if 'MAKE' not in name}
    done = subprocess.run(asked, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for line in done.stdout.replace('\\\n', ' ').splitlines():
        yield ' '.join(line.split())


def check_make(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for word in words:
        name, assigned, _ = word.partition('=')
        assert not assigned or re.search(rf'\$\({name}\)|^{name} \?=', MAKEFILE, re.M), word
        assert assigned or re.search(rf'^{word}:', MAKEFILE, re.M), word
    for line in recipe(words):
        found = MODULE.search(line)
        if found and '$' not in line and found[1] != 'cross4d_jepa_ros.ros.tables':
            check_module(found[1], shlex.split(found[2]), monkeypatch)
        elif ' -m pytest ' in line:
            check_pytest(line.split())


def check_others(words: list[str]) -> None:
    """Commands of others, with what they are told about this repository."""
    line = ' '.join(words)
    if words[:2] == ['ros2', 'topic']:
        assert words[2] in ('echo', 'hz', 'info')
        assert len(words) == 3 or words[3].startswith('/') or words[3] == '--verbose'
        assert {word for word in words[4:] if word.startswith('-')} <= {'--field', '--once'}
    elif words[0] == 'export':
        variable = words[1].partition('=')[0]
        assert variable in (ROOT / 'cross4d_jepa_ros' / 'ros' / 'transport.py').read_text()
        assert (ROOT / line.rpartition(')/')[2]).is_file(), line
    elif words[0] == '.':
        assert words[1] == '.venv/bin/activate'
        assert '.venv' in MAKEFILE
    elif line == 'pre-commit install':
        assert (ROOT / '.pre-commit-config.yaml').is_file()
    else:
        assert f'{line} '.startswith(tuple(f'{other} ' for other in OTHERS)), f'no rule: {line}'


# The way to an installed package; tests/test_install_docs.py looks at what these lines bring.
OTHERS = (
    'cd',
    'python3 -m colcon',
    'python3 -m pip install',
    'python3 -m venv',
    'rosdep install --from-paths src',
    'rosdep update',
    'source',
    'sudo apt install',
    'sudo rosdep init',
    'touch .venv/COLCON_IGNORE',
)


def check(command: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Have a command understood by what it is for; returns the family that it belongs to."""
    words = shlex.split(command, comments=True)
    while re.fullmatch(r'[A-Z_]+=.*', words[0]):
        words.append(words.pop(0))
    module = MODULE.search(command.partition(' #')[0])
    if words[0] == 'torchrun':
        options = get_args_parser().parse_args(words[1:])
        assert options.module
        words = ['python', '-m', options.training_script, *options.training_script_args]
    if words[0] == 'make':
        check_make(words[1:], monkeypatch)
        return 'make'
    if words[0] == 'python' and module:
        check_module(words[2], words[3:], monkeypatch)
        return words[2]
    if words[:3] == ['ros2', 'launch', 'cross4d_jepa_ros']:
        check_launch(words)
        return f'ros2 launch {words[3]}'
    if words[:3] == ['ros2', 'run', 'cross4d_jepa_ros']:
        check_run(words, monkeypatch)
        return f'cross4d_jepa_ros.{words[3]}'
    if words[:4] == ['.venv/bin/python', '-m', 'pytest', '-q']:
        check_pytest(words[4:])
        return 'make'
    check_others(words)
    return 'others'
