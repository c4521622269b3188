# SPDX-License-Identifier: Apache-2.0
"""The sum of the objectives keeps its scale whatever a sample lacks."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from offline_training.objectives.window import Window
from offline_training.pretraining.losses import Losses
from tests.offline_training.objectives.samples import (
    PATCH_CHANNELS,
    VIEW_CHANNELS,
    model_of,
    network_of,
    objectives_of,
    window_of,
)

SETTINGS = objectives_of(
    dense_correspondence={'weight': 2.0},
    latent_view={'weight': 0.5},
    masked_latent={'weight': 1.0},
)


def losses_of() -> Losses:
    network = network_of(model_of('voxel', 3))
    draw = torch.Generator().manual_seed(0)
    return Losses(network, SETTINGS, PATCH_CHANNELS, VIEW_CHANNELS, draw)


def without_images(window: Window) -> Window:
    return replace(window, sweeps=tuple(replace(s, sightings=()) for s in window.sweeps))


def test_the_total_is_the_weighted_sum() -> None:
    total, terms = losses_of()(window_of(3))
    expected = (
        2 * terms['dense_correspondence'].loss
        + 0.5 * terms['latent_view'].loss
        + terms['masked_latent'].loss
    )
    torch.testing.assert_close(total, expected)


def test_a_sample_without_an_image_keeps_its_other_terms_and_the_scale() -> None:
    losses, window = losses_of(), window_of(3)
    total, terms = losses(without_images(window))
    assert set(terms) == {'masked_latent'}
    # 2 + 0.5 + 1 in all, of which 1 is there.
    torch.testing.assert_close(total, 3.5 * terms['masked_latent'].loss)
    torch.testing.assert_close(terms['masked_latent'].loss, losses(window)[1]['masked_latent'].loss)


@pytest.mark.parametrize('lacking', ['images', 'everything'])
def test_every_weight_has_a_gradient_in_every_sample(lacking: str) -> None:
    losses, window = losses_of(), without_images(window_of(3))
    if lacking == 'everything':
        empty = [replace(s, xyz=s.xyz[:0], intensity=torch.zeros(0)) for s in window.sweeps]
        window = replace(window, sweeps=tuple(empty))
    total, terms = losses(window)
    total.backward()
    assert bool(terms) == (lacking == 'images')
    assert all(value.grad is not None for value in losses.trained().values())
    head = [value.grad for name, value in losses.trained().items() if 'teacher_space' in name]
    assert head and not any(grad.any() for grad in head if grad is not None)


def test_no_gradient_reaches_the_target_encoder() -> None:
    losses = losses_of()
    losses(window_of(3))[0].backward()
    assert losses.target_network is not None
    assert all(value.grad is None for value in losses.target_network.parameters())
    assert not any(name.startswith('target_network') for name in losses.trained())
