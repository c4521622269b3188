# SPDX-License-Identifier: Apache-2.0
"""Caching targets: every image once, nothing twice, by any number of processes."""

from __future__ import annotations

import io
from collections import namedtuple
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from rich.console import Console

from cross4d_jepa_ros.sensing.cameras import CameraModel
from offline_training import cache_targets
from offline_training.cache_targets import SHARD_IMAGES, Made, plan_shards
from offline_training.logs.table import Index, IndexedSweep, Shot
from offline_training.teachers import TeacherFeatures, load_teacher, render
from offline_training.teachers.features import scaled_size
from offline_training.teachers.target_cache import BadTargets, TargetCache, colour_histogram

CONSOLE = Console(file=io.StringIO())
SIZES = {'/front': (64, 48), '/rear': (64, 48), '/side': (96, 48)}
STEP_NS = 100_000_000
SWEEPS = 20


def shot(topic: str, stamp_ns: int) -> Shot:
    """Lay out an image of a camera."""
    width, height = SIZES[topic]
    camera = CameraModel(width, height, 50.0, 50.0, width / 2, height / 2)
    return Shot(topic, stamp_ns, stamp_ns, 0, camera, np.eye(4), 0.5)


def sweep(log: str, number: int, shots: Sequence[Shot | None], *flags: str) -> IndexedSweep:
    """Lay out a row of the index."""
    return IndexedSweep(
        log=log,
        topic='/points',
        frame_id='lidar',
        stamp_ns=number * STEP_NS,
        message_ns=number * STEP_NS,
        points=100,
        base_from_sensor=np.eye(4),
        fixed_from_base=None,
        stamp_from_knot=None,
        intensity_ceiling=1.0,
        shots=tuple(shots),
        coverage=0.5,
        flags=flags,
        segment=0,
        labels='',
    )


def logged(folder: Path, *logs: str) -> Index:
    """Lay out logs of 20 sweeps and three cameras, the slow one with an image every other sweep."""
    rows = []
    for log in logs:
        for number in range(SWEEPS):
            now, slow = number * STEP_NS, number // 2 * 2 * STEP_NS
            shots = [shot('/front', now), shot('/rear', now), shot('/side', slow)]
            rows.append(sweep(log, number, shots if number else [None, *shots[1:]]))
        rows.append(sweep(log, SWEEPS, [shot('/front', SWEEPS * STEP_NS)], 'truncated_cloud'))
    return Index(rows, folder)


# 19 of the first camera, 20 of the second, 10 of the third.
IMAGES = 49


def picture(topic: str, stamp_ns: int) -> NDArray[np.uint8]:
    """Draw the image of a topic and stamp."""
    width, height = SIZES[topic]
    draw = np.random.default_rng([stamp_ns, *topic.encode()])
    return draw.integers(0, 256, (height, width, 3), np.uint8)


class Reader:
    """Stands in for the reader of logs; counts what is read."""

    read: list[tuple[str, int]] = []

    def __init__(self, index: Index) -> None:
        pass

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def image(self, row: IndexedSweep, camera: int) -> NDArray[np.uint8]:
        """Draw an image."""
        taken = row.shots[camera]
        assert taken is not None
        self.read.append((taken.topic, taken.stamp_ns))
        return picture(taken.topic, taken.stamp_ns)

    def sweep(self, row: IndexedSweep) -> SimpleNamespace:
        """Draw some points around the sensor."""
        self.read.append((row.topic, row.stamp_ns))
        draw = np.random.default_rng(row.stamp_ns)
        return SimpleNamespace(xyz=draw.uniform(-9, 9, (500, 3)).astype(np.float32))


class MeanColour:
    """Stands in for a teacher: the mean colour of each patch of 16 pixels, and of the image."""

    name, weights_sha256, input_height, stride = 'mean', 'f' * 64, 48, 16
    channels = view_channels = 3

    def __init__(self) -> None:
        self.batches: list[int] = []

    def input_size(self, width: int, height: int) -> tuple[int, int]:
        """Round to whole patches."""
        return scaled_size(width, height, self.input_height, self.stride)

    def __call__(self, images_rgb: Sequence[NDArray[np.uint8]]) -> TeacherFeatures:
        """Average."""
        self.batches.append(len(images_rgb))
        images = torch.from_numpy(np.stack(images_rgb)).float()
        patches = images.unflatten(2, (-1, 16)).unflatten(1, (-1, 16)).mean((2, 4))
        return TeacherFeatures(patches, images.mean((1, 2)))


