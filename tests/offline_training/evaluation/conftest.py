# SPDX-License-Identifier: Apache-2.0
"""Recordings and a checkpoint that are evaluated in many ways."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.offline_training.evaluation.made_up import SWEEPS
from tests.tiny_street import write_tiny_street


@pytest.fixture(scope='session')
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Record four labelled sweeps with a camera."""
    path = tmp_path_factory.mktemp('recording') / 'drive'
    assert write_tiny_street(path, 1, SWEEPS / 10) == SWEEPS
    return path


@pytest.fixture(autouse=True)
def short_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """What times are measured by does not matter here."""
    monkeypatch.setattr('cross4d_jepa_ros.pipeline.WARM_UP_POINTS', 1000)
