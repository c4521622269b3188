# SPDX-License-Identifier: Apache-2.0
"""The node that colcon installed becomes active where no virtual environment is on the path.

Example: `python -m tests.installed_node out/colcon/install/cross4d_jepa_ros`
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import rclpy
from lifecycle_msgs.srv import GetState

from cross4d_jepa_ros.children import child_process

LIMIT = 120  # questions, each waiting a second at most


def main(prefix: str) -> int:
    """Start it as `ros2 launch` would, ask for its state, end it; returns the exit code."""
    node = Path(prefix).resolve() / 'lib' / 'cross4d_jepa_ros' / 'perception_node'
    interpreter = node.read_text().partition('\n')[0].removeprefix('#!')
    bare = {key: value for key, value in os.environ.items() if key != 'VIRTUAL_ENV'}
    rclpy.init()
    probe = rclpy.create_node('probe')
    client = probe.create_client(GetState, '/perception_node/get_state')
    state = 'not there'
    with child_process([str(node)], env={**bare, 'PATH': '/usr/bin:/bin'}) as child:
        for _ in range(LIMIT):
            if state == 'active' or child.poll() is not None:
                break
            if client.wait_for_service(1.0):
                answer = client.call_async(GetState.Request())
                rclpy.spin_until_future_complete(probe, answer, timeout_sec=1.0)
                state = answer.result().current_state.label if answer.done() else state
    rclpy.try_shutdown()
    print(f'{node.name} in {interpreter}: {state}, exit code {child.returncode}')
    return 0 if state == 'active' and child.returncode == 0 else 1


if __name__ == '__main__':
    sys.exit(main(*sys.argv[1:]))
