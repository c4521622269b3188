# SPDX-License-Identifier: Apache-2.0
"""Give a pretrained network class names from labelled images alone: no LiDAR label is read.

    python -m offline_training.label_by_images runs/first/model.safetensors out/named.safetensors \
        --images labelled/town labelled/suburb --labels config/label_maps/street.yaml \
        --index out/index.parquet

A folder holds images/NAME.jpg (or .png) and labels/NAME.png, whose grey values the label map
turns into classes. START has to be pretrained with dense correspondence: the head reads the space
of its image teacher. --index names recordings without labels, such as those it was pretrained on:
the head is matched to how points look there, which is worth much. Without --held-out the last
15 % of the images by name are held out. Beside OUT it leaves a report (.json) and a picture of
one held-out image (.png): photo, labels, answer.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from cross4d_jepa_ros.compute import choose
from cross4d_jepa_ros.files import write_atomically
from cross4d_jepa_ros.model.checkpoint import (
    Checkpoint,
    Contract,
    load_checkpoint,
    save_checkpoint,
)
from cross4d_jepa_ros.model.config import Segmentation
from cross4d_jepa_ros.model.network import Network
from cross4d_jepa_ros.progress import Bars
from cross4d_jepa_ros.segmentation_scores import UNKNOWN
from offline_training.frozen_head import fold
from offline_training.label_map import LabelMap, load_label_map
from offline_training.logs.table import Index
from offline_training.naming.answers import Answers
from offline_training.naming.image_head import (
    HIDDEN,
    MATCHED_SWEEPS,
    TeacherView,
    drawn_pixels,
    fit_head,
    matched,
    paired,
    score_images,
)
from offline_training.naming.labelled_images import BadImages, LabelledImage, labelled_images
from offline_training.naming.renamed import record_of, with_head
from offline_training.optimisation import deterministic
from offline_training.probes import Probe
from offline_training.teachers import BadTeacher, load_teacher

# The head that is kept is of the first; the others tell how much chance there is in its score.
SEEDS = (0, 1, 2)
HELD_OUT_SHARE = 0.15


@dataclass(frozen=True)
class Named:
    """A network that names classes.

    Attributes:
        report: Scores on pixels of held-out images.
        probe: The head before it was matched to points.

    """

    contract: Contract
    network: Network
    report: dict[str, Any]
    probe: Probe


def view_of(start: Checkpoint, path: Path, device: str) -> TeacherView:
    """Load the teacher that a network has learnt from.

    Raises:
        BadTeacher: There is none, or it has other weights now.

    """
    teacher, space = start.contract.teacher, start.network.teacher_space
    if teacher is None or space is None:
        msg = (
            f'{path} has no teacher space, so that no image says anything about its points: start '
            'from one that is pretrained with dense_correspondence (config/pretraining/'
            'cross4d_jepa.yaml, cross4d_jepa_described.yaml or combined.yaml)'
        )
        raise BadTeacher(msg)
    found = load_teacher(
        teacher.name, input_height=teacher.input_height, device=choose(device, 'fp32').device
    )
    if found.weights_sha256 != teacher.weights_sha256:
        msg = (
            f'{path} has learnt from {teacher.name} with weights {teacher.weights_sha256[:12]}, '
            f'here it has {found.weights_sha256[:12]}: install the weights that it was trained with'
        )
        raise BadTeacher(msg)
    return TeacherView(found, space)


def name_by_images(
    start: Checkpoint,
    view: TeacherView,
    learnt: Sequence[LabelledImage],
    held_out: Sequence[LabelledImage],
    label_map: LabelMap,
    index: Index | None,
    *,
    command: str,
    console: Console,
) -> Named:
    """Learn a head from labelled images, score it on others, and give it to the network.

    Args:
        start: With a teacher space.
        view: Its teacher.
        learnt: What the head is learnt from.
        held_out: What it is scored on.
        label_map: From the labels' values to classes.
        index: Recordings whose labels are not read, to match the head to points; None: not done.
        command: How to make the checkpoint again; goes into its contract.
        console: Where progress goes.

    Raises:
        BadImages: An image cannot be used, or no point of the index is visible in one.
        BadLabels: A value is not in the map.
        BadIndex: A log is gone, or none is usable.

    """
    space = start.network.teacher_space
    assert space is not None
    with deterministic(), Bars(console) as progress:
        task = progress.add_task('learnt images', total=len(learnt))
        pixels = drawn_pixels(view, learnt, label_map, SEEDS[0], lambda: progress.advance(task))
        heads = progress.add_task('heads', total=len(SEEDS))
        probes: list[Probe] = []
        for seed in SEEDS:
            probes.append(fit_head(pixels, len(label_map.names), seed))
            progress.advance(heads)
        scoring = progress.add_task('held-out images', total=len(held_out))
        scores = score_images(probes, view, held_out, label_map, lambda: progress.advance(scoring))
        front = None
        if index is not None:
            with Answers(start.network, index) as answers:
                matching = progress.add_task(
                    'sweeps without labels', total=len(answers.spread(MATCHED_SWEEPS))
                )
                pairs = paired(answers, view, space, SEEDS[0], lambda: progress.advance(matching))
            front = matched(probes[0], pairs, SEEDS[0])
    mious = [score.miou() or 0.0 for score in scores]
    report = {
        'images': {'learnt': len(learnt), 'held_out': len(held_out), 'pixels': scores[0].points},
        'miou': mious[0],
        'class_iou': scores[0].class_iou(),
        'miou_of_seeds': mious,
        'class_iou_of_seeds': [score.class_iou() for score in scores],
        'matched_to_points': front is not None,
        'start_sha256': start.sha256,
    }
    training = record_of(start, 'image_labels', command, SEEDS[0])
    training |= {
        'data': f'{len(learnt)} labelled images'
        + (f', {len(index.rows)} sweeps without labels' if index is not None else ''),
        'image_miou': round(mious[0], 4),
    }
    contract, network = with_head(
        start, label_map.names, label_map.palette, Segmentation('teacher', HIDDEN), training
    )
    assert network.segmentation is not None
    fold(probes[0], network.segmentation, front)
    return Named(contract, network, report, probes[0])


def parted(
    images: Sequence[LabelledImage],
) -> tuple[Sequence[LabelledImage], Sequence[LabelledImage]]:
    """Hold out the last images, at least one, so that neighbours in time stay together.

    Raises:
        BadImages: There is one image only.

    """
    if len(images) < 2:
        msg = f'{images[0].image} is the only labelled image: give more, or --held-out'
        raise BadImages(msg)
    last = max(1, round(HELD_OUT_SHARE * len(images)))
    return images[:-last], images[-last:]


def _check_apart(learnt: Sequence[LabelledImage], held_out: Sequence[LabelledImage]) -> None:
    known = {labelled.image.resolve() for labelled in learnt}
    for labelled in held_out:
        if labelled.image.resolve() in known:
            msg = f'{labelled.image} is learnt from and held out: give other folders to --held-out'
            raise BadImages(msg)


def picture(named: Named, view: TeacherView, shown: LabelledImage, label_map: LabelMap) -> bytes:
    """Draw an image, its labels and the head's answer below each other, as PNG."""
    image, label = shown.read(label_map)
    height, width = label.shape
    row, column = np.mgrid[0:height, 0:width]
    uv = np.stack((column.ravel(), row.ravel()), 1).astype(np.float32)
    features = view.pixels(view.patches(image), uv, width, height).numpy()
    answer = named.probe.answer(features).reshape(height, width)
    stack = np.concatenate((image, _coloured(label, label_map), _coloured(answer, label_map)))
    return cv2.imencode('.png', stack[:, :, ::-1])[1].tobytes()


