# SPDX-License-Identifier: Apache-2.0
"""Why nothing (or too little) comes out: from what the node observes to sentences. No ROS.

Every finding is one line that names the cause, with the figures seen, and the knob to turn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from cross4d_jepa_ros.ledger import Drop
from cross4d_jepa_ros.sensing.image_history import CameraStatistics
from cross4d_jepa_ros.sensing.synchronisation import SyncConfig

SILENT_AFTER_S = 2.5
PAUSED_CLOCK_AFTER_S = 2.0
MISSING_SHARE = 0.5
LOSS_SHARE = 0.05
SLOW_SHARE = 0.1
STUCK_AFTER_S = 2.5
STUCK_AFTER_STEPS = 5
CLOCKS_APART_NS = 5 * 10**9


class Level(IntEnum):
    """Levels of diagnostic_msgs/DiagnosticStatus."""

    OK = 0
    WARN = 1
    ERROR = 2


@dataclass(frozen=True)
class Finding:
    """One line for the log and `/diagnostics`."""

    level: Level
    about: str
    sentence: str


def best_effort_refused(
    topic: str, publisher: str = 'the publisher', reader: str = 'the node'
) -> str:
    """Say that somebody asks for reliable where best effort is offered."""
    return (
        f'incompatible QoS on {topic}: {publisher} offers best_effort, {reader} '
        'asks for reliable and gets nothing: set qos.reliability:=auto or best_effort'
    )


@dataclass(frozen=True)
class InputState:
    """What is known of one input topic; `senders` are the nodes behind its publishers."""

    name: str
    topic: str
    publishers: int = 0
    senders: tuple[str, ...] = ()
    candidates: tuple[str, ...] = ()
    incompatible: str = ''
    received: int = 0
    silent_s: float = 0.0
    lost: int = 0


@dataclass(frozen=True)
class ClockState:
    """The node's ROS clock. `stopped_s` counts on the steady clock."""

    simulated: bool = False
    publishers: int = 0
    stopped_s: float = 0.0


@dataclass(frozen=True)
class Observation:
    """What the node saw during the last few seconds.

    Attributes:
        received, answered, dropped: Sweeps within the recent window, and reasons as of the last.
        missing_sweeps: Sweeps that gaps in the stamps say were sent and never arrived, likewise.
        pipeline_ms: Median time of one sweep in the worker.
        working_s: How long the worker has been on the sweep that it has now.
        capped_points, capped_tokens: Median of the recent answers.
        max_points, max_tokens: Of the model.
        latents: What is left of a full memory without ego-motion; 0 in a model of single sweeps.
        notes: Problems that stop no sweep, by input.

    """

    lifecycle: str
    refusal: str = ''
    clock: ClockState = ClockState()
    points: InputState = InputState('points', '')
    images: tuple[InputState, ...] = ()
    camera_infos: tuple[InputState, ...] = ()
    cameras: tuple[CameraStatistics, ...] = ()
    sync: SyncConfig = SyncConfig(offsets_s=())
    zero_stamped: bool = False
    jump: str = ''
    received: int = 0
    answered: int = 0
    dropped: Mapping[Drop, int] = field(default_factory=dict)
    reasons: Mapping[Drop, str] = field(default_factory=dict)
    missing_sweeps: int = 0
    pipeline_ms: float = 0.0
    working_s: float = 0.0
    period_ms: float = 0.0
    capped_points: int = 0
    capped_tokens: int = 0
    max_points: int = 0
    max_tokens: int = 0
    latents: int = 0
    missing_profile: str | None = None
    notes: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def findings(seen: Observation) -> list[Finding]:
    """List what is wrong, the most likely root cause first; empty where all is well."""
    if seen.lifecycle != 'active':
        how = seen.refusal or 'configure and activate it, or set autostart:=true'
        level = Level.ERROR if seen.refusal else Level.WARN
        return [Finding(level, 'node', f'{seen.lifecycle}, no sweep is taken: {how}')]
    return [
        *_clock(seen),
        *_points(seen),
        *(
            finding
            for index, image in enumerate(seen.images)
            for finding in _camera(seen, index, image)
        ),
        *_speed(seen),
        *_memory(seen),
        *_caps(seen),
        *(Finding(Level.WARN, 'model', warning) for warning in seen.warnings),
    ]


def _clock(seen: Observation) -> list[Finding]:
    clock = seen.clock
    if clock.simulated and clock.stopped_s > PAUSED_CLOCK_AFTER_S:
        if not clock.publishers:
            text = (
                'use_sim_time is true but nobody publishes /clock: play the bag with --clock, '
                'or set use_sim_time:=false'
            )
        else:
            text = (
                f'/clock has stood still for {clock.stopped_s:.1f} s: un-pause the player, '
                'or set use_sim_time:=false'
            )
        return [Finding(Level.WARN, 'clock', text)]
    if seen.jump:
        return [
            Finding(
                Level.WARN,
                'clock',
                f'{seen.jump.rstrip(".")}; buffers and memory were cleared. A looping bag does '
                'this; if it is none, look for a second publisher on /clock or on the points topic '
                '(remap one)',
            )
        ]
    return []


