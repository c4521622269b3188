# SPDX-License-Identifier: Apache-2.0
"""Check that the street is worth learning from: a pretrained image network reads its classes,
while neither height, range and intensity nor the colour of a pixel give them away.

    python -m offline_training.street_check --out out/street_check.json
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import Tensor

from cross4d_jepa_ros.bag_frames import BagFrame
from cross4d_jepa_ros.machine_load import OthersShare, own_pids
from cross4d_jepa_ros.progress import Bars
from cross4d_jepa_ros.segmentation_scores import SegmentationScores
from cross4d_jepa_ros.sensing.cameras import unhidden
from cross4d_jepa_ros.sensing.frames import CameraView
from cross4d_jepa_ros.sensing.poses import transform_points
from offline_training.check_report import limits_table, write_report
from offline_training.labelled_sweeps import labelled_frames
from offline_training.make_street_bag import VERSION
from offline_training.probes import LINEAR_PROBE, MLP_PROBE, ProbeConfig, fit_probe, score_probe
from offline_training.street.classes import CLASS_NAMES
from offline_training.street_recordings import record_towns
from offline_training.teachers import sample_patches
from offline_training.teachers.lite0 import Lite0

OCCLUSION_CELL_PX = 6
RANDOM_WEIGHTS_SEED = 0


@dataclass(frozen=True)
class CheckConfig:
    """Towns and samples.

    Attributes:
        seconds: Length of each recording.
        sweep_stride: Every so manieth sweep is used.

    """

    fit_seeds: tuple[int, ...] = tuple(range(500, 516))
    test_seeds: tuple[int, ...] = tuple(range(600, 606))
    seconds: float = 3.0
    sweep_stride: int = 5
    points_per_sweep: int = 10_000
    points_per_image: int = 3_000
    probe_seeds: tuple[int, ...] = (0, 1, 2)

    def __post_init__(self) -> None:
        """Refuse a test that has been seen.

        Raises:
            ValueError: A town is in both sets.

        """
        shared = set(self.fit_seeds) & set(self.test_seeds)
        if shared:
            msg = f'town {min(shared)} is fitted and tested on: move test_seeds'
            raise ValueError(msg)


@dataclass(frozen=True)
class Limits:
    """What the mIoU of the rows, or a difference of two, has to keep to."""

    geometry_at_most: float = 0.40
    rgb_at_most: float = 0.30
    lite0_at_least: float = 0.45
    lite0_over_random_at_least: float = 0.10


@dataclass(frozen=True)
class Row:
    """One probe: what it sees of a point, and how it is built."""

    name: str
    inputs: str
    probe: ProbeConfig


GEOMETRY = Row('geometry_mlp', 'height above ground, range, intensity', MLP_PROBE)
RGB = Row('rgb_mlp', 'colour of the pixel', MLP_PROBE)
LITE0 = Row('lite0_linear', 'EfficientNet-Lite0, strides 16 and 32', LINEAR_PROBE)
LITE0_RANDOM = Row('lite0_random_linear', 'the same network, random weights', LINEAR_PROBE)
ROWS = (GEOMETRY, RGB, LITE0, LITE0_RANDOM)


class Samples(NamedTuple):
    """Points with (N, D) features and (N,) true class ids."""

    features: NDArray[np.floating]
    truth: NDArray[np.uint8]


Networks = Mapping[str, Callable[[Tensor], Tensor]]


def visible_pixels(
    view: CameraView, xyz_base: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Project points, leaving out those that a nearer point hides.

    Args:
        view: Image with its camera.
        xyz_base: (N, 3) m, base frame.

    Returns:
        (N, 2) pixel coordinates u, v, and (N,) whether the point is seen: inside the image and not
        hidden by another point of its cell of pixels.

    """
    xyz_camera = transform_points(view.camera_from_base, xyz_base)
    uv, seen = view.camera.project(xyz_camera)
    seen[seen] = unhidden(uv[seen], xyz_camera[seen, 2], OCCLUSION_CELL_PX)
    return uv, seen


