# SPDX-License-Identifier: Apache-2.0
"""The folder of one run: its settings, its log, the state to go on from, the result."""

from __future__ import annotations

import contextlib
import csv
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from cross4d_jepa_ros.files import write_atomically
from offline_training.checked_tensors import Damaged, checked, read_tensors


class UnfitRun(ValueError):
    """A run cannot start or go on in this folder; the sentence says why."""


class RunFolder:
    """Files of a run; only the first process writes.

    Args:
        path: Folder.
        settings: Of the run, and what identifies its data; a run goes on with the same only.

    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path = path
        self.model = path / 'model.safetensors'
        self.report = path / 'report.json'
        self.log = path / 'log.csv'
        self.tensorboard = path / 'tensorboard'
        self._state = path / 'state.safetensors'
        self._settings = json.loads(json.dumps(settings))

    def begin(self) -> None:
        """Make the folder of a new run.

        Raises:
            UnfitRun: There is a run in it already.
            OSError: The disk refuses.

        """
        if self._state.exists() or self.model.exists():
            msg = f'{self.path} holds a run: go on with --resume, or give another --out'
            raise UnfitRun(msg)
        self.path.mkdir(parents=True, exist_ok=True)
        self.log.unlink(missing_ok=True)
        write_atomically(self.path / 'config.yaml', yaml.safe_dump(self._settings, sort_keys=False))

    def resumed(self) -> tuple[int, dict[str, Tensor]] | None:
        """Read the state to go on from, and cut the log where it was saved.

        Returns:
            Steps done and tensors; None where no state was saved yet.

        Raises:
            UnfitRun: It is damaged, or of a run with other settings or data.

        """
        if not self._state.exists():
            return None
        try:
            tensors, about = read_tensors(self._state, older=('steps', 'settings'))
        except Damaged as error:
            msg = f'{self._state} is damaged ({error}): give another --out'
            raise UnfitRun(msg) from error
        changed = _first_change(about['settings'], self._settings)
        if changed is not None:
            key, then, now = changed
            msg = (
                f'{self.path} holds a run with {key} {then!r}, not {now!r}: give the same to go '
                'on, or another --out'
            )
            raise UnfitRun(msg)
        return int(about['steps']), tensors

    def cut_log(self, steps: int) -> None:
        """Leave the rows of the first `steps` steps in the log.

        Raises:
            UnfitRun: It lacks one of them.
            OSError: The disk refuses.

        """
        lines = self.log.read_bytes().splitlines(keepends=True) if self.log.exists() else []
        kept = lines[1 : 1 + steps]
        # A full disk may have cut one in two.
        due = [line.startswith(b'%d,' % n) and line.endswith(b'\n') for n, line in enumerate(kept)]
        if len(kept) < steps or not all(due):
            lost = next((n for n, there in enumerate(due) if not there), len(kept))
            msg = f'{self.log} has lost the row of step {lost}: put it back, or give another --out'
            raise UnfitRun(msg)
        if lines:
            write_atomically(self.log, b''.join([*lines[:1], *kept]))

    def save(self, steps: int, tensors: Mapping[str, Tensor]) -> None:
        """Write everything that the next step depends on, atomically."""
        plain = {name: value.detach().cpu().numpy() for name, value in tensors.items()}
        about = {'steps': steps, 'settings': self._settings}
        write_atomically(self._state, checked(plain, about))

    def rows(self) -> list[dict[str, float]]:
        """Read the log: the figures of each step that has them.

        Raises:
            UnfitRun: It is damaged.
            OSError: It cannot be read.

        """
        try:
            with self.log.open(newline='') as stream:
                read = list(csv.DictReader(stream))
            return [{name: float(text) for name, text in row.items() if text} for row in read]
        except (ValueError, TypeError, AttributeError, csv.Error) as error:
            msg = f'{self.log} is damaged ({error}): put it back'
            raise UnfitRun(msg) from error


class Log:
    """Appends rows to a CSV file; what the disk refuses names it."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self._path, self._columns = path, list(columns)
        fresh = not path.exists() or not path.stat().st_size
        self._stream = path.open('a', newline='')
        self._writer = csv.DictWriter(self._stream, self._columns, restval='')
        if fresh:
            self._writer.writeheader()

    def add(self, row: Mapping[str, float]) -> None:
        """Write one row; columns that it lacks stay empty."""
        with self._named():
            self._writer.writerow({name: repr(value) for name, value in row.items()})
            self._stream.flush()

    def sync(self) -> None:
        """Have the rows on the disk before a state that comes after them."""
        with self._named():
            os.fsync(self._stream.fileno())

    def close(self) -> None:
        """Close the file."""
        with self._named():
            self._stream.close()

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            error.filename = str(self._path)
            raise


def _first_change(then: Any, now: Any, key: str = '') -> tuple[str, Any, Any] | None:
    """Name the first setting that differs, with both values."""
    if isinstance(then, dict) and isinstance(now, dict):
        for name in {**then, **now}:
            inner = f'{key}.{name}' if key else str(name)
            found = _first_change(then.get(name), now.get(name), inner)
            if found is not None:
                return found
        return None
    return None if then == now else (key, then, now)
