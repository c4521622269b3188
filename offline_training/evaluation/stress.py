# SPDX-License-Identifier: Apache-2.0
"""How much worse the answers get with worse sensors, calibrations and clocks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use('agg')

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from cross4d_jepa_ros.bags import Bag
from cross4d_jepa_ros.files import write_atomically
from cross4d_jepa_ros.pipeline import Output, Pipeline
from cross4d_jepa_ros.progress import Bars
from cross4d_jepa_ros.segmentation_scores import SegmentationScores, ids_by_name
from offline_training.evaluation.answers import answered
from offline_training.evaluation.disturbances import (
    Disturbance,
    bags_with_late_images,
    beam_of_point,
    disturbances,
    unchanged,
)
from offline_training.evaluation.scores import accuracy, rounded
from offline_training.evaluation.sources import INDEX_SUFFIX, Source, Swept
from offline_training.label_map import LabelMap
from offline_training.logs.bag_index import BagChoice
from offline_training.logs.kitti_folder import is_kitti
from offline_training.logs.table import Index

WORST = 3
AS_RECORDED = Disturbance('as recorded', '', unchanged)

Answers = dict[tuple[str, int], NDArray[np.uint8]]
"""Class ids (P,) of each sweep by log and stamp, those of the labels."""


class CannotStress(ValueError):
    """The source does not serve; the sentence says why."""


class Stress:
    """Answers a source again and again, each time with something else wrong.

    A disturbed answer is compared with the undisturbed answer to the same points: of dropped
    points neither counts.

    Args:
        pipeline: Its memory is emptied.
        open_source: Opens the source with a kind of `Bag`.
        label_names: Of its labels.
        bags_only: Whether the source is read through `Bag` alone; else stamps of images cannot be
            shifted.

    Attributes:
        beams: Of the sensor, once the undisturbed sweeps were answered.
        problems: What was not tried.

    Raises:
        CannotStress: There are no labels, or none that the model names.

    """

    def __init__(
        self,
        pipeline: Pipeline,
        open_source: Callable[[type[Bag]], Iterable[Swept]],
        label_names: tuple[str, ...],
        *,
        bags_only: bool,
    ) -> None:
        names = pipeline.contract.answer_names
        if not set(names) & set(label_names):
            msg = (
                '--stress compares with labels: give a recording with labels, or --labels, of '
                f'classes that the model names ({", ".join(names) or "none"})'
            )
            raise CannotStress(msg)
        self.beams = 0
        self.problems: list[str] = []
        self._pipeline, self._open = pipeline, open_source
        self._label_names, self._bags_only = label_names, bags_only
        self._translate = ids_by_name(names, label_names)
        self._clean: Answers = {}
        self._images = False

    def rows(self, on_sweep: Callable[[str], None] = lambda _: None) -> Iterator[dict[str, Any]]:
        """Yield a row for the undisturbed sweeps, then one for each disturbance.

        Rows have `case`, `amount`, `sweeps`, `images` (used of each sweep), `points`, `miou`,
        `accuracy`, their `change` and `accuracy_change` against the undisturbed answers to the
        same points, and the classes that lost most, as `worst`: name to change of the IoU; as
        `mistaken_for`, which class each of these is called now, most of all where it was not.

        Args:
            on_sweep: Called after each sweep, with what was tried.

        """
        yield self._row(AS_RECORDED, on_sweep)
        colour = self._pipeline.contract.colour
        if not colour:
            self.problems.append('the model looks at no image: nothing of images was tried')
        elif not self._images:
            self.problems.append('the source has no images: nothing of images was tried')
        elif not self._bags_only:
            self.problems.append('images of KITTI folders were not shifted: that takes recordings')
        for disturbance in disturbances(self.beams):
            if disturbance.of_images and not (colour and self._images):
                continue
            if disturbance.shift_ns and not self._bags_only:
                continue
            yield self._row(disturbance, on_sweep)

    def __len__(self) -> int:
        """Runs over the source, at most."""
        return 1 + len(disturbances(1))

    def _row(self, disturbance: Disturbance, on_sweep: Callable[[str], None]) -> dict[str, Any]:
        found, clean = (SegmentationScores(self._label_names) for _ in range(2))
        sweeps = images = 0
        first_run = disturbance is AS_RECORDED
        source = self._disturbed(disturbance)
        for swept, perception in answered(self._pipeline, source, Output.SEGMENTATION):
            frame = swept.frame
            sweeps += 1
            images += len(frame.views)
            assert perception.class_id is not None
            answer = self._translate[perception.class_id]  # (P,)
            key = swept.log, swept.frame.stamp_ns
            if first_run:
                self._clean[key] = answer
                self.beams = max(self.beams, len(np.unique(beam_of_point(frame.sweep))))
                self._images |= bool(frame.views)
            if swept.label is not None and key in self._clean:
                index = frame.sweep.index
                found.add(swept.label[index], answer[index])
                clean.add(swept.label[index], self._clean[key][index])
            on_sweep(f'{disturbance.name} {disturbance.amount}')
        lost = _changes(found.class_iou(), clean.class_iou())
        worst = [] if first_run else sorted(lost, key=lambda name: lost[name])[:WORST]
        return {
            'case': disturbance.name,
            'amount': disturbance.amount,
            'sweeps': sweeps,
            'images': images,
            'points': found.points,
            'miou': rounded(found.miou()),
            'accuracy': rounded(accuracy(found)),
            'change': _change(found.miou(), clean.miou()),
            'accuracy_change': _change(accuracy(found), accuracy(clean)),
            'worst': {name: rounded(lost[name]) for name in worst},
            'mistaken_for': {name: _mistaken_for(name, found, clean) for name in worst},
        }

    def _disturbed(self, disturbance: Disturbance) -> Iterator[Swept]:
        bag = bags_with_late_images(disturbance.shift_ns) if disturbance.shift_ns else Bag
        number = 0
        for swept in self._open(bag):
            number = 0 if swept.first else number + 1
            frame = disturbance.change(swept.frame, number)
            if frame is not None:
                yield replace(swept, frame=frame)


def _changes(
    found: Mapping[str, float | None], clean: Mapping[str, float | None]
) -> dict[str, float]:
    """How much more the IoU of each class is, of those that both have."""
    return {
        name: now - before
        for name, now in found.items()
        if now is not None and (before := clean[name]) is not None
    }


def _mistaken_for(name: str, found: SegmentationScores, clean: SegmentationScores) -> str:
    """Which answer gained most among the points of a class; '' where no wrong one did."""
    true = found.class_names.index(name)
    gained = found.confusion[true] - clean.confusion[true]  # (C + 1,)
    gained[true] = 0
    return (*found.class_names, 'unknown')[int(gained.argmax())] if gained.max() > 0 else ''


def _change(found: float | None, clean: float | None) -> float | None:
    return None if found is None or clean is None else rounded(found - clean)


def stress(
    pipeline: Pipeline,
    path: Path,
    choice: BagChoice,
    labels: LabelMap | None,
    out: Path,
    console: Console,
) -> None:
    """Try every disturbance; leaves stress.json and stress.png, and shows the table.

    Args:
        pipeline: Its memory is emptied.
        path: Of a `Source`, as are `choice` and `labels`.
        choice: Topics.
        labels: Label map, if any.
        out: Folder.
        console: For progress and table.

    Raises:
        CannotStress: There are no labels, or none that the model names.
        BadIndex: The index cannot be used.

    """

    def opened(bag: type[Bag]) -> Source:
        return Source(path, choice, labels, bag)

    source = opened(Bag)
    tried = Stress(pipeline, opened, source.class_names, bags_only=_reads_bags_only(path))
    rows = []
    with Bars(console, 'sweeps') as progress:
        task = progress.add_task('stress', total=len(tried) * len(source))

        def advance(what: str) -> None:
            progress.update(task, advance=1, description=what)

        for row in tried.rows(advance):
            rows.append(row)
            # Some disturbances leave sweeps out, or are not tried at all.
            progress.update(task, completed=len(rows) * len(source))
    report = {
        'source': str(path),
        'model_sha256': pipeline.model_sha256,
        'rows': rows,
        'problems': tried.problems,
    }
    write_atomically(out / 'stress.json', json.dumps(report, indent=2) + '\n')
    draw_stress(out / 'stress.png', rows)
    print_stress(rows, console)
    for problem in tried.problems:
        console.print(problem, style='yellow', markup=False, highlight=False)


def _reads_bags_only(path: Path) -> bool:
    if path.suffix != INDEX_SUFFIX:
        return True
    index = Index.load(path)
    return not any(is_kitti(log) for log in {index.path_of(row) for row in index.rows})


def print_stress(rows: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Show the rows as a table, each with the class that lost most."""
    table = Table('', '', 'mIoU', 'change', 'lost most (to)', title='stress')
    for row in rows:
        told = ''
        for name, change in list(row['worst'].items())[:1]:
            other = row['mistaken_for'][name]
            told = f'{name} {change:+.3f}' + (f' ({other})' if other else '')
        figures = [_figure(row['miou']), _figure(row['change'], '+.3f')]
        table.add_row(row['case'], row['amount'], *figures, told)
    console.print(table)


def _figure(value: float | None, form: str = '.3f') -> str:
    return '-' if value is None else format(value, form)


def draw_stress(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw the mIoU of each row as a bar, beside that of the undisturbed sweeps.

    Args:
        path: PNG.
        rows: Of `Stress.rows`, the undisturbed one first.

    """
    figure, axes = plt.subplots(figsize=(8, 0.6 + 0.32 * len(rows)), layout='constrained')
    kinds = list(dict.fromkeys(row['case'] for row in rows))
    colours = [f'C{kinds.index(row["case"])}' for row in rows]
    miou = [row['miou'] or 0.0 for row in rows]
    axes.barh(range(len(rows)), miou, color=colours)
    for number, row in enumerate(rows):
        change = f' ({_figure(row["change"], "+.3f")})' if number else ''
        axes.text(1.01, number, f'{_figure(row["miou"])}{change}', va='center')
    axes.axvline(miou[0], color='0.3', linestyle='--', linewidth=1)
    axes.set_yticks(range(len(rows)), [f'{row["case"]} {row["amount"]}'.strip() for row in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel('mIoU (change against the undisturbed answers to the same points)')
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120, metadata={'Software': None})
    plt.close(figure)
