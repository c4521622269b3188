# SPDX-License-Identifier: Apache-2.0
"""Which moving transforms of a recording are sent where TF cannot be."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from cross4d_jepa_ros.bag_transforms import OdometryBridge


def stamped(parent: str, child: str) -> SimpleNamespace:
    return SimpleNamespace(header=SimpleNamespace(frame_id=parent), child_frame_id=child)


@pytest.mark.parametrize(
    ('fixed_frame', 'static', 'moving', 'kept'),
    [
        ('odom', [], ['map>odom', 'odom>base', 'base>wheel'], ['odom>base', 'base>wheel']),
        ('odom', ['base>lidar'], ['/odom>/base'], ['/odom>/base']),
        ('map', [], ['map>odom', 'odom>base'], ['map>odom', 'odom>base']),
        ('world', [], ['map>odom', 'odom>base'], ['map>odom', 'odom>base']),
        ('odom', ['odom>base'], ['base>arm', 'map>odom'], ['base>arm']),
        ('odom', ['base>a'], ['a>b', 'b>a', 'odom>base'], ['odom>base']),
    ],
)
def test_edges_below_the_fixed_frame_are_sent(fixed_frame, static, moving, kept):
    bridge = OdometryBridge(fixed_frame, [stamped(*edge.split('>')) for edge in static], set())
    got = bridge.select([stamped(*edge.split('>')) for edge in moving])
    assert [f'{x.header.frame_id}>{x.child_frame_id}' for x in got] == kept


def test_an_edge_that_odometry_carries_is_left_out():
    bridge = OdometryBridge('odom', [], {('odom', 'base')})
    got = bridge.select([stamped('odom', 'base'), stamped('base', 'arm')])
    assert [x.child_frame_id for x in got] == ['arm']
