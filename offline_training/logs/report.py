# SPDX-License-Identifier: Apache-2.0
"""What an index says of each log: what is usable, and why the rest is not."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from rich import box
from rich.table import Table

from cross4d_jepa_ros.calibration_check import LEAST_COVERAGE, edge_doubt, why_hardly_covered
from cross4d_jepa_ros.correspondence import LATE_NS
from offline_training.logs.bag_index import AHEAD_NS
from offline_training.logs.rows import CameraFindings, LogFindings
from offline_training.logs.table import Shot

_MS = 1e6


def log_report(findings: LogFindings) -> dict[str, Any]:
    """Sum up one log for the JSON report.

    Returns:
        `log`; `sweeps` and `usable` (counts); `segments`; `seconds` from the first to the last
        stamp; `points` (median of the usable sweeps); `with_pose`, `with_labels` (counts); `flags`
        (counts); `coverage` (mean over the sweeps with an image, None without); `cameras`;
        `sentences` for a person.

    """
    usable = [row for row in findings.rows if row.usable]
    stamps = [row.stamp_ns for row in usable]
    return {
        'log': findings.log,
        'sweeps': len(findings.rows),
        'usable': len(usable),
        'segments': len({row.segment for row in usable}),
        'seconds': round((max(stamps) - min(stamps)) / 1e9, 3) if stamps else 0.0,
        'points': statistics.median([row.points for row in usable] or [0]),
        'with_pose': sum(row.fixed_from_base is not None for row in usable),
        'with_labels': sum(bool(row.labels) for row in usable),
        'flags': dict(sorted(Counter(flag for row in findings.rows for flag in row.flags).items())),
        'coverage': _mean(row.coverage for row in usable if any(row.shots)),
        'cameras': [
            _camera(camera, [row.shots[number] for row in usable])
            for number, camera in enumerate(findings.cameras)
        ],
        'sentences': sentences(findings),
    }


def sentences(findings: LogFindings) -> list[str]:
    """Say what a person has to know of a log, most important first."""
    usable = [row for row in findings.rows if row.usable]
    said = [low_coverage(findings)]
    if not usable:
        said.append('no sweep of it is usable')
    elif not findings.cameras:
        said.append('it has no images: only objectives that need no camera can learn from it')
    for number, camera in enumerate(findings.cameras):
        shots = [row.shots[number] for row in usable]
        if usable and not any(shots):
            said.append(f'{camera.topic}: {_why_none(camera)}')
        elif camera.sentence:
            said.append(f'{camera.topic}: {camera.sentence}')
    for cause, (first, count) in findings.notes.items():
        said.append(f'{cause}: {first}' + (f' ({count} sweeps)' if count > 1 else ''))
    return [sentence for sentence in (*said, *findings.problems) if sentence]


def doubts(cameras: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name the cameras whose edges are no nearer to those of the points than chance has it.

    Args:
        cameras: Reports with the distances of `inspect`.

    """
    said = []
    for camera in cameras:
        doubt = edge_doubt(camera['edge_distance_px'], camera['edge_chance_px'])
        if doubt:
            said.append(f'{camera["topic"]}: {doubt}')
    return said


def low_coverage(findings: LogFindings) -> str:
    """Name the likely cause where images that can be projected into show hardly any point.

    Returns:
        A sentence; '' where the coverage is enough, or cannot be judged for want of images or
        calibration.

    """
    usable = [row for row in findings.rows if row.usable]
    seen = [row.coverage for row in usable if any(row.shots)]
    if seen and statistics.fmean(seen) >= LEAST_COVERAGE:
        return ''
    causes = []
    for number, camera in enumerate(findings.cameras):
        if any(row.shots[number] for row in usable):
            hardly = camera.ahead and why_hardly_covered(camera.ahead, camera.inside)
            causes.append(f'{camera.topic}: {hardly or "well covered"}')
        elif camera.images and not camera.sentence and usable:
            causes.append(f'{camera.topic}: {_why_none(camera)}')
    if not causes:
        return ''
    share = f'{statistics.fmean(seen):.1%}' if seen else 'none'
    return (
        f'{share} of the points have a visible pixel, {LEAST_COVERAGE:.0%} are wanted; '
        + '; '.join(causes)
    )


def _why_none(camera: CameraFindings) -> str:
    """Say why a camera has no image for any sweep."""
    if camera.sentence:
        return f'{camera.sentence}; here: --camera-infos, --extrinsics'
    offsets_ns = [abs(offset_ns) for offset_ns in camera.offsets_ns if offset_ns is not None]
    if not camera.images:
        return 'it has no readable image'
    if not offsets_ns:
        return f'none of its images was recorded within {AHEAD_NS / 1e9:.0f} s of a sweep'
    return (
        f'its nearest image is {min(offsets_ns) / _MS:.0f} ms from a sweep, usually '
        f'{statistics.median(offsets_ns) / _MS:.0f} ms, and at most {LATE_NS / _MS:.0f} ms are of '
        'use: if the clocks differ, give timeshift_cam_lidar with --extrinsics'
    )


def _camera(camera: CameraFindings, shots: Sequence[Shot | None]) -> dict[str, Any]:
    present = [shot for shot in shots if shot is not None]
    offsets = [shot.offset_ns / _MS for shot in present]
    return {
        'topic': camera.topic,
        'images': camera.images,
        'matched': len(present),
        'offset_ms': {
            'median': round(statistics.median(offsets), 3),
            'min': round(min(offsets), 3),
            'max': round(max(offsets), 3),
        }
        if offsets
        else None,
        'coverage': _mean(shot.coverage for shot in present),
    }


def _mean(values: Iterable[float]) -> float | None:
    known = list(values)
    return round(statistics.fmean(known), 4) if known else None


def report_table(reports: Sequence[Mapping[str, Any]]) -> Table:
    """Lay out the reports of all logs for the terminal, a line for each camera."""
    made = Table(box=box.SIMPLE, pad_edge=False, collapse_padding=True)
    made.add_column('log and cameras', overflow='fold')
    for name in ('usable', 'poses', 'images', 'offset ms', 'coverage', 'edges px'):
        made.add_column(name, justify='right', no_wrap=True)
    for report in reports:
        usable = f'{report["usable"]}/{report["sweeps"]}'
        made.add_row(PurePosixPath(report['log']).name, usable, str(report['with_pose']))
        for camera in report['cameras']:
            made.add_row(*_camera_cells(camera))
    return made


def _camera_cells(camera: Mapping[str, Any]) -> list[str]:
    offset, coverage, edges = camera['offset_ms'], camera['coverage'], camera['edge_distance_px']
    chance = camera['edge_chance_px']
    return [
        f'  {camera["topic"].removesuffix("/compressed").removesuffix("/image_raw")}',
        '',
        '',
        str(camera['matched']),
        '{median:.0f} [{min:.0f}, {max:.0f}]'.format(**offset) if offset else '-',
        '-' if coverage is None else f'{coverage:.1%}',
        '-' if edges is None else f'{edges:.1f} ({chance:.1f})',
    ]
