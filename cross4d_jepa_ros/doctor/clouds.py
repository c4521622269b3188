# SPDX-License-Identifier: Apache-2.0
"""What the fields of a cloud are read as, and which parameters they ask for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cross4d_jepa_ros.health import Finding, Level
from cross4d_jepa_ros.sensing.point_clouds import (
    CloudConfig,
    CloudDecoder,
    MalformedCloud,
    field_roles,
    stamp_ns,
    structured_view,
)
from cross4d_jepa_ros.sensing.point_times import NANOSECONDS, guess_unit

_SECOND_NS = 1e9
# Of the time from sweep to sweep: what the points of one may take. Half-turn sensors take little.
LEAST_OF_PERIOD, MOST_OF_PERIOD = 0.15, 1.5


@dataclass(frozen=True)
class TimeField:
    """The per-point time of a cloud.

    Attributes:
        name: Of the field.
        unit: s, ms, us or ns, by its numbers.
        span_ns: From the first point to the last.
        sweep_stamp: Which instant of the sweep its stamp is; '' where the times are of a clock.

    """

    name: str
    unit: str
    span_ns: float
    sweep_stamp: str


def time_field(message: Any) -> TimeField | None:
    """Look at the per-point time; None without one.

    Raises:
        MalformedCloud: The cloud cannot be read.

    """
    view = structured_view(message).reshape(-1)
    name = field_roles(view).get('time')
    if name is None:
        return None
    raw = view[name]
    times = raw.astype(np.float64)
    times = times[np.isfinite(times)]
    if not times.size:
        return None
    low, high = float(times.min()), float(times.max())
    unit = guess_unit(low, high - low, may_be_seconds=raw.dtype.kind == 'f')
    scale = NANOSECONDS[unit]
    if max(abs(low), abs(high)) * scale > _SECOND_NS:
        sweep_stamp = ''
    elif low >= 0:
        sweep_stamp = 'start'
    else:
        sweep_stamp = 'end' if high <= 0 else 'middle'
    return TimeField(name, unit, (high - low) * scale, sweep_stamp)


def fields(topic: str, message: Any, period_ns: float = 0.0) -> tuple[Finding, dict[str, Any]]:
    """Judge one cloud, and say which `points.*` parameters suit it.

    Args:
        topic: Its name.
        message: PointCloud2.
        period_ns: From sweep to sweep; 0 where it is not known.

    """
    about = f'fields {topic}'
    decoder = CloudDecoder(CloudConfig())
    try:
        roles = field_roles(structured_view(message))
        time = time_field(message)
        sweep = decoder.decode(message)
    except MalformedCloud as error:
        return Finding(Level.ERROR, about, f'{error}'), {}
    names = ' '.join(field.name for field in message.fields)
    frame, usable, all_points = sweep.frame_id, len(sweep.xyz), sweep.point_count
    said = [f'{names}; {sweep.height} x {sweep.width} points, {usable} usable, frame {frame!r}']
    doubts, parameters = list(decoder.notes.values()), dict[str, Any]()
    if usable < all_points / 2:
        doubts.append(f'only {usable} of {all_points} points are measurements')
    if 'intensity' in roles:
        said.append(f'{roles["intensity"]} up to {sweep.intensity_ceiling:.0f}')
    else:
        doubts.append('no intensity: the model was trained with it and takes it for 0')
    if sweep.ring is not None and len(sweep.ring):
        said.append(f'{len(np.unique(sweep.ring))} rings')
    elif sweep.ring is None:
        said.append('no ring, which nothing needs')
    if time is None:
        said.append('no per-point time: the sweep is taken as measured at once')
    else:
        span, kind = time.span_ns / 1e6, 'relative' if time.sweep_stamp else 'of a clock'
        said.append(f'{time.name} in {time.unit}, {kind}, over {span:.1f} ms')
        odd = (
            time.span_ns > MOST_OF_PERIOD * period_ns or time.span_ns < LEAST_OF_PERIOD * period_ns
        )
        if period_ns and time.span_ns and odd and 'time' not in decoder.notes:
            doubts.append(
                f'{time.name} spans {span:.4g} ms, but sweeps come every '
                f'{period_ns / 1e6:.0f} ms: is it in an odd unit? Let the driver give s, ms, us '
                'or ns (points.time_unit)'
            )
        apart_s = _from_stamp_s(message, time)
        if not time.sweep_stamp and apart_s > 1:
            doubts.append(
                f'{time.name} is {apart_s:.1f} s from header.stamp, of another clock: only '
                'differences are used, say with points.sweep_stamp which instant the stamp is'
            )
        spread = time.span_ns > 0 and 'time' not in decoder.notes
        if spread:
            parameters['points.time_unit'] = time.unit
        if spread and time.sweep_stamp:
            parameters['points.sweep_stamp'] = time.sweep_stamp
            said.append(f'stamped at the {time.sweep_stamp}')
    level = Level.WARN if doubts else Level.OK
    return Finding(level, about, '; '.join((*doubts, *said))), parameters


def _from_stamp_s(message: Any, time: TimeField) -> float:
    """How far the first point's time is from the header's stamp."""
    first = float(np.nanmin(structured_view(message)[time.name].astype(np.float64)))
    return abs(first * NANOSECONDS[time.unit] - stamp_ns(message)) / 1e9
