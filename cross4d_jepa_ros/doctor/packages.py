# SPDX-License-Identifier: Apache-2.0
"""Whether this interpreter and its packages are what the node needs.

Imports nothing that could be missing: who lacks a package is to read which.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

PACKAGE = 'cross4d_jepa_ros'
OLDEST_PYTHON = (3, 11)
# What setup.py asks for, where nothing is installed to read it from; the name to import, too.
MODULES = {
    'mcap': 'mcap',
    'matplotlib': 'matplotlib',
    'numpy': 'numpy',
    'opencv-python-headless': 'cv2',
    'PyYAML': 'yaml',
    'rich': 'rich',
    'rosbags': 'rosbags',
    'safetensors': 'safetensors',
    'torch': 'torch',
    'zstandard': 'zstandard',
}
MESSAGES = (
    *('sensor_msgs', 'std_msgs', 'geometry_msgs', 'nav_msgs', 'diagnostic_msgs'),
    *('lifecycle_msgs', 'rcl_interfaces', 'rosgraph_msgs', 'std_srvs'),
)
CONSTRAINTS = Path(__file__).resolve().parents[2] / 'constraints'


def interpreter() -> tuple[str, str]:
    """Level (`ok` or `error`) and sentence on this Python."""
    seen = f'Python {platform.python_version()} at {sys.executable}'
    if sys.version_info[:2] < OLDEST_PYTHON:
        oldest = '.'.join(map(str, OLDEST_PYTHON))
        return 'error', f'{seen}: {oldest} or newer is needed'
    return 'ok', seen


def wanted() -> list[str]:
    """Names of the packages that the installed metadata asks for, those of extras left out."""
    try:
        lines = importlib.metadata.requires(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        lines = []
    names = [re.split(r'[^\w.-]', line, maxsplit=1)[0] for line in lines if 'extra' not in line]
    return names or list(MODULES)


def installed(name: str) -> str | None:
    """Version of a package; '' where it can be imported but has none, None without it."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        # From apt, OpenCV goes by another name.
        found = importlib.util.find_spec(MODULES.get(name, name))
        return None if found is None else ''


def pins(folder: Path = CONSTRAINTS) -> tuple[Path | None, dict[str, str]]:
    """Versions that the tests of this checkout run with.

    Returns:
        The file for this ROS line, and version by name; None and none outside of a checkout.

    """
    line = 'kilted' if (installed('rclpy') or '').split('.')[0] >= '9' else 'jazzy'
    file = folder / f'{line}.txt'
    if not file.is_file():
        return None, {}
    pairs = (text.split('==') for text in file.read_text().splitlines() if '==' in text)
    return file, {name.lower(): version.strip() for name, version in pairs}


def packages(
    names: list[str],
    version_of: Callable[[str], str | None],
    file: Path | None,
    pinned: Mapping[str, str],
) -> tuple[str, str]:
    """Compare what is installed with what is asked for.

    Args:
        names: What is asked for.
        version_of: As `installed`.
        file: Constraints; None for none.
        pinned: Tested version by name in lower case.

    Returns:
        `error` where something is missing, `warning` where something is older than what is tested,
        else `ok`; and the sentence, with the command that installs.

    """
    found, missing, old = [], [], []
    for name in names:
        version, tested = version_of(name), pinned.get(name.lower(), '')
        if version is None:
            missing.append(name)
            continue
        found.append(f'{name} {version}'.strip())
        if version and tested and _numbers(version) < _numbers(tested):
            old.append((name, version, tested))
    install = f'{sys.executable} -m pip install' + (f' -c {file}' if file else '')
    seen = ', '.join(found)
    if missing:
        return 'error', f'missing: {", ".join(missing)}; {install} {" ".join(missing)} ({seen})'
    if old:
        parts = [f'{name} {version} (tested: {tested})' for name, version, tested in old]
        names = [name for name, _, _ in old]
        text = (
            f'older than what is tested: {", ".join(parts)}; it may do, else: {install} '
            f'--upgrade {" ".join(names)} ({seen})'
        )
        return 'warning', text
    return 'ok', seen + (f'; none older than in {file.parent.name}/{file.name}' if file else '')


def ros(version_of: Callable[[str], str | None]) -> tuple[str, str]:
    """Level and sentence on rclpy and the message packages."""
    missing = [name for name in ('rclpy', *MESSAGES) if version_of(name) is None]
    if missing:
        text = (
            f'missing: {", ".join(missing)}; source the ROS (source /opt/ros/jazzy/setup.bash), or '
            'without one: make demo, which installs it into .venv'
        )
        return 'error', text
    said = f'rclpy {version_of("rclpy")} and its messages'
    if version_of('tf2_msgs') is None:
        said += (
            '; no tf2_msgs, so that the node hears no /tf here: it takes odometry and an '
            'extrinsics file in its place'
        )
    return 'ok', said


def _numbers(version: str) -> tuple[int, ...]:
    """The release of a version, such as (2, 13, 0) of 2.13.0+cpu."""
    release = re.match(r'\d+(?:\.\d+)*', version)
    return tuple(map(int, release[0].split('.'))) if release else ()
