# SPDX-License-Identifier: Apache-2.0
"""What a training is told: one YAML file of `config/training/` is one run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from cross4d_jepa_ros.model.config import BadConfig, ModelConfig, read_config
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
        sweeps: Of a window; a network with a memory remembers as many, the newest included.
        memory: Whether the network has one; without, it answers each sweep of a window by itself.
        warm_start: Checkpoint whose tensors are started from where names and shapes agree.
        work: Folder for recordings, sweeps and the state to go on from.
        towns: To learn from.
        held_out: To score after each epoch.
        epochs: Passes over as many sweeps as there are, in windows.
        batch: Windows per step.
        learning_rate: Its peak; it falls to 0 along a cosine.
        weight_decay: Of matrices.
        warm_up: Share of the steps in which the learning rate rises.
        motion_weight: Of a loss that asks which cars and people move; its head is not kept. 0 asks
            nothing.
        augmentation: Of the windows to learn from.

    Raises:
        BadConfig: A town is in both sets, or a number makes no sense.

    """

    seed: int
    model: str
    sweeps: int
    memory: bool
    warm_start: str | None
    work: str
    towns: Towns
    held_out: Towns
    epochs: int
    batch: int
    learning_rate: float
    weight_decay: float
    warm_up: float
    motion_weight: float
    augmentation: Augmentation

    def __post_init__(self) -> None:
        """Refuse what would only fail, or deceive, after hours."""
        shared = set(self.towns.seeds) & set(self.held_out.seeds)
        if shared:
            msg = f'town {min(shared)} is learnt from and held out: move held_out.first_seed'
            raise BadConfig(msg)
        for name in ('epochs', 'batch', 'sweeps'):
            if getattr(self, name) < 1:
                msg = f'{name} is {getattr(self, name)}: give 1 or more'
                raise BadConfig(msg)
        for name in ('learning_rate', 'weight_decay'):
            if not 0 <= getattr(self, name) <= 1:
                msg = f'{name} is {getattr(self, name)}: give 0 to 1'
                raise BadConfig(msg)
        if self.memory and self.sweeps == 1:
            msg = 'sweeps is 1, which leaves nothing to remember: give 2 or more, or no memory'
            raise BadConfig(msg)
        if not 0 <= self.motion_weight <= 100:
            msg = f'motion_weight is {self.motion_weight}: give 0 to 100'
            raise BadConfig(msg)
        if not 0 <= self.warm_up <= 1:
            msg = f'warm_up is {self.warm_up}: give a share of the steps, 0 to 1'
            raise BadConfig(msg)


def trained_model(config: Training, model: ModelConfig) -> ModelConfig:
    """Return the model that a run trains: with as many sweeps as its windows, or with one.

    Raises:
        BadConfig: The model has no memory and is to have one, or its towns are driven through at
            another stride than its memory's.

    """
    for towns in (config.towns, config.held_out):
        if config.memory and towns.sweep_stride != model.sweep_stride:
            msg = (
                f'sweep_stride of the towns from {towns.first_seed} on is {towns.sweep_stride}, '
                f'that of {config.model} is {model.sweep_stride}: windows need the same'
            )
            raise BadConfig(msg)
    if config.memory:
        return replace(model, sweeps=config.sweeps)
    return model.without_memory()


def load_training(path: Path) -> Training:
    """Read a file of `config/training/`.

    Raises:
        BadConfig: It is not YAML, or a key is unknown, missing or wrong; names the file.
        OSError: It cannot be read.

    """
    return read_config(Training, path)
