# SPDX-License-Identifier: Apache-2.0
"""What a training is told: one YAML file of `config/training/` is one run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cross4d_jepa_ros.model.config import BadConfig, read_config
from offline_training.augmentation import Augmentation


@dataclass(frozen=True)
class Towns:
    """Streets that are driven through.

    Attributes:
        first_seed: Seed of the first town; the others count on from it.
        count: How many.
        seconds: Length of the drive through each.
        sweep_stride: Every so manieth sweep is used.

    """

    first_seed: int
    count: int
    seconds: float
    sweep_stride: int

    def __post_init__(self) -> None:
        """Refuse what gives no sweeps."""
        for name, least in (('first_seed', 0), ('count', 1), ('sweep_stride', 1)):
            if getattr(self, name) < least:
                msg = f'{name} is {getattr(self, name)}: give {least} or more'
                raise BadConfig(msg)
        if not 0.1 <= self.seconds <= 3600:
            msg = f'seconds is {self.seconds:g}: give 0.1 to 3600'
            raise BadConfig(msg)

    @property
    def seeds(self) -> range:
        """One for each town."""
        return range(self.first_seed, self.first_seed + self.count)


@dataclass(frozen=True)
class Training:
    """One run.

    Attributes:
        seed: Of weights, order and augmentation.
        model: File of `config/models/`.
        work: Folder for recordings, sweeps and the state to go on from.
        towns: To learn from.
        held_out: To score after each epoch.
        epochs: Passes over all sweeps.
        batch: Sweeps per step.
        learning_rate: Its peak; it falls to 0 along a cosine.
        weight_decay: Of matrices.
        warm_up: Share of the steps in which the learning rate rises.
        augmentation: Of the sweeps to learn from.

    Raises:
        BadConfig: A town is in both sets, or a number makes no sense.

    """

    seed: int
    model: str
    work: str
    towns: Towns
    held_out: Towns
    epochs: int
    batch: int
    learning_rate: float
    weight_decay: float
    warm_up: float
    augmentation: Augmentation

    def __post_init__(self) -> None:
        """Refuse what would only fail, or deceive, after hours."""
        shared = set(self.towns.seeds) & set(self.held_out.seeds)
        if shared:
            msg = f'town {min(shared)} is learnt from and held out: move held_out.first_seed'
            raise BadConfig(msg)
        for name in ('epochs', 'batch'):
            if getattr(self, name) < 1:
                msg = f'{name} is {getattr(self, name)}: give 1 or more'
                raise BadConfig(msg)
        for name in ('learning_rate', 'weight_decay'):
            if not 0 <= getattr(self, name) <= 1:
                msg = f'{name} is {getattr(self, name)}: give 0 to 1'
                raise BadConfig(msg)
        if not 0 <= self.warm_up <= 1:
            msg = f'warm_up is {self.warm_up}: give a share of the steps, 0 to 1'
            raise BadConfig(msg)


def load_training(path: Path) -> Training:
    """Read a file of `config/training/`.

    Raises:
        BadConfig: It is not YAML, or a key is unknown, missing or wrong; names the file.
        OSError: It cannot be read.

    """
    return read_config(Training, path)
