# SPDX-License-Identifier: Apache-2.0
"""Recordings of many towns, made on all cores and kept for the next time."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import cv2

from cross4d_jepa_ros.files import one_writer
from offline_training.make_street_bag import VERSION, write_street_bag

# Libraries that would start a thread per core in each of the processes, and wait for each other.
ONE_THREAD = dict.fromkeys(('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS'), '1')
# Words that name the topics of a recording to `index_bags` and to the node's demo.
STREET_TOPICS = (
    *('--points', '/lidar/points'),
    *('--images', '/camera_left/image_raw/compressed', '/camera_right/image_raw/compressed'),
)


def record_towns(
    folder: Path,
    seeds: Iterable[int],
    seconds: float,
    on_town: Callable[[], None],
    *,
    label_images: Path | None = None,
) -> dict[int, Path]:
    """Make the recordings that are missing, one process a core.

    Recordings of the same seed by another version of the generator are removed.

    Args:
        folder: Holds a folder for each town.
        seeds: One town each.
        seconds: Length of each recording.
        on_town: Called for each town that is there.
        label_images: As `write_street_bag`, of the towns that are not there yet.

    Returns:
        Folder of each seed.

    Raises:
        OSError: The disk refuses, or a process died.
        BadBag: A folder cannot be made.
        InUse: Another process makes recordings there.

    """
    paths = {seed: folder / f'street_{VERSION}_{seed}_{seconds:g}s' for seed in seeds}
    folder.mkdir(parents=True, exist_ok=True)
    if all(path.exists() for path in paths.values()):
        for _ in paths:
            on_town()
        return paths
    with one_writer(folder / '.lock', f'recordings in {folder}'):
        _record_missing(folder, paths, seconds, on_town, label_images)
    return paths


def _record_missing(
    folder: Path,
    paths: Mapping[int, Path],
    seconds: float,
    on_town: Callable[[], None],
    label_images: Path | None,
) -> None:
    missing = {seed: path for seed, path in paths.items() if not path.exists()}
    for _ in range(len(paths) - len(missing)):
        on_town()
    for seed, path in missing.items():
        shutil.rmtree(_unfinished(path), ignore_errors=True)
        for stale in folder.glob(f'street_*_{seed}_*'):
            if not stale.name.startswith(f'street_{VERSION}_'):
                shutil.rmtree(stale)
    with one_thread():
        spawn = multiprocessing.get_context('spawn')
        with ProcessPoolExecutor(os.cpu_count(), spawn, initializer=_settle) as pool:
            jobs = [
                pool.submit(_record, path, seed, seconds, label_images)
                for seed, path in missing.items()
            ]
            try:
                for job in as_completed(jobs):
                    job.result()
                    on_town()
            except BaseException as error:
                # Leaving the pool would otherwise first make all towns that are left.
                pool.shutdown(wait=False, cancel_futures=True)
                if isinstance(error, BrokenProcessPool):
                    msg = f'a process that makes recordings in {folder} died: is memory short?'
                    raise OSError(msg) from error
                raise


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Have processes that are spawned meanwhile compute on one thread: they read it on import."""
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(ONE_THREAD)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def remove_recording(path: Path) -> None:
    """Remove a recording of `record_towns`, whole even if the process is killed meanwhile."""
    shutil.rmtree(_unfinished(path), ignore_errors=True)
    _unfinished(path).parent.mkdir(exist_ok=True)
    path.rename(_unfinished(path))
    shutil.rmtree(_unfinished(path))


def _unfinished(path: Path) -> Path:
    return path.parent / 'unfinished' / path.name


def _record(path: Path, seed: int, seconds: float, label_images: Path | None) -> None:
    _unfinished(path).parent.mkdir(exist_ok=True)
    write_street_bag(_unfinished(path), seed, seconds, label_images=label_images)
    _unfinished(path).rename(path)


def _settle() -> None:
    """Keep a worker to one thread and off the terminal: several bars at a time would garble it."""
    cv2.setNumThreads(1)
    sys.stderr = Path(os.devnull).open('w')  # noqa: SIM115 - as long as the process
