# SPDX-License-Identifier: Apache-2.0
"""Random changes of a window of sweeps that leave labels, relative poses and views true."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from cross4d_jepa_ros.model.config import BadConfig
from offline_training.labelled_sweeps import LabelledSweep

SHARES = (
    'points_kept',
    'mirroring',
    'intensity_blinding',
    'sweep_forgetting',
    'pose_blinding',
    'channel_shuffling',
    'blinding',
)


def _refuse_nonsense(settings: Recolouring | Augmentation) -> None:
    """Refuse bounds in the wrong order and shares that are none.

    Raises:
        BadConfig: Names the setting.

    """
    for field in fields(settings):
        value = getattr(settings, field.name)
        if isinstance(value, Recolouring | None):
            continue
        low, high = value if isinstance(value, tuple) else (0.0, value)
        share = field.name in SHARES
        if not 0 <= low <= high or (share and high > 1):
            wanted = '0 to 1' if share else 'at least 0'
            msg = f'{field.name} is {value}: give {wanted}, the lower bound first'
            raise BadConfig(msg)


@dataclass(frozen=True)
class Recolouring:
    """How far the colours of windows are changed; pairs are the bounds of a uniform draw.

    Attributes:
        gain: Factor on each colour channel, drawn for a channel.
        shift: Most that is added to all channels.
        channel_shuffling: Probability that the channels change places.
        blinding: Probability that a window loses all its colour.

    """

    gain: tuple[float, float]
    shift: float
    channel_shuffling: float
    blinding: float

    def __post_init__(self) -> None:
        """Refuse what makes no sense.

        Raises:
            BadConfig: Names the setting.

        """
        _refuse_nonsense(self)


@dataclass(frozen=True)
class Augmentation:
    """How far windows are changed; pairs are the bounds of a uniform draw.

    Attributes:
        points_kept: Share of a sweep's points that is kept, drawn for each sweep.
        scale: Factor on all coordinates.
        turn_deg: Most turn about z.
        mirroring: Probability that left and right change places.
        tilt_deg: Most roll and pitch.
        height_m: Most shift along z.
        jitter_m: Standard deviation of the noise on each coordinate.
        intensity_gain: Factor on the intensity.
        intensity_blinding: Probability that a window loses its intensity.
        sweep_forgetting: Probability that a sweep but the newest is left out.
        pose_blinding: Probability that a window loses its poses.
        colour: Of the points' colours; None where nobody looks at them.

    """

    points_kept: tuple[float, float]
    scale: tuple[float, float]
    turn_deg: float
    mirroring: float
    tilt_deg: float
    height_m: float
    jitter_m: float
    intensity_gain: tuple[float, float]
    intensity_blinding: float
    sweep_forgetting: float
    pose_blinding: float
    colour: Recolouring | None = None

    def __post_init__(self) -> None:
        """Refuse what makes no sense.

        Raises:
            BadConfig: Names the setting.

        """
        _refuse_nonsense(self)


AS_RECORDED = Augmentation(
    points_kept=(1.0, 1.0),
    scale=(1.0, 1.0),
    turn_deg=0.0,
    mirroring=0.0,
    tilt_deg=0.0,
    height_m=0.0,
    jitter_m=0.0,
    intensity_gain=(1.0, 1.0),
    intensity_blinding=0.0,
    sweep_forgetting=0.0,
    pose_blinding=0.0,
)


@dataclass(frozen=True)
class ChangedSweep:
    """What a change makes of one sweep.

    Attributes:
        kept: (n,) rows of the sweep's points that are kept, ascending.
        xyz: (n, 3) float32 m, placed base frame.
        intensity: (n,) float32; None where the sweep has none.
        fixed_from_base: (4, 4) pose in the placed frames; None likewise.

    """

    kept: NDArray[np.int64]
    xyz: NDArray[np.float32]
    intensity: NDArray[np.float32] | None
    fixed_from_base: NDArray[np.float64] | None


class Change:
    """One change of geometry, intensity and memory, the same for all sweeps of a window.

    Args:
        config: How far.
        sweeps: Of the window.
        draw: The same state gives the same change.

    Attributes:
        remembered: Positions in the window of the sweeps that stay; the newest always does.
        placement: (4, 4) map from the base frame to the placed one: mirror image, turn about z,
            tilt, scale, height. Lengths change by one factor and nothing is bent.
        posed: Whether the window keeps its poses.
        strong: Whether it keeps its intensity.

    """

    def __init__(self, config: Augmentation, sweeps: int, draw: np.random.Generator) -> None:
        stays = draw.random(sweeps - 1) >= config.sweep_forgetting
        self.remembered: list[int] = [*np.flatnonzero(stays).tolist(), sweeps - 1]
        self.placement = _placement(config, draw)
        self.posed = draw.random() >= config.pose_blinding
        self._gain = np.float32(draw.uniform(*config.intensity_gain))
        self.strong = draw.random() >= config.intensity_blinding
        self._config = config

    def __call__(
        self,
        xyz: NDArray[np.float32],
        intensity: NDArray[np.float32] | None,
        fixed_from_base: NDArray[np.float64] | None,
        draw: np.random.Generator,
    ) -> ChangedSweep:
        """Change one sweep of (N, 3) points, m, base frame; blinding is left to the caller."""
        share = draw.uniform(*self._config.points_kept)
        kept = np.flatnonzero(draw.random(len(xyz)) < share)
        placed = xyz[kept] @ self.placement[:3, :3].T.astype(np.float32)
        placed += self.placement[:3, 3].astype(np.float32)
        placed += np.float32(self._config.jitter_m) * draw.standard_normal(placed.shape, np.float32)
        if intensity is not None:
            intensity = np.minimum(self._gain * intensity[kept], np.float32(1))
        pose = None if fixed_from_base is None else _moved(fixed_from_base, self.placement)
        return ChangedSweep(kept, placed, intensity, pose)


def augmented(
    window: Sequence[LabelledSweep], config: Augmentation, draw: np.random.Generator
) -> list[LabelledSweep]:
    """Change a window of labelled sweeps.

    Args:
        window: Oldest first; stays as it is.
        config: How far, colours included.
        draw: The same state gives the same window.

    Returns:
        Oldest first; the newest is always there.

    """
    change = Change(config, len(window), draw)
    recoloured = _Recoloured(config.colour, draw) if config.colour is not None else np.array
    changed = []
    for sweep in (window[position] for position in change.remembered):
        found = change(sweep.xyz, sweep.intensity, sweep.fixed_from_base, draw)
        changed.append(
            replace(
                sweep,
                xyz=found.xyz,
                intensity=found.intensity if change.strong else None,
                rgb=recoloured(sweep.rgb[found.kept]),
                label=sweep.label[found.kept],
                moving=sweep.moving[found.kept],
                fixed_from_base=found.fixed_from_base if change.posed else None,
            )
        )
    return changed


class _Recoloured:
    """One change of colour, the same for all sweeps."""

    def __init__(self, config: Recolouring, draw: np.random.Generator) -> None:
        self._gains = draw.uniform(*config.gain, 3).astype(np.float32)
        self._shift = np.float32(draw.uniform(-config.shift, config.shift))
        shuffled = draw.random() < config.channel_shuffling
        self._channels = draw.permutation(3) if shuffled else np.arange(3)
        self._blind = draw.random() < config.blinding

    def __call__(self, rgb: NDArray[np.float32]) -> NDArray[np.float32]:
        """Change (N, 4) colours with their flags."""
        lit = rgb[:, 3:] * np.float32(not self._blind)
        changed = np.ones_like(rgb)
        changed[:, :3] = np.clip(rgb[:, self._channels] * self._gains + self._shift, 0, 1)
        changed *= lit
        return changed


def _placement(config: Augmentation, draw: np.random.Generator) -> NDArray[np.float64]:
    """Build the (4, 4) map of `Change.placement`; `_moved` gives rigid transforms with it."""
    yaw = np.deg2rad(draw.uniform(-config.turn_deg, config.turn_deg))
    roll, pitch = np.deg2rad(draw.uniform(-config.tilt_deg, config.tilt_deg, 2))
    mirror = np.diag([1.0, -1.0 if draw.random() < config.mirroring else 1.0, 1.0])
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
