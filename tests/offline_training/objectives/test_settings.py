# SPDX-License-Identifier: Apache-2.0
"""Settings that teach nothing, or make no sense, are refused with the knob's name."""

from __future__ import annotations

import pytest

from cross4d_jepa_ros.model.config import BadConfig
from tests.offline_training.objectives.samples import objectives_of

DENSE = {'weight': 1}
IMAGE_TO_POINTS = {'weight': 1, 'direction': 'image_to_points'}
HORIZON = {'weight': 1, 'horizon': 2, 'horizon_weight': 0.5}


@pytest.mark.parametrize(
    ('changed', 'sentence'),
    [
        ({}, 'all have the weight 0'),
        ({'dense_correspondence': {'horizon': 1, 'horizon_weight': 1}}, 'all have the weight 0'),
        ({'latent_view': IMAGE_TO_POINTS}, 'the 3D encoder.*would get none'),
        ({'dense_correspondence': {'teacher_input': 'depth'}}, 'teacher_input is .*rgb or render'),
        ({'dense_correspondence': {'weight': -1}}, 'weight is -1'),
        ({'dense_correspondence': DENSE | {'horizon': 1}}, 'horizon_weight 0: give both'),
        ({'latent_view': {'direction': 'both'}}, 'points_to_image or image_to_points'),
        ({'latent_view': {'loss': 'l2'}}, 'smooth_l1 or cosine'),
        ({'masked_latent': {'mode': 'both'}}, 'visible or predict'),
        ({'masked_latent': {'predictor': 'none'}}, 'concatenated or context_aware'),
        ({'masked_latent': {'ratio': 1.0}}, 'ratio is 1'),
        ({'masked_latent': {'blocks': 0}}, 'blocks is 0'),
        ({'masked_latent': {'target_tokens': 'hidden'}}, 'target_tokens is hidden.*give all'),
        ({'predictor': {'heads': 3}}, 'width 8 does not part into 3 heads'),
        ({'ema': {'start': 1.0, 'end': 0.9}}, 'start 1 is above end 0.9'),
    ],
)
def test_nonsense_is_refused(changed: dict[str, dict[str, object]], sentence: str) -> None:
    with pytest.raises(BadConfig, match=sentence):
        objectives_of(**changed)


@pytest.mark.parametrize(
    ('changed', 'weights', 'needs'),
    [
        ({'dense_correspondence': DENSE}, {'dense_correspondence': 1}, 'teacher images'),
        (
            {'dense_correspondence': DENSE | {'teacher_input': 'render'}},
            {'dense_correspondence': 1},
            'teacher',
        ),
        (
            {'dense_correspondence': HORIZON},
            {'dense_correspondence': 1, 'future': 0.5},
            'teacher images target_encoder',
        ),
        ({'latent_view': {'weight': 2}}, {'latent_view': 2}, 'teacher images'),
        ({'masked_latent': {'weight': 3}}, {'masked_latent': 3}, 'target_encoder'),
        (
            {'latent_view': IMAGE_TO_POINTS, 'dense_correspondence': DENSE},
            {'dense_correspondence': 1, 'latent_view': 1},
            'teacher images patch_maps target_encoder',
        ),
    ],
)
def test_what_a_run_needs_follows_from_its_weights(
    changed: dict[str, dict[str, object]], weights: dict[str, float], needs: str
) -> None:
    settings = objectives_of(**changed)
    assert settings.weights == weights
    for need in ('teacher', 'images', 'patch_maps', 'target_encoder'):
        assert getattr(settings, f'needs_{need}') == (need in needs.split()), need
