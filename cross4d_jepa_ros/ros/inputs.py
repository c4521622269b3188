# SPDX-License-Identifier: Apache-2.0
"""Everything that the perception node listens to, named and resolved in one place."""

from __future__ import annotations

from typing import Any

from geometry_msgs.msg import PointStamped
from nav_msgs.msg import Odometry
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2

from cross4d_jepa_ros.ros.parameters import NodeConfig
from cross4d_jepa_ros.ros.subscriptions import InputTopic
from cross4d_jepa_ros.sensing.frames import camera_info_topic
from cross4d_jepa_ros.sensing.transforms import TransformBuffer

try:
    from tf2_msgs.msg import TFMessage
except ImportError:  # in no wheel; ego-motion then comes from Odometry
    TFMessage = None

POINT_TYPES: dict[str, type] = {'sensor_msgs/msg/PointCloud2': PointCloud2}
INFO_TYPES: dict[str, type] = {'sensor_msgs/msg/CameraInfo': CameraInfo}
ODOMETRY_TYPES: dict[str, type] = {'nav_msgs/msg/Odometry': Odometry}
CLICK_TYPES: dict[str, type] = {'geometry_msgs/msg/PointStamped': PointStamped}
IMAGE_TYPES: dict[str, type] = {
    'sensor_msgs/msg/Image': Image,
    'sensor_msgs/msg/CompressedImage': CompressedImage,
}
POSE_DEPTH = 100
CLICK_DEPTH = 20


class Inputs:
    """The input topics of one configured life of the node.

    Attributes:
        points: The sweeps.
        images: One per camera.
        camera_infos: Their calibrations, in the same order.
        clicks: Points that somebody clicks.
        transforms: What `/tf`, `/tf_static` and odometry have said.

    """

    def __init__(self, node: Node, config: NodeConfig) -> None:
        """Resolve the names; `open` and `poll` subscribe."""
        self._node = node
        self._config = config
        self._tf: list[Any] = []
        self.transforms = TransformBuffer()
        self.points = self._topic('points', POINT_TYPES, config.depth)
        self.images = [
            self._topic(f'image{camera}', IMAGE_TYPES, config.depth)
            for camera in range(config.cameras)
        ]
        self.camera_infos = [
            self._topic(f'camera_info{camera}', INFO_TYPES, config.depth, image.topic)
            for camera, image in enumerate(self.images)
        ]
        odometry = self._topic('odometry', ODOMETRY_TYPES, POSE_DEPTH)
        odometry.registerCallback(self.transforms.add_odometry)
        self.clicks = self._topic('clicked_point', CLICK_TYPES, CLICK_DEPTH)
        self._topics = [self.points, *self.images, *self.camera_infos, odometry, self.clicks]

    def open(self) -> None:
        """Listen to TF, where its type is installed; the other topics follow in `poll`."""
        if TFMessage is None:
            return
        moving = QoSProfile(depth=POSE_DEPTH)
        latched = QoSProfile(depth=POSE_DEPTH, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._tf = [
            self._node.create_subscription(TFMessage, '/tf', self._on_moving, moving),
            self._node.create_subscription(TFMessage, '/tf_static', self._on_static, latched),
        ]

    def poll(self) -> None:
        """Follow what publishers offer now."""
        for topic in self._topics:
            topic.poll()

    def close(self) -> None:
        """Unsubscribe from everything."""
        for subscription in self._tf:
            self._node.destroy_subscription(subscription)
        self._tf = []
        for topic in self._topics:
            topic.close()

    def _topic(
        self, name: str, types: dict[str, type], depth: int, image_topic: str = ''
    ) -> InputTopic:
        """Resolve `~/input/{name}`; a CameraInfo not remapped is the one beside its image."""
        resolved = self._node.resolve_topic_name(f'~/input/{name}')
        private = f'{self._node.get_fully_qualified_name()}/input/{name}'
        if image_topic and resolved == private:
            resolved = camera_info_topic(image_topic)
        return InputTopic(
            self._node,
            name,
            resolved,
            types,
            reliability=self._config.reliability,
            depth=depth,
        )

    def _on_moving(self, message: Any) -> None:
        self.transforms.add_tf_message(message, static=False)

    def _on_static(self, message: Any) -> None:
        self.transforms.add_tf_message(message, static=True)
