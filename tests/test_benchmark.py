# SPDX-License-Identifier: Apache-2.0
"""The benchmark on a few points: its drives, its report and its arithmetic, without DDS."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from cross4d_jepa_ros.bag_frames import BagFrames
from cross4d_jepa_ros.bag_setup import BagSetup, settle
from cross4d_jepa_ros.bags import Bag
from cross4d_jepa_ros.bench import __main__ as bench
from cross4d_jepa_ros.bench import stages as bench_stages
from cross4d_jepa_ros.bench.__main__ import Plan, Setting, measure_all, settings
from cross4d_jepa_ros.bench.arithmetic import Cost, Load, Rates, stage_costs, with_table
from cross4d_jepa_ros.bench.live import write_repeated, write_synthetic
from cross4d_jepa_ros.bench.report import draw, page_arithmetic, write_page
from cross4d_jepa_ros.bench.stages import (
    STAGES,
    Budget,
    Reference,
    measure,
    model_of_size,
    with_window,
)
from cross4d_jepa_ros.bench.sweeps import IMAGE, POINTS, Recording, SyntheticDrive
from cross4d_jepa_ros.demo import CannotRun
from cross4d_jepa_ros.model.checkpoint import read_contract
from cross4d_jepa_ros.pipeline import Pipeline
from cross4d_jepa_ros.sensing.point_clouds import stamp_ns
from cross4d_jepa_ros.shared_files import DEMO_CHECKPOINT, shared_file

PAGE = Path(__file__).resolve().parents[1] / 'docs' / 'performance.md'
FEW = 1280
ROW = {
    *('size', 'device', 'dtype', 'points', 'window', 'stage', 'median_ms', 'p95_ms'),
    *('times_reference', 'p95_times_reference', 'ego_motion', 'weights', 'tokens', 'repetitions'),
    *('reference_nearby_ms', 'others_cpu_share'),
}


def settled(bag: Bag, folder: Path) -> BagSetup:
    return settle(
        bag,
        points=POINTS,
        images=[IMAGE],
        camera_infos=[],
        odometry='',
        extrinsics=None,
        folder=folder,
    )


@pytest.fixture(scope='module')
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Measure the shipped checkpoint, with another window as well, and a larger size."""
    model = shared_file(DEMO_CHECKPOINT)
    window = read_contract(model).model.sweeps
    plan = Plan(model, 'cpu', 'auto', tmp_path_factory.mktemp('bench'), Budget(1e-3, 3, 3))
    drive = SyntheticDrive(FEW)
    chosen = [Setting('nano', window, drive), Setting('nano', 2, drive), Setting('small', 1, drive)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench_stages, 'SIDE', 64)
        measured, problems = measure_all(plan, chosen, Console(quiet=True))
    assert not problems
    return {**measured, 'live': {}, 'problems': [], 'point_bytes': 22}


def test_the_report_keeps_its_contract(report: dict[str, Any]) -> None:
    assert report['reference_ms'] > 0
    assert re.fullmatch('[0-9a-f]{64}', report['model_sha256'])
    assert {'threads', 'product_ms', 'copy_gb_s', 'gather_gb_s'} < report['machine'].keys()
    assert all(set(row) == ROW for row in report['rows'])
    assert [row['stage'] for row in report['rows']] == 3 * list(STAGES)
    for row in report['rows']:
        assert row['times_reference'] == pytest.approx(
            row['median_ms'] / report['reference_ms'], rel=0.05, abs=1e-3
        )
        assert (row['device'], row['points'], row['repetitions']) == ('cpu', FEW, 3)
        assert row['median_ms'] <= row['p95_ms']
    assert json.loads(json.dumps(report)) == report


