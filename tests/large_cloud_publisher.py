# SPDX-License-Identifier: Apache-2.0
"""Publishes big best-effort clouds from a process of its own: POINTS SECONDS, 10 Hz."""

import sys
import time

import rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import PointCloud2

from tests.bench import cloud, stamped


def main() -> None:
    points, seconds = int(sys.argv[1]), float(sys.argv[2])
    rclpy.init()
    node = Node('large_cloud_publisher')
    qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
    publisher = node.create_publisher(PointCloud2, '/points', qos)
    deadline = time.monotonic() + 60
    while not publisher.get_subscription_count() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1.0)
    message = cloud(0, points)
    count = round(10 * seconds)
    start = time.monotonic()
    for index in range(count):
        publisher.publish(stamped(message, 10**12 + index * 10**8, 'lidar'))
        time.sleep(max(0.0, start + (index + 1) / 10 - time.monotonic()))
    print(count, flush=True)
    time.sleep(3.0)
    node.destroy_node()
    rclpy.try_shutdown()


main()
