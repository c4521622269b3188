# SPDX-License-Identifier: Apache-2.0
"""Random access to the sweeps and images that an index names."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from cross4d_jepa_ros.bags import BadBag, Bag
from cross4d_jepa_ros.sensing.deskewing import in_base
from cross4d_jepa_ros.sensing.images import MalformedImage, decode_image
from cross4d_jepa_ros.sensing.point_clouds import (
    CloudConfig,
    CloudDecoder,
    MalformedCloud,
    Sweep,
    stamp_ns,
    structured_view,
)
from offline_training.logs.kitti_folder import KittiFolder, is_kitti
from offline_training.logs.table import BadIndex, Index, IndexedSweep, Shot

# Logs that are kept open; each costs a file handle or two.
OPEN_LOGS = 64

_Read = TypeVar('_Read')


@dataclass(frozen=True)
class ReadSweep:
    """The points of one sweep, the same numbers as when it was indexed.

    Attributes:
        xyz: (N, 3) float32 m, base frame at `stamp_ns`, motion within the sweep undone.
        intensity: (N,) float32 in [0, 1]; None where the sensor has none.
        time_offset_ns: (N,) int64, each point's time less `stamp_ns`; None where not recorded.
        index: (N,) int64, position of each point in the message.

    """

    stamp_ns: int
    xyz: NDArray[np.float32]
    intensity: NDArray[np.float32] | None
    time_offset_ns: NDArray[np.int64] | None
    index: NDArray[np.int64]


class _Log(Protocol):
    def cloud(self, row: IndexedSweep) -> Any:
        """Read the PointCloud2-like message of a row."""

    def image(self, shot: Shot) -> Any:
        """Read the Image- or CompressedImage-like message of a shot."""

    def labels(self, row: IndexedSweep) -> NDArray[Any] | None:
        """Read the class of each point of the message; None where that cannot be read."""

    def close(self) -> None:
        """Let go of the files."""


class LogReader:
    """Reads what an index names; a context manager.

    Logs are opened when they are first needed and stay open. One thread at a time may use it.

    """

    def __init__(self, index: Index) -> None:
        """Take the index; nothing is opened yet."""
        self._index = index
        self._logs: OrderedDict[str, _Log] = OrderedDict()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all logs; they are opened again when needed."""
        while self._logs:
            self._logs.popitem()[1].close()

    def sweep(self, row: IndexedSweep) -> ReadSweep:
        """Read the points of a usable row.

        Raises:
            BadIndex: The log is gone or has changed since it was indexed.

        """
        sweep = self._decoded(row)
        xyz = in_base(sweep, row.base_from_sensor, row.stamp_from_knot)
        return ReadSweep(row.stamp_ns, xyz, sweep.intensity, sweep.time_offset_ns, sweep.index)

    def sensor_xyz(self, row: IndexedSweep) -> NDArray[np.float32]:
        """Read the points of `sweep(row)` as the message has them, motion within it and all.

        Returns:
            (N, 3) m, sensor frame.

        Raises:
            BadIndex: As `sweep`.

        """
        return self._decoded(row).xyz

    def image(self, row: IndexedSweep, camera: int) -> NDArray[np.uint8]:
        """Read the image of `row.shots[camera]`.

        Returns:
            (H, W, 3) RGB.

        Raises:
            BadIndex: As `sweep`.
            LookupError: The row has no shot of that camera.

        """
        shot = row.shots[camera]
        if shot is None:
            msg = f'{row.log} has no image of camera {camera} for the sweep at {row.stamp_ns} ns'
            raise LookupError(msg)
        return self._read(row, lambda log: decode_image(log.image(shot)))

    def labels(self, row: IndexedSweep) -> NDArray[Any] | None:
        """Read the class of each point of `sweep(row)`.

        Returns:
            (N,) uint8 of a bag's truth or uint16 of a KITTI log (SemanticKITTI's numbers); None
            where the row has none.

        Raises:
            BadIndex: As `sweep`.

        """
        if not row.labels:
            return None
        labels = self._read(row, lambda log: log.labels(row))
        return None if labels is None else labels[self.sweep(row).index]

    def _decoded(self, row: IndexedSweep) -> Sweep:
        decoder = CloudDecoder(CloudConfig(), intensity_ceiling=row.intensity_ceiling)
        sweep = self._read(row, lambda log: decoder.decode(log.cloud(row)))
        if len(sweep.xyz) != row.points:
            raise self._changed(row, f'{len(sweep.xyz)} points instead of {row.points}')
        return sweep

    def _read(self, row: IndexedSweep, read: Callable[[_Log], _Read]) -> _Read:
        try:
            return read(self._log(row))
        except (BadBag, MalformedCloud, MalformedImage, LookupError, OSError) as error:
            raise self._changed(row, str(error)) from error

    def _log(self, row: IndexedSweep) -> _Log:
        if row.log not in self._logs:
            path = self._index.path_of(row)
            self._logs[row.log] = KittiFolder(path) if is_kitti(path) else _BagLog(path)
            if len(self._logs) > OPEN_LOGS:
                self._logs.popitem(last=False)[1].close()
        self._logs.move_to_end(row.log)
        return self._logs[row.log]

    def _changed(self, row: IndexedSweep, what: str) -> BadIndex:
        return BadIndex(
            f'{self._index.path_of(row)} is not as it was when it was indexed (the sweep at '
            f'{row.stamp_ns} ns: {what}): index it again, or put it back'
        )


class _BagLog:
    """A rosbag2 recording."""

    def __init__(self, path: Path) -> None:
        self._bag = Bag(path)
        self._truth: dict[int, int] | None = None

    def cloud(self, row: IndexedSweep) -> Any:
        return self._message(row.topic, row.message_ns, row.stamp_ns)

    def image(self, shot: Shot) -> Any:
        return self._message(shot.topic, shot.message_ns, shot.stamp_ns)

    def labels(self, row: IndexedSweep) -> NDArray[Any] | None:
        if self._truth is None:
            self._truth = {
                stamp_ns(self._bag.deserialise(message)): message.bag_stamp_ns
                for message in self._bag.messages([row.labels])
            }
        message = self._message(row.labels, self._truth.get(row.stamp_ns, 0), row.stamp_ns)
        labels: NDArray[Any] = structured_view(message)['class_id'].reshape(-1)
        return labels

    def close(self) -> None:
        self._bag.__exit__()

    def _message(self, topic: str, message_ns: int, near_ns: int) -> Any:
        """Read the message recorded at one instant; of several, that of the nearest stamp."""
        found = [self._bag.deserialise(each) for each in self._bag.messages_at(topic, message_ns)]
        if not found:
            msg = f'{topic} has no message recorded at {message_ns} ns'
            raise LookupError(msg)
        return min(found, key=lambda message: abs(stamp_ns(message) - near_ns))