def test_every_stage_is_timed_and_nothing_between_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_stages, 'SIDE', 64)
    pipeline = Pipeline(shared_file(DEMO_CHECKPOINT), device='cpu')
    reference = Reference(pipeline.device)
    shown: list[float] = []
    samples = measure(
        pipeline,
        SyntheticDrive(FEW),
        Budget(1e-3, 10, 10),
        reference,
        lambda share, _: shown.append(share),
    )
    *parts, total = (np.array(samples.ms[stage]) for stage in STAGES)
    between = (total - sum(parts)) / total
    assert (between >= 0).all()
    # Of the repetitions that nobody else interrupted.
    assert between.min() < 0.15
    assert shown == pytest.approx(np.arange(1, 11) / 10)
    assert len(samples.reference_ms) == len(reference.ms) == 10
    assert pipeline.window_length == pipeline.sweeps


def test_the_headline_is_the_shipped_file(report: dict[str, Any]) -> None:
    assert [row['weights'] for row in report['rows'][:: len(STAGES)]] == [
        *('shipped', 'adapted', 'fresh'),
    ]
    assert report['headline'] == report['rows'][: len(STAGES)]


def test_the_picture_and_the_page_can_be_made(report: dict[str, Any], tmp_path: Path) -> None:
    draw(tmp_path / 'bench.png', report['rows'])
    assert (tmp_path / 'bench.png').stat().st_size > 5000
    page = tmp_path / 'page.md'
    page.write_text(PAGE.read_text())
    write_page(page, report)
    cells = re.findall(r'^\| total \|.*', page.read_text(), re.M)
    assert len(cells) == 2
    total = report['headline'][-1]
    assert f'{total["median_ms"]:.2f} | {total["p95_ms"]:.2f}' in cells[1]


def test_a_page_takes_no_figures_of_another_checkpoint(
    report: dict[str, Any], tmp_path: Path
) -> None:
    page = tmp_path / 'page.md'
    page.write_text(PAGE.read_text())
    with pytest.raises(ValueError, match='measure anew'):
        write_page(page, {**report, 'model_sha256': 64 * '0'})
    assert page.read_text() == PAGE.read_text()


def test_what_was_measured_stands_where_the_node_cannot_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise CannotRun('the node did not become active')

    monkeypatch.setattr(bench_stages, 'SIDE', 64)
    monkeypatch.setattr(bench, 'POINTS', (FEW,))
    monkeypatch.setattr(bench, 'OTHER_SIZES', ())
    monkeypatch.setattr(bench, 'WINDOWS', ())
    monkeypatch.setattr(bench, 'Plan', partial(Plan, budget=Budget(1e-3, 2, 2)))
    monkeypatch.setattr(bench, 'live_synthetic', fail)
    monkeypatch.setenv('ROS_DOMAIN_ID', '42')

    assert bench.main(['--out', str(tmp_path)]) == 1

    found = json.loads((tmp_path / 'report.json').read_text())
    assert found['live'] is None
    assert found['problems'] == ['not measured live: the node did not become active']
    assert [row['stage'] for row in found['headline']] == list(STAGES)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['bench.png', 'report.json']


def test_the_page_shows_the_arithmetic() -> None:
    page = PAGE.read_text()
    assert with_table(page, 'arithmetic', page_arithmetic()) == page, (
        'run: python -m cross4d_jepa_ros.bench --page docs/performance.md'
    )


def test_costs_grow_with_what_they_depend_on() -> None:
    model, load = model_of_size('nano'), Load(1000, 100, 16, 4, 5)
    once = stage_costs(model, load)
    more_points = stage_costs(model, replace(load, points=2000))
    more_sweeps = stage_costs(replace(model, sweeps=8), load)
    point, width = model.point_width, model.width
    assert once['point_decoder'].products == 2 * 1000 * point**2 + 100 * width * point
    assert once['head'].products == 1000 * point * 5
    assert more_points['spatial'] == once['spatial']
    assert more_points['tokenise'].products > 1.8 * once['tokenise'].products
    assert once['temporal'].products < more_sweeps['temporal'].products
    assert more_sweeps['temporal'].products < 1.5 * once['temporal'].products
    assert stage_costs(with_window(model, 1), load)['temporal'] == Cost()


