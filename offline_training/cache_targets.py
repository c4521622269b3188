# SPDX-License-Identifier: Apache-2.0
"""Let a teacher see every image of an index once, and keep what it makes of them.

    python -m offline_training.cache_targets out/index.parquet --out out/targets/lite0
    python -m offline_training.cache_targets out/index.parquet --out out/targets/dinov2 \
        --teacher facebook/dinov2-small --input-height 378
    python -m offline_training.cache_targets out/index.parquet --out out/targets/render \
        --teacher-input render
    torchrun --nproc-per-node 4 -m offline_training.cache_targets out/index.parquet \
        --out out/targets/lite0

Interrupted and started again, or with an index that has grown, it makes only what is missing.
"""

from __future__ import annotations

import argparse
import errno
import os
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from cross4d_jepa_ros.compute import choose
from cross4d_jepa_ros.progress import Bars
from offline_training.logs.reader import LogReader
from offline_training.logs.table import Index, IndexedSweep, Shot
from offline_training.teachers import ImageTeacher, load_teacher
from offline_training.teachers.render import render, virtual_shots
from offline_training.teachers.target_cache import (
    BadTargets,
    CachedView,
    Manifest,
    TargetCache,
    ViewKey,
    claim_folder,
    colour_histogram,
    view_bytes,
    write_shard,
)

SHARD_IMAGES = 32
# Bigger batches are slower on a CPU: what a layer leaves no longer fits its caches.
BATCH_IMAGES = {'cpu': 1, 'cuda': 16}
# Readings that are timed at the end.
TIMED_READINGS = 32

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Sought:
    """One image to look at: the `number`th camera or virtual camera of a sweep."""

    row: IndexedSweep
    number: int
    shot: Shot

    @property
    def key(self) -> ViewKey:
        """What the cache knows it by."""
        return ViewKey(self.row.log, self.shot.topic, self.shot.stamp_ns)


@dataclass(frozen=True)
class Made:
    """What one process did.

    Attributes:
        images: That the index has.
        made: Of these by this process, now.
        teacher_ms: That the teacher took for an image; 0 where none was made.
        read_ms: That reading an image's targets took.

    """

    images: int
    made: int
    teacher_ms: float
    read_ms: float


def plan_shards(index: Index, teacher_input: str) -> list[list[Sought]]:
    """Sort every image of an index once into shards of one log and size, in order of time.

    Args:
        index: Of the logs.
        teacher_input: `rgb` or `render`.

    Returns:
        They depend on the index only; a log that is added to it changes no other log's.

    Raises:
        BadTargets: There is no image.

    """
    found: dict[ViewKey, Sought] = {}
    for row in index.rows:
        if row.usable:
            shots = row.shots if teacher_input == 'rgb' else virtual_shots(row)
            seen = [Sought(row, n, shot) for n, shot in enumerate(shots) if shot is not None]
            for sought in seen:
                found.setdefault(sought.key, sought)
    if not found:
        msg = f'no sweep of the index in {index.folder} has ' + (
            'an image: index with --images, or give --teacher-input render'
            if teacher_input == 'rgb'
            else 'points'
        )
        raise BadTargets(msg)

    def alike(sought: Sought) -> tuple[str, int, int]:
        return sought.row.log, sought.shot.camera.width, sought.shot.camera.height

    ordered = sorted(found.values(), key=lambda s: (*alike(s), s.shot.stamp_ns, s.shot.topic))
    return [shard for _, of_a_kind in groupby(ordered, alike) for shard in _split(list(of_a_kind))]


