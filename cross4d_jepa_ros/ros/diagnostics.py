# SPDX-License-Identifier: Apache-2.0
"""`/diagnostics` and the throttled log line, from one observation of the node."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node

from cross4d_jepa_ros.health import Finding, Level
from cross4d_jepa_ros.ledger import Counts
from cross4d_jepa_ros.pipeline import Pipeline
from cross4d_jepa_ros.ros.teaching import HOW, summary
from cross4d_jepa_ros.sensing.frames import FrameAssembler
from cross4d_jepa_ros.sensing.image_history import CameraStatistics
from cross4d_jepa_ros.telemetry import Telemetry

LOG_EVERY_S = 5.0
Values = Mapping[str, object]


class DiagnosticsPublisher:
    """Publishes from an ordinary publisher, so that it speaks in every lifecycle state."""

    def __init__(self, node: Node) -> None:
        """Advertise `/diagnostics`."""
        self._node = node
        self._publisher = node.create_publisher(DiagnosticArray, '/diagnostics', 10)
        self._logged: tuple[str, float] = ('', float('-inf'))

    def publish(self, state: str, found: Sequence[Finding], sections: Mapping[str, Values]) -> None:
        """Send one status per section and log the first finding.

        Args:
            state: Lifecycle state: what a healthy section says.
            found: Most likely root cause first. One about no section goes to `node`.
            sections: Key-value pairs of each status.

        """
        self._log(found)
        message = DiagnosticArray()
        message.header.stamp = self._node.get_clock().now().to_msg()
        for section, values in sections.items():
            about = [
                finding
                for finding in found
                if section == (finding.about if finding.about in sections else 'node')
            ]
            level = max((finding.level for finding in about), default=Level.OK)
            status = DiagnosticStatus(
                level=bytes([level]),
                name=f'{self._node.get_name()}: {section}',
                message='; '.join(finding.sentence for finding in about) or state,
                hardware_id=self._node.get_fully_qualified_name(),
            )
            status.values = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
            message.status.append(status)
        self._publisher.publish(message)

    def _log(self, found: Sequence[Finding]) -> None:
        worst = next((finding for finding in found if finding.about != 'model'), None)
        if worst is None:
            return
        about, last = self._logged
        if worst.about == about and time.monotonic() - last < LOG_EVERY_S:
            return
        self._logged = (worst.about, time.monotonic())
        logger = self._node.get_logger()
        if worst.level == Level.ERROR:
            logger.error(worst.sentence)
        else:
            logger.warning(worst.sentence)


def model_values(
    pipeline: Pipeline, assembler: FrameAssembler, telemetry: Telemetry
) -> dict[str, object]:
    """Describe the model and its memory."""
    contract, taught = pipeline.contract, pipeline.prototypes
    capped_points, capped_tokens = telemetry.capped()
    return {
        'model_sha256': pipeline.model_sha256,
        'model_training': contract.training['kind'],
        'classes': ', '.join(contract.answer_names)
        or f'none: train a head with offline_training.train_segmentation, or {HOW}',
        'class_colours': ', '.join(
            f'#{red:02x}{green:02x}{blue:02x}' for red, green, blue in contract.answer_palette
        ),
        'taught': summary(taught),
        'device': pipeline.device,
        'precision': pipeline.precision,
        'ego_motion': assembler.ego_motion,
        'ego_motion_note': assembler.notes.get('ego_motion', ''),
        'window_length': pipeline.window_length,
        'window_length_full': pipeline.sweeps,
        'last_reset': pipeline.last_reset,
        'capped_points': capped_points,
        'capped_tokens': capped_tokens,
    }


def points_values(topic: str, counts: Counts, lost_recently: int, period_ms: float) -> Values:
    """Describe the sweeps: received = answered + dropped + in flight."""
    return {
        'topic': topic,
        'received': counts.received,
        'answered': counts.answered,
        'in_flight': counts.in_flight,
        **{f'in_flight.{place}': count for place, count in counts.places.items()},
        **{f'dropped.{cause}': count for cause, count in counts.dropped.items()},
        'lost_recently': lost_recently,
        'period_ms': round(period_ms, 2),
    }


def image_values(topic: str, camera_info_topic: str, camera: CameraStatistics) -> Values:
    """Describe one camera; offsets are image stamp minus sweep stamp."""
    offsets = sorted(offset / 1e6 for offset in camera.offsets_ns)
    values: dict[str, object] = {
        'topic': topic,
        'camera_info_topic': camera_info_topic,
        'received': camera.received,
        'matched': camera.matched,
        'missing': camera.missing,
    }
    if offsets:
        values |= {
            'offset_median_ms': round(offsets[len(offsets) // 2], 3),
            'offset_min_ms': round(offsets[0], 3),
            'offset_max_ms': round(offsets[-1], 3),
        }
    return values


def latency_values(telemetry: Telemetry) -> Values:
    """Describe where the time of a sweep goes, in ms."""
    return {
        'latency_p50_ms': round(telemetry.latency_ms(50), 2),
        'latency_p95_ms': round(telemetry.latency_ms(95), 2),
        **{f'{stage}_ms': round(ms, 2) for stage, ms in telemetry.stages_ms().items()},
    }
