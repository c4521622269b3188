# SPDX-License-Identifier: Apache-2.0
"""Says at the end how many malformed messages were tried."""

from __future__ import annotations

from typing import Any

from tests.malformed.verdicts import TRIED


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Add a line to the summary."""
    if TRIED:
        each = ', '.join(f'{kind} {count}' for kind, count in TRIED.items())
        terminalreporter.write_line(f'{TRIED.total()} malformed messages tried: {each}')
