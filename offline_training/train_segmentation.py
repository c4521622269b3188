# SPDX-License-Identifier: Apache-2.0
"""Learn a segmentation from labelled sweeps; one YAML is one run.

    python -m offline_training.train_segmentation config/training/linear_probe.yaml \
        out/probe.safetensors --index out/index.parquet --labels config/label_maps/street.yaml \
        --start runs/first/model.safetensors
    python -m offline_training.train_segmentation config/training/demo.yaml config/demo.safetensors

Labels come from an index of index_bags (label clouds of bags, labels of SemanticKITTI-style
folders), or from made-up streets, which are made where they are not there yet. Interrupted and
started again, it goes on after its last score and ends with the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from cross4d_jepa_ros.files import one_writer
from cross4d_jepa_ros.model.checkpoint import Contract, save_checkpoint
from cross4d_jepa_ros.model.config import BadConfig, ModelConfig
from cross4d_jepa_ros.progress import Bars
from offline_training.indexed_sweeps import HELD_OUT, indexed_sweeps, without_end
from offline_training.label_map import LabelMap, load_label_map
from offline_training.labelled_sweeps import FORMAT, SweepFiles, read_recording, write_sweeps
from offline_training.logs.table import Index
from offline_training.make_street_bag import VERSION
from offline_training.segmentation_training import LabelledData, started, train_on
from offline_training.street.classes import CLASS_NAMES, PALETTE
from offline_training.street_recordings import record_towns, remove_recording
from offline_training.training_settings import Towns, Training, load_training


@dataclass(frozen=True)
class Indexed:
    """Recordings with labels.

    Attributes:
        learnt: File of `index_bags` to learn from.
        held_out: Another to score on; None for the end of each log of the first.
        label_map: What becomes of their labels.

    """

    learnt: Path
    held_out: Path | None
    label_map: LabelMap


def sweep_files(config: Training, towns: Towns, range_m: float, console: Console) -> SweepFiles:
    """Open the sweeps of some towns, after making what is not there yet.

    Raises:
        BadSweeps: A file of them is damaged.
        InUse: Another process makes sweeps there.

    """
    work = Path(config.work)
    ending = f'{towns.seconds:g}s_{towns.sweep_stride}_{range_m:g}m_{FORMAT}.safetensors'
    paths = {seed: work / 'sweeps' / f'street_{VERSION}_{seed}_{ending}' for seed in towns.seeds}
    if not all(path.exists() for path in paths.values()):
        # Recordings are removed once their sweeps are read.
        with one_writer(work / 'sweeps' / '.lock', f'the sweeps in {work}'):
            _make_sweeps(config, towns, paths, range_m, console)
    return SweepFiles(list(paths.values()))


def _make_sweeps(
    config: Training, towns: Towns, paths: dict[int, Path], range_m: float, console: Console
) -> None:
    folder = Path(config.work) / 'recordings'
    absent = [seed for seed, path in paths.items() if not path.exists()]
    with Bars(console) as progress:
        driving = progress.add_task('driving through towns', total=len(absent))
        reading = progress.add_task('reading their sweeps', total=len(absent))
        recordings = record_towns(folder, absent, towns.seconds, lambda: progress.advance(driving))
        for seed, recording in recordings.items():
            sweeps = read_recording(
                recording, CLASS_NAMES, stride=towns.sweep_stride, range_m=range_m
            )
            write_sweeps(paths[seed], list(sweeps))
            # Some 40 MB a second of driving; the sweeps are all that is learnt from.
            remove_recording(recording)
            progress.advance(reading)


def train(
    config: Training, command: str, out: Path, console: Console, indexed: Indexed | None = None
) -> Contract:
    """Train, score, and write the checkpoint.

    Args:
        config: The run.
        command: How to make the checkpoint again; goes into its contract.
        out: Checkpoint to write.
        console: Where progress goes.
        indexed: What to learn from; None for the towns of `config`.

    Raises:
        BadConfig: The model's file is refused, the towns are driven at another stride, there are
            towns and an index, or neither, or a sweep is learnt from and held out.
        BadCheckpoint: What to start from is refused.
        BadIndex: An index is refused.
        BadLabels: Labels do not fit their sweeps or the label map.
        BadSweeps: A file of sweeps is damaged.
        BadState: The state to go on from is damaged.
        InUse: Another process trains the same, or makes its sweeps.
        BadBag: A recording cannot be made.
        UnfitBag: A recording is of another street.
        OSError: The disk refuses.

    """
    model, _ = started(config)
    if indexed is not None:
        data = _of_index(config, indexed, model, console)
    else:
        data = _of_towns(config, model, console)
    state = Path(config.work)
    trained = train_on(config, data, command=command, console=console, state=state)
    save_checkpoint(out, trained.contract, trained.network, trained.prototypes)
    return trained.contract


def _of_towns(config: Training, model: ModelConfig, console: Console) -> LabelledData:
    if config.towns is None or config.held_out is None:
        msg = 'there is nothing to learn from: give --index and --labels, or towns in the settings'
        raise BadConfig(msg)
    learnt = sweep_files(config, config.towns, model.range_m, console)
    return LabelledData(
        learnt=learnt,
        held_out=sweep_files(config, config.held_out, model.range_m, console),
        class_names=CLASS_NAMES,
        palette=tuple(PALETTE.values()),
        source=(
            f'street {VERSION}, {config.towns.count} towns (seeds {config.towns.seeds[0]} to '
            f'{config.towns.seeds[-1]}) of {config.towns.seconds:g} s, {len(learnt)} sweeps'
        ),
    )


def _of_index(
    config: Training, indexed: Indexed, model: ModelConfig, console: Console
) -> LabelledData:
    if config.towns is not None:
        msg = 'there are an index and towns: leave out --index, or towns and held_out'
        raise BadConfig(msg)
    learnt = Index.load(indexed.learnt)
    if indexed.held_out is None:
        learnt, held_out = without_end(learnt)
        ending = f'; the last {HELD_OUT:.0%} of each log held out'
        console.print(f'no --held-out is given: the last {HELD_OUT:.0%} of each log are held out')
    else:
        held_out = Index.load(indexed.held_out)
        shared = learnt.sweeps() & held_out.sweeps()
        if shared:
            path, stamp_ns = min(shared)
            msg = (
                f'the sweep of {path} at {stamp_ns} ns is learnt from and held out: give an index '
                'of other recordings to --held-out, or leave it out'
            )
            raise BadConfig(msg)
        ending = f'; {indexed.held_out.name} ({_sha256(indexed.held_out)}) held out'
    files = [
        _sweeps_of(index, config, indexed.label_map, model, console) for index in (learnt, held_out)
    ]
    return LabelledData(
        learnt=files[0],
        held_out=files[1],
        class_names=indexed.label_map.names,
        palette=indexed.label_map.palette,
        source=(
            f'{indexed.learnt.name} ({_sha256(indexed.learnt)}), {len(files[0].labelled)} labelled '
            f'sweeps of {len({row.log for row in learnt.rows})} logs{ending}'
        ),
    )


def _sweeps_of(
    index: Index, config: Training, label_map: LabelMap, model: ModelConfig, console: Console
) -> SweepFiles:
    with Bars(console, 'sweeps') as progress:
        total = sum(row.usable for row in index.rows)
        task = progress.add_task('reading labelled sweeps', total=total)
        return indexed_sweeps(
            index,
            label_map,
            Path(config.work) / 'sweeps',
            range_m=model.range_m,
            stride=model.sweep_stride,
            colour=model.colour,
            on_sweep=lambda: progress.advance(task),
        )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', type=Path, help='a file of config/training')
    parser.add_argument('out', type=Path, help='checkpoint to write')
    parser.add_argument('--index', type=Path, help='file of index_bags, to learn from')
    parser.add_argument('--held-out', type=Path, help='another, to score on')
    parser.add_argument('--labels', type=Path, help='label map of both')
    parser.add_argument('--start', type=Path, help='checkpoint to start from')
    parser.add_argument('--set', action='append', default=[], metavar='KEY=VALUE')
    words = list(sys.argv[1:] if argv is None else argv)
    arguments = parser.parse_args(words)
    console = Console()
    command = shlex.join(['python', '-m', 'offline_training.train_segmentation', *words])
    changes = list(arguments.set)
    if arguments.start is not None:
        changes.append(f'warm_start={json.dumps(str(arguments.start))}')
    try:
        config = load_training(arguments.config, changes)
        indexed = None
        if arguments.index is not None and arguments.labels is not None:
            label_map = load_label_map(arguments.labels)
            indexed = Indexed(arguments.index, arguments.held_out, label_map)
        elif arguments.index is not None or arguments.labels is not None or arguments.held_out:
            msg = '--index and --labels go together, --held-out only with them'
            raise BadConfig(msg)
        contract = train(config, command, arguments.out, console, indexed)
    except (ValueError, OSError) as error:
        console.print(str(error), style='red', markup=False)
        return 2
    console.print(f'{arguments.out}: held-out mIoU {contract.training["miou"]}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
