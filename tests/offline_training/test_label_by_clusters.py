# SPDX-License-Identifier: Apache-2.0
"""Clusters come out the same, and the node's linear head answers with them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from cross4d_jepa_ros.model.checkpoint import load_checkpoint
from cross4d_jepa_ros.model.config import BadConfig, Segmentation
from cross4d_jepa_ros.model.heads import EmbeddingNormalisation, SegmentationHead
from offline_training import label_by_clusters
from offline_training.naming import clusters as module
from offline_training.naming.clusters import _same_places, class_names, fill, k_means, read_names
from tests.tiny_names import index_of_street, write_start


@pytest.fixture(autouse=True)
def little_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, 'SWEEPS', 4)
    monkeypatch.setattr(module, 'PAIRS', 2)
    monkeypatch.setattr(label_by_clusters, 'MERGING_STEPS', 600)


@pytest.fixture(scope='module')
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return index_of_street(tmp_path_factory.mktemp('recorded'), 5)


def blobs() -> torch.Tensor:
    """Three heaps of 100, 300 and 200 points at known places, 0.1 wide."""
    middle = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
    member = torch.arange(3).repeat_interleave(torch.tensor([100, 300, 200]))
    noise = torch.randn(600, 2, generator=torch.Generator().manual_seed(0))
    return middle[member] + 0.1 * noise


def test_heaps_are_found_the_largest_first() -> None:
    found = k_means(blobs(), 3, seed=5)
    wanted = torch.tensor([[4.0, 0.0], [0.0, 4.0], [0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(found.centres, wanted, rtol=0, atol=0.05)
    torch.testing.assert_close(found.share, torch.tensor([1 / 2, 1 / 3, 1 / 6]))
    assert found.spread == pytest.approx(0.01, rel=0.2)
    assert torch.equal(k_means(blobs(), 3, seed=5).centres, found.centres)


def test_more_clusters_than_different_points_are_refused() -> None:
    with pytest.raises(BadConfig, match='4 clusters of 3 different points: give fewer'):
        k_means(torch.eye(3).repeat(5, 1), 4, seed=0)


def test_the_head_answers_with_the_nearest_centre() -> None:
    draw = torch.Generator().manual_seed(1)
    raw = torch.randn(500, 6, generator=draw) @ torch.randn(6, 6, generator=draw) + 7
    normalisation = EmbeddingNormalisation(6)
    normalisation.fit(raw)
    whitened = normalisation.whitened(raw)
    found = k_means(whitened, 5, seed=0)
    head = SegmentationHead(6, 5)
    fill(head, normalisation, found)
    distance = torch.cdist(whitened.double(), found.centres)
    answer, probability = head.classify(raw)
    assert torch.equal(answer.long(), distance.argmin(1))
    # Equally likely, equally round clusters.
    wanted = (-distance.square() / (2 * found.spread)).softmax(1).amax(1)
    torch.testing.assert_close(probability.double(), wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ('names', 'classes', 'class_of'),
    [
        ({}, ('cluster_00', 'cluster_01', 'cluster_02'), [0, 1, 2]),
        ({1: 'car'}, ('cluster_00', 'car', 'cluster_02'), [0, 1, 2]),
        ({0: 'road', 2: 'road'}, ('road', 'cluster_01'), [0, 1, 0]),
    ],
)
def test_clusters_get_names(
    names: dict[int, str], classes: tuple[str, ...], class_of: list[int]
) -> None:
    assert class_names(3, names) == (classes, class_of)


def test_the_command_gives_the_same_bytes_twice(tmp_path: Path, index: Path) -> None:
    start = write_start(tmp_path / 'start.safetensors', teacher=False)
    out = tmp_path / 'out.safetensors'
    words = [str(start), str(out), '--index', str(index), '--clusters', '4']
    assert label_by_clusters.main(words) == 0
    first = out.read_bytes()
    assert label_by_clusters.main(words) == 0
    assert out.read_bytes() == first
    named = load_checkpoint(out)
    assert named.contract.class_names == tuple(f'cluster_{number:02d}' for number in range(4))
    assert len(set(named.contract.palette)) == 4
    assert named.contract.segmentation == Segmentation()
    assert named.contract.training['kind'] == 'clusters'
    report = json.loads(out.with_suffix('.json').read_text())
    assert report['as_clustered'] == 1
    assert sum(report['classes'].values()) == pytest.approx(1)
    # By chance it would be a quarter or a little more.
    assert report['kept_from_sweep_to_sweep'] > 0.6
    assert report['compared_points'] > 200


def test_clusters_of_one_name_become_one_class(tmp_path: Path, index: Path) -> None:
    start = write_start(tmp_path / 'start.safetensors', teacher=False)
    out, names = tmp_path / 'out.safetensors', tmp_path / 'names.yaml'
    names.write_text('0: road\n3: road\n')
    words = [str(start), str(out), '--index', str(index), '--clusters', '4']
    assert label_by_clusters.main([*words, '--names', str(names)]) == 0
    named = load_checkpoint(out)
    assert named.contract.class_names == ('road', 'cluster_01', 'cluster_02')
    assert json.loads(out.with_suffix('.json').read_text())['as_clustered'] > 0.9


def test_without_poses_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = index_of_street(tmp_path, 3, posed=False)
    start = write_start(tmp_path / 'start.safetensors', teacher=False)
    words = [str(start), str(tmp_path / 'out.safetensors'), '--index', str(index)]
    assert label_by_clusters.main([*words, '--clusters', '2']) == 0
    assert 'no poses' in ' '.join(capsys.readouterr().out.split())
    assert json.loads((tmp_path / 'out.json').read_text())['kept_from_sweep_to_sweep'] is None


@pytest.mark.parametrize(
    ('text', 'sentence'),
    [
        ('4: road', '4 is no cluster: give 0 to 3'),
        ('car: road', "'car' is no cluster"),
        ('0: yes', '0 is True: give a name'),
        ('[road]', 'expected lines such as "0: road"'),
        ('0: [', 'names.yaml'),
    ],
)
def test_names_that_mean_nothing_are_refused(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / 'names.yaml').write_text(text)
    with pytest.raises(BadConfig, match=sentence):
        read_names(tmp_path / 'names.yaml', 4)


def test_points_that_share_a_cell_are_the_same_place() -> None:
    first = np.array([[0.01, 0.01, 0], [1.05, 0, 0], [-0.05, 0, 0]], np.float32)
    second = np.array([[-0.02, 0.02, 0.01], [5, 5, 5], [0.09, 0.09, 0.09]], np.float32)
    one, two = _same_places(first, second)
    assert sorted(zip(one.tolist(), two.tolist(), strict=True)) == [(0, 2), (2, 0)]
