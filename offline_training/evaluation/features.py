# SPDX-License-Identifier: Apache-2.0
"""What a frozen network says of labelled points: the features that probes are fitted on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cross4d_jepa_ros.model.live_memory import LiveMemory
from cross4d_jepa_ros.model.network import Network, SweepInput
from cross4d_jepa_ros.model.temporal_memory import Remembered
from cross4d_jepa_ros.segmentation_scores import UNKNOWN
from cross4d_jepa_ros.sensing.point_colours import sample_colours
from offline_training.evaluation.sources import Swept
from offline_training.labelled_sweeps import LabelledSweep, SweepFiles
from offline_training.objectives.dense_correspondence import answering_rows
from offline_training.position_network import fourier_features
from offline_training.segmentation_run import sweep_input

_LARGEST = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class PointFeatures:
    """Labelled points of some sweeps; no label is unknown.

    Attributes:
        features: (N, F) float16.
        label: (N,) uint8 class id.
        xyz: (N, 3) float32 m, base frame of each point's sweep.
        recording: (N,) int64, number of the recording.
        sweep: (N,) int64, position of the sweep in its `SweepFiles`.

    """

    features: NDArray[np.float16]
    label: NDArray[np.uint8]
    xyz: NDArray[np.float32]
    recording: NDArray[np.int64]
    sweep: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.label)

    @property
    def range_m(self) -> NDArray[np.float32]:
        """Horizontal distance (N,) from the base frame's origin, m."""
        distance: NDArray[np.float32] = np.hypot(self.xyz[:, 0], self.xyz[:, 1])
        return distance

    def at(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> PointFeatures:
        """Return some of the points, by a mask (N,) or by their numbers."""
        return PointFeatures(
            self.features[chosen],
            self.label[chosen],
            self.xyz[chosen],
            self.recording[chosen],
            self.sweep[chosen],
        )


@dataclass(frozen=True)
class SweepAnswer:
    """What a network says of one sweep, itself and those before it in its recording given.

    Attributes:
        position: Of the sweep in its `SweepFiles`.
        row: (N,) int64: which of the L points that are looked at answers for a point, -1 where
            it is out of range.
        token: (M, D)
        embedding: (L, C)

    """

    position: int
    sweep: LabelledSweep
    given: SweepInput
    row: Tensor
    token: Tensor
    embedding: Tensor


def collect(
    network: Network,
    sweeps: SweepFiles,
    *,
    points_per_sweep: int,
    seed: int,
    stride: int = 1,
    on_sweep: Callable[[], None] = lambda: None,
) -> PointFeatures:
    """Ask a frozen network for the features of some labelled points of each sweep.

    Features of a point are its patch's token and its own embedding side by side: objectives without
    a term per point leave the point decoder as it was drawn. Networks that see as far are asked for
    the same points.

    Args:
        network: Is only read.
        sweeps: Those without a known label give nothing.
        points_per_sweep: Most points of a sweep, drawn evenly from its labelled ones in range.
        seed: Of that.
        stride: Every so manieth sweep of a recording, the last of it among them; each is answered
            with the window before it.
        on_sweep: Called after each of them.

    Raises:
        ValueError: No sweep has a labelled point in range.

    """
    parts = []
    for number, recording in enumerate(sweeps.recordings):
        for answer in sweep_answers(network, sweeps, recording, stride):
            parts.append(_drawn(answer, number, points_per_sweep, seed))
            on_sweep()
    return _together(parts, network.config.range_m)


@torch.inference_mode()
def collect_live(
    networks: Mapping[str, Network],
    stream: Iterable[Swept],
    *,
    points_per_sweep: int,
    seed: int,
    on_sweep: Callable[[], None] = lambda: None,
) -> dict[str, PointFeatures]:
    """Ask frozen networks for the features of the same labelled points, as `collect` does.

    Args:
        networks: By name, of one configuration; only read. Each remembers as it would live.
        stream: Sweeps of one log after another; a log is a recording.
        points_per_sweep: Most points of a sweep, drawn evenly from its labelled ones in range.
        seed: Of that.
        on_sweep: Called after each sweep.

    Raises:
        ValueError: No sweep has a labelled point in range.

    """
    configs = {network.eval().config for network in networks.values()}
    (config,) = configs
    memories = {name: LiveMemory(config) for name in networks}
    parts: dict[str, list[PointFeatures]] = {name: [] for name in networks}
    recording = -1
    for position, swept in enumerate(stream):
        recording += swept.first
        frame = swept.frame
        sweep = _labelled(swept, colour=config.colour)
        for name, network in networks.items():
            memory = memories[name]
            if swept.first:
                memory.clear()
            memory.follow(frame.stamp_ns, frame.sweep.frame_id, frame.fixed_from_base)
            answer, newest = _answered(network, position, sweep, memory.read())
            if newest is not None:
                memory.add(newest)
            parts[name].append(_drawn(answer, recording, points_per_sweep, seed))
        on_sweep()
    return {name: _together(each, config.range_m) for name, each in parts.items()}


@torch.inference_mode()
def sweep_answers(
    network: Network, sweeps: SweepFiles, recording: range, stride: int = 1
) -> Iterator[SweepAnswer]:
    """Answer every so manieth sweep of a recording, the last among them, as a stream would.

    Args:
        network: Is only read.
        sweeps: Files.
        recording: One of theirs.
        stride: 1 for every sweep.

    """
    network.eval()
    reach = network.config.sweeps
    memory: deque[Remembered] = deque(maxlen=reach - 1)
    for position in recording:
        ahead = (recording[-1] - position) % stride
        if ahead >= reach:
            continue
        answer, newest = _answered(network, position, sweeps[position], list(memory))
        if newest is not None:
            memory.appendleft(newest)
        if not ahead:
            yield answer


def position_features(points: PointFeatures) -> PointFeatures:
    """Return the same points with nothing but what their positions say: waves of x, y and z."""
    xyz = torch.from_numpy(points.xyz)  # (N, 3)
    return replace(points, features=_half(fourier_features(xyz)))


def _answered(
    network: Network, position: int, sweep: LabelledSweep, memory: Sequence[Remembered]
) -> tuple[SweepAnswer, Remembered | None]:
    """Answer a sweep; also what later ones will remember of it."""
    given = sweep_input(network, sweep)
    token, point, newest = network.encode_sweep(given, memory)  # (M, D), (L, C)
    embedding = network.decode(token, point, given.patches)  # (L, C)
    row = answering_rows(given.patches, len(sweep.xyz))  # (N,)
    return SweepAnswer(position, sweep, given, row, token, embedding), newest


def _labelled(swept: Swept, *, colour: bool) -> LabelledSweep:
    frame = swept.frame
    index = frame.sweep.index  # (N,)
    unknown = np.full(len(index), UNKNOWN, np.uint8)
    rgb = np.zeros((0, 4), np.float32)
    return LabelledSweep(
        stamp_ns=frame.stamp_ns,
        xyz=frame.xyz_base,
        intensity=frame.sweep.intensity,
        rgb=sample_colours(frame.xyz_base, frame.views) if colour else rgb,
        label=unknown if swept.label is None else swept.label[index],
        moving=unknown,
        fixed_from_base=frame.fixed_from_base,
    )


def _together(parts: Sequence[PointFeatures], range_m: float) -> PointFeatures:
    if not sum(map(len, parts)):
        msg = (
            f'no point of {len(parts)} sweeps has a label within {range_m:g} m: give labelled '
            'recordings, or the --labels that belong to them'
        )
        raise ValueError(msg)
    return PointFeatures(
        np.concatenate([part.features for part in parts]),
        np.concatenate([part.label for part in parts]),
        np.concatenate([part.xyz for part in parts]),
        np.concatenate([part.recording for part in parts]),
        np.concatenate([part.sweep for part in parts]),
    )


def _drawn(answer: SweepAnswer, recording: int, most: int, seed: int) -> PointFeatures:
    sweep, row = answer.sweep, answer.row.numpy()
    known = np.flatnonzero((sweep.label != UNKNOWN) & (row >= 0))
    draw = np.random.default_rng((seed, answer.position))
    chosen = np.sort(draw.permutation(known)[:most])
    asked = answer.row[torch.from_numpy(chosen)]  # (n,)
    token = answer.token[answer.given.patches.patch_of_kept[asked]]  # (n, D)
    return PointFeatures(
        features=_half(torch.cat((token, answer.embedding[asked]), dim=1)),
        label=sweep.label[chosen],
        xyz=sweep.xyz[chosen],
        recording=np.full(len(chosen), recording),
        sweep=np.full(len(chosen), answer.position),
    )


def _half(features: Tensor) -> NDArray[np.float16]:
    half: NDArray[np.float16] = features.clamp(-_LARGEST, _LARGEST).half().numpy()
    return half
