# SPDX-License-Identifier: Apache-2.0
"""Files of sweeps give back what was written, to the width of their steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from offline_training.labelled_sweeps import LabelledSweep, SweepFiles, write_sweeps


def drawn(seed: int, points: int, *, intensity: bool = True) -> LabelledSweep:
    draw = np.random.default_rng(seed)
    rgb = draw.random((points, 4), np.float32)
    rgb[:, 3] = draw.random(points) < 0.5
    return LabelledSweep(
        xyz=draw.uniform(-60, 60, (points, 3)).astype(np.float32),
        intensity=draw.random(points, np.float32) if intensity else None,
        rgb=rgb * rgb[:, 3:],
        label=draw.integers(0, 7, points).astype(np.uint8),
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
        assert (got.xyz.dtype, got.rgb.dtype, got.label.dtype) == ('f4', 'f4', 'u1')
    labels = np.concatenate([sweep.label for sweep in sweeps])
    np.testing.assert_array_equal(files.label_counts(), np.bincount(labels, minlength=256))


def test_a_sensor_without_intensity_stays_without(tmp_path: Path) -> None:
    write_sweeps(tmp_path / 'a', [drawn(0, 20, intensity=False)])
    assert SweepFiles([tmp_path / 'a'])[0].intensity is None


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    far = drawn(0, 20)
    far.xyz[3, 1] = -70
    with pytest.raises(ValueError, match=r'70\.0 m away, the most is 65\.0 m: cut range_m'):
        write_sweeps(tmp_path / 'a', [far])
    with pytest.raises(ValueError, match='would hold no sweep'):
        write_sweeps(tmp_path / 'a', [])
    assert not (tmp_path / 'a').exists()
