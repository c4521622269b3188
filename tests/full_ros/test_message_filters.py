# SPDX-License-Identifier: Apache-2.0
"""The node and the synchroniser run on the real message_filters."""

from __future__ import annotations

import time
from typing import Any

import pytest
from sensor_msgs.msg import Image, PointCloud2

from cross4d_jepa_ros.ros.subscriptions import Subscriber
from cross4d_jepa_ros.sensing.point_clouds import stamp_ns
from cross4d_jepa_ros.sensing.synchronisation import SweepSynchroniser, SyncConfig
from tests.bench import Bench, cloud, image

message_filters = pytest.importorskip('message_filters', reason='no message_filters here')

START, PERIOD = 10**12, 10**8


def test_the_node_takes_it() -> None:
    assert Subscriber is message_filters.Subscriber


def test_our_synchroniser_behind_its_subscribers(bench: Bench) -> None:
    pairs: list[tuple[int, int | None]] = []

    def pair(points: Any, picture: Any, tag: str) -> None:
        assert tag == 'tag'
        pairs.append((stamp_ns(points), picture and stamp_ns(picture)))

    synchroniser = SweepSynchroniser(
        SyncConfig(offsets_s=(0.0,)),
        on_drop=lambda message, cause: pytest.fail(cause),
        on_reset=pytest.fail,
        on_error=lambda error: pytest.fail(repr(error)),
    )
    synchroniser.connectInput(
        message_filters.Subscriber(bench.probe, PointCloud2, '/points', qos_profile=5),
        message_filters.Subscriber(bench.probe, Image, '/image', qos_profile=5),
    )
    synchroniser.registerCallback(pair, 'tag')
    points = bench.probe.create_publisher(PointCloud2, '/points', 5)
    images = bench.probe.create_publisher(Image, '/image', 5)
    bench.wait(lambda: points.get_subscription_count() and images.get_subscription_count())
    time.sleep(0.3)
    bench.publish(
        {
            points: lambda i: cloud(START + i * PERIOD),
            images: lambda i: image(START + i * PERIOD + 7),
        },
        6,
    )
    bench.wait(lambda: len(pairs) == 6)

    assert pairs == [(START + i * PERIOD, START + i * PERIOD + 7) for i in range(6)]


def test_our_synchroniser_behind_its_cache_and_chained_on(bench: Bench) -> None:
    """Anything with registerCallback is an input, and our output feeds anything that takes one."""
    seen: list[int] = []
    source = message_filters.SimpleFilter()
    synchroniser = SweepSynchroniser(
        SyncConfig(offsets_s=()),
        on_drop=lambda message, cause: None,
        on_reset=lambda sentence: None,
        on_error=lambda error: pytest.fail(repr(error)),
    )
    synchroniser.connectInput(source)
    synchroniser.registerCallback(lambda points: seen.append(stamp_ns(points)))
    for i in range(3):
        source.signalMessage(cloud(START + i))

    assert seen == [START, START + 1, START + 2]
