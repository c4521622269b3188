# SPDX-License-Identifier: Apache-2.0
"""Warnings are failures here: those of what other tests have left to be collected come before."""

from __future__ import annotations

import gc
import warnings

import pytest


@pytest.fixture(autouse=True, scope='module')
def garbage_of_others() -> None:
    """Collect it while nobody minds."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        gc.collect()