def samples_of(
    swept: BagFrame, networks: Networks, config: CheckConfig, draw: np.random.Generator
) -> Iterator[tuple[str, Samples]]:
    """Draw labelled points of a sweep and compute what each row sees of them.

    Args:
        swept: Sweep with its truth.
        networks: Image network of each row that has one: (1, H, W, 3) uint8 to (1, C, h, w).
        config: Numbers of points.
        draw: Which points.

    Yields:
        Names of rows with samples; those of image rows once for each image.

    """
    if swept.truth is None:
        return
    frame, sweep = swept.frame, swept.frame.sweep
    assert sweep.intensity is not None
    class_id = swept.truth['class_id'][sweep.index]  # (N,)
    labelled = class_id < len(CLASS_NAMES)
    chosen = _some(labelled, config.points_per_sweep, draw)
    columns = (frame.xyz_base[:, 2], np.linalg.norm(sweep.xyz, axis=1), sweep.intensity)
    geometry = np.stack([column[chosen] for column in columns], axis=1)
    yield GEOMETRY.name, Samples(geometry.astype(np.float32), class_id[chosen])
    for view in frame.views:
        uv, seen = visible_pixels(view, frame.xyz_base)
        chosen = _some(labelled & seen, config.points_per_image, draw)
        truth, uv = class_id[chosen], uv[chosen]
        column, row = np.rint(uv).astype(np.intp).T
        yield RGB.name, Samples(view.image[row, column].astype(np.float32), truth)
        image = torch.from_numpy(np.ascontiguousarray(view.image))[None]  # (1, H, W, 3)
        height, width = image.shape[1:3]
        for name, network in networks.items():
            patches = network(image)[0].permute(1, 2, 0).numpy()  # (h, w, C)
            at_points = sample_patches(patches, uv, width, height, bilinear=True)  # (N, C)
            yield name, Samples(at_points.astype(np.float16), truth)


def _some(candidates: NDArray[np.bool_], count: int, draw: np.random.Generator) -> NDArray[np.intp]:
    """Draw up to `count` positions where `candidates` holds."""
    positions = np.flatnonzero(candidates)
    return draw.choice(positions, min(count, len(positions)), replace=False)


def gather(
    frames: Iterator[BagFrame], networks: Networks, config: CheckConfig, seed: int
) -> dict[str, Samples]:
    """Put together the samples of each row over many sweeps.

    Raises:
        ValueError: There are none.

    """
    draw = np.random.default_rng(seed)
    parts: dict[str, list[Samples]] = {row.name: [] for row in ROWS}
    for frame in frames:
        for name, samples in samples_of(frame, networks, config, draw):
            parts[name].append(samples)
    if not all(sum(len(part.truth) for part in found) for found in parts.values()):
        msg = 'The recordings hold no labelled points inside their images: check their truth topic.'
        raise ValueError(msg)
    return {
        name: Samples(*(np.concatenate(column) for column in zip(*found, strict=True)))
        for name, found in parts.items()
    }


def score_row(
    row: Row, fit: Samples, test: Samples, seeds: tuple[int, ...], on_epoch: Callable[[], None]
) -> dict[str, Any]:
    """Train the probe of a row once for each seed and score it on the test towns."""
    count = len(CLASS_NAMES)
    probes = [fit_probe(row.probe, *fit, count, seed, on_epoch) for seed in seeds]
    scores = [score_probe(probe, *test, CLASS_NAMES) for probe in probes]
    mious = [score.miou() or 0.0 for score in scores]
    return {
        'name': row.name,
        'inputs': row.inputs,
        'fit_points': len(fit.truth),
        'test_points': len(test.truth),
        'miou': float(np.mean(mious)),
        'miou_seeds': mious,
        'class_iou': mean_class_iou(scores),
    }


def mean_class_iou(scores: list[SegmentationScores]) -> dict[str, float | None]:
    """Average each class over the seeds; None where the truth lacks it."""
    seeds = [score.class_iou() for score in scores]
    absent = scores[0].absent()
    return {
        name: None if name in absent else float(np.mean([iou[name] for iou in seeds]))
        for name in CLASS_NAMES
    }


