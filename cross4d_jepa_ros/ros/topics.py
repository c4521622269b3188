# SPDX-License-Identifier: Apache-2.0
"""What a topic of the node is called, carries and means; each stands where it is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Topic:
    """One topic or service of the node.

    Attributes:
        name: As it is created; in braces what is filled in, as in `~/input/image{i}`.
        types: Classes by their ROS name; several: whichever is offered. None: not installed.
        content: What it carries, for people.

    """

    name: str
    types: Mapping[str, Any]
    content: str

    @property
    def short_name(self) -> str:
        """The last part of the name."""
        return self.name.rpartition('/')[2]
