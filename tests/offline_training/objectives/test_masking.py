# SPDX-License-Identifier: Apache-2.0
"""Blocks are contiguous and as large as they say, and hide what they hide in all sweeps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from cross4d_jepa_ros.model.config import ModelConfig
from cross4d_jepa_ros.model.network import Network, SweepInput
from cross4d_jepa_ros.model.temporal_memory import relative_pose
from offline_training.objectives.masking import Blocks, draw_blocks, part_of, visible_window
from offline_training.objectives.passes import Pass
from tests.offline_training.objectives.samples import (
    model_of,
    network_of,
    window_of,
)

TOKENIZERS = ('voxel', 'fps_knn')
# Fewer tokens than voxels, fewer points than there are: patches reach beyond their voxels.
CAPPED = {'max_tokens': 60, 'max_points': 300}
ALL = (1.0, 1.0)


def drive(tokenizer: str, sweeps: int, **changed: object) -> tuple[Network, list[SweepInput]]:
    network = network_of(model_of(tokenizer, sweeps, **changed))
    return network, Pass(network, None, window_of(sweeps)).inputs


def blocks_of(
    sweep: SweepInput, model: ModelConfig, count: int = 4, ratio: float = 0.6, seed: int = 0
) -> Blocks:
    draw = torch.Generator().manual_seed(seed)
    blocks = draw_blocks(sweep.patches, model, count, ratio, draw)
    assert blocks is not None
    return blocks


@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize(('count', 'ratio'), [(1, 0.3), (4, 0.6), (7, 0.9)])
@pytest.mark.parametrize('tokenizer', TOKENIZERS)
def test_blocks_cover_the_ratio_and_are_contiguous(
    tokenizer: str, count: int, ratio: float, seed: int
) -> None:
    network, (sweep,) = drive(tokenizer, 1)
    blocks = blocks_of(sweep, network.config, count, ratio, seed)
    patches = len(sweep.patches.anchor)
    assert int(blocks.hidden.sum()) == round(ratio * patches)
    sizes = torch.bincount(blocks.block[blocks.hidden], minlength=count)
    assert int(sizes.max() - sizes.min()) <= 1
    axes = 2 if tokenizer == 'voxel' else 3
    assert blocks.seed.shape == (count, axes)
    for number, seed_place in enumerate(blocks.seed):
        gap = (sweep.patches.anchor[:, :axes] - seed_place).norm(dim=1)
        own = blocks.block == number
        # All that is nearer than the farthest of the block is hidden, by it or one before it.
        later = (blocks.block < 0) | (blocks.block > number)
        assert gap[own].min() == 0
        assert gap[own].max() <= gap[later].min() + 1e-9
        assert gap[own].max() <= blocks.reach_m[number]


def test_a_block_by_hand() -> None:
    # Voxels of 1 m in a row along x: seven, and a column of three above the last.
    model = model_of('voxel', 1)
    network = network_of(model)
    xyz = torch.tensor(
        [[x + 0.5, 0.5, 0.5] for x in range(7)] + [[6.5, 0.5, z] for z in (1.5, 2.5)]
    )
    patches = network.tokenizer.group(xyz)
    found = []
    for seed in range(140):
        blocks = draw_blocks(patches, model, 1, 0.33, torch.Generator().manual_seed(seed))
        assert blocks is not None
        hidden = patches.anchor[blocks.hidden, 0].tolist()
        start = float(blocks.seed[0, 0])
        found.append(start)
        expected = {0.5: [0.5, 1.5, 2.5], 6.5: [6.5, 6.5, 6.5]}
        assert hidden == expected.get(start, [start - 1, start, start + 1])
        farthest = max(abs(x - start) for x in hidden)
        assert float(blocks.reach_m[0]) == pytest.approx(farthest + 3**0.5)
    # Columns are equally likely, whatever stands in them.
    counts = [found.count(x + 0.5) for x in range(7)]
    assert min(counts) > 10
    assert max(counts) < 32


@pytest.mark.parametrize('points', [0, 1])
def test_too_little_to_hide_from_is_left_alone(points: int) -> None:
    model = model_of('voxel', 1)
    patches = network_of(model).tokenizer.group(torch.zeros(points, 3))
    assert draw_blocks(patches, model, 4, 0.6, torch.Generator().manual_seed(0)) is None


@pytest.mark.parametrize('tokenizer', TOKENIZERS)
def test_the_seed_decides(tokenizer: str) -> None:
    network, (sweep,) = drive(tokenizer, 1)
    first, again = (blocks_of(sweep, network.config, seed=5) for _ in range(2))
    assert torch.equal(first.block, again.block)
    assert not torch.equal(first.block, blocks_of(sweep, network.config, seed=6).block)


def in_newest(sweep: SweepInput, newest: SweepInput, position: Tensor) -> Tensor:
    assert newest.fixed_from_base is not None
    assert sweep.fixed_from_base is not None
    motion = torch.from_numpy(relative_pose(newest.fixed_from_base, sweep.fixed_from_base))
    return position.double() @ motion[:3, :3].T + motion[:3, 3]


@pytest.mark.parametrize('seed', range(4))
def test_nothing_of_a_hidden_column_is_left_in_any_sweep(seed: int) -> None:
    network, inputs = drive('voxel', 4)
    newest = inputs[-1]
    blocks = blocks_of(newest, network.config, seed=seed)
    parts = visible_window(inputs, blocks, ALL, torch.Generator())
    columns = {tuple(cell) for cell in newest.patches.cell[blocks.hidden, :2].tolist()}
    seen = {tuple(cell) for cell in newest.patches.cell[~blocks.hidden, :2].tolist()}
    hit = 0
    for sweep, part in zip(inputs[:-1], parts[:-1], strict=True):
        for given, may in ((sweep, True), (part.sweep, False)):
            place = in_newest(sweep, newest, given.patches.xyz)
            cell = (place[:, :2] / network.config.voxel_m).floor().long()
            cell += network.tokenizer.grouping.origin_cell  # type: ignore[union-attr]
            left = columns.intersection(tuple(row) for row in cell.tolist()) - seen
            hit += len(left) if may else 0
            assert may or not left
        assert 0 < len(part.token) < len(sweep.patches.anchor)
    assert hit > 0


def capped(tokenizer: str, caps: dict[str, int]) -> dict[str, int]:
    """Centres are no cap: there are always as many."""
    return {k: v for k, v in caps.items() if tokenizer == 'voxel' or k == 'max_points'}


@pytest.mark.parametrize('caps', [{}, CAPPED])
@pytest.mark.parametrize('tokenizer', TOKENIZERS)
def test_no_point_is_left_within_reach_of_a_block(tokenizer: str, caps: dict[str, int]) -> None:
    network, inputs = drive(tokenizer, 4, **capped(tokenizer, caps))
    newest = inputs[-1]
    blocks = blocks_of(newest, network.config, 3, 0.4)
    axes = blocks.seed.shape[1]
    for sweep, part in zip(
        inputs[:-1], visible_window(inputs, blocks, ALL, torch.Generator())[:-1], strict=True
    ):
        place = in_newest(sweep, newest, part.sweep.patches.xyz)[:, :axes]
        anchor = in_newest(sweep, newest, part.sweep.patches.anchor)[:, :axes]
        assert len(place)
        for number, seed in enumerate(blocks.seed):
            own = newest.patches.anchor[blocks.block == number, :axes]
            reach = (own - seed).norm(dim=1).max() + 3**0.5 * network.config.voxel_m
            assert (place - seed).norm(dim=1).min() > reach
            assert (anchor - seed).norm(dim=1).min() > reach


@pytest.mark.parametrize('caps', [{}, CAPPED])
@pytest.mark.parametrize('tokenizer', TOKENIZERS)
def test_a_point_that_is_hidden_now_was_hidden_before(tokenizer: str, caps: dict[str, int]) -> None:
    network = network_of(model_of(tokenizer, 3, **capped(tokenizer, caps)))
    window = window_of(3)
    # The same points seen from the same place, but for some that make other patches.
    draw = torch.Generator().manual_seed(7)
    last = window.sweeps[-1]
    thinned = [(torch.rand(600, generator=draw) < 0.7).nonzero().squeeze(1) for _ in range(2)]
    earlier = [replace(last, xyz=last.xyz[rows], intensity=None) for rows in thinned]
    inputs = Pass(network, None, replace(window, sweeps=(*earlier, last))).inputs
    assert bool(inputs[-1].patches.capped_points) == bool(caps)
    for seed in range(5):
        blocks = blocks_of(inputs[-1], network.config, 2, 0.2, seed)
        *before, newest = visible_window(inputs, blocks, ALL, torch.Generator())
        owner = inputs[-1].patches.patch_of_kept
        visible = set(newest.sweep.patches.point.tolist())
        hidden = set(inputs[-1].patches.kept_point[blocks.hidden[owner]].tolist())
        assert visible.isdisjoint(hidden)
        assert visible | hidden == set(inputs[-1].patches.kept_point.tolist())
        for part, rows in zip(before, thinned, strict=True):
            left = rows[part.sweep.patches.point].tolist()
            assert left
            assert hidden.isdisjoint(left)


def garbled(sweep: SweepInput, part_points: Tensor, place: Tensor, lost: Tensor) -> SweepInput:
    """Move points that no part has to a place, and spoil what they say and average to."""
    patches = sweep.patches
    gone = ~torch.isin(patches.kept_point, part_points)  # (L,)
    assert gone.any()
    assert sweep.intensity is not None
    xyz = torch.where(gone[:, None], place.float(), patches.xyz)  # (L, 3)
    centre = torch.where(lost[:, None], 1e3, patches.centre)  # (M, 3)
    intensity = torch.where(gone, 1e3, sweep.intensity)  # (L,)
    return replace(sweep, intensity=intensity, patches=replace(patches, xyz=xyz, centre=centre))


def lost_points(sweep: SweepInput, kept: Tensor) -> Tensor:
    """Patches that have a point which no part has, (M,)."""
    patches = sweep.patches
    gone = ~torch.isin(patches.kept_point, kept)  # (L,)
    rows, owner = patches.member, patches.patch_of_member
    if rows is None or owner is None:
        rows, owner = torch.arange(len(gone)), patches.patch_of_kept
    lost = torch.zeros(len(patches.anchor), dtype=torch.bool)
    lost[owner[gone[rows]]] = True
    return lost


@pytest.mark.parametrize('caps', [{}, CAPPED])
@pytest.mark.parametrize('posed', [True, False])
@pytest.mark.parametrize('tokenizer', TOKENIZERS)
def test_no_hidden_point_reaches_the_context(
    tokenizer: str, posed: bool, caps: dict[str, int]
) -> None:
    network = network_of(model_of(tokenizer, 3, **capped(tokenizer, caps))).eval()
    inputs = Pass(network, None, window_of(3, posed=posed)).inputs
    blocks = blocks_of(inputs[-1], network.config, 3, 0.4)
    parts = visible_window(inputs, blocks, ALL, torch.Generator())
    spoilt = []
    for sweep, part in zip(inputs, parts, strict=True):
        # In the middle of a block, wherever the earlier sweep was taken from.
        seed = torch.nn.functional.pad(blocks.seed[0], (0, 3 - blocks.seed.shape[1]))
        if posed:
            assert sweep.fixed_from_base is not None
            assert inputs[-1].fixed_from_base is not None
            back = relative_pose(sweep.fixed_from_base, inputs[-1].fixed_from_base)
            seed = torch.from_numpy(back[:3, :3] @ seed.numpy() + back[:3, 3])
        left = part.sweep.patches.point
        spoilt.append(garbled(sweep, left, seed, lost_points(sweep, left)))
    with torch.inference_mode():
        rows = network.encode_window([part.sweep for part in parts])
        others = visible_window(spoilt, blocks, ALL, torch.Generator())
        for row, other in zip(
            rows, network.encode_window([part.sweep for part in others]), strict=True
        ):
            assert torch.equal(row[0], other[0])
            assert row[0].isfinite().all()
        whole, bad = (network.encode_window(sweeps)[-1][0] for sweeps in (inputs, spoilt))
        assert not torch.allclose(whole, bad, atol=1e-2)
        # And the memory of what stays is read.
        alone = network.encode_window([parts[-1].sweep])[-1][0]
        assert not torch.allclose(alone, rows[-1][0])


def test_a_perturbed_recording_gives_the_same_context() -> None:
    network = network_of(model_of('voxel', 3)).eval()
    window = window_of(3)
    given = Pass(network, None, window)
    blocks = blocks_of(given.inputs[-1], network.config)
    parts = visible_window(given.inputs, blocks, ALL, torch.Generator())
    draw = torch.Generator().manual_seed(9)
    sweeps = []
    for sweep, seen in zip(window.sweeps, given.inputs, strict=True):
        hidden = blocks.cover(in_newest(seen, given.inputs[-1], seen.patches.anchor))
        if seen is given.inputs[-1]:
            hidden = blocks.hidden
        gone = seen.patches.point[hidden[seen.patches.patch_of_point]]
        assert len(gone) > 100
        # To anywhere in the same voxel, so that the same ones are hidden.
        inside = torch.rand(len(gone), 3, generator=draw) * 0.98 + 0.01
        xyz = sweep.xyz.clone()
        xyz[gone] = xyz[gone].floor() + inside
        assert sweep.intensity is not None
        intensity = sweep.intensity.clone()
        intensity[gone] = 1 - intensity[gone]
        sweeps.append(replace(sweep, xyz=xyz, intensity=intensity))
    other = Pass(network, None, replace(window, sweeps=tuple(sweeps)))
    again = blocks_of(other.inputs[-1], network.config)
    assert torch.equal(blocks.block, again.block)
    with torch.inference_mode():
        first = network.encode_window([part.sweep for part in parts])
        parts = visible_window(other.inputs, again, ALL, torch.Generator())
        second = network.encode_window([part.sweep for part in parts])
        for one, two in zip(first, second, strict=True):
            assert torch.equal(one[0], two[0])
        assert not torch.equal(given.encoded[-1][0], other.encoded[-1][0])


@pytest.mark.parametrize('tokenizer', TOKENIZERS)
def test_a_part_is_what_remains(tokenizer: str) -> None:
    _, (sweep,) = drive(tokenizer, 1)
    whole = sweep.patches
    left = torch.arange(len(whole.anchor)) % 3 > 0
    part = part_of(sweep, left)
    patches = part.sweep.patches
    assert part.token.tolist() == left.nonzero().squeeze(1).tolist()
    assert torch.equal(patches.anchor, whole.anchor[left])
    assert torch.equal(patches.cell, whole.cell[left])
    own = whole.kept_point[left[whole.patch_of_kept]]
    assert torch.equal(patches.kept_point, own)
    assert torch.equal(part.token[patches.patch_of_kept], whole.patch_of_kept[own])
    assert part.sweep.intensity is not None
    assert sweep.intensity is not None
    assert torch.equal(part.sweep.intensity, sweep.intensity[own])
    if tokenizer == 'voxel':
        assert patches.member is None
        assert torch.equal(patches.centre, whole.centre[left])
        return
    assert whole.member is not None
    assert patches.member is not None
    assert patches.patch_of_member is not None
    for row, number in enumerate(part.token.tolist()):
        members = whole.member.view(-1, 8)[number]
        members = members[left[whole.patch_of_kept[members]]]
        assert torch.equal(own[patches.member[patches.patch_of_member == row]], members)
        torch.testing.assert_close(patches.centre[row], whole.xyz[members].mean(0))
        # The anchor is one of them.
        assert (whole.xyz[members].double() == patches.anchor[row]).all(1).any()


def test_all_of_a_sweep_is_a_part_of_it_and_none_is_another() -> None:
    network, (sweep,) = drive('voxel', 1)
    everything = torch.ones(len(sweep.patches.anchor), dtype=torch.bool)
    part = part_of(sweep, everything)
    assert torch.equal(
        network.encode_window([part.sweep])[0][0], network.encode_window([sweep])[0][0]
    )
    nothing = part_of(sweep, everything, torch.zeros(len(sweep.patches.xyz), dtype=torch.bool))
    assert len(nothing.token) == len(nothing.sweep.patches.xyz) == 0
    assert network.encode_window([nothing.sweep])[0][0].shape == (0, 12)


def test_points_far_from_home_are_hidden_as_well() -> None:
    network, near = drive('voxel', 3)
    far = []
    for sweep in near:
        assert sweep.fixed_from_base is not None
        pose = sweep.fixed_from_base.copy()
        pose[:3, 3] += np.array([5e5, -5e5, 0])
        far.append(replace(sweep, fixed_from_base=pose))
    blocks = blocks_of(near[-1], network.config)
    for one, other in zip(
        visible_window(near, blocks, ALL, torch.Generator()),
        visible_window(far, blocks, ALL, torch.Generator()),
        strict=True,
    ):
        assert torch.equal(one.token, other.token)


@pytest.mark.parametrize('tokenizer', TOKENIZERS)
def test_some_points_of_what_stays_visible_can_be_left_out(tokenizer: str) -> None:
    network, inputs = drive(tokenizer, 1)
    blocks = blocks_of(inputs[0], network.config)
    (whole,) = visible_window(inputs, blocks, ALL, torch.Generator())
    draw = torch.Generator().manual_seed(1)
    (thin,) = visible_window(inputs, blocks, (0.3, 0.5), draw)
    share = len(thin.sweep.patches.xyz) / len(whole.sweep.patches.xyz)
    assert 0.2 < share < 0.6
    assert set(thin.token.tolist()) <= set(whole.token.tolist())
    assert thin.sweep.intensity is not None
    assert len(thin.sweep.intensity) == len(thin.sweep.patches.xyz)
