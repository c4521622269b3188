# SPDX-License-Identifier: Apache-2.0
"""What a recording holds of TF."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cross4d_jepa_ros.bags.messages import BadBag, note
from cross4d_jepa_ros.bags.reading import Bag

TF_TYPE = 'tf2_msgs/msg/TFMessage'


def static_transforms(bag: Bag) -> list[Any]:
    """Read every geometry_msgs/TransformStamped of the recording's `/tf_static` topics."""
    names = [name for name in tf_topics(bag) if name.endswith('/tf_static')]
    return list(_transforms(bag, names))


def moving_transforms(bag: Bag) -> Iterator[Any]:
    """Iterate over the geometry_msgs/TransformStamped of `/tf`, in record order."""
    yield from _transforms(bag, [x for x in tf_topics(bag) if not x.endswith('/tf_static')])


def tf_topics(bag: Bag) -> list[str]:
    """Names of the recording's tf2_msgs/TFMessage topics."""
    return [topic.name for topic in bag.topics.values() if topic.msgtype == TF_TYPE]


def _transforms(bag: Bag, names: list[str]) -> Iterator[Any]:
    for message in bag.messages(names):
        try:
            transforms = bag.deserialise(message).transforms
        except BadBag as error:
            note(bag.problems, str(error))
            continue
        yield from transforms
