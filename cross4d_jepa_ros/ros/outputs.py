# SPDX-License-Identifier: Apache-2.0
"""The answer topics: advertised where the model can fill them, computed when subscribed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Float64

from cross4d_jepa_ros.pipeline import Output, Perception
from cross4d_jepa_ros.ros import messages

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

    def __init__(
        self, node: LifecycleNode, palette: Sequence[Sequence[int]], stages: Sequence[str]
    ) -> None:
        """Advertise.

        Args:
            node: Owner of the publishers.
            palette: RGB of each class; empty for a model without a segmentation head, whose
                segmentation topics are then not advertised.
            stages: Names of the durations to publish.

        """
        self._node = node
        self._palette = palette
        self._clouds = {
            name: node.create_lifecycle_publisher(PointCloud2, f'~/output/{name}', DEPTH)
            for name in OUTPUT_TOPICS
            if palette or not name.startswith('segmentation')
        }
        self._durations = {
            name: node.create_publisher(Float64, f'~/debug/{name}_ms', DEPTH) for name in stages
        }

    def subscribed(self) -> frozenset[str]:
        """Names of the outputs that somebody reads now."""
        return frozenset(
            name for name, publisher in self._clouds.items() if publisher.get_subscription_count()
        )

    def build(
        self, names: frozenset[str], sweep: PointCloud2, perception: Perception
    ) -> dict[str, PointCloud2]:
        """Turn a perception into the messages of the given outputs."""
        answers = {}
        class_id, probability = perception.class_id, perception.probability
        if class_id is not None and probability is not None:
            if 'segmentation' in names:
                answers['segmentation'] = messages.segmentation_cloud(sweep, class_id, probability)
            if 'segmentation_rgb' in names:
                rgb = messages.palette_colours(class_id, self._palette)
                answers['segmentation_rgb'] = messages.coloured_cloud(sweep, rgb)
        tokens, embedding = perception.token_xyz, perception.token_embedding
        if 'embeddings' in names and tokens is not None and embedding is not None:
            answers['embeddings'] = messages.embedding_cloud(sweep.header, tokens, embedding)
        if 'embeddings_rgb' in names and perception.embedding_rgb is not None:
            answers['embeddings_rgb'] = messages.coloured_cloud(sweep, perception.embedding_rgb)
        pooled = perception.frame_embedding
        if 'frame_embedding' in names and pooled is not None:
            origin = np.zeros((1, 3), dtype=np.float32)
            answers['frame_embedding'] = messages.embedding_cloud(
                sweep.header, origin, pooled[None]
            )
        return answers

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
