# SPDX-License-Identifier: Apache-2.0
"""The command: what it writes, what it says, and when it stops."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from offline_training.index_bags import main
from offline_training.logs.table import Index
from tests.tiny_recording import IMAGE, write
from tests.tiny_walls import drive, moving, swept

SIDEWAYS = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 3], [0, 0, 0, 1]]


def test_two_recordings_and_one_that_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = write(tmp_path / 'a' / 'bag', [*drive(4), *moving(4)])
    second = write(tmp_path / 'b' / 'bag', drive(3))
    (tmp_path / 'notes').mkdir()
    out = tmp_path / 'out' / 'index.parquet'
    words = [str(first), str(second), str(tmp_path / 'notes'), '--out', str(out)]
    assert main(words) == 0
    rows = Index.load(out).rows
    assert [row.log for row in rows] == ['../a/bag'] * 4 + ['../b/bag'] * 3
    report = json.loads(out.with_suffix('.json').read_text())
    assert (report['rows'], report['usable']) == (7, 7)
    assert report['command'] == 'python -m offline_training.index_bags ' + ' '.join(words)
    logs = report['logs']
    assert [log['sweeps'] for log in logs] == [4, 3, 0]
    assert [log['with_pose'] for log in logs] == [4, 0, 0]
    assert any('holds no .mcap or .db3 file' in sentence for sentence in logs[2]['sentences'])
    pictures = {path.name for path in (out.parent / 'index_pictures').iterdir()}
    assert pictures == {'a_bag.png', 'b_bag.png'}
    shown = capsys.readouterr()
    assert '4/4' in shown.out
    assert 'no ego-motion' in shown.err
    assert '7 usable sweeps of 7' in shown.err


def test_wrong_extrinsics_stop_it_with_the_cause(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = write(tmp_path / 'bag', drive(3))
    out = tmp_path / 'index.parquet'
    assert main([str(bag), '--out', str(out)]) == 0
    before = out.read_bytes()
    extrinsics = tmp_path / 'turned.yaml'
    extrinsics.write_text(yaml.safe_dump({'cam0': {'rostopic': IMAGE, 'T_cam_lidar': SIDEWAYS}}))
    assert main([str(bag), '--out', str(out), '--extrinsics', str(extrinsics)]) == 2
    assert 'is it turned the wrong way' in capsys.readouterr().err
    assert out.read_bytes() == before
    assert 'turned the wrong way' in out.with_suffix('.json').read_text()


@pytest.mark.parametrize(
    ('words', 'wanted'),
    [
        (['{tmp}/nothing'], 'there is no recording'),
        (['{tmp}/bag', '--points', '/other'], "has no '/other'"),
        (['{tmp}/bag', '--images', '/other'], "has no '/other'"),
        (['{tmp}/bag', '--extrinsics', '{tmp}/none.yaml'], 'none.yaml'),
        (['{tmp}/bag', '--out', '{tmp}/bag/metadata.yaml/index.parquet'], 'cannot be written'),
    ],
)
def test_what_cannot_be_indexed_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], wanted: str
) -> None:
    write(tmp_path / 'bag', [swept(0)])
    given = ['--out', '{tmp}/index.parquet', *words[1:], words[0]]
    if '--images' in words:
        given = [words[0], '--out', '{tmp}/index.parquet', *words[1:]]
    assert main([word.format(tmp=tmp_path) for word in given]) == 2
    assert wanted in capsys.readouterr().err.replace('\n', '')
    assert not (tmp_path / 'index.parquet').exists()


def test_processes_share_the_recordings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bags = [str(write(tmp_path / name, drive(2))) for name in ('a', 'b', 'c')]
    out = tmp_path / 'index.parquet'
    # Of a run that was interrupted.
    (tmp_path / 'index.part1.parquet').write_text('old')
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = str(free.getsockname()[1])
    # What torchrun sets.
    for name, value in {'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': port, 'WORLD_SIZE': '2'}.items():
        monkeypatch.setenv(name, value)
    words = [*bags, '--out', str(out)]
    command = [sys.executable, '-m', 'offline_training.index_bags', *words]
    with subprocess.Popen(command, env={**os.environ, 'RANK': '1'}) as other:
        monkeypatch.setenv('RANK', '0')
        assert main(words) == 0
        assert other.wait(timeout=60) == 0
    assert [row.log for row in Index.load(out).rows] == ['a', 'a', 'b', 'b', 'c', 'c']
    report = json.loads(out.with_suffix('.json').read_text())
    assert [log['log'] for log in report['logs']] == ['a', 'b', 'c']
    assert not list(tmp_path.glob('index.part*'))
