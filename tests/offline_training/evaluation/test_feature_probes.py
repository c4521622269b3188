# SPDX-License-Identifier: Apache-2.0
"""Probes and nearest neighbours tell what features tell; few labels are drawn by a rule."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from offline_training.evaluation import feature_probes, label_efficiency
from offline_training.evaluation.feature_probes import PROBES, probed
from offline_training.evaluation.features import PointFeatures
from offline_training.evaluation.label_efficiency import (
    draw_label_efficiency,
    labelled_share,
    mean_miou,
)
from offline_training.evaluation.neighbours_probe import NeighboursConfig, nearest_answers
from offline_training.labelled_sweeps import label_order
from offline_training.probes import ProbeConfig

NAMES = ('road', 'car')


def points(seed: int, recordings: int = 5, sweeps: int = 20, each: int = 10) -> PointFeatures:
    """Two classes, told apart by the first feature; the others are loud and say nothing."""
    draw = np.random.default_rng(seed)
    count = recordings * sweeps * each
    label = draw.integers(0, 2, count).astype(np.uint8)
    features = 1000 * draw.normal(size=(count, 3))
    features[:, 0] = label + 0.1 * draw.normal(size=count)
    xyz = np.zeros((count, 3), np.float32)
    xyz[:, 1] = draw.choice((5.0, 20.0, 59.0), count)
    return PointFeatures(
        features.astype(np.float16),
        label,
        xyz,
        np.arange(recordings).repeat(sweeps * each),
        np.arange(recordings * sweeps).repeat(each),
    )


@pytest.fixture
def short_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, config in PROBES.items():
        if isinstance(config, ProbeConfig):
            monkeypatch.setitem(PROBES, name, replace(config, least_steps=200))


def test_a_neighbour_votes_by_its_direction() -> None:
    known = np.array([[1, 0], [2, 0.1], [0, 5], [0.1, 4]], np.float32)
    truth = np.array([0, 0, 1, 1], np.uint8)
    raw = NeighboursConfig(neighbours=1, standardised=False)
    asked = np.array([[100, 1], [0.1, 1]], np.float32)
    assert nearest_answers(raw, known, truth, asked, 2).tolist() == [0, 1]
    # Three of four vote; a near one weighs more than two that lie across.
    three = replace(raw, neighbours=3)
    assert nearest_answers(three, known[1:], truth[1:], asked, 2).tolist() == [0, 1]


@pytest.mark.parametrize(('standardised', 'least', 'most'), [(True, 0.9, 1.0), (False, 0.4, 0.85)])
def test_loud_features_drown_others_unless_standardised(
    standardised: bool, least: float, most: float
) -> None:
    fit, judged = points(0), points(1)
    config = NeighboursConfig(standardised=standardised)
    answer = nearest_answers(config, fit.features, fit.label, judged.features, 2)
    assert least <= (answer == judged.label).mean() <= most


def test_those_who_vote_are_drawn_evenly() -> None:
    truth = np.array([0, 1, 1, 1, 0], np.uint8)
    known = np.eye(5, dtype=np.float32)
    config = NeighboursConfig(neighbours=1, standardised=False, most=3)
    # Left are the first, the third and the last: the second finds none like it and asks the first.
    assert nearest_answers(config, known, truth, known, 2).tolist()[::2] == [0, 1, 0]
    with pytest.raises(ValueError, match='no point has a label'):
        nearest_answers(config, known[:0], truth[:0], known, 2)


@pytest.mark.usefixtures('short_probes')
def test_every_probe_is_judged_by_range() -> None:
    told: list[int] = []
    fit, judged = points(0), points(1)
    rows = probed(fit, judged, NAMES, 0, on_probe=lambda: told.append(1))
    assert list(rows) == ['linear', 'linear_raw', 'mlp', 'neighbours', 'neighbours_raw']
    assert len(told) == 5
    for name in ('linear', 'mlp', 'neighbours'):
        assert rows[name]['miou'] > 0.9
    for row in rows.values():
        assert row['points_scored'] == 1000
        by_range = row['by_range_m']
        assert list(by_range) == ['0-10', '10-30', '30-60']
        far = (judged.xyz[:, 1] == 59).sum()
        assert by_range['30-60']['points_scored'] == far
        right = sum(part['accuracy'] * part['points_scored'] for part in by_range.values())
        assert right == pytest.approx(1000 * row['accuracy'], abs=0.01)
    assert rows['linear'] == probed(fit, judged, NAMES, 0, ('linear',))['linear']


def test_neighbours_are_asked_about_some_points(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROBES, feature_probes.NEIGHBOURS, NeighboursConfig(most=100))
    row = probed(points(0), points(1), NAMES, 0, (feature_probes.NEIGHBOURS,))
    assert row['neighbours']['points_scored'] == 100


def test_sweeps_are_labelled_in_turns() -> None:
    recordings = [range(4), range(4, 6), range(6, 10)]
    order = label_order(recordings, 0)
    assert sorted(order) == list(range(10))
    assert {next(r for r in recordings if p in r).start for p in order[:3]} == {0, 4, 6}
    assert order == label_order(recordings, 0) != label_order(recordings, 1)


@pytest.mark.parametrize(
    ('share', 'sweeps', 'count'),
    [(1.0, 100, 1000), (0.1, 10, 100), (0.014, 1, 10), (0.005, 1, 5), (0.0001, 1, 1)],
)
def test_a_share_of_the_labels_is_whole_sweeps(share: float, sweeps: int, count: int) -> None:
    some = labelled_share(points(0), share, 0)
    assert len(some) == count
    assert len(np.unique(some.sweep)) == sweeps
    assert len(np.unique(some.recording)) == min(5, sweeps)
    more = labelled_share(points(0), min(1.0, 3 * share), 0)
    assert set(some.sweep) <= set(more.sweep)
    assert set(some.features[:, 1]) <= set(more.features[:, 1])


@pytest.mark.usefixtures('short_probes')
def test_more_labels_teach_more(tmp_path: Path) -> None:
    rows = label_efficiency.label_efficiency(points(0), points(1), NAMES, seeds=(0, 1))
    assert [(row['share'], row['seed']) for row in rows] == [
        (share, seed) for share in label_efficiency.SHARES for seed in (0, 1)
    ]
    assert [row['points'] for row in rows[::2]] == [1, 10, 100, 1000]
    means = mean_miou(rows)
    assert means[1.0][0] > 0.9 > means[0.001][0]
    assert means[1.0][1] <= means[1.0][0] <= means[1.0][2]
    for path in (tmp_path / 'a.png', tmp_path / 'b.png'):
        draw_label_efficiency(path, {'dense': rows, 'random': rows[::-1]})
    assert (tmp_path / 'a.png').read_bytes() == (tmp_path / 'b.png').read_bytes()
    picture = cv2.imread(str(tmp_path / 'a.png'))
    assert picture is not None and len(np.unique(picture.reshape(-1, 3), axis=0)) > 50
