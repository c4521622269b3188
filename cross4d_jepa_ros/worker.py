# SPDX-License-Identifier: Apache-2.0
"""One thread behind a mailbox with one place: the newest job wins."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

PREPARE_LIMIT_S = 10.0

Job = TypeVar('Job')


class NewestFirstWorker(Generic[Job]):
    """Runs `work` on one job at a time; a job that waits is replaced by a newer one.

    `work` must not raise. It runs on the worker's own thread, `superseded` on the thread that
    offers the newer job; no lock is held while either runs.
    """

    def __init__(
        self,
        work: Callable[[Job], None],
        superseded: Callable[[Job], None],
        prepare: Callable[[], None] = lambda: None,
    ) -> None:
        """Start the thread; returns when `prepare` has run.

        Args:
            work: Called with each job that is taken from the mailbox.
            superseded: Called with each job that a newer one pushed out.
            prepare: Called once on the new thread, for what a thread has to itself (PyTorch keeps
                a pool of helpers and a memory arena per calling thread). Must not raise.

        """
        self._prepare = prepare
        self._prepared = threading.Event()
        self._work = work
        self._superseded = superseded
        self._condition = threading.Condition()
        self._mailbox: Job | None = None
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name='perception_worker', daemon=True)
        try:
            self._thread.start()
            self._prepared.wait()
        except BaseException:  # Ctrl-C: PyTorch aborts when the process ends under its feet
            self.stop(PREPARE_LIMIT_S)
            raise

    def offer(self, job: Job) -> bool:
        """Put a job into the mailbox. False when the worker is stopping (the job is not taken)."""
        with self._condition:
            if self._stopping:
                return False
            pushed_out, self._mailbox = self._mailbox, job
            self._condition.notify()
        if pushed_out is not None:
            self._superseded(pushed_out)
        return True

    def stop(self, timeout_s: float) -> tuple[bool, Job | None]:
        """Accept no more, wait for the job at work.

        Returns:
            Whether the thread ended within the timeout, and the job left in the mailbox.

        """
        with self._condition:
            self._stopping = True
            left, self._mailbox = self._mailbox, None
            self._condition.notify()
        self._thread.join(timeout_s)
        return not self._thread.is_alive(), left

    def _run(self) -> None:
        try:
            self._prepare()
        finally:
            self._prepared.set()
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._stopping or self._mailbox is not None)
                if self._stopping:
                    return
                job, self._mailbox = self._mailbox, None
            assert job is not None
            self._work(job)