def _no_input(seen: Observation, state: InputState) -> Finding | None:
    """Say why an input delivers nothing at all."""
    if state.incompatible:
        return Finding(Level.ERROR, state.name, state.incompatible)
    if not state.publishers:
        found = ', '.join(state.candidates) or 'none'
        fewer = ' or set cameras lower' if state.name.startswith('image') else ''
        return Finding(
            Level.WARN,
            state.name,
            f'nobody publishes {state.topic}: remap ~/input/{state.name}:=/your/topic{fewer} '
            f'(topics of that type now: {found})',
        )
    if state.silent_s > SILENT_AFTER_S:
        profile = f' Here {seen.missing_profile}.' if seen.missing_profile else ''
        return Finding(
            Level.WARN,
            state.name,
            f'{state.topic} has a publisher but nothing arrived for {state.silent_s:.1f} s: either '
            'the publisher is idle, or the transport loses its messages (large ones do not fit '
            f'default shared memory). Tell them apart with `ros2 topic hz {state.topic}` in the '
            f"publisher's environment: a rate there means transport loss.{profile}",
        )
    return None


def _points(seen: Observation) -> list[Finding]:
    nothing = _no_input(seen, seen.points)
    if nothing is not None:
        return [nothing]
    result = _mixed(seen.points)
    if seen.zero_stamped:
        result.append(
            Finding(
                Level.WARN,
                'points',
                f'{seen.points.topic} carries zero stamps: sweeps go out without images and '
                'memory. Make the driver fill header.stamp, or set sync.stamp_source:=arrival',
            )
        )
    for cause in (Drop.MALFORMED, Drop.NO_TRANSFORM, Drop.OUT_OF_MEMORY, Drop.ERROR):
        count = seen.dropped.get(cause, 0)
        if count:
            level = Level.ERROR if count == seen.received else Level.WARN
            text = f'{count} of {seen.received} sweeps dropped ({cause}): {seen.reasons.get(cause)}'
            result.append(Finding(level, 'points', text))
    for cause, knob in (
        (Drop.DUPLICATE, 'two publishers on one topic, or a driver that repeats header.stamp'),
        (Drop.OUT_OF_ORDER, 'stamps step back a little: two publishers, or a driver that reorders'),
    ):
        count = seen.dropped.get(cause, 0)
        if count > LOSS_SHARE * seen.received:
            text = f'{count} of {seen.received} sweeps dropped ({cause}) on {seen.points.topic}: '
            result.append(Finding(Level.WARN, 'points', text + knob + '; remap ~/input/points'))
    result += _loss(seen)
    for key in ('time', 'intensity', 'ground', 'deskew'):
        if key in seen.notes:
            result.append(Finding(Level.WARN, 'points', seen.notes[key]))
    return result


def _mixed(state: InputState) -> list[Finding]:
    """Say that several publishers share an input, which mixes what they see."""
    if state.publishers < 2:
        return []
    text = (
        f'{state.publishers} publishers on {state.topic} ({", ".join(state.senders)}): what they '
        'send is taken for one sensor. Merge several sensors before the node, else stop all but '
        f'one, or remap ~/input/{state.name}'
    )
    return [Finding(Level.WARN, state.name, text)]


def _loss(seen: Observation) -> list[Finding]:
    lost = max(seen.points.lost, seen.missing_sweeps)
    expected = seen.received + lost
    if not expected or lost <= LOSS_SHARE * expected:
        return []
    how = 'lost-message events' if seen.points.lost >= seen.missing_sweeps else 'gaps in the stamps'
    profile = f' Here {seen.missing_profile}.' if seen.missing_profile else ''
    return [
        Finding(
            Level.WARN,
            'points',
            f'loss: {lost} of {expected} sweeps on {seen.points.topic} never arrived ({how}); give '
            'publisher and node the large-message profile, or set qos.reliability:=reliable where '
            f'the publisher offers it.{profile}',
        )
    ]


def _camera(seen: Observation, index: int, image: InputState) -> list[Finding]:
    nothing = _no_input(seen, image)
    if nothing is not None:
        return [nothing]
    camera = seen.cameras[index] if index < len(seen.cameras) else None
    result = _mixed(image)
    if camera is not None:
        result += _matching(seen, index, image, camera)
    info = seen.camera_infos[index] if index < len(seen.camera_infos) else None
    note = seen.notes.get(image.name)
    if note and 'no CameraInfo' in note and info is not None:
        if info.incompatible:
            note = f'no CameraInfo: {info.incompatible}'
        elif not info.publishers:
            note = f'{note} (nobody publishes {info.topic})'
    if note:
        result.append(
            Finding(Level.WARN, image.name, f'images of {image.topic} are not used: {note}')
        )
    return result


