# SPDX-License-Identifier: Apache-2.0
"""Points are compared with the target of their own pixel, by their weight."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from offline_training.objectives.dense_correspondence import DenseObjective, answering_rows
from offline_training.objectives.passes import Pass
from offline_training.objectives.window import Sighting, Window
from tests.offline_training.objectives.samples import model_of, network_of, window_of


def asked_by_hand(given: Pass) -> torch.Tensor:
    """One point at a time."""
    total, weights = 0.0, 0.0
    network = given.network
    assert network.teacher_space is not None
    for sweep, seen, (_, embedding) in zip(
        given.window.sweeps, given.inputs, given.rows, strict=True
    ):
        patches = seen.patches
        answers = patches.spread(embedding)
        for sighting in sweep.sightings:
            for point, target, weight in zip(
                sighting.point.tolist(), sighting.target, sighting.weight, strict=True
            ):
                if point not in patches.point.tolist():
                    continue
                said = network.teacher_space(answers[patches.point.tolist().index(point)])
                cosine = said @ target / (said.norm() * target.norm()).clamp_min(1e-8)
                total = total + weight * (1 - cosine)
                weights = weights + weight
    return total / weights


@pytest.mark.parametrize(
    'changed', [{}, {'range_m': 4.0}, {'max_points': 40}, {'max_points': 60, 'max_tokens': 30}]
)
@pytest.mark.parametrize('tokenizer', ['voxel', 'fps_knn'])
def test_the_loss_is_a_weighted_mean_over_points(tokenizer: str, changed: dict[str, float]) -> None:
    network = network_of(replace(model_of(tokenizer, 2), **changed))
    given = Pass(network, None, window_of(2, views=2, points=80))
    term = DenseObjective()(given)
    assert term is not None
    torch.testing.assert_close(term.loss, asked_by_hand(given))
    seen = len(torch.cat([sweep.patches.point for sweep in given.inputs]))
    assert (seen < 160) == ('range_m' in changed)


def test_rows_by_hand() -> None:
    network = network_of(model_of('voxel', 1, max_points=2, max_tokens=2))
    # Two points in one voxel, a third in another; the second is out of range.
    xyz = torch.tensor([[0.2, 0.2, 0.2], [90.0, 0, 0], [0.21, 0.2, 0.2], [5.5, 0.5, 0.5]])
    patches = network.tokenizer.group(xyz)
    row = answering_rows(patches, 4)
    assert row[1] == -1
    assert row[0] == row[2]
    assert row[3] != row[0]
    assert sorted(set(row.tolist())) == [-1, 0, 1]


def sole(sighting: Sighting, weight: float) -> Sighting:
    """Keep one point, of that weight and with a target along the first axis."""
    target = torch.zeros(1, sighting.target.shape[1])
    target[0, 0] = 5.0
    return replace(sighting, point=sighting.point[:1], target=target, weight=torch.tensor([weight]))


def test_a_sighting_by_hand() -> None:
    network = network_of(model_of('voxel', 1))
    head = network.teacher_space
    assert head is not None
    with torch.no_grad():
        head.out.weight.zero_()
        head.out.bias.copy_(torch.tensor([3.0, 4.0, 0, 0, 0]))
    window = window_of(1, views=2)
    (sweep,) = window.sweeps
    first, second = sweep.sightings
    away = sole(second, 0.3)
    away = replace(away, target=-away.target)

    def loss(*sightings: Sighting) -> float:
        given = replace(sweep, sightings=sightings)
        term = DenseObjective()(Pass(network, None, Window((given,), None, 0)))
        assert term is not None
        return term.loss.item()

    # The head says (3, 4) / 5 of every point.
    assert loss(sole(first, 0.9)) == pytest.approx(1 - 0.6)
    assert loss(sole(first, 0.9), away) == pytest.approx((0.9 * 0.4 + 0.3 * 1.6) / 1.2)
