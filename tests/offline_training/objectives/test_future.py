# SPDX-License-Identifier: Apache-2.0
"""A later sweep is foreseen from the earlier ones and its pose; nothing else of it enters."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from cross4d_jepa_ros.sensing.poses import transform_points
from offline_training.objectives import settings
from offline_training.objectives.ema import target_of
from offline_training.objectives.future import QUERIES, FutureObjective, seen_from
from offline_training.objectives.passes import Pass, Term
from offline_training.objectives.predictor import SPEED_M_S, initialise
from offline_training.objectives.window import Window
from tests.model.drives import pose_at
from tests.offline_training.objectives.samples import model_of, network_of, window_of


def given_of(window: Window) -> Pass:
    model = model_of('voxel', 3)
    return Pass(network_of(model), target_of(network_of(model, seed=2)), window)


def foreseen(given: Pass) -> Term | None:
    objective = FutureObjective(settings.Predictor(8, 2, 2), given.network.config)
    initialise(objective, torch.Generator().manual_seed(1))
    term: Term | None = objective(given)
    return term


def test_the_target_is_the_target_encoders_next_row() -> None:
    given = given_of(window_of(3, future=True, points=200))
    term = foreseen(given)
    assert term is not None
    assert given.future is not None
    count = len(given.future.patches.anchor)
    assert count <= QUERIES
    token = given.encode_targets([*given.inputs, given.future])[-1][0]
    torch.testing.assert_close(term.target, F.layer_norm(token, (12,)))
    expected = 1 - F.cosine_similarity(term.prediction, term.target).mean()
    torch.testing.assert_close(term.loss.detach(), expected)


def test_at_most_so_many_are_asked_for() -> None:
    term = foreseen(given_of(window_of(3, future=True, points=2000)))
    assert term is not None
    assert len(term.prediction) == QUERIES


def test_nothing_of_the_future_enters_but_where_it_is_asked() -> None:
    window = window_of(3, future=True)
    future = window.future
    assert future is not None
    draw = torch.Generator().manual_seed(4)
    # Other points in the same voxels, twice as many, and none of the intensities.
    inside = torch.rand(2 * len(future.xyz), 3, generator=draw) * 0.98 + 0.01
    xyz = future.xyz.floor().repeat(2, 1) + inside
    other = replace(future, xyz=xyz, intensity=None, sightings=())
    first, second = (foreseen(given_of(replace(window, future=sweep))) for sweep in (future, other))
    assert first is not None
    assert second is not None
    assert torch.equal(first.prediction, second.prediction)
    assert not torch.allclose(first.target, second.target)


@pytest.mark.parametrize('what', ['pose', 'time', 'past'])
def test_what_does_enter_counts(what: str) -> None:
    window = window_of(3, future=True)
    future = window.future
    assert future is not None
    pose = pose_at(3)
    pose[0, 3] += 1.0
    other = {
        'pose': replace(window, future=replace(future, fixed_from_base=pose)),
        'time': replace(window, future=replace(future, stamp_ns=future.stamp_ns + 10**8)),
        'past': replace(window, sweeps=window.sweeps[1:]),
    }[what]
    first, second = foreseen(given_of(window)), foreseen(given_of(other))
    assert first is not None
    assert second is not None
    assert not torch.allclose(first.prediction, second.prediction)


@pytest.mark.parametrize('gap', ['no future', 'no pose', 'no pose of one', 'empty'])
def test_without_a_future_or_a_pose_there_is_nothing_to_foresee(gap: str) -> None:
    window = window_of(3, future=True)
    future = window.future
    assert future is not None
    blind = replace(window.sweeps[0], fixed_from_base=None)
    lacking = {
        'no future': replace(window, future=None),
        'no pose': replace(window, future=replace(future, fixed_from_base=None)),
        'no pose of one': replace(window, sweeps=(blind, *window.sweeps[1:])),
        'empty': replace(window, future=replace(future, xyz=future.xyz[:0], intensity=None)),
    }[gap]
    assert foreseen(given_of(lacking)) is None


@pytest.mark.parametrize('shift_m', [0.0, 5e5])
def test_tokens_are_placed_where_the_future_sees_them(shift_m: float) -> None:
    given = given_of(window_of(3, future=True))
    assert given.future is not None
    past = replace(given.inputs[0], fixed_from_base=pose_at(0, shift_m))
    future = replace(given.future, fixed_from_base=pose_at(3, shift_m))
    place = seen_from(future, past)
    assert place is not None
    motion = np.linalg.inv(pose_at(3)) @ pose_at(0)
    expected = transform_points(motion, past.patches.centre.numpy())
    np.testing.assert_allclose(place[:, :3].numpy(), expected, atol=1e-5)
    # Three sweeps of 0.1 s ago.
    np.testing.assert_allclose(place[:, 3].numpy(), 0.3 * SPEED_M_S, atol=1e-5)
