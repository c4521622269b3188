# SPDX-License-Identifier: Apache-2.0
"""What an epoch would cost with the teacher in every step, instead of its cached targets."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import Dinov2Config, Dinov2Model

from offline_training.logs.reader import LogReader
from offline_training.logs.table import Index
from offline_training.teachers import load_teacher

VIT_SMALL = 'dinov2-vits14-random'
# Of each teacher; the first one warms it up.
IMAGES = 3


def some_images(index: Index) -> list[NDArray[np.uint8]]:
    """Read the first images of an index, all of one size."""
    images: list[NDArray[np.uint8]] = []
    with LogReader(index) as reader:
        for row in index.rows:
            if row.usable and row.shots and row.shots[0] is not None:
                images.append(reader.image(row, 0))
            if len(images) == IMAGES:
                break
    return images


def vit_small(folder: Path) -> str:
    """Save a DINOv2 of the size ViT-S/14 with drawn weights; returns what loads it."""
    if not (folder / 'config.json').exists():
        torch.manual_seed(0)
        config = Dinov2Config(
            hidden_size=384, num_hidden_layers=12, num_attention_heads=6, patch_size=14
        )
        Dinov2Model(config).save_pretrained(folder)
    return str(folder)


def teacher_s(name: str, input_height: int, images: list[NDArray[np.uint8]]) -> float:
    """Time a teacher on one image, on the CPU, s."""
    teacher = load_teacher(name, input_height=input_height, device='cpu')
    teacher(images[:1])
    began = time.perf_counter()
    for image in images[1:]:
        teacher([image])
    return (time.perf_counter() - began) / max(len(images) - 1, 1)


def epoch_ratio(step_s: float, views: float, teacher_s: float) -> float:
    """How many times longer a step takes that asks the teacher for each view itself.

    Args:
        step_s: With cached targets, reading them included.
        views: Images that a step looks at.
        teacher_s: For one.

    """
    return (step_s + views * teacher_s) / step_s