def compare(miou: Mapping[str, float], limits: Limits) -> list[dict[str, Any]]:
    """Hold the rows' mIoU against the limits.

    Returns:
        For each limit its name, the value found, the limit and whether it is kept.

    """
    geometry, rgb, lite0, random = (miou[row.name] for row in ROWS)
    found = {
        'geometry_at_most': geometry,
        'rgb_at_most': rgb,
        'lite0_at_least': lite0,
        'lite0_over_random_at_least': lite0 - random,
    }
    return [
        {
            'name': name,
            'value': found[name],
            'limit': limit,
            'kept': found[name] <= limit if name.endswith('at_most') else found[name] >= limit,
        }
        for name, limit in asdict(limits).items()
    ]


def run(config: CheckConfig, work: Path, console: Console) -> dict[str, Any]:
    """Record, sample, train and score.

    Args:
        config: Towns and samples.
        work: Where the recordings are kept.
        console: For the progress bars.

    Returns:
        The report, all but the command and the date.

    Raises:
        ValueError: The recordings hold no labelled points.

    """
    load = OthersShare(own_pids())
    seeds = config.fit_seeds + config.test_seeds
    with Bars(console) as bars:

        def stage(name: str, steps: int) -> Callable[[], None]:
            return partial(bars.advance, bars.add_task(name, total=steps))

        paths = record_towns(work, seeds, config.seconds, stage('towns recorded', len(seeds)))
        networks = {
            LITE0.name: Lite0.pretrained(),
            LITE0_RANDOM.name: Lite0.random(RANDOM_WEIGHTS_SEED),
        }
        on_town = stage('towns read', len(seeds))

        def frames(of: tuple[int, ...]) -> Iterator[BagFrame]:
            for seed in of:
                yield from labelled_frames(paths[seed], CLASS_NAMES, stride=config.sweep_stride)
                on_town()

        fit = gather(frames(config.fit_seeds), networks, config, seed=0)
        test = gather(frames(config.test_seeds), networks, config, seed=1)
        epochs = sum(row.probe.epochs for row in ROWS) * len(config.probe_seeds)
        on_epoch = stage('probe epochs', epochs)
        rows = [
            score_row(row, fit[row.name], test[row.name], config.probe_seeds, on_epoch)
            for row in ROWS
        ]
    limits = compare({row['name']: row['miou'] for row in rows}, Limits())
    return {
        'generator_version': VERSION,
        'seeds': list(config.probe_seeds),
        'towns': asdict(config),
        'rows': rows,
        'limits': limits,
        'passed': all(limit['kept'] for limit in limits),
        'others_cpu_share': load.share(),
    }


def print_report(report: Mapping[str, Any], console: Console) -> None:
    """Show rows and limits as tables, a column for each row of the report."""
    rows = report['rows']
    table = Table('', *(row['name'] for row in rows))
    table.add_row('mIoU', *(f'{row["miou"]:.3f}' for row in rows))
    for number, mious in enumerate(zip(*(row['miou_seeds'] for row in rows), strict=True)):
        table.add_row(f'  run {number + 1}', *(f'{miou:.3f}' for miou in mious))
    for name in CLASS_NAMES:
        ious = [row['class_iou'][name] for row in rows]
        table.add_row(name, *('-' if iou is None else f'{iou:.3f}' for iou in ious))
    console.print(table)
    console.print(limits_table(report['limits']))


def main(argv: list[str] | None = None) -> int:
    """Run the command; 1 where a limit is not kept, 2 where it could not be checked."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument('--out', type=Path, required=True, help='report to write, JSON')
    parser.add_argument('--work', type=Path, default=Path('out/street_check'), help='recordings')
    arguments = parser.parse_args(argv)
    console = Console()
    try:
        report = run(CheckConfig(), arguments.work, console)
    except (ValueError, OSError) as error:
        console.print(str(error), style='red', markup=False)
        return 2
    code = write_report(report, 'street_check', argv or sys.argv[1:], arguments.out)
    print_report(report, console)
    return code


if __name__ == '__main__':
    sys.exit(main())