def test_a_floor_is_set_by_the_slower_of_reckoning_and_moving() -> None:
    rates = Rates(products=1e9, ordered=2e9, gathered=1e9)
    assert Cost(products=3_000_000).floor_ms(rates) == pytest.approx(3.0)
    assert Cost(1_000_000, 4_000_000, 1_000_000).floor_ms(rates) == pytest.approx(3.0)


@pytest.mark.parametrize('full', [False, True])
def test_the_grid_holds_what_is_promised(full: bool) -> None:
    drives: list[Any] = [replace_points(points) for points in bench.POINTS]
    chosen = settings('nano', 4, drives, full=full)
    found = {(entry.size, entry.window, entry.drive.points) for entry in chosen}
    assert len(found) == len(chosen)
    assert {('nano', t, n) for t in bench.WINDOWS for n in bench.POINTS} <= found
    for size in ('small', 'base'):
        windows = {t for name, t, _ in found if name == size}
        points = {n for name, _, n in found if name == size}
        assert (len(windows), len(points)) == ((5, 4) if full else (2, 2))


def replace_points(points: int) -> SyntheticDrive:
    drive = SyntheticDrive(64)
    drive.points = points
    return drive


def test_the_street_goes_by_at_its_speed_and_repeats_itself() -> None:
    drive = SyntheticDrive(64 * 90)
    frames = []
    for number, (points, images, first) in enumerate(drive.stream()):
        frames.append(drive.assembler.assemble(points, images, views=True))
        assert first == (number == 0)
        if number == 11:
            break
    poses = [frame.fixed_from_base for frame in frames]
    assert all(pose is not None for pose in poses)
    assert poses[11][:3, 3] - poses[1][:3, 3] == pytest.approx([10, 0, 0], abs=0.05)
    assert np.array_equal(frames[11].sweep.xyz, frames[1].sweep.xyz)
    assert not np.array_equal(frames[2].sweep.xyz, frames[1].sweep.xyz)
    assert frames[11].stamp_ns - frames[1].stamp_ns == 10**9
    assert len(frames[11].views) == 1
    ground = np.abs(frames[11].xyz_base[:, 2]) < 0.1
    assert 0.2 < ground.mean() < 0.9


def test_a_recorded_street_can_be_played_and_measured(tmp_path: Path) -> None:
    write_synthetic(tmp_path / 'once', FEW, 0.8)
    with Bag(tmp_path / 'once') as bag:
        setup = settled(bag, tmp_path)
        frames = [entry.frame for entry in BagFrames(bag, setup)]
        assert [frame.fixed_from_base is not None for frame in frames] == 8 * [True]
        assert [len(frame.views) for frame in frames] == 8 * [1]
        (drive,) = Recording.read(bag, setup).drives()
        assert (drive.ego_motion, drive.points, drive.sweeps) == ('recorded', FEW, 8)
        write_repeated(tmp_path / 'thrice', bag, setup, 3)
    with Bag(tmp_path / 'thrice') as bag:
        stamps = [stamp_ns(cloud) for cloud, _ in Recording.read(bag, setup).matched]
        assert len(stamps) == 24
        assert (np.diff(stamps) > 0).all()
        assert np.flatnonzero(np.diff(stamps) > 1_000_000_000).tolist() == [7, 15]
        assert not bag.problems


def test_a_recording_without_motion_is_measured_standing_and_moving(tmp_path: Path) -> None:
    write_synthetic(tmp_path / 'drive', FEW, 0.5)
    with Bag(tmp_path / 'drive') as bag:
        setup = replace(settled(bag, tmp_path), odometry='')
        standing, moving = Recording.read(bag, setup).drives()
        assert (standing.ego_motion, moving.ego_motion) == ('none', 'assumed')
        for drive in (standing, moving):
            frames = [
                drive.assembler.assemble(points, images, views=False)
                for points, images in drive.matched
            ]
            poses = [frame.fixed_from_base for frame in frames]
            if drive is standing:
                assert poses == 5 * [None]
            else:
                steps = np.diff([pose[0, 3] for pose in poses if pose is not None])
                assert steps == pytest.approx(4 * [1.0], abs=0.01)