def cache_targets(
    index: Index,
    folder: Path,
    teacher: ImageTeacher,
    *,
    teacher_input: str,
    batch: int,
    console: Console,
    rank: int = 0,
    world: int = 1,
) -> Made:
    """Make the targets that a folder lacks.

    Args:
        index: Of the logs.
        folder: For the targets.
        teacher: That looks at the images.
        teacher_input: `rgb` or `render`.
        batch: Images that the teacher looks at together.
        console: For the progress.
        rank: Of this process; it makes every `world`th shard.
        world: Number of processes.

    Raises:
        BadTargets: The folder has targets of another make, an image is not of the size that the
            index says, or there is none.
        OSError: The disk refuses, or lacks the space that is needed.

    """
    shards = plan_shards(index, teacher_input)
    claim_folder(folder, _manifest(teacher, teacher_input))
    cache = TargetCache(folder)
    missing = [[s for s in shard if not cache.has(*s.key)] for shard in shards]
    _check_space(folder, teacher, missing, console)
    mine = [shard for shard in missing[rank::world] if shard]
    teacher_s = 0.0
    with (
        LogReader(index) as reader,
        ThreadPoolExecutor(1) as pool,
        Bars(console, 'images') as progress,
    ):
        task = progress.add_task('targets', total=sum(map(len, mine)))
        wanted = (sought for shard in mine for sought in shard)
        images = _ahead(pool, _Source(reader, teacher_input), wanted, 2 * batch)
        for shard in mine:
            views: list[CachedView] = []
            for start in range(0, len(shard), batch):
                seen = [next(images) for _ in shard[start : start + batch]]
                began = time.perf_counter()
                views += _looked_at(teacher, seen)
                teacher_s += time.perf_counter() - began
                progress.advance(task, len(seen))
            write_shard(folder, [sought.key for sought in shard], views)
    made = sum(map(len, mine))
    return Made(
        images=sum(map(len, shards)),
        made=made,
        teacher_ms=1e3 * teacher_s / max(made, 1),
        read_ms=_read_ms(folder, [sought.key for shard in shards[rank::world] for sought in shard]),
    )


class _Source:
    """The images, read in one thread in the order of the shards.

    Args:
        reader: Of the logs.
        teacher_input: `rgb` or `render`.

    """

    def __init__(self, reader: LogReader, teacher_input: str) -> None:
        self._reader = reader
        self._rendered = teacher_input == 'render'
        self._sweep: tuple[IndexedSweep, NDArray[np.float32]] | None = None

    def __call__(self, sought: Sought) -> Image:
        camera = sought.shot.camera
        if self._rendered:
            # The renders of a sweep follow each other.
            if self._sweep is None or self._sweep[0] is not sought.row:
                self._sweep = sought.row, self._reader.sweep(sought.row).xyz
            return render(self._sweep[1], sought.shot)
        image = self._reader.image(sought.row, sought.number)
        if image.shape[:2] != (camera.height, camera.width):
            msg = (
                f'the image of {sought.shot.topic} at {sought.shot.stamp_ns} ns in '
                f'{sought.row.log} has {image.shape[1]} x {image.shape[0]} pixels, its CameraInfo '
                f'says {camera.width} x {camera.height}: give the right calibration and index again'
            )
            raise BadTargets(msg)
        return image


def _split(shots: Sequence[Sought]) -> list[list[Sought]]:
    return [list(shots[at : at + SHARD_IMAGES]) for at in range(0, len(shots), SHARD_IMAGES)]


def _ahead(
    pool: ThreadPoolExecutor,
    source: Callable[[Sought], Image],
    wanted: Iterable[Sought],
    most: int,
) -> Iterator[Image]:
    """Read images in order, at most so many ahead of the one that is asked for."""
    pending: deque[Future[Image]] = deque()
    for sought in wanted:
        pending.append(pool.submit(source, sought))
        if len(pending) > most:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def _looked_at(teacher: ImageTeacher, images: Sequence[Image]) -> list[CachedView]:
    features = teacher(images)
    maps = features.patches.to(torch.float16).cpu().numpy()  # (B, h, w, C)
    views = features.view.cpu().numpy()  # (B, V)
    height, width = images[0].shape[:2]
    return [
        CachedView(patches, view, colour_histogram(image), width, height)
        for patches, view, image in zip(maps, views, images, strict=True)
    ]


