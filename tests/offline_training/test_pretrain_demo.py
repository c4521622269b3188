# SPDX-License-Identifier: Apache-2.0
"""The whole chain in small: bags, index, targets, four presets, the node, and the report."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from rich.console import Console

from offline_training import pretrain_demo
from offline_training.pretrain_demo import FIGURES, PRESETS, Recordings, Sizes, chain, draw_curves
from tests.tiny_logs import HEIGHT, write_log
from tests.tiny_recording import IMAGE

TINY = Sizes(
    teacher='lite0-random',
    input_height=HEIGHT,
    changes=(
        'epochs=1',
        'batch=4',
        'sweeps=2',
        'components=8',
        'objectives.predictor={width: 24, depth: 1, heads: 2}',
        'objectives.dense_correspondence.hidden=16',
        'objectives.dense_correspondence.points_per_view=128',
    ),
    replayed=('combined',),
    timed=('lite0-random',),
)


def test_bags_become_encoders_that_the_node_runs(
    ros_domain: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('ROS_DOMAIN_ID', str(ros_domain))
    bags = tuple(write_log(tmp_path / f'drive_{seed}', seed, 8) for seed in (1, 2))
    given = Recordings(bags, ('--images', IMAGE))
    out = tmp_path / 'out'
    report = chain(given, TINY, out, Console(quiet=True))
    assert set(report['presets']) == set(PRESETS)
    for name, told in report['presets'].items():
        assert all(math.isfinite(told[figure]) for figure in FIGURES), name
        assert told['r2_position'] == report['presets']['combined']['r2_position']
        assert 0 <= told['data_wait_share'] <= 1
    # One drive is kept back: eight windows are learnt from.
    assert report['presets']['3d_jepa']['steps'] == 2
    assert report['epoch_ratio']['lite0-random'] > 1
    node = report['node']['combined']
    assert node['sweeps_out'] > 0
    closed = node['sweeps_out'] + sum(node['dropped'].values())
    assert node['sweeps_in'] == closed + node['in_flight']
    assert set(node['answers'].values()) == {0}
    draw_curves(report, out)
    assert (out / 'curves.png').stat().st_size > 10_000
    assert (out / 'index_pictures' / 'drive_1.png').exists()
    json.dumps(report, allow_nan=False)


def test_a_step_that_fails_ends_the_chain(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ['--bag', str(tmp_path / 'nothing'), '--out', str(tmp_path / 'out')]
    assert pretrain_demo.main(words) == 2
    assert 'this failed: python -m offline_training.index_bags' in capsys.readouterr().out
