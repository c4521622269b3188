# SPDX-License-Identifier: Apache-2.0
"""The Python classes of message types that are known by name only."""

from __future__ import annotations

import contextlib
import importlib
import re
from typing import Any

_INTERFACE = re.compile(r'([a-z][a-z0-9_]*)/(msg|srv|action)/([A-Z]\w*)', re.ASCII)


def message_type(msgtype: str) -> Any:
    """Import the Python class of a type such as `sensor_msgs/msg/Image`.

    Raises:
        ImportError: Its package is not installed here or lacks it.

    """
    # A recording may call its types anything, and importing a module runs it.
    named = _INTERFACE.fullmatch(msgtype)
    kind = None
    if named:
        with contextlib.suppress(ImportError, AttributeError):
            kind = getattr(importlib.import_module(f'{named[1]}.{named[2]}'), named[3])
    if not hasattr(kind, '_TYPE_SUPPORT'):
        msg = f'{msgtype} is not installed here'
        raise ImportError(msg)
    return kind
