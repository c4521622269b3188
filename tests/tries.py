# SPDX-License-Identifier: Apache-2.0
"""How often tests with made-up input try: `make attack` sets CROSS4D_TRIES to try more."""

from __future__ import annotations

import os
from collections import Counter

# Malformed messages that this process has tried, by kind; each test asserts its own share.
TRIED: Counter[str] = Counter()


def tries(usual: int) -> int:
    """Scale a number of examples, of messages or of damaged files by CROSS4D_TRIES."""
    return max(1, round(usual * float(os.environ.get('CROSS4D_TRIES', '1'))))
