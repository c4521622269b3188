# SPDX-License-Identifier: Apache-2.0
"""Windows of a drive through a world of points, with a camera that looks ahead."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from cross4d_jepa_ros.model.config import ModelConfig, Teacher, from_mapping
from cross4d_jepa_ros.model.network import Network
from offline_training.objectives.latent_view import in_view
from offline_training.objectives.settings import Objectives
from offline_training.objectives.window import Sighting, Window, WindowSweep
from tests.model.drives import PERIOD_NS, SMALL, pose_at, remembering, seen_from

PATCH_CHANNELS, VIEW_CHANNELS, COMPONENTS = 10, 9, 5
SINGLE = replace(SMALL, blocks=2, window=32, colour=False)
TEACHER = Teacher('test', '', 64, 16, PATCH_CHANNELS, COMPONENTS, 7)
OFF: dict[str, Any] = {
    'dense_correspondence': {
        'weight': 0,
        'teacher_input': 'rgb',
        'points_per_view': 100,
        'bilinear': True,
        'hidden': 7,
        'horizon': 0,
        'horizon_weight': 0,
    },
    'latent_view': {
        'weight': 0,
        'direction': 'points_to_image',
        'histogram': False,
        'loss': 'smooth_l1',
    },
    'masked_latent': {
        'weight': 0,
        'mode': 'visible',
        'predictor': 'context_aware',
        'blocks': 4,
        'ratio': 0.6,
        'target_tokens': 'all',
        'loss': 'cosine',
        'variance_weight': 0,
        'points_kept': (1.0, 1.0),
    },
    'predictor': {'width': 8, 'depth': 2, 'heads': 2},
    'ema': {'start': 0.9, 'end': 1.0},
}


def objectives_of(**changed: dict[str, object]) -> Objectives:
    """Read settings as from YAML: all off but what is changed."""
    return from_mapping(Objectives, {k: v | changed.get(k, {}) for k, v in OFF.items()})


def model_of(tokenizer: str, sweeps: int, **changed: object) -> ModelConfig:
    """Give a small configuration; with a memory where there is more than one sweep."""
    model = SINGLE if sweeps == 1 else remembering(SINGLE, sweeps)
    if tokenizer == 'fps_knn':
        model = replace(model, tokenizer=tokenizer, max_tokens=40, patch_points=8)
    return replace(model, **changed)  # type: ignore[arg-type]


def network_of(model: ModelConfig, seed: int = 1) -> Network:
    """Draw all weights, those too that training would find at 0."""
    network = Network(model, 0, TEACHER)
    generator = torch.Generator().manual_seed(seed)
    network.initialise(generator)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.startswith('temporal') and not parameter.any():
                parameter.normal_(0, 0.3, generator=generator)
    return network


def sighting_of(xyz: torch.Tensor, seed: int) -> Sighting:
    """See what lies ahead; features are drawn."""
    draw = torch.Generator().manual_seed(seed)
    ahead = torch.tensor([[0.0, -1, 0, 0], [0, 0, -1, 1], [1, 0, 0, 0], [0, 0, 0, 1]])
    empty = torch.zeros(0, dtype=torch.int64)
    camera = (torch.tensor([0.6, 0.9, 0.5, 0.5]), ahead, 0.02)
    nothing = torch.zeros(0)
    blind = Sighting(empty, nothing, nothing, nothing, nothing, None, *camera)
    point = in_view(xyz, blind).nonzero().squeeze(1)
    return replace(
        blind,
        point=point,
        target=torch.randn(len(point), COMPONENTS, generator=draw),
        weight=torch.rand(len(point), generator=draw) * 0.9 + 0.1,
        view=torch.randn(VIEW_CHANNELS, generator=draw),
        histogram=torch.rand(48, generator=draw),
        patch_map=torch.randn(2, 3, PATCH_CHANNELS, generator=draw),
    )


def sweep_of(step: int, *, posed: bool = True, views: int = 1, points: int = 600) -> WindowSweep:
    """Look around at one step of the drive."""
    xyz = seen_from(pose_at(step), step, points)
    draw = torch.Generator().manual_seed(step)
    return WindowSweep(
        stamp_ns=step * PERIOD_NS,
        xyz=xyz,
        intensity=torch.rand(len(xyz), generator=draw),
        fixed_from_base=pose_at(step) if posed else None,
        sightings=tuple(sighting_of(xyz, 10 * step + number) for number in range(views)),
    )


def window_of(sweeps: int, *, future: bool = False, seed: int = 3, **changed: Any) -> Window:
    """Take the first steps of the drive."""
    steps = tuple(sweep_of(step, **changed) for step in range(sweeps))
    return Window(steps, sweep_of(sweeps, **changed) if future else None, seed)


def empty_sweep(sweep: WindowSweep) -> WindowSweep:
    """Leave no points, but a view."""
    nothing = torch.zeros(0, dtype=torch.int64)
    sightings = tuple(
        replace(s, point=nothing, target=s.target[:0], weight=s.weight[:0]) for s in sweep.sightings
    )
    return replace(sweep, xyz=sweep.xyz[:0], intensity=torch.zeros(0), sightings=sightings)
