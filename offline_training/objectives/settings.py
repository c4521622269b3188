# SPDX-License-Identifier: Apache-2.0
"""What the objectives are told: the part `objectives` of a file of `config/pretraining/`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cross4d_jepa_ros.model.config import BadConfig


def _within(settings: Any, bounds: dict[str, tuple[float, float]]) -> None:
    for name, (low, high) in bounds.items():
        value = getattr(settings, name)
        if not low <= value <= high:
            msg = f'{name} is {value:g}: give {low:g} to {high:g}'
            raise BadConfig(msg)


def _one_of(settings: Any, choices: dict[str, Sequence[str]]) -> None:
    for name, allowed in choices.items():
        value = getattr(settings, name)
        if value not in allowed:
            msg = f'{name} is {value!r}: give {" or ".join(allowed)}'
            raise BadConfig(msg)


@dataclass(frozen=True)
class DenseCorrespondence:
    """Each point is asked for the teacher's feature at its pixel (Cross4D-JEPA).

    Attributes:
        weight: Of this loss in the sum; 0 switches it off, and the look ahead too.
        teacher_input: What the teacher looks at, also for `latent_view`: `rgb` images, or a
            `render` of the points by their depth.
        points_per_view: Points of a sweep with a target, per camera.
        bilinear: Whether patch features are interpolated, rather than the pixel's own patch taken.
        hidden: Channels of the hidden layer of the head; 0 for a linear head.
        horizon: Steps from the newest sweep to one that is foreseen; 0 foresees nothing.
        horizon_weight: Of that loss in the sum.

    """

    weight: float
    teacher_input: str
    points_per_view: int
    bilinear: bool
    hidden: int
    horizon: int
    horizon_weight: float

    def __post_init__(self) -> None:
        """Refuse what makes no sense.

        Raises:
            BadConfig: Names the setting.

        """
        _one_of(self, {'teacher_input': ('rgb', 'render')})
        _within(
            self,
            {
                'weight': (0, 1000),
                'points_per_view': (1, 1 << 20),
                'hidden': (0, 1 << 14),
                'horizon': (0, 64),
                'horizon_weight': (0, 1000),
            },
        )
        if bool(self.horizon) != bool(self.horizon_weight):
            msg = (
                f'horizon is {self.horizon} and horizon_weight {self.horizon_weight:g}: '
                'give both, or 0 for both'
            )
            raise BadConfig(msg)


@dataclass(frozen=True)
class LatentView:
    """One modality's latent is predicted from the other's, given the camera (CrossJEPA).

    Attributes:
        weight: Of this loss in the sum; 0 switches it off.
        direction: `points_to_image` (the paper) or `image_to_points` (as described).
        histogram: Whether the predictor is told the image's colours.
        loss: `smooth_l1` or `cosine`.

    """

    weight: float
    direction: str
    histogram: bool
    loss: str

    def __post_init__(self) -> None:
        """Refuse what makes no sense.

        Raises:
            BadConfig: Names the setting.

        """
        _one_of(self, {'direction': ('points_to_image', 'image_to_points')})
        _one_of(self, {'loss': ('smooth_l1', 'cosine')})
        _within(self, {'weight': (0, 1000)})


@dataclass(frozen=True)
class MaskedLatent:
    """What is hidden from the encoder is asked of it (3D-JEPA).

    Attributes:
        weight: Of this loss in the sum; 0 switches it off.
        mode: `predict` (latents of hidden patches, as 3D-JEPA) or `visible` (full-context latents
            of patches that stay visible).
        predictor: `context_aware` (the paper) or `concatenated` (as described).
        blocks: Blocks of patches that are hidden (M).
        ratio: Share of the newest sweep's patches that these cover.
        target_tokens: `all` (the target encoder sees the whole window) or `hidden` (only the
            hidden patches, as described).
        loss: `cosine` or `l2`.
        variance_weight: Of a hinge on the deviation of the tokens; 0 adds none.
        points_kept: Bounds of the share of a sweep's visible points that the network sees; the
            target encoder sees all.

    """

    weight: float
    mode: str
    predictor: str
    blocks: int
    ratio: float
    target_tokens: str
    loss: str
    variance_weight: float
    points_kept: tuple[float, float]

    def __post_init__(self) -> None:
        """Refuse what makes no sense.

        Raises:
            BadConfig: Names the setting.

        """
        _one_of(
            self,
            {
                'mode': ('visible', 'predict'),
                'predictor': ('concatenated', 'context_aware'),
                'target_tokens': ('all', 'hidden'),
                'loss': ('cosine', 'l2'),
            },
        )
        _within(
            self,
            {
                'weight': (0, 1000),
                'blocks': (1, 64),
                'ratio': (0.05, 0.95),
                'variance_weight': (0, 1000),
            },
        )
        low, high = self.points_kept
        if not 0 < low <= high <= 1:
            msg = f'points_kept is {self.points_kept}: give two shares, the lower one first'
            raise BadConfig(msg)
        if self.mode == 'visible' and self.target_tokens == 'hidden':
            msg = (
                'target_tokens is hidden, but mode visible asks for the latents of the visible '
                'patches: give all'
            )
            raise BadConfig(msg)


@dataclass(frozen=True)
class Predictor:
    """The transformer that predicts latents; each objective has one of its own.

    Attributes:
        width: Channels.
        depth: Blocks.
        heads: Attention heads.

    """

    width: int
    depth: int
    heads: int

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be built.

        Raises:
            BadConfig: Names the setting.

        """
        _within(self, {'width': (2, 4096), 'depth': (1, 64), 'heads': (1, 64)})
        if self.width % self.heads:
            msg = f'width {self.width} does not part into {self.heads} heads: change width or heads'
            raise BadConfig(msg)


