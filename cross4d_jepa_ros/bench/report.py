# SPDX-License-Identifier: Apache-2.0
"""What `bench` measured as rows, tables, a picture, and a page of the docs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use('agg')

import matplotlib.pyplot as plt
import numpy as np
from rich.console import Console
from rich.table import Table

from cross4d_jepa_ros.bench.arithmetic import arithmetic_table, measured_table, with_table
from cross4d_jepa_ros.bench.stages import STAGES, Samples, model_of_size
from cross4d_jepa_ros.files import write_atomically
from cross4d_jepa_ros.model.checkpoint import load_checkpoint, read_contract
from cross4d_jepa_ros.shared_files import DEMO_CHECKPOINT, shared_file

PAGE_POINTS, PAGE_TOKENS = 112_000, 4_000


def stage_rows(
    named: dict[str, Any], samples: Samples, reference_ms: float
) -> Iterator[dict[str, Any]]:
    """Yield a row for each stage of a setting; `named` says which setting it is."""
    for stage in STAGES:
        median, high = (float(value) for value in np.percentile(samples.ms[stage], (50, 95)))
        yield {
            **named,
            'stage': stage,
            'median_ms': round(median, 3),
            'p95_ms': round(high, 3),
            'times_reference': round(median / reference_ms, 4),
            'p95_times_reference': round(high / reference_ms, 4),
            'tokens': int(np.median(samples.tokens)),
            'repetitions': samples.repetitions,
            'reference_nearby_ms': round(float(np.median(samples.reference_ms)), 3),
            'others_cpu_share': rounded(samples.others_cpu_share),
        }


def headline(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Take the rows of the shipped checkpoint on the most points, with the costlier ego-motion."""
    totals = [row for row in rows if row['stage'] == 'total' and row['weights'] == 'shipped']
    if not totals:
        return []
    top = max(totals, key=lambda row: (row['points'], row['median_ms']))
    same = ('weights', 'points', 'window', 'ego_motion')
    return [row for row in rows if all(row[key] == top[key] for key in same)]


def rounded(value: float | None) -> float | None:
    """Four digits, where there is a figure."""
    return None if value is None else round(value, 4)


def draw(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Stack the stages of every setting, one panel a size."""
    sizes = list(dict.fromkeys(row['size'] for row in rows))
    figure, panels = plt.subplots(
        1, len(sizes), figsize=(4 + 4 * len(sizes), 5), squeeze=False, layout='constrained'
    )
    for panel, size in zip(panels[0], sizes, strict=True):
        bars: dict[str, dict[str, float]] = {}
        for row in rows:
            if row['size'] == size and row['stage'] != 'total':
                label = f'{row["points"] / 1024:.0f}k T={row["window"]} {row["ego_motion"]}'
                bars.setdefault(label, {})[row['stage']] = row['median_ms']
        places = np.arange(len(bars))
        bottom = np.zeros(len(bars))
        for stage in STAGES[:-1]:
            height = np.array([bar[stage] for bar in bars.values()])
            panel.bar(places, height, bottom=bottom, label=stage)
            bottom += height
        panel.set_xticks(places, list(bars), rotation=90, fontsize=7)
        panel.set_title(f'{size}: {rows[0]["dtype"]} on {rows[0]["device"]}')
        panel.set_ylabel('median, ms a sweep')
        if bottom.max() > 60:
            panel.axhline(100, color='grey', linewidth=0.8, linestyle='--')
    panels[0][0].legend(fontsize=7)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def show(report: dict[str, Any], console: Console) -> None:
    """Print the totals, and the stages of the checkpoint itself."""
    first = report['rows'][0]
    title = f'{first["dtype"]} on {first["device"]}; reference {report["reference_ms"]:.1f} ms'
    table = Table(title=title)
    columns = ('size', 'points', 'tokens', 'T', 'motion', 'ms', 'p95', 'x ref.', 'sweeps')
    for name in columns:
        table.add_column(name, justify='right')
    for row in report['rows']:
        if row['stage'] == 'total':
            keys = ('size', 'points', 'tokens', 'window', 'ego_motion')
            cells = [str(row[key]) for key in keys]
            cells += [f'{row[key]:.1f}' for key in ('median_ms', 'p95_ms')]
            table.add_row(*cells, f'{row["times_reference"]:.2f}', str(row['repetitions']))
    console.print(table)
    stages = Table(title='the checkpoint itself', show_header=False)
    for row in report['headline']:
        figures = f'{row["median_ms"]:.1f} ms, p95 {row["p95_ms"]:.1f}'
        stages.add_row(row['stage'], figures, f'{row["times_reference"]:.3f} x reference')
    console.print(stages)
    live = report['live']
    if live:
        latency = live['latency_ms']
        lost = ', '.join(f'{n} {cause}' for cause, n in live['dropped'].items() if n) or 'none'
        console.print(
            f'live at {live["rate_hz"]} Hz: {live["sweeps_out"]} of {live["sweeps_in"]} sweeps '
            f'answered, dropped: {lost}; latency {latency["p50"]} ms, p95 {latency["p95"]}',
            highlight=False,
        )
    console.print(f'others used {report["others_cpu_share"]} of the CPU', highlight=False)
    for problem in report['problems']:
        console.print(problem, style='yellow', markup=False, highlight=False)


def write_page(page: Path, report: dict[str, Any]) -> None:
    """Bring the tables of the page up to date.

    Raises:
        ValueError: It has no marks for them, or the report is not of the checkpoint that ships.
        OSError: It cannot be read or written.

    """
    shipped = load_checkpoint(shared_file(DEMO_CHECKPOINT))
    contract = shipped.contract
    if not report['headline'] or report['model_sha256'] != shipped.sha256:
        msg = f'the report has no figures of {DEMO_CHECKPOINT}: measure anew, without another model'
        raise ValueError(msg)
    text = with_table(page.read_text(), 'arithmetic', page_arithmetic())
    table = measured_table(contract.model, report, len(contract.class_names))
    write_atomically(page, with_table(text, 'measured', table))


def page_arithmetic() -> str:
    """Draw the page's first table: nano with its memory full, on a sweep of 64 beams."""
    classes = len(read_contract(shared_file(DEMO_CHECKPOINT)).class_names)
    return arithmetic_table(model_of_size('nano'), PAGE_POINTS, PAGE_TOKENS, classes)
