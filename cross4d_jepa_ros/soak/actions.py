# SPDX-License-Identifier: Apache-2.0
"""Faults that are not of the sensors' making. What they find wrong they raise as RuntimeError."""

from __future__ import annotations

import signal
import time
from dataclasses import replace

from geometry_msgs.msg import PointStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from std_srvs.srv import Trigger

from cross4d_jepa_ros.children import END_LIMIT_S
from cross4d_jepa_ros.soak.processes import seconds_since
from cross4d_jepa_ros.soak.stage import ACTIVE_LIMIT_S, SPARE, WATCHED, Stage, Steps

EXIT_LIMIT_S = 3.0
CLICKS = 300
GAP_LIMIT_S = 2.0
TRANSITIONS = 6
ALLOWED = {
    ('unconfigured', Transition.TRANSITION_CONFIGURE): 'inactive',
    ('inactive', Transition.TRANSITION_CLEANUP): 'unconfigured',
    ('inactive', Transition.TRANSITION_ACTIVATE): 'active',
    ('active', Transition.TRANSITION_DEACTIVATE): 'inactive',
}
LABELS = {
    Transition.TRANSITION_CONFIGURE: 'configure',
    Transition.TRANSITION_CLEANUP: 'cleanup',
    Transition.TRANSITION_ACTIVATE: 'activate',
    Transition.TRANSITION_DEACTIVATE: 'deactivate',
}
SECOND_LAG_NS = 30_000_000


def second_publisher_comes(stage: Stage) -> Steps:
    """Let another process publish sweeps on the same topic, with stamps a little behind."""
    offset_ns = stage.sensors.settings.offset_ns - SECOND_LAG_NS
    stage.second.command(replace(stage.second.settings, points='good', offset_ns=offset_ns))
    yield


def second_publisher_goes(stage: Stage) -> Steps:
    """End it."""
    stage.second.command(replace(stage.second.settings, points='gone'))
    yield


def starve_once(stage: Stage) -> Steps:
    """Let memory run out for one sweep."""
    stage.life.signal(signal.SIGUSR1)
    yield


def starve_thrice(stage: Stage) -> Steps:
    """Let memory run out for three sweeps in a row, after which the node gives up."""
    stage.life.signal(signal.SIGUSR2)
    yield


def _asked(stage: Stage, transition: int, state: str) -> Steps:
    """Ask for a transition; returns the state that follows."""
    request = ChangeState.Request(transition=Transition(id=transition))
    response = yield from stage.ask('change_state', request)
    after = ALLOWED.get((state, transition))
    if response.success != (after is not None):
        answer = 'granted' if response.success else 'refused'
        msg = f'{LABELS[transition]} was {answer} while {state}'
        raise RuntimeError(msg)
    return after or state


def transitions(stage: Stage) -> Steps:
    """Ask for transitions at random, also for illegal ones; then for those to unconfigured.

    Returns:
        When the node was first told to stop, steady ns.

    """
    state = yield from _asked(stage, Transition.TRANSITION_DEACTIVATE, 'active')
    began_ns = time.monotonic_ns()
    for _ in range(TRANSITIONS):
        state = yield from _asked(stage, stage.draw.choice(list(LABELS)), state)
    if state == 'active':
        state = yield from _asked(stage, Transition.TRANSITION_DEACTIVATE, state)
        began_ns = time.monotonic_ns()
    if state == 'inactive':
        yield from _asked(stage, Transition.TRANSITION_CLEANUP, state)
    return began_ns


def activate(stage: Stage) -> Steps:
    """Bring the node back to work from wherever it is."""
    now_ns = time.monotonic_ns()
    yield from stage.until(lambda: stage.heard.at_ns > now_ns, ACTIVE_LIMIT_S)
    state = stage.heard.state
    if state == 'unconfigured':
        state = yield from _asked(stage, Transition.TRANSITION_CONFIGURE, state)
    yield from _asked(stage, Transition.TRANSITION_ACTIVATE, state)