def _matching(
    seen: Observation, index: int, image: InputState, camera: CameraStatistics
) -> list[Finding]:
    if camera.zero_stamped and camera.zero_stamped >= camera.received:
        return [
            Finding(
                Level.WARN,
                image.name,
                f'{image.topic} carries zero stamps and matches no sweep: make the driver fill '
                'header.stamp, or set sync.stamp_source:=arrival',
            )
        ]
    tried = camera.matched + camera.missing
    # A camera that is only starting has nothing near yet, or had nothing before its first match.
    starting = camera.received < 3 or (camera.matched and camera.nearest_offset_ns is None)
    if starting or camera.missing <= MISSING_SHARE * tried:
        return []
    tolerance_ms = seen.sync.tolerance_s * 1e3
    aim_ms = seen.sync.offsets_s[index] * 1e3
    nearest = camera.nearest_offset_ns
    lag = camera.arrival_lag_ns
    head = f'no matching image on {image.topic} for {camera.missing} of {tried} sweeps: '
    if lag is not None and lag > (seen.sync.timeout_s + 0.02) * 1e9:
        text = (
            f'images arrive {lag / 1e6:.0f} ms after the sweep of their time, later than it waits '
            f'(sync.timeout {seen.sync.timeout_s:g} s, at most one sweep period): speed the camera '
            f'up, or use older images with sync.offsets:=[{-lag / 1e9:.2f}]'
        )
    elif nearest is not None and abs(nearest) > CLOCKS_APART_NS:
        text = (
            f'its stamps are {nearest / 1e9:+.1f} s from those of the sweeps: the clocks differ, '
            'synchronise them (PTP, NTP), or set sync.stamp_source:=arrival'
        )
    elif nearest is not None:
        text = (
            f'the nearest image is {nearest / 1e6:+.0f} ms from the sweep, sync.tolerance is '
            f'{tolerance_ms:.0f} ms around {aim_ms:+.0f} ms: set '
            f'sync.offsets:=[{nearest / 1e9:.3f}] if that is constant, else raise sync.tolerance'
        )
    else:
        text = 'no image with a usable stamp has arrived: check sync.stamp_source'
    return [Finding(Level.WARN, image.name, head + text)]


def _speed(seen: Observation) -> list[Finding]:
    if seen.working_s > max(STUCK_AFTER_S, STUCK_AFTER_STEPS * seen.pipeline_ms / 1e3):
        text = (
            f'stuck: the worker has been on one sweep for {seen.working_s:.1f} s (usually '
            f'{seen.pipeline_ms:.0f} ms): deactivate and activate the node; if that is refused, '
            'the device does not answer: restart the node'
        )
        return [Finding(Level.ERROR, 'speed', text)]
    superseded = seen.dropped.get(Drop.SUPERSEDED, 0)
    if not seen.received or superseded <= SLOW_SHARE * seen.received:
        return []
    level = Level.ERROR if superseded > 0.5 * seen.received else Level.WARN
    return [
        Finding(
            level,
            'speed',
            f'too slow: {superseded} of {seen.received} sweeps were overtaken by newer ones '
            f'({seen.pipeline_ms:.0f} ms a sweep, one every {seen.period_ms:.0f} ms): use a GPU '
            '(device:=cuda), more threads, a smaller model, or fewer subscribed outputs',
        )
    ]


def _memory(seen: Observation) -> list[Finding]:
    note = seen.notes.get('ego_motion')
    if not note or not seen.latents:
        return []
    frame = '' if 'fixed_frame' in note else ', or set fixed_frame'
    text = (
        f'{note}: the memory is reduced to {seen.latents} latents. Publish odometry '
        f'(~/input/odometry) or TF{frame}'
    )
    return [Finding(Level.WARN, 'ego_motion', text)]


def _caps(seen: Observation) -> list[Finding]:
    result = []
    if seen.capped_points:
        text = (
            f'about {seen.capped_points} points a sweep are over max_points {seen.max_points} of '
            'the model and take the answer of one beside them: take a model with a higher '
            'max_points, or thin the cloud'
        )
        result.append(Finding(Level.WARN, 'points', text))
    if seen.capped_tokens:
        text = (
            f'about {seen.capped_tokens} voxels a sweep are over max_tokens {seen.max_tokens} of '
            'the model and share a token: take a model with a higher max_tokens or voxel_m, or a '
            'shorter range_m'
        )
        result.append(Finding(Level.WARN, 'points', text))
    return result
