# SPDX-License-Identifier: Apache-2.0
"""What a pretraining is told: one YAML file of `config/pretraining/` is one run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cross4d_jepa_ros.model.config import BadConfig, ModelConfig, load_model_config
from cross4d_jepa_ros.shared_files import shared_file
from offline_training.augmentation import Augmentation
from offline_training.objectives.settings import Objectives
from offline_training.settings_file import read_settings

PRECISIONS = ('auto', 'fp32', 'bf16')


@dataclass(frozen=True)
class Pretraining:
    """One run.

    Attributes:
        seed: Of weights, order, augmentation and masks.
        model: File of `config/models/`.
        sweeps: Of a window, the newest included (T); 1 trains a network without a memory.
        epochs: Passes over all windows; each sweep is the newest of one.
        batch: Windows per step, over all processes.
        learning_rate: Its peak; it falls to 0 along a cosine.
        weight_decay: Of matrices.
        warm_up: Share of the steps in which the learning rate rises.
        precision: `auto` (bf16 on a GPU, fp32 on a CPU), `fp32` or `bf16`.
        save_every: Steps between two states to go on from.
        components: Of the teacher's features, after centring, scaling and projection.
        view_only: Whether of each sweep only what lies within its images is looked at.
        objectives: What is learnt.
        augmentation: Of the windows.

    Raises:
        BadConfig: A number makes no sense.

    """

    seed: int
    model: str
    sweeps: int
    epochs: int
    batch: int
    learning_rate: float
    weight_decay: float
    warm_up: float
    precision: str
    save_every: int
    components: int
    view_only: bool
    objectives: Objectives
    augmentation: Augmentation

    def __post_init__(self) -> None:
        """Refuse what would only fail, or deceive, after hours."""
        for name in ('sweeps', 'epochs', 'batch', 'save_every', 'components'):
            if getattr(self, name) < 1:
                msg = f'{name} is {getattr(self, name)}: give 1 or more'
                raise BadConfig(msg)
        if self.seed < 0:
            msg = f'seed is {self.seed}: give 0 or more'
            raise BadConfig(msg)
        for name in ('learning_rate', 'weight_decay', 'warm_up'):
            if not 0 <= getattr(self, name) <= 1:
                msg = f'{name} is {getattr(self, name)}: give 0 to 1'
                raise BadConfig(msg)
        if self.precision not in PRECISIONS:
            msg = f'precision is {self.precision!r}: give {", ".join(PRECISIONS)}'
            raise BadConfig(msg)


def load_pretraining(path: Path, changes: Sequence[str] = ()) -> tuple[Pretraining, dict[str, Any]]:
    """Read a file of `config/pretraining/`.

    Args:
        path: YAML file.
        changes: `key=value` or `group.key=value`, each of which takes the place of what the file
            says.

    Returns:
        The settings, and the same as a mapping to write down.

    Raises:
        BadConfig: It is not YAML, or a key is unknown, missing or wrong; names the file.
        OSError: It cannot be read.

    """
    return read_settings(Pretraining, path, changes)


def pretrained_model(config: Pretraining) -> ModelConfig:
    """Return the model that a run trains: with as many sweeps as its windows, without colour.

    Colour that comes from the target's own image would be a short cut.

    Raises:
        BadConfig: The model's file is refused, or has no memory where windows have several sweeps.
        OSError: It cannot be read.

    """
    model = load_model_config(shared_file(f'config/models/{config.model}'))
    model = replace(model, colour=False)
    if config.sweeps > 1:
        if model.sweeps == 1:
            msg = f'sweeps is {config.sweeps}, but {config.model} has no memory: give sweeps 1'
            raise BadConfig(msg)
        return replace(model, sweeps=config.sweeps)
    return model.without_memory()
