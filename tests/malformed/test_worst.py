# SPDX-License-Identifier: Apache-2.0
"""The worst messages can be sent at all, and hold what their names say."""

from __future__ import annotations

from rclpy.serialization import deserialize_message, serialize_message

from tests.malformed.worst import worst_messages


def test_each_is_a_message_that_travels() -> None:
    messages = worst_messages()
    assert len({name for name, _ in messages}) == len(messages) >= 40
    assert {type(message).__name__ for _, message in messages} == {
        *('PointCloud2', 'Image', 'CompressedImage', 'CameraInfo', 'Odometry', 'PointStamped')
    }
    for name, message in messages:
        arrived = deserialize_message(serialize_message(message), type(message))
        assert str(arrived)[:10_000] == str(message)[:10_000], name
