# SPDX-License-Identifier: Apache-2.0
"""Features of points are those of the stream, of the same points for every network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cross4d_jepa_ros.model.checkpoint import load_checkpoint
from cross4d_jepa_ros.model.config import ModelConfig
from cross4d_jepa_ros.model.network import Network
from cross4d_jepa_ros.pipeline import Pipeline
from offline_training.answered_sweeps import answered_sweeps
from offline_training.evaluation.answers import answered
from offline_training.evaluation.features import collect, collect_live, position_features
from offline_training.evaluation.sources import Source
from offline_training.labelled_sweeps import SweepFiles
from offline_training.logs.bag_index import BagChoice
from offline_training.segmentation_run import sweep_input
from tests.checkpoints import SHIPPED
from tests.offline_training.evaluation.conftest import SWEEPS
from tests.tiny_drives import MODEL, drive


@pytest.fixture(scope='module')
def sweeps(tmp_path_factory: pytest.TempPathFactory) -> SweepFiles:
    folder = tmp_path_factory.mktemp('drives')
    return SweepFiles([drive(folder / str(seed), seed, sweeps=6) for seed in range(2)])


def network(seed: int = 0, config: ModelConfig = MODEL) -> Network:
    """A network whose memory counts: its gates are not as they are drawn."""
    drawn = Network(config, 0)
    generator = torch.Generator().manual_seed(seed)
    drawn.initialise(generator)
    with torch.no_grad():
        for value in drawn.temporal.parameters() if drawn.temporal is not None else ():
            value += 0.1 * torch.randn(value.shape, generator=generator)
    return drawn


@pytest.mark.parametrize(
    'chosen', [[*range(12)], [1, 3, 5, 7, 9, 11], [1, 5, 7, 11], [0, 5], [9], []]
)
def test_every_answer_is_that_of_its_window(sweeps: SweepFiles, chosen: list[int]) -> None:
    asked = network()
    found = [
        a for drive in sweeps.recordings for a in answered_sweeps(asked, sweeps, drive, chosen)
    ]
    assert [answer.position for answer in found] == chosen
    for answer in found:
        window = [sweep_input(asked, s) for s in sweeps.window(answer.position, MODEL.sweeps)]
        with torch.inference_mode():
            token, embedding = asked.forward_window(window)[-1]
        torch.testing.assert_close(answer.token, token)
        torch.testing.assert_close(answer.embedding, embedding)


@pytest.mark.parametrize(
    ('stride', 'chosen'), [(1, [*range(12)]), (4, [1, 5, 7, 11]), (9, [5, 11])]
)
def test_the_last_sweep_is_among_those_that_are_asked_for(
    sweeps: SweepFiles, stride: int, chosen: list[int]
) -> None:
    found = collect(network(), sweeps, points_per_sweep=1, seed=0, stride=stride)
    assert found.sweep.tolist() == chosen


def test_a_point_has_its_token_and_its_own_embedding(sweeps: SweepFiles) -> None:
    asked = network()
    found = collect(asked, sweeps, points_per_sweep=50, seed=3)
    assert found.features.shape == (12 * 50, MODEL.width + MODEL.point_width)
    assert found.features.dtype == np.float16
    answer = next(answered_sweeps(asked, sweeps, sweeps.recordings[1], [6]))
    mine = found.at(found.sweep == 6)
    assert set(mine.recording) == {1}
    for i in range(0, 50, 7):
        distance = np.linalg.norm(answer.sweep.xyz - mine.xyz[i], axis=1)
        point = int(distance.argmin())
        assert distance[point] == 0
        assert answer.sweep.label[point] == mine.label[i]
        row = int(answer.row[point])
        wanted = torch.cat(
            (answer.token[answer.given.patches.patch_of_kept[row]], answer.embedding[row])
        )
        np.testing.assert_allclose(mine.features[i], wanted.numpy(), rtol=2e-3, atol=1e-4)
        np.testing.assert_allclose(mine.range_m[i], np.linalg.norm(mine.xyz[i, :2]), rtol=1e-6)


def test_points_depend_on_the_seed_and_not_on_the_network(sweeps: SweepFiles) -> None:
    first, other = (collect(network(s), sweeps, points_per_sweep=40, seed=0) for s in (0, 1))
    single = collect(network(config=MODEL.without_memory()), sweeps, points_per_sweep=40, seed=0)
    for same in (other, single):
        np.testing.assert_array_equal(first.xyz, same.xyz)
        assert not np.array_equal(first.features, same.features)
    assert not np.array_equal(
        first.xyz, collect(network(), sweeps, points_per_sweep=40, seed=1).xyz
    )
    again = collect(network(), sweeps, points_per_sweep=40, seed=0)
    np.testing.assert_array_equal(first.features, again.features)


def test_what_has_no_label_is_left_out(sweeps: SweepFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    read = SweepFiles.__getitem__

    def labelled(files: SweepFiles, position: int) -> object:
        sweep = read(files, position)
        sweep.label[30 if position == 8 else 0 :] = 255
        return sweep

    monkeypatch.setattr(SweepFiles, '__getitem__', labelled)
    found = collect(network(), sweeps, points_per_sweep=40, seed=0)
    assert 0 < len(found) <= 30
    assert set(found.sweep) == {8} and set(found.recording) == {1}
    monkeypatch.setattr(SweepFiles, 'recordings', [range(6)])
    with pytest.raises(ValueError, match='no point of 6 sweeps has a label within 20 m'):
        collect(network(), sweeps, points_per_sweep=40, seed=0)


def test_a_stream_of_frames_has_the_features_of_the_pipeline(drive: Path) -> None:
    pipeline = Pipeline(SHIPPED, device='cpu')
    pipeline.teaching = True
    source = Source(drive, BagChoice())
    shipped = load_checkpoint(SHIPPED).network
    given = {'one': shipped, 'other': network(config=shipped.config)}
    found = collect_live(given, source, points_per_sweep=30, seed=0)
    one, other = found['one'], found['other']
    np.testing.assert_array_equal(one.xyz, other.xyz)
    assert not np.array_equal(one.features, other.features)
    assert set(one.recording) == {0} and set(one.sweep) == set(range(SWEEPS))
    for number, (swept, _) in enumerate(answered(pipeline, source)):
        assert pipeline.newest is not None and swept.label is not None
        mine = one.at(one.sweep == number)
        # No point is out of range, so that rows are those of the sweep.
        point = [int(np.flatnonzero((swept.frame.xyz_base == xyz).all(1))[0]) for xyz in mine.xyz]
        np.testing.assert_array_equal(mine.label, swept.label[swept.frame.sweep.index[point]])
        wanted = pipeline.newest.embedding[point].numpy()
        embedding = mine.features[:, shipped.config.width :]
        np.testing.assert_allclose(embedding, wanted, rtol=2e-3, atol=2e-3)


def test_positions_say_the_same_whatever_the_network(sweeps: SweepFiles) -> None:
    found = collect(network(), sweeps, points_per_sweep=20, seed=0)
    waves = position_features(found)
    np.testing.assert_allclose(waves.features[:, :3], found.xyz / 60, atol=1e-3)
    np.testing.assert_array_equal(waves.label, found.label)
