# SPDX-License-Identifier: Apache-2.0
"""Measured numbers, each with its seed, data, command and date, kept as they come."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cross4d_jepa_ros.files import write_atomically


@dataclass(frozen=True)
class Row:
    """One number.

    Attributes:
        task: What was asked, such as `linear_probe`.
        method: Who answered.
        seed: Of what is random in it.
        metric: What `value` is.
        value: The number.
        command: That makes it again.
        data: What it was learnt from and judged on.
        date: When it was measured, ISO.

    """

    task: str
    method: str
    seed: int
    metric: str
    value: float
    command: str
    data: str
    date: str


class RowStore:
    """A folder with a file for each measurement: what is there is not measured again.

    Args:
        folder: Is made.
        command: That makes the rows.

    """

    def __init__(self, folder: Path, command: str) -> None:
        self._folder, self.command = folder, command
        folder.mkdir(parents=True, exist_ok=True)

    def measured(
        self,
        task: str,
        method: str,
        seed: int,
        data: str,
        settings: Mapping[str, Any],
        measure: Callable[[], Mapping[str, float]],
    ) -> list[Row]:
        """Measure, unless the same was measured before.

        Args:
            task: As in `Row`.
            method: Likewise.
            seed: Likewise.
            data: Likewise.
            settings: All that the numbers depend on; with others it is measured again.
            measure: Gives the value of each metric.

        Returns:
            A row for each metric.

        """
        about = {'task': task, 'method': method, 'seed': seed, 'data': data, **settings}
        digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:12]
        path = self._folder / f'{task}_{method}_{seed}_{digest}.json'
        if not path.exists():
            found = measure()
            date = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
            rows = [
                Row(task, method, seed, metric, float(value), self.command, data, date)
                for metric, value in found.items()
            ]
            write_atomically(path, json.dumps([asdict(row) for row in rows], indent=1) + '\n')
        return [Row(**row) for row in json.loads(path.read_text())]


def mean_and_spread(values: Iterable[float]) -> tuple[float, float]:
    """Mean, and half the distance between the least and the most."""
    found = list(values)
    return float(np.mean(found)), (max(found) - min(found)) / 2
