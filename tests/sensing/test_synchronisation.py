# SPDX-License-Identifier: Apache-2.0
"""The synchroniser on simulated arrival sequences with a fake steady clock."""

from __future__ import annotations

import random
import threading

import pytest

from cross4d_jepa_ros.sensing.synchronisation import SweepSynchroniser, SyncConfig
from tests.sensing.sync_bench import MS, T0, Bench, S, message, offsets_ms, stream


def test_without_cameras_every_sweep_goes_out_at_once():
    bench = Bench()
    for i in range(3):
        bench.sweep(T0 + i * 100 * MS)
        assert len(bench.out) == i + 1
        assert bench.sync.waiting() == 0


def test_asynchronous_15_hz_camera_gives_the_nearest_image_on_either_side():
    bench = Bench(0.0)
    period = 200 * MS // 3
    camera = stream(0, period, start=-40 * MS)
    bench.play(stream(-1, 100 * MS) + camera)
    images = [stamp for _, _, stamp in camera]
    expected = [min((image - sweep for image in images), key=abs) / MS for sweep, _ in bench.out]
    assert len(bench.out) == 30
    assert offsets_ms(bench, skip=1)[:-1] == [round(value) for value in expected[1:-1]]
    assert {-7, 27} <= set(offsets_ms(bench, skip=1))


def test_30_hz_camera_a_little_late_gives_the_near_image_that_comes_after_the_sweep():
    bench = Bench(0.0)
    period = S // 30
    bench.play(
        stream(-1, 100 * MS, start=S, lag=2 * MS)
        + stream(0, period, start=S - 12 * MS - 10 * period, lag=22 * MS)
    )
    assert len(bench.out) == 20
    assert all(abs(offset + 12) <= 1 for offset in offsets_ms(bench))


def test_expected_offset_moves_the_target():
    bench = Bench(0.05, tolerance_s=0.02)
    for i in range(4):
        bench.image(T0 + i * 50 * MS)
    bench.sweep(T0 + 100 * MS)
    assert bench.out == [(T0 + 100 * MS, 50 * MS)]


@pytest.mark.parametrize(('distance_ms', 'found'), [(100, True), (101, False)])
def test_tolerance_is_inclusive(distance_ms, found):
    bench = Bench(0.0)
    bench.image(T0 + distance_ms * MS)
    bench.sweep(T0)
    assert bench.out == [(T0, distance_ms * MS if found else None)]
    camera = bench.sync.statistics().cameras[0]
    assert camera.nearest_offset_ns == (None if found else distance_ms * MS)
    assert (camera.matched, camera.missing) == ((1, 0) if found else (0, 1))


def test_timeout_ends_the_wait_and_not_before():
    bench = Bench(0.0, timeout_s=0.08)
    bench.sweep(T0)
    bench.now += 80 * MS - 1
    bench.sync.poll()
    assert bench.out == []
    bench.now += 1
    bench.sync.poll()
    assert bench.out == [(T0, None)]
    bench.sync.poll()
    assert len(bench.out) == 1


def test_a_newer_sweep_releases_the_waiting_one_first():
    bench = Bench(0.0, 0.0)
    bench.image(T0 + 1, camera=1)
    bench.sweep(T0)
    assert bench.out == []
    bench.sweep(T0 + 100 * MS)
    assert bench.out == [(T0, None, 1)]
    assert bench.sync.waiting() == 1


@pytest.mark.parametrize('image_jumps_first', [True, False])
def test_bag_loop(image_jumps_first):
    bench = Bench(0.0)
    lag = 4 * MS if image_jumps_first else 9 * MS
    bag = stream(-1, 100 * MS, lag=5 * MS) + stream(0, 50 * MS, lag=lag)
    bench.play(bag)
    bench.play(bag)
    assert len(bench.out) == 60
    assert offsets_ms(bench) == [0] * 60
    assert len(bench.resets) == 1
    assert 'back by 2.900 s' in bench.resets[0]
    assert bench.order.index('reset') == 30
    assert bench.drops == []
    assert bench.sync.statistics().resets == 1