@dataclass(frozen=True)
class Ema:
    """How slowly the target encoder follows, from the first step to the last along a cosine.

    Attributes:
        start: Share of itself that it keeps at the first step.
        end: At the last.

    """

    start: float
    end: float

    def __post_init__(self) -> None:
        """Refuse what makes no sense.

        Raises:
            BadConfig: Names the setting.

        """
        _within(self, {'start': (0, 1), 'end': (0, 1)})
        if self.start > self.end:
            msg = f'start {self.start:g} is above end {self.end:g}: the target encoder slows down'
            raise BadConfig(msg)


@dataclass(frozen=True)
class Objectives:
    """All of them, and what they share.

    Raises:
        BadConfig: Nothing would be learnt.

    """

    dense_correspondence: DenseCorrespondence
    latent_view: LatentView
    masked_latent: MaskedLatent
    predictor: Predictor
    ema: Ema

    def __post_init__(self) -> None:
        """Refuse a sum of losses that teaches the encoder nothing.

        Raises:
            BadConfig: Says which weight to raise.

        """
        if not self.weights:
            msg = (
                'dense_correspondence, latent_view and masked_latent all have the weight 0: '
                'raise one'
            )
            raise BadConfig(msg)
        if set(self.weights) == {'latent_view'} and self._from_images:
            msg = (
                'latent_view from image_to_points, and nothing else: its target is cut off from '
                'the gradient and its context is 2D, so that the 3D encoder, which is what is '
                'kept, would get none. Give masked_latent or dense_correspondence a weight, or '
                'take points_to_image'
            )
            raise BadConfig(msg)

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each term that is on, by name: `future` is the look ahead."""
        dense = self.dense_correspondence
        weights = {
            'dense_correspondence': dense.weight,
            'future': dense.horizon_weight if dense.weight else 0.0,
            'latent_view': self.latent_view.weight,
            'masked_latent': self.masked_latent.weight,
        }
        return {name: weight for name, weight in weights.items() if weight}

    @property
    def needs_teacher(self) -> bool:
        """Whether cached targets are read."""
        return not {'dense_correspondence', 'latent_view'}.isdisjoint(self.weights)

    @property
    def needs_images(self) -> bool:
        """Whether the teacher has looked at images, not at renders."""
        return self.needs_teacher and self.dense_correspondence.teacher_input == 'rgb'

    @property
    def needs_patch_maps(self) -> bool:
        """Whether a predictor looks at images as a whole."""
        return 'latent_view' in self.weights and self._from_images

    @property
    def needs_target_encoder(self) -> bool:
        """Whether a moving average of the encoder is kept."""
        return not {'future', 'masked_latent'}.isdisjoint(self.weights) or self.needs_patch_maps

    @property
    def _from_images(self) -> bool:
        return self.latent_view.direction == 'image_to_points'
