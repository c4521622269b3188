# SPDX-License-Identifier: Apache-2.0
"""Random changes of a labelled sweep that leave its labels true."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from cross4d_jepa_ros.model.config import BadConfig
from offline_training.labelled_sweeps import LabelledSweep

SHARES = ('points_kept', 'channel_shuffling', 'colour_blinding', 'intensity_blinding')


@dataclass(frozen=True)
class Augmentation:
    """How far sweeps are changed; pairs are the bounds of a uniform draw.

    Attributes:
        points_kept: Share of a sweep's points that is kept.
        scale: Factor on all coordinates.
        tilt_deg: Most roll and pitch.
        height_m: Most shift along z.
        jitter_m: Standard deviation of the noise on each coordinate.
        colour_gain: Factor on each colour channel, drawn for a channel.
        colour_shift: Most that is added to all channels.
        channel_shuffling: Probability that the colour channels change places.
        colour_blinding: Probability that a sweep loses all its colour.
        intensity_gain: Factor on the intensity.
        intensity_blinding: Probability that a sweep loses its intensity.

    """

    points_kept: tuple[float, float]
    scale: tuple[float, float]
    tilt_deg: float
    height_m: float
    jitter_m: float
    colour_gain: tuple[float, float]
    colour_shift: float
    channel_shuffling: float
    colour_blinding: float
    intensity_gain: tuple[float, float]
    intensity_blinding: float

    def __post_init__(self) -> None:
        """Refuse bounds in the wrong order and shares that are none.

        Raises:
            BadConfig: Names the setting.

        """
        for field in fields(self):
            value = getattr(self, field.name)
            low, high = value if isinstance(value, tuple) else (0.0, value)
            share = field.name in SHARES
            if not 0 <= low <= high or (share and high > 1):
                wanted = '0 to 1' if share else 'at least 0'
                msg = f'{field.name} is {value}: give {wanted}, the lower bound first'
                raise BadConfig(msg)


def augmented(
    sweep: LabelledSweep, config: Augmentation, draw: np.random.Generator
) -> LabelledSweep:
    """Change a sweep; it is turned about z by any angle and mirrored half the time.

    Args:
        sweep: Stays as it is.
        config: How far.
        draw: The same state gives the same sweep.

    """
    kept = np.flatnonzero(draw.random(len(sweep.xyz)) < draw.uniform(*config.points_kept))
    xyz = sweep.xyz[kept] @ _placement(config, draw).astype(np.float32)
    xyz[:, 2] += np.float32(draw.uniform(-config.height_m, config.height_m))
    xyz += np.float32(config.jitter_m) * draw.standard_normal(xyz.shape, np.float32)
    intensity = sweep.intensity
    gain = np.float32(draw.uniform(*config.intensity_gain))
    if draw.random() < config.intensity_blinding:
        intensity = None
    if intensity is not None:
        intensity = np.minimum(gain * intensity[kept], np.float32(1))
    rgb = sweep.rgb[kept]
    gains = draw.uniform(*config.colour_gain, 3).astype(np.float32)
    shift = np.float32(draw.uniform(-config.colour_shift, config.colour_shift))
    channels = draw.permutation(3) if draw.random() < config.channel_shuffling else np.arange(3)
    blind = draw.random() < config.colour_blinding
    lit = rgb[:, 3:] * np.float32(not blind)
    rgb[:, :3] = np.clip(rgb[:, channels] * gains + shift, 0, 1)
    rgb[:, 3] = 1
    rgb *= lit
    return LabelledSweep(xyz, intensity, rgb, sweep.label[kept])


def _placement(config: Augmentation, draw: np.random.Generator) -> NDArray[np.float64]:
    """Transposed (3, 3): scale, tilt, mirror image and turn about z."""
    yaw = draw.uniform(-np.pi, np.pi)
    roll, pitch = np.deg2rad(draw.uniform(-config.tilt_deg, config.tilt_deg, 2))
    turn = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    # A shear stands for the rotation: at 60 m and 1.5 degrees they differ by 2 cm.
    tilt = np.array([[1, 0, pitch], [0, 1, -roll], [-pitch, roll, 1]])
    mirror = np.diag([1.0, draw.choice([-1.0, 1.0]), 1.0])
    placed: NDArray[np.float64] = draw.uniform(*config.scale) * (tilt @ turn @ mirror).T
    return placed
