# SPDX-License-Identifier: Apache-2.0
"""Random changes of a window of labelled sweeps that leave labels and relative poses true."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from cross4d_jepa_ros.model.config import BadConfig
from offline_training.labelled_sweeps import LabelledSweep

SHARES = (
    'points_kept',
    'channel_shuffling',
    'colour_blinding',
    'intensity_blinding',
    'sweep_forgetting',
    'pose_blinding',
)


@dataclass(frozen=True)
class Augmentation:
    """How far windows are changed; pairs are the bounds of a uniform draw.

    Attributes:
        points_kept: Share of a sweep's points that is kept, drawn for each sweep.
        scale: Factor on all coordinates.
        tilt_deg: Most roll and pitch.
        height_m: Most shift along z.
        jitter_m: Standard deviation of the noise on each coordinate.
        colour_gain: Factor on each colour channel, drawn for a channel.
        colour_shift: Most that is added to all channels.
        channel_shuffling: Probability that the colour channels change places.
        colour_blinding: Probability that a window loses all its colour.
        intensity_gain: Factor on the intensity.
        intensity_blinding: Probability that a window loses its intensity.
        sweep_forgetting: Probability that a sweep but the newest is left out.
        pose_blinding: Probability that a window loses its poses.

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
    sweep_forgetting: float
    pose_blinding: float

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
    window: Sequence[LabelledSweep], config: Augmentation, draw: np.random.Generator
) -> list[LabelledSweep]:
    """Change a window; it is turned about z by any angle and mirrored half the time.

    Args:
        window: Oldest first; stays as it is.
        config: How far.
        draw: The same state gives the same window.

    Returns:
        Oldest first; the newest is always there.

    """
    remembered = draw.random(len(window) - 1) >= config.sweep_forgetting
    window = [*(window[i] for i in np.flatnonzero(remembered)), window[-1]]
    placement = _placement(config, draw)
    posed = draw.random() >= config.pose_blinding
    gain = np.float32(draw.uniform(*config.intensity_gain))
    strong = draw.random() >= config.intensity_blinding
    recoloured = _Recolouring(config, draw)
    changed = []
    for sweep in window:
        kept = np.flatnonzero(draw.random(len(sweep.xyz)) < draw.uniform(*config.points_kept))
        xyz = sweep.xyz[kept] @ placement[:3, :3].T.astype(np.float32)
        xyz += placement[:3, 3].astype(np.float32)
        xyz += np.float32(config.jitter_m) * draw.standard_normal(xyz.shape, np.float32)
        intensity = sweep.intensity
        if intensity is not None:
            intensity = np.minimum(gain * intensity[kept], np.float32(1)) if strong else None
        pose = sweep.fixed_from_base if posed else None
        changed.append(
            replace(
                sweep,
                xyz=xyz,
                intensity=intensity,
                rgb=recoloured(sweep.rgb[kept]),
                label=sweep.label[kept],
                moving=sweep.moving[kept],
                fixed_from_base=None if pose is None else _moved(pose, placement),
            )
        )
    return changed


class _Recolouring:
    """One change of colour, the same for all sweeps."""

    def __init__(self, config: Augmentation, draw: np.random.Generator) -> None:
        self._gains = draw.uniform(*config.colour_gain, 3).astype(np.float32)
        self._shift = np.float32(draw.uniform(-config.colour_shift, config.colour_shift))
        shuffled = draw.random() < config.channel_shuffling
        self._channels = draw.permutation(3) if shuffled else np.arange(3)
        self._blind = draw.random() < config.colour_blinding

    def __call__(self, rgb: NDArray[np.float32]) -> NDArray[np.float32]:
        """Change (N, 4) colours with their flags."""
        lit = rgb[:, 3:] * np.float32(not self._blind)
        changed = np.ones_like(rgb)
        changed[:, :3] = np.clip(rgb[:, self._channels] * self._gains + self._shift, 0, 1)
        changed *= lit
        return changed


def _placement(config: Augmentation, draw: np.random.Generator) -> NDArray[np.float64]:
    """Build the (4, 4) map from the base frame: mirror image, turn about z, tilt, scale, height.

    Lengths change by one factor and nothing is bent, so that `_moved` gives rigid transforms.
    """
    yaw = draw.uniform(-np.pi, np.pi)
    roll, pitch = np.deg2rad(draw.uniform(-config.tilt_deg, config.tilt_deg, 2))
    mirror = np.diag([1.0, draw.choice([-1.0, 1.0]), 1.0])
    placement = np.eye(4)
    placement[:3, :3] = _turn(roll, 1, 2) @ _turn(pitch, 2, 0) @ _turn(yaw, 0, 1) @ mirror
    placement[:3, :3] *= draw.uniform(*config.scale)
    placement[2, 3] = draw.uniform(-config.height_m, config.height_m)
    return placement


def _turn(angle: float, first: int, second: int) -> NDArray[np.float64]:
    """Rotation (3, 3) that takes axis `first` towards axis `second`."""
    turn = np.eye(3)
    turn[first, first] = turn[second, second] = np.cos(angle)
    turn[second, first] = np.sin(angle)
    turn[first, second] = -turn[second, first]
    return turn


def _moved(
    fixed_from_base: NDArray[np.float64], placement: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Pose in the placed base frame, to a fixed frame that is placed likewise.

    With x' = A x in both, a motion F becomes A F A^-1: where things coincided, they still do.
    """
    moved: NDArray[np.float64] = placement @ fixed_from_base @ np.linalg.inv(placement)
    return moved
