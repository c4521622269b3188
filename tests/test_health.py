# SPDX-License-Identifier: Apache-2.0
"""Every cause gets its own sentence, and the sentence names the knob."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cross4d_jepa_ros.health import ClockState, InputState, Level, Observation, findings
from cross4d_jepa_ros.ledger import Drop
from cross4d_jepa_ros.sensing.image_history import CameraStatistics
from cross4d_jepa_ros.sensing.synchronisation import SyncConfig

CAMERA = CameraStatistics(
    received=50,
    matched=50,
    missing=0,
    zero_stamped=0,
    last_arrival_steady_ns=1,
    period_ns=100_000_000,
    offsets_ns=(),
    nearest_offset_ns=None,
    arrival_lag_ns=5_000_000,
    dead=False,
)
HEALTHY = Observation(
    'active',
    points=InputState('points', '/lidar', publishers=1, received=50),
    images=(InputState('image0', '/camera', publishers=1, received=50),),
    camera_infos=(InputState('camera_info0', '/camera_info', publishers=1, received=50),),
    cameras=(CAMERA,),
    sync=SyncConfig(offsets_s=(0.0,)),
    received=50,
    answered=50,
    dropped=dict.fromkeys(Drop, 0),
    period_ms=100,
    pipeline_ms=40,
)


def test_healthy_node_finds_nothing() -> None:
    assert findings(HEALTHY) == []


def test_a_camera_that_started_later_than_the_sweeps_needs_no_knob() -> None:
    started = replace(CAMERA, received=6, matched=4, missing=7)
    assert findings(replace(HEALTHY, cameras=(started,))) == []
    without_stamps = replace(started, matched=0)
    assert len(findings(replace(HEALTHY, cameras=(without_stamps,)))) == 1


def dropped(cause: Drop, count: int, reason: str = '') -> Observation:
    return replace(HEALTHY, dropped={**HEALTHY.dropped, cause: count}, reasons={cause: reason})


CASES = {
    'inactive': (Observation('inactive'), 'node', ('inactive', 'autostart')),
    'configure': (
        Observation('unconfigured', refusal='configure failed: no file x'),
        'node',
        ('no file x',),
    ),
    'paused clock': (
        replace(HEALTHY, clock=ClockState(True, 1, 3.2)),
        'clock',
        ('/clock has stood still for 3.2 s', 'use_sim_time'),
    ),
    'no clock': (
        replace(HEALTHY, clock=ClockState(True, 0, 3.2)),
        'clock',
        ('nobody publishes /clock', '--clock'),
    ),
    'jump': (replace(HEALTHY, jump='/clock jumped back by 3 s'), 'clock', ('jumped back', 'remap')),
    'no publisher': (
        replace(HEALTHY, points=InputState('points', '/points', candidates=('/ouster/points',))),
        'points',
        ('nobody publishes /points', '~/input/points', '/ouster/points'),
    ),
    'idle': (
        replace(
            HEALTHY,
            points=replace(HEALTHY.points, silent_s=3.0),
            missing_profile='this process runs without a profile',
        ),
        'points',
        ('idle', 'transport', 'ros2 topic hz /lidar', 'runs without a profile'),
    ),
    'qos': (
        replace(HEALTHY, points=replace(HEALTHY.points, incompatible='incompatible QoS: x')),
        'points',
        ('incompatible QoS: x',),
    ),
    'zero stamps': (
        replace(HEALTHY, zero_stamped=True),
        'points',
        ('zero stamps', 'sync.stamp_source:=arrival'),
    ),
    'malformed': (dropped(Drop.MALFORMED, 50, 'row too short'), 'points', ('row too short',)),
    'no transform': (dropped(Drop.NO_TRANSFORM, 9, 'set base_frame'), 'points', ('base_frame',)),
    'duplicate': (dropped(Drop.DUPLICATE, 9), 'points', ('duplicate', 'remap')),
    'two publishers': (
        replace(
            HEALTHY,
            points=replace(HEALTHY.points, publishers=2, senders=('/front', '/rear')),
        ),
        'points',
        ('2 publishers on /lidar (/front, /rear)', 'Merge', 'remap ~/input/points'),
    ),
    'two publishers of images': (
        replace(HEALTHY, images=(replace(HEALTHY.images[0], publishers=2, senders=('/a', '/b')),)),
        'image0',
        ('2 publishers on /camera', 'remap ~/input/image0'),
    ),
    'loss by events': (
        replace(HEALTHY, points=replace(HEALTHY.points, lost=20)),
        'points',
        ('loss: 20 of 70', 'lost-message events', 'profile'),
    ),
    'loss by gaps': (
        replace(HEALTHY, missing_sweeps=10),
        'points',
        ('loss: 10 of 60', 'gaps in the stamps', 'qos.reliability'),
    ),
    'too slow': (
        replace(dropped(Drop.SUPERSEDED, 20), pipeline_ms=180),
        'speed',
        ('20 of 50', '180 ms', 'device:=cuda'),
    ),
    'no ego-motion': (
        replace(
            HEALTHY, latents=12, notes={'ego_motion': 'no ego-motion: nothing on /tf moves lidar'}
        ),
        'ego_motion',
        ('nothing on /tf moves lidar', '12 latents', 'odometry', 'TF', 'fixed_frame'),
    ),
    'capped points': (
        replace(HEALTHY, capped_points=900, max_points=4000),
        'points',
        ('900 points', 'max_points 4000', 'thin the cloud'),
    ),
    'capped tokens': (
        replace(HEALTHY, capped_tokens=70, max_tokens=4000),
        'points',
        ('70 voxels', 'max_tokens 4000', 'voxel_m'),
    ),
    'out of memory': (
        Observation('inactive', refusal='memory ran out 3 times in a row (x): take a smaller'),
        'node',
        ('inactive', 'memory ran out 3 times', 'smaller'),
    ),
    'no image publisher': (
        replace(HEALTHY, images=(InputState('image0', '/cam'),)),
        'image0',
        ('nobody publishes /cam', '~/input/image0', 'set cameras lower'),
    ),
    'image zero stamps': (
        replace(HEALTHY, cameras=(replace(CAMERA, zero_stamped=50),)),
        'image0',
        ('zero stamps', 'sync.stamp_source'),
    ),
    'image stamps apart': (
        replace(
            HEALTHY,
            cameras=(replace(CAMERA, matched=0, missing=50, nearest_offset_ns=300_000_000),),
        ),
        'image0',
        ('+300 ms', 'sync.offsets:=[0.300]', 'sync.tolerance'),
    ),
    'clocks apart': (
        replace(
            HEALTHY,
            cameras=(replace(CAMERA, matched=0, missing=50, nearest_offset_ns=-37 * 10**9),),
        ),
        'image0',
        ('-37.0 s', 'clocks differ', 'sync.stamp_source:=arrival'),
    ),
    'image arrives late': (
        replace(
            HEALTHY,
            cameras=(
                replace(
                    CAMERA,
                    matched=0,
                    missing=50,
                    nearest_offset_ns=-300_000_000,
                    arrival_lag_ns=310_000_000,
                ),
            ),
        ),
        'image0',
        ('310 ms after the sweep', 'sync.timeout', 'sync.offsets:=[-0.31]'),
    ),
    'no camera info': (
        replace(
            HEALTHY,
            camera_infos=(InputState('camera_info0', '/camera_info'),),
            notes={'image0': 'no CameraInfo for image0 yet: remap ~/input/camera_info0'},
        ),
        'image0',
        ('no CameraInfo', '~/input/camera_info0', 'nobody publishes /camera_info'),
    ),
    'untrained': (
        replace(HEALTHY, warnings=('the weights are untrained',)),
        'model',
        ('untrained',),
    ),
}


@pytest.mark.parametrize('case', CASES)
def test_cause_is_named_with_its_knob(case: str) -> None:
    seen, about, words = CASES[case]

    found = findings(seen)

    assert found, case
    assert found[0].about == about
    assert all(word in found[0].sentence for word in words), found[0].sentence
    assert found[0].level > Level.OK
    assert '\n' not in found[0].sentence


def test_a_paused_clock_hides_no_other_finding() -> None:
    seen = replace(HEALTHY, clock=ClockState(True, 1, 3), points=InputState('points', '/points'))

    assert [finding.about for finding in findings(seen)] == ['clock', 'points']


def test_overload_is_an_error_when_most_sweeps_are_lost() -> None:
    assert findings(dropped(Drop.SUPERSEDED, 40))[0].level == Level.ERROR
    assert findings(dropped(Drop.SUPERSEDED, 10))[0].level == Level.WARN
    assert findings(dropped(Drop.SUPERSEDED, 2)) == []


def test_a_model_of_single_sweeps_needs_no_ego_motion() -> None:
    assert findings(replace(HEALTHY, notes={'ego_motion': 'no ego-motion'})) == []
