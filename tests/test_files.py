# SPDX-License-Identifier: Apache-2.0
"""A file is complete or not there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cross4d_jepa_ros.files import write_atomically


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
