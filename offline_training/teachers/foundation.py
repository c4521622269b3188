# SPDX-License-Identifier: Apache-2.0
"""DINOv2 and DINOv3 as teachers, from a folder or the hub, through transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from offline_training.teachers.features import (
    BadTeacher,
    TeacherFeatures,
    scale_images,
    scaled_size,
    weights_sha256,
)

# What the images of ImageNet were normalised with, red green blue, of values in [0, 1].
MEAN_RGB = (0.485, 0.456, 0.406)
STD_RGB = (0.229, 0.224, 0.225)

# Each type that is supported, with the name of the norm that ends it.
FINAL_NORMS = {
    'dinov2': 'layernorm',
    'dinov2_with_registers': 'layernorm',
    'dinov3_vit': 'norm',
}
# Only training reads it, and not every checkpoint has it.
_UNREAD = 'mask_token'
_ADVICE = (
    'Give lite0, a hub name as facebook/dinov2-small, or a folder with config.json and '
    'model.safetensors; download one beforehand with: hf download facebook/dinov2-small '
    '--local-dir FOLDER (DINOv3 after accepting its licence on the hub)'
)


class FoundationTeacher:
    """A vision transformer: its patch tokens before the final norm, and its class token after it.

    Nothing is unpickled, and no code that comes with a checkpoint is run.

    Args:
        name: Folder or hub name.
        input_height: Rows that images are scaled to.
        device: Where it computes, in float32.

    Raises:
        BadTeacher: There is no such folder or hub name, no network there, one of a type that is
            not supported, or some of its weights are missing.
        ValueError: `input_height` is not positive.

    """

    def __init__(self, name: str, input_height: int, device: torch.device | str) -> None:
        network, model_type = _load(name)
        config = network.config
        self.name = name
        self.stride: int = config.patch_size
        self.channels: int = config.hidden_size
        self.view_channels: int = config.hidden_size
        scaled_size(1, 1, input_height, self.stride)
        self.input_height = input_height
        state = network.state_dict()
        self.weights_sha256 = weights_sha256(
            {key: values for key, values in state.items() if not key.endswith(_UNREAD)}
        )
        self._device = torch.device(device)
        self._prefix = 1 + getattr(config, 'num_register_tokens', 0)
        self._network = network.requires_grad_(False).eval().to(self._device)
        self._tokens = torch.empty(0)
        getattr(network, FINAL_NORMS[model_type]).register_forward_pre_hook(self._keep)
        self._mean = torch.tensor(MEAN_RGB, device=self._device).view(3, 1, 1)  # (3, 1, 1)
        self._std = torch.tensor(STD_RGB, device=self._device).view(3, 1, 1)  # (3, 1, 1)

    def input_size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height that an image is scaled to, multiples of the patch size."""
        return scaled_size(width, height, self.input_height, self.stride)

    @torch.no_grad()
    def __call__(self, images_rgb: Sequence[NDArray[np.uint8]]) -> TeacherFeatures:
        """Compute the features of (H, W, 3) images of one size."""
        height, width = images_rgb[0].shape[:2]
        size = self.input_size(width, height)
        x = scale_images(images_rgb, size).to(self._device)  # (B, H', W', 3)
        x = (x.permute(0, 3, 1, 2).float() / 255 - self._mean) / self._std  # (B, 3, H', W')
        view = self._network(pixel_values=x).pooler_output  # (B, C)
        tokens = self._tokens[:, self._prefix :]  # (B, h * w, C)
        grid = (size[1] // self.stride, size[0] // self.stride)
        return TeacherFeatures(tokens.reshape(len(x), *grid, self.channels), view)

    def _keep(self, norm: nn.Module, inputs: tuple[Tensor]) -> None:
        self._tokens = inputs[0]  # (B, prefix + h * w, C)


def _load(name: str) -> tuple[Any, str]:
    """Load a network with all its weights, in float32."""
    folder = Path(name)
    if not folder.is_dir() and (name.count('/') > 1 or name.startswith(('/', '.', '~'))):
        msg = f'there is no teacher folder {name}. {_ADVICE}'
        raise BadTeacher(msg)
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise _cannot_load(name, error) from error
    if config.model_type not in FINAL_NORMS:
        msg = (
            f'the teacher {name} is a network of the type {config.model_type}, '
            f'supported are {", ".join(FINAL_NORMS)}. {_ADVICE}'
        )
        raise BadTeacher(msg)
    try:
        network, found = AutoModel.from_pretrained(
            name,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise _cannot_load(name, error) from error
    missing = sorted(key for key in found['missing_keys'] if not key.endswith(_UNREAD))
    if missing:
        msg = f'the teacher {name} lacks {len(missing)} weights, the first is {missing[0]}'
        raise BadTeacher(msg)
    return network, config.model_type


def _cannot_load(name: str, error: Exception) -> BadTeacher:
    reason = ' '.join(str(error).split())[:300]
    return BadTeacher(f'the teacher {name} cannot be loaded: {reason}. {_ADVICE}')
