# SPDX-License-Identifier: Apache-2.0
"""What the checkpoint that ships answers in towns that it has never seen, as they are and worse."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from cross4d_jepa_ros.model.checkpoint import load_checkpoint
from cross4d_jepa_ros.shared_files import shared_file
from offline_training.results.commands import run
from offline_training.results.recordings import Recordings
from offline_training.results.rows import Row, RowStore
from offline_training.results.settings import Results

TASK, STRESS = 'checkpoint that ships', 'stress'
STRESSED_TOWNS = 2


def evaluated(
    config: Results, given: Recordings, store: RowStore, out: Path, console: Console
) -> Iterator[Row]:
    """Run `evaluate` on the judged towns, and under stress on some of them."""
    model = shared_file(config.stressed)
    sha256 = load_checkpoint(model).sha256
    folder = out / f'evaluation_{sha256[:12]}'
    run(
        'evaluate',
        [str(given.judged.index), str(model), '--out', str(folder)],
        out / 'done',
        console,
    )
    report = json.loads((folder / 'report.json').read_text())
    settings = {'model': sha256}
    data = f'judged: {given.judged.told}'

    def figures() -> dict[str, float]:
        scores = report['scores']
        found = {'miou': scores['miou'], 'accuracy': scores['accuracy']}
        found['calibration_error'] = scores['calibration']['expected_error']
        found |= {f'miou_{name}_m': each['miou'] for name, each in scores['by_range_m'].items()}
        return found | {f'iou_{name}': iou for name, iou in scores['class_iou'].items()}

    yield from store.measured(TASK, config.stressed, 0, data, settings, figures)
    for bag in given.judged.bags[:STRESSED_TOWNS]:
        worse = out / f'stress_{sha256[:12]}' / bag.name
        run(
            'evaluate',
            [str(bag), str(model), '--out', str(worse), '--stress'],
            out / 'done',
            console,
        )
        rows: list[dict[str, Any]] = json.loads((worse / 'stress.json').read_text())['rows']
        for row in rows:
            name = f'{row["case"]} {row["amount"]}'.strip()

            def value(row: dict[str, Any] = row) -> dict[str, float]:
                return {'miou': row['miou'], 'accuracy': row['accuracy']}

            yield from store.measured(STRESS, name, 0, f'judged: {bag.name}', settings, value)
