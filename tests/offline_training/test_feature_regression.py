# SPDX-License-Identifier: Apache-2.0
"""Ridge, R² and components against sums done by hand."""

from __future__ import annotations

import pytest
import torch

from offline_training.feature_regression import (
    RidgeSums,
    fit_ridge,
    r2,
    weighted_r2,
    whitened_components,
)
from offline_training.position_network import OCTAVES, PositionNetwork, fourier_features


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values)[:, None]


def test_a_ridge_shrinks_the_slope_of_standardised_features() -> None:
    # x = 1, 3 has mean 2 and deviation 1: standardised -1, 1. y - 5 = -4, 4. With 2 samples the
    # slope is (4 + 4) / (2 + strength).
    fitted = fit_ridge(column(1, 3), column(1, 9), strength=2)
    assert fitted.mean.tolist() == [2]
    assert fitted.scale.tolist() == [1]
    assert fitted.weight.tolist() == [[2]]
    assert fitted.bias.tolist() == [5]
    assert fitted(column(1, 2, 4)).flatten().tolist() == [3, 5, 9]


def test_a_linear_relation_is_found_whatever_its_units() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(500, 3, generator=generator).double()
    targets = features @ torch.tensor([[1.0, 0], [2, -1], [0, 3]]).double() + 7
    units = torch.tensor([1e-3, 1.0, 1e4]).double()
    fitted = fit_ridge(features * units + 1e5 * units, targets, strength=1e-6)
    assert torch.allclose(fitted(features * units + 1e5 * units), targets, atol=1e-5)


def test_batches_give_what_all_at_once_gives() -> None:
    generator = torch.Generator().manual_seed(1)
    features = 50 + torch.randn(60, 4, generator=generator)
    targets = torch.randn(60, 2, generator=generator)
    sums = RidgeSums()
    for part in (slice(0, 1), slice(1, 1), slice(1, 40), slice(40, 60)):
        sums.add(features[part], targets[part])
    at_once, in_parts = fit_ridge(features, targets, 0.5), sums.solve(0.5)
    assert torch.allclose(in_parts(features), at_once(features), atol=1e-10)


def test_a_constant_feature_does_no_harm() -> None:
    fitted = fit_ridge(torch.tensor([[0.1, 1], [0.1, 3]]), column(1, 9), strength=2)
    assert fitted(torch.tensor([[0.1, 3.0]])).item() == pytest.approx(7)
    assert fitted(torch.tensor([[99.0, 3.0]])).item() == pytest.approx(7)


def test_nothing_cannot_be_fitted() -> None:
    with pytest.raises(ValueError, match='needs samples'):
        fit_ridge(torch.zeros(0, 3), torch.zeros(0, 2), 1.0)


def test_r2_of_each_component_and_of_all_variance() -> None:
    target = torch.tensor([[0.0, 0, 5], [2, 20, 5]])
    # Errors 1, 1 of variation 1 + 1, and 10, 0 of 100 + 100; the last never varies.
    prediction = torch.tensor([[1.0, 10, 5], [1, 20, 6]])
    assert r2(prediction, target).tolist() == [0, 0.5, 0]
    assert weighted_r2(prediction, target) == pytest.approx(1 - (2 + 100 + 1) / (2 + 200 + 0))
    assert r2(target, target).tolist() == [1, 1, 0]


def test_components_are_those_of_standardised_features_with_deviation_one() -> None:
    generator = torch.Generator().manual_seed(2)
    common = torch.randn(4000, 1, generator=generator)
    noise = torch.randn(4000, 3, generator=generator)
    # The first two are nearly the same but for their units; the third is on its own.
    features = torch.cat((common, 100 * common, noise[:, :1]), 1)
    features[:, :2] += noise[:, 1:] * torch.tensor([0.1, 10.0])
    mean, components = whitened_components(features + 3, 2)
    projected = (features + 3 - mean) @ components
    assert torch.allclose(projected.mean(0), torch.zeros(2).double(), atol=1e-6)
    assert torch.allclose(projected.T.cov(correction=0), torch.eye(2).double(), atol=1e-6)
    # Component 1 is the sum of the first two, 2 the third.
    first, second = components.T
    assert first[0].item() == pytest.approx(100 * first[1].item(), rel=0.05)
    assert abs(first[2]) < 0.05 * abs(first[0])
    assert second[2].abs().item() == pytest.approx(1 / features[:, 2].std().item(), rel=0.01)


def test_a_component_that_does_not_vary_is_zero() -> None:
    features = column(0, 1, 2, 3).expand(4, 2)
    _, components = whitened_components(features, 2)
    assert components[:, 1].tolist() == [0, 0]
    assert components.isfinite().all()


def test_fourier_features_of_a_place() -> None:
    features = fourier_features(torch.tensor([[30.0, 0, -60]]))
    assert features.shape == (1, 3 + 6 * OCTAVES)
    assert features[0, :3].tolist() == [0.5, 0, -1]
    sine, cosine = features[0, 3:].view(2, 3, OCTAVES)
    # The longest wave is 120 m: a quarter, nothing, minus a half.
    assert torch.allclose(sine[:, 0], torch.tensor([1.0, 0, 0]), atol=1e-6)
    assert torch.allclose(cosine[:, 0], torch.tensor([0.0, 1, -1]), atol=1e-6)
    # The next is half as long.
    assert torch.allclose(cosine[:, 1], torch.tensor([-1.0, 1, 1]), atol=1e-6)


def test_a_position_network_is_settled_by_its_generator() -> None:
    first, again, other = (
        PositionNetwork(5, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    xyz = torch.tensor([[1.0, 2, 3], [4, 5, 6]])
    assert first(xyz).shape == (2, 5)
    assert torch.equal(first(xyz), again(xyz))
    assert not torch.equal(first(xyz), other(xyz))
