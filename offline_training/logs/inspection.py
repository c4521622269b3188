# SPDX-License-Identifier: Apache-2.0
"""Whether the calibration of an indexed log is right: a picture, and a number for each camera."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from offline_training.logs.rows import LogFindings


def inspect(findings: LogFindings, cameras: list[dict[str, Any]], folder: Path, path: Path) -> None:
    """Add `edge_distance_px` to the report of each camera, and draw the points in its image."""
    for camera in cameras:
        camera['edge_distance_px'] = None
