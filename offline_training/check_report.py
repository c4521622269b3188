# SPDX-License-Identifier: Apache-2.0
"""How a check ends: its report in a file, with the command that made it, and an exit code."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.table import Table

from cross4d_jepa_ros.files import write_atomically


def limits_table(limits: Sequence[Mapping[str, Any]]) -> Table:
    """Lay out limits: their `name`, the `value` found, the `limit`, and whether it is `kept`."""
    table = Table('limit', 'found', 'wanted', 'kept')
    for limit in limits:
        kept = '[green]yes' if limit['kept'] else '[red]no'
        table.add_row(limit['name'], f'{limit["value"]:.3f}', f'{limit["limit"]:.2f}', kept)
    return table


def write_report(report: dict[str, Any], module: str, words: Sequence[str], out: Path) -> int:
    """Add `command` and `date` to a report and write it, atomically.

    Args:
        report: With `passed`.
        module: Name of the check in this package.
        words: That it was called with.
        out: JSON file to write.

    Returns:
        The exit code: 0 if it passed.

    Raises:
        OSError: The disk refuses.

    """
    report['command'] = shlex.join(['python', '-m', f'offline_training.{module}', *words])
    report['date'] = datetime.now(UTC).isoformat(timespec='seconds')
    write_atomically(out, json.dumps(report, indent=2) + '\n')
    return 0 if report['passed'] else 1
