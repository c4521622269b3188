# SPDX-License-Identifier: Apache-2.0
"""Changed windows stay true to their labels and to their motion."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cross4d_jepa_ros.sensing.poses import invert, matrix_from_quaternion, rigid
from offline_training.augmentation import AS_RECORDED, Recolouring, augmented
from offline_training.labelled_sweeps import LabelledSweep

# As far out as UTM coordinates.
START_M = np.array([300_000.0, -5_000_000.0, 40.0])
PLAIN = Recolouring(gain=(1.0, 1.0), shift=0.0, channel_shuffling=0.0, blinding=0.0)
NOTHING = replace(AS_RECORDED, turn_deg=180.0, mirroring=0.5, colour=PLAIN)


def tagged(points: int = 4000) -> LabelledSweep:
    """A sweep whose height, intensity, colour and label all say the same number."""
    draw = np.random.default_rng(0)
    number = draw.integers(0, 200, points)
    xyz = np.column_stack((draw.uniform(-30, 30, (points, 2)), number / 50)).astype(np.float32)
    rgb = np.repeat((number / 255).astype(np.float32)[:, None], 4, axis=1)
    rgb[:, 3] = 1
    rgb[::3] = 0
    return LabelledSweep(
        stamp_ns=5,
        xyz=xyz,
        intensity=(number / 255).astype(np.float32),
        rgb=rgb,
        label=number.astype(np.uint8),
        moving=(number % 2).astype(np.uint8),
        fixed_from_base=None,
    )


def change(seed: int, **settings: object) -> LabelledSweep:
    config = replace(NOTHING, **settings)
    (changed,) = augmented([tagged()], config, np.random.default_rng(seed))
    return changed


def passed_by(sweeps: int = 4) -> list[LabelledSweep]:
    """Sweeps of the same 500 standing points, seen from a vehicle that climbs a bend."""
    draw = np.random.default_rng(1)
    standing = draw.uniform(-20, 20, (500, 3)) + START_M
    window = []
    for number in range(sweeps):
        quaternion = np.array([0.02, 0.05 * number, 0.2 * number, 1.0])
        pose = matrix_from_quaternion(
            START_M + number * np.array([2.0, 1.0, 0.3]), quaternion / np.linalg.norm(quaternion)
        )
        seen = (standing - pose[:3, 3]) @ pose[:3, :3]
        window.append(
            replace(tagged(500), stamp_ns=number, xyz=seen.astype(np.float32), fixed_from_base=pose)
        )
    return window


def test_points_and_labels_stay_together() -> None:
    for seed in range(5):
        got = change(seed, points_kept=(0.3, 0.7))
        assert 0.25 < len(got.label) / 4000 < 0.75
        assert len(got.xyz) == len(got.rgb) == len(got.label)
        np.testing.assert_allclose(got.xyz[:, 2], got.label / 50, atol=1e-4)
        assert got.intensity is not None
        np.testing.assert_allclose(got.intensity, got.label / 255, atol=1e-6)
        np.testing.assert_array_equal(got.moving, got.label % 2)
        lit = got.rgb[:, 3] == 1
        np.testing.assert_allclose(got.rgb[lit, 0], got.label[lit] / 255, atol=1e-6)
        assert not got.rgb[~lit].any()
        assert lit.any() and not lit.all()


def test_sweeps_are_turned_and_mirrored_but_not_bent() -> None:
    before, mirrored = tagged().xyz[:50], []
    for seed in range(20):
        after = change(seed).xyz[:50]
        gaps = [np.linalg.norm(xyz[:, None] - xyz, axis=2) for xyz in (before, after)]
        np.testing.assert_allclose(*gaps, atol=1e-3)
        turn, *_ = np.linalg.lstsq(before.astype(float), after.astype(float), rcond=None)
        mirrored.append(np.linalg.det(turn) < 0)
    assert 3 < sum(mirrored) < 17


def test_each_setting_does_what_it_says() -> None:
    plain = tagged()
    height = change(1, height_m=0.1).xyz[:, 2] - plain.xyz[:, 2]
    assert 0 < abs(height[0]) <= 0.1
    np.testing.assert_allclose(height, height[0], atol=1e-5)
    size = np.linalg.norm(change(1, scale=(1.05, 1.05)).xyz, axis=1)
    np.testing.assert_allclose(size, 1.05 * np.linalg.norm(plain.xyz, axis=1), rtol=1e-5)
    assert 0.009 < (change(1, jitter_m=0.01).xyz[:, 2] - plain.xyz[:, 2]).std() < 0.011
    slope = change(1, tilt_deg=1.5).xyz[:, 2] - plain.xyz[:, 2]
    assert 0 < np.abs(slope).max() < 1.5 * 45 * np.deg2rad(1.5)
    blind = change(1, colour=replace(PLAIN, blinding=1.0))
    assert not blind.rgb.any()
    assert change(1, intensity_blinding=1.0).intensity is None
    strength = change(1, intensity_gain=(0.5, 0.5)).intensity
    assert strength is not None and plain.intensity is not None
    np.testing.assert_allclose(strength, plain.intensity / 2, atol=1e-6)
    lit = plain.rgb[:, 3] == 1
    shifted = change(1, colour=replace(PLAIN, shift=0.2)).rgb[lit, :3] - plain.rgb[lit, :3]
    assert 0 < np.abs(shifted).max() <= 0.2
    gained = change(1, colour=replace(PLAIN, gain=(0.6, 1.4))).rgb[lit].mean(0) / plain.rgb[
        lit
    ].mean(0)
    assert len(set(gained[:3].round(3))) == 3
    assert gained[3] == 1


def test_channels_change_places_together() -> None:
    sweep = tagged()
    sweep.rgb[:, 1:3] *= np.float32([0.5, 0.25])
    config = replace(NOTHING, colour=replace(PLAIN, channel_shuffling=1.0))
    orders = set()
    for seed in range(20):
        rgb = augmented([sweep], config, np.random.default_rng(seed))[0].rgb
        bright = rgb[sweep.rgb[:, 0] > 0.4, :3]
        order = np.argsort(bright, axis=1)
        assert (order == order[0]).all()
        orders.add(tuple(order[0]))
    assert len(orders) == 6


@pytest.mark.parametrize('seed', range(8))
def test_what_stands_still_coincides_in_the_newest_sweep(seed: int) -> None:
    config = replace(NOTHING, scale=(0.8, 1.25), tilt_deg=1.5, height_m=0.1)
    before, after = passed_by(), augmented(passed_by(), config, np.random.default_rng(seed))
    assert [sweep.stamp_ns for sweep in after] == [0, 1, 2, 3]
    newest = after[-1]
    assert newest.fixed_from_base is not None
    for then, sweep in zip(before, after, strict=True):
        assert sweep.fixed_from_base is not None and then.fixed_from_base is not None
        rigid(sweep.fixed_from_base)
        newest_from_then = invert(newest.fixed_from_base) @ sweep.fixed_from_base
        rigid(newest_from_then)
        placed = sweep.xyz @ newest_from_then[:3, :3].T + newest_from_then[:3, 3]
        np.testing.assert_allclose(placed, newest.xyz, atol=1e-4)
        # The poses were changed with the points; the old ones would not fit.
        assert np.abs(sweep.fixed_from_base[:3, :3] - then.fixed_from_base[:3, :3]).max() > 1e-3


def test_colour_and_intensity_go_for_a_whole_window() -> None:
    config = replace(
        NOTHING, colour=replace(PLAIN, blinding=0.5), intensity_blinding=0.5, pose_blinding=0.5
    )
    seen = set()
    for seed in range(40):
        window = augmented(passed_by(3), config, np.random.default_rng(seed))
        kept = {
            (sweep.rgb.any(), sweep.intensity is None, sweep.fixed_from_base is None)
            for sweep in window
        }
        assert len(kept) == 1
        seen |= kept
    assert len(seen) == 8


def test_earlier_sweeps_are_forgotten_but_never_the_newest() -> None:
    config = replace(NOTHING, sweep_forgetting=0.5)
    seen = set()
    for seed in range(60):
        window = augmented(passed_by(), config, np.random.default_rng(seed))
        seen.add(tuple(sweep.stamp_ns for sweep in window))
    assert all(stamps[-1] == 3 and list(stamps) == sorted(stamps) for stamps in seen)
    assert len(seen) == 8


def test_each_sweep_loses_points_of_its_own() -> None:
    window = augmented(
        [tagged(), tagged()], replace(NOTHING, points_kept=(0.3, 0.9)), np.random.default_rng(0)
    )
    assert len(window[0].label) != len(window[1].label)


def test_the_same_draw_gives_the_same_window_and_leaves_the_original() -> None:
    window, untouched = passed_by(2), passed_by(2)
    settings = replace(
        NOTHING, points_kept=(0.3, 1.0), jitter_m=0.01, colour=replace(PLAIN, gain=(0.5, 1.5))
    )
    first, second = (augmented(window, settings, np.random.default_rng(3)) for _ in range(2))
    for name in ('xyz', 'intensity', 'rgb', 'label', 'moving', 'fixed_from_base'):
        for i in range(2):
            np.testing.assert_array_equal(getattr(first[i], name), getattr(second[i], name))
            np.testing.assert_array_equal(getattr(window[i], name), getattr(untouched[i], name))
    other = augmented(window, settings, np.random.default_rng(4))
    assert other[1].xyz.shape != first[1].xyz.shape


def test_turn_and_mirror_image_can_be_left_out() -> None:
    plain = tagged()
    np.testing.assert_allclose(change(1, turn_deg=0.0, mirroring=0.0).xyz, plain.xyz, atol=1e-5)
    mirrored = change(1, turn_deg=0.0, mirroring=1.0).xyz
    np.testing.assert_allclose(mirrored, plain.xyz * [1, -1, 1], atol=1e-5)
