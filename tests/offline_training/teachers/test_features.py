# SPDX-License-Identifier: Apache-2.0
"""Scaling of images, features at pixels and the identity of weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from offline_training.teachers.features import (
    sample_patches,
    scale_images,
    scaled_size,
    weights_sha256,
)

# Each patch holds its row and column.
MAP = np.stack(np.mgrid[:3, :4], -1).astype(np.float16)  # (3, 4, 2)


@pytest.mark.parametrize(
    ('size', 'input_height', 'multiple', 'expected'),
    [
        ((1242, 375), 384, 32, (1280, 384)),  # 1271.8 columns
        ((1242, 375), 384, 14, (1246, 378)),  # 27.4 rows of patches; 1251.9 columns
        ((1280, 960), 224, 14, (294, 224)),  # 298.7
        ((640, 480), 480, 16, (640, 480)),
        ((10, 4000), 64, 32, (32, 64)),
        ((640, 480), 1, 32, (32, 32)),
    ],
)
def test_the_aspect_is_kept_up_to_whole_patches(
    size: tuple[int, int], input_height: int, multiple: int, expected: tuple[int, int]
) -> None:
    assert scaled_size(*size, input_height, multiple) == expected


def test_a_height_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match='input_height is 0'):
        scaled_size(640, 480, 0, 14)


def test_down_scaling_averages_and_up_scaling_blends() -> None:
    stripes = np.zeros((4, 4, 3), np.uint8)
    stripes[:, ::2] = 200
    assert scale_images([stripes], (2, 2)).unique().tolist() == [100]
    step = np.zeros((2, 2, 3), np.uint8)
    step[:, 1] = 200
    up = scale_images([step, step + 10], (4, 4))
    assert up[0, 0, :, 0].tolist() == [0, 50, 150, 200]
    assert torch.equal(up[1], up[0] + 10)


def test_images_of_two_sizes_are_refused() -> None:
    images = [np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5, 3), np.uint8)]
    with pytest.raises(ValueError, match=r'one size, not of .*\(4, 4, 3\), \(4, 5, 3\)'):
        scale_images(images, (32, 32))


# The map covers an image of 64 x 48 pixels with patches of 16, and one of 32 x 12 with patches of
# 8 x 4: centres of patches lie at 7.5 + 16 j there, at 3.5 + 8 j and 1.5 + 4 i here.
@pytest.mark.parametrize(
    ('size', 'uv', 'blended', 'nearest'),
    [
        ((64, 48), (7.5, 7.5), (0, 0), (0, 0)),
        ((64, 48), (15.5, 7.5), (0, 0.5), (0, 1)),
        ((64, 48), (15.4, 7.5), (0, 0.49375), (0, 0)),
        ((64, 48), (39.5, 27.5), (1.25, 2), (1, 2)),
        ((64, 48), (-0.5, 47.5), (2, 0), (2, 0)),
        ((64, 48), (63.0, 0.0), (0, 3), (0, 3)),
        ((32, 12), (3.5, 1.5), (0, 0), (0, 0)),
        ((32, 12), (9.5, 8.5), (1.75, 0.75), (2, 1)),
    ],
)
def test_features_at_pixels_of_the_image_as_recorded(
    size: tuple[int, int],
    uv: tuple[float, float],
    blended: tuple[float, float],
    nearest: tuple[int, int],
) -> None:
    pixel = np.array([uv], np.float32)
    found = sample_patches(MAP, pixel, *size, bilinear=True)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [blended], atol=1e-5)
    assert sample_patches(MAP, pixel, *size, bilinear=False).tolist() == [list(nearest)]


def test_a_map_of_one_patch_is_constant() -> None:
    uv = np.array([(0, 0), (9, 3)], np.float32)
    single = np.full((1, 1, 5), 7, np.float32)
    assert sample_patches(single, uv, 10, 4, bilinear=True).tolist() == [[7] * 5] * 2
    assert sample_patches(single, uv[:0], 10, 4, bilinear=True).shape == (0, 5)


def test_weights_are_told_apart_by_name_shape_and_value() -> None:
    weights = {'b': torch.ones(2, 3), 'a': torch.zeros(2)}
    same = {'a': torch.zeros(2), 'b': torch.ones(3, 2).T}
    others = [
        {'b': torch.ones(3, 2), 'a': torch.zeros(2)},
        {'c': torch.ones(2, 3), 'a': torch.zeros(2)},
        {'b': torch.ones(2, 3), 'a': torch.tensor([0, 1e-8])},
    ]
    assert weights_sha256(same) == weights_sha256(weights)
    assert len({weights_sha256(state) for state in (weights, *others)}) == 4
