# SPDX-License-Identifier: Apache-2.0
"""SensorFrame -> Perception, without ROS. Node, replay and evaluation all call this."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cross4d_jepa_ros.compute import GpuStopwatch, Stopwatch, choose
from cross4d_jepa_ros.heap import keep_freed_memory
from cross4d_jepa_ros.model.checkpoint import load_checkpoint, network_sha256
from cross4d_jepa_ros.model.heads import frame_embedding
from cross4d_jepa_ros.model.live_memory import LiveMemory
from cross4d_jepa_ros.model.naming import TeachableSweep, named, threshold_table
from cross4d_jepa_ros.model.network import SweepInput
from cross4d_jepa_ros.model.prototypes import Prototypes, named_together
from cross4d_jepa_ros.segmentation_scores import UNKNOWN
from cross4d_jepa_ros.sensing.cameras import CameraModel
from cross4d_jepa_ros.sensing.frames import CameraView, SensorFrame
from cross4d_jepa_ros.sensing.point_clouds import Sweep
from cross4d_jepa_ros.sensing.point_colours import sample_colours
from cross4d_jepa_ros.sensing.poses import invert, transform_points

WARM_UP_POINTS = 131072


class Output(enum.Flag):
    """What a step is asked to compute; the rest of a Perception stays None."""

    SEGMENTATION = enum.auto()
    EMBEDDINGS = enum.auto()
    EMBEDDINGS_RGB = enum.auto()
    FRAME_EMBEDDING = enum.auto()
    ALL = SEGMENTATION | EMBEDDINGS | EMBEDDINGS_RGB | FRAME_EMBEDDING


@dataclass(frozen=True)
class Perception:
    """The answer to one sweep; P is the height x width of its message.

    Attributes:
        class_id: (P,) index into the contract's `answer_names`, in the message's order; 255 where
            the point is invalid, out of range, below the threshold, or nothing that is known.
        probability: (P,) of the most probable class, also below the threshold; 0 where the point
            is invalid or out of range.
        token_xyz: (M, 3) mean of each token's points, sensor frame, m.
        token_embedding: (M, D), rows as in `token_xyz`.
        embedding_rgb: (P, 3) each point's embedding in the model's fixed three-colour basis,
            black where the point is invalid or out of range.
        frame_embedding: (D,) mean of the tokens, zero where there are none.
        token_count: M.
        window_length: Sweeps that the answer depends on, this one included.
        reset: Why the past was forgotten before this sweep because the stream broke; else empty.
        capped_points: Points in range that took the answer of another one in their patch.
        capped_tokens: Occupied voxels that were no tokens of their own.
        stage_ms: Wall time of each of `Pipeline.STAGES`, 0 for one that was not needed.

    """

    stamp_ns: int
    class_id: NDArray[np.uint8] | None
    probability: NDArray[np.float32] | None
    token_xyz: NDArray[np.float32] | None
    token_embedding: NDArray[np.float32] | None
    embedding_rgb: NDArray[np.uint8] | None
    frame_embedding: NDArray[np.float32] | None
    token_count: int
    window_length: int
    reset: str
    capped_points: int
    capped_tokens: int
    stage_ms: dict[str, float]


class Pipeline:
    """One loaded network and the memory of one stream of sweeps.

    On a CPU the process keeps up to 256 MB of freed memory for the next step: giving it back and
    faulting it in again would cost a quarter of every step.

    Args:
        checkpoint: A file of `model.checkpoint`.
        device: `auto` (a GPU where there is one), `cpu`, `cuda` or `cuda:N`.
        precision: `auto` (what the device is fastest at), `fp32`, `bf16`, or on a GPU `fp16`;
            positions, times and probabilities have at least float32 in any case.
        threads: CPU threads of PyTorch in this process; 0 leaves them as they are.
        probability_threshold: Points whose best class is less probable are 255; may be set
            while running.

    Attributes:
        contract: Of the checkpoint; its record of taught classes follows `prototypes`.
        model_sha256: Of the checkpoint's file.
        network_sha256: Of the network and its contract, whatever it was taught.
        class_thresholds: By class name; there they replace `probability_threshold`. May be
            replaced while running; names of no class are passed over.
        normalised: Whether the embeddings' normalisation was ever fitted; what is taught needs it.
        answers_unknown: Whether a network that knows no classes answers 255 instead of nothing.
        teaching: Whether the newest sweep is kept for `embedding_at`; may be set while running.
        newest: That sweep; None before the first one, after a reset, and without teaching.
        window_length: Sweeps that the last answer depended on, its own included.
        last_reset: Why the past was last forgotten because the stream broke; empty if never.
        precision: In use: `fp32`, `bf16` or `fp16`.

    Raises:
        BadCheckpoint: The file is refused.
        ValueError: The device does not exist here, or has no such precision.

    """

    STAGES = ('tokenise', 'spatial', 'temporal', 'point_decoder', 'head')

    def __init__(
        self,
        checkpoint: Path,
        *,
        device: str = 'auto',
        precision: str = 'auto',
        threads: int = 0,
        probability_threshold: float = 0.0,
    ) -> None:
        self._compute = choose(device, precision)
        self.device, self.precision = self._compute.device, self._compute.precision
        if threads > 0:
            torch.set_num_threads(threads)
        if self.device.type == 'cpu':
            keep_freed_memory()
        loaded = load_checkpoint(checkpoint)
        self.contract = loaded.contract
        self.model_sha256 = loaded.sha256
        self.network_sha256 = network_sha256(loaded)
        self.probability_threshold = probability_threshold
        self.class_thresholds: dict[str, float] = {}
        self.answers_unknown = False
        self.teaching = False
        self.newest: TeachableSweep | None = None
        self.last_reset = ''
        self.window_length = 1
        self.normalised = loaded.network.normalisation.fitted
        self._network = loaded.network.to(self.device)
        self._network.reckon_in(self._compute.dtype)
        self._memory = LiveMemory(self.contract.model)
        self.prototypes = loaded.prototypes

    @property
    def prototypes(self) -> Prototypes:
        """What was taught by examples; may be replaced while running, from any thread.

        Raises:
            BadConfig: On replacing: there would be more than 255 classes.

        """
        return self._prototypes

    @prototypes.setter
    def prototypes(self, prototypes: Prototypes) -> None:
        self.contract = replace(self.contract, prototypes=prototypes.record)
        self._prototypes = prototypes.to(self.device)

    @torch.inference_mode()
    def embedding_at(self, xyz: NDArray[np.float64]) -> torch.Tensor:
        """Take the normalised embedding (C,) of the point of the newest sweep that is nearest.

        Args:
            xyz: (3,) in the frame of `newest`, m.

        Raises:
            ValueError: No sweep is kept, or none of its points is near.

        """
        newest = self.newest
        if newest is None:
            msg = 'no sweep was answered since teaching began'
            raise ValueError(msg)
        one = newest.embedding_at(xyz)  # (C,)
        normalised: torch.Tensor = self._network.normalisation(one[None])[0]  # (C,)
        return normalised

    @property
    def sweeps(self) -> int:
        """Most sweeps that an answer depends on, the newest included (T)."""
        return self.contract.model.sweeps

    def warm_up(self) -> None:
        """Run synthetic sweeps of full size through every output, until one reads another."""
        for number in range(self.contract.model.sweep_stride + 1):
            frame = _warm_up_frame(self.contract.model.range_m, number * 100_000_000)
            self.step(frame, Output.ALL)
        self.reset()

    def reset(self, reason: str = '') -> None:
        """Forget the past: the next sweep is the first.

        Args:
            reason: For `last_reset`, where the stream broke.

        """
        self.last_reset = reason or self.last_reset
        self.newest = None
        self._memory.clear()

    def free_memory(self) -> None:
        """Forget the past and give the device's unused memory back, after it has run out."""
        self.reset('memory ran out')
        self._compute.free()

    @torch.inference_mode()
    def step(self, frame: SensorFrame, outputs: Output) -> Perception:
        """Answer one sweep.

        Args:
            frame: The sweep with its poses and images; images are looked at only by a network
                with colour.
            outputs: What is wanted. Segmentation stays None where the checkpoint has no head and
                nothing is taught.

        Raises:
            ValueError: An image is not (H, W, 3) uint8 of its camera's size, or `xyz_base` has
                another length than the sweep.

        """
        watch = self._compute.stopwatch()
        network = self._network
        sweep = self._sweep_input(frame)
        token, point = network.tokenise(sweep)  # (M, D), (L, C)
        watch.lap('tokenise')
        token = network.encode(token, sweep.patches)  # (M, D)
        watch.lap('spatial')
        reset = self._memory.follow(frame.stamp_ns, frame.sweep.frame_id, frame.fixed_from_base)
        self.last_reset = reset or self.last_reset
        memory = self._memory.read()
        self.window_length = 1 + len(memory)
        token, newest = network.recall(token, sweep, memory)  # (M, D)
        if newest is not None:
            self._memory.add(newest)
            watch.lap('temporal')
        teaching = self.teaching
        knows = network.segmentation is not None or self.prototypes.names
        if not (knows or self.answers_unknown):
            outputs &= ~Output.SEGMENTATION
        if teaching or outputs & (Output.SEGMENTATION | Output.EMBEDDINGS_RGB):
            point = network.decode(token, point, sweep.patches)  # (L, C)
            watch.lap('point_decoder')
        self.newest = self._teachable(frame, sweep, point) if teaching else None
        return self._answer(frame, outputs, sweep, token, point, reset, watch)

    def _sweep_input(self, frame: SensorFrame) -> SweepInput:
        if frame.xyz_base.shape != frame.sweep.xyz.shape:
            msg = f'xyz_base is {frame.xyz_base.shape}, the sweep is {frame.sweep.xyz.shape}'
            raise ValueError(msg)
        intensity = rgb = None
        xyz = self._compute.upload(frame.xyz_base)  # (N, 3)
        if frame.sweep.intensity is not None:
            intensity = self._compute.upload(frame.sweep.intensity)  # (N,)
        if self.contract.colour:
            # Of all points: to ask the device first which ones it keeps would hold both up.
            rgb = self._compute.upload(sample_colours(frame.xyz_base, frame.views))  # (N, 4)
        patches = self._network.tokenizer.group(xyz)
        kept = patches.kept_point  # (L,)
        return SweepInput(
            patches,
            None if intensity is None else intensity.index_select(0, kept),  # (L,)
            None if rgb is None else rgb.index_select(0, kept),  # (L, 4)
            frame.stamp_ns,
            frame.fixed_from_base,
        )

    def _teachable(
        self, frame: SensorFrame, sweep: SweepInput, embedding: torch.Tensor
    ) -> TeachableSweep:
        (kept,) = self._compute.download(sweep.patches.kept_point)  # (L,)
        swept = frame.sweep
        return TeachableSweep(frame.stamp_ns, swept.frame_id, swept.xyz[kept], embedding)

    def _least(self, class_id: torch.Tensor, taught: Prototypes) -> torch.Tensor | float:
        """Least probability that a point of each class (L,) must have to be named so."""
        of_all, of_class = self.probability_threshold, self.class_thresholds
        if not of_class:
            return of_all
        names = named_together(self.contract.class_names, taught.names)
        table = threshold_table(names, of_all, of_class)  # (256,)
        return table.to(self.device)[class_id.long()]  # (L,)

    def _answer(
        self,
        frame: SensorFrame,
        outputs: Output,
        sweep: SweepInput,
        token: torch.Tensor,
        point: torch.Tensor,
        reset: str,
        watch: Stopwatch | GpuStopwatch,
    ) -> Perception:
        network, patches = self._network, sweep.patches
        found = {'point': patches.point}  # (K,)
        if Output.SEGMENTATION in outputs:
            taught, classes = self.prototypes, self.contract.class_names
            best, certainty = named(network, classes, taught, point)  # (L,), (L,)
            best = best.where(certainty >= self._least(best, taught), UNKNOWN)  # (L,)
            found['class_id'] = patches.spread(best.to(torch.uint8))  # (K,)
            found['probability'] = patches.spread(certainty)  # (K,)
        if Output.EMBEDDINGS_RGB in outputs:
            found['embedding_rgb'] = patches.spread(network.colour_basis(point))  # (K, 3)
        if Output.EMBEDDINGS in outputs:
            found['token_xyz'] = patches.centre  # (M, 3)
            found['token_embedding'] = token.float()  # (M, D)
        if Output.FRAME_EMBEDDING in outputs:
            found['frame_embedding'] = frame_embedding(token.float())  # (D,)
        answer = dict(zip(found, self._compute.download(*found.values()), strict=True))
        position = frame.sweep.index[answer['point']]  # (K,) in the message
        for name, nothing in (('class_id', UNKNOWN), ('probability', 0), ('embedding_rgb', 0)):
            if name in answer:
                seen = answer[name]  # (K, ...)
                shape = (frame.sweep.point_count, *seen.shape[1:])
                answer[name] = np.full(shape, nothing, seen.dtype)  # (P, ...)
                answer[name][position] = seen
        if 'token_xyz' in answer:
            sensor_from_base = invert(frame.base_from_sensor)
            answer['token_xyz'] = transform_points(sensor_from_base, answer['token_xyz'])
        watch.lap('head')
        return Perception(
            stamp_ns=frame.stamp_ns,
            class_id=answer.get('class_id'),
            probability=answer.get('probability'),
            token_xyz=answer.get('token_xyz'),
            token_embedding=answer.get('token_embedding'),
            embedding_rgb=answer.get('embedding_rgb'),
            frame_embedding=answer.get('frame_embedding'),
            token_count=len(token),
            window_length=self.window_length,
            reset=reset,
            capped_points=patches.capped_points,
            capped_tokens=patches.capped_tokens,
            stage_ms=dict.fromkeys(self.STAGES, 0.0) | watch.read_ms(),
        )


