# SPDX-License-Identifier: Apache-2.0
"""Runs that somebody interrupts."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest


def interrupt_call(
    monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str, number: int
) -> list[tuple[Any, ...]]:
    """Have Ctrl+C pressed when a function is called for the `number`-th time.

    Returns:
        Arguments of every call, that one and later ones included.

    """
    original = getattr(module, name)
    calls: list[tuple[Any, ...]] = []

    def interrupting(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == number:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(module, name, interrupting)
    return calls