@pytest.fixture(autouse=True)
def reader(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Read drawn images; returns which."""
    monkeypatch.setattr(Reader, 'read', [])
    monkeypatch.setattr(cache_targets, 'LogReader', Reader)
    return Reader.read


def make(index: Index, folder: Path, teacher: MeanColour, **how: object) -> Made:
    """Fill a cache."""
    settled = {'teacher_input': 'rgb', 'batch': 4, 'console': CONSOLE, **how}
    return cache_targets.cache_targets(index, folder, teacher, **settled)


def contents(folder: Path) -> dict[str, bytes]:
    """Read every file of a cache."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_shards_are_of_one_log_and_size_and_in_order(tmp_path: Path) -> None:
    shards = plan_shards(logged(tmp_path, 'a', 'b'), 'rgb')
    assert [len(shard) for shard in shards] == [SHARD_IMAGES, 39 - SHARD_IMAGES, 10] * 2
    for shard in shards:
        assert len({(s.row.log, s.shot.camera.width) for s in shard}) == 1
        stamps = [s.shot.stamp_ns for s in shard]
        assert stamps == sorted(stamps)
    keys = [s.key for shard in shards for s in shard]
    assert len(set(keys)) == len(keys) == 2 * IMAGES
    alone = plan_shards(logged(tmp_path, 'b'), 'rgb')
    assert [[s.key for s in shard] for shard in alone] == [
        [s.key for s in shard] for shard in shards[3:]
    ]


def test_every_image_is_looked_at_once(tmp_path: Path, reader: list[tuple[str, int]]) -> None:
    index, teacher = logged(tmp_path, 'a'), MeanColour()
    made = make(index, tmp_path / 'targets', teacher)
    assert (made.images, made.made) == (IMAGES, IMAGES)
    assert len(reader) == len(set(reader)) == IMAGES
    # Shards of 32, 7 and 10 images.
    assert teacher.batches == [4] * 8 + [4, 3] + [4, 4, 2]
    cache = TargetCache(tmp_path / 'targets')
    assert len(cache) == IMAGES
    for topic, stamp_ns in reader:
        image = picture(topic, stamp_ns)
        found = cache.read('a', topic, stamp_ns)
        assert (found.width, found.height) == SIZES[topic]
        expected = image.reshape(3, 16, -1, 16, 3).mean((1, 3), np.float64)
        np.testing.assert_allclose(found.patches, expected, rtol=1e-3)
        np.testing.assert_allclose(found.view, image.mean((0, 1), np.float64), rtol=1e-5)
        assert np.array_equal(found.histogram, colour_histogram(image))


def test_nothing_is_made_twice(tmp_path: Path, reader: list[tuple[str, int]]) -> None:
    index, folder = logged(tmp_path, 'a'), tmp_path / 'targets'
    make(index, folder, MeanColour())
    before = contents(folder)
    reader.clear()
    again = make(index, folder, MeanColour())
    assert (again.images, again.made, reader) == (IMAGES, 0, [])
    assert contents(folder) == before
    grown = make(logged(tmp_path, 'A', 'a'), folder, MeanColour())
    assert (grown.images, grown.made, len(reader)) == (2 * IMAGES, IMAGES, IMAGES)
    assert before.items() <= contents(folder).items()


def test_an_interrupted_run_goes_on_after_its_last_shard(
    tmp_path: Path, reader: list[tuple[str, int]]
) -> None:
    class Interrupted(MeanColour):
        def __call__(self, images_rgb: Sequence[NDArray[np.uint8]]) -> TeacherFeatures:
            if len(self.batches) == 10:
                raise KeyboardInterrupt
            return super().__call__(images_rgb)

    index, folder, whole = logged(tmp_path, 'a'), tmp_path / 'targets', tmp_path / 'whole'
    with pytest.raises(KeyboardInterrupt):
        make(index, folder, Interrupted())
    assert len(TargetCache(folder)) == 39
    assert make(index, folder, MeanColour()).made == 10
    make(index, whole, MeanColour())
    assert contents(folder) == contents(whole)


@pytest.mark.parametrize('world', [2, 5])
def test_several_processes_make_the_same_files(world: int, tmp_path: Path) -> None:
    index, folder, whole = logged(tmp_path, 'a', 'b'), tmp_path / 'targets', tmp_path / 'whole'
    make(index, whole, MeanColour())
    shares = [make(index, folder, MeanColour(), rank=r, world=world).made for r in range(world)]
    assert sum(shares) == 2 * IMAGES
    assert max(shares) < 2 * IMAGES
    assert contents(folder) == contents(whole)


def test_renders_are_made_for_every_sweep(tmp_path: Path, reader: list[tuple[str, int]]) -> None:
    index = Index([sweep('a', number, []) for number in range(5)], tmp_path)
    teacher = load_teacher('lite0-random', input_height=32, device='cpu')
    made = make(index, tmp_path / 'targets', teacher, teacher_input='render')
    # A sweep is read once for all its views.
    assert reader == [('/points', number * STEP_NS) for number in range(5)]
    cache = TargetCache(tmp_path / 'targets')
    cache.check_input('render')
    shots = [(row, taken) for row in index.rows for taken in render.virtual_shots(row)]
    assert made.made == len(cache) == len(shots)
    row, taken = shots[-1]
    points = Reader(index).sweep(row).xyz
    expected = teacher([render.render(points, taken)])
    found = cache.read('a', taken.topic, taken.stamp_ns)
    np.testing.assert_allclose(found.patches, expected.patches[0], rtol=1e-2, atol=1e-3)


def test_another_teacher_s_cache_is_refused(tmp_path: Path) -> None:
    index, other = logged(tmp_path, 'a'), MeanColour()
    make(index, tmp_path / 'targets', MeanColour())
    other.weights_sha256 = 'e' * 64
    with pytest.raises(BadTargets, match=f'{"f" * 64}, wanted .* {"e" * 64}'):
        make(index, tmp_path / 'targets', other)


def test_an_index_without_images_says_what_to_do(tmp_path: Path) -> None:
    index = Index([sweep('a', 0, [None]), sweep('a', 1, [])], tmp_path)
    with pytest.raises(BadTargets, match=r'has an image: index with --images, or .* render'):
        make(index, tmp_path / 'targets', MeanColour())


def test_an_image_of_another_size_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = logged(tmp_path, 'a')
    monkeypatch.setitem(SIZES, '/side', (64, 48))
    with pytest.raises(BadTargets, match=r'/side at 0 ns in a has 64 x 48 pixels, .* 96 x 48'):
        make(index, tmp_path / 'targets', MeanColour())


def test_a_disk_that_is_too_small_is_refused_beforehand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: list[tuple[str, int]]
) -> None:
    usage = namedtuple('usage', 'total used free')(10_000, 1, 9_999)
    monkeypatch.setattr(cache_targets.shutil, 'disk_usage', lambda _: usage)
    # 39 maps of 3 x 4 and 10 of 3 x 6 patches of 3 channels in float16, and 212 bytes each.
    needed = f'{39 * (72 + 212) + 10 * (108 + 212):,}'
    with pytest.raises(OSError, match=f'targets need {needed} bytes, the disk has 9,999 left'):
        make(logged(tmp_path, 'a'), tmp_path / 'targets', MeanColour())
    assert reader == []


