# SPDX-License-Identifier: Apache-2.0
"""What a training is told: one YAML file of `config/training/` is one run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cross4d_jepa_ros.model.config import BadConfig, ModelConfig
from offline_training.augmentation import AS_RECORDED, Augmentation
from offline_training.settings_file import read_settings

METHODS = ('linear_probe', 'mlp_head', 'fine_tune')
POINTS_PER_SWEEP = 2000


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


@dataclass(frozen=True, kw_only=True)
class Training:
    """One run.

    Attributes:
        seed: Of weights, order, augmentation and the choice of labels.
        method: `linear_probe` or `mlp_head` (on what `warm_start` says of each point, which stays
            as it is), or `fine_tune` (all weights; without `warm_start`, from scratch).
        model: File of `config/models/`; None for the model of `warm_start`.
        sweeps: Of a window; a network with a memory remembers as many, the newest included. None
            for as many as the model says.
        memory: Whether the network has one; without, it answers each sweep of a window by itself.
        warm_start: Checkpoint to start from; weights of what the model lacks are left out.
        work: Folder for recordings, sweeps and the state to go on from.
        towns: To learn from; None where there is an index.
        held_out: To score on, likewise.
        label_fraction: Of the labelled sweeps, the share whose labels are used.
        epochs: Passes over as many sweeps as there are, in windows; of a head, over its points.
        steps: Instead of `epochs`.
        score_every: Steps between two scores and states to go on from; None for every epoch, or
            with `steps` the end only. Heads are scored at the end.
        batch: Windows per step; of a head, points.
        learning_rate: Its peak; it falls to 0 along a cosine.
        encoder_learning_rate: Of all but the segmentation head; None for the same.
        weight_decay: Of matrices.
        warm_up: Share of the steps in which the learning rate rises.
        hidden: Channels of the hidden layer of `mlp_head`.
        points_per_sweep: Most labelled points of a sweep that a head learns from.
        motion_weight: Of the loss of a head that tells what moves from what stands, among cars and
            people of towns; it is trained with the network, not saved. 0 for none.
        augmentation: Of the windows; heads see sweeps as they were recorded.

    Raises:
        BadConfig: A number makes no sense, or keys contradict each other.

    """

    seed: int
    method: str = 'fine_tune'
    model: str | None = None
    sweeps: int | None = None
    memory: bool = True
    warm_start: str | None = None
    work: str
    towns: Towns | None = None
    held_out: Towns | None = None
    label_fraction: float = 1.0
    epochs: int | None = None
    steps: int | None = None
    score_every: int | None = None
    batch: int
    learning_rate: float
    encoder_learning_rate: float | None = None
    weight_decay: float
    warm_up: float = 0.0
    hidden: int = 0
    points_per_sweep: int = POINTS_PER_SWEEP
    motion_weight: float = 0.0
    augmentation: Augmentation = AS_RECORDED

    def __post_init__(self) -> None:
        """Refuse what would only fail, or deceive, after hours."""
        self._check_numbers()
        if self.method not in METHODS:
            msg = f'method is {self.method!r}: give {", ".join(METHODS)}'
            raise BadConfig(msg)
        if (self.epochs is None) == (self.steps is None):
            msg = f'epochs is {self.epochs} and steps is {self.steps}: give one of the two'
            raise BadConfig(msg)
        if (self.towns is None) != (self.held_out is None):
            msg = 'towns and held_out go together: give both, or neither and an index'
            raise BadConfig(msg)
        shared = set()
        if self.towns is not None and self.held_out is not None:
            shared = set(self.towns.seeds) & set(self.held_out.seeds)
        if shared:
            msg = f'town {min(shared)} is learnt from and held out: move held_out.first_seed'
            raise BadConfig(msg)
        if self.memory and self.sweeps == 1:
            msg = 'sweeps is 1, which leaves nothing to remember: give 2 or more, or no memory'
            raise BadConfig(msg)
        if self.frozen:
            self._check_frozen()
        elif self.hidden or self.points_per_sweep != POINTS_PER_SWEEP:
            name = 'hidden' if self.hidden else 'points_per_sweep'
            msg = f'{name} means nothing to {self.method}, which learns a linear head: remove it'
            raise BadConfig(msg)
        elif self.model is None and self.warm_start is None:
            msg = 'model is null: give a file of config/models, or warm_start (--start)'
            raise BadConfig(msg)

    @property
    def frozen(self) -> bool:
        """Whether only a head is learnt."""
        return self.method != 'fine_tune'

    def _check_numbers(self) -> None:
        for name in ('epochs', 'steps', 'score_every', 'batch', 'sweeps', 'points_per_sweep'):
            value = getattr(self, name)
            if value is not None and value < 1:
                msg = f'{name} is {value}: give 1 or more'
                raise BadConfig(msg)
        for name in ('learning_rate', 'encoder_learning_rate', 'weight_decay', 'warm_up'):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                msg = f'{name} is {value}: give 0 to 1'
                raise BadConfig(msg)
        for name, most in (('motion_weight', 100), ('hidden', 1 << 14)):
            if not 0 <= getattr(self, name) <= most:
                msg = f'{name} is {getattr(self, name)}: give 0 to {most}'
                raise BadConfig(msg)
        if self.seed < 0:
            msg = f'seed is {self.seed}: give 0 or more'
            raise BadConfig(msg)
        if not 0 < self.label_fraction <= 1:
            msg = f'label_fraction is {self.label_fraction}: give more than 0, up to 1'
            raise BadConfig(msg)

    def _check_frozen(self) -> None:
        if self.warm_start is None:
            msg = f'{self.method} learns a head for a checkpoint: give warm_start (--start)'
            raise BadConfig(msg)
        plain = {
            'model': None,
            'sweeps': None,
            'memory': True,
            'score_every': None,
            'encoder_learning_rate': None,
            'warm_up': 0.0,
            'motion_weight': 0.0,
            'augmentation': AS_RECORDED,
        }
        for name, value in plain.items():
            if getattr(self, name) != value:
                msg = f'{name} means nothing to {self.method}, which learns a head only: remove it'
                raise BadConfig(msg)
        if (self.hidden > 0) != (self.method == 'mlp_head'):
            msg = f'hidden is {self.hidden}: give channels to mlp_head, none to linear_probe'
            raise BadConfig(msg)


def trained_model(config: Training, model: ModelConfig) -> ModelConfig:
    """Return the model that a run trains: with as many sweeps as its windows, or with one.

    Raises:
        BadConfig: The model has no memory and is to have one, or its towns are driven through at
            another stride than its memory's.

    """
    memory = config.memory and (config.model is not None or model.sweeps > 1)
    for towns in (config.towns, config.held_out):
        if memory and towns is not None and towns.sweep_stride != model.sweep_stride:
            name = config.model or config.warm_start
            msg = (
                f'sweep_stride of the towns from {towns.first_seed} on is {towns.sweep_stride}, '
                f'that of {name} is {model.sweep_stride}: windows need the same'
            )
            raise BadConfig(msg)
    if memory:
        return replace(model, sweeps=config.sweeps or model.sweeps)
    return model.without_memory()


def load_training(path: Path, changes: Sequence[str] = ()) -> Training:
    """Read a file of `config/training/`.

    Args:
        path: YAML file.
        changes: As for `read_settings`.

    Raises:
        BadConfig: It is not YAML, or a key is unknown, missing or wrong; names the file.
        OSError: It cannot be read.

    """
    return read_settings(Training, path, changes)[0]
