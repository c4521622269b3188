# SPDX-License-Identifier: Apache-2.0
"""Where the network runs and how finely it reckons: device, precision, copies and clocks."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cross4d_jepa_ros import heap

PRECISIONS = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}
GPU_BF16_CAPABILITY = (8, 0)
OUT_OF_MEMORY_SIGNS = ("can't allocate memory", 'out of memory', 'bad_alloc', 'ALLOC_FAILED')


class Stopwatch:
    """Wall time of each of several consecutive stages, from when it is made."""

    def __init__(self) -> None:
        self._marks = [('', time.perf_counter())]

    def lap(self, stage: str) -> None:
        """End a stage here; the next one begins."""
        self._marks.append((stage, time.perf_counter()))

    def read_ms(self) -> dict[str, float]:
        """Return the duration of each stage."""
        return {stage: (end - start) * 1e3 for (_, start), (stage, end) in pairwise(self._marks)}


class GpuStopwatch:
    """A `Stopwatch` that does not hold the GPU up: it marks when the GPU gets there."""

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self._stream = stream
        self._marks: list[tuple[str, torch.cuda.Event]] = []
        self.lap('')

    def lap(self, stage: str) -> None:
        """End a stage after all that the GPU has been told to do so far."""
        mark = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        mark.record(self._stream)
        self._marks.append((stage, mark))

    def read_ms(self) -> dict[str, float]:
        """Return the duration of each stage; waits for the last one to end."""
        self._marks[-1][1].synchronize()
        return {
            stage: start.elapsed_time(end) for (_, start), (stage, end) in pairwise(self._marks)
        }


class Compute:
    """A device and a precision; this one is the CPU, where nothing is fetched or waited for.

    Attributes:
        device: Where the network and its inputs are.
        dtype: Of its weights and features; positions have at least float32 throughout.

    """

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device = device
        self.dtype = dtype

    @property
    def precision(self) -> str:
        """Name of the precision: fp32, bf16 or fp16."""
        return next(name for name, dtype in PRECISIONS.items() if dtype == self.dtype)

    def upload(self, array: NDArray[np.float32]) -> torch.Tensor:
        """Copy an array, which may be read-only, to the device as float32."""
        return torch.tensor(array, dtype=torch.float32)

    def download(self, *tensors: torch.Tensor) -> list[NDArray[Any]]:
        """Bring tensors to the host, all at once."""
        return [tensor.numpy() for tensor in tensors]

    def stopwatch(self) -> Stopwatch | GpuStopwatch:
        """Start to take the times of stages."""
        return Stopwatch()

    def free(self) -> None:
        """Give back memory that is kept for later steps."""
        give_back_memory()


class GpuCompute(Compute):
    """A GPU: copies go through pinned memory in stream order, and only a download waits.

    PyTorch keeps the pinned memory for later sweeps and lends it out again only when the copies
    from it have ended.
    """

    def upload(self, array: NDArray[np.float32]) -> torch.Tensor:
        """Copy an array, which may be read-only, to the device as float32."""
        staged = torch.empty(array.shape, dtype=torch.float32, pin_memory=True)
        staged.numpy()[...] = array
        return staged.to(self.device, non_blocking=True)

    def download(self, *tensors: torch.Tensor) -> list[NDArray[Any]]:
        """Bring tensors to the host, all at once, and wait for them."""
        staged = [
            torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(
                tensor, non_blocking=True
            )
            for tensor in tensors
        ]
        arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
        arrived.record(torch.cuda.current_stream(self.device))
        arrived.synchronize()
        return [tensor.numpy() for tensor in staged]

    def stopwatch(self) -> Stopwatch | GpuStopwatch:
        """Start to take the times of stages."""
        return GpuStopwatch(torch.cuda.current_stream(self.device))

    def free(self) -> None:
        """Give back memory that is kept for later steps."""
        give_back_memory()


def give_back_memory() -> None:
    """Return to GPU and host what this process has freed and kept.

    Where a model was loaded, used and freed again and again, the holes that it left in the heap
    would otherwise add up (glibc returns only its end).
    """
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    heap.trim()


def choose(device: str, precision: str) -> Compute:
    """Settle where and how finely to compute.

    Args:
        device: `auto` (a GPU where there is one), `cpu`, `cuda` or `cuda:N`.
        precision: `auto` (bf16 on a GPU that multiplies it, else fp16 on a GPU and fp32 on a CPU),
            `fp32`, `bf16` or `fp16`.

    Raises:
        ValueError: There is no such device here, or it has no such precision.

    """
    place = _device(device)
    gpu = place.type == 'cuda'
    if precision == 'auto':
        if gpu:
            capability = torch.cuda.get_device_capability(place)
            precision = 'bf16' if capability >= GPU_BF16_CAPABILITY else 'fp16'
        else:
            # In bf16 a CPU has to make a kernel for every new number of points or tokens. No two
            # sweeps agree in these, so that even one with instructions for it is slower.
            precision = 'fp32'
    if precision not in PRECISIONS:
        msg = f'precision is {precision!r}, expected auto, {", ".join(PRECISIONS)}'
        raise ValueError(msg)
    if precision == 'fp16' and not gpu:
        msg = 'precision fp16 needs a GPU: on a CPU use auto, bf16 or fp32'
        raise ValueError(msg)
    return (GpuCompute if gpu else Compute)(place, PRECISIONS[precision])


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, be it a GPU's or the host's."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(
        sign in str(error) for sign in OUT_OF_MEMORY_SIGNS
    )


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
