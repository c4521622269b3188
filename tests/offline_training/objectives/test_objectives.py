# SPDX-License-Identifier: Apache-2.0
"""What all objectives promise: gradients where they belong, the same draws, nothing in vain."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cross4d_jepa_ros.model.network import Network
from offline_training.objectives.build import build
from offline_training.objectives.ema import target_of
from offline_training.objectives.latent_view import in_camera
from offline_training.objectives.passes import WATCHED_ROWS, Pass, Term, term
from offline_training.objectives.settings import Objectives
from offline_training.objectives.window import Window, WindowSweep
from tests.offline_training.objectives.samples import (
    PATCH_CHANNELS,
    VIEW_CHANNELS,
    empty_sweep,
    model_of,
    network_of,
    objectives_of,
    window_of,
)

DENSE: dict[str, Any] = {'dense_correspondence': {'weight': 1}}
FORESEEN = {'dense_correspondence': {'weight': 1, 'horizon': 1, 'horizon_weight': 1}}
VIEW = {'latent_view': {'weight': 1, 'histogram': True}}
BACKWARDS = {'latent_view': {'weight': 1, 'direction': 'image_to_points', 'loss': 'cosine'}}
VISIBLE = {'masked_latent': {'weight': 1, 'variance_weight': 0.1}}
PREDICT = {'masked_latent': {'weight': 1, 'mode': 'predict'}}
DESCRIBED = {
    'masked_latent': {
        'weight': 1,
        'mode': 'predict',
        'predictor': 'concatenated',
        'target_tokens': 'hidden',
        'loss': 'l2',
    }
}
PRESETS = {
    '3d_jepa': VISIBLE,
    '3d_jepa_paper': PREDICT,
    '3d_jepa_described': DESCRIBED,
    'crossjepa': VIEW,
    'crossjepa_described': BACKWARDS | DESCRIBED,
    'cross4d_jepa': DENSE,
    'cross4d_jepa_described': FORESEEN,
    'combined': FORESEEN | VIEW | VISIBLE,
}
# Which parts of the network nothing is asked of.
UNASKED = {
    '3d_jepa': ('decoder', 'teacher_space'),
    '3d_jepa_paper': ('decoder', 'teacher_space'),
    '3d_jepa_described': ('decoder', 'teacher_space'),
    'crossjepa': ('decoder', 'teacher_space'),
    'crossjepa_described': ('decoder', 'teacher_space'),
}


def built(settings: Objectives, network: Network) -> nn.ModuleDict:
    generator = torch.Generator().manual_seed(5)
    return build(settings, network.config, PATCH_CHANNELS, VIEW_CHANNELS, generator)


def asked(
    settings: Objectives, network: Network, window: Window, target: Network | None = None
) -> dict[str, Term | None]:
    target = target or target_of(network)
    given = Pass(network, target if settings.needs_target_encoder else None, window)
    return {name: objective(given) for name, objective in built(settings, network).items()}


@pytest.mark.parametrize('sweeps', [1, 3])
@pytest.mark.parametrize('tokenizer', ['voxel', 'fps_knn'])
@pytest.mark.parametrize('preset', PRESETS)
def test_gradients_reach_what_learns_and_nothing_else(
    preset: str, tokenizer: str, sweeps: int
) -> None:
    settings = objectives_of(**PRESETS[preset])
    network = network_of(model_of(tokenizer, sweeps))
    target = target_of(network)
    objectives = built(settings, network)
    window = window_of(sweeps, future=True)
    frozen: list[Tensor] = []
    for sweep in window.sweeps:
        for sighting in sweep.sightings:
            frozen += [sighting.target.requires_grad_(), sighting.view.requires_grad_()]
    given = Pass(network, target if settings.needs_target_encoder else None, window)
    terms = {name: objective(given) for name, objective in objectives.items()}
    assert set(terms) == set(settings.weights)
    for one in terms.values():
        assert one is not None
        assert one.loss.shape == ()
        assert one.loss.isfinite()
        assert one.prediction.shape == one.target.shape
        assert not one.prediction.requires_grad
        assert not one.target.requires_grad
    torch.stack([one.loss for one in terms.values()]).sum().backward()
    for name, value in [*network.named_parameters(), *objectives.named_parameters()]:
        if name.split('.')[0] in UNASKED.get(preset, ()):
            assert value.grad is None, name
        else:
            assert value.grad is not None, name
            # What all scores have in common leaves a softmax as it is.
            assert value.grad.abs().sum() > 0 or name.endswith('score.bias'), name
    assert all(value.grad is None for value in target.parameters())
    assert all(value.grad is None for value in frozen)


@pytest.mark.parametrize('preset', PRESETS)
def test_the_seed_decides_all_draws(preset: str) -> None:
    settings = objectives_of(**PRESETS[preset])
    network = network_of(model_of('voxel', 2))
    # More voxels than are asked for at a time.
    window = window_of(2, future=True, points=1500)
    first, again, other = (
        asked(settings, network, replace(window, seed=seed)) for seed in (3, 3, 4)
    )
    for name, one in first.items():
        two, three = again[name], other[name]
        assert one is not None
        assert two is not None
        assert three is not None
        assert torch.equal(one.loss, two.loss)
        assert torch.equal(one.prediction, two.prediction)
        drawn = name in ('masked_latent', 'future')
        assert torch.equal(one.loss, three.loss) != drawn, name


@pytest.mark.parametrize('preset', PRESETS)
@pytest.mark.parametrize('gap', ['no views', 'no points', 'newest empty', 'earlier empty'])
def test_a_sample_may_have_nothing_for_an_objective(preset: str, gap: str) -> None:
    settings = objectives_of(**PRESETS[preset])
    network = network_of(model_of('voxel', 3))
    window = window_of(3, future=True)
    assert window.future is not None

    def changed(sweep: WindowSweep, number: int) -> WindowSweep:
        if gap == 'no views':
            return replace(sweep, sightings=())
        empty = {'no points': (0, 1, 2), 'newest empty': (2,), 'earlier empty': (0, 1)}[gap]
        return empty_sweep(sweep) if number in empty else sweep

    sweeps = tuple(changed(sweep, number) for number, sweep in enumerate(window.sweeps))
    terms = asked(settings, network, replace(window, sweeps=sweeps))
    lacking = {
        'no views': {'dense_correspondence', 'latent_view'},
        'no points': set(terms),
        'newest empty': {'latent_view', 'masked_latent'},
        'earlier empty': set(),
    }[gap]
    for name, one in terms.items():
        assert (one is None) == (name in lacking), name
        if one is not None:
            one.loss.backward(retain_graph=True)
            assert one.loss.isfinite()
    assert all(v.grad.isfinite().all() for v in network.parameters() if v.grad is not None)


class Refusing(Network):
    """Fails when it is asked anything."""

    def encode_window(self, sweeps: object) -> list[tuple[Tensor, Tensor]]:
        raise AssertionError(sweeps)


def test_nothing_is_computed_that_nobody_asks_for() -> None:
    network = network_of(model_of('voxel', 1))
    silent = Refusing(network.config, 0)
    window = window_of(1, future=True)
    given = Pass(network, silent, window)
    objectives = built(objectives_of(**DENSE | VIEW), network)
    assert all(objective(given) is not None for objective in objectives.values())
    assert 'target_rows' not in vars(given)
    assert 'future' not in vars(given)
    # A masked context is another window: the whole one is not encoded for it.
    given = Pass(network, target_of(network), window_of(1))
    assert built(objectives_of(**VISIBLE), network)['masked_latent'](given) is not None
    assert 'encoded' not in vars(given)
    assert 'target_rows' in vars(given)


@pytest.mark.parametrize('preset', ['combined', '3d_jepa_described', 'crossjepa_described'])
def test_less_precision_changes_little(preset: str) -> None:
    settings = objectives_of(**PRESETS[preset])
    network = network_of(model_of('voxel', 3))
    window = window_of(3, future=True)
    exact = asked(settings, network, window)
    with torch.autocast('cpu', torch.bfloat16):
        rough = asked(settings, network, window)
    for name, one in exact.items():
        other = rough[name]
        assert one is not None
        assert other is not None
        torch.testing.assert_close(other.loss, one.loss, atol=0.01, rtol=0.02)
        assert other.loss.dtype == other.prediction.dtype == other.target.dtype == torch.float32


def test_places_in_a_camera_stay_exact() -> None:
    window = window_of(1)
    (sweep,) = window.sweeps
    exact = in_camera(sweep.xyz, sweep.sightings[0])
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(in_camera(sweep.xyz, sweep.sightings[0]), exact)


def test_the_watch_is_shown_rows_from_all_over() -> None:
    rows = torch.arange(3000.0)[:, None]
    shown = term(torch.zeros(()), rows, rows + 1)
    assert len(shown.prediction) <= WATCHED_ROWS
    assert shown.prediction[:2].tolist() == [[0.0], [3.0]]
    assert shown.prediction[-1] > 2990
    assert torch.equal(shown.target, shown.prediction + 1)


def test_a_whole_window_is_that_of_the_network() -> None:
    network = network_of(model_of('voxel', 2))
    given = Pass(network, None, window_of(2))
    for one, other in zip(given.rows, network.forward_window(given.inputs), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
