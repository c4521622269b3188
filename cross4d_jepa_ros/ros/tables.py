# SPDX-License-Identifier: Apache-2.0
"""The README's tables of topics and parameters, from the rows that the node is made of."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from cross4d_jepa_ros.files import write_atomically
from cross4d_jepa_ros.ros.diagnostics import DIAGNOSTICS
from cross4d_jepa_ros.ros.inputs import INPUTS
from cross4d_jepa_ros.ros.outputs import ANSWERS, DURATIONS
from cross4d_jepa_ros.ros.parameters import PARAMETERS
from cross4d_jepa_ros.ros.teaching import CLEAR, SAVE

TOPICS = {
    'in': INPUTS,
    'out': (*ANSWERS, DIAGNOSTICS, DURATIONS),
    'service': (SAVE, CLEAR),
}


def topic_table() -> str:
    """Write the topics and services as a Markdown table."""
    rows = []
    for way, topics in TOPICS.items():
        for topic in topics:
            types = ' or '.join(
                name.replace('/msg/', '/').replace('/srv/', '/') for name in topic.types
            )
            rows.append((f'`{topic.name}`', way, types, topic.content))
    return _table(('topic', 'way', 'type', 'content'), rows)


def parameter_table() -> str:
    """Write the parameters as a Markdown table."""
    rows = []
    for parameter in PARAMETERS:
        default = str(parameter.default).lower() if parameter.type == 'bool' else parameter.default
        shown = f'`{default}`' if default != '' else '(empty)'
        live = ' (may change while running)' if parameter.live else ''
        name, description = f'`{parameter.name}`', parameter.description + live
        rows.append((name, parameter.type, shown, parameter.range, parameter.unit, description))
    return _table(('parameter', 'type', 'default', 'range', 'unit', 'what it does'), rows)


TABLES: dict[str, Callable[[], str]] = {'topics': topic_table, 'parameters': parameter_table}


def with_tables(text: str) -> str:
    """Bring the tables between their markers up to date.

    Raises:
        ValueError: A table has no place in the text.

    """
    for name, table in TABLES.items():
        place = rf'(<!-- {name}: begin[^\n]*\n).*?(<!-- {name}: end -->)'
        parts = re.split(place, text, flags=re.S)
        if len(parts) != 4:
            msg = f'{name}: wanted once, <!-- {name}: begin ... --> and <!-- {name}: end -->'
            raise ValueError(msg)
        text = f'{parts[0]}{parts[1]}{table()}\n{parts[2]}{parts[3]}'
    return text


def write_tables(readme: Path) -> None:
    """Do so with a file."""
    write_atomically(readme, with_tables(readme.read_text()))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [' | '.join(head), '|'.join(['---'] * len(head)), *(' | '.join(row) for row in rows)]
    lines = [f'|{line}|' if line.startswith('---') else f'| {line} |' for line in lines]
    return '\n'.join(lines)


if __name__ == '__main__':
    write_tables(Path('README.md'))
