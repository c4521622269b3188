# SPDX-License-Identifier: Apache-2.0
"""The page on Python: its example runs as printed, and the names that it promises are there."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest

from cross4d_jepa_ros.model.checkpoint import read_contract
from tests.doc_commands import ROOT, fenced, spans
from tests.tiny_recording import POINTS, write
from tests.tiny_walls import XYZ, drive, stamp_of

PAGE = (ROOT / 'docs' / 'python.md').read_text()
PROMISED = re.findall(r'^\| (`[^|]+`) \| `([\w.]+)` \|', PAGE, re.M)


def test_the_example_runs_as_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = [
        (at_ns, '/lidar/points' if topic == POINTS else topic, message)
        for at_ns, topic, message in drive(3)
    ]
    write(tmp_path / 'drive', entries)
    (tmp_path / 'config').symlink_to(ROOT / 'config')
    (tmp_path / 'out').mkdir()
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    labels, picture = fenced(PAGE, 'python')

    exec(compile(labels, 'docs/python.md', 'exec'), names)
    lines = capsys.readouterr().out.splitlines()
    assert [int(line.split()[0]) for line in lines] == [stamp_of(number) for number in range(3)]
    known = read_contract(ROOT / 'config' / 'demo.safetensors').answer_names
    shown = dict(re.findall(r"'(\w+)': (\d+)", lines[-1]))
    assert shown
    assert set(shown) <= set(known)
    assert sum(map(int, shown.values())) <= len(XYZ)

    exec(compile(picture, 'docs/python.md', 'exec'), names)
    assert (tmp_path / 'out' / 'labels.png').read_bytes().startswith(b'\x89PNG')


@pytest.mark.parametrize(('names', 'module'), PROMISED, ids=lambda cell: cell)
def test_what_is_promised_is_there_and_says_what_it_is(names: str, module: str) -> None:
    found = importlib.import_module(f'cross4d_jepa_ros.{module}')
    for name in spans(names):
        assert getattr(found, name).__doc__, name


def test_the_example_imports_what_is_promised() -> None:
    promised = {(name, module) for names, module in PROMISED for name in spans(names)}
    imports = re.findall(r'^from cross4d_jepa_ros\.([\w.]+) import (.*)$', PAGE, re.M)
    assert imports
    for module, names in imports:
        for name in names.split(', '):
            assert (name, module) in promised
