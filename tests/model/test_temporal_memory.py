# SPDX-License-Identifier: Apache-2.0
"""One sweep at a time gives the numbers of the whole window, and nothing older counts."""

from __future__ import annotations

import resource
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cross4d_jepa_ros.model.config import BadConfig, ModelConfig
from cross4d_jepa_ros.model.live_memory import LiveMemory
from cross4d_jepa_ros.model.neighbours import NeighbourLookup
from cross4d_jepa_ros.model.network import SweepInput
from cross4d_jepa_ros.model.temporal_memory import Remembered, relative_pose
from tests.model.drives import (
    PERIOD_NS,
    network_of,
    pose_at,
    remembering,
    seen_from,
    stepped,
    sweep_at,
)

RESET_AT = 23


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


def difference(one: tuple[torch.Tensor, ...], other: tuple[torch.Tensor, ...]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('sweeps', [2, 4, 8])
def test_a_stream_equals_its_windows(config: ModelConfig, sweeps: int, stride: int) -> None:
    network = network_of(remembering(config, sweeps, sweep_stride=stride))
    memory = LiveMemory(network.config)
    far_memory = LiveMemory(network.config)
    single, first, worst, worst_far = 0.0, 0, 0.0, 0.0
    for step in range(50):
        if step == RESET_AT:
            memory.clear()
            far_memory.clear()
            first = step
        live = stepped(network, memory, sweep_at(network, step))
        far = stepped(network, far_memory, sweep_at(network, step, shift_m=5e5))
        steps = range(step, max(first, step - (sweeps - 1) * stride) - 1, -stride)
        window = [sweep_at(network, s) for s in reversed(steps)]
        whole = network.forward_window(window)[-1]
        worst = max(worst, difference(live, whole))
        worst_far = max(worst_far, difference(far, whole))
        single = max(single, difference(live, network.forward_window(window[-1:])[-1]))
    assert worst <= 1e-5
    assert worst_far <= 1e-4
    assert single > 0.1  # the memory is read


def test_a_window_is_causal_and_as_long_as_it_says(config: ModelConfig) -> None:
    network = network_of(remembering(config, 3))
    window = [sweep_at(network, step) for step in range(6)]
    whole = network.forward_window(window)
    for changed, touched in ((5, {5}), (2, {2, 3, 4}), (0, {0, 1, 2})):
        other = list(window)
        other[changed] = sweep_at(network, changed, seed=99)
        rows = network.forward_window(other)
        same = {t for t in range(6) if t != changed and difference(rows[t], whole[t]) == 0}
        assert same == set(range(6)) - touched


def test_the_order_of_the_points_changes_nothing_but_the_order(config: ModelConfig) -> None:
    network = network_of(remembering(config, 4))
    order = torch.randperm(600, generator=torch.Generator().manual_seed(0))
    memory, shuffled = LiveMemory(network.config), LiveMemory(network.config)
    for step in range(6):
        sweep = sweep_at(network, step)
        patches = network.tokenizer.group(seen_from(pose_at(step), step)[order])
        assert sweep.intensity is not None
        assert sweep.rgb is not None
        token, embedding = stepped(network, memory, sweep)
        other = SweepInput(
            patches, sweep.intensity[order], sweep.rgb[order], sweep.stamp_ns, sweep.fixed_from_base
        )
        other_token, other_embedding = stepped(network, shuffled, other)
        torch.testing.assert_close(other_token, token, atol=1e-5, rtol=0)
        torch.testing.assert_close(other_embedding, embedding[order], atol=1e-5, rtol=0)


def test_a_vehicle_that_stands_remembers_alike_everywhere(config: ModelConfig) -> None:
    # All distances tie: only their order may decide, not the rounding of far poses.
    network = network_of(remembering(config, 4))
    answers = []
    for shift_m in (0.0, 5e5, 123456.7):
        memory = LiveMemory(network.config)
        turned = pose_at(7, shift_m)
        for step in range(6):
            sweep = replace(sweep_at(network, 3, seed=step % 2), stamp_ns=step * PERIOD_NS)
            answer = stepped(network, memory, replace(sweep, fixed_from_base=turned))
        answers.append(answer)
    assert difference(answers[0], answers[1]) <= 1e-5
    assert difference(answers[0], answers[2]) <= 1e-5


def lookup(
    config: ModelConfig, query: torch.Tensor, remembered: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    index, found = NeighbourLookup(config)(query.T.double(), remembered.T.double())
    return index, found


def test_neighbours_are_the_nearest_within_the_radius(config: ModelConfig) -> None:
    config = remembering(config, 2, neighbours=5, neighbour_radius_m=1.5)
    draw = torch.Generator().manual_seed(0)
    query = torch.rand(40, 3, generator=draw) * 12 - 6
    remembered = torch.rand(120, 3, generator=draw) * 12 - 6
    index, found = lookup(config, query, remembered)
    distance = torch.cdist(query, remembered)
    for row in range(40):
        near = (distance[row] <= 1.5).nonzero().squeeze(1)
        wanted = near[distance[row, near].argsort()][:5]
        assert set(index[row, found[row]].tolist()) == set(wanted.tolist())
    assert 0 < found.float().mean() < 1


def test_a_crowd_of_neighbours_is_thinned_evenly(config: ModelConfig) -> None:
    config = remembering(config, 2, neighbours=4, neighbour_radius_m=1.5)
    # 30 sweeps with the same token: what is looked at is spread over all of them.
    remembered = torch.tensor([[0.5, 0.5, 0.5]]).repeat(30, 1)
    index, found = lookup(config, torch.tensor([[0.5, 0.5, 0.5]]), remembered)
    assert found.all()
    assert sorted(index[0].tolist()) == [0, 7, 15, 22]


def test_of_equally_near_neighbours_the_first_count(config: ModelConfig) -> None:
    config = remembering(config, 2, neighbours=2, neighbour_radius_m=1.5)
    remembered = torch.tensor([[1.5, 0.5, 0.5], [0.5, 1.5, 0.5], [0.5, 0.5, 1.5], [0.5, 0.5, 0.5]])
    first, _ = lookup(config, torch.tensor([[0.5, 0.5, 0.5]]), remembered)
    nudged, _ = lookup(config, torch.tensor([[0.5, 0.5, 0.5]]), remembered + 1e-9)
    assert 3 in first[0].tolist()
    assert sorted(first[0].tolist()) == sorted(nudged[0].tolist())


def test_without_poses_only_the_latents_are_read(config: ModelConfig) -> None:
    network = network_of(remembering(config, 4))
    assert network.temporal is not None
    window = [sweep_at(network, step, posed=False) for step in range(4)]
    blind = network.forward_window(window)[-1]
    alone = network.forward_window(window[-1:])[-1]
    posed = network.forward_window([sweep_at(network, step) for step in range(4)])[-1]
    assert difference(blind, alone) > 1e-3
    assert difference(blind, posed) > 1e-3
    # What the latents cannot tell apart changes nothing: the order of the tokens, their places.
    lost = [*(sweep_at(network, step) for step in range(3)), window[-1]]
    assert difference(network.forward_window(lost)[-1], blind) == 0


def test_an_empty_sweep_is_remembered_and_reads(config: ModelConfig) -> None:
    network = network_of(remembering(config, 3))
    patches = network.tokenizer.group(torch.full((5, 3), torch.nan))
    empty = SweepInput(patches, torch.zeros(0), torch.zeros(0, 4), PERIOD_NS, pose_at(1))
    window = [sweep_at(network, 0), empty, sweep_at(network, 2)]
    rows = network.forward_window(window)
    assert rows[1][0].shape == (0, config.width)
    assert all(row.isfinite().all() for row in rows[2])


class WatchedMemory(LiveMemory):
    """Knows all that was ever put into it, and what of that still exists."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.added: list[weakref.ref[Remembered]] = []

    def add(self, sweep: Remembered) -> None:
        self.added.append(weakref.ref(sweep))
        super().add(sweep)


def resident_mb() -> float:
    return int(Path('/proc/self/statm').read_text().split()[1]) * resource.getpagesize() / 1e6


def test_ten_thousand_steps_leave_nothing_behind(config: ModelConfig) -> None:
    network = network_of(remembering(config, 4, sweep_stride=2))
    memory = WatchedMemory(network.config)
    patches = network.tokenizer.group(seen_from(pose_at(0), 0, points=12))
    sweep = SweepInput(patches, torch.zeros(12), torch.zeros(12, 4), 0, np.eye(4))
    used_mb = []
    for step in range(10_000):
        stepped(network, memory, replace(sweep, stamp_ns=step * PERIOD_NS))
        if step in (2000, 9999):
            used_mb.append(resident_mb())
    assert len(memory) == 3
    assert sum(sweep() is not None for sweep in memory.added) == 6
    assert used_mb[1] - used_mb[0] < 3


def test_relative_poses_are_exact_far_away() -> None:
    near = relative_pose(pose_at(3), pose_at(1))
    far = relative_pose(pose_at(3, 5e5), pose_at(1, 5e5))
    np.testing.assert_allclose(far, near, atol=1e-9)
    np.testing.assert_allclose(near, np.linalg.inv(pose_at(3)) @ pose_at(1), atol=1e-12)


def turned(angle: float, metres: float) -> np.ndarray:
    pose = np.eye(4)
    pose[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    pose[0, 3] = metres
    return pose


@pytest.mark.parametrize(
    ('stamp_ns', 'frame_id', 'pose', 'word'),
    [
        (PERIOD_NS, 'lidar', turned(0.1, 3.0), ''),
        (900_000_000, 'lidar', turned(0.5, 30.0), ''),
        (PERIOD_NS, 'lidar', None, ''),
        (0, 'lidar', turned(0, 0), 'two sweeps have the stamp 0 ns'),
        (-PERIOD_NS, 'lidar', turned(0, 0), 'went back by 0.100 s'),
        (1_100_000_000, 'lidar', turned(0, 0), '1.10 s without a sweep'),
        (PERIOD_NS, 'other', turned(0, 0), "'lidar' to 'other'"),
        (PERIOD_NS, 'lidar', turned(0, 20.0), 'jumped by 20.0 m'),
        (PERIOD_NS, 'lidar', turned(np.pi, 0.0), 'turned by 180 degrees'),
    ],
)
def test_a_broken_stream_is_forgotten(
    config: ModelConfig, stamp_ns: int, frame_id: str, pose: np.ndarray | None, word: str
) -> None:
    memory = LiveMemory(remembering(config, 3))
    assert memory.follow(0, 'lidar', np.eye(4)) == ''
    memory.add(Remembered(0, np.eye(4), torch.zeros(4, 2, 0), (), ()))
    reason = memory.follow(stamp_ns, frame_id, pose)
    assert word in reason
    assert bool(reason) == bool(word)
    assert len(memory) == (0 if word else 1)


@pytest.mark.parametrize(
    ('change', 'word'),
    [
        ({'sweeps': 1}, 'neighbours is 4'),
        ({'neighbours': 0}, 'neighbours'),
        ({'neighbours': 40}, 'neighbours is 40'),
        ({'latents': 0}, 'latents'),
        ({'temporal_blocks': 0}, 'temporal_blocks'),
        ({'neighbour_radius_m': 0.03}, 'neighbour_radius_m 0.03 is less than 1/500 of range_m'),
        ({'tokenizer': 'octree'}, "tokenizer is 'octree'"),
        ({'patch_points': 32}, 'patch_points'),
        ({'tokenizer': 'fps_knn'}, 'max_tokens is 2000'),
    ],
)
def test_sizes_that_cannot_remember_are_refused(
    config: ModelConfig, change: dict[str, object], word: str
) -> None:
    with pytest.raises(BadConfig, match=word):
        replace(remembering(config, 4), **change)  # type: ignore[arg-type]
