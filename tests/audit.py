# SPDX-License-Identifier: Apache-2.0
"""Asks PyPI's list of known vulnerabilities about every pinned version: `make audit`.

Exit codes: 0 none is known, 1 some are, 2 not every version could be looked up.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any


def verdict(report: dict[str, Any]) -> tuple[int, list[str]]:
    """Read pip-audit's report.

    Returns:
        The exit code, and what to say.

    """
    asked: list[dict[str, Any]] = report['dependencies']
    known = [
        f'{one["name"]} {one["version"]}: {found["id"]}, fixed in '
        + (', '.join(found['fix_versions']) or 'no version yet')
        for one in asked
        for found in one.get('vulns', ())
    ]
    skipped = sorted(one['name'] for one in asked if 'skip_reason' in one)
    lines = [*known, f'{len(asked) - len(skipped)} of {len(asked)} versions were looked up']
    if skipped:
        lines.append('not looked up, so nothing is known of them: ' + ', '.join(skipped))
    if not asked or len(skipped) == len(asked):
        lines.append('NOT AUDITED: the list of vulnerabilities cannot be reached from here')
    return (1 if known else 2 if skipped or not asked else 0), lines


def main(words: list[str]) -> int:
    """Audit the files of constraints that are named."""
    command = [sys.executable, '-m', 'pip_audit', '--no-deps', '--disable-pip', '--format', 'json']
    for path in words:
        command += ['--requirement', path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        code, lines = verdict(json.loads(done.stdout))
    except (ValueError, KeyError):
        code, lines = 2, [done.stderr.strip(), 'NOT AUDITED: pip-audit gave no report']
    print('\n'.join(lines))
    return code


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