def test_images_of_the_new_pass_are_kept_while_the_old_one_ends():
    bench = Bench(0.0)
    for i in range(10):
        bench.image(T0 + 10 * S + i * 100 * MS)
    bench.sweep(T0 + 10 * S + 960 * MS)
    assert bench.sync.waiting() == 1
    bench.image(T0)  # the waiting sweep gets its image before that goes
    assert bench.out == [(T0 + 10 * S + 960 * MS, -60 * MS)]
    bench.image(T0 + 50 * MS)
    bench.sweep(T0 + 11 * S)  # the last of the old pass
    bench.now += S // 10
    bench.sync.poll()
    assert bench.out[-1] == (T0 + 11 * S, None)
    bench.sweep(T0 + 1 * MS)
    assert bench.out[-1] == (T0 + 1 * MS, -1 * MS)


def test_images_of_the_old_pass_are_not_used_in_the_new_one():
    bench = Bench(0.0, tolerance_s=3.0)
    bench.image(T0 + 2 * S)
    bench.sweep(T0 + 2 * S)
    bench.sweep(T0)
    bench.now += S // 10
    bench.sync.poll()
    assert bench.out == [(T0 + 2 * S, 0), (T0, None)]


def test_jump_ahead_resets():
    bench = Bench()
    bench.sweep(T0)
    bench.sweep(T0 + 10 * S)
    assert bench.resets == []
    bench.sweep(T0 + 20 * S + 1)
    assert len(bench.resets) == 1
    assert 'ahead by 10.000 s' in bench.resets[0]
    assert len(bench.out) == 3


def test_duplicates_and_disorder_of_sweeps_are_dropped_with_their_cause():
    bench = Bench()
    for stamp in (0, 100, 100, 50, 200):
        bench.sweep(T0 + stamp * MS)
    assert bench.drops == [(T0 + 100 * MS, 'duplicate'), (T0 + 50 * MS, 'out_of_order')]
    assert [sweep for sweep, *_ in bench.out] == [T0, T0 + 100 * MS, T0 + 200 * MS]
    assert bench.resets == []
    assert bench.sync.statistics().sweeps == 3


def test_three_rising_sweeps_a_little_back_are_a_jump():
    bench = Bench()
    for stamp in (1_000, 400, 500, 600, 700):
        bench.sweep(T0 + stamp * MS)
    assert [cause for _, cause in bench.drops] == ['out_of_order'] * 2
    assert bench.order == [T0 + S, 'reset', T0 + 600 * MS, T0 + 700 * MS]


@pytest.mark.parametrize('stamps', [(1_000, 600, 500, 400), (1_000, 400, 500, 1_100, 600)])
def test_sweeps_back_that_do_not_rise_or_are_interrupted_are_no_jump(stamps):
    bench = Bench()
    for stamp in stamps:
        bench.sweep(T0 + stamp * MS)
    assert bench.resets == []
    assert len(bench.drops) == 3


def test_zero_stamped_sweeps_go_out_at_once_and_are_never_duplicates():
    bench = Bench(0.0)
    bench.image(T0)
    bench.sweep(T0 - 10 * MS)
    bench.sweep(T0 + 90 * MS)
    for _ in range(3):
        bench.sweep(0)
    assert bench.out[1:] == [(T0 + 90 * MS, -90 * MS)] + [(0, None)] * 3
    statistics = bench.sync.statistics()
    assert (statistics.sweeps, statistics.zero_stamped_sweeps) == (5, 3)
    assert statistics.cameras[0].missing == 0
    assert bench.drops == [] and bench.resets == []


def test_zero_stamped_images_are_counted_not_used():
    bench = Bench(0.0)
    for i in range(6):
        bench.image(0)
        bench.sweep(T0 + i * 100 * MS)
    camera = bench.sync.statistics().cameras[0]
    assert (camera.received, camera.zero_stamped, camera.matched) == (6, 6, 0)
    assert camera.last_arrival_steady_ns == bench.now
    assert [image for _, image in bench.out] == [None] * 5  # the sixth sweep waits


def test_matching_by_arrival_ignores_useless_stamps():
    bench = Bench(0.02, 0.0, stamp_source='arrival')
    for _ in range(8):
        bench.image(0, camera=1)
        bench.sync.add_sweep(message(0))
        bench.now += 20 * MS
        bench.image(0, camera=0)
        bench.now += 80 * MS
    assert len(bench.out) == 8
    assert all(None not in frame for frame in bench.out)
    statistics = bench.sync.statistics()
    assert statistics.zero_stamped_sweeps == 0
    assert set(statistics.cameras[0].offsets_ns) == {20 * MS}
    assert set(statistics.cameras[1].offsets_ns) == {0}
    assert bench.drops == [] and bench.resets == []


