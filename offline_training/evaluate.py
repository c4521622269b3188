# SPDX-License-Identifier: Apache-2.0
"""Measure what a checkpoint answers to a recording, or to the logs of an index.

    python -m offline_training.evaluate drive config/demo.safetensors --out out/evaluation

Every sweep goes through the pipeline as in the node. Leaves report.json (the same bytes for the
same input, checkpoint and number of threads), cost.json (times) and pictures in the folder.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from cross4d_jepa_ros.bag_setup import UnfitBag
from cross4d_jepa_ros.bags import BadBag
from cross4d_jepa_ros.files import write_atomically
from cross4d_jepa_ros.model.checkpoint import BadCheckpoint
from cross4d_jepa_ros.pipeline import Pipeline
from cross4d_jepa_ros.sensing.extrinsics import BadExtrinsics
from offline_training.evaluation.answers import AnswerScores, answered
from offline_training.evaluation.cost import Cost
from offline_training.evaluation.progress import bars
from offline_training.evaluation.report import print_report
from offline_training.evaluation.sources import Source
from offline_training.label_map import load_label_map
from offline_training.logs.bag_index import BagChoice
from offline_training.logs.table import BadIndex


def main(argv: list[str] | None = None) -> int:
    """Run the command; 2 where it could not be run."""
    arguments = _parser().parse_args(argv)
    console = Console()
    try:
        return _run(arguments, console)
    except (
        BadBag,
        BadCheckpoint,
        BadExtrinsics,
        BadIndex,
        UnfitBag,
        ValueError,
        OSError,
    ) as error:
        console.print(str(error), style='red', markup=False, highlight=False, soft_wrap=True)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('source', type=Path, help='recording, or index of index_bags (.parquet)')
    parser.add_argument('checkpoint', type=Path, help='.safetensors')
    parser.add_argument('--out', type=Path, default=Path('out/evaluation'), help='folder')
    parser.add_argument(
        '--labels', type=Path, help='label map, YAML; left out: classes as the recording names them'
    )
    parser.add_argument('--points', default='', help='PointCloud2 topic; optional if unique')
    parser.add_argument(
        '--images', nargs='*', help='image topics; left out: one of each camera with colour'
    )
    parser.add_argument('--camera-infos', nargs='*', default=[], help='one each, else by rule')
    parser.add_argument('--odometry', default='', help='nav_msgs/Odometry topic')
    parser.add_argument('--extrinsics', type=Path, help='YAML; left out: /tf_static of the bag')
    parser.add_argument('--device', default='auto', help='auto, cpu or cuda')
    parser.add_argument('--threads', type=int, default=0, help='CPU threads; 0: as PyTorch chooses')
    return parser


def _run(arguments: argparse.Namespace, console: Console) -> int:
    choice = BagChoice(
        points=arguments.points,
        images=None if arguments.images is None else tuple(arguments.images),
        camera_infos=tuple(arguments.camera_infos),
        odometry=arguments.odometry,
        extrinsics=arguments.extrinsics,
    )
    label_map = None if arguments.labels is None else load_label_map(arguments.labels)
    source = Source(arguments.source, choice, label_map)
    pipeline = Pipeline(arguments.checkpoint, device=arguments.device, threads=arguments.threads)
    pipeline.warm_up()
    contract = pipeline.contract
    scores = AnswerScores(contract.class_names, source.class_names, contract.model.range_m)
    cost = Cost()
    with bars(console) as progress:
        task = progress.add_task('sweeps answered', total=len(source))
        for swept, perception in answered(pipeline, source):
            scores.add(swept, perception)
            cost.add(perception)
            progress.advance(task)
    report: dict[str, Any] = {
        'source': str(source.path),
        'logs': list(source.logs),
        'model': str(arguments.checkpoint),
        'model_sha256': pipeline.model_sha256,
        'model_training': contract.training['kind'],
        **scores.report(),
        'dropped': dict(sorted(source.dropped.items())),
        'problems': [*source.problems, *scores.problems],
    }
    costs = cost.report(pipeline)
    write_atomically(arguments.out / 'report.json', json.dumps(report, indent=2) + '\n')
    write_atomically(arguments.out / 'cost.json', json.dumps(costs, indent=2) + '\n')
    print_report(report, costs, console)
    console.print(f'report.json, cost.json and pictures in {arguments.out}', highlight=False)
    return 0


if __name__ == '__main__':
    sys.exit(main())
