# SPDX-License-Identifier: Apache-2.0
"""The recordings that everything is measured on, with index, targets and labelled sweeps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from cross4d_jepa_ros.progress import Bars
from offline_training.labelled_sweeps import FORMAT, SweepFiles, read_recording, write_sweeps
from offline_training.results.commands import run
from offline_training.results.settings import Results
from offline_training.street.classes import CLASS_NAMES
from offline_training.street_recordings import STREET_TOPICS, record_towns
from offline_training.training_settings import Towns

RANGE_M = 60.0


@dataclass(frozen=True)
class Part:
    """Towns to learn from, or to be judged on.

    Attributes:
        bags: A recording of each town.
        index: Of all of them.
        sweeps: Some labelled sweeps of each, in the order of `bags`.
        label_images: Folder of images with labels.
        told: What it is, in words.

    """

    bags: tuple[Path, ...]
    index: Path
    sweeps: SweepFiles
    label_images: Path
    told: str


@dataclass(frozen=True)
class Recordings:
    """All there is.

    Attributes:
        targets: Of the teacher for the images of both parts.

    """

    learnt: Part
    judged: Part
    targets: Path


def recordings(config: Results, out: Path, console: Console) -> Recordings:
    """Make what is not there yet.

    Raises:
        CommandFailed: An index or targets cannot be made.
        BadBag: A recording cannot be made.
        OSError: The disk refuses.

    """
    parts = {}
    targets = out / 'targets'
    for name, towns in (('learnt', config.learnt), ('judged', config.judged)):
        part = _part(name, towns, out, console)
        parts[name] = part
        words = [str(part.index), '--teacher', config.teacher]
        words += ['--input-height', str(config.input_height), '--out', str(targets)]
        run('cache_targets', words, out / 'done', console)
    return Recordings(parts['learnt'], parts['judged'], targets)


def _part(name: str, towns: Towns, out: Path, console: Console) -> Part:
    labels = out / f'label_images_{name}'
    with Bars(console) as progress:
        task = progress.add_task('driving through towns', total=towns.count)
        made = record_towns(
            out / 'recordings',
            towns.seeds,
            towns.seconds,
            lambda: progress.advance(task),
            label_images=labels,
        )
    bags = tuple(made[seed] for seed in towns.seeds)
    index = out / f'{name}.parquet'
    words = [*map(str, bags), *STREET_TOPICS, '--out', str(index)]
    run('index_bags', words, out / 'done', console)
    told = (
        f'street towns {towns.seeds[0]} to {towns.seeds[-1]}, {towns.seconds:g} s each '
        f'({towns.count} drives)'
    )
    return Part(bags, index, _sweeps(bags, towns, out / 'sweeps', console), labels, told)


def _sweeps(bags: tuple[Path, ...], towns: Towns, folder: Path, console: Console) -> SweepFiles:
    paths = []
    with Bars(console) as progress:
        task = progress.add_task('reading labelled sweeps', total=len(bags))
        for bag in bags:
            path = folder / f'{bag.name}_{towns.sweep_stride}_{FORMAT}.safetensors'
            if not path.exists():
                sweeps = read_recording(
                    bag, CLASS_NAMES, stride=towns.sweep_stride, range_m=RANGE_M
                )
                write_sweeps(path, list(sweeps))
            paths.append(path)
            progress.advance(task)
    return SweepFiles(paths)
