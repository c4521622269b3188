# SPDX-License-Identifier: Apache-2.0
"""How a verdict is written: in columns, so that it reads well in 80 of them without colour."""

from __future__ import annotations

import textwrap

INDENT = 8


def wrapped(verdict: str, about: str, sentence: str, width: int) -> str:
    """Write one verdict; what does not fit stands below, indented.

    Args:
        verdict: ok, warning or error.
        about: What it is on.
        sentence: Without a line break.
        width: Of the terminal, characters.

    """
    return textwrap.fill(
        f'{verdict:<{INDENT}}{about}: {sentence}',
        max(width, 2 * INDENT),
        subsequent_indent=' ' * INDENT,
        break_long_words=False,
        break_on_hyphens=False,
    )
