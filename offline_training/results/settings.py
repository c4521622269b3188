# SPDX-License-Identifier: Apache-2.0
"""What is measured: one YAML file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cross4d_jepa_ros.model.config import BadConfig, read_config
from offline_training.training_settings import Towns


@dataclass(frozen=True)
class Method:
    """One way to pretrain.

    Attributes:
        preset: File of `config/pretraining/`, without its ending.
        changes: `key=value`, beside those of all methods.

    """

    preset: str
    changes: tuple[str, ...]


@dataclass(frozen=True)
class FineTuning:
    """How all weights are trained, pretrained or not.

    Attributes:
        method: Of the pretraining.
        claim: Share of the labelled sweeps that the learning rate is chosen with.
        shares: All shares.
        learning_rates: To choose from, of the pretrained networks.
        scratch_learning_rates: Likewise, of those as they were drawn.
        points_kept: Share of a sweep's points in training, from and to.
        steps: The same for all.
        batch: Windows of a step.

    """

    method: str
    claim: float
    shares: tuple[float, ...]
    learning_rates: tuple[float, ...]
    scratch_learning_rates: tuple[float, ...]
    points_kept: tuple[float, float]
    steps: int
    batch: int


@dataclass(frozen=True)
class Results:
    """All measurements.

    Attributes:
        seeds: Of weights, order and draws; each method is trained with each.
        learnt: Towns to learn from.
        judged: Towns to be judged on.
        teacher: Of the targets.
        input_height: Rows of the images that it sees.
        changes: `key=value` of all pretrainings.
        methods: By what they are called.
        fine_tuning: Of one of them.
        naming: Method whose networks get names from images and clicks.
        stressed: Checkpoint that is put under stress.

    """

    seeds: tuple[int, ...]
    learnt: Towns
    judged: Towns
    teacher: str
    input_height: int
    changes: tuple[str, ...]
    methods: dict[str, Method]
    fine_tuning: FineTuning
    naming: str
    stressed: str

    def __post_init__(self) -> None:
        """Refuse what would judge on what was learnt.

        Raises:
            BadConfig: A town is in both sets, or a method is asked for that there is not.

        """
        for name in (self.fine_tuning.method, self.naming):
            if name not in self.methods:
                msg = f'{name!r} is none of the methods: give {", ".join(self.methods)}'
                raise BadConfig(msg)
        shared = set(self.learnt.seeds) & set(self.judged.seeds)
        if shared:
            msg = f'town {min(shared)} is learnt from and judged on: move judged.first_seed'
            raise BadConfig(msg)


def load_results(path: Path) -> Results:
    """Read the file.

    Raises:
        BadConfig: It is not YAML, or a key is unknown, missing or wrong; names the file.
        OSError: It cannot be read.

    """
    return read_config(Results, path)
