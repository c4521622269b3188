# SPDX-License-Identifier: Apache-2.0
"""Classes, colours and the frame embedding, against numpy."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from cross4d_jepa_ros.model.config import BadConfig, ModelConfig, Segmentation, Teacher
from cross4d_jepa_ros.model.heads import (
    SHRINKAGE,
    ColourBasis,
    EmbeddingNormalisation,
    SegmentationHead,
    frame_embedding,
)
from cross4d_jepa_ros.model.network import Network

TEACHER = Teacher('lite0', 'ab' * 32, 64, 16, channels=9, components=5, hidden=0)


def test_classes_are_those_of_a_softmax() -> None:
    torch.manual_seed(0)
    head, embedding = SegmentationHead(6, 4), 5 * torch.randn(40, 6)
    class_id, probability = head.classify(embedding)
    expected = (embedding @ head.weight.T + head.bias).softmax(1)
    assert class_id.tolist() == expected.argmax(1).tolist()
    torch.testing.assert_close(probability, expected.amax(1))
    assert len(set(class_id.tolist())) > 1


def test_huge_logits_stay_probabilities() -> None:
    head = SegmentationHead(1, 2)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[1e4], [-1e4]]))
        head.bias.zero_()
    class_id, probability = head.classify(torch.tensor([[3.0], [-3.0], [0.0]]))
    assert class_id.tolist()[:2] == [0, 1]
    assert probability.tolist() == [1.0, 1.0, 0.5]


@pytest.mark.parametrize('space', ['point', 'teacher'])
@pytest.mark.parametrize('hidden', [0, 8])
def test_heads_read_the_space_that_they_are_for(
    config: ModelConfig, space: str, hidden: int
) -> None:
    network = Network(config, 4, TEACHER, Segmentation(space, hidden))
    network.initialise(torch.Generator().manual_seed(0))
    head, teacher_space = network.segmentation, network.teacher_space
    assert head is not None and teacher_space is not None
    names = [name for name in network.state_dict() if name.startswith('segmentation')]
    layers = ['segmentation.hidden.bias', 'segmentation.hidden.weight'] if hidden else []
    assert sorted(names) == ['segmentation.bias', *layers, 'segmentation.weight']

    embedding = 5 * torch.randn(40, config.point_width)
    read = embedding
    if space == 'teacher':
        read = teacher_space(embedding)
        read = read / read.square().sum(1, keepdim=True).sqrt()
    torch.testing.assert_close(head.features(embedding), read)
    if hidden:
        read = (read @ head.hidden.weight.T + head.hidden.bias).clamp_min(0)
    logits = read @ head.weight.T + head.bias
    torch.testing.assert_close(head(embedding), logits)
    class_id, probability = head.classify(embedding)
    first, second = logits.topk(2).values.T
    clear = first - second > 1e-4  # where no hidden unit is awake, classes are level
    assert clear.sum() > 20
    assert class_id[clear].tolist() == logits.argmax(1)[clear].tolist()
    torch.testing.assert_close(probability, logits.softmax(1).amax(1))


def test_a_copied_network_has_a_head_of_its_own(config: ModelConfig) -> None:
    network = Network(config, 4, TEACHER, Segmentation('teacher'))
    copied = copy.deepcopy(network)
    with torch.no_grad():
        network.teacher_space.out.weight.zero_()
        network.teacher_space.out.bias.fill_(1)
    embedding = torch.randn(3, config.point_width)
    own = torch.nn.functional.normalize(copied.teacher_space(embedding), dim=1)
    torch.testing.assert_close(copied.segmentation.features(embedding), own)


def test_a_teacher_space_that_is_not_there_is_not_read(config: ModelConfig) -> None:
    with pytest.raises(BadConfig, match='learnt from none'):
        Network(config, 4, None, Segmentation('teacher'))


def test_normalised_embeddings_of_any_data_are_spread_evenly() -> None:
    draw = torch.Generator().manual_seed(0)
    points = torch.randn(4000, 3, generator=draw, dtype=torch.float64)
    points = points * torch.tensor([9.0, 1.0, 0.01]) + torch.tensor([5.0, 50.0, -7.0])
    normalisation = EmbeddingNormalisation(3)
    assert not normalisation.fitted
    normalisation.fit(points)
    assert normalisation.fitted
    white = normalisation.whitened(points)
    assert white.mean(0).abs().max() < 1e-4
    variance = points.var(0, correction=0)
    expected = variance / (variance + SHRINKAGE * variance.mean())
    torch.testing.assert_close(white.double().var(0, correction=0), expected, atol=0.01, rtol=0.01)
    torch.testing.assert_close(normalisation(points).norm(dim=1), torch.ones(4000))


def test_normalisation_by_hand_and_by_weight() -> None:
    normalisation = EmbeddingNormalisation(2)
    corners = torch.tensor([[5.0, 1.0], [-1.0, 1.0], [2.0, 3.0], [2.0, -1.0], [90.0, 90.0]])
    normalisation.fit(corners, torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0]))
    # Mean (2, 1), variances 4.5 and 2, their mean 3.25.
    scale = [(4.5 + SHRINKAGE * 3.25) ** -0.5, (2 + SHRINKAGE * 3.25) ** -0.5]
    torch.testing.assert_close(normalisation.mean, torch.tensor([2.0, 1.0]))
    torch.testing.assert_close(normalisation.matrix, torch.diag(torch.tensor(scale)))
    found = normalisation(torch.tensor([[3.0, 1.0], [2.0, 0.0]], dtype=torch.bfloat16))
    torch.testing.assert_close(found, torch.tensor([[1.0, 0.0], [0.0, -1.0]]))


def test_normalisation_of_equal_embeddings_is_finite() -> None:
    normalisation = EmbeddingNormalisation(2)
    normalisation.fit(torch.ones(5, 2))
    assert normalisation(torch.tensor([[1.0, 1.0], [2.0, 1.0]])).isfinite().all()


def test_the_basis_is_the_principal_components() -> None:
    draw = np.random.default_rng(0)
    scale = np.array([0.1, 5.0, 0.2, 3.0, 2.0])
    points = draw.normal(0, 1, (3000, 5)) * scale @ np.linalg.qr(draw.normal(size=(5, 5)))[0] + 7
    basis = ColourBasis(5)
    basis.fit(torch.from_numpy(points))
    centred = points - points.mean(0)
    expected = np.linalg.svd(centred, full_matrices=False)[2][:3]
    found = basis.components.numpy().T
    assert np.abs((found * expected).sum(1)) == pytest.approx(np.ones(3), abs=1e-5)
    assert (found[np.arange(3), np.abs(found).argmax(1)] > 0).all()
    low, high = np.percentile(centred @ found.T, [2, 98], axis=0)
    assert basis.low.numpy() == pytest.approx(low, abs=1e-3)
    assert basis.high.numpy() == pytest.approx(high, abs=1e-3)


def test_colours_span_the_bounds_and_saturate() -> None:
    basis = ColourBasis(3)
    basis.low.copy_(torch.tensor([-1.0, 0.0, 2.0]))
    basis.high.copy_(torch.tensor([1.0, 10.0, 2.0]))
    basis.mean.copy_(torch.tensor([100.0, 0.0, 0.0]))
    found = basis(torch.tensor([[99.0, 10.0, 3.0], [100.5, 2.0, 1.0], [500.0, -9.0, 2.0]]))
    assert found.dtype == torch.uint8
    assert found.tolist() == [[0, 255, 255], [191, 51, 0], [255, 0, 0]]


def test_the_frame_embedding_is_the_mean() -> None:
    assert frame_embedding(torch.tensor([[1.0, 2.0], [3.0, 6.0]])).tolist() == [2.0, 4.0]
    assert frame_embedding(torch.zeros(0, 2)).tolist() == [0.0, 0.0]