def test_statistics_are_a_snapshot():
    bench = Bench(0.0)
    bench.image(T0 + 3 * MS)
    bench.sweep(T0)
    before = bench.sync.statistics()
    bench.image(T0 + 104 * MS)
    bench.sweep(T0 + 100 * MS)
    assert before.cameras[0].offsets_ns == (3 * MS,)
    assert before.sweeps == 1
    assert bench.sync.statistics().cameras[0].offsets_ns == (3 * MS, 4 * MS)


def test_clear_hands_back_the_waiting_sweep_and_forgets():
    bench = Bench(0.0)
    bench.image(T0 - 90 * MS)
    bench.sweep(T0)
    assert bench.sync.clear().stamp_ns == T0
    assert bench.sync.clear() is None
    assert bench.sync.waiting() == 0
    camera = bench.sync.statistics().cameras[0]
    assert (camera.received, camera.last_arrival_steady_ns, camera.dead) == (1, None, False)
    bench.sweep(T0)  # not a duplicate any more
    bench.now += 100 * MS
    bench.sync.poll()
    assert bench.out == [(T0, None)]
    assert bench.drops == [] and bench.resets == []


def test_exceptions_in_callbacks_are_reported_and_stop_nothing():
    bench = Bench(0.0)
    calls = []

    def failing(points, image):
        raise RuntimeError(f'sweep {points.stamp_ns}')

    bench.sync.registerCallback(failing)
    bench.sync.registerCallback(lambda points, image, *args: calls.append(args), 'a', 2)
    for i in range(3):
        bench.image(T0 + i * 100 * MS + 1)
        bench.sweep(T0 + i * 100 * MS)
    assert len(bench.out) == 3
    assert calls == [('a', 2)] * 3
    assert [str(error) for error in bench.errors] == [
        f'sweep {T0 + i * 100 * MS}' for i in (0, 1, 2)
    ]


def test_a_sweep_is_admitted_when_those_before_it_have_gone_out():
    order = []
    sync = SweepSynchroniser(
        SyncConfig(offsets_s=(0.0,)),
        steady_ns=lambda: 0,
        on_admit=lambda points: order.append(('in', points.stamp_ns)),
        on_drop=lambda points, cause: order.append((cause, points.stamp_ns)),
        on_reset=lambda sentence: order.append(('reset', None)),
        on_error=order.append,
    )
    sync.registerCallback(lambda points, image: order.append(('out', points.stamp_ns)))
    later = T0 + 100 * MS
    for stamp in (T0, T0, later, 0, T0 - 5 * S):
        sync.add_sweep(message(stamp))

    assert order == [
        *(('in', T0), ('duplicate', T0), ('out', T0), ('in', later)),
        *(('out', later), ('in', 0), ('out', 0), ('reset', None), ('in', T0 - 5 * S)),
    ]


def test_exceptions_in_the_other_callbacks_stop_nothing():
    def failing(*args):
        raise RuntimeError('no')

    out = []
    sync = SweepSynchroniser(
        SyncConfig(offsets_s=()), on_drop=failing, on_reset=failing, on_error=failing
    )
    sync.registerCallback(out.append)
    for stamp in (T0, T0, T0 - 5 * S):
        sync.add_sweep(message(stamp))
    assert [points.stamp_ns for points in out] == [T0, T0 - 5 * S]


def test_callbacks_may_feed_messages():
    bench = Bench(0.0)

    def feed(points, image):
        if points.stamp_ns < T0 + 500 * MS:
            bench.image(points.stamp_ns + 100 * MS)
            bench.sweep(points.stamp_ns + 100 * MS)
            bench.sync.statistics()

    bench.sync.registerCallback(feed)
    worker = threading.Thread(target=lambda: (bench.image(T0), bench.sweep(T0)), daemon=True)
    worker.start()
    worker.join(5)
    assert not worker.is_alive()
    assert bench.out == [(T0 + i * 100 * MS, 0) for i in range(6)]


