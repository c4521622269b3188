# SPDX-License-Identifier: Apache-2.0
"""Windows are the same every time, stay in their drive, keep points and targets together."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from offline_training.augmentation import AS_RECORDED
from offline_training.logs.table import Index
from offline_training.objectives.window import Window, WindowSweep
from offline_training.pretraining.samples import Samples, moved_to
from offline_training.pretraining.settings import Pretraining, load_pretraining, pretrained_model
from offline_training.pretraining.windows import UnfitData, Windows
from offline_training.teachers import sample_patches
from offline_training.teachers.target_cache import TargetCache
from tests.tiny_logs import HEIGHT, WIDTH, indexed, with_targets, write_log

PRESETS = Path(__file__).parents[3] / 'config' / 'pretraining'


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Index, TargetCache]:
    """Two drives; the second begins blind."""
    folder = tmp_path_factory.mktemp('logs')
    bags = [write_log(folder / 'one', 1, 7), write_log(folder / 'two', 2, 7, blind=(0, 1, 2, 3))]
    index = indexed(folder, bags)
    return Index.load(index), TargetCache(with_targets(folder, index))


def windows_of(
    data: tuple[Index, TargetCache], preset: str, *changes: str, **more: Any
) -> tuple[Windows, Pretraining]:
    config, _ = load_pretraining(PRESETS / f'{preset}.yaml', ['sweeps=3', *changes])
    config = replace(config, **more)
    return Windows(data[0], data[1], config, pretrained_model(config)), config


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor | np.ndarray):
        return one.shape == other.shape and bool((one == other).all())
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if hasattr(one, '__dataclass_fields__'):
        return same(tuple(vars(one).values()), tuple(vars(other).values()))
    return bool(one == other)


def test_a_sample_is_the_same_every_time(data: tuple[Index, TargetCache]) -> None:
    first, _ = windows_of(data, 'combined')
    again, _ = windows_of(data, 'combined')
    for position in (0, 5, 11):
        assert same(first.window(2, position), again.window(2, position))
    assert not same(first.window(2, 5), first.window(3, 5))
    assert not same(first.window(2, 5), first.window(2, 6))


def test_windows_stay_in_their_drive_at_the_memory_s_stride(
    data: tuple[Index, TargetCache],
) -> None:
    windows, config = windows_of(data, '3d_jepa', augmentation=AS_RECORDED)
    assert pretrained_model(config).sweep_stride == 2
    lengths = [len(windows.window(0, position).sweeps) for position in range(len(windows))]
    assert lengths == [1, 1, 2, 2, 3, 3, 3] * 2
    stamps = [sweep.stamp_ns for sweep in windows.window(0, 6).sweeps]
    assert np.diff(stamps).tolist() == [200_000_000] * 2


def test_the_future_is_ahead_in_the_same_drive(data: tuple[Index, TargetCache]) -> None:
    windows, _ = windows_of(data, 'cross4d_jepa_described')
    futures = [windows.window(0, position) for position in range(len(windows))]
    ahead = [
        None if w.future is None else w.future.stamp_ns - w.sweeps[-1].stamp_ns for w in futures
    ]
    assert ahead == ([400_000_000] * 3 + [None] * 4) * 2
    assert all(w.future is None or not w.future.sightings for w in futures)


def test_windows_that_teach_nothing_are_left_out(data: tuple[Index, TargetCache]) -> None:
    masked, _ = windows_of(data, 'combined')
    dense, _ = windows_of(data, 'cross4d_jepa')
    assert (len(masked), len(dense)) == (14, 10)
    assert all(
        any(sweep.sightings for sweep in dense.window(0, position).sweeps)
        for position in range(len(dense))
    )


def test_what_no_image_shows_can_be_left_out(data: tuple[Index, TargetCache]) -> None:
    changes = 'view_only=true', 'objectives.dense_correspondence.points_per_view=100000'
    cut, _ = windows_of(data, 'cross4d_jepa', *changes, augmentation=AS_RECORDED)
    whole, _ = windows_of(data, 'cross4d_jepa', changes[1], augmentation=AS_RECORDED)
    (less,), (more,) = (each.window(0, 0).sweeps for each in (cut, whole))
    (seen,), (seen_of_all,) = less.sightings, more.sightings
    pixels = _pixels(less.xyz, seen)
    assert (pixels > -0.5).all()
    assert (pixels < (WIDTH, HEIGHT)).all()
    assert 0 < len(less.xyz) < len(more.xyz)
    assert torch.equal(less.xyz[seen.point], more.xyz[seen_of_all.point])
    assert torch.equal(seen.target, seen_of_all.target)
    # Without an image there is nothing to go by.
    masked, _ = windows_of(data, '3d_jepa', changes[0], augmentation=AS_RECORDED)
    assert len(masked.window(0, 7).sweeps[-1].xyz) == len(more.xyz)


def test_targets_belong_to_their_points_however_these_are_moved(
    data: tuple[Index, TargetCache],
) -> None:
    windows, config = windows_of(data, 'cross4d_jepa')
    plain, _ = windows_of(data, 'cross4d_jepa', augmentation=AS_RECORDED)
    assert config.augmentation.turn_deg > 0
    for epoch in range(3):
        newest = windows.window(epoch, 5).sweeps[-1]
        (sighting,) = newest.sightings
        view = _view(data, plain.window(0, 5).sweeps[-1])
        uv = _pixels(newest.xyz[sighting.point], sighting)
        expected = sample_patches(view.patches, uv, WIDTH, HEIGHT, bilinear=True)
        # Points are noisy by a centimetre, features by what half precision leaves.
        difference = np.abs(sighting.target.numpy() - expected).mean()
        assert difference < 0.1 * np.abs(expected - expected.mean(0)).mean()
        assert len(sighting.point) > 20


def _view(data: tuple[Index, TargetCache], sweep: WindowSweep) -> Any:
    row = next(row for row in data[0].rows if row.stamp_ns == sweep.stamp_ns)
    (shot,) = row.shots
    assert shot is not None
    return data[1].read(row.log, shot.topic, shot.stamp_ns)


def _pixels(xyz: torch.Tensor, sighting: Any) -> Any:
    pose = sighting.camera_from_base
    x, y, z = (xyz @ pose[:3, :3].T + pose[:3, 3]).unbind(1)
    fx, fy, cx, cy = sighting.intrinsics * torch.tensor([WIDTH, HEIGHT, WIDTH, HEIGHT])
    return torch.stack((fx * x / z + cx, fy * y / z + cy), dim=1).numpy()


def test_drop_out_and_blinding_leave_the_targets_to_what_is_left(
    data: tuple[Index, TargetCache],
) -> None:
    few = replace(
        AS_RECORDED,
        points_kept=(0.1, 0.2),
        sweep_forgetting=1.0,
        pose_blinding=1.0,
        intensity_blinding=1.0,
    )
    windows, _ = windows_of(data, 'combined', augmentation=few)
    window = windows.window(0, 5)
    assert window.forgotten == frozenset({0, 1})
    assert window.without_intensity and window.without_poses
    assert all(s.intensity is not None and s.fixed_from_base is not None for s in window.sweeps)
    for sweep in window.sweeps:
        assert all(int(s.point.max()) < len(sweep.xyz) for s in sweep.sightings)


def test_every_step_s_batch_is_shared_out_and_every_epoch_is_a_permutation(
    data: tuple[Index, TargetCache],
) -> None:
    windows, _ = windows_of(data, '3d_jepa')
    steps = range(7)
    whole = list(Samples(windows, 4, steps))
    for epoch in (0, 1):
        assert Counter(p for e, p in whole if e == epoch) == Counter(range(14))
    shares = [list(Samples(windows, 4, steps, rank, 2)) for rank in (0, 1)]
    for step in steps:
        mine = [share[2 * step : 2 * step + 2] for share in shares]
        together = [pair for both in zip(*mine, strict=True) for pair in both]
        assert together == whole[4 * step : 4 * step + 4]
    assert list(Samples(windows, 4, range(3, 7))) == whole[12:]


def test_missing_targets_are_counted(data: tuple[Index, TargetCache], tmp_path: Path) -> None:
    index = Index.load(indexed(tmp_path, [write_log(tmp_path / 'other', 5, 3)]))
    with pytest.raises(UnfitData, match='3 of 3 views of the index have no targets'):
        windows_of((index, data[1]), 'cross4d_jepa')


def test_a_window_moves_with_all_its_tensors(data: tuple[Index, TargetCache]) -> None:
    windows, _ = windows_of(data, 'combined')
    moved = moved_to(windows.window(0, 5), torch.device('meta'))
    assert isinstance(moved, Window)
    assert moved.sweeps[-1].xyz.is_meta
    assert moved.sweeps[-1].sightings[0].target.is_meta
