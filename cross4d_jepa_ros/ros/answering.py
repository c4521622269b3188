# SPDX-License-Identifier: Apache-2.0
"""What the worker does with a sweep: frame, pipeline, messages, and a word for who looks on."""

from __future__ import annotations

import threading
import time

from rclpy.context import Context
from rclpy.impl.rcutils_logger import RcutilsLogger

from cross4d_jepa_ros.frame_log import Settings
from cross4d_jepa_ros.intake import Intake, Job
from cross4d_jepa_ros.pipeline import Perception
from cross4d_jepa_ros.ros.diagnostics import LOG_EVERY_S
from cross4d_jepa_ros.ros.messages import answer_clouds
from cross4d_jepa_ros.ros.observing import Life
from cross4d_jepa_ros.ros.outputs import wanted
from cross4d_jepa_ros.ros.teaching import Teaching
from cross4d_jepa_ros.sensing.frames import SensorFrame
from cross4d_jepa_ros.sensing.point_clouds import stamp_ns


class Answering:
    """The `Answerer` of the node."""

    def __init__(
        self,
        life: Life,
        intake: Intake,
        teaching: Teaching,
        logger: RcutilsLogger,
        context: Context,
    ) -> None:
        """Answer with what a life has; `Intake.start` gives it a thread.

        Args:
            life: Of the configured node.
            intake: Told of every answer.
            teaching: Applied before each sweep.
            logger: Of the node.
            context: Of the node; nothing can be published when it has ended.

        """
        self._life = life
        self._intake = intake
        self._teaching = teaching
        self._logger = logger
        self._context = context
        self._reset_requested = threading.Event()
        self._reset_reason = ''

    def reset(self, reason: str = '') -> None:
        """Have the past forgotten before the next sweep; from any thread."""
        self._reset_reason = reason
        self._reset_requested.set()

    def prepare(self) -> None:
        """Warm the pipeline up on the thread that will run it."""
        try:
            self._life.pipeline.warm_up()
        except Exception as error:  # the first sweep will meet it again, and be counted
            self._logger.error(f'warm-up failed: {error}')

    def recover(self) -> None:
        """Give memory back after it ran out; the pipeline has lost its past."""
        self._life.pipeline.free_memory()
        self._log_reset('memory ran out')

    def answer(self, job: Job) -> None:
        """Answer a sweep, unless the node is deactivated or the process interrupted meanwhile."""
        try:
            self._answer(job)
        except Exception:
            # A signal ends ROS under the hands of whoever publishes; the node closes only then.
            if self._context.ok():
                raise
            job.over.set()

    def _answer(self, job: Job) -> None:
        life, pipeline, outputs = self._life, self._life.pipeline, self._life.outputs
        # First: clicks that wait were made on what a reset forgets.
        self._teaching.apply()
        if self._reset_requested.is_set():
            self._reset_requested.clear()
            pipeline.reset(self._reset_reason)
            life.assembler.reset()
            self._log_reset(self._reset_reason)
        started = time.perf_counter()
        frame = life.assembler.assemble(job.points, job.images, views=pipeline.contract.colour)
        decoded = time.perf_counter()
        names = outputs.subscribed()
        settings = Settings.of(pipeline)
        try:
            perception = pipeline.step(frame, wanted(names))
        except Exception:
            self._log_frame(job, frame, None, settings)
            raise
        if perception.reset:
            self._logger.warning(
                f'the memory was cleared: {perception.reset}', throttle_duration_sec=LOG_EVERY_S
            )
        stepped = time.perf_counter()
        answers = answer_clouds(names, job.points, perception, pipeline.contract.answer_palette)
        built = time.perf_counter()
        if job.abandoned:
            return
        outputs.publish(answers)
        stages = {
            'message_decode': (decoded - started) * 1e3,
            **perception.stage_ms,
            'message_build': (built - stepped) * 1e3,
        }
        capped = perception.capped_points, perception.capped_tokens
        latency_ms = self._intake.answered(job, stages, capped)
        outputs.publish_durations({**stages, 'latency': latency_ms})
        # Settings may have changed from another thread while the step looked at them.
        certain = settings == Settings.of(pipeline)
        self._log_frame(job, frame, perception if certain else None, settings)

    def _log_frame(
        self, job: Job, frame: SensorFrame, perception: Perception | None, settings: Settings
    ) -> None:
        log = self._life.frame_log
        if log is not None:
            stamps = [None if image is None else stamp_ns(image) for image in job.images]
            ended = log.add(frame, stamps, perception, settings)
            if ended:
                self._logger.warning(ended)

    def _log_reset(self, reason: str) -> None:
        if self._life.frame_log is not None:
            self._life.frame_log.reset(reason)
