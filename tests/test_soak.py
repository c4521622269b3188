# SPDX-License-Identifier: Apache-2.0
"""The soak: its order, its arithmetic, and two minutes of it against the real node."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from cross4d_jepa_ros.bench.sweeps import SyntheticDrive
from cross4d_jepa_ros.ledger import Drop
from cross4d_jepa_ros.ros.answer_client import SentSweep
from cross4d_jepa_ros.sensing.point_clouds import CloudConfig, CloudDecoder, MalformedCloud
from cross4d_jepa_ros.soak.faults import KINDS, LIFECYCLE, SIGNALS, Fault, Kind, Named, turns
from cross4d_jepa_ros.soak.report import crashes, memory, summed, untried, verdicts
from cross4d_jepa_ros.soak.sensors import Settings, huge_cloud, malformed_clouds
from cross4d_jepa_ros.soak.stage import Ended
from cross4d_jepa_ros.soak.watch import Heard, out_of_balance, wrong_answers
from tests.modules import run_module

SWEEP = SentSweep(stamp_ns=5, frame_id='lidar', height=1, width=9, coordinates=77)
POINTS = {'received': '9', 'answered': '6', 'in_flight': '1', 'dropped.superseded': '2'}
KEPT: dict[str, Any] = {
    'received': 9,
    'answered': 7,
    'dropped': {'superseded': 2},
    'faults': [],
    'crashes': [],
    'unbalanced': [],
    'wrong_answers': [],
    'silence_s': 1.2,
    'rss_mb': {'cycles': [500.0, 530.0, 510.0], 'mb_per_minute': 0.4},
}


def names(cycle: list[tuple[Kind, ...]]) -> list[str]:
    return [kind.name for turn in cycle for kind in turn]


def test_every_cycle_holds_every_kind_once_in_an_order_of_its_own() -> None:
    cycles = [names(cycle) for cycle in islice(turns(3), 3)]

    assert [sorted(cycle) for cycle in cycles] == [sorted(kind.name for kind in KINDS)] * 3
    assert len({tuple(cycle) for cycle in cycles}) == 3
    assert cycles == [names(cycle) for cycle in islice(turns(3), 3)]
    assert cycles[0] != names(next(turns(4)))


def test_the_watched_node_is_ended_first_so_that_one_life_sees_all_else() -> None:
    first, second = islice(turns(0), 2)

    assert first[0][0] in SIGNALS
    assert len(first[0]) == 1
    assert first[1] == second[0] == (LIFECYCLE,)
    assert not any(kind in SIGNALS and len(turn) == 1 for turn in second for kind in turn)


def test_settings_of_every_kind_exist_and_go_back() -> None:
    for kind in KINDS:
        assert Settings(**kind.sensors) != Settings() or not kind.sensors
        assert kind.says or kind.named == Named.NEVER


@pytest.mark.parametrize('number', range(5))
def test_malformed_clouds_are_malformed(number: int) -> None:
    good = SyntheticDrive(1024).next_messages()[0]
    decoder = CloudDecoder(CloudConfig())
    decoder.decode(good)

    with pytest.raises(MalformedCloud):
        decoder.decode(malformed_clouds(good)[number])


def test_a_huge_cloud_is_huge_and_whole() -> None:
    good = SyntheticDrive(1024).next_messages()[0]
    sweep = CloudDecoder(CloudConfig()).decode(huge_cloud(good, 5000))

    assert sweep.point_count == 5000


def test_what_is_heard_names_a_fault_only_with_all_its_words() -> None:
    heard = Heard(sentences={'image0': 'nothing arrived for 3 s', 'image1': ''})

    assert heard.says([('image0', 'nothing arrived')])
    assert not heard.says([('image0', 'nothing arrived'), ('image1', 'nothing arrived')])


@pytest.mark.parametrize(
    ('changes', 'wrong'),
    [
        ({}, ''),
        ({'received': '10'}, '10 received'),
        ({'answered': '7'}, '7 answered'),
        ({'received': '13', 'in_flight': '5'}, '5 in flight'),
        ({'received': '7', 'in_flight': '-1'}, '-1 in flight'),
    ],
)
def test_counts_that_do_not_add_up(changes: dict[str, str], wrong: str) -> None:
    found = out_of_balance(POINTS | changes)

    assert wrong in found
    assert bool(found) == bool(wrong)


def test_answers_to_no_sweep_and_second_answers_are_wrong() -> None:
    other = SentSweep(stamp_ns=5, frame_id='lidar', height=1, width=8, coordinates=77)

    assert wrong_answers([SWEEP, SWEEP, other], [SWEEP, other, SWEEP]) == []
    assert len(wrong_answers([SWEEP], [SWEEP, SWEEP, other])) == 2


@pytest.mark.parametrize(
    ('named', 'costly', 'named_s', 'recovered_s', 'words'),
    [
        (Named.ALWAYS, False, 4.9, 1.9, ''),
        (Named.ALWAYS, False, 5.1, 1.9, 'not named'),
        (Named.ALWAYS, False, None, 1.9, 'not named'),
        (Named.IF_DROPPED, False, None, 0.1, ''),
        (Named.IF_DROPPED, True, None, 0.1, 'not named'),
        (Named.NEVER, True, None, 0.1, ''),
        (Named.NEVER, False, None, 2.1, 'not recovered'),
        (Named.NEVER, False, None, None, 'not recovered'),
    ],
)
def test_what_is_asked_of_the_node(
    named: Named, costly: bool, named_s: float | None, recovered_s: float | None, words: str
) -> None:
    fault = Fault('x', 0.0, named_s, recovered_s)
    fault.judge(Kind('x', named=named), costly=costly)

    assert words in fault.problem
    assert bool(fault.problem) == bool(words)


# 2 MB a minute, less at first, and a peak in every minute.
SAMPLES = [
    (float(s), 100.0 + (2 * s / 60 if s >= 120 else 0) + 300 * (s % 60 > 45), 12)
    for s in range(600)
]
ENDS_S = [120.0 * n for n in range(1, 6)]


def test_memory_is_judged_from_the_end_of_the_first_cycle_on() -> None:
    found = memory(SAMPLES, ENDS_S)

    assert found['mb_per_minute'] == pytest.approx(2.0, abs=0.05)
    assert found['cycles'] == pytest.approx([100, 106, 110, 114, 118], abs=0.5)
    assert found['end_ratio'] == pytest.approx(116 / 108, abs=0.005)
    assert found['most'] == pytest.approx(420, abs=0.5)
    assert found['threads_most'] == 12
    assert len(found['each_10_s']) == 60


@pytest.mark.parametrize('cycles', [0, 3])
def test_memory_is_not_judged_over_few_cycles(cycles: int) -> None:
    assert 'mb_per_minute' not in memory(SAMPLES, ENDS_S[:cycles])


def test_lives_are_summed_and_their_ends_judged() -> None:
    lives = [
        Ended({'received': 9, 'answered': 7, 'dropped': {'error': 2}}, ''),
        Ended({'received': 5, 'answered': 4, 'dropped': {'error': 1}}, 'x.log: exit code -11'),
        Ended(None, ''),
    ]

    assert summed(lives) == {'received': 14, 'answered': 11, 'dropped': {'error': 3}}
    assert crashes(lives) == ['x.log: exit code -11', '1 lives ended without their counts']


def test_what_there_was_no_time_for() -> None:
    assert untried([Fault(kind.name, 0.0) for kind in KINDS[1:]]) == [KINDS[0].name]


BROKEN = {
    'no crash': {'crashes': ['exit code -11']},
    'never silent': {'silence_s': 11.0},
    'nothing lost': {'received': 10},
    'no wrong answer': {'wrong_answers': ['x']},
    'faults named, and recovered from': {
        'faults': [{'kind': 'lidar_goes', 't': 3.0, 'problem': 'not named within 5 s'}]
    },
    'memory does not grow': {'rss_mb': {'cycles': [500.0, 505.0, 540.0], 'mb_per_minute': 0.4}},
}


@pytest.mark.parametrize('promise', BROKEN)
def test_each_promise_can_be_broken(promise: str) -> None:
    assert not any(verdicts(KEPT).values())
    assert [name for name, broken in verdicts(KEPT | BROKEN[promise]).items() if broken] == [
        promise
    ]


@pytest.mark.real_time
def test_two_bad_minutes(ros_domain: int, tmp_path: Path) -> None:
    words = ('--minutes', '2', '--seed', '7', '--out', str(tmp_path))
    result = run_module(
        'cross4d_jepa_ros.soak', *words, timeout_s=400, ROS_DOMAIN_ID=str(ros_domain)
    )

    assert (tmp_path / 'report.json').is_file(), result.stdout + result.stderr
    report = json.loads((tmp_path / 'report.json').read_text())
    assert not any(report['verdicts'].values()), result.stdout
    assert result.returncode == 0
    assert len(report['untried']) < len(KINDS) / 2
    assert set(report['dropped']) == {str(cause) for cause in Drop}
    assert report['in_flight_max'] <= 3
    assert report['answers_received'] > 0
    assert report['sent'] >= report['received']
    assert (tmp_path / 'rss.png').read_bytes().startswith(b'\x89PNG')
