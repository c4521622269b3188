# SPDX-License-Identifier: Apache-2.0
"""Which of a recording's clouds is the one to replay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cross4d_jepa_ros.bag_setup import BagSetup, UnfitBag, settle
from cross4d_jepa_ros.bags import Bag
from tests.tiny_recording import POINTS, START_NS, TRUTH, sweep, truth, write

SWEEP = sweep(START_NS, np.ones((3, 3), np.float32))
LABELS = truth(START_NS, np.zeros(3, np.uint8))


def settled(folder: Path, **clouds: object) -> tuple[BagSetup, tuple[str, ...]]:
    """Settle on a recording of the given clouds; returns the replayed topics too."""
    topics = {'points': POINTS, 'other': '/rear', 'labels': TRUTH}
    messages = [(START_NS, topics[name], message) for name, message in clouds.items()]
    with Bag(write(folder / 'bag', messages)) as bag:
        nothing = {'points': '', 'images': [], 'camera_infos': [], 'odometry': ''}
        setup = settle(bag, **nothing, extrinsics=None, folder=folder)
        return setup, setup.replayed(bag)


def test_a_truth_cloud_is_no_sweep_and_is_not_replayed(tmp_path: Path) -> None:
    setup, replayed = settled(tmp_path, labels=LABELS, points=SWEEP)

    assert setup.points == POINTS
    assert POINTS in replayed
    assert TRUTH not in replayed


def test_of_two_sweeps_the_user_must_choose(tmp_path: Path) -> None:
    with pytest.raises(UnfitBag, match=r'several clouds.*: /lidar, /rear$'):
        settled(tmp_path, points=SWEEP, other=SWEEP, labels=LABELS)


def test_a_truth_cloud_alone_is_nothing_to_replay(tmp_path: Path) -> None:
    with pytest.raises(UnfitBag, match=r'no cloud with x, y and z.* /lidar/truth$'):
        settled(tmp_path, labels=LABELS)
