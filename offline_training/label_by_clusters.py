# SPDX-License-Identifier: Apache-2.0
"""Give a pretrained network classes without any label: clusters of what it sees.

    python -m offline_training.label_by_clusters runs/first.safetensors out/found.safetensors \
        --index out/index.parquet --clusters 16
    python -m offline_training.label_by_clusters runs/first.safetensors out/named.safetensors \
        --bag drive_1 --clusters 16 --names names.yaml

Classes are called cluster_00, cluster_01, … by how much of the recordings they fill. Look at them
in RViz, write names such as "3: car" into a YAML file and run again: clusters of one name become
one class. The same recordings and numbers give the same bytes. Beside OUT it leaves a report
(.json): the share of each class, and how many points keep theirs from one sweep to the next.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from cross4d_jepa_ros.files import write_atomically
from cross4d_jepa_ros.model.checkpoint import (
    Checkpoint,
    Contract,
    load_checkpoint,
    save_checkpoint,
)
from cross4d_jepa_ros.model.config import BadConfig, Segmentation
from cross4d_jepa_ros.model.network import Network
from cross4d_jepa_ros.progress import Bars
from offline_training.frozen_head import fold
from offline_training.logs.table import Index
from offline_training.naming.answers import Answers, add_source, index_of
from offline_training.naming.clusters import (
    MOST_CLUSTERS,
    PAIRS,
    SWEEPS,
    class_names,
    fill,
    k_means,
    palette,
    read_names,
    spread_points,
    steadiness,
)
from offline_training.naming.renamed import record_of, with_head
from offline_training.optimisation import deterministic
from offline_training.probes import ProbeConfig, fit_probe

# Of the hidden layer that makes one class of several clusters.
MERGING_WIDTH, MERGING_STEPS = 64, 2000


def name_by_clusters(
    start: Checkpoint,
    index: Index,
    clusters: int,
    names: dict[int, str],
    *,
    seed: int,
    command: str,
    console: Console,
) -> tuple[Contract, Network, dict[str, Any]]:
    """Find clusters in recordings whose labels are not read, and make a head of them.

    Args:
        start: Any checkpoint; a head that it has is replaced.
        index: Recordings.
        clusters: How many.
        names: Of clusters by number; the others are called after their number.
        seed: Of the points that are looked at and of where clusters begin.
        command: How to make the checkpoint again; goes into its contract.
        console: Where progress goes.

    Returns:
        Contract and network to save, and a report.

    Raises:
        BadIndex: A log is gone or has changed since it was indexed.
        BadConfig: There are fewer different points than clusters.

    """
    with (
        deterministic(),
        Answers(start.network, index) as answers,
        Bars(console) as progress,
    ):
        looking = progress.add_task('sweeps', total=len(answers.spread(SWEEPS)))
        comparing = progress.add_task('pairs of sweeps', total=len(answers.spread(PAIRS)))
        points = spread_points(answers, seed, lambda: progress.advance(looking))  # (N, C)
        normalisation = start.network.normalisation
        if not normalisation.fitted:
            normalisation.fit(points)
        found = k_means(normalisation.whitened(points), clusters, seed)
        classes, class_of = class_names(clusters, names)
        merging = len(classes) < clusters
        training = record_of(start, 'clusters', command, seed)
        training |= {'data': f'{len(index.rows)} sweeps without labels', 'clusters': clusters}
        colours = palette(clusters)
        contract, network = with_head(
            start,
            classes,
            [colours[class_of.index(number)] for number in range(len(classes))],
            Segmentation(hidden=MERGING_WIDTH if merging else 0),
            training,
        )
        head = network.segmentation
        assert head is not None
        # Nearest centre (N,), and the class of that.
        member = (normalisation.whitened(points).double() @ found.centres.T).sub_(
            found.centres.square().sum(1) / 2
        )
        wanted = torch.tensor(class_of)[member.argmax(1)]  # (N,)
        if merging:
            label = wanted.numpy().astype(np.uint8)
            config = ProbeConfig(hidden=(MERGING_WIDTH,), epochs=1, least_steps=MERGING_STEPS)
            fold(fit_probe(config, points.numpy(), label, len(classes), seed), head)
        else:
            fill(head, normalisation, found)

        def classify(embedding: Tensor) -> Tensor:
            return head.classify(embedding)[0]  # (L,)

        answer = classify(points).long()  # (N,)
        kept, compared = steadiness(answers, classify, lambda: progress.advance(comparing))
    share = torch.bincount(answer, minlength=len(classes)) / len(answer)  # (classes,)
    report = {
        'classes': dict(zip(classes, share.tolist(), strict=True)),
        'points': len(points),
        'as_clustered': float((answer == wanted).double().mean()),
        'kept_from_sweep_to_sweep': kept,
        'compared_points': compared,
        'start_sha256': start.sha256,
    }
    return contract, network, report


def _table(contract: Contract, report: dict[str, Any]) -> Table:
    table = Table('id', 'class', 'share of places', 'colour')
    for number, (name, share) in enumerate(report['classes'].items()):
        red, green, blue = contract.palette[number]
        colour = f'[rgb({red},{green},{blue})]███[/]'
        table.add_row(str(number), name, f'{share:.1%}', colour)
    return table


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('start', type=Path, help='checkpoint')
    parser.add_argument('out', type=Path, help='checkpoint to write')
    add_source(parser)
    parser.add_argument('--clusters', type=int, default=16, help='how many')
    parser.add_argument('--names', type=Path, help='YAML: number of a cluster to its name')
    parser.add_argument('--seed', type=int, default=0)
    arguments = parser.parse_args(words)
    console = Console()
    try:
        count = arguments.clusters
        if not 2 <= count <= MOST_CLUSTERS:
            msg = f'--clusters is {count}: give 2 to {MOST_CLUSTERS}'
            raise BadConfig(msg)
        names = read_names(arguments.names, count) if arguments.names else {}
        start = load_checkpoint(arguments.start)
        contract, network, report = name_by_clusters(
            start,
            index_of(arguments.bag, arguments.index),
            count,
            names,
            seed=arguments.seed,
            command=shlex.join(['python', '-m', 'offline_training.label_by_clusters', *words]),
            console=console,
        )
        save_checkpoint(arguments.out, contract, network, start.prototypes)
        text = json.dumps(report, indent=2) + '\n'
        write_atomically(arguments.out.with_suffix('.json'), text)
    except (ValueError, OSError) as error:
        console.print(str(error), style='red', markup=False, soft_wrap=True)
        return 2
    console.print(_table(contract, report))
    kept = report['kept_from_sweep_to_sweep']
    steady = 'no poses: cannot say how many points keep their class from sweep to sweep'
    if kept is not None:
        steady = f'{kept:.1%} of the points keep their class from one sweep to the next'
    console.print(f'{arguments.out}: {steady}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
