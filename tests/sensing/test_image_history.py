# SPDX-License-Identifier: Apache-2.0
"""What the last images of a camera tell of the next: whether and how long to wait for one."""

from __future__ import annotations

from tests.sensing.sync_bench import MS, T0, Bench, S, message, offsets_ms, stream


def test_no_wait_where_the_period_rules_a_nearer_image_out():
    bench = Bench(0.0)
    for i in range(6):
        bench.image(T0 + i * 100 * MS)
    bench.sweep(T0 + 520 * MS)
    assert bench.out == [(T0 + 520 * MS, -20 * MS)]


def test_wait_where_the_next_image_may_be_nearer():
    bench = Bench(0.0)
    for i in range(6):
        bench.image(T0 + i * 100 * MS)
    bench.sweep(T0 + 560 * MS)
    assert bench.sync.waiting() == 1
    bench.image(T0 + 600 * MS)
    assert bench.out == [(T0 + 560 * MS, 40 * MS)]


def test_no_wait_where_the_next_image_cannot_be_within_tolerance():
    bench = Bench(0.0, tolerance_s=0.05)
    for i in range(5):
        bench.image(T0 + i * 500 * MS)
    bench.sweep(T0 + 2_200 * MS)
    assert bench.out == [(T0 + 2_200 * MS, None)]


def test_a_dropped_image_does_not_change_the_period():
    bench = Bench(0.0)
    for i in (0, 1, 2, 4, 5, 6, 7):
        bench.image(T0 + i * 100 * MS)
    assert bench.sync.statistics().cameras[0].period_ns == 100 * MS


def test_camera_gap_and_late_start():
    bench = Bench(0.0, 0.0)
    bench.play(
        stream(-1, 100 * MS)
        + stream(0, 50 * MS, until=S)
        + stream(0, 50 * MS, start=2 * S)
        + stream(1, 100 * MS, start=1_500 * MS, lag=8 * MS)
    )
    assert [sweep for sweep, *_ in bench.out] == [T0 + i * 100 * MS for i in range(30)]
    first, second = offsets_ms(bench, 0), offsets_ms(bench, 1)
    assert first == [0] * 10 + [-50] + [None] * 9 + [0] * 10
    # A camera that starts late is waited for from the start.
    assert second == [None] * 15 + [0] * 15
    statistics = bench.sync.statistics()
    assert [camera.missing for camera in statistics.cameras] == [9, second.count(None)]
    assert statistics.sweeps == 30


def test_camera_that_never_came_is_waited_for_two_seconds_and_revives():
    bench = Bench(0.0)
    for i in range(21):
        bench.sweep(T0 + i * 100 * MS)
        assert bench.sync.waiting() == 1
        bench.now += 100 * MS
        bench.sync.poll()
        assert len(bench.out) == i + 1
    assert bench.sync.statistics().cameras[0].dead
    bench.sweep(T0 + 2_100 * MS)
    assert len(bench.out) == 22
    bench.image(T0 + 2_160 * MS)
    assert not bench.sync.statistics().cameras[0].dead
    bench.sweep(T0 + 2_200 * MS)
    assert bench.sync.waiting() == 1
    bench.image(T0 + 2_201 * MS)
    assert bench.out[-1] == (T0 + 2_200 * MS, 1 * MS)


def test_camera_that_falls_silent_is_dead_after_a_second():
    bench = Bench(0.0)
    bench.play(stream(0, 100 * MS, until=S, lag=0))
    last = bench.sync.statistics().cameras[0].last_arrival_steady_ns
    bench.now = last + S
    assert not bench.sync.statistics().cameras[0].dead
    bench.now += 1
    assert bench.sync.statistics().cameras[0].dead
    bench.sweep(T0 + 2 * S)
    assert bench.out == [(T0 + 2 * S, None)]


def test_slow_camera_is_not_taken_for_dead():
    bench = Bench(0.0)
    bench.play(stream(-1, 100 * MS, until=12 * S) + stream(0, S, until=12 * S, lag=30 * MS))
    offsets = offsets_ms(bench)
    # Its period is known from the third image on.
    assert [offsets[i] for i in range(30, 120, 10)] == [0] * 9
    assert not bench.sync.statistics().cameras[0].dead


def test_slowed_replay_is_not_taken_for_dead():
    bench = Bench(0.0, timeout_s=2.0)
    slow = [
        (at * 12, kind, stamp)
        for at, kind, stamp in stream(-1, 100 * MS) + stream(0, 100 * MS, lag=12 * MS)
    ]
    bench.play(slow, poll_ns=100 * MS)
    assert offsets_ms(bench, skip=3) == [0] * 27


def test_images_in_disorder_and_twice():
    bench = Bench(0.0)
    for stamp in (0, 100, 50, 150, 50):
        bench.image(T0 + stamp * MS)
    bench.sync.add_image(message(T0 + 50 * MS, second=True), 0)
    got = []
    bench.sync.registerCallback(lambda points, image: got.append(image))
    bench.sweep(T0 + 51 * MS)
    assert bench.out == [(T0 + 51 * MS, -1 * MS)]
    assert got[0].second


def test_late_arrival_is_told_from_late_stamps():
    late_arrival, late_stamp = Bench(0.0), Bench(0.0)
    late_arrival.play(stream(-1, 100 * MS) + stream(0, 100 * MS, lag=305 * MS))
    late_stamp.play(stream(-1, 100 * MS) + stream(0, 100 * MS, start=300 * MS, lag=-295 * MS))
    first = late_arrival.sync.statistics().cameras[0]
    assert first.arrival_lag_ns == 300 * MS
    assert first.matched == 0
    second = late_stamp.sync.statistics().cameras[0]
    assert second.arrival_lag_ns == -300 * MS
    assert set(second.offsets_ns[1:]) == {0}


def test_memory_is_bounded_without_sweeps():
    bench = Bench(0.0, 0.0)
    for i in range(500):
        bench.image(T0 + i * 10 * MS, camera=0)
        bench.image(T0 + i * 100 * MS, camera=1)
    fast, slow = (camera.images for camera in bench.sync._cameras)
    assert len(fast) == 64
    assert slow[-1].stamp_ns - slow[0].stamp_ns == 2_500 * MS


def test_used_images_are_let_go():
    bench = Bench(0.0)
    bench.play(stream(-1, 100 * MS) + stream(0, 33 * MS))
    assert len(bench.sync._cameras[0].images) <= 7


def test_only_the_last_4096_offsets_are_kept():
    bench = Bench(0.0)
    for i in range(4_200):
        bench.image(T0 + i * 100 * MS + i)
        bench.sweep(T0 + i * 100 * MS)
    offsets = bench.sync.statistics().cameras[0].offsets_ns
    assert offsets == tuple(range(4_200 - 4_096, 4_200))
