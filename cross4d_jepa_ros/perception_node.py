# SPDX-License-Identifier: Apache-2.0
"""The lifecycle node: sweeps and images in, labels and embeddings out.

    ros2 run cross4d_jepa_ros perception_node --ros-args \
        -r '~/input/points:=/velodyne_points' -r '~/input/image0:=/camera/image_raw'

Callbacks only store. One worker thread runs the pipeline on the newest sweep and never calls into
the executor. Timers run on the steady clock, so that a paused /clock silences nothing.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rclpy
import torch
from geometry_msgs.msg import PointStamped
from rclpy.clock import Clock, ClockType, JumpThreshold
from rclpy.duration import Duration
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.utilities import get_rmw_implementation_identifier
from sensor_msgs.msg import PointCloud2

from cross4d_jepa_ros.compute import is_out_of_memory
from cross4d_jepa_ros.frame_log import FrameLog, Settings, run_of
from cross4d_jepa_ros.health import ClockState, Observation, findings
from cross4d_jepa_ros.ledger import Drop, SweepLedger
from cross4d_jepa_ros.model.prototypes import named_together
from cross4d_jepa_ros.pipeline import Perception, Pipeline
from cross4d_jepa_ros.ros import parameters
from cross4d_jepa_ros.ros.diagnostics import (
    LOG_EVERY_S,
    DiagnosticsPublisher,
    Values,
    image_values,
    latency_values,
    model_values,
    points_values,
)
from cross4d_jepa_ros.ros.inputs import Inputs
from cross4d_jepa_ros.ros.lifecycle import answer_illegal_requests
from cross4d_jepa_ros.ros.messages import answer_clouds
from cross4d_jepa_ros.ros.outputs import Outputs, stage_names, wanted
from cross4d_jepa_ros.ros.teaching import (
    HOW,
    NOT_NORMALISED,
    Teaching,
    TeachingSetup,
    default_file,
)
from cross4d_jepa_ros.ros.transport import missing_profile
from cross4d_jepa_ros.sensing.extrinsics import load_extrinsics
from cross4d_jepa_ros.sensing.frames import (
    FrameAssembler,
    NoTransform,
    SensorFrame,
)
from cross4d_jepa_ros.sensing.point_clouds import MalformedCloud, stamp_ns
from cross4d_jepa_ros.sensing.synchronisation import SweepSynchroniser
from cross4d_jepa_ros.shared_files import DEMO_CHECKPOINT, shared_file
from cross4d_jepa_ros.telemetry import Telemetry
from cross4d_jepa_ros.worker import NewestFirstWorker

GRAPH_PERIOD_S = 0.2
SYNC_PERIOD_S = 0.01
DIAGNOSTICS_PERIOD_S = 1.0
SETTLE_S = 1.5
JUMP_SHOWN_S = 10.0
OUT_OF_MEMORY_LIMIT = 3
LESS_MEMORY = 'take a smaller model, one with lower max_points and max_tokens, or another device'


@dataclass(frozen=True)
class Job:
    """A sweep with the images chosen for it, on its way to the worker."""

    points: PointCloud2
    images: tuple[Any, ...]
    arrived_ns: int


class PerceptionNode(LifecycleNode):
    """Topics, parameters, QoS, one worker and diagnostics around `Pipeline`."""

    def __init__(self, **kwargs: Any) -> None:
        """Declare parameters and start the diagnostics; `configure` loads the model.

        Args:
            kwargs: Passed on to `rclpy.lifecycle.LifecycleNode`.

        Raises:
            ValueError: A parameter was overridden with a value it does not take.

        """
        super().__init__('perception_node', **kwargs)
        parameters.declare(self)
        self.add_on_set_parameters_callback(self._on_parameters)
        self._ledger = SweepLedger()
        self._telemetry = Telemetry()
        self._reset_requested = threading.Event()
        self._out_of_memory = 0
        self._arrivals: dict[int, int] = {}
        self._refusal = ''
        self._jump = (float('-inf'), '')
        self._state_since = time.monotonic()
        self._clock_seen = (0, time.monotonic())
        self._pipeline: Pipeline | None = None
        self._assembler: FrameAssembler | None = None
        self._synchroniser: SweepSynchroniser | None = None
        self._worker: NewestFirstWorker[Job] | None = None
        self._inputs: Inputs | None = None
        self._outputs: Outputs | None = None
        self._frame_log: FrameLog | None = None
        self._missing_profile = missing_profile(get_rmw_implementation_identifier())
        self._diagnostics = DiagnosticsPublisher(self)
        self._teaching = Teaching(self)
        answer_illegal_requests(self)
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(DIAGNOSTICS_PERIOD_S, self._diagnose, clock=self._steady)
        self.create_timer(GRAPH_PERIOD_S, self._watch_graph, clock=self._steady)
        self.create_timer(SYNC_PERIOD_S, self._release_late, clock=self._steady)
        self._jump_handle = self.get_clock().create_jump_callback(
            JumpThreshold(
                min_forward=None, min_backward=Duration(seconds=-0.5), on_clock_change=False
            ),
            post_callback=lambda jump: self._on_jump(
                f'/clock jumped back by {-jump.delta.nanoseconds / 1e9:.2f} s'
            ),
        )
        if self.get_parameter('autostart').value:
            self._autostart = self.create_timer(0.0, self._start, clock=self._steady)

    def _start(self) -> None:
        self._autostart.cancel()
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    # Lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load and warm up the model, prepare inputs and outputs: `active` then means ready."""
        try:
            self._configure()
        except Exception as error:
            self._refusal = f'configure failed: {error}'
            if is_out_of_memory(error):
                self._refusal = f'configure failed: {_first_line(error)}: {LESS_MEMORY}'
            self.get_logger().error(self._refusal)
            self._release()
            return TransitionCallbackReturn.FAILURE
        self._refusal = ''
        self._entered()
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe, and take sweeps."""
        assert self._synchroniser and self._pipeline and self._inputs
        self._synchroniser.clear()
        self._reset_requested.set()
        self._jump = (float('-inf'), '')
        self._refusal, self._out_of_memory = '', 0
        self._worker = NewestFirstWorker(self._answer, self._overtaken, self._warm_up)
        self._telemetry.forget_recent(self._ledger.counts(), self._synchroniser.statistics())
        self._inputs.open()
        self._entered()
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Take no more sweeps, let the one at work finish, forget the rest."""
        self._stop()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Give back the model's memory."""
        self._release()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop whatever runs."""
        self.close()
        return super().on_shutdown(state)

    def close(self) -> None:
        """Stop the worker and free everything; for the end of the process, in any state."""
        self._stop()
        self._release()

    def _entered(self) -> None:
        self._state_since = time.monotonic()

    def _configure(self) -> None:
        config = parameters.read(self)
        model = Path(config.model).expanduser() if config.model else shared_file(DEMO_CHECKPOINT)
        extrinsics = (
            load_extrinsics(Path(config.extrinsics_file)) if config.extrinsics_file else None
        )
        self._pipeline = Pipeline(
            model,
            device=config.device,
            precision=config.precision,
            threads=config.threads,
            probability_threshold=self.get_parameter('segmentation.threshold').value,
        )
        self._pipeline.warm_up()
        self._pipeline.teaching = bool(self.get_parameter('teach.class').value)
        self._sync_config = config.sync
        self._synchroniser = SweepSynchroniser(
            config.sync,
            on_drop=self._dropped_by_synchroniser,
            on_reset=self._on_jump,
            on_error=self._on_error,
        )
        self._synchroniser.registerCallback(self._on_synchronised)
        inputs = self._inputs = Inputs(self, config)
        inputs.points.registerCallback(self._on_points)
        inputs.clicks.registerCallback(self._on_click)
        self._synchroniser.connectInput(inputs.points, *inputs.images)
        self._assembler = FrameAssembler(
            config.frame, inputs.transforms, extrinsics, [image.topic for image in inputs.images]
        )
        for camera, info in enumerate(inputs.camera_infos):
            info.registerCallback(self._assembler.set_camera_info, camera)
        if self._missing_profile:
            self.get_logger().warning(self._missing_profile)
        file = Path(config.teach_file).expanduser() if config.teach_file else None
        self._teaching.begin(
            TeachingSetup(
                self._pipeline,
                inputs.transforms,
                model,
                file or default_file(self._pipeline.model_sha256),
                round(config.frame.max_extrapolation_s * 1e9),
            )
        )
        thresholds = self.get_parameter(parameters.CLASS_THRESHOLDS).value
        self._pipeline.class_thresholds = parameters.class_thresholds(
            thresholds, self._class_names()
        )
        contract = self._pipeline.contract
        names_classes = bool(contract.answer_names) or self._pipeline.teaching
        self._pipeline.answers_unknown = names_classes
        self._outputs = Outputs(self, stage_names(Pipeline.STAGES), names_classes=names_classes)
        if config.frame_log:
            images = [image.topic for image in inputs.images]
            run = run_of(self._pipeline, config.frame.cloud, inputs.points.topic, images)
            self._frame_log = FrameLog(Path(config.frame_log).expanduser())
            self._warn(self._frame_log.begin(run))
        self.get_logger().info(
            f'model {model} ({contract.training["kind"]}) on {self._pipeline.device} in '
            + self._pipeline.precision
            + ('' if names_classes else f'; it knows no classes: embeddings only; {HOW}')
        )

    def _stop(self) -> None:
        if self._inputs is not None:
            self._inputs.close()
        if self._worker is None:
            return
        worker, self._worker = self._worker, None
        assert self._synchroniser is not None
        waiting = self._synchroniser.clear()
        joined, left = worker.stop(1.0 + self._telemetry.pipeline_ms(100) / 1e3)
        for unanswered in (waiting, left):
            if unanswered is not None:
                self._ledger.drop(Drop.INACTIVE, 'the node was deactivated')
        if not joined:
            self.get_logger().error('the worker is still busy; its answer will not be published')
        self._arrivals.clear()
        self._teaching.forget_clicks()
        if self._pipeline is not None:
            self._pipeline.reset()
        self._entered()

    def _release(self) -> None:
        if self._outputs is not None:
            self._outputs.destroy()
        self._pipeline = self._assembler = self._synchroniser = None
        self._inputs = self._outputs = None
        self._teaching.end()
        if self._frame_log is not None:
            self._frame_log.close()
            self._frame_log = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self._entered()

    # Callbacks: they store and return

    def _on_parameters(self, changes: list[Any]) -> Any:
        names = self._class_names(changes)
        result = parameters.check(changes, self._state_machine.current_state[1], names)
        pipeline = self._pipeline
        if pipeline is None or not result.successful:
            return result
        for change in changes:
            if change.name == 'segmentation.threshold':
                pipeline.probability_threshold = change.value
            elif change.name == parameters.CLASS_THRESHOLDS:
                pipeline.class_thresholds = parameters.class_thresholds(change.value, names)
            elif change.name == 'teach.class':
                pipeline.teaching = bool(change.value)
                if pipeline.teaching and self._outputs and not self._outputs.names_classes:
                    self.get_logger().warning(
                        'the segmentation topics are not advertised, as the model knew no classes '
                        'when it was configured: deactivate, clean up, configure and activate the '
                        'node (teach.class stays); ~/teach/save keeps what is clicked before that'
                    )
        return result

    def _class_names(self, changes: Sequence[Any] = ()) -> tuple[str, ...] | None:
        """Names that thresholds may be given for: all classes, and the one to be taught next."""
        if self._pipeline is None:
            return None
        taught = [change.value for change in changes if change.name == 'teach.class']
        taught = taught or [self.get_parameter('teach.class').value]
        return named_together(self._pipeline.contract.answer_names, list(filter(None, taught)))

    def _on_click(self, message: PointStamped) -> None:
        self._teaching.click(self.get_parameter('teach.class').value, message)

    def _on_points(self, message: PointCloud2) -> None:
        self._ledger.receive()
        self._telemetry.arrived(stamp_ns(message))
        self._arrivals[id(message)] = time.monotonic_ns()

    def _on_synchronised(self, points: PointCloud2, *images: Any) -> None:
        worker = self._worker
        arrived = self._arrivals.pop(id(points), time.monotonic_ns())
        if worker is None or not worker.offer(Job(points, images, arrived)):
            self._ledger.drop(Drop.INACTIVE, 'the node was deactivated')

    def _dropped_by_synchroniser(self, points: PointCloud2, cause: str) -> None:
        self._arrivals.pop(id(points), None)
        self._ledger.drop(Drop(cause), f'stamp {stamp_ns(points)} ns')

    def _overtaken(self, job: Job) -> None:
        self._ledger.drop(Drop.SUPERSEDED, f'stamp {stamp_ns(job.points)} ns')

    def _on_jump(self, sentence: str) -> None:
        self._jump = (time.monotonic(), sentence)
        self._reset_requested.set()

    def _on_error(self, error: Exception) -> None:
        self.get_logger().error(
            f'{type(error).__name__}: {error}', throttle_duration_sec=LOG_EVERY_S
        )

    def _watch_graph(self) -> None:
        now = self.get_clock().now().nanoseconds
        if now != self._clock_seen[0]:
            self._clock_seen = (now, time.monotonic())
        if self._worker is not None and self._inputs is not None:
            self._inputs.poll()

    def _release_late(self) -> None:
        if self._worker is not None and self._synchroniser is not None:
            self._synchroniser.poll()
        if self._worker is not None and self._out_of_memory >= OUT_OF_MEMORY_LIMIT:
            self._give_up()

    def _give_up(self) -> None:
        reason = self._ledger.counts().last_reason.get(Drop.OUT_OF_MEMORY, '')
        self._refusal = (
            f'memory ran out {self._out_of_memory} times in a row ({reason}): {LESS_MEMORY}; '
            'then activate the node again'
        )
        self.get_logger().error(f'deactivated: {self._refusal}')
        self.trigger_deactivate()

    # The worker's thread

    def _warm_up(self) -> None:
        assert self._pipeline is not None
        try:
            self._pipeline.warm_up()
        except Exception as error:  # the first sweep will meet it again, and be counted
            self.get_logger().error(f'warm-up failed: {error}')

    def _answer(self, job: Job) -> None:
        lacking = False
        try:
            self._perceive(job)
        except MalformedCloud as error:
            self._drop(Drop.MALFORMED, error)
        except NoTransform as error:
            self._drop(Drop.NO_TRANSFORM, error)
        except Exception as error:
            lacking = is_out_of_memory(error)
            self._drop(Drop.OUT_OF_MEMORY if lacking else Drop.ERROR, error)
        # Only here: until the handler ends, the error holds on to what the step had allocated.
        if lacking:
            self._out_of_memory += 1
            if self._pipeline is not None:
                self._pipeline.free_memory()
            self._log_reset('memory ran out')

    def _drop(self, cause: Drop, error: Exception) -> None:
        self._ledger.drop(cause, repr(error) if cause == Drop.ERROR else _first_line(error))
        self.get_logger().error(
            f'sweep dropped ({cause}): {error}', throttle_duration_sec=LOG_EVERY_S
        )

    def _perceive(self, job: Job) -> None:
        pipeline, assembler, outputs = self._pipeline, self._assembler, self._outputs
        if pipeline is None or assembler is None or outputs is None:
            self._ledger.drop(Drop.INACTIVE, 'the node was cleaned up')
            return
        # First: clicks that wait were made on what a reset forgets.
        self._teaching.apply()
        if self._reset_requested.is_set():
            self._reset_requested.clear()
            pipeline.reset(self._jump[1])
            assembler.reset()
            self._log_reset(self._jump[1])
        started = time.perf_counter()
        frame = assembler.assemble(job.points, job.images, views=pipeline.contract.colour)
        decoded = time.perf_counter()
        names = outputs.subscribed()
        settings = Settings.of(pipeline)
        try:
            perception = pipeline.step(frame, wanted(names))
        except Exception:
            self._log_frame(job, frame, None, settings)
            raise
        self._out_of_memory = 0
        if perception.reset:
            self.get_logger().warning(
                f'the memory was cleared: {perception.reset}', throttle_duration_sec=LOG_EVERY_S
            )
        stepped = time.perf_counter()
        answers = answer_clouds(names, job.points, perception, pipeline.contract.answer_palette)
        built = time.perf_counter()
        if self._worker is None:
            self._ledger.drop(Drop.INACTIVE, 'the node was deactivated')
            return
        outputs.publish(answers)
        self._ledger.answer()
        stages = {
            'message_decode': (decoded - started) * 1e3,
            **perception.stage_ms,
            'message_build': (built - stepped) * 1e3,
        }
        latency_ms = (time.monotonic_ns() - job.arrived_ns) / 1e6
        capped = perception.capped_points, perception.capped_tokens
        self._telemetry.answered(latency_ms, stages, capped)
        outputs.publish_durations({**stages, 'latency': latency_ms})
        # Settings may have changed from another thread while the step looked at them.
        certain = settings == Settings.of(pipeline)
        self._log_frame(job, frame, perception if certain else None, settings)

    def _log_frame(
        self, job: Job, frame: SensorFrame, perception: Perception | None, settings: Settings
    ) -> None:
        log = self._frame_log
        if log is not None:
            stamps = [None if image is None else stamp_ns(image) for image in job.images]
            self._warn(log.add(frame, stamps, perception, settings))

    def _log_reset(self, reason: str) -> None:
        log = self._frame_log
        if log is not None:
            log.reset(reason)

    def _warn(self, sentence: str) -> None:
        if sentence:
            self.get_logger().warning(sentence)

    # Diagnostics

    def _observe(self) -> Observation:
        lifecycle = self._state_machine.current_state[1]
        clock = ClockState(
            simulated=bool(self.get_parameter('use_sim_time').value),
            publishers=self.count_publishers('/clock'),
            stopped_s=time.monotonic() - self._clock_seen[1],
        )
        inputs, assembler = self._inputs, self._assembler
        if lifecycle != 'active' or not (inputs and assembler and self._synchroniser):
            return Observation(lifecycle, refusal=self._refusal, clock=clock)
        counts = self._ledger.counts()
        recent = self._telemetry.recent(counts, self._synchroniser.statistics())
        missing, period_ms = self._telemetry.missing_sweeps()
        assert self._pipeline is not None
        model = self._pipeline.contract.model
        capped_points, capped_tokens = self._telemetry.capped()
        return Observation(
            lifecycle,
            clock=clock,
            points=inputs.points.state(),
            images=tuple(image.state() for image in inputs.images),
            camera_infos=tuple(info.state() for info in inputs.camera_infos),
            cameras=recent.cameras,
            sync=self._sync_config,
            zero_stamped=recent.zero_stamped > 0,
            jump=self._jump[1] if time.monotonic() - self._jump[0] < JUMP_SHOWN_S else '',
            received=recent.received,
            answered=recent.answered,
            dropped=recent.dropped,
            reasons=counts.last_reason,
            missing_sweeps=missing,
            pipeline_ms=self._telemetry.pipeline_ms(),
            period_ms=period_ms,
            capped_points=capped_points,
            capped_tokens=capped_tokens,
            max_points=model.max_points,
            max_tokens=model.max_tokens,
            latents=model.latents * (model.sweeps - 1),
            missing_profile=self._missing_profile,
            notes=dict(assembler.notes),
            warnings=_warnings(self._pipeline),
        )

    def _diagnose(self) -> None:
        seen = self._observe()
        settling = time.monotonic() - self._state_since < SETTLE_S
        found = [] if settling and not seen.refusal else findings(seen)
        transport = self._missing_profile or 'large-message profile in use'
        node: dict[str, object] = {'state': seen.lifecycle, 'transport': transport}
        if self._pipeline is not None and self._assembler is not None:
            node |= model_values(self._pipeline, self._assembler, self._telemetry)
            node |= {'teach_class': self.get_parameter('teach.class').value}
            node |= {'teach_file': self._teaching.file}
        sections: dict[str, Values] = {'node': node}
        if seen.lifecycle == 'active' and self._synchroniser and self._inputs:
            lost = max(seen.points.lost, seen.missing_sweeps)
            counts = self._ledger.counts()
            sections['points'] = points_values(seen.points.topic, counts, lost, seen.period_ms)
            cameras = self._synchroniser.statistics().cameras
            names = zip(self._inputs.images, self._inputs.camera_infos, cameras, strict=True)
            for image, info, camera in names:
                sections[image.name] = image_values(image.topic, info.topic, camera)
            sections['latency'] = latency_values(self._telemetry)
        self._diagnostics.publish(seen.lifecycle, found, sections)


def _warnings(pipeline: Pipeline) -> tuple[str, ...]:
    found = []
    if pipeline.contract.training['kind'] == 'untrained':
        found.append('the weights are untrained: labels mean nothing; set model')
    if not pipeline.normalised and (pipeline.teaching or pipeline.prototypes.names):
        found.append(NOT_NORMALISED)
    return tuple(found)


def _first_line(error: Exception) -> str:
    """Leave out the native stack that PyTorch appends."""
    return str(error).partition('\n')[0]


def main(args: list[str] | None = None) -> int:
    """Run the node until it is interrupted; returns the exit code."""
    rclpy.init(args=args)
    try:
        node = PerceptionNode()
    except (ValueError, InvalidParameterTypeException, InvalidParameterValueException) as error:
        print(f'perception_node: {error}', file=sys.stderr)
        rclpy.try_shutdown()
        return 2
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        while rclpy.ok():
            try:
                executor.spin()
            except (KeyboardInterrupt, ExternalShutdownException):
                break
            except Exception as error:
                node.get_logger().error(f'a callback failed: {error!r}')
    finally:
        node.close()
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())
