# SPDX-License-Identifier: Apache-2.0
"""SensorFrame -> Perception, without ROS. Node, replay and evaluation all call this."""

from __future__ import annotations

import ctypes
import enum
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cross4d_jepa_ros.model.checkpoint import load_checkpoint
from cross4d_jepa_ros.model.heads import frame_embedding
from cross4d_jepa_ros.model.tokenizer import Patches
from cross4d_jepa_ros.segmentation_scores import UNKNOWN
from cross4d_jepa_ros.sensing.cameras import CameraModel
from cross4d_jepa_ros.sensing.frames import CameraView, SensorFrame
from cross4d_jepa_ros.sensing.point_clouds import Sweep
from cross4d_jepa_ros.sensing.poses import invert, transform_points

WARM_UP_POINTS = 131072
# Parameters of mallopt(3): mmap threshold (the most that glibc allows), trim threshold, arenas.
# Only the main arena keeps what is freed; those of other threads fault their heaps in again.
MALLOC_TUNING = {-3: 32 << 20, -1: 256 << 20, -8: 1}


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
        class_id: (P,) index into the contract's class names, in the message's order; 255 where
            the point is invalid, out of range, capped, or below the threshold.
        probability: (P,) of the most probable class, also below the threshold; 0 where the point
            is invalid, out of range or capped.
        token_xyz: (M, 3) mean of each token's points, sensor frame, m.
        token_embedding: (M, D), rows as in `token_xyz`.
        embedding_rgb: (P, 3) each point's embedding in the model's fixed three-colour basis,
            black where the point is invalid, out of range or capped.
        frame_embedding: (D,) mean of the tokens, zero where there are none.
        token_count: M.
        window_length: Sweeps that the answer depends on, this one included.
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
    stage_ms: dict[str, float]


