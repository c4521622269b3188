# SPDX-License-Identifier: Apache-2.0
"""The sensors of the soak, as a process: sweeps, two cameras, odometry, /clock, faults on command.

Each line on stdin is a JSON of `Settings`, with the `number` of the command. Each line on stdout
is one of the events `set`, `first` (the first message of a topic after a command that somebody
was there to receive) and `sweep`, with times of the steady clock.
"""

from __future__ import annotations

import json
import queue
import sys
import threading
import time
from array import array
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import cv2
import numpy as np
import rclpy
from nav_msgs.msg import Odometry
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2

from cross4d_jepa_ros.bench.sweeps import SPEED, START_NS, SyntheticDrive, odometry, stamped
from cross4d_jepa_ros.ros.answer_client import sent_sweep
from cross4d_jepa_ros.sensing.point_clouds import structured_view

POINTS, LEFT, RIGHT, ODOMETRY = (
    '/soak/points',
    '/soak/left/image',
    '/soak/right/image/compressed',
    '/soak/odometry',
)
INFOS = ('/soak/left/camera_info', '/soak/right/camera_info')
SWEEP_POINTS, DENSE_POINTS, HUGE_POINTS = 4096, 24_576, 500_000
SWEEP_HZ, IMAGE_HZ, POSE_HZ, INFO_HZ = 10.0, 10.0, 20.0, 1.0
# A LiDAR sends a sweep when it has turned, with the stamp of its first point.
TURN_NS = 100_000_000
# Later than a sweep of that time by 200 ms.
LATE_NS = TURN_NS + 200_000_000
IMAGE_SIZE = (160, 120)
TICK_S = 0.005
QOS = {
    'reliable': QoSProfile(depth=10),
    'best_effort': QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT),
    'latched': QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL),
}


@dataclass(frozen=True)
class Settings:
    """What the sensors do.

    Attributes:
        points: `good`, `none`, `gone` (no publisher), `malformed`, `zero_stamps`, `elsewhere` (in
            a frame that nobody knows), `dense` (24,576 points) or `huge` (500,000).
        points_hz: Sweeps a second.
        points_qos: A key of `QOS`; a change takes the publisher away and brings another.
        left, right: Of each camera: `good`, `none`, `gone`, `malformed` or `late` (its images come
            200 ms after the sweep of their time).
        odometry, clock: `good`, `none` or `gone`.
        offset_ns: Stamps and /clock less the steady clock.

    """

    points: str = 'good'
    points_hz: float = SWEEP_HZ
    points_qos: str = 'reliable'
    left: str = 'good'
    right: str = 'good'
    odometry: str = 'good'
    clock: str = 'good'
    offset_ns: int = 0


def malformed_clouds(good: PointCloud2) -> list[PointCloud2]:
    """Spoil a cloud in ways that leave nothing to be read from it."""
    spoilt = [deepcopy(good) for _ in range(5)]
    spoilt[0].data = spoilt[0].data[:-7]
    spoilt[1].point_step = 3
    spoilt[2].fields[0].offset = 2**31
    spoilt[3].fields = spoilt[3].fields[3:]
    spoilt[4].width = 2**32 - 1
    return spoilt


