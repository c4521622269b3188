# SPDX-License-Identifier: Apache-2.0
"""Classes, colours and the frame embedding, against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cross4d_jepa_ros.model.heads import ColourBasis, SegmentationHead, frame_embedding


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