def _coloured(class_id: NDArray[np.uint8], label_map: LabelMap) -> NDArray[np.uint8]:
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(label_map.palette)] = label_map.palette
    colours[UNKNOWN] = 0
    return colours[class_id]


def _table(report: dict[str, Any]) -> Table:
    table = Table('held-out pixels', 'IoU', *(f'seed {seed}' for seed in SEEDS[1:]))
    of_seeds = report['class_iou_of_seeds']
    for name in report['class_iou']:
        table.add_row(name, *(_share(found[name]) for found in of_seeds))
    table.add_row('mean', *map(_share, report['miou_of_seeds']))
    return table


def _share(value: float | None) -> str:
    return '' if value is None else f'{value:.3f}'


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('start', type=Path, help='checkpoint with a teacher space')
    parser.add_argument('out', type=Path, help='checkpoint to write')
    parser.add_argument('--images', type=Path, nargs='+', required=True, help='labelled folders')
    parser.add_argument('--labels', type=Path, required=True, help='label map, YAML')
    parser.add_argument('--held-out', type=Path, nargs='+', help='labelled folders to score on')
    parser.add_argument('--index', type=Path, help='recordings without labels, of index_bags')
    parser.add_argument('--device', default='auto', help="the teacher's: auto, cpu, cuda, cuda:N")
    arguments = parser.parse_args(words)
    console = Console()
    try:
        start = load_checkpoint(arguments.start)
        label_map = load_label_map(arguments.labels)
        learnt: Sequence[LabelledImage] = labelled_images(arguments.images)
        if arguments.held_out:
            held_out: Sequence[LabelledImage] = labelled_images(arguments.held_out)
            _check_apart(learnt, held_out)
        else:
            learnt, held_out = parted(learnt)
            console.print(f'held out: the last {len(held_out)} images, from {held_out[0].image}')
        view = view_of(start, arguments.start, arguments.device)
        named = name_by_images(
            start,
            view,
            learnt,
            held_out,
            label_map,
            Index.load(arguments.index) if arguments.index else None,
            command=shlex.join(['python', '-m', 'offline_training.label_by_images', *words]),
            console=console,
        )
        save_checkpoint(arguments.out, named.contract, named.network, start.prototypes)
        sha256 = hashlib.sha256(arguments.out.read_bytes()).hexdigest()
        report = named.report | {'model_sha256': sha256}
        write_atomically(arguments.out.with_suffix('.json'), json.dumps(report, indent=2) + '\n')
        drawn = picture(named, view, held_out[len(held_out) // 2], label_map)
        write_atomically(arguments.out.with_suffix('.png'), drawn)
    except (ValueError, OSError) as error:
        console.print(str(error), style='red', markup=False, soft_wrap=True)
        return 2
    console.print(_table(named.report))
    spread = statistics.pstdev(named.report['miou_of_seeds'])
    console.print(
        f'{arguments.out}: mIoU of held-out pixels {named.report["miou"]:.3f} '
        f'(spread over seeds {spread:.3f})'
    )
    if not named.report['matched_to_points']:
        console.print(
            'not matched to points: give --index with recordings without labels, or expect the '
            'rare classes to be missing among points'
        )
    return 0


if __name__ == '__main__':
    sys.exit(main())
