# SPDX-License-Identifier: Apache-2.0
"""What may happen on a bad day, how the node has to name it, and in which order it comes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import zip_longest
from random import Random

from cross4d_jepa_ros.soak import actions
from cross4d_jepa_ros.soak.stage import Action, nothing

NAMED_WITHIN_S = 5.0
RECOVERED_WITHIN_S = 2.0


class Named(StrEnum):
    """Whether the node has to speak of a fault."""

    ALWAYS = 'always'
    IF_DROPPED = 'if it costs a fifth of the sweeps'
    NEVER = 'never'


class Sign(StrEnum):
    """What shows that a fault is over."""

    ANSWER = 'a sweep sent after its end is answered'
    LEFT = 'images of the left camera are matched again'
    RIGHT = 'images of the right camera are matched again'
    UNSAID = 'its sentence is gone'


@dataclass(frozen=True)
class Kind:
    """One kind of fault.

    Attributes:
        says: Section of `/diagnostics` and words of the sentence there, each of which must come.
        sensors: Changes to `sensors.Settings` while it lasts.
        jump_s: Step of stamps and /clock at its beginning; it then is over at once.
        begin, end: For what is not of the sensors' making.
        hold_s: It lasts until it is named, and no shorter than this.
        sign: Of recovery.
        first: Topic whose first message after the end starts the time to recovery.

    """

    name: str
    says: tuple[tuple[str, str], ...] = ()
    named: Named = Named.ALWAYS
    sensors: Mapping[str, object] = field(default_factory=dict)
    jump_s: float = 0.0
    begin: Action = nothing
    end: Action = nothing
    hold_s: float = 0.0
    sign: Sign = Sign.ANSWER
    first: str = 'points'


# One at a time: sweeps stay away, or the node itself goes.
LOUD = (
    Kind('lidar_pauses', (('points', 'nothing arrived'),), sensors={'points': 'none'}),
    Kind('lidar_goes', (('points', 'nobody publishes'),), sensors={'points': 'gone'}),
    Kind(
        'publisher_restarts_with_other_qos',
        named=Named.NEVER,
        sensors={'points_qos': 'best_effort'},
        hold_s=1.0,
    ),
    Kind(
        'publisher_restarts_latched',
        named=Named.NEVER,
        sensors={'points_qos': 'latched'},
        hold_s=1.0,
    ),
    Kind('clock_jumps_back', (('node', 'jumped back'),), jump_s=-60.0),
    Kind('clock_jumps_ahead', (('node', 'jumped ahead'),), jump_s=300.0),
    Kind(
        'two_publishers',
        (('points', '2 publishers'),),
        begin=actions.second_publisher_comes,
        end=actions.second_publisher_goes,
    ),
    Kind(
        'burst_50hz',
        (('node', 'too slow'),),
        Named.IF_DROPPED,
        {'points': 'dense', 'points_hz': 50.0},
        hold_s=3.0,
    ),
    Kind(
        'huge_sweeps',
        (('node', 'too slow'),),
        Named.IF_DROPPED,
        {'points': 'huge', 'points_hz': 4.0},
        hold_s=3.0,
    ),
    Kind('malformed_clouds', (('points', '(malformed)'),), sensors={'points': 'malformed'}),
    Kind('zero_stamps', (('points', 'zero stamps'),), sensors={'points': 'zero_stamps'}),
    Kind('no_transform', (('points', '(no_transform)'),), sensors={'points': 'elsewhere'}),
    Kind('memory_runs_out', (('points', '(out_of_memory)'),), begin=actions.starve_once),
    Kind(
        'memory_stays_out',
        (('node', 'memory ran out 3 times'),),
        begin=actions.starve_thrice,
        end=actions.activate,
    ),
)
LIFECYCLE = Kind(
    'lifecycle_at_random',
    (('node', 'no sweep is taken'),),
    begin=actions.transitions,
    end=actions.activate,
)
SIGNALS = (
    Kind('sigint', named=Named.NEVER, begin=actions.interrupt, end=actions.start_again),
    Kind('sigterm', named=Named.NEVER, begin=actions.terminate, end=actions.start_again),
)
# Beside one of the quiet kinds: sweeps are answered all the while.
CAMERAS = (
    Kind(
        'camera_goes',
        (('image0', 'nobody publishes'),),
        sensors={'left': 'gone'},
        sign=Sign.LEFT,
        first='left',
    ),
    Kind(
        'both_cameras_freeze',
        (('image0', 'nothing arrived'), ('image1', 'nothing arrived')),
        sensors={'left': 'none', 'right': 'none'},
        sign=Sign.RIGHT,
        first='right',
    ),
    Kind(
        'images_200_ms_late',
        (('image1', 'ms after the sweep of their time'),),
        sensors={'right': 'late'},
        sign=Sign.RIGHT,
        first='right',
    ),
    Kind(
        'malformed_images',
        (('image0', 'are not used'), ('image1', 'are not used')),
        sensors={'left': 'malformed', 'right': 'malformed'},
        sign=Sign.UNSAID,
        first='right',
    ),
)
QUIET = (
    Kind('parameters_under_load', named=Named.NEVER, begin=actions.set_parameters),
    Kind('clicks_flood', named=Named.NEVER, begin=actions.flood_with_clicks),
    Kind(
        'subscriber_never_reads',
        named=Named.NEVER,
        begin=actions.stop_the_reader,
        end=actions.wake_the_reader,
        hold_s=4.0,
    ),
    Kind(
        'odometry_stops',
        (('node', 'ego-motion'),),
        sensors={'odometry': 'none'},
        sign=Sign.UNSAID,
        first='odometry',
    ),
    Kind('clock_stops', (('node', 'stood still'),), sensors={'clock': 'none'}, sign=Sign.UNSAID),
)
KINDS = (LIFECYCLE, *LOUD, *SIGNALS, *CAMERAS, *QUIET)


@dataclass
class Fault:
    """What came of one fault. Times in s; None where there is nothing to time.

    Attributes:
        t: When it began, since the beginning of the soak.
        named_after_s: From its beginning to the first `/diagnostics` that names it.
        recovered_after_s: From the first good message after its end to the sign of recovery.
        unsaid_after_s: From there until `/diagnostics` no longer names it.
        problem: What went wrong besides.

    """

    kind: str
    t: float
    named_after_s: float | None = None
    recovered_after_s: float | None = None
    unsaid_after_s: float | None = None
    problem: str = ''

    def note(self, problem: str) -> None:
        """Add to what went wrong."""
        self.problem = '; '.join(filter(None, (self.problem, problem)))

    def judge(self, kind: Kind, *, costly: bool) -> None:
        """Say what is missing.

        Args:
            kind: Of this fault.
            costly: Whether a fifth of the sweeps were dropped meanwhile.

        """
        must = kind.named == Named.ALWAYS or (kind.named == Named.IF_DROPPED and costly)
        if must and not _within(self.named_after_s, NAMED_WITHIN_S):
            self.note(f'not named within {NAMED_WITHIN_S:g} s')
        if not _within(self.recovered_after_s, RECOVERED_WITHIN_S):
            self.note(f'not recovered within {RECOVERED_WITHIN_S:g} s')


def _within(seconds: float | None, limit_s: float) -> bool:
    return seconds is not None and seconds <= limit_s


def turns(seed: int) -> Iterator[list[tuple[Kind, ...]]]:
    """Yield one cycle after the other: every kind once, those of a tuple at the same time.

    The first cycle begins with the signal that ends the watched node. Each goes on with the
    transitions, which give the memory of the model back, so that at the end of every cycle the
    same has happened since and the memory of one can be held against that of another.
    """
    draw = Random(seed)
    first = True
    while True:
        quiet, cameras, signals = (draw.sample(k, len(k)) for k in (QUIET, CAMERAS, SIGNALS))
        begin = [(signals.pop(),), (LIFECYCLE,)] if first else [(LIFECYCLE,)]
        together = zip_longest(quiet, cameras, signals)
        rest = [tuple(filter(None, kinds)) for kinds in together] + [(kind,) for kind in LOUD]
        draw.shuffle(rest)
        yield [*begin, *rest]
        first = False
