# SPDX-License-Identifier: Apache-2.0
"""Teach a network classes by a few clicked points of a recording: no training, no other labels.

    python -m offline_training.label_by_clicks runs/first/model.safetensors out/taught.safetensors \
        --bag drive_1 --clicks clicks.csv
    python -m offline_training.label_by_clicks config/demo.safetensors out/taught.safetensors \
        --index out/index.parquet --clicks clicks.csv

The CSV has the columns stamp_ns (of the sweep; or sweep, its number from 0), x, y, z (m, in the
sensor's frame, as RViz shows them for the cloud's own frame) and class. The nearest point within
0.3 m becomes an example of the class; a class that the network's head has already is meant, a new
name is added. What was taught before stays. The node does the same live: see /clicked_point.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from cross4d_jepa_ros.model.checkpoint import load_checkpoint, save_checkpoint
from cross4d_jepa_ros.model.prototypes import Prototypes
from cross4d_jepa_ros.progress import Bars
from offline_training.logs.table import Index
from offline_training.naming.answers import Answers, add_source, index_of
from offline_training.naming.clicks import read_clicks, taught
from offline_training.optimisation import deterministic

# Sweeps that a normalisation is fitted to where the checkpoint has none.
FITTED_SWEEPS = 16


def teach(start: Path, out: Path, index: Index, clicks: Path, console: Console) -> None:
    """Add the examples of a file of clicks to a checkpoint.

    Args:
        start: Checkpoint; stays as it is.
        out: Checkpoint to write.
        index: Of the recordings that were clicked on.
        clicks: CSV.
        console: Where progress and results go.

    Raises:
        BadCheckpoint: The start is refused.
        BadClicks: A click is.
        BadIndex: A log is gone or has changed since it was indexed.
        OSError: The disk refuses.

    """
    given = read_clicks(clicks)
    loaded = load_checkpoint(start)
    with (
        deterministic(),
        Answers(loaded.network, index) as answers,
        Bars(console) as progress,
    ):
        if not loaded.network.normalisation.fitted:
            some = [answers.answer(place).embedding for place in answers.spread(FITTED_SWEEPS)]
            loaded.network.normalisation.fit(torch.cat(some))
            console.print(
                f'{start} has no normalisation of its embeddings yet: fitted to {len(some)} sweeps'
            )
        task = progress.add_task('clicks', total=len(given))
        prototypes = taught(
            loaded.network,
            loaded.prototypes,
            answers,
            given,
            clicks,
            lambda: progress.advance(task),
        )
    save_checkpoint(out, loaded.contract, loaded.network, prototypes)
    console.print(_table(prototypes, Counter(click.name for click in given)))
    console.print(f'{out}: {len(given)} examples more')


def _table(prototypes: Prototypes, new: Counter[str]) -> Table:
    table = Table('class', 'examples', 'new')
    for name, count in zip(prototypes.names, prototypes.counts, strict=True):
        table.add_row(name, str(count), str(new[name]))
    return table


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('start', type=Path, help='checkpoint')
    parser.add_argument('out', type=Path, help='checkpoint to write')
    add_source(parser)
    parser.add_argument('--clicks', type=Path, required=True, help='CSV')
    arguments = parser.parse_args(argv)
    console = Console()
    try:
        index = index_of(arguments.bag, arguments.index)
        teach(arguments.start, arguments.out, index, arguments.clicks, console)
    except (ValueError, OSError) as error:
        console.print(str(error), style='red', markup=False, soft_wrap=True)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
