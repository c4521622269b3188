# SPDX-License-Identifier: Apache-2.0
"""Frozen image networks whose features the encoder learns to predict.

A teacher is called with a list of (H, W, 3) uint8 RGB images of one size, scales them itself and
answers with `TeacherFeatures`. It has a `name`, the `weights_sha256`, its `input_height` and
`stride` in pixels of the scaled image, the number of `channels` of a patch and of `view_channels`
of an image, and `input_size(width, height)`, what an image of that size is scaled to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from offline_training.teachers.features import (
    BadTeacher,
    TeacherFeatures,
    sample_patches,
    scaled_size,
)
from offline_training.teachers.lite0 import Lite0, Lite0Teacher

if TYPE_CHECKING:
    from offline_training.teachers.foundation import FoundationTeacher

__all__ = [
    'BadTeacher',
    'Lite0Teacher',
    'TeacherFeatures',
    'load_teacher',
    'sample_patches',
    'scaled_size',
]

RANDOM_WEIGHTS_SEED = 0


def load_teacher(
    name: str, *, input_height: int, device: torch.device | str
) -> Lite0Teacher | FoundationTeacher:
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
