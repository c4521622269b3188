# SPDX-License-Identifier: Apache-2.0
"""Whether the calibration of an indexed log is right: a picture, and a number for each camera."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cross4d_jepa_ros.calibration_check import edge_distances_px, panel
from cross4d_jepa_ros.correspondence_picture import Panel, draw
from offline_training.logs.reader import LogReader
from offline_training.logs.table import Index, IndexedSweep

# Sweeps of each camera of a log over which the distances between edges are taken.
SAMPLES = 8


def inspect(
    rows: Sequence[IndexedSweep], cameras: Sequence[dict[str, Any]], folder: Path, picture: Path
) -> None:
    """Draw the points of one sweep in its images, and measure how far edges are apart.

    Args:
        rows: Of one log.
        cameras: Reports of its cameras; get `edge_distance_px`, and `edge_chance_px` for the same
            with shifted images, both None where there are too few edges.
        folder: What the rows' `log` starts from.
        picture: PNG to write; where no camera has an image, an old one is removed.

    """
    usable = [row for row in rows if row.usable]
    with LogReader(Index((), folder)) as reader:
        for number, camera in enumerate(cameras):
            seen = [row for row in usable if row.shots[number] is not None]
            places = np.unique(np.linspace(0, len(seen) - 1, SAMPLES).astype(int)) if seen else ()
            panels = [_panel(reader, seen[place], number) for place in places]
            camera['edge_distance_px'], camera['edge_chance_px'] = edge_distances_px(panels)
        middle = _middle(usable)
        if middle is None:
            picture.unlink(missing_ok=True)
            return
        panels = [
            _panel(reader, middle, number) for number, shot in enumerate(middle.shots) if shot
        ]
        draw(picture, panels, title=f'{middle.log}, sweep at {middle.stamp_ns / 1e9:.3f} s')


def _middle(rows: Sequence[IndexedSweep]) -> IndexedSweep | None:
    """Return the sweep in the middle of those with the most images; None without any."""
    most = max((sum(map(bool, row.shots)) for row in rows), default=0)
    best = [row for row in rows if most and sum(map(bool, row.shots)) == most]
    return best[len(best) // 2] if best else None


def _panel(reader: LogReader, row: IndexedSweep, number: int) -> Panel:
    shot = row.shots[number]
    assert shot is not None
    read = reader.sweep(row)
    return panel(
        shot.topic,
        reader.image(row, number),
        shot.camera,
        shot.camera_from_base,
        read.xyz,
        shot.offset_ns,
        read.time_offset_ns,
    )
