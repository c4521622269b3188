# SPDX-License-Identifier: Apache-2.0
"""What docs/reliability.md cites is there, and its limits are those of the code."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / 'docs' / 'reliability.md').read_text()
MAKEFILE = (ROOT / 'Makefile').read_text()


def rows(heading: str) -> list[list[str]]:
    """Read the rows of all tables below a heading."""
    section = PAGE.partition(f'## {heading}\n')[2].partition('\n## ')[0]
    lines = section.splitlines()
    ruled = [at for at, line in enumerate(lines) if line.startswith('|---')]
    return [
        [cell.strip() for cell in line.strip('|').split('|')]
        for at, line in enumerate(lines)
        if line.startswith('|') and not {at, at + 1} & set(ruled)
    ]


@pytest.mark.parametrize('promise', rows('What is promised'), ids=lambda row: row[0][:50])
def test_a_promise_names_what_tests_it(promise: list[str]) -> None:
    cited = re.findall(r'`([^`]+)`', promise[1])
    assert cited
    for name in cited:
        if name.startswith('make '):
            assert re.search(rf'^{name[5:]}:', MAKEFILE, re.MULTILINE), name
        else:
            path = ROOT / name
            found = path.rglob('test_*.py') if path.is_dir() else [path]
            assert any('\ndef test_' in one.read_text() for one in found), name


def test_the_commands_are_targets_that_take_these_variables() -> None:
    commands = re.findall(r'^make (\w+)(?: (\w+)=\d+)?', PAGE, re.MULTILINE)
    assert len(commands) == 5
    for target, variable in commands:
        assert re.search(rf'^{target}:', MAKEFILE, re.MULTILINE), target
        assert not variable or f'$({variable})' in MAKEFILE, variable


@pytest.mark.parametrize('limit', rows('How much is believed'), ids=lambda row: row[2].strip('`'))
def test_a_limit_is_what_it_says(limit: list[str]) -> None:
    module, _, name = limit[2].strip('`').rpartition('.')
    package = '' if module.startswith(('offline_training', 'tests')) else 'cross4d_jepa_ros.'
    value = getattr(importlib.import_module(package + module), name)
    assert value == int(limit[1].replace(' ', ''))


def test_what_diagnostics_are_said_to_report_is_there() -> None:
    source = (ROOT / 'cross4d_jepa_ros' / 'perception_node.py').read_text()
    (sentence,) = re.findall(r'and reported: (.*?) in `/diagnostics`', PAGE, re.DOTALL)
    for name in re.findall(r'`(\w+)`', sentence):
        assert f"'{name}'" in source, name
