# SPDX-License-Identifier: Apache-2.0
"""Modules of this repository, run as processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def run_module(
    module: str, *words: str, timeout_s: float, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run `python -m module words` to its end, whatever that is.

    Args:
        module: This repository's, also where another is installed.
        words: Its arguments.
        timeout_s: Longest wait.
        variables: Of its environment, beside those of this process.

    """
    path = os.pathsep.join((str(ROOT), os.environ.get('PYTHONPATH', '')))
    return subprocess.run(
        [sys.executable, '-m', module, *words],
        cwd=ROOT,
        env={**os.environ, 'PYTHONPATH': path, **variables},
        text=True,
        capture_output=True,
        timeout=timeout_s,
        check=False,
    )
