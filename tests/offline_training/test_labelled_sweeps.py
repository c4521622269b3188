# SPDX-License-Identifier: Apache-2.0
"""Files of sweeps give back what was written, to the width of their steps."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cross4d_jepa_ros.bag_setup import UnfitBag
from offline_training.labelled_sweeps import (
    BadSweeps,
    LabelledSweep,
    SweepFiles,
    labelled_frames,
    read_recording,
    write_sweeps,
)
from tests import tiny_recording as tiny

NAMES = tuple('abcdefgh')


def drawn(seed: int, points: int, *, intensity: bool = True, pose: bool = True) -> LabelledSweep:
    draw = np.random.default_rng(seed)
    rgb = draw.random((points, 4), np.float32)
    rgb[:, 3] = draw.random(points) < 0.5
    return LabelledSweep(
        stamp_ns=1_700_000_000_000_000_001 + seed,
        xyz=draw.uniform(-60, 60, (points, 3)).astype(np.float32),
        intensity=draw.random(points, np.float32) if intensity else None,
        rgb=rgb * rgb[:, 3:],
        label=draw.integers(0, 7, points).astype(np.uint8),
        moving=draw.choice(np.array([0, 1, 255], np.uint8), points),
        fixed_from_base=draw.uniform(-1e7, 1e7, (4, 4)) if pose else None,
    )


def test_sweeps_of_several_files_come_back_in_order(tmp_path: Path) -> None:
    sweeps = [drawn(seed, points) for seed, points in enumerate((50, 0, 200, 70))]
    write_sweeps(tmp_path / 'a', sweeps[:3])
    write_sweeps(tmp_path / 'b', sweeps[3:])
    files = SweepFiles([tmp_path / 'a', tmp_path / 'b'])
    assert len(files) == 4
    for position, sweep in enumerate(sweeps):
        got = files[position]
        np.testing.assert_allclose(got.xyz, sweep.xyz, atol=0.00101)
        np.testing.assert_allclose(got.rgb, sweep.rgb, atol=0.00197)
        np.testing.assert_allclose(got.intensity, sweep.intensity, atol=0.00197)
        np.testing.assert_array_equal(got.label, sweep.label)
        np.testing.assert_array_equal(got.moving, sweep.moving)
        np.testing.assert_array_equal(got.fixed_from_base, sweep.fixed_from_base)
        assert got.stamp_ns == sweep.stamp_ns
        assert (got.xyz.dtype, got.rgb.dtype, got.label.dtype) == ('f4', 'f4', 'u1')
    labels = np.concatenate([sweep.label for sweep in sweeps])
    np.testing.assert_array_equal(files.label_counts(), np.bincount(labels, minlength=256))


@pytest.mark.parametrize('damage', ['bit', 'gone'])
def test_a_damaged_file_is_refused_when_it_is_opened(tmp_path: Path, damage: str) -> None:
    path = tmp_path / 'drive.safetensors'
    write_sweeps(path, [drawn(0, 30)])
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content) if damage == 'bit' else path.unlink()
    with pytest.raises(BadSweeps, match=r'drive\.safetensors is damaged .*delete it, and'):
        SweepFiles([path])


@pytest.mark.parametrize(
    ('position', 'sweeps', 'expected'),
    [(0, 4, [0]), (2, 4, [0, 1, 2]), (2, 2, [1, 2]), (2, 1, [2]), (3, 4, [3]), (5, 2, [4, 5])],
)
def test_windows_end_where_recordings_begin(
    tmp_path: Path, position: int, sweeps: int, expected: list[int]
) -> None:
    for name, seeds in (('a', range(3)), ('b', range(3, 6))):
        write_sweeps(tmp_path / name, [drawn(seed, 20 + seed) for seed in seeds])
    files = SweepFiles([tmp_path / 'a', tmp_path / 'b'])
    assert files.recordings == [range(3), range(3, 6)]
    window = files.window(position, sweeps)
    assert [len(sweep.xyz) - 20 for sweep in window] == expected


def test_what_a_recording_lacks_stays_away(tmp_path: Path) -> None:
    write_sweeps(tmp_path / 'a', [drawn(0, 20, intensity=False, pose=False)])
    sweep = SweepFiles([tmp_path / 'a'])[0]
    assert sweep.intensity is None
    assert sweep.fixed_from_base is None


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    far = drawn(0, 20)
    far.xyz[3, 1] = -70
    with pytest.raises(ValueError, match=r'70\.0 m away, the most is 65\.0 m: cut range_m'):
        write_sweeps(tmp_path / 'a', [far])
    with pytest.raises(ValueError, match='would hold no sweep'):
        write_sweeps(tmp_path / 'a', [])
    assert not (tmp_path / 'a').exists()


def test_frames_come_with_their_images_and_truth(tmp_path: Path) -> None:
    messages: list[tuple[int, str, Any]] = []
    for number in range(7):
        at_ns = tiny.START_NS + number * 100 * tiny.MS
        xyz = np.array([[4, 1, 0], [5, -1, 1]], np.float32)
        class_id = np.array([3, number], np.uint8)
        pixels = np.full((6, 8, 3), 10 * number, np.uint8)
        recorded_ns = at_ns + 20 * tiny.MS
        messages += [
            (recorded_ns, tiny.POINTS, tiny.sweep(at_ns, xyz)),
            (recorded_ns, tiny.TRUTH, tiny.truth(at_ns, class_id)),
            (recorded_ns - tiny.MS, tiny.IMAGE, tiny.image(at_ns + 10 * tiny.MS, pixels)),
            (recorded_ns - tiny.MS, tiny.INFO, tiny.camera_info(at_ns + 10 * tiny.MS, 8, 6)),
        ]
    town = tiny.write(tmp_path / 'town', messages, class_names=','.join(NAMES))
    found = list(labelled_frames(town, NAMES, stride=3))
    labels = [frame.truth['class_id'].tolist() for frame in found if frame.truth]
    assert labels == [[3, 0], [3, 3], [3, 6]]
    assert [frame.frame.views[0].image[0, 0, 0] for frame in found] == [0, 30, 60]


def test_a_sweep_without_truth_is_refused(tmp_path: Path) -> None:
    xyz = np.array([[4, 1, 0], [5, -1, 1]], np.float32)
    messages: list[tuple[int, str, Any]] = [
        (tiny.START_NS, tiny.POINTS, tiny.sweep(tiny.START_NS, xyz)),
        (tiny.START_NS, tiny.TRUTH, tiny.truth(tiny.START_NS, np.zeros(3, np.uint8))),
    ]
    town = tiny.write(tmp_path / 'town', messages, class_names=','.join(NAMES))
    with pytest.raises(UnfitBag, match=f'no truth for the sweep of {tiny.START_NS} ns'):
        list(labelled_frames(town, NAMES, stride=1))


@pytest.mark.parametrize(
    ('lacking', 'sentence'),
    [
        ({'intensity': False}, '1 of 2 sweeps have an intensity, all or none must'),
        ({'pose': False}, '1 of 2 sweeps have a pose, all or none must'),
    ],
)
def test_what_some_sweeps_only_have_is_refused(
    tmp_path: Path, lacking: dict[str, bool], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        write_sweeps(tmp_path / 'a', [drawn(0, 9), drawn(1, 9, **lacking)])


@pytest.mark.parametrize(('speed', 'moving'), [((0.4, 0.6), [0, 1]), (None, [255, 255])])
def test_things_that_are_fast_enough_move(
    tmp_path: Path, speed: tuple[float, float] | None, moving: list[int]
) -> None:
    columns: dict[str, Any] = {'class_id': np.array([3, 4], np.uint8)}
    if speed is not None:
        columns['speed'] = np.array(speed, np.float32)
    xyz = np.array([[4, 1, 0], [5, -1, 1]], np.float32)
    messages: list[tuple[int, str, Any]] = [
        (tiny.START_NS, tiny.POINTS, tiny.sweep(tiny.START_NS, xyz)),
        (tiny.START_NS, tiny.TRUTH, tiny.cloud(tiny.START_NS, columns)),
    ]
    town = tiny.write(tmp_path / 'town', messages, class_names=','.join(NAMES))
    (sweep,) = read_recording(town, NAMES, stride=1, range_m=50.0)
    assert sweep.moving.tolist() == moving
    assert sweep.stamp_ns == tiny.START_NS


def known(files: SweepFiles) -> list[set[int]]:
    """Points of each sweep that keep their label."""
    return [set(np.flatnonzero(files[i].label != 255)) for i in range(len(files))]


@pytest.fixture
def many(tmp_path: Path) -> SweepFiles:
    """Three recordings of 4, 12 and 24 sweeps; one more without a label."""
    for name, count in (('a', 4), ('b', 12), ('c', 24)):
        write_sweeps(tmp_path / name, [drawn(seed, 40) for seed in range(count)])
    blind = drawn(99, 40)
    blind.label[:] = 255
    write_sweeps(tmp_path / 'd', [blind])
    return SweepFiles([tmp_path / name for name in 'abcd'])


def test_a_smaller_share_of_the_labels_is_part_of_a_larger_one(many: SweepFiles) -> None:
    fractions = (1.0, 0.5, 0.25, 0.1, 0.05, 0.025, 0.01, 0.005)
    found = [known(many.with_fraction(fraction, 3)) for fraction in fractions]
    assert found[0] == known(many)
    for more, less in pairwise(found):
        assert all(few <= all_ for few, all_ in zip(less, more, strict=True))
    # 40 sweeps of 40 points have labels.
    points = [sum(map(len, sweeps)) for sweeps in found]
    assert points == [1600, 800, 400, 160, 80, 40, 16, 8]
    # As many of each recording as its length asks for.
    of_each = [sum(map(bool, found[2][part.start : part.stop])) for part in many.recordings]
    assert of_each == [1, 3, 6, 0]
    few = many.with_fraction(0.1, 3)
    np.testing.assert_array_equal(few.labelled, np.flatnonzero(list(map(len, found[3]))))
    assert few.label_counts()[:255].sum() == 160
    assert known(many.with_fraction(0.1, 3)) == found[3]
    assert known(many.with_fraction(0.1, 4)) != found[3]
    assert known(many) == found[0]


@pytest.mark.parametrize('fraction', [0.0, -0.1, 1.1])
def test_a_share_out_of_its_bounds_is_refused(many: SweepFiles, fraction: float) -> None:
    with pytest.raises(ValueError, match=f'label_fraction is {fraction}: give more than 0'):
        many.with_fraction(fraction, 0)


def test_a_share_of_no_labels_is_refused(many: SweepFiles, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='no sweep has labels'):
        SweepFiles([tmp_path / 'd']).with_fraction(0.5, 0)
