# SPDX-License-Identifier: Apache-2.0
"""The report of an evaluation, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table


def print_report(report: Mapping[str, Any], cost: Mapping[str, Any], console: Console) -> None:
    """Show the figures as tables, and what could not be read or scored.

    Args:
        report: Of report.json.
        cost: Of cost.json.
        console: Where to.

    """
    table = Table(title=f'{report["source"]}, {report["model"]}', show_header=False)
    dropped = ', '.join(f'{n} {cause}' for cause, n in report['dropped'].items() if n) or 'none'
    table.add_row('sweeps', f'{report["sweeps"]} answered, dropped: {dropped}')
    table.add_row('points out of range', f'{report["points_out_of_range"]} of {report["points"]}')
    if 'unknown_share' in report:
        table.add_row('unknown', f'{report["unknown_share"]:.1%} of all points')
        shares = report['class_share_in_range'].items()
        table.add_row('answered', ', '.join(f'{name} {share:.1%}' for name, share in shares))
        table.add_row('mean probability', f'{report["mean_probability_in_range"]:.3f}')
    if 'frame_log' in report:
        log = report['frame_log']
        text = f'{log["identical"]} of {log["compared"]} answers have the same bytes'
        table.add_row('frame log', f'{log["replayed"]} of {log["sweeps"]} sweeps replayed, {text}')
        table.add_row('first difference', log['first_difference'] or 'none')
    stage = cost['stage_ms']['all']
    table.add_row('a sweep costs', f'{stage["p50"]} ms (p95 {stage["p95"]}) on {cost["device"]}')
    console.print(table)
    if 'scores' in report:
        console.print(_score_table(report['scores']))
    for problem in report['problems']:
        console.print(problem, style='yellow', markup=False, highlight=False)


def _score_table(scores: Mapping[str, Any]) -> Table:
    columns = {'all': scores, 'in range': scores['in_range_of_network']}
    columns |= {f'{name} m': part for name, part in scores['by_range_m'].items()}
    table = Table('', *columns)
    for key in ('miou', 'accuracy'):
        table.add_row(key, *(_figure(part[key]) for part in columns.values()))
    for name in scores['class_iou']:
        table.add_row(name, *(_figure(part['class_iou'][name]) for part in columns.values()))
    table.add_row('points', *(str(part['points_scored']) for part in columns.values()))
    error = scores['calibration']['expected_error']
    table.caption = f'expected calibration error {_figure(error)}'
    return table


def _figure(value: float | None) -> str:
    return '-' if value is None else f'{value:.3f}'
