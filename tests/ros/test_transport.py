# SPDX-License-Identifier: Apache-2.0
"""A process without the large-message profile knows it, and says which variable to export."""

from __future__ import annotations

from pathlib import Path

from cross4d_jepa_ros.ros.transport import PROFILE, missing_profile, profile_variable
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
