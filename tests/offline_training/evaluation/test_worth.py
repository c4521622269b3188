# SPDX-License-Identifier: Apache-2.0
"""The command tells what features are worth, how steady they are, and what disturbances cost."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import pytest
from rich.console import Console

from cross4d_jepa_ros.model.checkpoint import load_checkpoint, save_checkpoint
from cross4d_jepa_ros.model.network import Network
from offline_training import evaluate, index_bags
from offline_training.evaluation import label_efficiency, stress, worth
from offline_training.evaluation.disturbances import disturbances
from offline_training.evaluation.feature_probes import PROBES
from offline_training.evaluation.worth import CURVES, MODEL, POSITION, RANDOM
from offline_training.probes import ProbeConfig
from tests import tiny_recording as tiny
from tests.checkpoints import SHIPPED
from tests.tiny_street import write_tiny_street


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few steps, shares and disturbances, no pictures of sweeps."""
    monkeypatch.setattr(evaluate, 'draw', lambda *_: None)
    for name, config in PROBES.items():
        if isinstance(config, ProbeConfig):
            monkeypatch.setitem(PROBES, name, replace(config, least_steps=20))
    for module in (worth, label_efficiency):
        monkeypatch.setattr(module, 'SHARES', (0.1, 1.0))
    few = disturbances(64)[2:3] + disturbances(64)[-1:]
    monkeypatch.setattr(stress, 'disturbances', lambda _: few)


def run(out: Path, *words: str | Path) -> int:
    return evaluate.main([*map(str, words), '--out', str(out), '--threads', '1'])


def test_everything_at_once_is_the_same_twice(drive: Path, tmp_path: Path) -> None:
    fit = tmp_path / 'fit'
    write_tiny_street(fit, 2, 0.3)
    for out in (tmp_path / 'a', tmp_path / 'b'):
        assert run(out, drive, SHIPPED, '--features', fit, '--stress') == 0
    for name in ('report.json', 'stress.json', 'stress.png', CURVES):
        assert (tmp_path / 'a' / name).read_bytes() == (tmp_path / 'b' / name).read_bytes()

    report = json.loads((tmp_path / 'a' / 'report.json').read_text())
    features = report['features']
    assert features['fitted_on'] == {'source': str(fit), 'points': 3 * 920}
    assert features['judged_on'] == {'source': str(drive), 'points': 4 * 920}
    assert set(features['probes']) == set(features['label_efficiency'])
    assert set(features['probes']) == {MODEL, RANDOM, POSITION}
    for rows in features['probes'].values():
        assert set(rows) == set(PROBES)
        assert all(0 < row['miou'] <= 1 for row in rows.values())
    assert len(features['label_efficiency'][MODEL]) == 6

    steady = report['stability']
    assert steady['only_what_stands']
    assert [row['sweeps'] for row in steady['rows']] == [1, 2]
    assert steady['rows'][0]['points'] == 3 * 920

    rows = json.loads((tmp_path / 'a' / 'stress.json').read_text())['rows']
    assert [row['case'] for row in rows] == ['as recorded', 'points dropped', 'no camera']
    # The same points, answered the same way, as without --stress.
    assert rows[0]['miou'] == pytest.approx(report['scores']['miou'], abs=2e-6)
    assert cv2.imread(str(tmp_path / 'a' / CURVES)) is not None


def test_what_a_teacher_sees_is_told_where_there_are_targets(
    drive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Path] = []

    def told(_: Path, *paths: Path | Console) -> dict[str, float]:
        given.extend(path for path in paths if isinstance(path, Path))
        return {MODEL: 0.5, RANDOM: 0.25, POSITION: 0.125}

    monkeypatch.setattr(evaluate, 'teacher_report', told)
    monkeypatch.setattr(evaluate, 'read_contract', lambda _: SimpleNamespace(colour=False))
    for module in (worth, label_efficiency):
        monkeypatch.setattr(module, 'SHARES', (1.0,))
    write_tiny_street(tmp_path / 'other', 2, 0.3)
    fit, index = tmp_path / 'fit.parquet', tmp_path / 'index.parquet'
    for bag, made in ((tmp_path / 'other', fit), (drive, index)):
        assert index_bags.main([str(bag), '--out', str(made), '--images']) == 0
    words = ('--features', fit, '--targets', tmp_path / 'targets')
    assert run(tmp_path / 'out', index, SHIPPED, *words) == 0
    assert given == [fit, index, tmp_path / 'targets']
    report = json.loads((tmp_path / 'out' / 'report.json').read_text())
    assert report['features']['teacher_r2'][MODEL] == 0.5


def test_a_model_without_classes_has_steady_features_and_no_answers(
    drive: Path, tmp_path: Path
) -> None:
    shipped = load_checkpoint(SHIPPED)
    contract = replace(shipped.contract, class_names=(), palette=())
    headless = Network(contract.model, 0)
    weights = shipped.network.state_dict()
    headless.load_state_dict({name: weights[name] for name in headless.state_dict()})
    save_checkpoint(tmp_path / 'model', contract, headless)
    assert run(tmp_path / 'out', drive, tmp_path / 'model', '--write-bag', tmp_path / 'bag') == 0
    report = json.loads((tmp_path / 'out' / 'report.json').read_text())
    assert 'unknown_share' not in report and 'scores' not in report
    row = report['stability']['rows'][0]
    assert row['label_kept'] is None and row['points'] == 3 * 920


def labels_without_classes_in_common(drive: Path, folder: Path) -> list[str | Path]:
    (folder / 'labels.yaml').write_text(
        'classes: {lane: [1, 2, 3]}\nlabels: {road: lane}\nothers: ignore\n'
    )
    return [drive, SHIPPED, '--stress', '--labels', folder / 'labels.yaml']


def index_and_a_model_with_colour(drive: Path, folder: Path) -> list[str | Path]:
    index = folder / 'index.parquet'
    return [index, SHIPPED, '--features', index, '--targets', folder]


def indexed_twice(drive: Path, folder: Path) -> list[str | Path]:
    for name in ('fit', 'index'):
        index = folder / f'{name}.parquet'
        assert index_bags.main([str(drive), '--out', str(index), '--images']) == 0
    return [folder / 'index.parquet', SHIPPED, '--features', folder / 'fit.parquet']


def unlabelled_fit(drive: Path, folder: Path) -> list[str | Path]:
    tiny.write(folder / 'fit', [])
    return [drive, SHIPPED, '--features', folder / 'fit']


@pytest.mark.parametrize(
    ('words', 'sentence'),
    [
        (lambda drive, _: [drive, SHIPPED, '--targets', drive], 'give --features as well'),
        (
            lambda drive, _: [drive, SHIPPED, '--frame-log', drive, '--stress'],
            'leave out --features and --stress',
        ),
        (
            lambda drive, _: [drive, SHIPPED, '--features', drive, '--targets', drive],
            'is none: make one with index_bags',
        ),
        (index_and_a_model_with_colour, 'looks at colours'),
        (lambda drive, _: [drive, SHIPPED, '--features', drive], 'that they are fitted on'),
        (indexed_twice, 'that they are fitted on'),
        (unlabelled_fit, 'give labels of the same classes to both'),
        (labels_without_classes_in_common, '--stress compares with labels'),
    ],
)
def test_what_does_not_go_together_is_refused(
    drive: Path,
    tmp_path: Path,
    words: Callable[[Path, Path], list[str | Path]],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(tmp_path / 'out', *words(drive, tmp_path)) == 2
    assert sentence in capsys.readouterr().out
