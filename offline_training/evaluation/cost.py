# SPDX-License-Identifier: Apache-2.0
"""What the sweeps of an evaluation cost."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from cross4d_jepa_ros.machine_load import OthersShare, own_pids
from cross4d_jepa_ros.pipeline import Perception, Pipeline


class Cost:
    """Times of the pipeline's stages, sweep by sweep."""

    def __init__(self) -> None:
        """Start the clock."""
        self._others = OthersShare(own_pids())
        self._started = time.perf_counter()
        self._stages: list[list[float]] = []

    def add(self, perception: Perception) -> None:
        """Note the times of one answer."""
        self._stages.append([perception.stage_ms[stage] for stage in Pipeline.STAGES])

    def report(self, pipeline: Pipeline) -> dict[str, Any]:
        """Lay the times out, ms: of each stage and their sum; reading the sweeps counts in none.

        Args:
            pipeline: That answered.

        """
        seconds = time.perf_counter() - self._started
        times = np.array(self._stages).reshape(-1, len(Pipeline.STAGES))  # (S, stages)
        columns = dict(zip(Pipeline.STAGES, times.T, strict=True)) | {'all': times.sum(axis=1)}
        others = self._others.share()
        return {
            'stage_ms': {name: _percentiles(column) for name, column in columns.items()},
            'sweeps_per_second': round(len(times) / seconds, 2),
            'others_cpu_share': None if others is None else round(others, 3),
            'device': str(pipeline.device),
            'precision': pipeline.precision,
            'threads': torch.get_num_threads(),
        }


def _percentiles(times_ms: Any) -> dict[str, float | None]:
    if not len(times_ms):
        return {'p50': None, 'p95': None}
    p50, p95 = np.percentile(times_ms, (50, 95))
    return {'p50': round(float(p50), 3), 'p95': round(float(p95), 3)}