def test_the_command_tells_what_the_cache_saves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, folder = tmp_path / 'index.parquet', tmp_path / 'targets'
    logged(tmp_path, 'a').save(path)
    words = [str(path), '--out', str(folder), '--teacher', 'lite0-random', '--input-height', '32']
    words += ['--device', 'cpu']
    monkeypatch.setenv('WORLD_SIZE', '2')
    for rank, images in (('0', 42), ('1', 7)):
        monkeypatch.setenv('RANK', rank)
        assert cache_targets.main(words) == 0
        said = capsys.readouterr()
        assert f'{images} of 49 images made' in said.out
        assert 'times less' in said.out and 'ms to read an image' in said.out
        # Only the first process shows how far it is.
        assert ('49 images to look at' in said.err) == (rank == '0')
    assert len(TargetCache(folder)) == 49


@pytest.mark.parametrize(
    ('words', 'reason'),
    [
        (['none.parquet', '--out', 'x'], 'there is no index at none.parquet'),
        (['none.parquet', '--out', 'x', '--input-height', '0'], 'input_height is 0'),
        (['none.parquet', '--out', 'x', '--teacher', './none'], 'no teacher folder ./none'),
        (['none.parquet', '--out', 'x', '--device', 'tpu'], 'device is'),
    ],
)
def test_what_cannot_be_is_one_sentence(
    words: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cache_targets.main(words) == 2
    said = capsys.readouterr().err
    assert reason in said
    assert 'Traceback' not in said
