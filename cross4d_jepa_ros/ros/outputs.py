# SPDX-License-Identifier: Apache-2.0
"""The answer topics: advertised where the model can fill them, computed when subscribed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Float64

from cross4d_jepa_ros.pipeline import Output
from cross4d_jepa_ros.ros.topics import Topic

CLOUD = {'sensor_msgs/msg/PointCloud2': PointCloud2}


@dataclass(frozen=True)
class AnswerTopic(Topic):
    """An output, and what the pipeline has to compute for it."""

    output: Output


ANSWERS = (
    AnswerTopic(
        '~/output/segmentation',
        CLOUD,
        'x y z, `class_id` (uint8), `probability` (float32); one point per input point, in input '
        'order, height x width kept; invalid points: 255, 0; below the threshold: 255; names of '
        'the ids: `classes` in `/diagnostics`',
        Output.SEGMENTATION,
    ),
    AnswerTopic(
        '~/output/segmentation_rgb',
        CLOUD,
        "x y z `rgb`: the same in the model's palette",
        Output.SEGMENTATION,
    ),
    AnswerTopic(
        '~/output/embeddings',
        CLOUD,
        'x y z, `embedding` (float32, count D); one point per token',
        Output.EMBEDDINGS,
    ),
    AnswerTopic(
        '~/output/embeddings_rgb',
        CLOUD,
        'x y z `rgb`: input points in a fixed projection of their embedding',
        Output.EMBEDDINGS_RGB,
    ),
    AnswerTopic(
        '~/output/frame_embedding',
        CLOUD,
        'one point with `embedding`: the pooled embedding of the window',
        Output.FRAME_EMBEDDING,
    ),
)
OUTPUT_TOPICS = {row.short_name: row for row in ANSWERS}
DURATIONS = Topic(
    '~/debug/{stage}_ms',
    {'std_msgs/msg/Float64': Float64},
    'duration of each stage, and `latency_ms` from arrival to publishing',
)
DEPTH = 5


class Outputs:
    """Publishers of `~/output/…` and `~/debug/…` for one configured life of the node."""

    def __init__(self, node: LifecycleNode, stages: Sequence[str], *, names_classes: bool) -> None:
        """Advertise.

        Args:
            node: Owner of the publishers.
            stages: Names of the durations to publish.
            names_classes: Whether there are classes, or will be: else the segmentation topics are
                not advertised.

        """
        self._node = node
        self.names_classes = names_classes
        self._clouds = {
            name: node.create_lifecycle_publisher(PointCloud2, row.name, DEPTH)
            for name, row in OUTPUT_TOPICS.items()
            if names_classes or not name.startswith('segmentation')
        }
        self._durations = {
            name: node.create_publisher(Float64, DURATIONS.name.format(stage=name), DEPTH)
            for name in stages
        }

    def subscribed(self) -> frozenset[str]:
        """Names of the outputs that somebody reads now."""
        return frozenset(
            name for name, publisher in self._clouds.items() if publisher.get_subscription_count()
        )

    def publish(self, answers: Mapping[str, PointCloud2]) -> None:
        """Send the answers to one sweep."""
        for name, message in answers.items():
            self._clouds[name].publish(message)

    def publish_durations(self, durations_ms: Mapping[str, float]) -> None:
        """Send how long each stage took, to whoever listens."""
        for name, duration in durations_ms.items():
            if self._durations[name].get_subscription_count():
                self._durations[name].publish(Float64(data=duration))

    def destroy(self) -> None:
        """Take the topics back."""
        for publisher in self._clouds.values():
            self._node.destroy_lifecycle_publisher(publisher)
        for publisher in self._durations.values():
            self._node.destroy_publisher(publisher)


def wanted(names: frozenset[str]) -> Output:
    """Combine what the pipeline has to compute for these outputs."""
    result = Output(0)
    for name in names:
        result |= OUTPUT_TOPICS[name].output
    return result


def stage_names(pipeline_stages: Sequence[str]) -> tuple[str, ...]:
    """Name every published duration, in the order of the data flow."""
    return ('message_decode', *pipeline_stages, 'message_build', 'latency')
