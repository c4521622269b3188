# SPDX-License-Identifier: Apache-2.0
"""Measure what a checkpoint answers to a recording, or to the logs of an index.

    python -m offline_training.evaluate drive config/demo.safetensors --out out/evaluation
    python -m offline_training.evaluate index.parquet model.safetensors --labels map.yaml
    python -m offline_training.evaluate drive config/demo.safetensors --video out/drive.mp4
    python -m offline_training.evaluate drive model.safetensors --frame-log node.jsonl
    python -m offline_training.evaluate unseen.parquet model.safetensors --features learnt.parquet
    python -m offline_training.evaluate drive config/demo.safetensors --stress

Every sweep goes through the pipeline as in the node; with a frame log of the node, exactly as in
that one, and the answers are compared byte by byte. Leaves report.json (the same bytes for the same
input, checkpoint and number of threads), cost.json (times) and pictures in the folder.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console

from cross4d_jepa_ros.files import write_atomically
from cross4d_jepa_ros.model.checkpoint import read_contract
from cross4d_jepa_ros.pipeline import Perception, Pipeline
from cross4d_jepa_ros.progress import Bars
from offline_training.evaluation.answers import AnswerScores, answered
from offline_training.evaluation.cost import Cost
from offline_training.evaluation.pictures import Shown, draw
from offline_training.evaluation.replayed_log import ReplayedLog
from offline_training.evaluation.report import print_report
from offline_training.evaluation.sources import INDEX_SUFFIX, Source, Swept
from offline_training.evaluation.stability import Stability, print_stability
from offline_training.evaluation.stress import stress
from offline_training.evaluation.video import SUFFIX, Video
from offline_training.evaluation.worth import (
    common_classes,
    feature_report,
    print_features,
    teacher_report,
)
from offline_training.evaluation.written_bag import AnswerBags
from offline_training.label_map import load_label_map
from offline_training.logs.bag_index import BagChoice


def main(argv: list[str] | None = None) -> int:
    """Run the command; 1 where a frame log differs, 2 where it could not be run."""
    arguments = _parser().parse_args(argv)
    console = Console()
    try:
        return _run(arguments, console)
    except (ValueError, OSError) as error:
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
    parser.add_argument('--write-bag', type=Path, help='folder of a recording of the answers')
    parser.add_argument(
        '--video', type=Path, help='.mp4 to write: every sweep in its cameras and from above'
    )
    parser.add_argument('--frame-log', type=Path, help='of a node: do again what it did')
    parser.add_argument(
        '--features', type=Path, help='recording or index to fit probes on; SOURCE judges them'
    )
    parser.add_argument('--targets', type=Path, help="teacher's features of both, cache_targets")
    parser.add_argument('--stress', action='store_true', help='worse sensors, again and again')
    BagChoice.add_arguments(parser)
    parser.add_argument('--device', default='auto', help='auto, cpu or cuda')
    parser.add_argument('--threads', type=int, default=0, help='CPU threads; 0: as PyTorch chooses')
    return parser


def _run(arguments: argparse.Namespace, console: Console) -> int:
    choice = BagChoice.of(arguments)
    labels = None if arguments.labels is None else load_label_map(arguments.labels)
    _check_together(arguments)
    steady = Stability.of(arguments.checkpoint)
    source: Source | ReplayedLog
    if arguments.frame_log is None:
        source = Source(arguments.source, choice, labels)
        pipeline = Pipeline(
            arguments.checkpoint, device=arguments.device, threads=arguments.threads
        )
        stream = steady.watching(pipeline, answered(pipeline, source))
    else:
        source = ReplayedLog(arguments.source, arguments.frame_log, choice, labels)
        run = source.run
        pipeline = Pipeline(
            arguments.checkpoint, device=run.device, precision=run.precision, threads=run.threads
        )
        source.last_settings.apply(pipeline)  # for the names of all classes
        stream = source.answered(pipeline)
    fit = None
    if isinstance(source, Source) and arguments.features is not None:
        fit = Source(arguments.features, choice, labels)
        common_classes(fit, source)
    pipeline.warm_up()
    report = _evaluate(source, stream, pipeline, arguments, console)
    if isinstance(source, Source):
        report['stability'] = steady.report()
        report['problems'] += steady.problems
        print_stability(report['stability'], console)
        for problem in steady.problems:
            console.print(problem, style='yellow', markup=False, highlight=False)
    if isinstance(source, Source) and fit is not None:
        worth = feature_report(arguments.checkpoint, fit, source, arguments.out, console)
        if arguments.targets is not None:
            both = arguments.features, arguments.source
            worth['teacher_r2'] = teacher_report(
                arguments.checkpoint, *both, arguments.targets, console
            )
        print_features(worth, console)
        report['features'] = worth
    if arguments.stress:
        stress(pipeline, arguments.source, choice, labels, arguments.out, console)
    write_atomically(arguments.out / 'report.json', json.dumps(report, indent=2) + '\n')
    return 0 if not isinstance(source, ReplayedLog) or source.agrees else 1


def _check_together(arguments: argparse.Namespace) -> None:
    if arguments.frame_log is not None and (arguments.features or arguments.stress):
        msg = '--frame-log does again what a node did: leave out --features and --stress'
        raise ValueError(msg)
    if arguments.video is not None and arguments.video.suffix != SUFFIX:
        msg = f'--video: {arguments.video} has to end in {SUFFIX}'
        raise ValueError(msg)
    if arguments.targets is not None and arguments.features is None:
        msg = '--targets tell what features are worth: give --features as well'
        raise ValueError(msg)
    for path in () if arguments.targets is None else (arguments.source, arguments.features):
        if path.suffix != INDEX_SUFFIX:
            msg = f'--targets belong to indices, {path} is none: make one with index_bags'
            raise ValueError(msg)
    if arguments.targets is not None and read_contract(arguments.checkpoint).colour:
        msg = f'--targets: {arguments.checkpoint} looks at colours, which the targets come from'
        raise ValueError(msg)


def _evaluate(
    source: Source | ReplayedLog,
    stream: Iterator[tuple[Swept, Perception]],
    pipeline: Pipeline,
    arguments: argparse.Namespace,
    console: Console,
) -> dict[str, Any]:
    """Answer every sweep, write everything but the report, and return that."""
    out = arguments.out
    contract = pipeline.contract
    names, palette = contract.answer_names, contract.answer_palette
    scores = AnswerScores(names, source.class_names, contract.model.range_m)
    cost = Cost()
    shown: Shown | None = None
    colours = dict(zip(names, palette, strict=True))
    total = len(source)
    with ExitStack() as stack:
        bags = video = None
        if arguments.write_bag is not None:
            written = AnswerBags(arguments.write_bag, source.logs, names, palette)
            bags = stack.enter_context(written)
        if arguments.video is not None:
            video = stack.enter_context(
                Video(
                    arguments.video, arguments.checkpoint.name, colours, source.class_names, total
                )
            )
        progress = stack.enter_context(Bars(console, 'sweeps'))
        task = progress.add_task('sweeps answered', total=total)
        for place, (swept, perception) in enumerate(stream):
            scores.add(swept, perception)
            cost.add(perception)
            if bags is not None:
                bags.add(swept, perception)
            this = Shown(swept, perception, source.cameras)
            if video is not None:
                video.add(this)
            if place <= total // 2:
                shown = this
            progress.advance(task)
    report: dict[str, Any] = {
        'source': str(source.path),
        'logs': list(source.logs),
        'model': str(arguments.checkpoint),
        'model_sha256': pipeline.model_sha256,
        'model_training': contract.training['kind'],
        'classes': list(names),
        **scores.report(),
        'dropped': dict(sorted(source.dropped.items())),
        'problems': [*source.problems, *scores.problems],
    }
    if isinstance(source, ReplayedLog):
        report['frame_log'] = source.report()
    costs = cost.report(pipeline)
    write_atomically(out / 'cost.json', json.dumps(costs, indent=2) + '\n')
    draw(out, report, shown, colours, source.class_names)
    print_report(report, costs, console)
    console.print(f'report.json, cost.json and pictures in {out}', highlight=False)
    if video is not None:
        console.print(video.told, highlight=False, markup=False, soft_wrap=True)
    return report


if __name__ == '__main__':
    sys.exit(main())
