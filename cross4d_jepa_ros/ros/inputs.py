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
from cross4d_jepa_ros.ros.topics import Topic
from cross4d_jepa_ros.sensing.frames import camera_info_topic
from cross4d_jepa_ros.sensing.transforms import TransformBuffer

try:
    from tf2_msgs.msg import TFMessage
except ImportError:  # in no wheel; ego-motion then comes from Odometry
    TFMessage = None

TF_TYPES = {'tf2_msgs/msg/TFMessage': TFMessage}
POINTS = Topic(
    '~/input/points',
    {'sensor_msgs/msg/PointCloud2': PointCloud2},
    'sweeps of any field layout: x y z, and intensity, ring, time where they are',
)
IMAGES = Topic(
    '~/input/image{i}',
    {'sensor_msgs/msg/Image': Image, 'sensor_msgs/msg/CompressedImage': CompressedImage},
    'one for each camera, i from 0; which of the two types is found out',
)
CAMERA_INFOS = Topic(
    '~/input/camera_info{i}',
    {'sensor_msgs/msg/CameraInfo': CameraInfo},
    'its calibration; if not remapped: the `camera_info` beside the image topic',
)
ODOMETRY = Topic(
    '~/input/odometry', {'nav_msgs/msg/Odometry': Odometry}, 'ego-motion where `/tf` has none'
)
CLICKS = Topic(
    '~/input/clicked_point',
    {'geometry_msgs/msg/PointStamped': PointStamped},
    'an example of the class that `teach.class` names, in any frame that TF or odometry connects '
    "with the sweep's; the launch files remap RViz's `/clicked_point` to it",
)
TF = Topic('/tf', TF_TYPES, 'ego-motion and moving frames, where `tf2_msgs` is installed')
TF_STATIC = Topic('/tf_static', TF_TYPES, 'where the sensors sit, likewise')
INPUTS = (POINTS, IMAGES, CAMERA_INFOS, ODOMETRY, CLICKS, TF, TF_STATIC)
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
        self.points = self._topic(POINTS, config.depth)
        self.images = [self._topic(IMAGES, config.depth, i) for i in range(config.cameras)]
        self.camera_infos = [
            self._topic(CAMERA_INFOS, config.depth, i, image.topic)
            for i, image in enumerate(self.images)
        ]
        odometry = self._topic(ODOMETRY, POSE_DEPTH)
        odometry.registerCallback(self.transforms.add_odometry)
        self.clicks = self._topic(CLICKS, CLICK_DEPTH)
        self._topics = [self.points, *self.images, *self.camera_infos, odometry, self.clicks]

    def open(self) -> None:
        """Listen to TF, where its type is installed; the other topics follow in `poll`."""
        if TFMessage is None:
            return
        moving = QoSProfile(depth=POSE_DEPTH)
        latched = QoSProfile(depth=POSE_DEPTH, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._tf = [
            self._node.create_subscription(TFMessage, TF.name, self._on_moving, moving),
            self._node.create_subscription(TFMessage, TF_STATIC.name, self._on_static, latched),
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

    def _topic(self, row: Topic, depth: int, i: int = 0, image_topic: str = '') -> InputTopic:
        """Resolve the name of a row; a CameraInfo not remapped is the one beside its image."""
        name = row.name.format(i=i)
        resolved = self._node.resolve_topic_name(name)
        private = name.replace('~', self._node.get_fully_qualified_name())
        if image_topic and resolved == private:
            resolved = camera_info_topic(image_topic)
        return InputTopic(
            self._node,
            name.removeprefix('~/input/'),
            resolved,
            row.types,
            reliability=self._config.reliability,
            depth=depth,
        )

    def _on_moving(self, message: Any) -> None:
        self.transforms.add_tf_message(message, static=False)

    def _on_static(self, message: Any) -> None:
        self.transforms.add_tf_message(message, static=True)
