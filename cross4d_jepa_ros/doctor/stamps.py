# SPDX-License-Identifier: Apache-2.0
"""What the stamps of a topic say: rate, gaps, disorder, and how they stand to the clock."""

from __future__ import annotations

import bisect
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from cross4d_jepa_ros.health import Finding, Level
from cross4d_jepa_ros.sensing.synchronisation import SyncConfig

_MS = 1e6
SYNC = SyncConfig(offsets_s=())
TOLERANCE_NS = round(SYNC.tolerance_s * 1e9)
# A step longer than this many usual ones is a gap.
GAP_STEPS = 1.5
# Stamps so far behind the clock are late, and so far ahead of it are of another clock.
LATE_NS, AHEAD_NS = 500_000_000, 20_000_000
DAY_NS = 86_400_000_000_000
# Offsets belong together where no step between them is longer, and count as one of several usual
# ones where so large a share of the sweeps has them.
TOGETHER_NS, USUAL_SHARE = 8_000_000, 0.2
# So few sweeps without an image are nothing to speak of.
EDGE_SWEEPS, RARE_SHARE = 2, 0.02
# Of a camera that is triggered with the LiDAR: its offsets vary by less.
STEADY_NS = 15_000_000


@dataclass
class Stamps:
    """Of one topic, in recording order: header stamps, and when each was recorded (ns)."""

    header_ns: list[int] = field(default_factory=list)
    recorded_ns: list[int] = field(default_factory=list)

    @property
    def usable_ns(self) -> list[int]:
        """Header stamps that are not zero, sorted."""
        return sorted(stamp for stamp in self.header_ns if stamp > 0)

    @property
    def period_ns(self) -> float:
        """Median step between different stamps; 0 where there are not two."""
        steps = [b - a for a, b in pairwise(self.usable_ns) if b > a]
        return statistics.median(steps) if steps else 0.0

    @property
    def jitter_ns(self) -> float:
        """How far 19 of 20 steps are from the median one, those over gaps left out."""
        period_ns = self.period_ns
        steps = [b - a for a, b in pairwise(self.usable_ns) if 0 < b - a <= GAP_STEPS * period_ns]
        off = sorted(abs(step - period_ns) for step in steps)
        return off[(len(off) * 19 - 1) // 20] if off else 0.0

    @property
    def delay_ns(self) -> float | None:
        """Median of recorded less stamped; None without usable stamps."""
        pairs = zip(self.header_ns, self.recorded_ns, strict=True)
        delays = [recorded - stamp for stamp, recorded in pairs if stamp > 0]
        return statistics.median(delays) if delays else None


@dataclass(frozen=True)
class Offsets:
    """Image stamp less sweep stamp of the nearest image of every sweep.

    Attributes:
        nearest_ns: Of all sweeps, by their stamps; empty without images.
        near_ns: Those within the tolerance, sorted.
        sweeps: How many sweeps there are.
        groups: (fewest, median, most) of each usual offset, where there are several; ns.

    """

    nearest_ns: tuple[int, ...]
    near_ns: tuple[int, ...]
    sweeps: int
    groups: tuple[tuple[int, int, int], ...]

    @property
    def aim_s(self) -> float:
        """What `sync.offsets` is to be: the offset where it is steady, else 0."""
        if not self.near_ns or max(self.near_ns) - min(self.near_ns) > STEADY_NS:
            return 0.0
        return round(statistics.median(self.near_ns) / 1e9, 3)


def timing(topic: str, stamps: Stamps, clock: str, *, paced: bool) -> Finding:
    """Judge the stamps of one topic.

    Args:
        topic: Its name.
        stamps: Not empty.
        clock: What `recorded_ns` is, for the sentence.
        paced: Whether to speak of jitter and gaps; of a camera `matching` does.

    """
    count, period_ns = len(stamps.header_ns), stamps.period_ns
    zero = sum(stamp <= 0 for stamp in stamps.header_ns)
    about = f'stamps {topic}'
    if zero == count:
        text = f'all {count} are zero: make the driver fill header.stamp, or set'
        return Finding(Level.ERROR, about, f'{text} sync.stamp_source: arrival')
    rate = f'{1e9 / period_ns:.1f} Hz' if period_ns else 'a single time'
    said, doubts = [f'{count} at {rate}'], []
    if paced and period_ns:
        said[0] += f', jitter {stamps.jitter_ns / _MS:.1f} ms'
    if zero:
        doubts.append(f'{zero} are zero: these sweeps or images match nothing')
    steps = [b - a for a, b in pairwise(stamp for stamp in stamps.header_ns if stamp > 0)]
    back = [step for step in steps if step < 0]
    if back:
        far = -min(back) / 1e9
        kind = 'a loop or clock jump' if far > SYNC.max_backward_s else 'out of order, dropped'
        doubts.append(f'{len(back)} go back, by up to {far:.3f} s ({kind})')
    if same := sum(step == 0 for step in steps):
        doubts.append(f'{same} are the same as the one before: of such sweeps one is answered')
    doubts += gaps(stamps) if paced else []
    delay_ns = stamps.delay_ns
    if delay_ns is not None:
        side = 'behind' if delay_ns >= 0 else 'ahead of'
        if -AHEAD_NS <= delay_ns <= LATE_NS:
            said.append(f'{abs(delay_ns) / _MS:.0f} ms {side} the {clock}')
        else:
            replayed = 'is it a recording that plays without --clock? Else ' * (delay_ns > DAY_NS)
            doubts.append(
                f'{abs(delay_ns) / 1e9:.3f} s {side} the {clock}: {replayed}let the driver stamp '
                "with the host's clock (PTP, NTP), or set sync.stamp_source: arrival"
            )
    return Finding(Level.WARN if doubts else Level.OK, about, '; '.join((*doubts, *said)))


def gaps(stamps: Stamps) -> list[str]:
    """Say where stamps are missing; nothing where none are."""
    known, period_ns = stamps.usable_ns, stamps.period_ns
    wide = [(b - a, a) for a, b in pairwise(known) if b - a > GAP_STEPS * period_ns > 0]
    if not wide:
        return []
    longest, at_ns = max(wide)
    many = 'one gap' if len(wide) == 1 else f'{len(wide)} gaps, the longest'
    place = (at_ns - known[0]) / 1e9
    said = f'{many} of {longest / _MS:.0f} ms, {place:.2f} s after its first message'
    return [f'{said} (driver, USB, disk?)']


def offsets_of(sweeps: Stamps, images: Stamps) -> Offsets:
    """Find the nearest image of every sweep."""
    known = images.usable_ns
    every = sweeps.usable_ns
    nearest = []
    for sweep in every if known else ():
        place = bisect.bisect_left(known, sweep)
        beside = known[max(0, place - 1) : place + 1]
        nearest.append(min((image - sweep for image in beside), key=abs))
    near = sorted(offset for offset in nearest if abs(offset) <= TOLERANCE_NS)
    groups: list[list[int]] = [[]]
    for offset in near:
        if groups[-1] and offset - groups[-1][-1] > TOGETHER_NS:
            groups.append([])
        groups[-1].append(offset)
    usual = [group for group in groups if group and len(group) >= USUAL_SHARE * len(near)]
    several = [(x[0], round(statistics.median(x)), x[-1]) for x in usual] if len(usual) > 1 else []
    return Offsets(tuple(nearest), tuple(near), len(every), tuple(several))


def clocks_apart_ns(sweeps: Stamps, images: Stamps) -> float | None:
    """How far the images' clock is behind that of the sweeps; None without usable stamps."""
    sweep_delay_ns, image_delay_ns = sweeps.delay_ns, images.delay_ns
    if sweep_delay_ns is None or image_delay_ns is None:
        return None
    return image_delay_ns - sweep_delay_ns


def matching(topic: str, sweeps: Stamps, images: Stamps, offsets: Offsets) -> Finding:
    """Judge how the images of a camera meet the sweeps."""
    about = f'sync {topic}'
    first, last = sweeps.usable_ns[:1], sweeps.usable_ns[-1:]
    if not (first and images.usable_ns):
        return Finding(Level.ERROR, about, 'no stamps to match by: set sync.stamp_source: arrival')
    said, doubts = [], []
    if offsets.near_ns:
        low, middle, high = _ms(
            (offsets.near_ns[0], statistics.median(offsets.near_ns), offsets.near_ns[-1])
        )
        every = f'{low} .. {high}'
        one = f'image minus sweep {middle} ms ({every})'
        said.append(f'in all {every} ms' if offsets.groups else one)
    if images.period_ns:
        said.append(f'{1e9 / images.period_ns:.1f} Hz, jitter {images.jitter_ns / _MS:.1f} ms')
    for name, late_ns in (
        ('starts {} s after the sweeps', images.usable_ns[0] - first[0]),
        ('ends {} s before the sweeps', last[0] - images.usable_ns[-1]),
    ):
        if late_ns > TOLERANCE_NS + images.period_ns:
            doubts.append(f'it {name.format(f"{late_ns / 1e9:.2f}")}')
    doubts += gaps(images)
    if offsets.groups:
        parts = ['{1} ms ({0} .. {2})'.format(*_ms(group)) for group in offsets.groups]
        doubts.append(
            f'image minus sweep is usually {" or ".join(parts)}: it is not triggered with the '
            'LiDAR, which costs nothing where ego-motion is known (TF or odometry)'
        )
    if missing := offsets.sweeps - len(offsets.near_ns):
        within = f'within {SYNC.tolerance_s * 1e3:.0f} ms (sync.tolerance)'
        # The first and the last one may stand at the edge.
        rare = missing <= max(EDGE_SWEEPS, RARE_SHARE * offsets.sweeps) and offsets.near_ns
        text = f'{missing} of {offsets.sweeps} sweeps have no image {within}'
        (said if rare else doubts).append(text)
    apart_ns = clocks_apart_ns(sweeps, images)
    if apart_ns is not None and abs(apart_ns) > LATE_NS:
        doubts.append(
            f'its clock is {apart_ns / 1e9:+.3f} s behind that of the sweeps: synchronise them '
            '(PTP, NTP), or set sync.stamp_source: arrival'
        )
    if not offsets.near_ns:
        return Finding(Level.ERROR, about, '; '.join(doubts))
    return Finding(Level.WARN if doubts else Level.OK, about, '; '.join((*doubts, *said)))


def _ms(values: Sequence[float]) -> list[str]:
    return [f'{value / _MS:+.1f}' for value in values]
