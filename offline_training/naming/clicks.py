# SPDX-License-Identifier: Apache-2.0
"""Examples of classes from clicked points of recorded sweeps."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cross4d_jepa_ros.model.heads import EmbeddingNormalisation
from cross4d_jepa_ros.model.network import Network
from cross4d_jepa_ros.model.prototypes import Prototypes
from cross4d_jepa_ros.reading import read_text
from cross4d_jepa_ros.segmentation_scores import UNKNOWN, SegmentationScores
from offline_training.naming.answers import Answers, Place

# A click that is farther than this from any point of its sweep is a mistake.
NEAR_M = 0.3
COLUMNS = ('x', 'y', 'z', 'class')
# Either says which sweep is meant.
STAMP, NUMBER = 'stamp_ns', 'sweep'
# Most of the complaints that one sentence lists.
MOST_LISTED = 5
# A click takes some fifty.
MAX_BYTES = 10_000_000


class BadClicks(ValueError):
    """Clicks that cannot be used; the sentence names the file, the line and the reason."""


@dataclass(frozen=True)
class Click:
    """One line of the file.

    Attributes:
        line: Its number, from 1.
        sweep: Stamp of the sweep in ns, or the sweep's number among the usable ones, from 0.
        is_stamp: Which of the two.
        xyz: (3,) m, sensor frame, as the message has it.
        name: Of the class.

    """

    line: int
    sweep: int
    is_stamp: bool
    xyz: NDArray[np.float64]
    name: str


def read_clicks(path: Path) -> list[Click]:
    """Read a CSV file with the columns stamp_ns or sweep, x, y, z and class.

    Raises:
        BadClicks: A column is missing, a value is none, or there is no click.
        OSError: It cannot be read.

    """
    try:
        clicks = _clicks(path, read_text(path, MAX_BYTES))
    except (csv.Error, UnicodeDecodeError) as error:
        msg = f'{path} cannot be read as CSV ({error})'
        raise BadClicks(msg) from error
    if not clicks:
        msg = f'{path} has no click: add a line for each'
        raise BadClicks(msg)
    return clicks


def _clicks(path: Path, text: str) -> list[Click]:
    table = csv.DictReader(io.StringIO(text, newline=''), skipinitialspace=True)
    columns = table.fieldnames or ()
    key = STAMP if STAMP in columns else NUMBER
    missing = [name for name in (key, *COLUMNS) if name not in columns]
    if missing:
        msg = (
            f'{path} has no column {missing[0]}: its first line has to be '
            f'{STAMP},{",".join(COLUMNS)} (or {NUMBER} in the place of {STAMP})'
        )
        raise BadClicks(msg)
    return [_click(path, table.line_num, row, key) for row in table]


def taught(
    network: Network,
    before: Prototypes,
    answers: Answers,
    clicks: Sequence[Click],
    path: Path,
    on_click: Callable[[], None] = lambda: None,
) -> Prototypes:
    """Make an example of the nearest point of each click, with the sweeps before it as live.

    Args:
        network: That the examples are for; its normalisation is fitted.
        before: What it has been taught.
        answers: Of that network.
        clicks: Of recordings that `answers` has.
        path: Where they are from, for the sentence.
        on_click: Called after each.

    Raises:
        BadClicks: A sweep is not there, or no point that the network sees is near enough.
        BadIndex: A log is gone or has changed since it was indexed.

    """
    of_sweep: dict[Place, list[Click]] = defaultdict(list)
    wrong: list[str] = []
    for click in clicks:
        place = _place(answers, click)
        if isinstance(place, str):
            wrong.append(f'line {click.line}: {place}')
        else:
            of_sweep[place].append(click)
    vectors: dict[int, Tensor] = {}
    for place, some in of_sweep.items():
        sweep = answers.answer(place)
        xyz = answers.reader.sensor_xyz(sweep.row).astype(np.float64)
        answering = sweep.answering()
        normalised = network.normalisation(sweep.embedding)  # (L, C)
        for click in some:
            distance = np.linalg.norm(xyz - click.xyz, axis=1)
            nearest = int(distance.argmin())
            if not distance[nearest] <= NEAR_M:
                found = ', '.join(f'{value:.2f}' for value in xyz[nearest])
                wrong.append(
                    f'line {click.line}: the nearest point is {distance[nearest]:.2f} m away, at '
                    f'{found}; at most {NEAR_M} m are allowed, in the frame of the sensor'
                )
            elif answering[nearest] < 0:
                wrong.append(
                    f'line {click.line}: the point is beyond the {network.config.range_m:g} m '
                    'that the network sees'
                )
            else:
                vectors[click.line] = normalised[answering[nearest]]
            on_click()
    if wrong:
        more = f'; and {len(wrong) - MOST_LISTED} more' if len(wrong) > MOST_LISTED else ''
        msg = f'{path}: {"; ".join(wrong[:MOST_LISTED])}{more}'
        raise BadClicks(msg)
    result = before
    for click in clicks:
        result = result.added(click.name, vectors[click.line])
    return result


def drawn_prototypes(
    normalised: Tensor,
    label: NDArray[np.uint8],
    class_names: Sequence[str],
    clicks: int,
    seed: int,
) -> Prototypes:
    """Click at random: so many points of each class, of all those that are given.

    Args:
        normalised: (N, C) of `EmbeddingNormalisation`.
        label: (N,) class ids, 255 where unknown.
        class_names: Ids are positions.
        clicks: Of each class; all points of a class with fewer.
        seed: Of the draw.

    """
    draw = np.random.default_rng(seed)
    prototypes = Prototypes.none(normalised.shape[1])
    for number, name in enumerate(class_names):
        there = np.flatnonzero(label == number)
        for point in draw.permutation(there)[:clicks]:
            prototypes = prototypes.added(name, normalised[int(point)])
    return prototypes


def few_click_miou(
    normalisation: EmbeddingNormalisation,
    clicked: tuple[Tensor, NDArray[np.uint8]],
    judged: tuple[Tensor, NDArray[np.uint8]],
    class_names: tuple[str, ...],
    clicks: int,
    seeds: Sequence[int],
) -> list[SegmentationScores]:
    """Score random clicks, which nobody chose well, once for each seed.

    Args:
        normalisation: Of the network.
        clicked: (N, C) embeddings and (N,) labels that clicks are drawn from.
        judged: The same of the points that are answered.
        class_names: Ids are positions.
        clicks: Of each class.
        seeds: One draw each.

    Returns:
        Points that are like none of the examples count as unknown.

    """
    examples, label = normalisation(clicked[0]), clicked[1]  # (N, C)
    asked = normalisation(judged[0])  # (M, C)
    results = []
    for seed in seeds:
        prototypes = drawn_prototypes(examples, label, class_names, clicks, seed)
        # Classes without a point to click on have no prototype, so that numbers may differ.
        ids = np.array([class_names.index(name) for name in prototypes.names], np.uint8)
        index, _, alike = prototypes.answer(asked)  # (M,), (M,), (M,)
        answer = np.where(alike.numpy(), ids[index.numpy()], UNKNOWN).astype(np.uint8)
        scores = SegmentationScores(class_names)
        scores.add(judged[1], answer)
        results.append(scores)
    return results


def _click(path: Path, line: int, row: dict[str, str | None], key: str) -> Click:
    try:
        xyz = np.array([float(row[name] or '') for name in COLUMNS[:3]])
        sweep = int(row[key] or '')
    except ValueError as error:
        msg = f'{path} line {line}: {error}'
        raise BadClicks(msg) from error
    name = (row['class'] or '').strip()
    if not name or not np.isfinite(xyz).all():
        msg = f'{path} line {line}: ' + ('x, y, z are not finite' if name else 'class is empty')
        raise BadClicks(msg)
    return Click(line, sweep, key == STAMP, xyz, name)


def _place(answers: Answers, click: Click) -> Place | str:
    """Find the sweep of a click, or say why there is none."""
    if not click.is_stamp:
        if 0 <= click.sweep < len(answers.places):
            return answers.places[click.sweep]
        return f'there is no sweep {click.sweep}, the last is {len(answers.places) - 1}'
    found = [place for place in answers.places if answers.row(place).stamp_ns == click.sweep]
    if len(found) == 1:
        return found[0]
    if found:
        return f'{len(found)} sweeps have the stamp {click.sweep} ns: give sweep numbers instead'
    nearest = min(answers.places, key=lambda place: abs(answers.row(place).stamp_ns - click.sweep))
    stamp_ns = answers.row(nearest).stamp_ns
    return f'no sweep has the stamp {click.sweep} ns, the nearest has {stamp_ns} ns'
