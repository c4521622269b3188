# SPDX-License-Identifier: Apache-2.0
"""Messages and real ROS nodes for the tests."""

from __future__ import annotations

import threading
import time
from array import array
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField

from cross4d_jepa_ros.perception_node import PerceptionNode


def stamped(message: Any, stamp_ns: int, frame_id: str) -> Any:
    """Fill a message's header."""
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 10**9)
    message.header.frame_id = frame_id
    return message


def cloud(stamp_ns: int, points: int = 600, *, seed: int = 0, invalid: int = 0) -> PointCloud2:
    """Make an x y z intensity cloud around a sensor 1.7 m above flat ground."""
    rng = np.random.default_rng(seed)
    values = rng.uniform((-20, -20, -1.7, 0), (20, 20, 1.0, 1), (points, 4)).astype(np.float32)
    values[: points // 2, 2] = -1.7
    values[:invalid, 0] = np.nan
    message = PointCloud2(height=1, width=points, point_step=16, row_step=16 * points)
    message.fields = [
        PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1)
        for i, name in enumerate(('x', 'y', 'z', 'intensity'))
    ]
    message.data = array('B', values.tobytes())
    return stamped(message, stamp_ns, 'lidar')


def image(stamp_ns: int, frame_id: str = 'camera') -> Image:
    """Make a small rgb8 image."""
    message = Image(height=8, width=12, encoding='rgb8', step=36)
    message.data = array('B', bytes(range(256)) + bytes(32))
    return stamped(message, stamp_ns, frame_id)


def camera_info(stamp_ns: int, frame_id: str = 'camera') -> CameraInfo:
    """Make the calibration of that image."""
    message = CameraInfo(height=8, width=12, distortion_model='plumb_bob', d=[0.0] * 5)
    message.k = [10.0, 0, 6, 0, 10, 4, 0, 0, 1]
    message.p = [10.0, 0, 6, 0, 0, 10, 4, 0, 0, 0, 1, 0]
    return stamped(message, stamp_ns, frame_id)


class Bench:
    """A perception node and a probe beside it, each spinning in a thread of its own."""

    def __init__(self, domain: int) -> None:
        self.domain = domain
        self.context = Context()
        rclpy.init(context=self.context, domain_id=domain)
        self._running: list[tuple[SingleThreadedExecutor, threading.Thread, Node]] = []
        self.sections: dict[str, tuple[int, str, dict[str, str]]] = {}
        self._clients: dict[str, Any] = {}
        self.probe = Node('probe', context=self.context, use_global_arguments=False)
        self.probe.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)
        self.spin(self.probe)

    def spin(self, node: Node) -> None:
        executor = SingleThreadedExecutor(context=self.context)
        executor.add_node(node)
        thread = threading.Thread(target=executor.spin, daemon=True)
        thread.start()
        self._running.append((executor, thread, node))

    def perception(self, *remaps: str, **parameters: Any) -> PerceptionNode:
        """Start a perception node; `__` in a keyword stands for a dot."""
        arguments = ['--ros-args']
        for remap in (*remaps, '~/input/points:=/points', '~/input/image0:=/camera/image'):
            arguments += ['-r', remap]
        overrides = [Parameter(k.replace('__', '.'), value=v) for k, v in parameters.items()]
        node = PerceptionNode(
            context=self.context,
            cli_args=arguments,
            parameter_overrides=overrides,
            use_global_arguments=False,
        )
        self.spin(node)
        return node

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            values = {entry.key: entry.value for entry in status.values}
            section = status.name.split(': ', 1)[1]
            self.sections[section] = (status.level[0], status.message, values)

    def call(self, kind: type, name: str, request: Any, timeout_s: float = 30.0) -> Any:
        """Call a service. Its client stays: one that has just come may miss its first answer."""
        client = self._clients.get(name)
        if client is None:
            client = self._clients[name] = self.probe.create_client(kind, name)
        assert client.wait_for_service(5)
        future = client.call_async(request)
        self.wait(future.done, timeout_s)
        return future.result()

    def state(self) -> str:
        return self.sections.get('node', (0, '', {}))[2].get('state', '')

    def wait(self, condition: Callable[[], Any], timeout_s: float = 15.0) -> float:
        """Wait for a condition; returns the seconds that it took, or fails."""
        start = time.monotonic()
        while time.monotonic() - start < timeout_s:
            if condition():
                return time.monotonic() - start
            time.sleep(0.02)
        pytest.fail(f'not within {timeout_s} s; diagnostics: {self.sections}')

    def wait_active(self) -> None:
        self.wait(lambda: self.state() == 'active', 30.0)

    def finding(self, *words: str, timeout_s: float = 5.0) -> str:
        """Wait until one diagnostic message holds all the words; returns it."""

        def found() -> str:
            texts = (text for level, text, _ in self.sections.values() if level)
            return next((text for text in texts if all(word in text for word in words)), '')

        self.wait(found, timeout_s)
        return found()

    def publish(
        self, makers: dict[Any, Callable[[int], Any]], count: int, period_s: float = 0.1
    ) -> None:
        """Publish what each maker makes of the index, at a steady pace."""
        start = time.monotonic()
        for index in range(count):
            for publisher, maker in makers.items():
                message = maker(index)
                if message is not None:
                    publisher.publish(message)
            time.sleep(max(0.0, start + (index + 1) * period_s - time.monotonic()))

    def publishing(
        self, makers: dict[Any, Callable[[int], Any]], period_s: float = 0.1
    ) -> threading.Event:
        """Publish in the background until the returned event is set or the test ends."""
        stop = threading.Event()
        self._stops = [*getattr(self, '_stops', []), stop]

        def loop() -> None:
            index = 0
            while not stop.wait(period_s):
                for publisher, maker in makers.items():
                    message = maker(index)
                    if message is not None:
                        publisher.publish(message)
                index += 1

        thread = threading.Thread(target=loop, daemon=True)
        thread.start()
        self._publishers = [*getattr(self, '_publishers', []), thread]
        return stop

    def close(self) -> None:
        for stop in getattr(self, '_stops', []):
            stop.set()
        for thread in getattr(self, '_publishers', []):
            thread.join(5)
        for _, _, node in reversed(self._running.copy()):
            self.stop(node)
        rclpy.try_shutdown(context=self.context)

    def stop(self, stopped: Node) -> None:
        """Take a node away, as its process would at its end."""
        running = next(entry for entry in self._running if entry[2] is stopped)
        self._running.remove(running)
        executor, thread, node = running
        executor.shutdown()
        thread.join(10)
        if isinstance(node, PerceptionNode):
            node.close()
        node.destroy_node()
