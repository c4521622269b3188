# SPDX-License-Identifier: Apache-2.0
"""Views are predicted from points, and points from views, given how the camera looked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from offline_training.objectives import settings
from offline_training.objectives.ema import target_of
from offline_training.objectives.latent_view import ViewObjective, in_view
from offline_training.objectives.passes import Pass, Term
from offline_training.objectives.predictor import initialise
from offline_training.objectives.window import Sighting, Window
from tests.offline_training.objectives.samples import (
    PATCH_CHANNELS,
    VIEW_CHANNELS,
    model_of,
    network_of,
    window_of,
)

SIZES = settings.Predictor(8, 2, 2)


def objective_of(
    direction: str, *, histogram: bool = True, loss: str = 'smooth_l1'
) -> ViewObjective:
    given = settings.LatentView(1.0, direction, histogram, loss)
    model = model_of('voxel', 2)
    objective = ViewObjective(given, SIZES, model, PATCH_CHANNELS, VIEW_CHANNELS)
    initialise(objective, torch.Generator().manual_seed(1))
    return objective


def answer(objective: ViewObjective, window: Window) -> Term:
    network = network_of(model_of('voxel', 2))
    term = objective(Pass(network, target_of(network), window))
    assert isinstance(term, Term)
    return term


def seen(window: Window, **changed: Any) -> Window:
    """Change all views of the newest sweep."""
    *earlier, newest = window.sweeps
    sightings = tuple(replace(sighting, **changed) for sighting in newest.sightings)
    return replace(window, sweeps=(*earlier, replace(newest, sightings=sightings)))


@pytest.mark.parametrize('loss', ['smooth_l1', 'cosine'])
@pytest.mark.parametrize('direction', ['points_to_image', 'image_to_points'])
def test_the_loss_is_a_mean_over_views(direction: str, loss: str) -> None:
    term = answer(objective_of(direction, loss=loss), window_of(2, views=3))
    assert len(term.prediction) == 3
    expected = {
        'smooth_l1': F.smooth_l1_loss(term.prediction, term.target),
        'cosine': 1 - F.cosine_similarity(term.prediction, term.target).mean(),
    }
    torch.testing.assert_close(term.loss.detach(), expected[loss])


def test_the_target_is_the_normalised_view() -> None:
    window = window_of(2, views=2)
    term = answer(objective_of('points_to_image'), window)
    for row, sighting in zip(term.target, window.sweeps[-1].sightings, strict=True):
        view = sighting.view
        expected = (view - view.mean()) / (view.var(correction=0) + 1e-5).sqrt()
        torch.testing.assert_close(row, expected)


def test_the_target_is_the_normalised_mean_of_what_is_in_view() -> None:
    window = window_of(2)
    network = network_of(model_of('voxel', 2))
    target = target_of(network_of(model_of('voxel', 2), seed=2))
    given = Pass(network, target, window)
    term = objective_of('image_to_points')(given)
    assert term is not None
    centre = given.inputs[-1].patches.centre
    # Ahead is x, and the camera looks from 1 m above the ground.
    u = 0.6 * -centre[:, 1] / centre[:, 0] + 0.5
    v = 0.9 * -(centre[:, 2] - 1) / centre[:, 0] + 0.5
    inside = (centre[:, 0] > 0.1) & (u > 0) & (u < 1) & (v > 0) & (v < 1)
    assert 5 < int(inside.sum()) < len(centre) / 2
    mean = target.encode_window(given.inputs)[-1][0][inside].mean(0)
    torch.testing.assert_close(term.target[0], F.layer_norm(mean, (12,)))


@pytest.mark.parametrize(
    ('position', 'inside'),
    [
        ((10.0, 0.0, 1.0), True),
        ((-10.0, 0.0, 1.0), False),
        ((0.05, 0.0, 1.0), False),
        # Half the image is 0.5 / 0.6 wide at a depth of 1.
        ((10.0, 8.3, 1.0), True),
        ((10.0, 8.4, 1.0), False),
        ((10.0, 0.0, 1 + 5.5), True),
        ((10.0, 0.0, 1 - 5.6), False),
    ],
)
def test_a_frustum_by_hand(position: tuple[float, float, float], inside: bool) -> None:
    (sighting,) = window_of(1).sweeps[0].sightings
    assert in_view(torch.tensor([position]), sighting).tolist() == [inside]


@pytest.mark.parametrize('direction', ['points_to_image', 'image_to_points'])
@pytest.mark.parametrize('name', ['intrinsics', 'shift', 'roll', 'offset_s', 'histogram'])
def test_a_prediction_depends_on_the_camera(direction: str, name: str) -> None:
    window = window_of(2)
    (sighting,) = window.sweeps[-1].sightings
    pose = sighting.camera_from_base
    if name == 'shift':
        name, changed = 'camera_from_base', pose.clone()
        changed[2, 3] += 1
    elif name == 'roll':
        # About the axis ahead, of which it leaves the column as it is.
        name, changed = 'camera_from_base', pose[:, [0, 2, 1, 3]]
    else:
        changed = getattr(sighting, name) * 1.1 + 0.01
    first = answer(objective_of(direction), window).prediction
    second = answer(objective_of(direction), seen(window, **{name: changed})).prediction
    assert not torch.allclose(first, second)


def test_the_histogram_is_told_only_where_it_is_wanted() -> None:
    window = window_of(2)
    objective = objective_of('points_to_image', histogram=False)
    other = seen(window, histogram=torch.zeros(48))
    assert torch.equal(answer(objective, window).prediction, answer(objective, other).prediction)


@pytest.mark.parametrize('name', ['view', 'target'])
@pytest.mark.parametrize('direction', ['points_to_image', 'image_to_points'])
def test_the_target_does_not_enter(direction: str, name: str) -> None:
    window = window_of(2)
    (sighting,) = window.sweeps[-1].sightings
    other = seen(window, **{name: getattr(sighting, name) + 1})
    objective = objective_of(direction)
    assert torch.equal(answer(objective, window).prediction, answer(objective, other).prediction)


def test_the_image_is_the_context_of_the_other_direction() -> None:
    window = window_of(2)
    (sighting,) = window.sweeps[-1].sightings
    assert sighting.patch_map is not None
    objective = objective_of('image_to_points')
    first = answer(objective, window)
    # Where a patch lies counts, not only what it shows.
    moved = answer(objective, seen(window, patch_map=sighting.patch_map.flip(1)))
    assert not torch.allclose(first.prediction, moved.prediction)
    assert first.loss.requires_grad
    network = network_of(model_of('voxel', 2))
    term = objective(Pass(network, target_of(network), window))
    assert term is not None
    term.loss.backward()
    assert all(value.grad is None for value in network.parameters())


def test_a_view_of_nothing_has_no_target() -> None:
    window = window_of(2, views=2)
    *earlier, newest = window.sweeps
    first, second = newest.sightings
    # Looks backwards from far ahead, and up.
    up = torch.tensor([[0.0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, -100], [0, 0, 0, 1]])
    blind: Sighting = replace(first, camera_from_base=up)
    half = replace(window, sweeps=(*earlier, replace(newest, sightings=(blind, second))))
    assert len(answer(objective_of('image_to_points'), half).prediction) == 1
    network = network_of(model_of('voxel', 2))
    none = replace(window, sweeps=(*earlier, replace(newest, sightings=(blind,))))
    assert objective_of('image_to_points')(Pass(network, target_of(network), none)) is None
