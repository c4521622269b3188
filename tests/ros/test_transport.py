# SPDX-License-Identifier: Apache-2.0
"""A process without the large-message profile knows it, and says which variable to export."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import rclpy

from cross4d_jepa_ros.ros import transport
from cross4d_jepa_ros.ros.transport import (
    OWN_DOMAINS,
    PROFILE,
    missing_profile,
    profile_variable,
    use_own_domain,
)
from cross4d_jepa_ros.shared_files import shared_file

FAST_DDS = 'rmw_fastrtps_cpp'


def test_shipped_profile_satisfies() -> None:
    assert missing_profile(FAST_DDS, {profile_variable(): str(shared_file(PROFILE))}) is None


def test_absent_profile_names_the_variable_and_the_file() -> None:
    sentence = missing_profile(FAST_DDS, {})

    assert sentence is not None
    assert profile_variable() in sentence
    assert PROFILE in sentence


def test_variable_of_the_other_ros_line_does_not_count() -> None:
    names = {'FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE'}
    (other,) = names - {profile_variable()}

    assert missing_profile(FAST_DDS, {other: str(shared_file(PROFILE))}) is not None


def test_unreadable_or_small_profile_is_named(tmp_path: Path) -> None:
    small = tmp_path / 'small.xml'
    small.write_text('<segment_size>524288</segment_size>')
    variable = profile_variable()

    assert 'cannot be read' in str(missing_profile(FAST_DDS, {variable: '/nowhere.xml'}))
    assert '8 MB' in str(missing_profile(FAST_DDS, {variable: str(small)}))


def test_other_middleware_needs_no_profile() -> None:
    assert missing_profile('rmw_cyclonedds_cpp', {}) is None


def test_a_domain_that_somebody_is_in_is_not_taken(
    ros_domain: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = transport._taken_ports()
    free = next(one for one in OWN_DOMAINS if taken.isdisjoint(transport._ports(one)))
    monkeypatch.setattr(transport, 'OWN_DOMAINS', [ros_domain, free])
    monkeypatch.setattr(os, 'getpid', lambda: 0)
    for name in ('ROS_DOMAIN_ID', 'ROS_AUTOMATIC_DISCOVERY_RANGE'):
        monkeypatch.delenv(name, raising=False)
    first, second = rclpy.Context(), rclpy.Context()
    try:
        for context in (first, second):
            rclpy.init(context=context, domain_id=ros_domain)
        gone = rclpy.create_node('first', context=first)
        stays = rclpy.create_node('second', context=second)
        gone.destroy_node()
        use_own_domain()
        stays.destroy_node()
    finally:
        first.try_shutdown()
        second.try_shutdown()

    assert os.environ.pop('ROS_DOMAIN_ID') == str(free)
    assert os.environ.pop('ROS_AUTOMATIC_DISCOVERY_RANGE') == 'LOCALHOST'


def test_the_domain_of_the_user_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('ROS_DOMAIN_ID', '42')
    use_own_domain()

    assert os.environ['ROS_DOMAIN_ID'] == '42'
