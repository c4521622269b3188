# SPDX-License-Identifier: Apache-2.0
"""One job at work, one waiting, the newest wins, nothing lost without a word."""

from __future__ import annotations

import signal
import threading
import time
import weakref

import pytest

from cross4d_jepa_ros.worker import NewestFirstWorker


def test_newer_job_pushes_out_the_waiting_one() -> None:
    started, go_on = threading.Event(), threading.Event()
    done: list[int] = []

    def work(job: int) -> None:
        started.set()
        assert go_on.wait(5)
        done.append(job)

    worker = NewestFirstWorker(work)
    worker.offer(1)
    assert started.wait(5)
    for job in (2, 3, 4):
        worker.offer(job)
    go_on.set()
    while len(done) < 2:
        time.sleep(0.01)

    assert worker.stop(5) == (True, None)
    assert done == [1, 4]


def test_stop_returns_what_was_waiting_and_refuses_more() -> None:
    started, go_on = threading.Event(), threading.Event()

    def work(job: int) -> None:
        started.set()
        go_on.wait(5)

    worker = NewestFirstWorker(work)
    worker.offer(1)
    assert started.wait(5)
    worker.offer(2)

    assert worker.stop(0.05) == (False, 2)
    assert not worker.offer(3)
    go_on.set()
    assert worker.stop(5) == (True, None)


def raised(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize('error', [ValueError('v'), MemoryError(), SystemExit(1), GeneratorExit()])
@pytest.mark.parametrize('deaf', [False, True])
def test_whatever_a_job_raises_is_told_and_the_next_one_done(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, deaf: bool
) -> None:
    """A dead thread would let every later sweep be overtaken without a word."""
    told: list[type[BaseException]] = []
    monkeypatch.setattr(
        threading,
        'excepthook',
        lambda seen: raised(OSError('no stderr')) if deaf else told.append(seen.exc_type),
    )
    done = threading.Event()
    worker = NewestFirstWorker(
        lambda job: raised(error) if job == 1 else done.set(), lambda: raised(error)
    )
    worker.offer(1)
    while worker._mailbox is not None:
        time.sleep(0.005)
    worker.offer(2)

    assert done.wait(5)
    assert worker.stop(5) == (True, None)
    assert told == ([] if deaf else [type(error)] * 2)


def test_a_finished_job_is_let_go() -> None:
    """Its cloud would stay in memory until the next sweep comes."""

    class Cloud:
        pass

    cloud = Cloud()
    gone = weakref.ref(cloud)
    worker: NewestFirstWorker[Cloud] = NewestFirstWorker(lambda job: None)
    worker.offer(cloud)
    del cloud
    deadline = time.monotonic() + 5
    while gone() is not None and time.monotonic() < deadline:
        time.sleep(0.005)

    assert gone() is None
    assert worker.stop(5)[0]


def test_prepares_on_its_own_thread_before_it_takes_jobs() -> None:
    names: list[str] = []
    worker = NewestFirstWorker(
        lambda job: names.append(f'{job} on {threading.current_thread().name}'),
        lambda: names.append(threading.current_thread().name),
    )
    assert names == ['perception_worker']
    worker.offer(1)
    while len(names) < 2:
        time.sleep(0.01)

    assert names[1] == '1 on perception_worker'
    assert worker.stop(5)[0]


def test_interrupted_preparation_leaves_no_thread_behind() -> None:
    """Ctrl-C while the worker warms up: the thread must be gone before the process ends."""
    finished = threading.Event()

    def slow() -> None:
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        time.sleep(0.3)
        finished.set()

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            NewestFirstWorker(lambda job: None, slow)
    finally:
        signal.signal(signal.SIGINT, before)

    assert finished.is_set()
    assert not any(thread.name == 'perception_worker' for thread in threading.enumerate())
