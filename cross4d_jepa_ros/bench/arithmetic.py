# SPDX-License-Identifier: Apache-2.0
"""What a sweep must cost: multiply-adds and bytes of each stage, and the floor that they imply.

Counted is what the method needs and no code can avoid: every array that one matrix product, sort or
look-up hands to the next is written once and read once by each that uses it. Element-wise steps,
norms and activations are free, as they can be done in passing. A sort is one pass over its keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cross4d_jepa_ros.model.config import ModelConfig
from cross4d_jepa_ros.model.neighbours import STRETCH_SLOTS, STRETCHES
from cross4d_jepa_ros.model.temporal_memory import RELATION_CHANNELS
from cross4d_jepa_ros.model.tokenizer import input_features
from cross4d_jepa_ros.pipeline import Pipeline

STAGES = ('message_decode', *Pipeline.STAGES, 'message_build')
FP32, INT64 = 4, 8
REFERENCE_PRODUCTS = 2048**3
BEGIN, END = '<!-- {}: begin -->', '<!-- {}: end -->'


@dataclass(frozen=True)
class Cost:
    """What a stage takes.

    Attributes:
        products: Multiply-adds.
        ordered: Bytes read or written one after the other.
        gathered: Bytes of rows that are picked from all over an array, and where they are put.

    """

    products: int = 0
    ordered: int = 0
    gathered: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.products + other.products,
            self.ordered + other.ordered,
            self.gathered + other.gathered,
        )

    def floor_ms(self, rates: Rates) -> float:
        """Time below which no code gets: arithmetic and moving overlap at best."""
        moving = self.ordered / rates.ordered + self.gathered / rates.gathered
        return 1e3 * max(self.products / rates.products, moving)


@dataclass(frozen=True)
class Rates:
    """What a machine does in a second: multiply-adds, bytes in order, gathered bytes."""

    products: float
    ordered: float
    gathered: float

    @classmethod
    def of_report(cls, report: dict[str, Any]) -> Rates:
        """Take the rates that `bench` measured beside the stages."""
        found = report['machine']
        return cls(
            REFERENCE_PRODUCTS / (found['product_ms'] / 1e3),
            found['copy_gb_s'] * 1e9,
            found['gather_gb_s'] * 1e9,
        )


@dataclass(frozen=True)
class Load:
    """One sweep.

    Attributes:
        points: Of its message, all in range (K).
        tokens: M; each remembered sweep has as many.
        point_bytes: Of a point in the message.
        element_bytes: 4 in fp32, 2 in bf16 and fp16.
        classes: Of the segmentation.

    """

    points: int
    tokens: int
    point_bytes: int
    element_bytes: int
    classes: int


def _linear(rows: int, inputs: int, outputs: int, element: int) -> Cost:
    """Multiply `rows` rows by a matrix: rows and matrix are read, rows are written."""
    moved = rows * (inputs + outputs) + inputs * outputs
    return Cost(rows * inputs * outputs, element * moved)


def stage_costs(model: ModelConfig, load: Load) -> dict[str, Cost]:
    """Count each stage of a sweep whose window is full.

    Images are not counted: what decoding them takes lies in their codec.

    Args:
        model: With the `voxel` tokenizer.
        load: The sweep.

    """
    return {
        'message_decode': _message_decode(load),
        'tokenise': _tokenise(model, load),
        'spatial': _spatial(model, load),
        'temporal': _temporal(model, load) if model.sweeps > 1 else Cost(),
        'point_decoder': _point_decoder(model, load),
        'head': _head(model, load),
        'message_build': _message_build(model, load),
    }


def _message_decode(load: Load) -> Cost:
    point = 3 * FP32
    read = Cost(ordered=load.points * (load.point_bytes + point + FP32 + INT64))  # intensity, index
    return read + Cost(9 * load.points, 2 * load.points * point)  # to the base frame


def _tokenise(model: ModelConfig, load: Load) -> Cost:
    points, tokens, element = load.points, load.tokens, load.element_bytes
    channels = sum(feature.channels for feature in input_features(model))
    width = model.point_width
    keys = Cost(ordered=points * (3 * FP32 + INT64))
    sort = Cost(ordered=2 * points * 2 * INT64)
    centres = Cost(3 * points, points * (3 * FP32 + INT64), tokens * 3 * FP32)
    features = Cost(ordered=points * (3 * FP32 + FP32), gathered=points * 2 * 6 * FP32)
    pooled = Cost(ordered=points * (element * width + INT64), gathered=tokens * element * width)
    return (
        keys
        + sort
        + centres
        + features
        + _linear(points, channels, width, element)
        + _linear(points, width, width, element)
        + pooled
        + _linear(tokens, width, model.width, element)
    )


def _perceptron(model: ModelConfig, load: Load) -> Cost:
    rows, width, element = load.tokens, model.width, load.element_bytes
    return _linear(rows, width, 2 * width, element) + _linear(rows, 2 * width, width, element)


def _spatial(model: ModelConfig, load: Load) -> Cost:
    tokens, width, element = load.tokens, model.width, load.element_bytes
    reach = min(model.window, tokens)
    attention = Cost(2 * tokens * reach * width, element * 4 * tokens * width)
    # Into the order of the curve and back.
    walk = Cost(gathered=element * 2 * 4 * tokens * width)
    block = (
        _linear(tokens, width, 3 * width, element)
        + attention
        + walk
        + _linear(tokens, width, width, element)
        + _perceptron(model, load)
    )
    curves = Cost(ordered=min(4, model.blocks) * tokens * 4 * INT64)
    return sum([block] * model.blocks, curves)


def _temporal(model: ModelConfig, load: Load) -> Cost:
    tokens, width, element = load.tokens, model.width, load.element_bytes
    read, heads, latents = width // 2, model.heads, model.latents
    remembered, seen = (model.sweeps - 1) * tokens, (model.sweeps - 1) * latents
    pairs, candidates = tokens * model.neighbours, tokens * STRETCHES * STRETCH_SLOTS
    look_up = Cost(
        9 * remembered + 3 * candidates,
        remembered * (2 * 3 * 2 * FP32 + 4 * INT64) + candidates * FP32,
        candidates * 3 * FP32,
    )
    relation = Cost(
        pairs * RELATION_CHANNELS, pairs * RELATION_CHANNELS * element, pairs * 2 * 4 * 2 * FP32
    )
    pooling = (
        _linear(tokens, width, latents, element)
        + _linear(tokens, width, width, element)
        + Cost(tokens * latents * width, element * tokens * (latents + width))
    )
    channels = read + RELATION_CHANNELS
    attention = Cost(
        2 * tokens * heads * (model.neighbours * channels + seen * read),
        2 * pairs * channels * element,
        2 * 2 * pairs * read * element,
    )
    block = (
        _linear(tokens, width, 2 * read, element)
        + _linear(tokens, width, heads * (channels + 2), element)
        + attention
        + _linear(tokens, heads * (channels + 1), width, element)
        + _perceptron(model, load)
    )
    return sum([block] * model.temporal_blocks, look_up + relation + pooling)


def _point_decoder(model: ModelConfig, load: Load) -> Cost:
    width, element = model.point_width, load.element_bytes
    point = _linear(load.points, width, width, element)
    token = _linear(load.tokens, model.width, width, element)
    gather = Cost(ordered=load.points * INT64, gathered=load.points * 2 * element * width)
    return token + gather + point + point


def _head(model: ModelConfig, load: Load) -> Cost:
    answers = Cost(
        ordered=load.points * 2 * (INT64 + FP32 + 1), gathered=load.points * (2 * INT64 + FP32 + 1)
    )
    tokens = Cost(ordered=load.tokens * model.width * (load.element_bytes + FP32))
    return _linear(load.points, model.point_width, load.classes, load.element_bytes) + (
        answers + tokens
    )


def _message_build(model: ModelConfig, load: Load) -> Cost:
    written = 3 * FP32 + 2 * FP32
    labels = load.points * (load.point_bytes + FP32 + 1 + written)
    return Cost(ordered=labels + load.tokens * 2 * (3 + model.width) * FP32)


def arithmetic_table(model: ModelConfig, points: int, tokens: int, classes: int) -> str:
    """Draw what a sweep of 16 bytes a point takes as a Markdown table; last line: all stages."""
    rows = [
        '| stage | multiply-adds | in order, fp32 | in order, bf16 | gathered, fp32 | bf16 |',
        '|---|---|---|---|---|---|',
    ]
    wide, narrow = (
        stage_costs(model, Load(points, tokens, 16, element, classes)) for element in (4, 2)
    )
    wide['total'], narrow['total'] = sum(wide.values(), Cost()), sum(narrow.values(), Cost())
    for stage, cost in wide.items():
        half = narrow[stage]
        moved = (cost.ordered, half.ordered, cost.gathered, half.gathered)
        cells = [f'{cost.products / 1e6:.1f} M', *(f'{value / 1e6:.1f} MB' for value in moved)]
        rows.append(f'| {stage} | {" | ".join(cells)} |')
    return '\n'.join(rows)


def measured_table(model: ModelConfig, report: dict[str, Any], classes: int) -> str:
    """Draw the headline of a report beside the floor of its machine as a Markdown table."""
    rates = Rates.of_report(report)
    rows = {row['stage']: row for row in report['headline']}
    total = rows['total']
    element = 4 if total['dtype'] == 'fp32' else 2
    load = Load(total['points'], total['tokens'], report['point_bytes'], element, classes)
    costs = stage_costs(model, load)
    floors = {stage: cost.floor_ms(rates) for stage, cost in costs.items()}
    floors['total'] = sum(floors.values())
    lines = [
        f'{total["size"]}, {total["dtype"]} on {report["machine"]["name"]}, {total["points"]} '
        f'points, {total["tokens"]} tokens, T={total["window"]}, ego-motion '
        f'{total["ego_motion"]}, {total["repetitions"]} sweeps; reference product '
        f'{report["reference_ms"]:.1f} ms, others used {_percent(total["others_cpu_share"])} of '
        f'the CPU.',
        '',
        '| stage | floor, ms | median, ms | p95, ms | times the floor | times the reference |',
        '|---|---|---|---|---|---|',
    ]
    for stage, floor in floors.items():
        row = rows[stage]
        lines.append(
            f'| {stage} | {floor:.2f} | {row["median_ms"]:.2f} | {row["p95_ms"]:.2f} | '
            f'{row["median_ms"] / max(floor, 1e-3):.1f} | {row["times_reference"]:.3f} |'
        )
    return '\n'.join(lines)


def _percent(share: float | None) -> str:
    return 'an unknown share' if share is None else f'{100 * share:.1f} %'


def with_table(page: str, name: str, table: str) -> str:
    """Put a table between its two marks.

    Raises:
        ValueError: The page has no such marks.

    """
    begin, end = BEGIN.format(name), END.format(name)
    if begin not in page or end not in page:
        msg = f'the page has no {begin} .. {end} to put a table between'
        raise ValueError(msg)
    return f'{page.split(begin)[0]}{begin}\n{table}\n{end}{page.split(end, 1)[1]}'
