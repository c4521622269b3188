# SPDX-License-Identifier: Apache-2.0
"""Where the faults are played: every process of the soak, and time that passes in small steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from geometry_msgs.msg import PointStamped
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.srv import SetParameters
from std_srvs.srv import Trigger

from cross4d_jepa_ros.bench.sweeps import START_NS
from cross4d_jepa_ros.files import write_atomically
from cross4d_jepa_ros.soak.processes import Life, Process, SensorProcess
from cross4d_jepa_ros.soak.sensors import INFOS, LEFT, ODOMETRY, POINTS, RIGHT, Settings
from cross4d_jepa_ros.soak.watch import Heard, Watch, sweep_of

WATCHED, SPARE = 'perception_node', 'spare_node'
ACTIVE_LIMIT_S = 90.0
ANSWER_LIMIT_S = 30.0
EXTRINSICS = """\
transforms:
  - {parent: base_link, child: lidar, translation: [0, 0, 0], rotation_xyzw: [0, 0, 0, 1]}
  - {parent: lidar, child: camera_left, translation: [0, 0.5, -0.1],
     rotation_xyzw: [-0.5, 0.5, -0.5, 0.5]}
  - {parent: lidar, child: camera_right, translation: [0, -0.5, -0.1],
     rotation_xyzw: [-0.5, 0.5, -0.5, 0.5]}
"""

# Whatever takes time is a generator: it yields while it waits, so that two faults may overlap.
Steps = Generator[None, None, Any]


@dataclass(frozen=True)
class Ended:
    """A life of the node that is over: its counts and what was wrong with its end."""

    counts: dict[str, Any] | None
    crash: str


class Stage:
    """The node under test, its sensors, a reader of its answers, and who watches it all.

    Attributes:
        watch: What is heard.
        sensors, second: Two sets of sensors; the second publishes only when a fault says so.
        reader: Subscribes to all answers.
        life: Of the watched node, now.
        spare: Another node beside it, while it is tried how one ends.
        ended: Lives that are over.
        reader_stopped_ns: When it last was, steady clock.

    """

    def __init__(self, out: Path, seed: int, watch: Watch, stack: ExitStack) -> None:
        """Start everything; the stack ends it."""
        self.out = out
        self.watch = watch
        self.draw = Random(seed)
        self.sent: list[Any] = []
        self.ended: list[Ended] = []
        self.offset_ns = START_NS - time.monotonic_ns()
        self.spare: Life | None = None
        write_atomically(out / 'extrinsics.yaml', EXTRINSICS)

        def keep(facts: dict[str, Any]) -> None:
            self.sent.append(sweep_of(facts))

        good = Settings(offset_ns=self.offset_ns)
        silent = Settings('gone', left='gone', right='gone', odometry='gone', clock='gone')
        self.sensors = SensorProcess('soak_sensors', good, keep)
        stack.callback(self.sensors.close)
        self.second = SensorProcess('soak_second_lidar', silent, keep)
        stack.callback(self.second.close)
        topics = [f'/{WATCHED}/output/{name}' for name in ('segmentation_rgb', 'embeddings')]
        self.reader = Process('reader', *topics)
        stack.callback(self.reader.close)
        self.life = self.start(WATCHED)
        stack.callback(self._end_lives)
        self.reader_stopped_ns = 0
        self.clicks = watch.create_publisher(PointStamped, '/soak/clicks', 100)
        service = f'/{WATCHED}'
        self.clients = {
            'change_state': watch.create_client(ChangeState, f'{service}/change_state'),
            'set_parameters': watch.create_client(SetParameters, f'{service}/set_parameters'),
            'clear': watch.create_client(Trigger, f'{service}/teach/clear'),
        }

    def start(self, name: str) -> Life:
        """Begin another life of a node."""
        self.watch.heard.pop(f'/{name}', None)
        inputs = {
            'points': POINTS,
            'image0': LEFT,
            'image1': RIGHT,
            'camera_info0': INFOS[0],
            'camera_info1': INFOS[1],
            'odometry': ODOMETRY,
            'clicked_point': '/soak/clicks',
        }
        values = {
            'use_sim_time': 'true',
            'cameras': '2',
            'threads': '1',
            'base_frame': 'base_link',
            'extrinsics_file': self.out / 'extrinsics.yaml',
            'teach.file': self.out / 'taught.safetensors',
        }
        arguments = [text for k, v in inputs.items() for text in ('-r', f'~/input/{k}:={v}')]
        arguments += [text for k, v in values.items() for text in ('-p', f'{k}:={v}')]
        log = self.out / f'{name}_{len(list(self.out.glob(f"{name}_*.log")))}.log'
        return Life(name, log, arguments)

    def _end_lives(self) -> None:
        for life in (self.life, self.spare):
            if life is not None:
                life.close()

    def bury(self, life: Life) -> None:
        """Keep what an ended life has left."""
        self.ended.append(Ended(life.counts(), life.crash()))

    @property
    def heard(self) -> Heard:
        """Newest diagnostics of the watched node."""
        return self.watch.heard[self.life.name]

    def set(self, **changes: Any) -> int:
        """Change what the sensors do; returns the number of the command."""
        return self.sensors.command(replace(self.sensors.settings, **changes))

    def until(self, condition: Callable[[], Any], limit_s: float) -> Generator[None, None, bool]:
        """Wait for a condition; says whether it came."""
        end = time.monotonic() + limit_s
        while not condition():
            if time.monotonic() > end:
                return False
            yield
        return True

    def ask(self, service: str, request: Any) -> Generator[None, None, Any]:
        """Call a service of the watched node.

        Raises:
            RuntimeError: There was no answer.

        """
        client = self.clients[service]
        if (yield from self.until(client.service_is_ready, ACTIVE_LIMIT_S)):
            future = client.call_async(request)
            if (yield from self.until(future.done, ANSWER_LIMIT_S)):
                return future.result()
        msg = f'no answer from {service}'
        raise RuntimeError(msg)


Action = Callable[[Stage], Steps]


def nothing(stage: Stage) -> Steps:
    """Do nothing."""
    yield from ()
