# SPDX-License-Identifier: Apache-2.0
"""Small recordings with truth that nobody may read, and networks to name what is in them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cross4d_jepa_ros.model.checkpoint import Contract, save_checkpoint
from cross4d_jepa_ros.model.config import Teacher
from cross4d_jepa_ros.model.network import Network
from cross4d_jepa_ros.model.tokenizer import input_features
from offline_training.logs.bag_index import BagChoice, index_bag
from offline_training.logs.table import Index
from offline_training.teachers import load_teacher
from tests.model.drives import SMALL, remembering
from tests.tiny_recording import (
    IMAGE,
    INFO,
    MS,
    POINTS,
    START_NS,
    TRUTH,
    camera_info,
    image,
    lidar_at,
    sweep,
    truth,
    write,
)
from tests.tiny_street import street

MODEL = remembering(replace(SMALL, colour=False, voxel_m=2.0), 2, sweep_stride=2)
INPUT_HEIGHT, COMPONENTS = 32, 6


def index_of_street(
    folder: Path, sweeps: int = 7, *, label: int = 0, posed: bool = True, name: str = 'street'
) -> Path:
    """Record a drive of 0.1 m a sweep past walls and poles, and index it.

    Args:
        folder: For both.
        sweeps: Ten a second.
        label: That the truth has for all points.
        posed: Whether there is ego-motion.
        name: Of the recording.

    """
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 255, (8, 12, 3)).repeat(8, axis=0).repeat(8, axis=1).astype(np.uint8)
    entries: list[tuple[int, str, Any]] = []
    for number in range(sweeps):
        at_ns = START_NS + number * 100 * MS
        xyz, labels = street(number)
        # Most of what is seen stands still.
        xyz[:500] = street(0)[0][:500] - np.array([0.1 * number, 0, 0], np.float32)
        entries += [
            (at_ns, '/tf', lidar_at(at_ns, 0.1 * number if posed else 0.0)),
            (at_ns + 50 * MS, POINTS, sweep(at_ns, xyz)),
            (at_ns + 50 * MS, TRUTH, truth(at_ns, np.full_like(labels, label))),
            (at_ns + 5 * MS, INFO, camera_info(at_ns, 96, 64)),
            (at_ns + 5 * MS, IMAGE, image(at_ns, pixels)),
        ]
    if not posed:
        entries = [entry for entry in entries if entry[1] != '/tf']
    write(folder / name, entries, class_names='anything')
    findings = index_bag(folder / name, BagChoice(), folder, lambda done, total: None)
    Index(findings.rows, folder).save(folder / 'index.parquet')
    return folder / 'index.parquet'


def write_start(path: Path, *, teacher: bool, **changes: object) -> Path:
    """Save a network with drawn weights, with a teacher space or without."""
    model = replace(MODEL, **changes)  # type: ignore[arg-type]
    known = None
    if teacher:
        seen = load_teacher('lite0-random', input_height=INPUT_HEIGHT, device='cpu')
        known = Teacher(
            name=seen.name,
            weights_sha256=seen.weights_sha256,
            input_height=INPUT_HEIGHT,
            stride=seen.stride,
            channels=seen.channels,
            components=COMPONENTS,
            hidden=5,
        )
    network = Network(model, 0, known)
    generator = torch.Generator().manual_seed(3)
    network.initialise(generator)
    network.fit_projections(torch.randn(100, model.point_width, generator=generator))
    if network.teacher_space is not None and known is not None:
        network.teacher_space.fit(torch.randn(50, known.channels, generator=generator))
    contract = Contract(
        model=model,
        features=input_features(model),
        base_height_m=0.0,
        class_names=(),
        palette=(),
        training={'kind': 'pretrained'},
        teacher=known,
    )
    save_checkpoint(path, contract, network)
    return path
