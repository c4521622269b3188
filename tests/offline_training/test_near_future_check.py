# SPDX-License-Identifier: Apache-2.0
"""The near-future check on a tiny drive, what its networks are given, and its limits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from offline_training.near_future_check import (
    DISTILLED,
    NETWORKS,
    POSITION,
    RANDOM,
    CannotCheck,
    CheckConfig,
    Limits,
    compare,
    run,
)
from tests.tiny_logs import HEIGHT, write_log

QUIET = Console(quiet=True)
TINY = replace(
    CheckConfig(),
    seeds=(0, 1),
    learnt=4,
    judged=2,
    teacher='lite0-random',
    input_height=HEIGHT,
    changes=(
        *CheckConfig().changes,
        'epochs=10',
        'components=8',
        'objectives.dense_correspondence.hidden=16',
        'objectives.dense_correspondence.points_per_view=256',
    ),
    voxel_m=0.8,
    width=24,
    point_width=8,
)


@pytest.fixture(scope='module')
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_log(tmp_path_factory.mktemp('drive') / 'bag', 3, 7, blind=(0,))


def test_a_drive_is_learnt_and_judged(drive: Path, tmp_path: Path) -> None:
    report = run(drive, TINY, tmp_path, QUIET)
    assert report['steps'] == 40
    rows = {(row['name'], row['seed']): row for row in report['rows']}
    assert set(rows) == {(name, seed) for name in NETWORKS for seed in (0, 1)}
    # All are judged on the same points.
    assert len({row['points'] for row in report['rows']}) == 1
    # Shapes are drawn anew for each sweep, and the picture stays: only places tell what is there.
    for seed in (0, 1):
        assert rows[POSITION, seed]['cosine'] > rows[RANDOM, seed]['cosine'] + 0.3
        assert rows[POSITION, seed]['r2_weighted'] > rows[DISTILLED, seed]['r2_weighted'] + 0.1
        assert rows[DISTILLED, seed]['r2'] != rows[RANDOM, seed]['r2']
    assert not report['passed']
    mean = report['mean'][DISTILLED]['r2']
    assert mean == pytest.approx((rows[DISTILLED, 0]['r2'] + rows[DISTILLED, 1]['r2']) / 2)
    again = run(drive, replace(TINY, seeds=(1,)), tmp_path, QUIET)
    assert again['mean'][DISTILLED]['r2'] == rows[DISTILLED, 1]['r2']
    assert again['mean'][POSITION]['r2'] == rows[POSITION, 1]['r2']


def test_a_drive_has_to_be_long_enough(drive: Path, tmp_path: Path) -> None:
    with pytest.raises(CannotCheck, match=r'6 sweeps with an image, but 5 .* and 2 to be judged'):
        run(drive, replace(TINY, learnt=5), tmp_path, QUIET)


@pytest.mark.parametrize(
    ('position', 'gain', 'kept'),
    [(0.26, 0.16, (True, True)), (0.26, 0.14, (True, False)), (0.24, 0.2, (False, True))],
)
def test_limits_hold_for_the_mean_over_the_seeds(
    position: float, gain: float, kept: tuple[bool, bool]
) -> None:
    def row(name: str, r2: float) -> dict[str, Any]:
        return {'name': name, 'r2': r2, 'r2_weighted': 0.5, 'cosine': 0.5, 'seconds': 1.0}

    rows = [
        row(name, mean + spread)
        for name, mean in ((POSITION, position), (DISTILLED, position + gain), (RANDOM, 0.0))
        for spread in (-0.1, 0.1)
    ]
    least, over = compare(rows, Limits())
    assert (least['value'], over['value']) == (pytest.approx(position), pytest.approx(gain))
    assert (least['kept'], over['kept']) == kept
