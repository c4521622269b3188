# SPDX-License-Identifier: Apache-2.0
"""Times what the node does with a sweep, message objects in to message objects out, without DDS."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cross4d_jepa_ros.bench.sweeps import Drive
from cross4d_jepa_ros.machine_load import OthersShare, own_pids
from cross4d_jepa_ros.model.checkpoint import Contract, load_checkpoint, save_checkpoint
from cross4d_jepa_ros.model.config import ModelConfig, load_model_config
from cross4d_jepa_ros.model.network import Network
from cross4d_jepa_ros.model.tokenizer import input_features
from cross4d_jepa_ros.pipeline import Pipeline
from cross4d_jepa_ros.ros.messages import answer_clouds
from cross4d_jepa_ros.ros.outputs import wanted
from cross4d_jepa_ros.sensing.frames import GROUND_SWEEPS
from cross4d_jepa_ros.shared_files import shared_file

STAGES = ('message_decode', *Pipeline.STAGES, 'message_build', 'total')
OUTPUTS = frozenset(('segmentation', 'embeddings', 'frame_embedding'))
# The first answers of a full window still fill caches and heaps.
# Until the heap has found its size, memory is faulted in page by page.
UNCOUNTED, UNCOUNTED_S = 24, 3.0
SIDE = 2048


class Reference:
    """The yardstick: one product of two 2048 x 2048 matrices in fp32, where the network runs."""

    def __init__(self, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        draw = torch.Generator().manual_seed(0)
        self._left, self._right = (  # (S, S) each
            torch.randn(SIDE, SIDE, generator=draw).to(device, dtype) for _ in range(2)
        )
        self._product = torch.empty_like(self._left)  # (S, S)
        self.ms: list[float] = []
        self.time()
        self.ms.clear()

    def time(self) -> None:
        """Multiply once and keep how long it took in `ms`."""
        synchronise(self._left.device)
        start = time.perf_counter()
        torch.mm(self._left, self._right, out=self._product)
        synchronise(self._left.device)
        self.ms.append((time.perf_counter() - start) * 1e3)


def synchronise(device: torch.device) -> None:
    """Wait until a device has done what it was given; a CPU always has."""
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


@dataclass(frozen=True)
class Budget:
    """How often a sweep is answered: for so long, within these bounds."""

    seconds: float = 10.0
    least: int = 5
    most: int = 150


@dataclass
class Samples:
    """Durations of one setting.

    Attributes:
        ms: Of each of STAGES, one for each repetition.
        tokens: Of each answer.
        reference_ms: Of the products timed in between.
        others_cpu_share: Of other processes meanwhile; None where unknown.

    """

    ms: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    tokens: list[int] = field(default_factory=list)
    reference_ms: list[float] = field(default_factory=list)
    others_cpu_share: float | None = None

    @property
    def repetitions(self) -> int:
        """Sweeps that were timed."""
        return len(self.tokens)


def measure(
    pipeline: Pipeline,
    drive: Drive,
    budget: Budget,
    reference: Reference,
    on_progress: Callable[[float, float], None],
) -> Samples:
    """Answer sweep after sweep; those count whose window was full.

    Args:
        pipeline: Loaded, with nothing in its memory.
        drive: The sweeps.
        budget: When to stop.
        reference: Timed after each sweep that counts.
        on_progress: Told the share that is done, 0 .. 1, and sweeps per second.

    """
    samples = Samples()
    _settle_ground(drive)
    load = OthersShare(own_pids())
    began, uncounted, opened = 0.0, UNCOUNTED, time.perf_counter()
    for points, images, first in drive.stream():
        if first:
            pipeline.reset()
        started = time.perf_counter()
        frame = drive.assembler.assemble(points, images, views=pipeline.contract.colour)
        decoded = time.perf_counter()
        perception = pipeline.step(frame, wanted(OUTPUTS))
        stepped = time.perf_counter()
        answer_clouds(OUTPUTS, points, perception, pipeline.contract.answer_palette)
        built = time.perf_counter()
        if perception.window_length < pipeline.sweeps:
            continue
        if uncounted:
            began = built
            uncounted = uncounted - 1 if built - opened < UNCOUNTED_S else 0
            load = OthersShare(own_pids())
            continue
        ms = {
            'message_decode': (decoded - started) * 1e3,
            **perception.stage_ms,
            'message_build': (built - stepped) * 1e3,
            'total': (built - started) * 1e3,
        }
        for stage in STAGES:
            samples.ms[stage].append(ms[stage])
        samples.tokens.append(perception.token_count)
        reference.time()
        samples.reference_ms.append(reference.ms[-1])
        spent, done = time.perf_counter() - began, samples.repetitions
        enough = done / budget.least, max(spent / budget.seconds, done / budget.most)
        on_progress(min(1.0, *enough), done / spent)
        if min(enough) >= 1:
            break
    samples.others_cpu_share = load.share()
    return samples


def _settle_ground(drive: Drive) -> None:
    """Let the assembler find the ground, which it looks for in its first sweeps only."""
    stream = drive.stream()
    for _ in range(GROUND_SWEEPS):
        points, images, _ = next(stream)
        drive.assembler.assemble(points, images, views=False)


def with_window(model: ModelConfig, sweeps: int) -> ModelConfig:
    """Return the same network with another number of sweeps.

    Raises:
        BadConfig: Its size has no file that says what its memory is like.

    """
    if sweeps == 1:
        none = {'neighbours': 0, 'neighbour_radius_m': 0.0, 'latents': 0, 'temporal_blocks': 0}
        return replace(model, sweeps=1, sweep_stride=1, **none)  # type: ignore[arg-type]
    if model.sweeps > 1:
        return replace(model, sweeps=sweeps)
    known = model_of_size(model.size)
    return replace(
        model,
        sweeps=sweeps,
        sweep_stride=known.sweep_stride,
        neighbours=known.neighbours,
        neighbour_radius_m=known.neighbour_radius_m,
        latents=known.latents,
        temporal_blocks=known.temporal_blocks,
    )


def model_of_size(size: str) -> ModelConfig:
    """Read the sizes that ship under this name.

    Raises:
        BadConfig: The file is refused.
        FileNotFoundError: There is none.

    """
    return load_model_config(shared_file(f'config/models/{size}.yaml'))


def write_checkpoint(path: Path, model: ModelConfig, shipped: Path) -> None:
    """Write a network that is only good for timing.

    Args:
        path: Checkpoint to write.
        model: Its sizes.
        shipped: Checkpoint whose classes it takes over, and its weights where shapes agree.

    Raises:
        BadCheckpoint: `shipped` is refused.
        OSError: The disk refuses.

    """
    loaded = load_checkpoint(shipped)
    contract = Contract(
        model=model,
        features=input_features(model),
        base_height_m=loaded.contract.base_height_m,
        class_names=loaded.contract.class_names,
        palette=loaded.contract.palette,
        training={'kind': 'untrained', 'data': 'none: for timing'},
        teacher=loaded.contract.teacher,
        segmentation=loaded.contract.segmentation,
    )
    classes = len(contract.class_names)
    network = Network(model, classes, contract.teacher, contract.segmentation)
    network.initialise(torch.Generator().manual_seed(0))
    own = network.state_dict()
    shared = {
        name: value
        for name, value in loaded.network.state_dict().items()
        if name in own and own[name].shape == value.shape
    }
    network.load_state_dict({**own, **shared})
    save_checkpoint(path, contract, network)


def machine(device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Measure what a device multiplies and moves, for comparison.

    Returns:
        `product_ms` of the reference's size in `dtype`; `copy_gb_s` and `gather_gb_s`, bytes read
        and written in a second, in order and by rows of 128 bytes from all over 16 MB, the size
        of the points of a sweep.

    """
    product = Reference(device, dtype)
    rows = torch.randn(131072, 32, device=device)  # (N, C)
    order = torch.randperm(len(rows), device=device)  # (N,)
    target = torch.empty_like(rows)  # (N, C)
    moves: dict[str, Callable[[], Any]] = {
        'copy_gb_s': lambda: target.copy_(rows),
        'gather_gb_s': lambda: torch.index_select(rows, 0, order, out=target),
    }
    seconds: dict[str, list[float]] = defaultdict(list)
    for _ in range(10):
        product.time()
        for name, move in moves.items():
            synchronise(device)
            start = time.perf_counter()
            move()
            synchronise(device)
            seconds[name].append(time.perf_counter() - start)
    rates = {
        name: round(2 * rows.nbytes / 1e9 / float(np.median(taken)), 2)
        for name, taken in seconds.items()
    }
    return {
        'threads': torch.get_num_threads(),
        'product_ms': round(float(np.median(product.ms)), 3),
        **rates,
    }
