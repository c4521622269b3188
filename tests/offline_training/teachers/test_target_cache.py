# SPDX-License-Identifier: Apache-2.0
"""Targets on disk: what is written is read, and what does not belong is refused."""

from __future__ import annotations

import errno
import json
import multiprocessing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from offline_training.teachers import target_cache
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

MANIFEST = Manifest('lite0', 'abc', 384, 16, 8, 5, 'rgb')
KEYS = [ViewKey('bags/a', f'/camera{n % 2}', 1_700_000_000_000_000_000 + n) for n in range(4)]


def drawn(seed: int) -> CachedView:
    """Draw the targets of an image."""
    draw = np.random.default_rng(seed)
    return CachedView(
        patches=draw.normal(size=(3, 4, 8)).astype(np.float16),
        view=draw.normal(size=5).astype(np.float32),
        histogram=draw.random(48).astype(np.float32),
        width=64,
        height=48,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write two shards of two images each."""
    claim_folder(tmp_path / 'targets', MANIFEST)
    for half in (0, 2):
        views = [drawn(half), drawn(half + 1)]
        write_shard(tmp_path / 'targets', KEYS[half : half + 2], views)
    return tmp_path / 'targets'


def same(first: CachedView, second: CachedView) -> bool:
    """Whether two are alike to the bit."""
    return (first.width, first.height) == (second.width, second.height) and all(
        getattr(first, name).dtype == getattr(second, name).dtype
        and np.array_equal(getattr(first, name), getattr(second, name))
        for name in ('patches', 'view', 'histogram')
    )


def shard_of(folder: Path, number: int) -> Path:
    """File that holds an image."""
    return TargetCache(folder)._places[KEYS[number]][0]


def test_what_was_written_is_read(folder: Path) -> None:
    cache = TargetCache(folder)
    assert cache.manifest == MANIFEST
    assert len(cache) == 4
    for number, key in enumerate(KEYS):
        assert cache.has(*key)
        assert same(cache.read(*key), drawn(number))
    assert not cache.has('bags/b', *KEYS[0][1:])
    with pytest.raises(BadTargets, match=r'no targets of /camera0 at 5 ns in bags/a: run'):
        cache.read('bags/a', '/camera0', 5)


def _read_there(cache: TargetCache, number: int) -> NDArray[np.float16]:
    return cache.read(*KEYS[number]).patches


def test_a_cache_can_be_handed_to_another_process(folder: Path) -> None:
    with multiprocessing.get_context('spawn').Pool(1) as pool:
        patches = pool.apply(_read_there, (TargetCache(folder), 3))
    assert np.array_equal(patches, drawn(3).patches)


def test_an_image_takes_the_bytes_that_were_announced(folder: Path) -> None:
    assert view_bytes((3, 4), 8, 5) == 2 * 96 + 4 * 5 + 4 * 48 + 8
    content = shard_of(folder, 0).read_bytes()
    header = 8 + int.from_bytes(content[:8], 'little')
    assert len(content) - header == 2 * view_bytes((3, 4), 8, 5)


@pytest.mark.parametrize(
    ('change', 'seen'),
    [
        ({'weights_sha256': 'abd'}, 'lite0 with weights_sha256 abc, .* lite0 with .* abd'),
        ({'teacher': 'dinov2', 'channels': 9}, 'lite0 with channels 8, .* of dinov2 .* 9'),
        ({'input_height': 512}, 'input_height 384, .* 512'),
        ({'teacher_input': 'render'}, 'teacher_input rgb, .* render'),
        ({'scaling': 'nearest'}, 'scaling area down.* nearest'),
        ({'version': 2}, 'version 1, .* 2'),
    ],
)
def test_targets_of_another_make_are_kept_apart(
    change: dict[str, object], seen: str, folder: Path
) -> None:
    with pytest.raises(
        BadTargets, match=f'{folder} holds targets of .*{seen}: give another folder'
    ):
        claim_folder(folder, replace(MANIFEST, **change))
    assert TargetCache(folder).manifest == MANIFEST


def test_the_same_weights_by_another_name_are_welcome(folder: Path) -> None:
    claim_folder(folder, replace(MANIFEST, teacher='weights/lite0'))
    assert TargetCache(folder).manifest == MANIFEST


def test_the_input_is_checked(folder: Path) -> None:
    TargetCache(folder).check_input('rgb')
    with pytest.raises(BadTargets, match=r'made from rgb, but .*--teacher-input render'):
        TargetCache(folder).check_input('render')


def test_a_folder_without_targets_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadTargets, match=f'no targets at {tmp_path}: make some'):
        TargetCache(tmp_path)


@pytest.mark.parametrize('content', ['', '[]', '{"teacher": "lite0"}', '\0'])
def test_a_manifest_that_is_none_is_refused(content: str, folder: Path) -> None:
    (folder / 'manifest.json').write_text(content)
    with pytest.raises(BadTargets, match=r'manifest\.json is no manifest of targets'):
        TargetCache(folder)


def test_targets_of_an_older_version_are_refused(folder: Path) -> None:
    about = json.loads((folder / 'manifest.json').read_text())
    del about['sha256']  # as manifests were before they had one
    (folder / 'manifest.json').write_text(json.dumps(about))
    assert TargetCache(folder).manifest == MANIFEST
    (folder / 'manifest.json').write_text(json.dumps(about | {'version': 0}))
    with pytest.raises(BadTargets, match='version 0, this program reads 1: make them again'):
        TargetCache(folder)


def test_shards_that_lost_their_manifest_are_not_adopted(folder: Path) -> None:
    (folder / 'manifest.json').unlink()
    with pytest.raises(BadTargets, match=r'targets but no manifest\.json'):
        claim_folder(folder, MANIFEST)


@pytest.mark.parametrize('share', [0.0, 0.2, 0.9])
def test_a_cut_shard_is_named(share: float, folder: Path) -> None:
    path = shard_of(folder, 2)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(BadTargets, match=f'{path.name} is damaged .*delete it and run'):
        TargetCache(folder)


def test_a_changed_bit_is_noticed_for_its_image_only(folder: Path) -> None:
    path = shard_of(folder, 2)
    content = bytearray(path.read_bytes())
    place = bytes(content).index(drawn(3).patches.tobytes())
    content[place] ^= 1
    path.write_bytes(content)
    cache = TargetCache(folder)
    assert same(cache.read(*KEYS[2]), drawn(2))
    with pytest.raises(BadTargets, match=f'{path.name} is damaged .*checksum of /camera1 at 17'):
        cache.read(*KEYS[3])


def test_targets_under_another_s_key_are_noticed(folder: Path) -> None:
    path = shard_of(folder, 2)
    content = path.read_bytes()
    stamp = str(KEYS[2].stamp_ns).encode()
    path.write_bytes(content.replace(stamp, stamp[:-1] + b'9'))
    with pytest.raises(BadTargets, match='is damaged'):
        TargetCache(folder).read(*KEYS[2]._replace(stamp_ns=KEYS[2].stamp_ns + 7))


def test_a_shard_that_is_gone_is_named(folder: Path) -> None:
    cache = TargetCache(folder)
    path = shard_of(folder, 2)
    path.unlink()
    with pytest.raises(BadTargets, match=path.name):
        cache.read(*KEYS[2])


@pytest.mark.parametrize('value', [np.inf, np.nan])
def test_features_that_float16_cannot_hold_are_refused(value: float, tmp_path: Path) -> None:
    view = drawn(0)
    view.patches[1, 2, 3] = value
    with pytest.raises(BadTargets, match='beyond float16'):
        write_shard(tmp_path, KEYS[:1], [view])
    assert not list(tmp_path.iterdir())


def test_a_full_disk_says_what_is_needed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(target_cache, 'write_atomically', refuse)
    with pytest.raises(OSError, match=f'{folder}: the disk is full; the next .* [0-9,]+ bytes'):
        write_shard(folder, [KEYS[0]], [drawn(9)])
    monkeypatch.undo()
    assert same(TargetCache(folder).read(*KEYS[0]), drawn(0))


def test_colours_are_counted_by_channel() -> None:
    image = np.zeros((2, 2, 3), np.uint8)
    image[0, 0] = (255, 16, 15)
    image[0, 1] = (240, 31, 0)
    found = colour_histogram(image)
    expected = np.zeros((3, 16), np.float32)
    expected[0, [0, 15]] = 0.5
    expected[1, [0, 1]] = 0.5
    expected[2, 0] = 1
    assert found.dtype == np.float32
    assert np.array_equal(found, expected.reshape(-1))


def test_of_two_that_claim_a_folder_at_once_one_gets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the manifest of one, the targets of the other would be taken for those of the first."""
    folder, first = tmp_path / 'targets', replace(MANIFEST, weights_sha256='first')
    written = target_cache.write_atomically

    def overtaken(path: Path, content: str, **how: bool) -> None:
        monkeypatch.undo()
        claim_folder(folder, first)
        written(path, content, **how)

    monkeypatch.setattr(target_cache, 'write_atomically', overtaken)
    with pytest.raises(BadTargets, match='give another folder'):
        claim_folder(folder, MANIFEST)
    assert TargetCache(folder).manifest == first
