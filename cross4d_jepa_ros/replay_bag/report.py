# SPDX-License-Identifier: Apache-2.0
"""What a replay sent, for those who judge answers by it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from cross4d_jepa_ros.files import write_atomically


@dataclass
class ReplayReport:
    """What was sent, and when it was due.

    Attributes:
        sent: Messages per topic.
        anchor_steady_ns: `time.monotonic_ns()` at which `anchor_bag_ns` was due (of the last loop).
        anchor_bag_ns: Bag stamp of the first message that was paced.
        rate: Bag seconds per second.
        skipped: Why a topic was not played.
        problems: What is damaged in the recording, or kept the replay from starting.
        max_lateness_ms: Largest delay of a message behind its due time.

    """

    sent: dict[str, int] = field(default_factory=dict)
    anchor_steady_ns: int = 0
    anchor_bag_ns: int = 0
    rate: float = 1.0
    skipped: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    max_lateness_ms: float = 0.0

    def write(self, path: Path) -> None:
        """Write it as JSON; a reader sees either the old file or the whole new one."""
        write_atomically(path, json.dumps(asdict(self), indent=2))
