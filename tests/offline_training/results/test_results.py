# SPDX-License-Identifier: Apache-2.0
"""Numbers are measured once, kept with how they were made, and laid out in the page."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from cross4d_jepa_ros.model.config import BadConfig, from_mapping
from offline_training.pretraining.settings import load_pretraining
from offline_training.results import commands
from offline_training.results.commands import run
from offline_training.results.document import tables, write_results
from offline_training.results.rows import Row, RowStore
from offline_training.results.settings import Results, load_results
from offline_training.shown_commands import CommandFailed

ROOT = Path(__file__).parents[3]
CONFIG = ROOT / 'config' / 'results.yaml'
QUIET = Console(quiet=True)


def rows_of(task: str, method: str, values: tuple[float, ...], metric: str = 'miou') -> list[Row]:
    return [
        Row(task, method, seed, metric, value, 'python', 'towns', '2026-01-02')
        for seed, value in enumerate(values)
    ]


def test_what_was_measured_is_not_measured_again(tmp_path: Path) -> None:
    measured = []

    def measure() -> dict[str, float]:
        measured.append(1)
        return {'miou': 0.5, 'accuracy': 0.75}

    store = RowStore(tmp_path, 'python -m offline_training.results')
    first = store.measured('probe', 'dense', 2, 'towns', {'model': 'a'}, measure)
    assert [(row.metric, row.value, row.seed) for row in first] == [
        ('miou', 0.5, 2),
        ('accuracy', 0.75, 2),
    ]
    assert first[0].command == 'python -m offline_training.results'
    again = RowStore(tmp_path, 'python').measured(
        'probe', 'dense', 2, 'towns', {'model': 'a'}, measure
    )
    assert (again, len(measured)) == (first, 1)
    for other in ({'model': 'b'}, {'model': 'a', 'points': 3}):
        store.measured('probe', 'dense', 2, 'towns', other, measure)
    store.measured('probe', 'dense', 3, 'towns', {'model': 'a'}, measure)
    assert len(measured) == 4


def test_a_command_is_run_once_and_again_after_it_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes, seen = iter((1, 0)), []

    def imported(name: str) -> Any:
        assert name == 'offline_training.index_bags'
        return SimpleNamespace(__name__=name, main=lambda words: seen.append(words) or next(codes))

    monkeypatch.setattr(commands.importlib, 'import_module', imported)
    with pytest.raises(CommandFailed, match=r'python -m offline_training.index_bags a --out b'):
        run('index_bags', ['a', '--out', 'b'], tmp_path, QUIET)
    run('index_bags', ['a', '--out', 'b'], tmp_path, QUIET)
    run('index_bags', ['a', '--out', 'b'], tmp_path, QUIET)
    assert seen == [['a', '--out', 'b']] * 2


def test_a_line_for_each_method_with_the_mean_over_its_seeds() -> None:
    rows = rows_of('linear probe', 'dense', (0.5, 0.6, 0.55))
    rows += rows_of('linear probe', 'position only', (0.25,)) + rows_of('clicks', 'dense', (0.3,))
    table = tables(rows)['linear probe'].splitlines()
    assert table[0] == '| method | miou |'
    assert table[2] == '| dense | 0.550 ± 0.050 |'
    assert table[3] == '| position only | 0.250 |'
    assert '2026-01-02, seeds 0, 1, 2' in table[5]


def test_shares_of_labels_are_told_apart() -> None:
    rows = rows_of('fine-tuning 1.0%', 'dense, learning rate 0.001', (0.5, 0.7))
    rows += rows_of('fine-tuning 10.0%', 'dense, learning rate 0.001', (0.8, 0.8))
    table = tables(rows)['fine-tuning'].splitlines()
    assert table[2] == '| 1.0% | dense, learning rate 0.001 | 0.600 ± 0.100 |'
    assert table[3] == '| 10.0% | dense, learning rate 0.001 | 0.800 ± 0.000 |'


def test_the_page_keeps_its_words_and_gets_its_tables(tmp_path: Path) -> None:
    page = tmp_path / 'results.md'
    page.write_text((ROOT / 'docs' / 'results.md').read_text())
    rows = rows_of('linear probe', 'dense', (0.125, 0.125))
    for _ in range(2):
        write_results(rows, load_results(CONFIG), tmp_path)
        text = page.read_text()
        assert text.count('| dense | 0.125 ± 0.000 |') == 1
        assert '## Fine-tuning with few labels' in text
    told = json.loads((tmp_path / 'results.json').read_text())['rows']
    assert told[1] == {
        'task': 'linear probe',
        'method': 'dense',
        'seed': 1,
        'metric': 'miou',
        'value': 0.125,
        'command': 'python',
        'data': 'towns',
        'date': '2026-01-02',
    }
    assert (tmp_path / 'results.png').read_bytes()[1:4] == b'PNG'
    page.write_text('nothing')
    with pytest.raises(ValueError, match=r'results.md has no place for .linear probe.'):
        write_results(rows, load_results(CONFIG), tmp_path)


def test_the_settings_that_are_shipped_can_be_trained() -> None:
    config = load_results(CONFIG)
    assert len(config.seeds) >= 3
    for method in config.methods.values():
        preset = ROOT / 'config' / 'pretraining' / f'{method.preset}.yaml'
        load_pretraining(preset, (*config.changes, *method.changes))


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        ({'judged': {'first_seed': 1040, 'count': 2}}, 'town 1040 is learnt from and judged on'),
        ({'naming': 'clicks'}, "'clicks' is none of the methods: give dense"),
    ],
)
def test_what_would_deceive_is_refused(change: dict[str, Any], said: str) -> None:
    towns = {'first_seed': 1000, 'count': 48, 'seconds': 2.0, 'sweep_stride': 2}
    mapping: dict[str, Any] = {
        'seeds': [0],
        'learnt': towns,
        'judged': towns | {'first_seed': 1100},
        'teacher': 'lite0',
        'input_height': 384,
        'changes': [],
        'methods': {'dense': {'preset': 'cross4d_jepa', 'changes': []}},
        'fine_tuning': {
            'method': 'dense',
            'claim': 0.01,
            'shares': [0.01],
            'learning_rates': [0.001],
            'scratch_learning_rates': [0.001],
            'points_kept': [0.5, 1.0],
            'steps': 1,
            'batch': 1,
        },
        'naming': 'dense',
        'stressed': 'config/demo.safetensors',
    }
    from_mapping(Results, mapping)
    for key, value in change.items():
        mapping[key] = towns | value if isinstance(value, dict) else value
    with pytest.raises(BadConfig, match=said):
        from_mapping(Results, mapping)
