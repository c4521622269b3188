# SPDX-License-Identifier: Apache-2.0
"""The worst messages can be sent at all, and come to the same end as any other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from rclpy.serialization import deserialize_message, serialize_message

from tests.malformed.readers import read_camera_info, read_cloud, read_image, read_pose
from tests.malformed.verdicts import NO_WARNINGS
from tests.malformed.worst import worst_messages

pytestmark = NO_WARNINGS

MESSAGES = dict(worst_messages())
READERS: dict[str, Callable[..., Any]] = {
    'PointCloud2': read_cloud,
    'Image': read_image,
    'CompressedImage': read_image,
    'CameraInfo': read_camera_info,
    'Odometry': lambda message, name, size: read_pose(message, name),
    'PointStamped': lambda message, name, size: None,  # see test_clicks.py
}


def test_there_are_some_of_every_kind() -> None:
    assert len(MESSAGES) == len(worst_messages()) >= 40
    assert {type(message).__name__ for message in MESSAGES.values()} == READERS.keys()


@pytest.mark.parametrize('name', list(MESSAGES))
def test_each_travels_and_is_read_or_refused(name: str) -> None:
    message = MESSAGES[name]
    raw = serialize_message(message)
    arrived = deserialize_message(raw, type(message))
    assert str(arrived)[:10_000] == str(message)[:10_000]
    READERS[type(message).__name__](arrived, name, size=len(raw))
