# SPDX-License-Identifier: Apache-2.0
"""A subscriber to every answer, reliable and with a long queue; the soak stops it (SIGSTOP)."""

from __future__ import annotations

import signal
import sys

import rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import PointCloud2

DEPTH = 100


def main() -> int:
    """Receive until interrupted; the arguments are topics."""
    rclpy.init(signal_handler_options=rclpy.SignalHandlerOptions.NO)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    node = Node('soak_reader')
    for topic in sys.argv[1:]:
        node.create_subscription(PointCloud2, topic, lambda _: None, QoSProfile(depth=DEPTH))
    try:
        rclpy.spin(node)
    except KeyboardInterrupt:
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())
