# SPDX-License-Identifier: Apache-2.0
"""The command, from recordings and indices to reports, pictures and recordings of the answers."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from cross4d_jepa_ros.bags import Bag
from cross4d_jepa_ros.pipeline import Output, Pipeline
from cross4d_jepa_ros.sensing.point_clouds import stamp_ns, structured_view
from offline_training import evaluate, index_bags
from offline_training.evaluation import pictures
from offline_training.evaluation.answers import answered
from offline_training.evaluation.sources import Source
from offline_training.logs.bag_index import BagChoice
from offline_training.logs.kitti_folder import index_kitti
from offline_training.logs.table import Index
from offline_training.street.classes import BUILDING, CLASS_NAMES, POLE, ROAD
from tests import tiny_recording as tiny
from tests.checkpoints import SHIPPED
from tests.offline_training.evaluation.made_up import SWEEPS
from tests.tiny_street import street, write_tiny_street

LABELS = """
classes: {ground: [1, 2, 3], pole: [9, 9, 9]}
labels: {40: ground, 80: pole, 50: ignore}
"""
PAGE = (Path(__file__).parents[3] / 'docs' / 'evaluation.md').read_text()
NUMBERS = {ROAD: 40, POLE: 80, BUILDING: 50}


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than all the rest."""
    monkeypatch.setattr(evaluate, 'draw', lambda *_: None)


def run(out: Path, source: Path, *words: str) -> dict[str, Any]:
    assert (
        evaluate.main([str(source), str(SHIPPED), '--out', str(out), '--threads', '1', *words]) == 0
    )
    report: dict[str, Any] = json.loads((out / 'report.json').read_text())
    return report


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def write_kitti(path: Path) -> Path:
    for folder in ('velodyne', 'labels', 'image_2'):
        (path / folder).mkdir(parents=True)
    for number in range(3):
        xyz, label = street(number)
        columns = np.column_stack((xyz, np.full(len(xyz), 0.3)))
        columns.astype('<f4').tofile(path / 'velodyne' / f'{number:06d}.bin')
        raw = np.array([NUMBERS[each] for each in label], '<u4') | (7 << 16)
        raw.tofile(path / 'labels' / f'{number:06d}.label')
        shade = np.full((40, 80, 3), 20 * number, np.uint8)
        cv2.imwrite(str(path / 'image_2' / f'{number:06d}.png'), shade)
    (path / 'calib.txt').write_text(
        'P2: 40 0 40 0 0 40 20 0 0 0 1 0\nTr: 0 -1 0 0 0 0 -1 0 1 0 0 0\n'
    )
    (path / 'poses.txt').write_text(
        ''.join(f'1 0 0 0 0 1 0 0 0 0 1 {0.1 * number}\n' for number in range(3))
    )
    return path


