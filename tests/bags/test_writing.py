# SPDX-License-Identifier: Apache-2.0
"""What the writer refuses, and what it says of a full disk."""

from __future__ import annotations

import resource

import pytest

from cross4d_jepa_ros.bags import (
    BadBag,
    Bag,
    BagWriter,
    message_class,
)
from tests.bags.recorded import IMAGE, START_NS, STORAGES, STRING, image, nanosecs


@pytest.mark.parametrize('storage', STORAGES)
def test_a_full_disk_names_the_recording(tmp_path, storage):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(OSError, match='bag'), BagWriter(tmp_path / 'bag', storage=storage) as w:
            # The system itself refuses to write more; Python ignores the signal.
            resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, before[1]))
            for index in range(200):
                w.write('/image', IMAGE, START_NS + index * 10_000_000, image(index))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    # What was written before is still worth something.
    if storage == 'mcap':
        with Bag(tmp_path / 'bag') as bag:
            assert nanosecs(bag) == list(range(len(nanosecs(bag))))
            assert bag.problems


def test_writer_refuses(tmp_path):
    with pytest.raises(BadBag, match='exists already'), BagWriter(tmp_path):
        pass
    with BagWriter(tmp_path / 'bag') as writer, pytest.raises(BadBag, match='/text'):
        writer.write('/text', STRING, 1, message_class(STRING)(5))
