# SPDX-License-Identifier: Apache-2.0
"""The times of a sweep's points, in whatever unit and from whatever clock a driver takes them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

NANOSECONDS = {'s': 1e9, 'ms': 1e6, 'us': 1e3, 'ns': 1.0}
_LONGEST_SWEEP_NS = 1e9


@np.errstate(invalid='ignore')
def time_offsets(
    raw: NDArray[Any], stamp: int, *, unit: str, sweep_stamp: str
) -> tuple[NDArray[np.int64] | None, str]:
    """Read the time of each point as its difference from the sweep's stamp.

    Units are recognised by magnitude, unless `unit` says otherwise. The same
    thresholds serve integer fields, which are never seconds.

    ==============================================  ========  ====================================
    values of the time field                        unit      read as
    ==============================================  ========  ====================================
    from 1e9, 1e12, 1e15 or 1e18 on, and span <= 1s s ms us ns absolute
    span below 10                                   s         relative where within 1 s of zero,
    span below 1e4                                  ms        otherwise absolute
    span below 1e7                                  us
    any larger span                                 ns
    ==============================================  ========  ====================================

    Absolute times are compared with the header's stamp; where they lie more than 1 s from it they
    come from another clock, and only their differences are used. Those, and relative times that
    contradict `sweep_stamp`, are shifted so that the stamp falls on the sweep's start, middle or
    end. A span above 1 s is no sweep: the time is ignored.

    Args:
        raw: (N,) numbers of any type, as the message has them.
        stamp: Of the sweep, ns.
        unit: auto, s, ms, us or ns.
        sweep_stamp: Which instant of the sweep the stamp is: start, middle or end.

    Returns:
        (N,) ns, and an empty sentence; or None and why the times are ignored.
    """
    times = raw.astype(np.float64)  # exact for every integer type of a PointField
    finite = np.isfinite(times)
    if not finite.all():
        known = times[finite]
        if not known.size:
            return None, 'The per-point time is ignored: it is not a finite number for any point.'
    elif times.size:
        known = times
    else:
        return np.empty(0, np.int64), ''
    low, high = float(known.min()), float(known.max())
    if unit == 'auto':
        unit = guess_unit(low, high - low, may_be_seconds=raw.dtype.kind == 'f')
    scale = NANOSECONDS[unit]
    first, last = low * scale, high * scale
    if not (high - low) * scale <= _LONGEST_SWEEP_NS:
        fault = (
            f'The per-point time is ignored: it spans {(high - low) * scale / 1e9:.3g} s when '
            f'read in {unit}; set points.time_unit to the unit that the driver uses.'
        )
        return None, fault

    # Relative to the first point before scaling: epoch seconds would lose their digits.
    offsets = np.rint((np.where(finite, times, low) - low) * scale).astype(np.int64)
    span = round((high - low) * scale)
    absolute = first > _LONGEST_SWEEP_NS or last < -_LONGEST_SWEEP_NS
    near = min(abs(first - stamp), abs(last - stamp)) <= 1e9
    believed = {'start': low >= 0, 'middle': low < 0 < high, 'end': high <= 0}
    if absolute and near:
        offsets += _exact_ns(low, scale) - stamp
    elif not absolute and believed[sweep_stamp]:
        offsets += _exact_ns(low, scale)
    else:
        offsets -= {'start': 0, 'middle': span // 2, 'end': span}[sweep_stamp]
    offsets[~finite] = 0
    return offsets, ''


def _exact_ns(time: float, scale: float) -> int:
    """Scale without the rounding that a float64 suffers at epoch nanoseconds."""
    whole = math.floor(time)
    return whole * int(scale) + round((time - whole) * scale)


def guess_unit(low: float, span: float, *, may_be_seconds: bool) -> str:
    """Tell the unit of per-point times by their lowest value and span (see `time_offsets`)."""
    for unit, scale in NANOSECONDS.items():
        if 1e9 <= low * scale / 1e9 < 1e10 and span * scale <= _LONGEST_SWEEP_NS:
            return unit
    if may_be_seconds and span < 10:
        return 's'
    if span < 1e4:
        return 'ms'
    return 'us' if span < 1e7 else 'ns'