def test_a_labelled_recording_is_scored_drawn_and_answered_the_same_every_time(
    drive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, again = tmp_path / 'first', tmp_path / 'again'
    run(again, drive, '--write-bag', str(again / 'bag'))
    monkeypatch.setattr(evaluate, 'draw', pictures.draw)
    film = tmp_path / 'film.mp4'
    report = run(first, drive, '--write-bag', str(first / 'bag'), '--video', str(film))

    assert cv2.VideoCapture(str(film)).get(cv2.CAP_PROP_FRAME_COUNT) == SWEEPS
    assert (report['sweeps'], report['points']) == (SWEEPS, 920 * SWEEPS)
    assert report['logs'] == ['drive'] and not report['dropped'] and not report['problems']
    assert report['scores']['points_scored'] == 920 * SWEEPS
    assert 0 < report['scores']['miou'] < 1
    assert report['scores']['confusion']['true'] == list(CLASS_NAMES)
    cost = json.loads((first / 'cost.json').read_text())
    assert cost['stage_ms']['all']['p50'] > 0
    assert {'sweeps_per_second', 'others_cpu_share', 'device', 'threads'} < cost.keys()
    for name in pictures.PICTURES:
        assert cv2.imread(str(first / name)) is not None

    assert (first / 'report.json').read_bytes() == (again / 'report.json').read_bytes()
    assert contents(first / 'bag') == contents(again / 'bag')


def test_the_written_recording_holds_what_the_pipeline_answers(drive: Path, tmp_path: Path) -> None:
    run(tmp_path, drive, '--write-bag', str(tmp_path / 'bag'))
    pipeline = Pipeline(SHIPPED)
    given = list(answered(pipeline, Source(drive, BagChoice()), Output.ALL))
    prefix = '/perception_node/output/'
    with Bag(tmp_path / 'bag') as bag:
        assert bag.custom_data['class_names'] == ','.join(CLASS_NAMES)
        assert {name.removeprefix(prefix) for name in bag.topics} == {
            'segmentation',
            'segmentation_rgb',
            'embeddings',
            'embeddings_rgb',
            'frame_embedding',
        }
        clouds = [bag.deserialise(each) for each in bag.messages([f'{prefix}segmentation'])]
        tokens = [bag.deserialise(each) for each in bag.messages([f'{prefix}embeddings'])]
    assert [stamp_ns(cloud) for cloud in clouds] == [swept.frame.stamp_ns for swept, _ in given]
    for cloud, token, (swept, perception) in zip(clouds, tokens, given, strict=True):
        assert cloud.header.frame_id == 'lidar'
        columns = structured_view(cloud).reshape(-1)
        np.testing.assert_array_equal(columns['class_id'], perception.class_id)
        np.testing.assert_array_equal(columns['probability'], perception.probability)
        np.testing.assert_array_equal(columns['z'], structured_view(swept.message)['z'].reshape(-1))
        embedding = structured_view(token).reshape(-1)['embedding']
        np.testing.assert_array_equal(embedding, perception.token_embedding)


def test_the_logs_of_an_index_stand_apart(drive: Path, tmp_path: Path) -> None:
    other = tmp_path / 'other'
    write_tiny_street(other, 2, 0.3)
    index = tmp_path / 'index.parquet'
    logs = [str(drive), str(other)]
    assert index_bags.main([*logs, '--images', '--out', str(index)]) == 0
    report = run(tmp_path / 'both', index, '--write-bag', str(tmp_path / 'bags'))
    alone = run(tmp_path / 'alone', other, '--images')
    assert report['sweeps'] == SWEEPS + 3
    assert not report['resets']  # of stamps that go back: the memory was emptied before
    bags = sorted(path.name for path in (tmp_path / 'bags').iterdir())
    assert bags == ['000_drive', '001_other']
    points = np.array(report['scores']['confusion']['points'])
    assert points.sum() == 920 * (SWEEPS + 3)
    first = np.array(run(tmp_path / 'first', drive, '--images')['scores']['confusion']['points'])
    np.testing.assert_array_equal(points, first + alone['scores']['confusion']['points'])


@pytest.mark.parametrize('named', [True, False])
def test_a_kitti_folder_is_read_through_its_index_and_a_label_map(
    tmp_path: Path, named: bool
) -> None:
    index = tmp_path / 'index.parquet'
    findings = index_kitti(write_kitti(tmp_path / 'drive'), 1, tmp_path, lambda done, total: None)
    Index(findings.rows, tmp_path).save(index)
    labels = tmp_path / 'labels.yaml'
    labels.write_text(LABELS)
    words = ('--labels', str(labels)) if named else ()
    report = run(tmp_path / 'out', index, '--write-bag', str(tmp_path / 'bag'), *words)
    assert report['sweeps'] == 3
    with Bag(tmp_path / 'bag') as bag:
        cloud = bag.deserialise(next(bag.messages(['/perception_node/output/segmentation'])))
        assert len(structured_view(cloud).reshape(-1)) == 920
    if not named:
        assert 'scores' not in report
        assert 'the labels of drive are numbers: name them with --labels' in report['problems']
        return
    # Walls are ignored; ground is none of the checkpoint's classes, pole is.
    assert report['scores']['points_scored'] == 3 * (500 + 120)
    assert report['scores']['class_iou']['ground'] == 0
    assert 'the model has no class ground: all of it scores as wrong' in report['problems']


@pytest.mark.parametrize('labelled', [False, True])
def test_without_names_of_labels_it_tells_what_was_answered(tmp_path: Path, labelled: bool) -> None:
    xyz, label = street(0)
    messages: list[tuple[int, str, Any]] = []
    for at_ns in (tiny.START_NS, tiny.START_NS + 100 * tiny.MS):
        messages.append((at_ns, tiny.POINTS, tiny.sweep(at_ns, xyz)))
        if labelled:
            messages.append((at_ns, tiny.TRUTH, tiny.truth(at_ns, label)))
    bag = tiny.write(tmp_path / 'bag', messages)
    report = run(tmp_path / 'out', bag)
    assert report['sweeps'] == 2
    assert sum(report['class_share_in_range'].values()) == pytest.approx(1, abs=1e-5)
    assert 'scores' not in report
    unnamed = f'the classes of {tiny.TRUTH} have no names: give --labels'
    assert (unnamed in report['problems']) == labelled
    labels = tmp_path / 'labels.yaml'
    labels.write_text('{classes: {road: [0, 0, 0]}, labels: {0: road}, others: ignore}')
    if labelled:
        report = run(tmp_path / 'out', bag, '--labels', str(labels))
        assert report['scores']['points_scored'] == 2 * 500
        assert unnamed not in report['problems']


def test_the_page_says_what_the_command_takes_and_leaves(drive: Path, tmp_path: Path) -> None:
    commands = re.findall(r'-m offline_training\.evaluate (.*)', PAGE.replace('\\\n', ' '))
    assert len(commands) > 3
    for command in commands:
        evaluate._parser().parse_args(shlex.split(command))
    report = run(tmp_path, drive)
    part = PAGE[PAGE.index('## What it leaves') :].split('\n## ')[0]
    rows = re.findall(r'^\| (`.*?) \|', part, re.M)
    named = {name for row in rows for name in re.findall(r'`([\w.]+)`', row)}
    named -= {'frame_log', 'features'}  # of other commands
    for name in named:
        value: Any = report
        for part in name.split('.'):
            value = value[part]
    assert {name.split('.')[0] for name in named} == set(report)


@pytest.mark.parametrize(
    ('words', 'sentence'),
    [
        (['nothing', 'SHIPPED'], 'there is no recording at nothing'),
        (['nothing.parquet', 'SHIPPED'], 'there is no index at nothing.parquet'),
        (['DRIVE', 'nothing.safetensors'], 'nothing.safetensors'),
        (['DRIVE', 'SHIPPED', '--labels', 'no.yaml'], 'no.yaml'),
        (['DRIVE', 'SHIPPED', '--points', '/other'], "has no '/other'"),
        (['DRIVE', 'SHIPPED', '--video', 'film.avi'], 'film.avi has to end in .mp4'),
        (['KITTI', 'SHIPPED'], 'is a KITTI folder: index it first'),
        (['DRIVE', 'SHIPPED', '--write-bag', 'DRIVE'], 'exists already'),
    ],
)
def test_what_cannot_be_evaluated_is_refused_with_a_sentence(
    drive: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    sentence: str,
) -> None:
    (tmp_path / 'kitti' / 'velodyne').mkdir(parents=True)
    given = {'DRIVE': str(drive), 'SHIPPED': str(SHIPPED), 'KITTI': str(tmp_path / 'kitti')}
    replaced = [given.get(word, word) for word in words]
    assert evaluate.main([*replaced, '--out', str(tmp_path / 'out')]) == 2
    assert sentence in capsys.readouterr().out
    assert not (tmp_path / 'out' / 'report.json').exists()
