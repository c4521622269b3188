# SPDX-License-Identifier: Apache-2.0
"""One thread behind a mailbox with one place: the newest job wins."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

PREPARE_LIMIT_S = 10.0

Job = TypeVar('Job')


class NewestFirstWorker(Generic[Job]):
    """Runs `work` on one job at a time; a job that waits is replaced by a newer one.

    `work` runs on the worker's own thread, without any lock. Whatever it raises goes to
    `threading.excepthook`, and the thread goes on with the next job.
    """

    def __init__(
        self, work: Callable[[Job], None], prepare: Callable[[], None] = lambda: None
    ) -> None:
        """Start the thread; returns when `prepare` has run.

        Args:
            work: Called with each job that is taken from the mailbox.
            prepare: Called once on the new thread, for what a thread has to itself (PyTorch keeps
                a pool of helpers and a memory arena per calling thread).

        """
        self._prepare = prepare
        self._prepared = threading.Event()
        self._work = work
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
            self._mailbox = job
            self._condition.notify()
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
        return not self.busy(), left

    def busy(self) -> bool:
        """Whether the thread lives; after `stop`: whether it is still on its last job."""
        return self._thread.is_alive()

    def _run(self) -> None:
        self._guarded(self._prepare)
        self._prepared.set()
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._stopping or self._mailbox is not None)
                if self._stopping:
                    return
                job, self._mailbox = self._mailbox, None
            assert job is not None
            self._guarded(self._work, job)
            # Else it is held until the next one comes.
            del job

    def _guarded(self, call: Callable[..., None], *arguments: Job) -> None:
        """Call; a thread that died would leave every later job without a word."""
        try:
            call(*arguments)
        except BaseException:
            kind, error, trace = sys.exc_info()
            assert kind is not None
            told = threading.ExceptHookArgs((kind, error, trace, self._thread))
            try:
                threading.excepthook(told)
            except Exception:  # nobody is left to be told
                pass
