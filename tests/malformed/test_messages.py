# SPDX-License-Identifier: Apache-2.0
"""Any attribute of any message may hold anything: refused in a sentence, or read, in bounds."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.malformed import messages, test_cdr, test_clicks, test_whole_path
from tests.malformed.mutations import Change, changed, changes, damaged, drawn
from tests.malformed.readers import read_camera_info, read_cloud, read_image, read_pose
from tests.malformed.verdicts import NO_WARNINGS, bulk
from tests.tries import TRIED, tries

pytestmark = NO_WARNINGS

EDGES = (('base', 'lidar'), ('lidar', 'camera'), ('odom', 'base'), ('lidar', 'odom'))
BASES: dict[str, tuple[list[Any], Callable[..., Any]]] = {
    'PointCloud2': ([messages.cloud(), messages.cloud(points=2)], read_cloud),
    'Image': ([messages.image(encoding) for encoding in messages.ENCODINGS], read_image),
    'CompressedImage': ([messages.packed(kind) for kind in messages.PACKED], read_image),
    'CameraInfo': (
        [messages.camera_info(m) for m in ('plumb_bob', 'rational_polynomial', 'equidistant')],
        read_camera_info,
    ),
    'TFMessage': ([messages.tf(edges=EDGES[i:]) for i in (2, 3)], read_pose),
    'Odometry': ([messages.odometry(), messages.odometry(messages.STAMP_NS + 10**7)], read_pose),
}
STRUCTURED = 250
SEEDS, PER_SEED = 40, 50
PAYLOADS = ('PointCloud2', 'CompressedImage')
POSES = ('TFMessage', 'Odometry')  # take three times as long


def test_all_tests_together_try_20000_messages() -> None:
    kinds, poses = len(BASES), len(POSES)
    many = (kinds - poses + poses / 2 + len(PAYLOADS)) * SEEDS * PER_SEED
    wire = (2 * len(test_cdr.TYPES) + 1) * test_cdr.SEEDS * test_cdr.PER_SEED
    path = sum(test_whole_path.EXAMPLES.values()) + test_clicks.EXAMPLES
    # Each of them asserts nine tenths of its share.
    assert (kinds * STRUCTURED + many + wire + path) * 0.9 >= 20_000


def tried_since(kind: str, before: int, least: int) -> None:
    assert TRIED[kind] - before >= least


@pytest.mark.parametrize('kind', list(BASES))
def test_well_formed_messages_are_read(kind: str) -> None:
    bases, read = BASES[kind]
    for base in bases:
        assert not isinstance(read(base), Exception)


@pytest.mark.parametrize('kind', list(BASES))
def test_a_few_attributes_of_any_value(kind: str) -> None:
    bases, read = BASES[kind]
    before = TRIED[kind]

    @settings(max_examples=tries(STRUCTURED))
    @given(base=st.integers(0, len(bases) - 1), changes=changes)
    def attack(base: int, changes: list[Change]) -> None:
        read(changed(bases[base], changes), changes)

    attack()
    tried_since(kind, before, tries(STRUCTURED) * 9 // 10)


@pytest.mark.parametrize('kind', list(BASES))
def test_many_attributes_of_any_value(kind: str) -> None:
    bases, read = BASES[kind]
    before = TRIED[kind]

    def one(draw: random.Random) -> None:
        changes = drawn(draw)
        base = draw.randrange(len(bases))
        read(changed(bases[base], changes), (base, changes))

    seeds = tries(SEEDS // 2 if kind in POSES else SEEDS)

    @settings(max_examples=seeds)
    @given(seed=st.integers(0, 2**32 - 1))
    def attack(seed: int) -> None:
        bulk(seed, one, PER_SEED)

    attack()
    tried_since(kind, before, seeds * PER_SEED * 9 // 10)


@pytest.mark.parametrize('kind', PAYLOADS)
def test_payloads_with_flipped_bits(kind: str) -> None:
    bases, read = BASES[kind]
    before = TRIED[kind]

    def one(draw: random.Random) -> None:
        message = changed(bases[draw.randrange(len(bases))], [])
        message.data = damaged(message.data, draw)
        read(message, message.data)

    @settings(max_examples=tries(SEEDS))
    @given(seed=st.integers(0, 2**32 - 1))
    def attack(seed: int) -> None:
        bulk(seed, one, PER_SEED)

    attack()
    tried_since(kind, before, tries(SEEDS) * PER_SEED * 9 // 10)
