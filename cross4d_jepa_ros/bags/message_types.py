# SPDX-License-Identifier: Apache-2.0
"""The standard message types, for what a recording does not define and for what is written."""

from __future__ import annotations

import functools
from typing import Any

from rosbags.typesys import Stores, get_typestore
from rosbags.typesys.store import Typestore


@functools.cache
def standard_types() -> Typestore:
    return get_typestore(Stores.ROS2_JAZZY)


def message_class(msgtype: str) -> Any:
    """Return the dataclass of a standard message type, to build messages for `BagWriter`.

    Raises:
        KeyError: No such standard type.

    """
    return standard_types().types[msgtype]
