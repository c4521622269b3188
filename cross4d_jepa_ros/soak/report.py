# SPDX-License-Identifier: Apache-2.0
"""What a soak has shown: one report, verdicts, a table and a picture of the memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from rich.console import Console
from rich.table import Table

from cross4d_jepa_ros.soak.actions import EXIT_LIMIT_S
from cross4d_jepa_ros.soak.conductor import Score
from cross4d_jepa_ros.soak.faults import KINDS, Fault
from cross4d_jepa_ros.soak.stage import Ended

mpl.use('Agg')
import matplotlib.pyplot as plt

GROWTH_LIMIT_MB_PER_MINUTE = 1.0
END_LIMIT = 1.05
JUDGED_CYCLES = 3
# At either end, for people: its own order of faults moves the median of one cycle by a tenth.
END_CYCLES = 5
SILENCE_LIMIT_S = 10.0

Sample = tuple[float, float, int]


def summed(lives: Sequence[Ended]) -> dict[str, Any]:
    """Add the counts of all lives of the node."""
    dropped: Counter[str] = Counter()
    received = answered = 0
    for counts in (life.counts for life in lives if life.counts):
        received += counts['received']
        answered += counts['answered']
        dropped.update(counts['dropped'])
    return {'received': received, 'answered': answered, 'dropped': dict(dropped)}


def memory(samples: Sequence[Sample], ends_s: Sequence[float]) -> dict[str, Any]:
    """Judge resident memory from the end of the first full cycle of faults on.

    A cycle holds peaks of its own making, 500,000 points at once for one: its figure is the median.

    Args:
        samples: (s, MB, threads) of the watched node, each second.
        ends_s: When each full cycle was over.

    Returns:
        `each_10_s` (MB), `most`, `threads_most`, `cycles` (MB in each), and, where there are three
        cycles after the first, `mb_per_minute` (least squares over them) and `end_ratio` (the
        median of the last five to that of the first five of them).

    """
    cycles = [
        (end, round(float(np.median(part)), 1))
        for begin, end in pairwise((0.0, *ends_s))
        if (part := [mb for second, mb, _ in samples if begin <= second < end])
    ]
    result: dict[str, Any] = {
        'each_10_s': [mb for _, mb, _ in samples[::10]],
        'most': max((mb for _, mb, _ in samples), default=0.0),
        'threads_most': max((threads for *_, threads in samples), default=0),
        'cycles': [mb for _, mb in cycles],
    }
    if len(cycles) > JUDGED_CYCLES:
        seconds, resident = np.array(cycles[1:]).T
        slope = np.polyfit(seconds / 60, resident, 1)[0]
        result['mb_per_minute'] = round(float(slope), 3)
        compared = min(END_CYCLES, len(resident) // 2)
        end, begin = np.median(resident[-compared:]), np.median(resident[:compared])
        result['end_ratio'] = round(float(end / begin), 3)
    return result


def verdicts(report: dict[str, Any]) -> dict[str, str]:
    """Say for each promise what broke it; an empty sentence: nothing did."""
    counts = report['received'] - report['answered'] - sum(report['dropped'].values())
    broken = [fault for fault in report['faults'] if fault['problem']]
    faults = [f'{fault["kind"]} at {fault["t"]} s: {fault["problem"]}' for fault in broken]
    resident = report['rss_mb']
    growth = ''
    if 'mb_per_minute' in resident:
        ratio = resident['cycles'][-1] / resident['cycles'][1]
        if resident['mb_per_minute'] >= GROWTH_LIMIT_MB_PER_MINUTE or ratio > END_LIMIT:
            growth = f'{resident["mb_per_minute"]} MB a minute, {ratio:.3f} times at the end'
    silence = report['silence_s']
    return {
        'no crash': '; '.join(report['crashes']),
        'never silent': '' if silence < SILENCE_LIMIT_S else f'{silence} s without diagnostics',
        'nothing lost': '; '.join(report['unbalanced'][:3])
        or (f'{counts} sweeps are unaccounted for' if counts else ''),
        'no wrong answer': '; '.join(report['wrong_answers'][:3]),
        'faults named, and recovered from': '; '.join(faults),
        'memory does not grow': growth,
    }


def untried(faults: Sequence[Fault]) -> list[str]:
    """Name the kinds that there was no time for."""
    tried = {fault.kind for fault in faults}
    return [kind.name for kind in KINDS if kind.name not in tried]


def crashes(lives: Sequence[Ended]) -> list[str]:
    """List what ended otherwise than it should."""
    found = [life.crash for life in lives if life.crash]
    silent = sum(life.counts is None for life in lives)
    return found + ([f'{silent} lives ended without their counts'] if silent else [])


def draw(path: Path, score: Score) -> None:
    """Plot resident memory over time, with the faults."""
    figure, panel = plt.subplots(figsize=(10, 4), layout='constrained')
    minutes, resident = np.array([sample[:2] for sample in score.memory]).T
    panel.plot(minutes / 60, resident, linewidth=0.8)
    for fault in score.faults:
        colour = 'red' if fault.problem else 'lightgrey'
        panel.axvline(fault.t / 60, color=colour, linewidth=0.5, zorder=0)
    for end in score.cycles:
        panel.axvline(end / 60, color='black', linewidth=0.8, linestyle='--')
    panel.set_xlabel('minutes; grey: a fault, red: one that went wrong, dashed: all kinds played')
    panel.set_ylabel('resident memory of the node, MB')
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _figures(resident: dict[str, Any]) -> str:
    figures = {
        key: figure for key, figure in resident.items() if key not in ('each_10_s', 'cycles')
    }
    return ', '.join(f'{key} {figure}' for key, figure in figures.items())


def show(report: dict[str, Any], console: Console) -> None:
    """Print the faults by kind, the sums and the verdicts."""
    table = Table(title=f'soak, {report["minutes"]:g} minutes, seed {report["seed"]}')
    table.caption = 'most seconds: begun to named, ended to recovered, from there to unsaid'
    for name in ('fault', 'times', 'named', 'recovered', 'unsaid'):
        table.add_column(name, justify='left' if name == 'fault' else 'right')
    kinds = dict.fromkeys(fault['kind'] for fault in report['faults'])
    for kind in kinds:
        of_kind = [fault for fault in report['faults'] if fault['kind'] == kind]
        cells = []
        for key in ('named_after_s', 'recovered_after_s', 'unsaid_after_s'):
            known = [fault[key] for fault in of_kind if fault[key] is not None]
            cells.append(f'{max(known):.2f}' if known else '')
        style = 'red' if any(fault['problem'] for fault in of_kind) else ''
        table.add_row(kind, str(len(of_kind)), *cells, style=style)
    console.print(table)
    dropped = ', '.join(f'{cause} {n}' for cause, n in report['dropped'].items() if n) or 'none'
    console.print(
        f'{report["received"]} sweeps received, {report["answered"]} answered, dropped: {dropped}; '
        f'at most {report["in_flight_max"]} in flight; {report["lives"]} lives, each to end within '
        f'{EXIT_LIMIT_S:g} s; memory: {_figures(report["rss_mb"])}; others used '
        f'{report["others_cpu_share"]} of the CPU',
        highlight=False,
    )
    if report['untried']:
        console.print(f'no time for: {", ".join(report["untried"])}', style='yellow')
    for promise, broken in report['verdicts'].items():
        line = f'{promise}: {broken or "kept"}'
        console.print(line, style='red' if broken else 'green', markup=False, highlight=False)