def huge_cloud(good: PointCloud2, points: int) -> PointCloud2:
    """Repeat a cloud with noise until it has so many points."""
    few = structured_view(good).reshape(-1)
    many = np.tile(few, -(-points // len(few)))[:points]
    draw = np.random.default_rng(0)
    for axis in 'xyz':
        many[axis] += draw.normal(0, 0.3, points).astype(np.float32)
    message = deepcopy(good)
    message.width, message.row_step = points, points * good.point_step
    message.data = array('B', many.tobytes())
    return message


def _info() -> CameraInfo:
    width, height = IMAGE_SIZE
    message = CameraInfo(width=width, height=height, distortion_model='plumb_bob', d=[0.0] * 5)
    message.k = [width / 2, 0.0, width / 2, 0.0, width / 2, height / 2, 0.0, 0.0, 1.0]
    message.p = [*message.k[:3], 0.0, *message.k[3:6], 0.0, *message.k[6:], 0.0]
    return message


class Sensors(Node):
    """Publishes what `settings` say; `tick` is to be called often."""

    def __init__(self, name: str, settings: Settings, say: Callable[[dict[str, Any]], None]):
        """Make the messages; publishers come with the settings.

        Args:
            name: Of the ROS node.
            settings: To begin with.
            say: Takes an event.

        """
        super().__init__(name)
        self.settings = settings
        self._say = say
        self._awaited: set[tuple[int, str]] = set()
        self._due: dict[str, float] = {}
        self._sent = 0
        self._out: dict[str, Any] = {}
        self._offered: dict[str, QoSProfile] = {}
        drive = SyntheticDrive(SWEEP_POINTS)
        self._clouds = [drive.next_messages()[0] for _ in range(10)]
        good = self._clouds[0]
        self._malformed = malformed_clouds(good)
        self._large = {
            'dense': huge_cloud(good, DENSE_POINTS),
            'huge': huge_cloud(good, HUGE_POINTS),
        }
        clouds = (*self._clouds, *self._malformed, *self._large.values())
        self._facts = {id(cloud): asdict(sent_sweep(cloud)) for cloud in clouds}
        pixels = np.random.default_rng(1).integers(0, 255, (*IMAGE_SIZE[::-1], 3), dtype=np.uint8)
        raw = Image(width=IMAGE_SIZE[0], height=IMAGE_SIZE[1], encoding='rgb8')
        raw.step, raw.data = 3 * IMAGE_SIZE[0], array('B', pixels.tobytes())
        jpeg = cv2.imencode('.jpg', pixels)[1].tobytes()
        packed = CompressedImage(format='jpeg', data=array('B', jpeg))
        half = CompressedImage(format='jpeg', data=array('B', jpeg[: len(jpeg) // 2]))
        self._images = {LEFT: raw, RIGHT: packed}
        self._spoilt = {LEFT: deepcopy(raw), RIGHT: half}
        self._spoilt[LEFT].encoding = 'smell16'
        self._info = _info()
        self._advertise()

    def command(self, number: int, settings: Settings) -> None:
        """Follow a command."""
        self.settings = settings
        self._advertise()
        self._awaited |= {(number, name) for name in ('points', 'left', 'right', 'odometry')}
        self._say({'event': 'set', 'number': number, 'at_ns': time.monotonic_ns()})

    def tick(self) -> None:
        """Publish what is due."""
        now_ns = time.monotonic_ns()
        stamp_ns = now_ns + self.settings.offset_ns
        chosen = self.settings
        if chosen.clock == 'good' and self._is_due('clock', POSE_HZ):
            message = Clock()
            message.clock.sec, message.clock.nanosec = divmod(stamp_ns, 10**9)
            self._out['/clock'].publish(message)
        if chosen.odometry == 'good' and self._is_due('odometry', POSE_HZ):
            x = SPEED * (stamp_ns - START_NS) / 1e9
            self._publish('odometry', ODOMETRY, odometry(stamp_ns, x, 'base_link'), stamp_ns)
        for side, topic, info in (('left', LEFT, INFOS[0]), ('right', RIGHT, INFOS[1])):
            does = getattr(chosen, side)
            if does in ('none', 'gone'):
                continue
            if self._is_due(info, INFO_HZ):
                self._out[info].publish(stamped(self._info, stamp_ns, f'camera_{side}'))
            if self._is_due(side, IMAGE_HZ):
                image = (self._spoilt if does == 'malformed' else self._images)[topic]
                at_ns = stamp_ns - LATE_NS * (does == 'late')
                self._publish(side, topic, stamped(image, at_ns, f'camera_{side}'), at_ns)
        if chosen.points not in ('none', 'gone') and self._is_due('points', chosen.points_hz):
            self._publish_sweep(stamp_ns - TURN_NS)

    def _publish_sweep(self, stamp_ns: int) -> None:
        does, count = self.settings.points, self._sent
        self._sent += 1
        clouds = self._malformed if does == 'malformed' else self._clouds
        message = self._large.get(does) or clouds[count % len(clouds)]
        at_ns = 0 if does == 'zero_stamps' else stamp_ns
        frame_id = 'nowhere' if does == 'elsewhere' else 'lidar'
        facts = {**self._facts[id(message)], 'stamp_ns': at_ns, 'frame_id': frame_id}
        self._say({'event': 'sweep', 'sweep': facts})
        self._publish('points', POINTS, stamped(message, at_ns, frame_id), at_ns)

    def _publish(self, name: str, topic: str, message: Any, stamp_ns: int) -> None:
        publisher = self._out[topic]
        awaited = {(number, topic) for number, topic in self._awaited if topic == name}
        if awaited and publisher.get_subscription_count():
            self._awaited -= awaited
            event = {'event': 'first', 'topic': name, 'numbers': [number for number, _ in awaited]}
            self._say({**event, 'at_ns': time.monotonic_ns(), 'stamp_ns': stamp_ns})
        publisher.publish(message)

    def _is_due(self, name: str, rate_hz: float) -> bool:
        now = time.monotonic()
        due = self._due.get(name, now)
        if now < due:
            return False
        # What was missed is not made up for.
        self._due[name] = max(due + 1 / rate_hz, now - 1 / rate_hz)
        return True

    def _advertise(self) -> None:
        chosen = self.settings
        wanted = {
            '/clock': (Clock, chosen.clock != 'gone', QOS['reliable']),
            ODOMETRY: (Odometry, chosen.odometry != 'gone', QOS['reliable']),
            LEFT: (Image, chosen.left != 'gone', QOS['best_effort']),
            RIGHT: (CompressedImage, chosen.right != 'gone', QOS['reliable']),
            INFOS[0]: (CameraInfo, chosen.left != 'gone', QOS['reliable']),
            INFOS[1]: (CameraInfo, chosen.right != 'gone', QOS['reliable']),
            POINTS: (PointCloud2, chosen.points != 'gone', QOS[chosen.points_qos]),
        }
        for topic, (kind, there, qos) in wanted.items():
            if topic in self._out and not (there and self._offered[topic] is qos):
                self.destroy_publisher(self._out.pop(topic))
            if there and topic not in self._out:
                self._out[topic] = self.create_publisher(kind, topic, qos)
                self._offered[topic] = qos


def main() -> int:
    """Publish until stdin ends; the first argument is the node's name, the second its settings."""
    name, settings = sys.argv[1], Settings(**json.loads(sys.argv[2]))
    rclpy.init(signal_handler_options=rclpy.SignalHandlerOptions.NO)
    commands: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            commands.put(line)
        commands.put('')

    sensors = Sensors(name, settings, lambda event: print(json.dumps(event), flush=True))
    threading.Thread(target=read, daemon=True).start()
    try:
        take = partial(commands.get, timeout=TICK_S)
        while True:
            try:
                line = take()
            except queue.Empty:
                sensors.tick()
                continue
            if not line:
                return 0
            command = json.loads(line)
            sensors.command(command.pop('number'), Settings(**command))
    except (KeyboardInterrupt, BrokenPipeError):
        return 0
    finally:
        sensors.destroy_node()
        rclpy.try_shutdown()


if __name__ == '__main__':
    sys.exit(main())
