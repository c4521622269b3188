# SPDX-License-Identifier: Apache-2.0
"""The answer topics: advertised where the model can fill them, computed when subscribed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Float64

from cross4d_jepa_ros.pipeline import Output

OUTPUT_TOPICS = {
    'segmentation': Output.SEGMENTATION,
    'segmentation_rgb': Output.SEGMENTATION,
    'embeddings': Output.EMBEDDINGS,
    'embeddings_rgb': Output.EMBEDDINGS_RGB,
    'frame_embedding': Output.FRAME_EMBEDDING,
}
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
            name: node.create_lifecycle_publisher(PointCloud2, f'~/output/{name}', DEPTH)
            for name in OUTPUT_TOPICS
            if names_classes or not name.startswith('segmentation')
        }
        self._durations = {
            name: node.create_publisher(Float64, f'~/debug/{name}_ms', DEPTH) for name in stages
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
        result |= OUTPUT_TOPICS[name]
    return result


def stage_names(pipeline_stages: Sequence[str]) -> tuple[str, ...]:
    """Name every published duration, in the order of the data flow."""
    return ('message_decode', *pipeline_stages, 'message_build', 'latency')
