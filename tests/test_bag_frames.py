# SPDX-License-Identifier: Apache-2.0
"""Frames of hand-made recordings: which image, which truth, what is dropped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cross4d_jepa_ros.bag_frames import BagFrame, BagFrames, truth_class_names, truth_topic
from cross4d_jepa_ros.bags import Bag
from tests.tiny_recording import (
    IMAGE,
    INFO,
    MS,
    POINTS,
    SETUP,
    START_NS,
    TRUTH,
    camera_info,
    cloud,
    image,
    sweep,
    truth,
    write,
)

XYZ = np.array([[4, 1, 0], [np.nan, 0, 0], [5, -1, 1], [6, 0, 2]], np.float32)
LABELS = np.array([3, 0, 1, 2], np.uint8)
PERIOD = 100 * MS

Entry = tuple[int, str, Any]


def shot(sweep_number: int, late_ns: int, recorded_after_ns: int = 5 * MS) -> list[Entry]:
    """An image whose every pixel says which sweep it belongs to, and its calibration."""
    stamp_ns = START_NS + sweep_number * PERIOD + late_ns
    pixels = np.full((6, 8, 3), 10 + sweep_number, np.uint8)
    return [
        (stamp_ns + recorded_after_ns, IMAGE, image(stamp_ns, pixels)),
        (stamp_ns + recorded_after_ns, INFO, camera_info(stamp_ns, 8, 6)),
    ]


def turned(sweep_number: int) -> Entry:
    """A sweep that is recorded 20 ms after its stamp."""
    stamp_ns = START_NS + sweep_number * PERIOD
    return stamp_ns + 20 * MS, POINTS, sweep(stamp_ns, XYZ + np.float32(sweep_number))


def labelled(sweep_number: int, late_ns: int = 21 * MS) -> Entry:
    stamp_ns = START_NS + sweep_number * PERIOD
    return stamp_ns + late_ns, TRUTH, truth(stamp_ns, (LABELS + sweep_number).astype(np.uint8))


def drive(sweeps: int) -> list[Entry]:
    """Sweeps with an image 12 ms after each."""
    entries = []
    for number in range(sweeps):
        entries += [turned(number), *shot(number, 12 * MS)]
    return entries


def read(path: Path, **options: Any) -> tuple[list[BagFrame], BagFrames]:
    with Bag(path) as bag:
        frames = BagFrames(bag, SETUP, **options)
        return list(frames), frames


def shades(frames: list[BagFrame]) -> list[list[int]]:
    return [[int(view.image[0, 0, 0]) - 10 for view in f.frame.views] for f in frames]


def test_every_sweep_gets_its_own_image_and_its_usable_points(tmp_path: Path) -> None:
    frames, reader = read(write(tmp_path / 'bag', drive(5)))
    assert len(reader) == 5
    assert shades(frames) == [[0], [1], [2], [3], [4]]
    for number, entry in enumerate(frames):
        assert entry.frame.stamp_ns == START_NS + number * PERIOD
        np.testing.assert_array_equal(entry.frame.sweep.index, [0, 2, 3])
        expected = XYZ[[0, 2, 3]] + np.float32(number)
        np.testing.assert_allclose(entry.frame.xyz_base, expected, atol=1e-6)
        view = entry.frame.views[0]
        assert view.stamp_ns - entry.frame.stamp_ns == 12 * MS
        ahead = view.camera_from_base @ (1.0, 0.0, 0.0, 1.0)
        np.testing.assert_allclose(ahead, (0.0, 0.0, 1.0, 1.0), atol=1e-9)
        assert entry.message.width == 4
        assert entry.truth is None
    assert reader.dropped == {}


def test_a_missing_image_leaves_the_view_out(tmp_path: Path) -> None:
    # The images beside the gap are one nanosecond farther from its sweep than the tolerance.
    late_ns = {0: 0, 1: 0, 2: -1, 4: 1, 5: 0}
    entries = [turned(number) for number in range(6)]
    for number, late in late_ns.items():
        entries += shot(number, late)
    frames, _ = read(write(tmp_path / 'bag', entries))
    assert shades(frames) == [[0], [1], [2], [], [4], [5]]


def test_an_image_that_is_recorded_too_late_is_not_used(tmp_path: Path) -> None:
    entries = drive(6)
    late = START_NS + 2 * PERIOD + 12 * MS + 5 * MS
    entries = [(t + 200 * MS if t == late and n == IMAGE else t, n, m) for t, n, m in entries]
    frames, _ = read(write(tmp_path / 'bag', entries))
    # The node would have gone on with the image before, 88 ms from the sweep.
    assert shades(frames) == [[0], [1], [1], [3], [4], [5]]


def test_truth_comes_in_the_order_of_the_message(tmp_path: Path) -> None:
    entries = [*drive(4), labelled(0), labelled(1, late_ns=2 * PERIOD), labelled(3, late_ns=0)]
    path = write(tmp_path / 'bag', entries, class_names='road, car')
    with Bag(path) as bag:
        assert truth_topic(bag) == TRUTH
        assert truth_class_names(bag) == ('road', 'car')
    frames, _ = read(path, truth=TRUTH)
    for number in (0, 1, 3):
        columns = frames[number].truth
        assert columns is not None
        assert sorted(columns) == ['class_id', 'instance', 'speed']
        np.testing.assert_array_equal(columns['class_id'], LABELS + number)
        np.testing.assert_array_equal(columns['instance'], range(4))
        assert columns['class_id'].dtype == np.uint8
    assert frames[2].truth is None


def test_truth_that_does_not_fit_its_sweep_is_none(tmp_path: Path) -> None:
    odd = (START_NS + 30 * MS, TRUTH, truth(START_NS, LABELS[:3]))
    short = truth(START_NS + 2 * PERIOD, LABELS)
    short.data = short.data[:-3]
    entries = [*drive(3), odd, labelled(1), (START_NS + 2 * PERIOD + 30 * MS, TRUTH, short)]
    with Bag(write(tmp_path / 'bag', entries)) as bag:
        frames = list(BagFrames(bag, SETUP, truth=TRUTH))
        problems = ' '.join(bag.problems)
    assert [frame.truth is None for frame in frames] == [True, False, True]
    assert f'at {START_NS} ns is left out: it has 3 points, its sweep 4' in problems
    assert f'at {START_NS + 2 * PERIOD} ns is left out' in problems


def test_what_is_no_usable_truth_is_named(tmp_path: Path) -> None:
    wide = cloud(START_NS, {'class_id': np.zeros(4, np.float32)})
    with Bag(write(tmp_path / 'wide', [(START_NS, TRUTH, wide)])) as bag:
        assert truth_topic(bag) == ''
        assert any('its class_id is no single uint8' in problem for problem in bag.problems)
    both = [(START_NS, name, truth(START_NS, LABELS)) for name in ('/a', '/b')]
    with Bag(write(tmp_path / 'two', both, class_names='road,,car')) as bag:
        assert truth_topic(bag) == ''
        assert truth_class_names(bag) == ()
        assert any('none of /a, /b is taken for truth' in problem for problem in bag.problems)
        assert any('is empty' in problem for problem in bag.problems)


def test_a_recording_without_truth_has_no_truth_topic(tmp_path: Path) -> None:
    path = write(tmp_path / 'bag', drive(1))
    with Bag(path) as bag:
        assert truth_topic(bag) == ''
        assert truth_class_names(bag) == ()
    with Bag(next(path.glob('*.mcap'))) as bag:
        assert bag.custom_data == {}


def test_what_cannot_be_used_is_counted(tmp_path: Path) -> None:
    broken = sweep(START_NS + PERIOD, XYZ)
    broken.width = 50
    same = sweep(START_NS + 3 * PERIOD, XYZ)
    entries = [e for e in drive(5) if e[:2] != turned(1)[:2]]
    entries += [(START_NS + PERIOD + 20 * MS, POINTS, broken)]
    entries += [(START_NS + 3 * PERIOD + 21 * MS, POINTS, same)]
    path = write(tmp_path / 'bag', entries)
    frames, reader = read(path)
    assert shades(frames) == [[0], [2], [3], [4]]
    assert reader.dropped == {'malformed': 1, 'duplicate': 1}
    again, reader = read(path, stride=2)
    assert shades(again) == [[0], [2], [4]]
    assert reader.dropped == {'duplicate': 1}


def test_some_sweeps_look_as_they_do_among_all(tmp_path: Path) -> None:
    # Raw intensities above 1 change what later ones are divided by, wanted or not.
    entries = [e for e in drive(6) if e[1] != POINTS]
    for number in range(6):
        stamp_ns, strength = START_NS + number * PERIOD, np.full(4, 0.5, np.float32)
        strength[0] = 200 if number == 1 else 1
        entries += [(stamp_ns + 20 * MS, POINTS, sweep(stamp_ns, XYZ, intensity=strength))]
    path = write(tmp_path / 'bag', entries)
    all_frames, _ = read(path)
    wanted = [START_NS + 2 * PERIOD, START_NS + 4 * PERIOD]
    some, reader = read(path, wanted_ns=wanted)
    assert len(reader) == 2
    for entry, whole in zip(some, [all_frames[2], all_frames[4]], strict=True):
        np.testing.assert_array_equal(entry.frame.sweep.intensity, whole.frame.sweep.intensity)
        assert entry.frame.sweep.intensity is not None
        assert entry.frame.sweep.intensity.max() == np.float32(1 / 255)
    assert shades(some) == [[2], [4]]
    strided, reader = read(path, stride=4)
    assert shades(strided) == [[0], [4]]
    assert len(reader) == 2


def test_it_can_be_read_again(tmp_path: Path) -> None:
    with Bag(write(tmp_path / 'bag', drive(3))) as bag:
        frames = BagFrames(bag, replace(SETUP, images=(), camera_infos=()))
        assert [len(list(frames)) for _ in range(2)] == [3, 3]
        with pytest.raises(ValueError, match='stride is 0'):
            BagFrames(bag, SETUP, stride=0)
