# SPDX-License-Identifier: Apache-2.0
"""Devices and precisions as they are chosen, and errors that mean want of memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cross4d_jepa_ros import compute
from cross4d_jepa_ros.compute import Compute, GpuStopwatch, Stopwatch, choose, is_out_of_memory


def test_a_cpu_reckons_in_fp32_unless_told_otherwise() -> None:
    assert choose('cpu', 'auto').precision == 'fp32'
    assert choose('cpu', 'bf16').dtype == torch.bfloat16


@pytest.mark.parametrize(('capability', 'precision'), [((9, 0), 'bf16'), ((7, 5), 'fp16')])
def test_auto_is_what_a_gpu_is_fastest_at(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], precision: str
) -> None:
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 1)
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device: capability)
    chosen = choose('auto', 'auto')
    assert (chosen.device.type, chosen.precision) == ('cuda', precision)
    assert choose('cuda', 'fp16').precision == 'fp16'


@pytest.mark.parametrize(
    ('precision', 'words'),
    [('fp16', 'fp16 needs a GPU: on a CPU use auto'), ('int8', 'expected auto, fp32, bf16, fp16')],
)
def test_precisions_that_are_not_here_are_refused(precision: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        choose('cpu', precision)


def test_what_was_freed_and_kept_is_given_back() -> None:
    def resident_mb() -> float:
        return int(Path('/proc/self/statm').read_text().split()[1]) * 4096 / 1e6

    blocks = [bytearray(100_000) for _ in range(2000)]
    top = blocks[-1]
    del blocks
    before_mb = resident_mb()

    Compute(torch.device('cpu'), torch.float32).free()

    # What lies below the last block that is in use.
    assert resident_mb() < before_mb - 100
    assert len(top) == 100_000


def test_copies_outlive_their_source() -> None:
    array = np.ones((3, 2), np.float32)
    array.flags.writeable = False
    there = Compute(torch.device('cpu'), torch.float32).upload(array)
    there += 1
    (back,) = Compute(torch.device('cpu'), torch.float32).download(there)
    assert (array == 1).all()
    assert (back == 2).all()


def error_of_a_full_host() -> Exception:
    try:
        torch.empty(1 << 55)
    except RuntimeError as error:
        return error
    raise AssertionError


@pytest.mark.parametrize(
    ('error', 'expected'),
    [
        (torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2 GiB.'), True),
        (MemoryError('Unable to allocate 8 GiB for an array'), True),
        (error_of_a_full_host(), True),
        (RuntimeError('CUDA error: out of memory'), True),
        (RuntimeError('mat1 and mat2 shapes cannot be multiplied'), False),
        (ValueError("can't allocate memory"), False),
    ],
)
def test_want_of_memory_is_recognised(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_a_stopwatch_gives_each_stage_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter((1.0, 1.25, 3.25))
    monkeypatch.setattr(compute.time, 'perf_counter', lambda: next(now))
    watch = Stopwatch()
    watch.lap('a')
    watch.lap('b')
    assert watch.read_ms() == {'a': 250, 'b': 2000}


def test_on_a_gpu_only_the_reading_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter((10.0, 12.0, 17.0))
    waits: list[float] = []

    class Event:
        def __init__(self, *, enable_timing: bool) -> None:
            self.at = float('nan')

        def record(self, stream: object) -> None:
            self.at = next(clock)

        def synchronize(self) -> None:
            waits.append(self.at)

        def elapsed_time(self, end: Event) -> float:
            assert waits, 'read before the GPU got there'
            return end.at - self.at

    monkeypatch.setattr(torch.cuda, 'Event', Event)
    watch = GpuStopwatch(None)  # type: ignore[arg-type]
    watch.lap('a')
    watch.lap('b')
    assert not waits
    assert watch.read_ms() == {'a': 2, 'b': 5}
    assert waits == [17]
