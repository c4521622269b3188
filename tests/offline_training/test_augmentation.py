# SPDX-License-Identifier: Apache-2.0
"""Changed sweeps stay true to their labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from offline_training.augmentation import Augmentation, augmented
from offline_training.labelled_sweeps import LabelledSweep

NOTHING = Augmentation(
    points_kept=(1.0, 1.0),
    scale=(1.0, 1.0),
    tilt_deg=0.0,
    height_m=0.0,
    jitter_m=0.0,
    colour_gain=(1.0, 1.0),
    colour_shift=0.0,
    channel_shuffling=0.0,
    colour_blinding=0.0,
    intensity_gain=(1.0, 1.0),
    intensity_blinding=0.0,
)


def tagged(points: int = 4000) -> LabelledSweep:
    """A sweep whose height, intensity, colour and label all say the same number."""
    draw = np.random.default_rng(0)
    number = draw.integers(0, 200, points)
    xyz = np.column_stack((draw.uniform(-30, 30, (points, 2)), number / 50)).astype(np.float32)
    rgb = np.repeat((number / 255).astype(np.float32)[:, None], 4, axis=1)
    rgb[:, 3] = 1
    rgb[::3] = 0
    return LabelledSweep(xyz, (number / 255).astype(np.float32), rgb, number.astype(np.uint8))


def change(seed: int, **settings: object) -> LabelledSweep:
    return augmented(tagged(), replace(NOTHING, **settings), np.random.default_rng(seed))


def test_points_and_labels_stay_together() -> None:
    for seed in range(5):
        got = change(seed, points_kept=(0.3, 0.7))
        assert 0.25 < len(got.label) / 4000 < 0.75
        assert len(got.xyz) == len(got.rgb) == len(got.label)
        np.testing.assert_allclose(got.xyz[:, 2], got.label / 50, atol=1e-4)
        assert got.intensity is not None
        np.testing.assert_allclose(got.intensity, got.label / 255, atol=1e-6)
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
    assert 0 < np.abs(slope).max() < 45 * np.deg2rad(1.5)
    blind = change(1, colour_blinding=1.0)
    assert not blind.rgb.any()
    assert change(1, intensity_blinding=1.0).intensity is None
    strength = change(1, intensity_gain=(0.5, 0.5)).intensity
    assert strength is not None and plain.intensity is not None
    np.testing.assert_allclose(strength, plain.intensity / 2, atol=1e-6)
    lit = plain.rgb[:, 3] == 1
    shifted = change(1, colour_shift=0.2).rgb[lit, :3] - plain.rgb[lit, :3]
    assert 0 < np.abs(shifted).max() <= 0.2
    gained = change(1, colour_gain=(0.6, 1.4)).rgb[lit].mean(0) / plain.rgb[lit].mean(0)
    assert len(set(gained[:3].round(3))) == 3
    assert gained[3] == 1


def test_channels_change_places_together() -> None:
    sweep = tagged()
    sweep.rgb[:, 1:3] *= np.float32([0.5, 0.25])
    config = replace(NOTHING, channel_shuffling=1.0)
    orders = set()
    for seed in range(20):
        rgb = augmented(sweep, config, np.random.default_rng(seed)).rgb
        bright = rgb[sweep.rgb[:, 0] > 0.4, :3]
        order = np.argsort(bright, axis=1)
        assert (order == order[0]).all()
        orders.add(tuple(order[0]))
    assert len(orders) == 6


def test_the_same_draw_gives_the_same_sweep_and_leaves_the_original() -> None:
    sweep, untouched = tagged(), tagged()
    settings = replace(NOTHING, points_kept=(0.3, 1.0), jitter_m=0.01, colour_gain=(0.5, 1.5))
    first, second = (augmented(sweep, settings, np.random.default_rng(3)) for _ in range(2))
    for name in ('xyz', 'intensity', 'rgb', 'label'):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
        np.testing.assert_array_equal(getattr(sweep, name), getattr(untouched, name))
    assert (augmented(sweep, settings, np.random.default_rng(4)).xyz.shape) != first.xyz.shape
