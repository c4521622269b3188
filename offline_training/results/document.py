# SPDX-License-Identifier: Apache-2.0
"""The tables of docs/results.md, docs/results.json and the picture of the curves, from the rows."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from matplotlib.figure import Figure

from cross4d_jepa_ros.files import write_atomically
from offline_training.results.checkpoint_claims import STRESS
from offline_training.results.checkpoint_claims import TASK as CHECKPOINT
from offline_training.results.fine_tuning_claim import TASK as TUNING
from offline_training.results.naming_claims import CLICKS, IMAGES
from offline_training.results.pretraining_claim import TASK as PROBE
from offline_training.results.rows import Row, mean_and_spread
from offline_training.results.settings import Results

# A table stands between two of these lines.
BEGIN, END = '<!-- {}: begin -->', '<!-- {}: end -->'
BLANK = ''


def write_results(rows: Sequence[Row], config: Results, docs: Path) -> None:
    """Write results.json, put the tables into results.md, and draw results.png.

    Raises:
        ValueError: The page has no place for a table.
        OSError: It cannot be read, or the disk refuses.

    """
    told = {'rows': [asdict(row) for row in rows]}
    write_atomically(docs / 'results.json', json.dumps(told, indent=1) + '\n')
    page = docs / 'results.md'
    text = page.read_text()
    for name, table in tables(rows).items():
        text = _placed(text, name, table, page)
    write_atomically(page, text)
    draw_curves(rows, config, docs / 'results.png')


def tables(rows: Sequence[Row]) -> dict[str, str]:
    """Lay out the rows of each task: a line for each method, means over its seeds."""
    return {
        name: _table([row for row in rows if row.task == task or row.task.startswith(f'{task} ')])
        for name, task in (
            ('linear probe', PROBE),
            ('fine-tuning', TUNING),
            ('image labels', IMAGES),
            ('clicks', CLICKS),
            ('checkpoint', CHECKPOINT),
            ('stress', STRESS),
        )
    }


def _table(rows: Sequence[Row]) -> str:
    metrics = list(dict.fromkeys(row.metric for row in rows))
    tasks = list(dict.fromkeys((row.task, row.method) for row in rows))
    several = len({task for task, _ in tasks}) > 1
    head = [*(['labels'] if several else []), 'method', *metrics]
    lines = [_line(head), _line(['---'] * len(head))]
    for task, method in tasks:
        of_method = [row for row in rows if (row.task, row.method) == (task, method)]
        cells = [task.rpartition(' ')[2]] if several else []
        cells.append(method)
        for metric in metrics:
            values = [row.value for row in of_method if row.metric == metric]
            cells.append(_cell(values))
        lines.append(_line(cells))
    dates = sorted({row.date for row in rows})
    seeds = sorted({row.seed for row in rows})
    if dates:
        when = dates[0] if len(dates) == 1 else f'{dates[0]} to {dates[-1]}'
        of_seeds = f'seeds {", ".join(map(str, seeds))}' if len(seeds) > 1 else f'seed {seeds[0]}'
        lines += [BLANK, f'Measured {when}, {of_seeds}; ± is half of what lies between the seeds.']
    return '\n'.join(lines)


def _line(cells: Iterable[str]) -> str:
    return f'| {" | ".join(cells)} |'


def _cell(values: Sequence[float]) -> str:
    if not values:
        return BLANK
    mean, spread = mean_and_spread(values)
    return f'{mean:.3f}' if len(values) == 1 else f'{mean:.3f} ± {spread:.3f}'


def _placed(text: str, name: str, table: str, page: Path) -> str:
    begin, end = BEGIN.format(name), END.format(name)
    pattern = re.compile(f'{re.escape(begin)}.*?{re.escape(end)}', re.DOTALL)
    if not pattern.search(text):
        msg = f'{page} has no place for {name!r}: put {begin} and {end} into it'
        raise ValueError(msg)
    return pattern.sub(lambda _: f'{begin}\n{table}\n{end}', text)


def draw_curves(rows: Sequence[Row], config: Results, path: Path) -> None:
    """Draw the linear probe of each method, and mIoU over the share of labels in fine-tuning."""
    figure = Figure(figsize=(11, 4), layout='constrained')
    left, right = figure.subplots(1, 2)
    probes = [row for row in rows if row.task == PROBE and row.metric == 'miou']
    names = list(dict.fromkeys(row.method for row in probes))
    for place, name in enumerate(names):
        values = [row.value for row in probes if row.method == name]
        left.barh(place, mean_and_spread(values)[0], color='tab:blue', alpha=0.6)
        left.plot(values, [place] * len(values), 'k.', markersize=4)
    left.set_yticks(range(len(names)), names)
    left.invert_yaxis()
    left.set(xlabel='mIoU of a linear probe in unseen towns; dots: seeds')
    shares = sorted(config.fine_tuning.shares)
    for name in dict.fromkeys(row.method.partition(',')[0] for row in _tuned(rows)):
        means = [_best(rows, name, share) for share in shares]
        (drawn,) = right.plot(
            [100 * share for share in shares], [mean for mean, _ in means], marker='o', label=name
        )
        for share, (mean, spread) in zip(shares, means, strict=True):
            right.errorbar(100 * share, mean, spread, color=drawn.get_color(), capsize=3)
    right.set_xscale('log')
    right.set(xlabel='labelled sweeps, %', ylabel='mIoU in unseen towns')
    if _tuned(rows):
        right.legend()
    figure.savefig(path, dpi=110, metadata={'Software': None})


def _tuned(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.task.startswith(f'{TUNING} ')]


def _best(rows: Sequence[Row], name: str, share: float) -> tuple[float, float]:
    """Mean and spread of the learning rate that serves a method best with a share of labels."""
    found: dict[str, list[float]] = {}
    for row in _tuned(rows):
        if row.task == f'{TUNING} {share:.1%}' and row.method.partition(',')[0] == name:
            found.setdefault(row.method, []).append(row.value)
    return max((mean_and_spread(values) for values in found.values()), default=(0.0, 0.0))
