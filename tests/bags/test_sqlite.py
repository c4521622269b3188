# SPDX-License-Identifier: Apache-2.0
"""Damaged and unfinished sqlite3 files; every one is made here."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3

import pytest
from rosbags.typesys import Stores, get_typestore

from cross4d_jepa_ros.bags import (
    BadBag,
    Bag,
)
from tests.bags.recorded import (
    IMAGE,
    START_NS,
    image,
    nanosecs,
    read_damaged,
    storage_of,
    write_images,
)


def test_sqlite_random_damage_never_crashes(tmp_path):
    good = storage_of(write_images(tmp_path / 'bag', 'sqlite3', 60)).read_bytes()
    read_damaged(good, tmp_path / 'damaged.db3', seed=6, header=16, flips=40)


@pytest.mark.parametrize('share', [0.3, 0.6, 0.95])
def test_truncated_sqlite(tmp_path, share):
    path = write_images(tmp_path / 'bag', 'sqlite3')
    storage = storage_of(path)
    data = storage.read_bytes()
    storage.write_bytes(data[: int(len(data) * share)])
    with Bag(path) as bag:
        indices = nanosecs(bag)
        assert indices == list(range(len(indices)))
        assert abs(len(indices) - 200 * share) < 20
        assert any('cut short or damaged' in problem for problem in bag.problems)


def test_damaged_page_of_sqlite_ends_it(tmp_path):
    path = write_images(tmp_path / 'bag', 'sqlite3')
    storage = storage_of(path)
    data = bytearray(storage.read_bytes())
    middle = len(data) // 2 // 4096 * 4096
    data[middle : middle + 5 * 4096] = bytes(5 * 4096)
    storage.write_bytes(data)
    with Bag(path) as bag:
        found = []
        for message in bag.messages(['/image']):
            with contextlib.suppress(BadBag):
                found.append(bag.deserialise(message).header.stamp.nanosec)
        assert len(found) >= 90
        assert found == sorted(set(found))
        assert any('damaged' in problem for problem in bag.problems)


def test_unfinished_sqlite_keeps_its_write_ahead_log(tmp_path):
    path = write_images(tmp_path / 'bag', 'sqlite3', 10)
    live = storage_of(path)
    database = sqlite3.connect(live)
    database.execute('PRAGMA journal_mode=WAL')
    raw = bytes(get_typestore(Stores.ROS2_JAZZY).serialize_cdr(image(10), IMAGE))
    topic = database.execute("SELECT id FROM topics WHERE name = '/image'").fetchone()[0]
    database.execute(
        'INSERT INTO messages (topic_id, timestamp, data) VALUES (?, ?, ?)',
        (topic, START_NS + 100_000_000, raw),
    )
    database.commit()
    killed = tmp_path / 'killed'
    killed.mkdir()
    for suffix in ('', '-wal'):
        shutil.copy(f'{live}{suffix}', killed / f'bag.db3{suffix}')
    database.close()
    with Bag(killed / 'bag.db3') as bag:
        assert nanosecs(bag) == list(range(11))
