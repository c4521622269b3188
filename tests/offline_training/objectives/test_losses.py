# SPDX-License-Identifier: Apache-2.0
"""Losses and the target encoder's schedule against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from offline_training.objectives.ema import follow, momentum, target_of
from offline_training.objectives.losses import (
    cosine_distance,
    latent_loss,
    normalised,
    variance_hinge,
)
from offline_training.objectives.settings import Ema
from tests.offline_training.objectives.samples import model_of, network_of

PREDICTION = torch.tensor([[3.0, 4.0], [1.0, 0.0]])
TARGET = torch.tensor([[6.0, 8.0], [0.0, 2.0]])


def test_a_cosine_is_blind_to_length() -> None:
    torch.testing.assert_close(cosine_distance(PREDICTION, TARGET), torch.tensor([0.0, 1.0]))
    turned = cosine_distance(torch.tensor([[1.0, 0.0]]), torch.tensor([[-5.0, 0.0]]))
    torch.testing.assert_close(turned, torch.tensor([2.0]))


@pytest.mark.parametrize(
    ('kind', 'expected'),
    [
        ('cosine', 0.5),
        ('l2', (9 + 16 + 1 + 4) / 4),
        # |d| - 0.5 from 1 on, d^2 / 2 below.
        ('smooth_l1', (2.5 + 3.5 + 0.5 + 1.5) / 4),
    ],
)
def test_losses_are_means_over_rows(kind: str, expected: float) -> None:
    assert latent_loss(kind, PREDICTION, TARGET).item() == pytest.approx(expected)


@pytest.mark.parametrize('kind', ['cosine', 'l2', 'smooth_l1'])
def test_no_gradient_reaches_a_target(kind: str) -> None:
    prediction, target = PREDICTION.clone().requires_grad_(), TARGET.clone().requires_grad_()
    latent_loss(kind, prediction, target).backward()
    assert prediction.grad is not None
    assert target.grad is None


def test_targets_are_normalised_row_by_row() -> None:
    # Mean 4, deviation sqrt(8 / 3).
    unit = 2 / math.sqrt(8 / 3)
    expected = torch.tensor([[-unit, 0.0, unit], [0.0, 0.0, 0.0]])
    rows = torch.tensor([[2.0, 4.0, 6.0], [7.0, 7.0, 7.0]])
    torch.testing.assert_close(normalised(rows), expected, atol=1e-4, rtol=0)


def test_the_hinge_asks_for_spread_directions() -> None:
    one = torch.tensor([[2.0, 0.0], [5.0, 0.0]], requires_grad=True)
    loss = variance_hinge(one)
    assert loss.item() == pytest.approx(1 / math.sqrt(2), abs=2e-4)
    loss.backward()
    assert one.grad is not None
    assert one.grad.isfinite().all()
    # Unit rows (1, 0) and (0, 1): each channel deviates by 0.5.
    half = variance_hinge(torch.tensor([[3.0, 0.0], [0.0, 0.1]]))
    assert half.item() == pytest.approx(1 / math.sqrt(2) - 0.5, abs=1e-5)
    axes = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    assert variance_hinge(axes).item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    ('step', 'expected'),
    [
        (0, 0.996),
        (25, 1 - 0.004 * (1 + math.sqrt(0.5)) / 2),
        (50, 0.998),
        (100, 1.0),
    ],
)
def test_momentum_rises_along_a_cosine(step: int, expected: float) -> None:
    assert momentum(step, 100, Ema(0.996, 1.0)) == pytest.approx(expected)


def test_the_target_encoder_follows_by_its_share() -> None:
    network = network_of(model_of('voxel', 2))
    target = target_of(network)
    before = {name: value.clone() for name, value in target.named_parameters()}
    with torch.no_grad():
        for value in network.parameters():
            value += 1.0
    follow(target, network, 0.75)
    for name, value in target.named_parameters():
        torch.testing.assert_close(value, before[name] + 0.25)
        assert not value.requires_grad
        assert dict(network.named_parameters())[name].requires_grad
    follow(target, network, 1.0)
    for name, value in target.named_parameters():
        torch.testing.assert_close(value, before[name] + 0.25)
