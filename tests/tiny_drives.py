# SPDX-License-Identifier: Apache-2.0
"""Drives past boxes that move and equal ones that stand, and a network small enough to learn it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from cross4d_jepa_ros.model.config import ModelConfig
from offline_training.augmentation import AS_RECORDED, Recolouring
from offline_training.labelled_sweeps import LabelledSweep, write_sweeps
from offline_training.street.classes import CAR, ROAD
from offline_training.training_settings import Towns, Training

MODEL = ModelConfig(
    size='tiny',
    tokenizer='voxel',
    voxel_m=0.8,
    range_m=20.0,
    max_points=4096,
    max_tokens=2048,
    patch_points=0,
    width=32,
    blocks=1,
    heads=2,
    window=64,
    point_width=16,
    colour=True,
    sweeps=3,
    sweep_stride=1,
    neighbours=8,
    neighbour_radius_m=1.0,
    latents=2,
    temporal_blocks=1,
)


def settings(**changes: object) -> Training:
    """Settings of a short training of MODEL."""
    given = {
        'seed': 0,
        'model': 'tiny',
        'sweeps': 3,
        'memory': True,
        'warm_start': None,
        'work': '',
        'towns': Towns(0, 1, 1.0, 1),
        'held_out': Towns(5, 1, 1.0, 1),
        'epochs': 6,
        'batch': 2,
        'learning_rate': 0.01,
        'weight_decay': 0.0,
        'warm_up': 0.1,
        'motion_weight': 1.0,
        'augmentation': replace(
            AS_RECORDED,
            points_kept=(0.9, 1.0),
            scale=(0.95, 1.05),
            turn_deg=180.0,
            mirroring=0.5,
            tilt_deg=0.5,
            intensity_blinding=1.0,
            colour=Recolouring((1.0, 1.0), 0.0, 0.0, blinding=1.0),
        ),
    }
    return Training(**{**given, **changes})  # type: ignore[arg-type]


def drive(path: Path, seed: int, sweeps: int = 6) -> Path:
    """Write a recording of a floor and eight equal boxes, half of which move by 1 m a sweep."""
    draw = np.random.default_rng(seed)
    start = draw.uniform(-12, 12, (8, 2))
    angle = draw.uniform(0, 2 * np.pi, 8)
    moves = np.arange(8) % 2
    written = []
    for number in range(sweeps):
        step = number * moves[:, None] * np.column_stack((np.cos(angle), np.sin(angle)))
        middle = np.append(start + step, np.full((8, 1), 0.8), axis=1)
        boxes = middle.repeat(60, axis=0) + draw.uniform(-0.8, 0.8, (480, 3))
        floor = np.append(draw.uniform(-14, 14, (600, 2)), np.zeros((600, 1)), axis=1)
        at = np.array([0.7 * number, 0, 0])
        pose = np.eye(4)
        pose[:3, 3] = at
        xyz = (np.concatenate((boxes, floor)) - at).astype(np.float32)
        written.append(
            LabelledSweep(
                stamp_ns=number * 200_000_000,
                xyz=xyz,
                intensity=None,
                rgb=np.zeros((len(xyz), 4), np.float32),
                label=np.repeat([CAR, ROAD], (480, 600)).astype(np.uint8),
                moving=np.append(moves.repeat(60), np.zeros(600)).astype(np.uint8),
                fixed_from_base=pose,
            )
        )
    write_sweeps(path, written)
    return path
