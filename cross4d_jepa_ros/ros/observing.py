# SPDX-License-Identifier: Apache-2.0
"""One configured life of the node, and what can be seen of it: for `health` and `/diagnostics`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cross4d_jepa_ros.frame_log import FrameLog
from cross4d_jepa_ros.health import ClockState, Observation
from cross4d_jepa_ros.intake import Intake
from cross4d_jepa_ros.pipeline import Pipeline
from cross4d_jepa_ros.ros.diagnostics import (
    Values,
    image_values,
    latency_values,
    points_values,
)
from cross4d_jepa_ros.ros.inputs import Inputs
from cross4d_jepa_ros.ros.outputs import Outputs
from cross4d_jepa_ros.ros.teaching import NOT_NORMALISED
from cross4d_jepa_ros.sensing.frames import FrameAssembler
from cross4d_jepa_ros.sensing.synchronisation import SyncConfig


@dataclass(frozen=True)
class Life:
    """What the node has from `configure` to `cleanup`.

    Attributes:
        files: That it was told to use, for `/diagnostics`; empty: none.

    """

    pipeline: Pipeline
    inputs: Inputs
    assembler: FrameAssembler
    outputs: Outputs
    frame_log: FrameLog | None
    sync: SyncConfig
    files: Mapping[str, Path | str]

    def end(self) -> None:
        """Take the topics back and close the log."""
        self.outputs.destroy()
        if self.frame_log is not None:
            self.frame_log.close()


def observe(
    life: Life, intake: Intake, clock: ClockState, jump: str, missing_profile: str | None
) -> Observation:
    """Look at an active node. Call it once a second.

    Args:
        life: Of the node.
        intake: Started.
        clock: The node's ROS clock.
        jump: What is to be said of a recent jump in time; empty where there was none.
        missing_profile: Why large messages may be lost; None where they are not.

    """
    assert intake.synchroniser is not None
    inputs, telemetry, model = life.inputs, intake.telemetry, life.pipeline.contract.model
    counts = intake.ledger.counts()
    recent = telemetry.recent(counts, intake.synchroniser.statistics())
    missing, period_ms = telemetry.missing_sweeps()
    capped_points, capped_tokens = telemetry.capped()
    return Observation(
        'active',
        clock=clock,
        points=inputs.points.state(),
        images=tuple(image.state() for image in inputs.images),
        camera_infos=tuple(info.state() for info in inputs.camera_infos),
        cameras=recent.cameras,
        sync=life.sync,
        zero_stamped=recent.zero_stamped > 0,
        jump=jump,
        received=recent.received,
        answered=recent.answered,
        dropped=recent.dropped,
        reasons=counts.last_reason,
        missing_sweeps=missing,
        pipeline_ms=telemetry.pipeline_ms(),
        working_s=intake.working_s,
        period_ms=period_ms,
        capped_points=capped_points,
        capped_tokens=capped_tokens,
        max_points=model.max_points,
        max_tokens=model.max_tokens,
        latents=model.latents * (model.sweeps - 1),
        missing_profile=missing_profile,
        notes=dict(life.assembler.notes),
        warnings=_warnings(life.pipeline),
    )


def active_sections(life: Life, intake: Intake, seen: Observation) -> dict[str, Values]:
    """Describe an active node's sweeps, cameras and times, for `/diagnostics`."""
    assert intake.synchroniser is not None
    lost = max(seen.points.lost, seen.missing_sweeps)
    counts = intake.ledger.counts()
    sections = {'points': points_values(seen.points.topic, counts, lost, seen.period_ms)}
    cameras = intake.synchroniser.statistics().cameras
    for image, info, camera in zip(
        life.inputs.images, life.inputs.camera_infos, cameras, strict=True
    ):
        sections[image.name] = image_values(image.topic, info.topic, camera)
    sections['latency'] = latency_values(intake.telemetry)
    return sections


def _warnings(pipeline: Pipeline) -> tuple[str, ...]:
    found = []
    if pipeline.contract.training['kind'] == 'untrained':
        found.append('the weights are untrained: labels mean nothing; set model')
    if not pipeline.normalised and (pipeline.teaching or pipeline.prototypes.names):
        found.append(NOT_NORMALISED)
    return tuple(found)
