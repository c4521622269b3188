# SPDX-License-Identifier: Apache-2.0
"""Writes answers into recordings, on the topics and in the form of the node."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any, Self

import numpy as np
from std_msgs.msg import Header

from cross4d_jepa_ros.bag_frames import CLASS_NAMES_KEY
from cross4d_jepa_ros.bags import BagWriter, message_class
from cross4d_jepa_ros.pipeline import Perception
from cross4d_jepa_ros.ros.messages import answer_clouds
from offline_training.evaluation.sources import Swept

NAMES = ('segmentation', 'segmentation_rgb', 'embeddings', 'embeddings_rgb', 'frame_embedding')
TOPIC = '/perception_node/output/'
CLOUD_TYPE = 'sensor_msgs/msg/PointCloud2'
# What the layout of a cloud is read from.
_LAYOUT = ('height', 'width', 'fields', 'is_bigendian', 'point_step', 'row_step', 'data')


class AnswerBags:
    """One recording of answers for each log; a context manager.

    Args:
        folder: The recording of a source of one log; of several it holds a recording for each.
        logs: Names of the logs.
        names: Classes of the answers, noted in the recordings.
        palette: Their RGB.

    Raises:
        BadBag: While writing: a recording exists already, or cannot be made.

    """

    def __init__(
        self,
        folder: Path,
        logs: Sequence[str],
        names: Sequence[str],
        palette: Sequence[Sequence[int]],
    ) -> None:
        self._folders = dict.fromkeys(logs, folder)
        if len(logs) > 1:
            self._folders = {
                log: folder / f'{place:03d}_{Path(log).name}' for place, log in enumerate(logs)
            }
        self._names, self._palette = names, palette
        self._log = ''
        self._bag: BagWriter | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bag is not None:
            self._bag.__exit__(kind, error, trace)

    def _begin(self, log: str) -> None:
        bag, self._bag = self._bag, None
        if bag is not None:
            bag.__exit__(None, None, None)
        self._bag, self._log = BagWriter(self._folders[log]).__enter__(), log
        if self._names:
            self._bag.note(CLASS_NAMES_KEY, ','.join(self._names))

    def add(self, swept: Swept, perception: Perception) -> None:
        """Write the answers to one sweep, recorded at its stamp."""
        if self._bag is None or swept.log != self._log:
            self._begin(swept.log)
        assert self._bag is not None
        message = swept.message
        given = SimpleNamespace(
            header=_header(message.header), **{name: getattr(message, name) for name in _LAYOUT}
        )
        clouds = answer_clouds(NAMES, given, perception, self._palette)
        for name, cloud in clouds.items():
            self._bag.write(TOPIC + name, CLOUD_TYPE, swept.frame.stamp_ns, _recorded(cloud))


def _header(given: Any) -> Header:
    header = Header(frame_id=str(given.frame_id))
    header.stamp.sec, header.stamp.nanosec = int(given.stamp.sec), int(given.stamp.nanosec)
    return header


def _recorded(cloud: Any) -> Any:
    """Make of a message of the node what `BagWriter` serialises, padding included, to zeros."""
    stamp = message_class('builtin_interfaces/msg/Time')(
        cloud.header.stamp.sec, cloud.header.stamp.nanosec
    )
    field = message_class('sensor_msgs/msg/PointField')
    return message_class(CLOUD_TYPE)(
        message_class('std_msgs/msg/Header')(stamp, cloud.header.frame_id),
        cloud.height,
        cloud.width,
        [field(each.name, each.offset, each.datatype, each.count) for each in cloud.fields],
        cloud.is_bigendian,
        cloud.point_step,
        cloud.row_step,
        np.frombuffer(cloud.data, np.uint8),
        cloud.is_dense,
    )
