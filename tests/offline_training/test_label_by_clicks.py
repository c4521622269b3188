# SPDX-License-Identifier: Apache-2.0
"""Clicked points become examples, with the memory that the live node would have."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from cross4d_jepa_ros.bag_frames import BagFrames
from cross4d_jepa_ros.bags import Bag
from cross4d_jepa_ros.model.checkpoint import load_checkpoint
from cross4d_jepa_ros.model.heads import EmbeddingNormalisation
from cross4d_jepa_ros.pipeline import Output, Pipeline
from offline_training import label_by_clicks
from offline_training.logs.reader import LogReader
from offline_training.logs.table import Index
from offline_training.naming.answers import Answers, index_of
from offline_training.naming.clicks import BadClicks, few_click_miou, read_clicks
from tests.offline_training.logs.test_kitti_folder import SWEEPS, write_drive
from tests.tiny_names import index_of_street, write_start
from tests.tiny_recording import SETUP


@pytest.fixture(scope='module')
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return index_of_street(tmp_path_factory.mktemp('recorded'))


@pytest.fixture
def start(tmp_path: Path) -> Path:
    return write_start(tmp_path / 'start.safetensors', teacher=False)


def clicks_at(path: Path, index: Path, points: list[tuple[int, int, str]]) -> Path:
    """Click close to points of sweeps, named by their stamps."""
    loaded = Index.load(index)
    rows = loaded.segments()[0]
    lines = ['stamp_ns, x, y, z, class']
    with LogReader(loaded) as reader:
        for sweep, point, name in points:
            x, y, z = reader.sensor_xyz(rows[sweep])[point] + 0.001
            lines.append(f'{rows[sweep].stamp_ns}, {x}, {y}, {z}, {name}')
    path.write_text('\n'.join(lines) + '\n')
    return path


@pytest.mark.parametrize(('source', 'colour'), [('--index', True), ('--bag', False)])
def test_an_example_is_what_the_live_node_would_take(
    tmp_path: Path, index: Path, source: str, colour: bool
) -> None:
    start = write_start(tmp_path / 'start.safetensors', teacher=False, colour=colour)
    clicks = clicks_at(tmp_path / 'clicks.csv', index, [(6, 703, 'wall'), (0, 7, 'floor')])
    out, bag = tmp_path / 'out.safetensors', index.parent / 'street'
    recorded = index if source == '--index' else bag
    words = [str(start), str(out), source, str(recorded), '--clicks', str(clicks)]
    assert label_by_clicks.main(words) == 0
    taught = load_checkpoint(out).prototypes
    assert (taught.names, taught.counts) == (('wall', 'floor'), (1, 1))
    pipeline = Pipeline(start, device='cpu', precision='fp32')
    pipeline.teaching = True
    with Bag(bag) as opened:
        for swept in BagFrames(opened, SETUP):
            pipeline.step(swept.frame, Output.FRAME_EMBEDDING)
    assert pipeline.window_length == 2
    live = pipeline.embedding_at(swept.frame.sweep.xyz[703].astype(np.float64))
    torch.testing.assert_close(taught.vectors[0], live, rtol=1e-4, atol=1e-5)


def test_a_kitti_folder_is_a_recording(tmp_path: Path) -> None:
    index = index_of(write_drive(tmp_path / 'drive'), None)
    network = load_checkpoint(write_start(tmp_path / 'start', teacher=False)).network
    with Answers(network, index) as answers:
        assert len(answers.places) == SWEEPS
        assert len(answers.answer(answers.places[-1]).embedding)


def test_what_was_taught_before_stays_and_nothing_else_changes(
    tmp_path: Path, index: Path, start: Path
) -> None:
    once, twice = tmp_path / 'once.safetensors', tmp_path / 'twice.safetensors'
    for source, target, name in ((start, once, 'floor'), (once, twice, 'wall')):
        clicks = clicks_at(tmp_path / 'clicks.csv', index, [(2, 10, name)])
        words = [str(source), str(target), '--index', str(index), '--clicks', str(clicks)]
        assert label_by_clicks.main(words) == 0
    taught = load_checkpoint(twice)
    assert taught.prototypes.names == ('floor', 'wall')
    for name, value in load_checkpoint(start).network.state_dict().items():
        torch.testing.assert_close(taught.network.state_dict()[name], value, rtol=0, atol=0)


@pytest.mark.parametrize(
    ('line', 'sentence'),
    [
        ('0,90,0,0,car', r'line 2: the nearest point is \d+\.\d\d m away, at'),
        ('99,1,1,1,car', 'line 2: there is no sweep 99, the last is 6'),
        ('-1,1,1,1,car', 'line 2: there is no sweep -1'),
        ('0,1,1,car', 'line 2: could not convert'),
        ('0,1,nan,1,car', 'line 2: x, y, z are not finite'),
        ('0,1,1,1,', 'line 2: class is empty'),
        ('1.5,1,1,1,car', 'line 2: invalid literal'),
        ('', 'has no click'),
    ],
)
def test_clicks_that_mean_nothing_are_refused(
    tmp_path: Path,
    index: Path,
    start: Path,
    capsys: pytest.CaptureFixture[str],
    line: str,
    sentence: str,
) -> None:
    clicks = tmp_path / 'clicks.csv'
    clicks.write_text(f'sweep,x,y,z,class\n{line}\n')
    out = tmp_path / 'out.safetensors'
    words = [str(start), str(out), '--index', str(index), '--clicks', str(clicks)]
    assert label_by_clicks.main(words) == 2
    assert re.search(sentence, ' '.join(capsys.readouterr().out.split()))
    assert not out.exists()


def test_a_point_that_the_network_does_not_see_is_refused(
    tmp_path: Path, index: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = write_start(tmp_path / 'start.safetensors', teacher=False, range_m=7.0)
    xyz = LogReader(Index.load(index)).sensor_xyz(Index.load(index).segments()[0][0])
    far = int(np.linalg.norm(xyz, axis=1).argmax())
    clicks = clicks_at(tmp_path / 'clicks.csv', index, [(0, far, 'wall')])
    words = [str(start), str(tmp_path / 'out'), '--index', str(index), '--clicks', str(clicks)]
    assert label_by_clicks.main(words) == 2
    assert 'line 2: the point is beyond the 7 m' in ' '.join(capsys.readouterr().out.split())


def test_a_file_without_the_columns_is_refused(tmp_path: Path) -> None:
    (tmp_path / 'clicks.csv').write_text('stamp_ns,x,y,class\n1,2,3,car\n')
    with pytest.raises(BadClicks, match=r'no column z: its first line has to be stamp_ns,x,y,z'):
        read_clicks(tmp_path / 'clicks.csv')


def test_random_clicks_tell_classes_apart_that_lie_apart() -> None:
    draw = np.random.default_rng(0)
    label = draw.integers(0, 3, 600).astype(np.uint8)
    embedding = torch.from_numpy(5 * np.eye(3, 4)[label] + 0.1 * draw.normal(size=(600, 4))).float()
    normalisation = EmbeddingNormalisation(4)
    normalisation.fit(embedding)
    given = embedding, label
    # Nobody can click on the fourth class.
    names = ('a', 'b', 'c', 'd')
    scores = few_click_miou(normalisation, given, given, names, 5, range(2))
    assert [score.miou() for score in scores] == [1.0, 1.0]
    # Labels without meaning leave nothing to be found.
    mixed = embedding, draw.permutation(label)
    assert few_click_miou(normalisation, mixed, given, names, 5, [0])[0].miou() < 0.8  # type: ignore[operator]
