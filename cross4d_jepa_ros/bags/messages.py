# SPDX-License-Identifier: Apache-2.0
"""What a recording holds, and the sentences about what is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass

MAX_PROBLEMS = 100


class BadBag(ValueError):
    """A recording, or one message of it, cannot be read or written."""


def note(problems: list[str], sentence: str) -> None:
    """Add a sentence once; a badly damaged recording is cut off at `MAX_PROBLEMS` of them."""
    if len(problems) == MAX_PROBLEMS:
        problems.append('further problems are not listed')
    elif len(problems) < MAX_PROBLEMS and sentence not in problems:
        problems.append(sentence)


@dataclass(frozen=True)
class BagTopic:
    """One topic of a recording.

    Attributes:
        name: Topic name as recorded.
        msgtype: Type such as `sensor_msgs/msg/PointCloud2`.
        count: Messages, as far as is known before they are read.
        offered_best_effort: Whether a recorded publisher offered best effort; None if not recorded.
        transient_local: Whether a recorded publisher latched its messages for late subscribers.

    """

    name: str
    msgtype: str
    count: int
    offered_best_effort: bool | None = None
    transient_local: bool = False


@dataclass(frozen=True)
class BagMessage:
    """One recorded message: `bag_stamp_ns` is when it was recorded, `raw` its CDR with header."""

    topic: str
    msgtype: str
    bag_stamp_ns: int
    raw: bytes