def _warm_up_frame(range_m: float, stamp_ns: int) -> SensorFrame:
    # Points as dense as a real sweep's: many near, few far, most on the ground.
    draw = np.random.default_rng(0)
    distance = range_m * draw.random(WARM_UP_POINTS) ** 3
    azimuth = draw.uniform(-np.pi, np.pi, WARM_UP_POINTS)
    height = 0.05 * range_m * draw.random(WARM_UP_POINTS) ** 4
    columns = (distance * np.cos(azimuth), distance * np.sin(azimuth), height)
    xyz = np.stack(columns, axis=1, dtype=np.float32, casting='same_kind')
    camera = CameraModel(640, 480, 500.0, 500.0, 320.0, 240.0, 'none', ())
    camera_from_base = np.array(
        [[0, -1, 0, 0], [0, 0, -1, 1], [1, 0, 0, 0], [0, 0, 0, 1]], dtype=np.float64
    )
    view = CameraView(0, np.zeros((480, 640, 3), np.uint8), 0, camera, camera_from_base)
    sweep = Sweep(
        stamp_ns=stamp_ns,
        frame_id='base',
        height=1,
        width=WARM_UP_POINTS,
        xyz=xyz,
        intensity=np.zeros(WARM_UP_POINTS, np.float32),
        ring=None,
        time_offset_ns=None,
        index=np.arange(WARM_UP_POINTS),
    )
    return SensorFrame(stamp_ns, sweep, xyz, np.eye(4), np.eye(4), (view,))
