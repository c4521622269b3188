# SPDX-License-Identifier: Apache-2.0
"""The lifecycle node: sweeps and images in, labels and embeddings out.

    ros2 run cross4d_jepa_ros perception_node --ros-args \
        -r '~/input/points:=/velodyne_points' -r '~/input/image0:=/camera/image_raw'

Callbacks only store. One worker thread runs the pipeline on the newest sweep and never calls into
the executor. Timers run on the steady clock, so that a paused /clock silences nothing.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from geometry_msgs.msg import PointStamped
from rclpy.clock import Clock, ClockType, JumpThreshold
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.utilities import get_rmw_implementation_identifier

from cross4d_jepa_ros.compute import give_back_memory, is_out_of_memory
from cross4d_jepa_ros.frame_log import FrameLog, run_of
from cross4d_jepa_ros.health import ClockState, Observation, findings
from cross4d_jepa_ros.intake import Intake, first_line
from cross4d_jepa_ros.ledger import Counts, Drop
from cross4d_jepa_ros.model.prototypes import named_together
from cross4d_jepa_ros.pipeline import Pipeline
from cross4d_jepa_ros.retained_memory import CHECKED_EVERY_S, RetainedMemory
from cross4d_jepa_ros.ros import parameters
from cross4d_jepa_ros.ros.answering import Answering
from cross4d_jepa_ros.ros.diagnostics import (
    LOG_EVERY_S,
    DiagnosticsPublisher,
    Values,
    model_values,
)
from cross4d_jepa_ros.ros.inputs import Inputs
from cross4d_jepa_ros.ros.lifecycle import answer_illegal_requests, told
from cross4d_jepa_ros.ros.node_process import run_node
from cross4d_jepa_ros.ros.observing import Life, active_sections, observe
from cross4d_jepa_ros.ros.outputs import Outputs, stage_names
from cross4d_jepa_ros.ros.teaching import HOW, Teaching, TeachingSetup, default_file
from cross4d_jepa_ros.ros.transport import missing_profile
from cross4d_jepa_ros.sensing.extrinsics import load_extrinsics
from cross4d_jepa_ros.sensing.frames import FrameAssembler
from cross4d_jepa_ros.shared_files import DEMO_CHECKPOINT, shared_file

GRAPH_PERIOD_S = 0.2
SYNC_PERIOD_S = 0.01
DIAGNOSTICS_PERIOD_S = 1.0
SETTLE_S = 1.5
JUMP_SHOWN_S = 10.0
OUT_OF_MEMORY_LIMIT = 3
LESS_MEMORY = 'take a smaller model, one with lower max_points and max_tokens, or another device'


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
        self._intake = Intake(on_reset=self._on_jump, log=self._log_error)
        self._life: Life | None = None
        self._answering: Answering | None = None
        self._refusal = ''
        self._jump = (float('-inf'), '')
        self._state_since = time.monotonic()
        self._clock_seen = (0, time.monotonic())
        self._missing_profile = missing_profile(get_rmw_implementation_identifier())
        self._diagnostics = DiagnosticsPublisher(self)
        self._teaching = Teaching(self)
        answer_illegal_requests(self)
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(DIAGNOSTICS_PERIOD_S, self._diagnose, clock=self._steady)
        self.create_timer(GRAPH_PERIOD_S, self._watch_graph, clock=self._steady)
        retained = RetainedMemory()
        self.create_timer(CHECKED_EVERY_S, retained.check, clock=self._steady)
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
            lacking = is_out_of_memory(error)
            why = f'{first_line(error)}: {LESS_MEMORY}' if lacking else error
            self.refuse(f'configure failed: {why}')
            self._release()
            return TransitionCallbackReturn.FAILURE
        self._refusal = ''
        self._entered()
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe, and take sweeps."""
        assert self._life is not None
        answering = Answering(
            self._life, self._intake, self._teaching, self.get_logger(), self.context
        )
        answering.reset()
        try:
            self._intake.start(answering)
            self._answering = answering
            self._life.inputs.open()
        except Exception as error:
            self.refuse(f'activate failed: {error}')
            self._stop()
            return TransitionCallbackReturn.FAILURE
        self._jump, self._refusal = (float('-inf'), ''), ''
        self._entered()
        return super().on_activate(state)

    @told
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Take no more sweeps, let the one at work finish, forget the rest."""
        self._stop()
        return super().on_deactivate(state)

    @told
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Give back the model's memory."""
        self._release()
        return super().on_cleanup(state)

    @told
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop whatever runs."""
        self.close()
        return super().on_shutdown(state)

    @told
    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Clear up after a transition that raised: unconfigured, the node can begin again."""
        self.close()
        return super().on_error(state)

    def close(self) -> None:
        """Stop the worker and free everything; for the end of the process, in any state."""
        self._stop()
        self._release()

    def counts(self) -> Counts:
        """Read the books."""
        return self._intake.ledger.counts()

    def refuse(self, sentence: str) -> None:
        """Say why a transition was not made, in the log and in the diagnostics."""
        self._refusal = sentence
        self.get_logger().error(sentence)

    def _entered(self) -> None:
        self._state_since = time.monotonic()

    def _configure(self) -> None:
        config = parameters.read(self)
        model = config.model or shared_file(DEMO_CHECKPOINT)
        extrinsics = load_extrinsics(config.extrinsics_file) if config.extrinsics_file else None
        pipeline = Pipeline(
            model,
            device=config.device,
            precision=config.precision,
            threads=config.threads,
            probability_threshold=self.get_parameter('segmentation.threshold').value,
        )
        pipeline.warm_up()
        pipeline.teaching = bool(self.get_parameter('teach.class').value)
        inputs = Inputs(self, config)
        images = [image.topic for image in inputs.images]
        assembler = FrameAssembler(config.frame, inputs.transforms, extrinsics, images)
        self._intake.configure(config.sync)
        inputs.points.registerCallback(self._intake.add_sweep)
        for camera, image in enumerate(inputs.images):
            image.registerCallback(self._intake.add_image, camera)
        for camera, info in enumerate(inputs.camera_infos):
            info.registerCallback(assembler.set_camera_info, camera)
        inputs.clicks.registerCallback(self._on_click)
        if self._missing_profile:
            self.get_logger().warning(self._missing_profile)
        self._begin_teaching(config, model, pipeline, inputs)
        names_classes = bool(pipeline.contract.answer_names) or pipeline.teaching
        pipeline.answers_unknown = names_classes
        frame_log = None
        if config.frame_log:
            frame_log = FrameLog(config.frame_log)
            run = run_of(pipeline, config.frame.cloud, inputs.points.topic, images)
            refused = frame_log.begin(run)
            if refused:
                self.get_logger().warning(refused)
        outputs = Outputs(self, stage_names(Pipeline.STAGES), names_classes=names_classes)
        files = {
            'model_file': model,
            'extrinsics_file': config.extrinsics_file or '',
            'frame_log': config.frame_log or '',
        }
        self._life = Life(pipeline, inputs, assembler, outputs, frame_log, config.sync, files)
        self.get_logger().info(
            f'model {model} ({pipeline.contract.training["kind"]}) on {pipeline.device} in '
            + pipeline.precision
            + ('' if names_classes else f'; it knows no classes: embeddings only; {HOW}')
        )

    def _begin_teaching(
        self, config: parameters.NodeConfig, model: Path, pipeline: Pipeline, inputs: Inputs
    ) -> None:
        self._teaching.begin(
            TeachingSetup(
                pipeline,
                inputs.transforms,
                model,
                config.teach_file or default_file(pipeline.model_sha256),
                round(config.frame.max_extrapolation_s * 1e9),
            )
        )
        pipeline.class_thresholds = parameters.class_thresholds(
            self.get_parameter(parameters.CLASS_THRESHOLDS).value, self._class_names(pipeline)
        )

    def _stop(self) -> None:
        if self._life is not None:
            self._life.inputs.close()
        if not self._intake.started:
            return
        joined = self._intake.stop()
        self._answering = None
        if not joined:
            self.get_logger().error('the worker is still busy; its answer will not be published')
        self._teaching.forget_clicks()
        # A busy worker has it in its hands; the next life starts with a reset anyway.
        if joined and self._life is not None:
            self._life.pipeline.reset()
        self._entered()

    def _release(self) -> None:
        life, self._life = self._life, None
        if life is not None:
            life.end()
        del life
        self._teaching.end()
        give_back_memory()
        self._entered()

    # Callbacks: they store and return

    def _on_parameters(self, changes: list[Any]) -> Any:
        life = self._life
        names = None if life is None else self._class_names(life.pipeline, changes)
        result = parameters.check(changes, self._state_machine.current_state[1], names)
        if life is None or not result.successful:
            return result
        pipeline = life.pipeline
        for change in changes:
            if change.name == 'segmentation.threshold':
                pipeline.probability_threshold = change.value
            elif change.name == parameters.CLASS_THRESHOLDS:
                pipeline.class_thresholds = parameters.class_thresholds(change.value, names)
            elif change.name == 'teach.class':
                pipeline.teaching = bool(change.value)
                if pipeline.teaching and not life.outputs.names_classes:
                    self.get_logger().warning(
                        'the segmentation topics are not advertised, as the model knew no classes '
                        'when it was configured: deactivate, clean up, configure and activate the '
                        'node (teach.class stays); ~/teach/save keeps what is clicked before that'
                    )
        return result

    def _class_names(self, pipeline: Pipeline, changes: Sequence[Any] = ()) -> tuple[str, ...]:
        """Names that thresholds may be given for: all classes, and the one to be taught next."""
        taught = [change.value for change in changes if change.name == 'teach.class']
        taught = taught or [self.get_parameter('teach.class').value]
        return named_together(pipeline.contract.answer_names, list(filter(None, taught)))

    def _on_click(self, message: PointStamped) -> None:
        self._teaching.click(self.get_parameter('teach.class').value, message)

    def _on_jump(self, sentence: str) -> None:
        self._jump = (time.monotonic(), sentence)
        if self._answering is not None:
            self._answering.reset(sentence)

    def _log_error(self, sentence: str) -> None:
        self.get_logger().error(sentence, throttle_duration_sec=LOG_EVERY_S)

    def _watch_graph(self) -> None:
        now = self.get_clock().now().nanoseconds
        if now != self._clock_seen[0]:
            self._clock_seen = (now, time.monotonic())
        if self._intake.started and self._life is not None:
            self._life.inputs.poll()

    def _release_late(self) -> None:
        self._intake.poll()
        times = self._intake.out_of_memory
        if self._intake.started and times >= OUT_OF_MEMORY_LIMIT:
            reason = self.counts().last_reason.get(Drop.OUT_OF_MEMORY, '')
            self._refusal = (
                f'memory ran out {times} times in a row ({reason}): {LESS_MEMORY}; '
                'then activate the node again'
            )
            self.get_logger().error(f'deactivated: {self._refusal}')
            self.trigger_deactivate()

    # Diagnostics

    def _observe(self) -> Observation:
        state = self._state_machine.current_state[1]
        clock = ClockState(
            simulated=bool(self.get_parameter('use_sim_time').value),
            publishers=self.count_publishers('/clock'),
            stopped_s=time.monotonic() - self._clock_seen[1],
        )
        if state != 'active' or self._life is None:
            return Observation(state, refusal=self._refusal, clock=clock)
        jump = self._jump[1] if time.monotonic() - self._jump[0] < JUMP_SHOWN_S else ''
        return observe(self._life, self._intake, clock, jump, self._missing_profile)

    def _diagnose(self) -> None:
        seen, life = self._observe(), self._life
        settling = time.monotonic() - self._state_since < SETTLE_S
        found = [] if settling and not seen.refusal else findings(seen)
        transport = self._missing_profile or 'large-message profile in use'
        node: dict[str, object] = {'state': seen.lifecycle, 'transport': transport}
        sections: dict[str, Values] = {'node': node}
        if life is not None:
            node |= model_values(life.pipeline, life.assembler, self._intake.telemetry)
            node |= {'teach_class': self.get_parameter('teach.class').value}
            node |= {**life.files, 'teach_file': self._teaching.file}
            if seen.lifecycle == 'active':
                sections |= active_sections(life, self._intake, seen)
        self._diagnostics.publish(seen.lifecycle, found, sections)


def main(args: list[str] | None = None) -> int:
    """Run the node until it is interrupted; returns the exit code."""
    return run_node(PerceptionNode, 'perception_node', args)


if __name__ == '__main__':
    sys.exit(main())