def _manifest(teacher: ImageTeacher, teacher_input: str) -> Manifest:
    return Manifest(
        teacher=teacher.name,
        weights_sha256=teacher.weights_sha256,
        input_height=teacher.input_height,
        stride=teacher.stride,
        channels=teacher.channels,
        view_channels=teacher.view_channels,
        teacher_input=teacher_input,
    )


def _check_space(
    folder: Path, teacher: ImageTeacher, missing: Sequence[Sequence[Sought]], console: Console
) -> None:
    """Say what is to be made, and refuse what cannot fit."""
    needed = 0
    for shard in filter(None, missing):
        camera = shard[0].shot.camera
        width, height = teacher.input_size(camera.width, camera.height)
        patches = height // teacher.stride, width // teacher.stride
        needed += len(shard) * view_bytes(patches, teacher.channels, teacher.view_channels)
    free = shutil.disk_usage(folder).free
    images = sum(map(len, missing))
    console.print(f'{images} images to look at, {needed / 1e6:,.0f} MB; {free / 1e6:,.0f} MB free')
    if needed > free:
        msg = f'{folder}: the targets need {needed:,} bytes, the disk has {free:,} left'
        raise OSError(errno.ENOSPC, msg)


def _read_ms(folder: Path, keys: Sequence[ViewKey]) -> float:
    """Time some readings; 0 where this process has no image."""
    cache = TargetCache(folder)
    some = keys[:: max(1, len(keys) // TIMED_READINGS)]
    began = time.perf_counter()
    for key in some:
        cache.read(*key)
    return 1e3 * (time.perf_counter() - began) / max(len(some), 1)


def _summary(folder: Path, teacher: str, made: Made) -> str:
    text = f'{folder}: {made.made} of {made.images} images made; '
    if made.made:
        text += (
            f'{1e3 / max(made.teacher_ms, 1e-3):.1f} images/s by {teacher}; the targets of an '
            f'epoch take {made.images * made.teacher_ms / 1e3:.3g} s by the teacher, '
            f'{made.images * made.read_ms / 1e3:.2g} s from the cache, '
            f'{made.teacher_ms / max(made.read_ms, 1e-3):.0f} times less; '
        )
    return text + f'{made.read_ms:.1f} ms to read an image'


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('index', type=Path, help='file of index_bags')
    parser.add_argument('--out', type=Path, required=True, help='folder for the targets')
    parser.add_argument(
        '--teacher', default='lite0', help='lite0, or a folder or hub name of DINOv2 or DINOv3'
    )
    parser.add_argument(
        '--input-height', type=int, default=384, help='rows that images are scaled to'
    )
    parser.add_argument(
        '--teacher-input',
        choices=('rgb', 'render'),
        default='rgb',
        help="the cameras' images, or depth renders of the points",
    )
    parser.add_argument('--device', default='auto', help='auto, cpu, cuda or cuda:N')
    arguments = parser.parse_args(argv)
    rank, world, local = (
        int(os.environ.get(name, default))
        for name, default in (('RANK', 0), ('WORLD_SIZE', 1), ('LOCAL_RANK', 0))
    )
    # One process tells how far it is; they all have about as much to do.
    console = Console(stderr=True, quiet=rank > 0)
    try:
        device = choose(arguments.device, 'fp32').device
        if device.type == 'cuda' and device.index is None:
            device = torch.device('cuda', local % torch.cuda.device_count())
        teacher = load_teacher(
            arguments.teacher, input_height=arguments.input_height, device=device
        )
        made = cache_targets(
            Index.load(arguments.index),
            arguments.out,
            teacher,
            teacher_input=arguments.teacher_input,
            batch=BATCH_IMAGES[device.type],
            console=console,
            rank=rank,
            world=world,
        )
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    print(_summary(arguments.out, arguments.teacher, made))
    return 0


if __name__ == '__main__':
    sys.exit(main())
