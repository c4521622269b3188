# SPDX-License-Identifier: Apache-2.0
"""Teaching by clicks: a clicked point becomes an example of the class that `teach.class` names.

Callbacks store clicks; the worker turns them into examples before it answers the next sweep. What
was taught is kept in a file, a whole checkpoint, and taken up again in the next life of the node.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from std_srvs.srv import Trigger

from cross4d_jepa_ros.model.checkpoint import (
    BadCheckpoint,
    load_checkpoint,
    network_sha256,
    save_checkpoint,
)
from cross4d_jepa_ros.model.naming import TeachableSweep
from cross4d_jepa_ros.model.prototypes import Prototypes
from cross4d_jepa_ros.pipeline import Pipeline
from cross4d_jepa_ros.ros.topics import Topic
from cross4d_jepa_ros.sensing.point_clouds import header_fault, stamp_ns
from cross4d_jepa_ros.sensing.poses import FARTHEST_M
from cross4d_jepa_ros.sensing.transforms import TransformBuffer, TransformError

TRIGGER = {'std_srvs/srv/Trigger': Trigger}
SAVE = Topic(
    '~/teach/save',
    TRIGGER,
    'write what was taught to `teach.file`, a whole checkpoint (one of 70 MB holds sweeps up for a '
    'second)',
)
CLEAR = Topic('~/teach/clear', TRIGGER, 'forget what was taught')
# More than anybody clicks between two sweeps.
MOST_CLICKS = 256
HOW = 'set teach.class to a name, configure, and click points of it (~/input/clicked_point)'
NOT_NORMALISED = (
    'the normalisation of this model was never fitted, so that clicks tell classes apart badly: '
    'take one that offline_training.pretrain or train_segmentation of this version wrote, or let '
    'offline_training.label_by_clicks fit it to a bag'
)


@dataclass(frozen=True)
class Click:
    """A point that somebody says is of a class; `xyz` (3,) in `frame_id`, m."""

    name: str
    frame_id: str
    xyz: NDArray[np.float64]


@dataclass(frozen=True)
class TeachingSetup:
    """What one configured life of the node needs for teaching.

    Attributes:
        model: Checkpoint that the pipeline has loaded.
        file: Where `~/teach/save` writes.
        max_extrapolation_ns: As for all other poses.

    """

    pipeline: Pipeline
    transforms: TransformBuffer
    model: Path
    file: Path
    max_extrapolation_ns: int


class Teaching:
    """Clicks on their way to the pipeline, and the services `~/teach/save` and `~/teach/clear`."""

    def __init__(self, node: Node) -> None:
        """Advertise the services; `begin` says what they act on."""
        self._log = node.get_logger()
        self._lock = threading.Lock()
        self._clicks: deque[Click] = deque(maxlen=MOST_CLICKS)
        self._life: TeachingSetup | None = None
        self._kept: Prototypes | None = None
        self._warned = False
        node.create_service(Trigger, SAVE.name, self._on_save)
        node.create_service(Trigger, CLEAR.name, self._on_clear)

    def begin(self, life: TeachingSetup) -> None:
        """Act on a pipeline, and take up again what its file says it was taught."""
        self._life, self._warned = life, False
        own = self._kept = life.pipeline.prototypes
        try:
            if not life.file.exists():
                return
            kept = load_checkpoint(life.file)
        except (BadCheckpoint, OSError) as error:
            self._log.warning(f'nothing taught is taken up: {error}')
            return
        if network_sha256(kept) != life.pipeline.network_sha256:
            self._log.warning(f'nothing taught is taken up: {self._of_another(life)}')
            return
        life.pipeline.prototypes = kept.prototypes
        self._kept = life.pipeline.prototypes
        instead = f', in place of what {life.model} was taught: {summary(own)}' if own.names else ''
        self._log.info(f'taken up from {life.file}: {summary(kept.prototypes)}{instead}')

    def end(self) -> None:
        """Forget the pipeline and what waits for it."""
        self.forget_clicks()
        life, self._life = self._life, None
        if life is None:
            return
        taught = life.pipeline.prototypes
        if taught.names and taught is not self._kept:
            self._log.warning(f'forgotten, ~/teach/save was not called: {summary(taught)}')

    @property
    def file(self) -> str:
        """Where `~/teach/save` writes; empty while unconfigured."""
        return str(self._life.file) if self._life else ''

    def click(self, name: str, message: Any) -> None:
        """Store a geometry_msgs/PointStamped as an example of a class; empty names refuse it."""
        if not name:
            self._log.warning('clicked point refused: teach.class is empty; set it to a name first')
            return
        if self._life is not None and not (self._life.pipeline.normalised or self._warned):
            self._warned = True
            self._log.warning(NOT_NORMALISED)
        point = message.point
        xyz = np.array([point.x, point.y, point.z], dtype=np.float64)
        frame = message.header.frame_id
        fault = header_fault(stamp_ns(message), frame)
        if not np.abs(xyz).max() <= FARTHEST_M:
            fault = f'It is at {xyz.tolist()} m.'
        if fault:
            self._log.warning(f'clicked point refused: {fault}')
            return
        self._clicks.append(Click(name, frame, xyz))

    def forget_clicks(self) -> None:
        """Let go of the clicks that wait."""
        with self._lock:
            self._clicks.clear()

    def apply(self) -> None:
        """Turn the clicks that wait into examples; for the worker, between two sweeps."""
        life = self._life
        # The first clicks may come before a sweep was kept for them.
        if life is None or (life.pipeline.newest is None and life.pipeline.teaching):
            return
        # Held from click to example: what comes before a `clear` is not learnt after it.
        with self._lock:
            while self._clicks:
                click = self._clicks.popleft()
                try:
                    self._learn(life, click)
                except ValueError as error:
                    self._log.warning(f'clicked point for {click.name!r} refused: {error}')

    def _learn(self, life: TeachingSetup, click: Click) -> None:
        pipeline, xyz = life.pipeline, click.xyz
        newest = pipeline.newest
        if newest is not None:
            sensor_from_click = self._sensor_from_click(life, newest, click)
            xyz = sensor_from_click[:3, :3] @ xyz + sensor_from_click[:3, 3]
        example = pipeline.embedding_at(xyz)
        taught = pipeline.prototypes = pipeline.prototypes.added(click.name, example)
        x, y, z = click.xyz
        self._log.info(
            f'taught by ({x:.2f}, {y:.2f}, {z:.2f}) m in {click.frame_id}: now {summary(taught)}'
        )

    @staticmethod
    def _sensor_from_click(
        life: TeachingSetup, newest: TeachableSweep, click: Click
    ) -> NDArray[np.float64]:
        most_ns = life.max_extrapolation_ns
        try:
            return life.transforms.lookup(
                newest.frame_id, click.frame_id, newest.stamp_ns, max_extrapolation_ns=most_ns
            )
        except TransformError as error:
            msg = (
                f'nothing says where {click.frame_id!r} is in {newest.frame_id!r} ({error}): '
                f'publish TF, or click with {newest.frame_id!r} as the fixed frame of RViz'
            )
            raise ValueError(msg) from error

    # Services: the answer says what was done

    def _on_clear(self, _request: Any, response: Any) -> Any:
        life = self._life
        if life is None:
            return _answered(response, False, 'configure the node first')
        with self._lock:
            self._clicks.clear()
            before = life.pipeline.prototypes
            life.pipeline.prototypes = Prototypes.none(life.pipeline.contract.model.point_width)
        kept = f'; {life.file} still has what was saved: ~/teach/save removes it there, too'
        return _answered(
            response, True, f'removed {summary(before)}' + (kept if _is_there(life.file) else '')
        )

    def _on_save(self, _request: Any, response: Any) -> Any:
        life = self._life
        if life is None:
            return _answered(response, False, 'configure the node first')
        waiting = len(self._clicks)
        try:
            taught = self._save(life)
        except (BadCheckpoint, OSError) as error:
            return _answered(response, False, f'not saved: {error}')
        later = f'; not in it: {waiting} clicks that wait for a sweep' if waiting else ''
        return _answered(response, True, f'{life.file}: saved {summary(taught)}{later}')

    def _save(self, life: TeachingSetup) -> Prototypes:
        # From the file: the weights of the pipeline may be on a GPU and in half precision.
        loaded = load_checkpoint(life.model)
        if network_sha256(loaded) != life.pipeline.network_sha256:
            msg = f'{life.model} was changed since the node was configured: configure it anew'
            raise BadCheckpoint(msg)
        before = load_checkpoint(life.file) if life.file.exists() else loaded
        if network_sha256(before) != life.pipeline.network_sha256:
            raise BadCheckpoint(self._of_another(life))
        taught = life.pipeline.prototypes
        save_checkpoint(life.file, loaded.contract, loaded.network, taught)
        self._kept = taught
        return taught

    def _of_another(self, life: TeachingSetup) -> str:
        return f'{life.file} belongs to another network than {life.model}: give another teach.file'


def summary(taught: Prototypes) -> str:
    """Count the examples of each class, for people."""
    each = zip(taught.names, taught.counts, strict=True)
    return ', '.join(f'{name} {count}' for name, count in each) or 'nothing'


def default_file(model: str) -> Path:
    """Name the file for what a model (by its sha256) is taught, in ROS's folder of the user.

    Not by its network alone: one that was taught otherwise is another model.
    """
    home = Path(os.environ.get('ROS_HOME') or '~/.ros').expanduser()
    return home / 'cross4d_jepa_ros' / f'taught_{model[:12]}.safetensors'


def _is_there(file: Path) -> bool:
    try:
        return file.exists()
    except OSError:  # its folder may not be looked into
        return False


def _answered(response: Any, success: bool, message: str) -> Any:
    response.success, response.message = success, message
    return response
