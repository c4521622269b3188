# SPDX-License-Identifier: Apache-2.0
"""Probes learn what is there, and only that."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from offline_training.probes import LINEAR_PROBE, MLP_PROBE, ProbeConfig, fit_probe, score_probe

NAMES = ('road', 'car', 'person')
LINEAR = ProbeConfig(epochs=20, batch=256, learning_rate=1e-2)
Set = tuple[NDArray[np.floating], NDArray[np.uint8]]


def clusters(seed: int, count: int = 3000) -> tuple[NDArray[np.float16], NDArray[np.uint8]]:
    """Draw three clouds in five dimensions, one of them rare, in odd units."""
    random = np.random.default_rng(seed)
    truth = random.choice(3, count, p=(0.6, 0.35, 0.05)).astype(np.uint8)
    features = random.normal(0, 1, (count, 5))
    features[:, 1] += 6 * (truth == 1)
    features[:, 3] += 6 * (truth == 2)
    return (300 + 0.02 * features * (1, 100, 1, 1000, 1)).astype(np.float16), truth


def rings(seed: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Draw points in the plane whose class is their distance from the middle."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, 3, 6000).astype(np.uint8)
    angle = random.uniform(0, 2 * np.pi, len(truth))
    around = np.stack((np.cos(angle), np.sin(angle)), 1)
    return (around * (1 + truth[:, None])).astype(np.float32), truth


def miou(config: ProbeConfig, fit: Set, test: Set) -> float:
    """Train on `fit` and score on `test`."""
    scores = score_probe(fit_probe(config, *fit, 3, seed=0), *test, NAMES)
    found = scores.miou()
    assert found is not None
    return found


def test_a_linear_probe_separates_clouds_and_their_rare_class() -> None:
    assert miou(LINEAR, clusters(0), clusters(1)) > 0.95


def test_rings_take_hidden_layers() -> None:
    layered = replace(LINEAR, hidden=MLP_PROBE.hidden)
    assert miou(layered, rings(0), rings(1)) > 0.95
    assert miou(LINEAR, rings(0), rings(1)) < 0.4


def test_noise_teaches_nothing() -> None:
    features, truth = clusters(0)
    shuffled = np.random.default_rng(2).permutation(truth)
    always_road = (truth == 0).mean() / 3
    assert miou(LINEAR, (features, shuffled), clusters(1)) < 1.2 * always_road


def test_a_seed_settles_the_outcome_and_leaves_torch_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    features, _ = clusters(1)
    first, again, other = (fit_probe(LINEAR_PROBE, *clusters(0), 3, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.rand(1), expected)
    logits = [probe(torch.from_numpy(features)) for probe in (first, again, other)]
    assert torch.equal(logits[0], logits[1])
    assert not torch.equal(logits[0], logits[2])


def test_a_constant_feature_does_no_harm() -> None:
    features, truth = clusters(0)
    features[:, 0] = 7
    probe = fit_probe(LINEAR_PROBE, features, truth, 3, 0)
    assert torch.isfinite(probe(torch.from_numpy(features))).all()


def test_raw_features_are_taken_as_they_are() -> None:
    raw = replace(LINEAR, standardised=False)
    probe = fit_probe(raw, *clusters(0), 3, 0)
    assert torch.equal(probe.mean, torch.zeros(5))
    assert torch.equal(probe.scale, torch.ones(5))
    # The rare class shows in the second digit behind the point of a large number.
    assert miou(raw, clusters(0), clusters(1)) < 0.7


@pytest.mark.parametrize(('least_steps', 'epochs'), [(0, 4), (8, 4), (9, 5), (100, 50)])
def test_every_epoch_is_told(least_steps: int, epochs: int) -> None:
    told: list[int] = []
    config = ProbeConfig(epochs=4, batch=32, least_steps=least_steps)
    fit_probe(config, *clusters(0, 50), 3, 0, lambda: told.append(1))
    assert len(told) == epochs


def test_labels_have_to_match() -> None:
    features, truth = clusters(0)
    with pytest.raises(ValueError, match='3000 features and 2999 labels'):
        fit_probe(LINEAR_PROBE, features, truth[:-1], 3, 0)
    with pytest.raises(ValueError, match='0 features'):
        fit_probe(LINEAR_PROBE, features[:0], truth[:0], 3, 0)
