# SPDX-License-Identifier: Apache-2.0
"""A log of what was done with a recording is done again; what differs is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cross4d_jepa_ros.bags import Bag, BagWriter
from cross4d_jepa_ros.frame_log import FrameLog, Settings, run_of
from cross4d_jepa_ros.pipeline import Output, Pipeline
from cross4d_jepa_ros.sensing.point_clouds import CloudConfig
from offline_training import evaluate
from offline_training.evaluation.sources import Source
from offline_training.logs.bag_index import BagChoice
from tests.checkpoints import SHIPPED
from tests.offline_training.evaluation.made_up import SWEEPS
from tests.tiny_recording import IMAGE, POINTS

Lines = list[dict[str, Any]]


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than all the rest."""
    monkeypatch.setattr(evaluate, 'draw', lambda *_: None)


@pytest.fixture
def log(drive: Path, tmp_path: Path) -> Path:
    """Log a pipeline that is emptied, taught and given thresholds on its way through a drive."""
    pipeline = Pipeline(SHIPPED, threads=1)
    path = tmp_path / 'log.jsonl'
    written = FrameLog(path)
    written.begin(run_of(pipeline, CloudConfig(), POINTS, (IMAGE,)))
    for number, swept in enumerate(Source(drive, BagChoice())):
        if number in (0, 2):
            pipeline.reset()
            written.reset('')
        if number == 1:
            pipeline.class_thresholds = {'road': 0.7}
        if number == 3:
            example = torch.linspace(-1, 1, pipeline.contract.model.point_width)
            pipeline.prototypes = pipeline.prototypes.added('box', example)
        perception = pipeline.step(swept.frame, Output.SEGMENTATION | Output.FRAME_EMBEDDING)
        stamps = [view.stamp_ns for view in swept.frame.views]
        written.add(swept.frame, stamps, perception, Settings.of(pipeline))
    written.close()
    return path


def replayed(drive: Path, log: Path, *words: str) -> tuple[int, dict[str, Any]]:
    out = log.parent / 'out'
    given = [str(drive), str(SHIPPED), '--frame-log', str(log), '--out', str(out), *words]
    code = evaluate.main(given)
    report: dict[str, Any] = json.loads((out / 'report.json').read_text())
    return code, report


def changed(log: Path, change: Callable[[Lines], None]) -> None:
    """Change lines, and write them as before they had checksums."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    for line in lines:
        for name in ('crc', 'run', 'lesson'):
            line.pop(name, None)
        if line['kind'] == 'run':
            line['version'] = 1
    change(lines)
    log.write_text(''.join(json.dumps(line) + '\n' for line in lines))


def copied(drive: Path, path: Path, leave_out: str, place: int) -> Path:
    """Copy a recording without one of the messages of a topic."""
    seen = 0
    with Bag(drive) as bag, BagWriter(path) as writer:
        for message in bag.messages():
            seen += message.topic == leave_out
            if message.topic != leave_out or seen != place + 1:
                writer.write(message.topic, message.msgtype, message.bag_stamp_ns, message.raw)
    return path


def test_the_same_bytes_come_out(
    drive: Path, log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, report = replayed(drive, log)
    assert code == 0
    assert report['frame_log'] == {
        'log': str(log),
        'sweeps': SWEEPS,
        'replayed': SWEEPS,
        'compared': SWEEPS,
        'identical': SWEEPS,
        'torn_lines': 0,
        'first_difference': '',
    }
    assert report['classes'][-1] == 'box'
    assert report['scores']['points_scored'] == 920 * SWEEPS
    assert 'first difference' in capsys.readouterr().out


def forget_to_reset(lines: Lines) -> None:
    lines[3]['reset'] = None


def keep_no_threshold(lines: Lines) -> None:
    for line in lines[1:]:
        line['class_thresholds'] = {}


def teach_nothing(lines: Lines) -> None:
    del lines[4]['taught']


def move(lines: Lines) -> None:
    lines[1]['base_from_sensor'][11] += 0.1


@pytest.mark.parametrize(
    ('change', 'sentence'),
    [
        (forget_to_reset, 'sweep 3 of the log, stamp 1700000000200000000 ns, differs in class_id'),
        (
            keep_no_threshold,
            'sweep 2 of the log, stamp 1700000000100000000 ns, differs in class_id',
        ),
        (teach_nothing, 'sweep 4 of the log'),
        (move, 'sweep 1 of the log, stamp 1700000000000000000 ns, differs in class_id, prob'),
    ],
)
def test_whatever_was_different_is_found(
    drive: Path, log: Path, change: Callable[[Lines], None], sentence: str
) -> None:
    changed(log, change)
    code, report = replayed(drive, log)
    assert code == 1
    assert report['frame_log']['first_difference'].startswith(sentence)
    assert report['frame_log']['identical'] < SWEEPS


@pytest.mark.parametrize('topic', [POINTS, IMAGE])
def test_a_message_that_is_gone_is_named(drive: Path, log: Path, topic: str) -> None:
    code, report = replayed(copied(drive, log.parent / 'copy', topic, place=1), log)
    assert code == 1
    assert f'{topic} has no message of the stamp' in report['frame_log']['first_difference']
    assert report['dropped'] == {'missing': 1}
    assert report['frame_log']['replayed'] == SWEEPS - 1


def test_the_log_of_another_checkpoint_is_refused(
    drive: Path, log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def rename(lines: Lines) -> None:
        lines[0]['model_sha256'] = 'abcdefabcdef'

    changed(log, rename)
    assert evaluate.main([str(drive), str(SHIPPED), '--frame-log', str(log)]) == 2
    assert 'is of the checkpoint abcdefabcdef' in capsys.readouterr().out


def test_a_step_that_failed_is_done_but_not_compared(drive: Path, log: Path) -> None:
    def fail(lines: Lines) -> None:
        lines[2]['digests'] = {}

    changed(log, fail)
    code, report = replayed(drive, log)
    assert code == 0
    found = report['frame_log']
    assert (found['replayed'], found['compared'], found['identical']) == (SWEEPS, 3, 3)