class Pipeline:
    """One loaded network.

    On a CPU the process keeps up to 256 MB of freed memory for the next step: giving it back and
    faulting it in again would cost a quarter of every step.

    Args:
        checkpoint: A file of `model.checkpoint`.
        device: `auto` (a GPU where there is one), `cpu`, `cuda` or `cuda:N`.
        threads: CPU threads of PyTorch in this process; 0 leaves them as they are.
        probability_threshold: Points whose best class is less probable are 255; may be set
            while running.

    Raises:
        BadCheckpoint: The file is refused.
        ValueError: The device does not exist here.

    """

    STAGES = ('tokenise', 'spatial', 'temporal', 'point_decoder', 'head')

    def __init__(
        self,
        checkpoint: Path,
        *,
        device: str = 'auto',
        threads: int = 0,
        probability_threshold: float = 0.0,
    ) -> None:
        self.device = _device(device)
        if threads > 0:
            torch.set_num_threads(threads)
        if self.device.type == 'cpu':
            keep_freed_memory()
        loaded = load_checkpoint(checkpoint)
        self.contract = loaded.contract
        self.model_sha256 = loaded.sha256
        self.probability_threshold = probability_threshold
        self._network = loaded.network.to(self.device)

    @property
    def window_length(self) -> int:
        """Sweeps in memory, the newest included."""
        return self.contract.model.sweeps

    def warm_up(self) -> None:
        """Run a synthetic sweep of full size through every output."""
        self.step(_warm_up_frame(self.contract.model.range_m), Output.ALL)
        self.reset()

    def reset(self) -> None:
        """Forget the past: the next sweep is the first. One sweep at a time has no past."""

    @torch.inference_mode()
    def step(self, frame: SensorFrame, outputs: Output) -> Perception:
        """Answer one sweep.

        Args:
            frame: The sweep with its poses and images; images are looked at only by a network
                with colour.
            outputs: What is wanted. Segmentation stays None where the checkpoint has no head.

        Raises:
            ValueError: An image is not (H, W, 3) uint8 of its camera's size, or `xyz_base` has
                another length than the sweep.

        """
        stage_ms = dict.fromkeys(self.STAGES, 0.0)
        network = self._network
        with self._timed(stage_ms, 'tokenise'):
            patches, token, point = self._tokenise(frame)
        with self._timed(stage_ms, 'spatial'):
            if len(token):
                token = network.encoder(token, patches.cell, patches.centre)  # (M, D)
        if network.segmentation is None:
            outputs &= ~Output.SEGMENTATION
        if outputs & (Output.SEGMENTATION | Output.EMBEDDINGS_RGB):
            with self._timed(stage_ms, 'point_decoder'):
                point = network.decoder(token, point, patches.patch_of_kept)  # (L, C)
        with self._timed(stage_ms, 'head'):
            return self._answer(frame, outputs, patches, token, point, stage_ms)

    def _tokenise(self, frame: SensorFrame) -> tuple[Patches, torch.Tensor, torch.Tensor]:
        if frame.xyz_base.shape != frame.sweep.xyz.shape:
            msg = f'xyz_base is {frame.xyz_base.shape}, the sweep is {frame.sweep.xyz.shape}'
            raise ValueError(msg)
        tokenizer = self._network.tokenizer
        # Copied: the arrays of a sweep may be read-only views of its message.
        xyz = torch.tensor(frame.xyz_base, dtype=torch.float32)  # (N, 3)
        patches = tokenizer.group(xyz.to(self.device))
        intensity = rgb = None
        if frame.sweep.intensity is not None:
            intensity = torch.tensor(frame.sweep.intensity).to(self.device)[patches.kept_point]
        if self.contract.colour:
            rgb = torch.from_numpy(sample_colours(patches.xyz.cpu().numpy(), frame.views))  # (K, 4)
            rgb = rgb.to(self.device)  # (K, 4)
        token, point = tokenizer(patches, intensity, rgb)  # (M, D), (K, C)
        return patches, token, point

    def _answer(
        self,
        frame: SensorFrame,
        outputs: Output,
        patches: Patches,
        token: torch.Tensor,
        point: torch.Tensor,
        stage_ms: dict[str, float],
    ) -> Perception:
        network = self._network
        class_id = probability = embedding_rgb = None
        points = frame.sweep.point_count
        position = frame.sweep.index[patches.point.cpu().numpy()]  # (K,) in the message
        if Output.SEGMENTATION in outputs and network.segmentation is not None:
            best, certainty = network.segmentation.classify(point)  # (L,), (L,)
            best = best.where(certainty >= self.probability_threshold, UNKNOWN)  # (L,)
            class_id = np.full(points, UNKNOWN, dtype=np.uint8)
            class_id[position] = patches.spread(best.to(torch.uint8)).cpu().numpy()
            probability = np.zeros(points, dtype=np.float32)
            probability[position] = patches.spread(certainty).cpu().numpy()
        if Output.EMBEDDINGS_RGB in outputs:
            embedding_rgb = np.zeros((points, 3), dtype=np.uint8)
            embedding_rgb[position] = patches.spread(network.colour_basis(point)).cpu().numpy()
        token_xyz = token_embedding = pooled = None
        if Output.EMBEDDINGS in outputs:
            token_embedding = token.cpu().numpy()
            sensor_from_base = invert(frame.base_from_sensor)
            token_xyz = transform_points(sensor_from_base, patches.centre.cpu().numpy())
        if Output.FRAME_EMBEDDING in outputs:
            pooled = frame_embedding(token).cpu().numpy()
        return Perception(
            stamp_ns=frame.stamp_ns,
            class_id=class_id,
            probability=probability,
            token_xyz=token_xyz,
            token_embedding=token_embedding,
            embedding_rgb=embedding_rgb,
            frame_embedding=pooled,
            token_count=len(token),
            window_length=self.window_length,
            stage_ms=stage_ms,
        )

    @contextmanager
    def _timed(self, stage_ms: dict[str, float], stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        if self.device.type == 'cuda':
            torch.cuda.synchronize(self.device)
        stage_ms[stage] = (time.perf_counter() - start) * 1e3


def sample_colours(
    xyz_base: NDArray[np.float32], views: tuple[CameraView, ...]
) -> NDArray[np.float32]:
    """Look up the colour of each point in the first image that sees it.

    Args:
        xyz_base: (N, 3) finite, base frame, m.
        views: Each image has the size that its camera says.

    Returns:
        (N, 4): red, green, blue in [0, 1] and 1, or four zeros where no image sees the point.

    Raises:
        ValueError: An image has another size or type.

    """
    colours = np.zeros((len(xyz_base), 4), dtype=np.float32)
    for view in views:
        camera, image = view.camera, view.image
        if image.shape != (camera.height, camera.width, 3) or image.dtype != np.uint8:
            msg = (
                f'image of camera {view.camera_index} is {image.shape} {image.dtype}, its '
                f'calibration says ({camera.height}, {camera.width}, 3) uint8'
            )
            raise ValueError(msg)
        xyz_camera = transform_points(view.camera_from_base, xyz_base)
        # Half the points lie behind a camera; dropping them early halves the projection.
        ahead = np.flatnonzero((xyz_camera[:, 2] > 0) & (colours[:, 3] == 0))
        uv, inside = camera.project(xyz_camera[ahead])
        pixel = np.floor(uv[inside] + 0.5).astype(np.int64)
        column = pixel[:, 0].clip(0, camera.width - 1)
        row = pixel[:, 1].clip(0, camera.height - 1)
        lit = ahead[inside]
        colours[lit, :3] = image[row, column] / np.float32(255)
        colours[lit, 3] = 1
    return colours


def _device(name: str) -> torch.device:
    if name == 'auto':
        return torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        device = torch.device(name)
    except RuntimeError as error:
        msg = f'device is {name!r}, expected auto, cpu, cuda or cuda:N'
        raise ValueError(msg) from error
    gpus = torch.cuda.device_count()
    if device.type != 'cpu' and (device.type != 'cuda' or (device.index or 0) >= gpus):
        msg = f'device {name!r} is not on this machine, which has {gpus} CUDA GPUs: use auto or cpu'
        raise ValueError(msg)
    return device


def keep_freed_memory() -> None:
    """Have this process keep what it frees; see `Pipeline`. For good, and only under glibc."""
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    if mallopt is not None:
        for parameter, value in MALLOC_TUNING.items():
            mallopt(parameter, value)


def _warm_up_frame(range_m: float) -> SensorFrame:
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
        stamp_ns=0,
        frame_id='base',
        height=1,
        width=WARM_UP_POINTS,
        xyz=xyz,
        intensity=np.zeros(WARM_UP_POINTS, np.float32),
        ring=None,
        time_offset_ns=None,
        index=np.arange(WARM_UP_POINTS),
    )
    return SensorFrame(0, sweep, xyz, np.eye(4), None, (view,))
