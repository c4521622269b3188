# SPDX-License-Identifier: Apache-2.0
"""Frozen image networks whose features the encoder learns to predict."""

from __future__ import annotations

import torch

from offline_training.teachers.features import (
    BadTeacher,
    ImageTeacher,
    TeacherFeatures,
    sample_patches,
)
from offline_training.teachers.lite0 import Lite0, Lite0Teacher

__all__ = ['BadTeacher', 'ImageTeacher', 'TeacherFeatures', 'load_teacher', 'sample_patches']

RANDOM_WEIGHTS_SEED = 0


def load_teacher(name: str, *, input_height: int, device: torch.device | str) -> ImageTeacher:
    """Load a teacher, frozen.

    Args:
        name: `lite0`; `lite0-random`, the same network with drawn weights; else a folder or hub
            name that `transformers` loads: DINOv2, DINOv2 with registers or DINOv3 (ViT).
        input_height: Rows that images are scaled to, rounded to whole patches.
        device: Where it computes.

    Raises:
        BadTeacher: It is not there, or is a network of another type.
        ValueError: `input_height` is not positive.
        OSError: The weights cannot be read.

    """
    if name == 'lite0':
        return Lite0Teacher(Lite0.pretrained(), name, input_height, device)
    if name == 'lite0-random':
        return Lite0Teacher(Lite0.random(RANDOM_WEIGHTS_SEED), name, input_height, device)
    # Imported here: transformers takes seconds, which those who use Lite0 need not wait.
    from offline_training.teachers.foundation import FoundationTeacher

    return FoundationTeacher(name, input_height, device)
