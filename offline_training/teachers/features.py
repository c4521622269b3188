# SPDX-License-Identifier: Apache-2.0
"""What every teacher shares: how images are scaled, what comes out, and features at pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

# Part of a cache's manifest: raised by every change of how images become a teacher's input.
SCALING = 'area down, linear up, rounded to whole patches'


class BadTeacher(ValueError):
    """A teacher that cannot be loaded; the sentence says why and what to do."""


@dataclass(frozen=True)
class TeacherFeatures:
    """What a teacher makes of B images of one size.

    Attributes:
        patches: (B, h, w, C) float32, one feature per patch, the first row at the top.
        view: (B, V) float32, one embedding per image.

    """

    patches: Tensor
    view: Tensor


class ImageTeacher(Protocol):
    """A frozen image network.

    Attributes:
        name: As it was asked for.
        weights_sha256: Of its weights.
        input_height: Rows that images are scaled to, before the rounding to whole patches.
        stride: Pixels of the scaled image per patch.
        channels: C, of a patch's feature.
        view_channels: V, of an image's embedding.

    """

    name: str
    weights_sha256: str
    input_height: int
    stride: int
    channels: int
    view_channels: int

    def input_size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height that an image of this size is scaled to."""

    def __call__(self, images_rgb: Sequence[NDArray[np.uint8]]) -> TeacherFeatures:
        """Compute the features of B images, each (H, W, 3) uint8 RGB, all of one size.

        Raises:
            ValueError: They differ in size.

        """


def scaled_size(width: int, height: int, input_height: int, multiple: int) -> tuple[int, int]:
    """Size that an image is scaled to: its aspect is kept but for the rounding.

    Args:
        width: Of the image as recorded, pixels.
        height: Likewise.
        input_height: Rows wanted.
        multiple: What the network needs both sides to be a multiple of.

    Returns:
        Width and height.

    Raises:
        ValueError: `input_height` is not positive.

    """
    if input_height < 1:
        msg = f'input_height is {input_height}: give the rows that images are scaled to, as 384'
        raise ValueError(msg)
    rows = max(1, round(input_height / multiple)) * multiple
    columns = max(1, round(width * rows / height / multiple)) * multiple
    return columns, rows


def scale_images(images_rgb: Sequence[NDArray[np.uint8]], size: tuple[int, int]) -> Tensor:
    """Scale images.

    Args:
        images_rgb: Each (H, W, 3) uint8, all of one size.
        size: Width and height to scale to.

    Returns:
        (B, H', W', 3) uint8.

    Raises:
        ValueError: The images differ in size.

    """
    shapes = {image.shape for image in images_rgb}
    if len(shapes) != 1:
        msg = f'a batch has images of one size, not of {sorted(shapes)}'
        raise ValueError(msg)
    height = shapes.pop()[0]
    method = cv2.INTER_AREA if size[1] < height else cv2.INTER_LINEAR
    scaled = [cv2.resize(image, size, interpolation=method) for image in images_rgb]
    return torch.from_numpy(np.stack(scaled))  # (B, H', W', 3)


def sample_patches(
    patches: NDArray[Any], uv: NDArray[np.float32], width: int, height: int, *, bilinear: bool
) -> NDArray[np.float32]:
    """Read a map of patches at pixels.

    Args:
        patches: (h, w, C) float; it covers the image from edge to edge, whatever its own size.
        uv: (V, 2) pixels of the image as recorded; the centre of pixel (0, 0) is at u = v = 0.
        width: Of the image as recorded.
        height: Likewise.
        bilinear: Blend the four nearest patches (beyond the outermost patch centres the map is
            constant); otherwise take the patch that the pixel lies in.

    Returns:
        (V, C).

    """
    rows, columns, channels = patches.shape
    table = torch.from_numpy(np.asarray(patches, np.float32).reshape(-1, channels))  # (h*w, C)
    side = np.array((columns, rows))
    # In patches, from the left and the upper edge of the image.
    place = (uv.astype(np.float64) + 0.5) * side / (width, height)  # (V, 2)
    if not bilinear:
        column, row = np.clip(np.floor(place), 0, side - 1).astype(np.int64).T
        nearest: NDArray[np.float32] = table[torch.from_numpy(row * columns + column)].numpy()
        return nearest
    place = np.clip(place - 0.5, 0, side - 1)
    low = np.minimum(place.astype(np.int64), np.maximum(side - 2, 0))  # (V, 2)
    x, y = (place - low).T
    step_x, step_y = int(columns > 1), columns * int(rows > 1)
    first = low[:, 1] * columns + low[:, 0]  # (V)
    corner = first[:, None] + np.array((0, step_x, step_y, step_x + step_y))  # (V, 4)
    share = np.stack(((1 - x) * (1 - y), x * (1 - y), (1 - x) * y, x * y), 1)  # (V, 4)
    blended: NDArray[np.float32] = F.embedding_bag(
        torch.from_numpy(corner),
        table,
        mode='sum',
        per_sample_weights=torch.from_numpy(share.astype(np.float32)),
    ).numpy()
    return blended


def weights_sha256(state: Mapping[str, Tensor]) -> str:
    """Identify weights by their names, shapes and values, wherever they were loaded from."""
    found = hashlib.sha256()
    for name in sorted(state):
        values = state[name].detach().cpu().contiguous()
        found.update(f'{name} {values.dtype} {tuple(values.shape)}\n'.encode())
        found.update(values.numpy().tobytes())
    return found.hexdigest()
