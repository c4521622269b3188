# SPDX-License-Identifier: Apache-2.0
"""What the network that learns is kept from, the target encoder sees all the same."""

from __future__ import annotations

from dataclasses import replace

import torch

from offline_training.objectives.ema import target_of
from offline_training.objectives.passes import Pass
from tests.offline_training.objectives.samples import model_of, network_of, window_of

WINDOW = window_of(3)
BLIND = replace(WINDOW, forgotten=frozenset({0}), without_intensity=True, without_poses=True)


def test_the_network_that_learns_is_blinded() -> None:
    given = Pass(network_of(model_of('voxel', 3)), None, BLIND)
    assert given.sweeps == list(WINDOW.sweeps[1:])
    assert [sweep.stamp_ns for sweep in given.inputs] == [s.stamp_ns for s in WINDOW.sweeps[1:]]
    assert all(sweep.intensity is None for sweep in given.inputs)
    assert all(sweep.fixed_from_base is None for sweep in given.inputs)
    assert all(sweep.fixed_from_base is not None for sweep in given.remembered)


def test_the_target_encoder_never_is() -> None:
    network = network_of(model_of('voxel', 3))
    target = target_of(network)
    seen, blind = (Pass(network, target, window) for window in (WINDOW, BLIND))
    for (one, _), (other, _) in zip(seen.target_rows, blind.target_rows, strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(seen.rows[-1][0], blind.rows[-1][0])
