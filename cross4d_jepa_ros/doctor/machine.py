# SPDX-License-Identifier: Apache-2.0
"""Whether the GPU, the DDS and the model of this machine are what the node needs."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import torch

from cross4d_jepa_ros.compute import choose
from cross4d_jepa_ros.health import Finding, Level
from cross4d_jepa_ros.model.checkpoint import BadCheckpoint, read_contract
from cross4d_jepa_ros.ros.transport import PROFILE, missing_profile, profile_variable
from cross4d_jepa_ros.shared_files import shared_file

NVIDIA_DRIVER = Path('/proc/driver/nvidia/version')


def machine(environment: Mapping[str, str]) -> list[Finding]:
    """Judge the GPU and the middleware.

    Args:
        environment: Of the shell, as it was before this process changed its own.

    """
    return [gpu(), _middleware(environment)]


def gpu(driver: Path = NVIDIA_DRIVER) -> Finding:
    """Judge the GPU, and whether torch is built for it.

    Args:
        driver: What the kernel module of NVIDIA puts there.

    """
    compute = choose('auto', 'auto')
    if compute.device.type == 'cpu':
        cores = len(os.sched_getaffinity(0))
        on_cpu = f'the node runs on the CPU ({cores} cores) in fp32, take a nano model'
        built = f'torch {torch.__version__}'
        if not driver.exists():
            return Finding(Level.OK, 'GPU', f'none: {on_cpu}')
        if torch.version.cuda is None:
            text = (
                f'there is one, but {built} is built without CUDA: {on_cpu}; install the build '
                f'for it: {sys.executable} -m pip install --force-reinstall torch (its default '
                'on Linux)'
            )
            return Finding(Level.WARN, 'GPU', text)
        text = (
            f'there is one, but {built} (CUDA {torch.version.cuda}) cannot use it: {on_cpu}; look '
            'at nvidia-smi, CUDA_VISIBLE_DEVICES and the version of the driver'
        )
        return Finding(Level.WARN, 'GPU', text)
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
        problem = problem.replace(f'<share>/{PROFILE}', str(shared_file(PROFILE)))
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
