# SPDX-License-Identifier: Apache-2.0
"""A file is complete or not there."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import multiprocessing.synchronize
import os
import re
import resource
import time
from pathlib import Path

import pytest

from cross4d_jepa_ros.files import LEFT_BEHIND_S, InUse, one_writer, write_atomically


def test_makes_the_folder_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / 'a' / 'b.json'
    write_atomically(path, 'old')
    write_atomically(path, 'new')

    assert path.read_text() == 'new'
    assert list(path.parent.iterdir()) == [path]


def test_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / 'a.json'
    write_atomically(path, 'old')

    def full(_: int) -> None:
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(OSError, match=r'No space left.*a\.json'):
        write_atomically(path, 'new')

    assert path.read_text() == 'old'
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_keeps_the_old_file_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / 'a.json'
    write_atomically(path, 'old')
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The system itself refuses to write more; Python ignores the signal.
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(OSError, match=r'a\.json'):
            write_atomically(path, bytes(200_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert path.read_text() == 'old'
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize('blocked', ['a', 'a/b'])
def test_a_folder_that_cannot_be_made_names_the_file(tmp_path: Path, blocked: str) -> None:
    (tmp_path / 'a').write_text('')
    with pytest.raises(OSError, match=re.escape(str(tmp_path / blocked / 'c.json'))):
        write_atomically(tmp_path / blocked / 'c.json', 'new')


def test_what_killed_writers_left_is_removed_later(tmp_path: Path) -> None:
    path, other = tmp_path / 'a.json', tmp_path / 'b.json'
    write_atomically(path, 'old')
    left = [tmp_path / f'.{name}.json.{letters}.tmp' for name in 'ab' for letters in ('x1', 'y2')]
    for file in left:
        file.write_text('par')
    long_ago = time.time() - LEFT_BEHIND_S - 10
    for file in left[::2]:
        os.utime(file, (long_ago, long_ago))
    write_atomically(path, 'new')
    # Another may still be writing the young one, and nobody writes the other file.
    assert {*tmp_path.iterdir()} == {path, *left[1:]}
    write_atomically(other, 'new')
    assert {*tmp_path.iterdir()} == {path, other, left[1], left[3]}


def test_an_only_file_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / 'a.json'
    write_atomically(path, 'first', replace=False)
    with pytest.raises(FileExistsError, match=r'a\.json'):
        write_atomically(path, 'second', replace=False)
    assert path.read_text() == 'first'
    assert list(tmp_path.iterdir()) == [path]


def test_the_name_is_brought_to_the_disk_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []

    def sync(handle: int) -> None:
        synced.append(Path(f'/proc/self/fd/{handle}').readlink())

    monkeypatch.setattr(os, 'fsync', sync)
    write_atomically(tmp_path / 'a.json', 'new')
    assert [file.name.startswith('.a.json.') for file in synced] == [True, False]
    assert synced[1] == tmp_path


def test_a_file_system_without_locks_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(*_: object) -> None:
        raise OSError(errno.ENOLCK, 'No locks available')

    monkeypatch.setattr(fcntl, 'lockf', without)
    with pytest.raises(OSError, match=r'No locks.*\.lock'), one_writer(tmp_path / '.lock', 'it'):
        pass


def hold(path: Path, held: multiprocessing.synchronize.Event) -> None:
    with one_writer(path, 'it'):
        held.set()
        time.sleep(60)


def test_a_second_writer_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    context = multiprocessing.get_context('fork')
    held = context.Event()
    first = context.Process(target=hold, args=(tmp_path / 'runs' / '.lock', held))
    first.start()
    try:
        assert held.wait(30)
        with (
            pytest.raises(InUse, match=rf'^the run is being .* \(id {first.pid}\): wait'),
            one_writer(tmp_path / 'runs' / '.lock', 'the run'),
        ):
            pass
    finally:
        first.kill()
        first.join()
    with one_writer(tmp_path / 'runs' / '.lock', 'the run'):
        assert (tmp_path / 'runs' / '.lock').read_text() == f'{os.getpid()}\n'