def _ended_by(stage: Stage, number: int) -> Steps:
    """End a node by a signal at a random moment.

    The first time it is the watched one; later, as its memory is to be judged over one long life,
    another one beside it.
    """
    spare = bool(stage.ended)
    victim = stage.start(SPARE) if spare else stage.life
    stage.spare = victim if spare else None
    yield from stage.until(
        lambda: victim.name.strip('/') in stage.watch.get_node_names(), ACTIVE_LIMIT_S
    )
    yield from stage.until(lambda: False, stage.draw.uniform(0, 6))
    asked_ns = time.monotonic_ns()
    victim.signal(number)
    yield from stage.until(lambda: victim.poll() is not None, END_LIMIT_S)
    took_s = seconds_since(asked_ns)
    victim.close()
    stage.bury(victim)
    stage.spare = None
    if took_s > EXIT_LIMIT_S:
        msg = f'{victim.log}: there for {took_s:.1f} s after signal {number}'
        raise RuntimeError(msg)


def start_again(stage: Stage) -> Steps:
    """Start the node again, if it was the watched one that ended."""
    if stage.life.poll() is not None:
        stage.life = stage.start(WATCHED)
        if not (yield from stage.until(lambda: stage.heard.state == 'active', ACTIVE_LIMIT_S)):
            msg = f'not active within {ACTIVE_LIMIT_S:g} s'
            raise RuntimeError(msg)


def interrupt(stage: Stage) -> Steps:
    """End a node as Ctrl-C does."""
    yield from _ended_by(stage, signal.SIGINT)


def terminate(stage: Stage) -> Steps:
    """End a node as systemd does."""
    yield from _ended_by(stage, signal.SIGTERM)


def _set(stage: Stage, name: str, value: object) -> Steps:
    change = Parameter(name, value=value).to_parameter_msg()
    return (yield from stage.ask('set_parameters', SetParameters.Request(parameters=[change])))


def set_parameters(stage: Stage) -> Steps:
    """Set parameters while sweeps come in, good values and bad ones."""
    for name, value, good in (
        ('segmentation.threshold', 0.4, True),
        ('segmentation.class_thresholds', ['car:0.6', 'person:0.3'], True),
        ('segmentation.threshold', 1.5, False),
        ('segmentation.threshold', 'much', False),
        ('segmentation.class_thresholds', ['unicorn:0.5'], False),
        ('teach.class', 'a, b', False),
        ('device', 'cpu', False),
        ('model', '/nowhere', False),
        ('segmentation.class_thresholds', [''], True),
        ('segmentation.threshold', 0.0, True),
    ):
        response = yield from _set(stage, name, value)
        if response.results[0].successful != good:
            msg = f'{name} = {value!r} was {"refused" if good else "taken"}'
            raise RuntimeError(msg)


def flood_with_clicks(stage: Stage) -> Steps:
    """Teach a class with more clicks than anybody has, stop in the middle, and forget it all."""
    for name in ('soak', '', 'soak'):
        yield from _set(stage, 'teach.class', name)
        for number in range(CLICKS):
            click = PointStamped()
            click.header.frame_id = 'lidar' if number % 2 else 'nowhere'
            click.point.x, click.point.y = stage.draw.uniform(-20, 20), stage.draw.uniform(-9, 9)
            stage.clicks.publish(click)
        yield
    yield from _set(stage, 'teach.class', '')
    yield from stage.until(lambda: False, 0.5)
    yield from stage.ask('clear', Trigger.Request())


def stop_the_reader(stage: Stage) -> Steps:
    """Stop a process that has subscribed to the answers and acknowledges them no more."""
    stage.reader.signal(signal.SIGSTOP)
    stage.reader_stopped_ns = time.monotonic_ns()
    yield


def wake_the_reader(stage: Stage) -> Steps:
    """Let it go on; others must have been served all the while."""
    gap_s = stage.watch.longest_gap_s(stage.reader_stopped_ns)
    stage.reader.signal(signal.SIGCONT)
    yield
    if gap_s > GAP_LIMIT_S:
        msg = f'no answer for {gap_s:.1f} s while a subscriber did not read'
        raise RuntimeError(msg)
