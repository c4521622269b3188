# SPDX-License-Identifier: Apache-2.0
"""Whether this interpreter, its packages, its GPU and its DDS are what the node needs."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import torch

from cross4d_jepa_ros.compute import choose
from cross4d_jepa_ros.health import Finding, Level
from cross4d_jepa_ros.model.checkpoint import BadCheckpoint, read_contract
from cross4d_jepa_ros.ros.transport import missing_profile, profile_variable
from cross4d_jepa_ros.shared_files import PACKAGE

OLDEST_PYTHON = (3, 11)


def machine(environment: Mapping[str, str]) -> list[Finding]:
    """Judge the interpreter, the packages, the GPU and the middleware.

    Args:
        environment: Of the shell, as it was before this process changed its own.

    """
    return [_interpreter(), _packages(), _gpu(), _middleware(environment)]


def _interpreter() -> Finding:
    seen = f'Python {platform.python_version()} at {sys.executable}'
    if sys.version_info[:2] < OLDEST_PYTHON:
        oldest = '.'.join(map(str, OLDEST_PYTHON))
        return Finding(Level.ERROR, 'interpreter', f'{seen}: {oldest} or newer is needed')
    return Finding(Level.OK, 'interpreter', seen)


def _packages() -> Finding:
    """Compare what is installed with what the package asks for (its extras left out)."""
    try:
        wanted = importlib.metadata.requires(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        wanted = []
    names = [re.split(r'[^\w.-]', line, maxsplit=1)[0] for line in wanted if 'extra' not in line]
    names = names or ['mcap', 'matplotlib', 'numpy', 'rosbags', 'safetensors', 'torch']
    found, missing = [], []
    for name in (*names, 'rclpy'):
        try:
            found.append(f'{name} {importlib.metadata.version(name)}')
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    # From apt, OpenCV goes by another name.
    missing = [name for name in missing if not (name.startswith('opencv') and _has_opencv())]
    if missing:
        sentence = f'{", ".join(missing)} cannot be found: install with pip, or source the ROS'
        return Finding(Level.ERROR, 'packages', f'{sentence} ({", ".join(found)})')
    return Finding(Level.OK, 'packages', ', '.join(found))


def _has_opencv() -> bool:
    return importlib.util.find_spec('cv2') is not None


def _gpu() -> Finding:
    compute = choose('auto', 'auto')
    if compute.device.type == 'cpu':
        cores = len(os.sched_getaffinity(0))
        sentence = f'none: the node runs on the CPU ({cores} cores) in fp32, take a nano model'
        return Finding(Level.OK, 'GPU', sentence)
    properties = torch.cuda.get_device_properties(compute.device)
    memory = properties.total_memory / 2**30
    return Finding(Level.OK, 'GPU', f'{properties.name}, {memory:.0f} GiB, {compute.precision}')


def _middleware(environment: Mapping[str, str]) -> Finding:
    try:
        from rclpy.utilities import get_rmw_implementation_identifier

        rmw = get_rmw_implementation_identifier()
    except ImportError as error:
        return Finding(Level.ERROR, 'DDS', f'rclpy cannot be imported ({error}): source the ROS')
    domain = environment.get('ROS_DOMAIN_ID', '0')
    problem = missing_profile(rmw, environment)
    if problem:
        text = f'{rmw}, domain {domain}: {problem}; the launch files do so for the node'
        return Finding(Level.WARN, 'DDS', text)
    profile = f', profile {environment[profile_variable()]}' if 'fastrtps' in rmw else ''
    return Finding(Level.OK, 'DDS', f'{rmw}, domain {domain}{profile}')


def model_file(path: Path) -> Finding:
    """Read a checkpoint and say what it is."""
    try:
        contract = read_contract(path)
    except (BadCheckpoint, OSError) as error:
        return Finding(Level.ERROR, 'model', f'{error}')
    size, sweeps = contract.model.size, contract.model.sweeps
    names = ', '.join(contract.class_names) or 'no classes: embeddings only'
    text = f'{path}: {size}, T = {sweeps}, {contract.training["kind"]}; {names}'
    return Finding(Level.OK, 'model', text)
