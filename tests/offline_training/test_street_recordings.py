# SPDX-License-Identifier: Apache-2.0
"""Towns are recorded once, by the present generator, and not taken for whole before they are."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from offline_training import street_recordings
from offline_training.street_recordings import ONE_THREAD, record_towns, remove_recording


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, float]]:
    """Let threads write towns that are empty folders; return which."""
    towns: list[tuple[int, float]] = []

    def write(path: Path, seed: int, seconds: float, **_: object) -> None:
        path.mkdir()
        if seed == 13:
            raise OSError('disk full')
        towns.append((seed, seconds))

    def pool(workers: int, _: object, initializer: object) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(workers)

    monkeypatch.setattr(street_recordings, 'ProcessPoolExecutor', pool)
    monkeypatch.setattr(street_recordings, 'write_street_bag', write)
    return towns


def test_towns_are_recorded_once(tmp_path: Path, recorded: list[tuple[int, float]]) -> None:
    stale = tmp_path / 'street_0_2_8s'
    stale.mkdir()
    other = tmp_path / 'street_0_20_8s'
    other.mkdir()
    told: list[int] = []
    paths = record_towns(tmp_path, (1, 2), 8.0, lambda: told.append(1))
    assert paths == record_towns(tmp_path, (1, 2), 8.0, lambda: told.append(1))
    assert sorted(recorded) == [(1, 8.0), (2, 8.0)]
    assert len(told) == 4
    assert sorted(tmp_path.glob('street_*')) == sorted([other, *paths.values()])


def test_a_town_that_failed_is_not_taken_for_one(
    tmp_path: Path, recorded: list[tuple[int, float]]
) -> None:
    for _ in range(2):
        with pytest.raises(OSError, match='disk full'):
            record_towns(tmp_path, (13,), 8.0, lambda: None)
    assert recorded == []


def test_a_recording_that_is_being_removed_is_none(
    tmp_path: Path, recorded: list[tuple[int, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the midst of it, a part of a recording would be left in its place."""
    path = record_towns(tmp_path, (1,), 8.0, lambda: None)[1]
    there = []
    removed = street_recordings.shutil.rmtree

    def watched(folder: Path, **how: bool) -> None:
        there.append(path.exists())
        removed(folder, **how)

    monkeypatch.setattr(street_recordings.shutil, 'rmtree', watched)
    remove_recording(path)
    assert there == [True, False]
    assert not list(tmp_path.rglob('street_*'))


def test_the_environment_is_left_as_it_was(
    tmp_path: Path, recorded: list[tuple[int, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = ONE_THREAD
    monkeypatch.setenv(first, '7')
    monkeypatch.delenv(second, raising=False)
    record_towns(tmp_path, (1,), 8.0, lambda: None)
    assert os.environ[first] == '7'
    assert second not in os.environ


def test_what_fails_stops_the_towns_that_are_left(
    tmp_path: Path, recorded: list[tuple[int, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, 'cpu_count', lambda: 1)
    monkeypatch.setattr(
        street_recordings, 'ProcessPoolExecutor', lambda count, *_, **__: ThreadPoolExecutor(count)
    )
    stop = threading.Event()

    def write(path: Path, seed: int, _: float, **__: object) -> None:
        if seed > 13:
            assert stop.wait(10)
        path.mkdir()
        if seed == 13:
            raise OSError('disk full')
        recorded.append((seed, 0.0))

    monkeypatch.setattr(street_recordings, 'write_street_bag', write)
    threading.Timer(0.5, stop.set).start()
    with pytest.raises(OSError, match='disk full'):
        record_towns(tmp_path, (13, 14, 15, 16, 17), 8.0, lambda: None)
    # The one that was under way is finished, the others are not begun.
    assert len(recorded) <= 1
