# SPDX-License-Identifier: Apache-2.0
"""Finds the files that install to `share/`: from a checkout, a colcon workspace or a plain venv."""

from __future__ import annotations

import os
import sys
from pathlib import Path

PACKAGE = 'cross4d_jepa_ros'
DEMO_CHECKPOINT = 'config/demo.safetensors'


def shared_file(relative: str) -> Path:
    """Locate a shipped file such as `config/demo.safetensors`.

    Args:
        relative: Path below the package's share folder (the checkout has the same layout).

    Raises:
        FileNotFoundError: It is nowhere; names every place that was tried.

    """
    checkout = Path(__file__).resolve().parents[1]
    roots = [checkout] if (checkout / 'package.xml').is_file() else []
    for prefix in (*os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep), sys.prefix):
        if prefix:
            roots.append(Path(prefix) / 'share' / PACKAGE)
    for root in roots:
        if (root / relative).is_file():
            return root / relative
    tried = ', '.join(str(root / relative) for root in roots)
    msg = f'{relative} was not installed with {PACKAGE}; tried {tried}'
    raise FileNotFoundError(msg)
