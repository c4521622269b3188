# SPDX-License-Identifier: Apache-2.0
"""A drive through a world of points, for the tests of the memory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from cross4d_jepa_ros.model.config import ModelConfig
from cross4d_jepa_ros.model.live_memory import LiveMemory
from cross4d_jepa_ros.model.network import Network, SweepInput
from cross4d_jepa_ros.model.temporal_memory import Remembered
from cross4d_jepa_ros.sensing.poses import invert, transform_points

PERIOD_NS = 100_000_000
# Small enough to compute by hand.
SMALL = ModelConfig(
    size='test',
    tokenizer='voxel',
    voxel_m=1.0,
    range_m=20.0,
    max_points=10000,
    max_tokens=2000,
    patch_points=0,
    width=12,
    blocks=3,
    heads=2,
    window=8,
    point_width=6,
    colour=True,
    sweeps=1,
    sweep_stride=1,
    neighbours=0,
    neighbour_radius_m=0.0,
    latents=0,
    temporal_blocks=0,
)


def remembering(config: ModelConfig, sweeps: int, **changes: object) -> ModelConfig:
    """Give a configuration of single sweeps a memory."""
    memory = {
        'sweeps': sweeps,
        'neighbours': 4,
        'neighbour_radius_m': 1.2,
        'latents': 2,
        'temporal_blocks': 2,
    }
    return replace(config, **(memory | changes))  # type: ignore[arg-type]


def network_of(config: ModelConfig, seed: int = 1) -> Network:
    """Draw all weights, those too that training would find at 0."""
    network = Network(config, 3)
    generator = torch.Generator().manual_seed(seed)
    network.initialise(generator)
    assert network.temporal is not None
    with torch.no_grad():
        for parameter in network.temporal.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.3, generator=generator)
    return network.eval()


def pose_at(step: int, shift_m: float = 0.0) -> NDArray[np.float64]:
    """Drive on a bend, 0.9 m a step, up and down a little."""
    yaw, pitch = 0.04 * step, 0.02 * np.sin(step)
    turn = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    nod = np.array(
        [[np.cos(pitch), 0, np.sin(pitch)], [0, 1, 0], [-np.sin(pitch), 0, np.cos(pitch)]]
    )
    pose = np.eye(4)
    pose[:3, :3] = turn @ nod
    pose[:3, 3] = 22.5 * np.sin(yaw) + shift_m, 22.5 * (1 - np.cos(yaw)) - shift_m, 0.1 * step
    return pose


def seen_from(pose: NDArray[np.float64], seed: int, points: int = 600) -> torch.Tensor:
    """Look at points that stand still in the fixed frame: (points, 3) m, base frame."""
    world = np.random.default_rng(0).uniform((-15, -15, -1), (35, 35, 6), (9000, 3))
    near = world - (pose[:3, 3] if abs(pose[0, 3]) < 1e4 else 0)
    order = np.square(near).sum(1).argsort()[: 2 * points]
    chosen = np.random.default_rng(seed).choice(order, points, replace=False)
    return torch.from_numpy(
        transform_points(invert(pose), world[np.sort(chosen)].astype(np.float32))
    )


def sweep_at(
    network: Network,
    step: int,
    *,
    shift_m: float = 0.0,
    posed: bool = True,
    seed: int | None = None,
) -> SweepInput:
    """Make the input of one step; another shift moves the fixed frame, not the sweep."""
    xyz = seen_from(pose_at(step), step if seed is None else seed)
    patches = network.tokenizer.group(xyz)
    draw = torch.Generator().manual_seed(step)
    return SweepInput(
        patches,
        torch.rand(len(patches.xyz), generator=draw),
        torch.rand(len(patches.xyz), 4, generator=draw) if network.config.colour else None,
        step * PERIOD_NS,
        pose_at(step, shift_m) if posed else None,
    )


def stepped(
    network: Network, memory: LiveMemory, sweep: SweepInput
) -> tuple[torch.Tensor, torch.Tensor]:
    """Answer one sweep of a stream as the pipeline does: (M, D) tokens, (L, C) embeddings."""
    memory.follow(sweep.stamp_ns, 'lidar', sweep.fixed_from_base)
    token, point = network.tokenise(sweep)
    token, newest = network.recall(network.encode(token, sweep.patches), sweep, memory.read())
    assert isinstance(newest, Remembered)
    memory.add(newest)
    return token, network.decode(token, point, sweep.patches)