def test_a_blocked_callback_does_not_block_other_threads():
    entered, leave = threading.Event(), threading.Event()
    bench = Bench(0.0)

    def block(points, image):
        entered.set()
        leave.wait(5)

    bench.sync.registerCallback(block)
    bench.image(T0)
    worker = threading.Thread(target=bench.sweep, args=(T0,), daemon=True)
    worker.start()
    assert entered.wait(5)
    other = threading.Thread(target=bench.image, args=(T0 + 50 * MS,), daemon=True)
    other.start()
    other.join(5)
    assert not other.is_alive()
    leave.set()
    worker.join(5)
    assert bench.sync.statistics().cameras[0].received == 2


def test_threads_lose_nothing():
    out, drops, errors = [], [], []
    sync = SweepSynchroniser(
        SyncConfig(offsets_s=(0.0, 0.0), timeout_s=0.001),
        on_drop=lambda msg, cause: drops.append(msg),
        on_reset=errors.append,
        on_error=errors.append,
    )
    sync.registerCallback(lambda *messages: out.append(messages))

    def images(camera):
        for i in range(300):
            sync.add_image(message(T0 + i * 20 * MS), camera)

    def sweeps():
        for i in range(200):
            sync.add_sweep(message(T0 + i * 30 * MS))
            sync.poll()

    threads = [threading.Thread(target=images, args=(camera,)) for camera in (0, 1)]
    threads.append(threading.Thread(target=sweeps))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    waiting = sync.clear()
    assert len(out) + (waiting is not None) == 200
    assert len({messages[0].stamp_ns for messages in out}) == len(out)
    statistics = sync.statistics()
    assert [camera.received for camera in statistics.cameras] == [300, 300]
    assert [camera.matched + camera.missing for camera in statistics.cameras] == [len(out)] * 2
    assert (drops, errors) == ([], [])


def test_every_sweep_is_accounted_for_under_random_faults():
    rng = random.Random(0)
    bench = Bench(0.0, 0.01)
    fed = 0
    stamp = T0
    for _ in range(3_000):
        bench.now += rng.randrange(40 * MS)
        stamp += rng.choice([30 * MS] * 20 + [0, -50 * MS, -3 * S, 20 * S])
        jitter = rng.choice([0, 0, 0, 20 * MS, -20 * MS, -2 * S, 5 * S])
        choice = rng.random()
        if choice < 0.3:
            bench.sweep(rng.choice([stamp] * 9 + [0]))
            fed += 1
        elif choice < 0.9:
            bench.image(rng.choice([stamp + jitter] * 9 + [0]), rng.randrange(2))
        else:
            bench.sync.poll()
    assert fed == len(bench.out) + len(bench.drops) + bench.sync.waiting()
    assert bench.errors == []
    for _, *offsets in bench.out:
        for offset, expected in zip(offsets, (0, 10 * MS), strict=True):
            assert offset is None or abs(offset - expected) <= 100 * MS
    assert sum(None not in frame for frame in bench.out) > 50


class Source:
    """The shape of message_filters' SimpleFilter."""

    def __init__(self):
        self.callbacks = {}

    def registerCallback(self, cb, *args):
        self.callbacks[len(self.callbacks)] = (cb, args)
        return len(self.callbacks) - 1

    def signal(self, *messages):
        for cb, args in self.callbacks.values():
            cb(*messages, *args)


def test_connects_to_message_filters():
    bench = Bench(0.0, 0.0)
    sources = [Source() for _ in range(3)]
    bench.sync.connectInput(*sources)
    sources[2].signal(message(T0 + 2))
    sources[1].signal(message(T0 + 1))
    sources[0].signal(message(T0))
    assert bench.out == [(T0, 1, 2)]
    assert bench.sync.registerCallback(print) == 1


def test_refuses_a_wrong_number_of_inputs():
    with pytest.raises(ValueError, match='2 inputs for one sweep topic and 2 cameras'):
        Bench(0.0, 0.0).sync.connectInput(Source(), Source())


@pytest.mark.parametrize(
    'config',
    [
        {'stamp_source': 'bag'},
        {'tolerance_s': -0.1},
        {'timeout_s': float('nan')},
        {'max_backward_s': float('inf')},
        {'offsets_s': (float('nan'),)},
    ],
)
def test_refuses_a_config_out_of_range(config):
    with pytest.raises(ValueError, match=next(iter(config))):
        SyncConfig(**{'offsets_s': (), **config})
