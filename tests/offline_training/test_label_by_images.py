# SPDX-License-Identifier: Apache-2.0
"""Names from labelled images: learnt without a LiDAR label, read off points."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from cross4d_jepa_ros.model.checkpoint import load_checkpoint, save_checkpoint
from cross4d_jepa_ros.model.config import Segmentation, Teacher
from cross4d_jepa_ros.model.heads import SegmentationHead, TeacherSpace
from offline_training import label_by_images
from offline_training.frozen_head import fold
from offline_training.logs.reader import LogReader
from offline_training.naming import image_head
from offline_training.naming.image_head import Pairs, Pixels, fit_head, matched
from offline_training.naming.labelled_images import BadImages, labelled_images
from tests.tiny_names import COMPONENTS, index_of_street, write_start

MAP = """
classes: {wall: [200, 0, 0], floor: [0, 0, 200]}
labels: {3: wall, 7: floor, 9: ignore}
"""


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (('STEPS', 80), ('MATCH_STEPS', 40), ('MATCHED_SWEEPS', 2)):
        monkeypatch.setattr(image_head, name, value)


def write_images(folder: Path, count: int) -> Path:
    """Stripes on the left, which are walls, and noise on the right, which is floor."""
    for name in ('images', 'labels'):
        (folder / name).mkdir(parents=True)
    draw = np.random.default_rng(count)
    for number in range(count):
        image = np.zeros((64, 128, 3), np.uint8)
        image[:, :64] = np.where(np.arange(64) // 4 % 2, 220, 30)[:, None]
        image[:, 64:] = draw.integers(90, 130, (64, 64, 3))
        label = np.repeat([3, 7], 64).astype(np.uint8)[None].repeat(64, axis=0)
        label[:8] = 9
        cv2.imwrite(str(folder / 'images' / f'{number}.png'), image)
        cv2.imwrite(str(folder / 'labels' / f'{number}.png'), label)
    return folder


@pytest.fixture
def given(tmp_path: Path) -> list[str]:
    """Words of a command, less the index."""
    (tmp_path / 'map.yaml').write_text(MAP)
    write_images(tmp_path / 'learnt', 3)
    write_images(tmp_path / 'held_out', 2)
    start = write_start(tmp_path / 'start.safetensors', teacher=True)
    words = [str(start), str(tmp_path / 'out.safetensors'), '--images', str(tmp_path / 'learnt')]
    return [*words, '--labels', str(tmp_path / 'map.yaml')]


def test_a_head_is_learnt_and_scored_on_other_images(tmp_path: Path, given: list[str]) -> None:
    assert label_by_images.main([*given, '--held-out', str(tmp_path / 'held_out')]) == 0
    report = json.loads((tmp_path / 'out.json').read_text())
    # What is left are the patches that straddle both halves.
    assert report['miou'] > 0.8
    assert len(report['miou_of_seeds']) == 3
    assert report['images'] == {'learnt': 3, 'held_out': 2, 'pixels': 2 * 28 * 64}
    assert not report['matched_to_points']
    named = load_checkpoint(tmp_path / 'out.safetensors')
    assert named.contract.class_names == ('wall', 'floor')
    assert named.contract.palette == ((200, 0, 0), (0, 0, 200))
    assert named.contract.segmentation == Segmentation('teacher', image_head.HIDDEN)
    assert named.contract.training['kind'] == 'image_labels'
    start = load_checkpoint(tmp_path / 'start.safetensors')
    assert named.contract.training['start_sha256'] == start.sha256
    for name, value in start.network.state_dict().items():
        torch.testing.assert_close(named.network.state_dict()[name], value, rtol=0, atol=0)
    drawn = cv2.imread(str(tmp_path / 'out.png'))
    assert drawn is not None and drawn.shape == (3 * 64, 128, 3)


def test_no_label_of_a_lidar_is_read(
    tmp_path: Path, given: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError('labels are read')

    monkeypatch.setattr(LogReader, 'labels', refuse)
    written = []
    for folder, label in (('honest', 0), ('poisoned', 250)):
        (tmp_path / folder).mkdir()
        index = index_of_street(tmp_path / folder, label=label)
        if written:
            # The same command for both.
            (tmp_path / 'honest').rename(tmp_path / 'away')
            (tmp_path / 'poisoned').rename(tmp_path / 'honest')
            index = tmp_path / 'honest' / index.name
        assert label_by_images.main([*given, '--index', str(index)]) == 0
        assert json.loads((tmp_path / 'out.json').read_text())['matched_to_points']
        written.append((tmp_path / 'out.safetensors').read_bytes())
    assert written[0] == written[1]
    assert (tmp_path / 'away' / 'street').exists()


@pytest.mark.parametrize(
    ('change', 'sentence'),
    [
        (None, 'has no teacher space'),
        ('0' * 64, 'has learnt from lite0-random with weights 000000000000, here it has'),
    ],
)
def test_another_start_is_refused(
    tmp_path: Path,
    given: list[str],
    capsys: pytest.CaptureFixture[str],
    change: str | None,
    sentence: str,
) -> None:
    start = Path(given[0])
    if change is None:
        write_start(start, teacher=False)
    else:
        loaded = load_checkpoint(start)
        assert loaded.contract.teacher is not None
        other = replace(loaded.contract.teacher, weights_sha256=change)
        save_checkpoint(start, replace(loaded.contract, teacher=other), loaded.network)
    assert label_by_images.main(given) == 2
    assert sentence in ' '.join(capsys.readouterr().out.split())
    assert not (tmp_path / 'out.safetensors').exists()


@pytest.mark.parametrize(
    ('label', 'sentence'),
    [
        (None, 'has no labels at'),
        (np.full((64, 128, 3), 3, np.uint8), 'has colours or a palette'),
        (np.full((32, 128), 3, np.uint8), 'is 128 x 32, its image 128 x 64'),
        (np.full((64, 128), 4, np.uint8), 'has the label 4, which the label map does not list'),
        (np.full((64, 128), 9, np.uint8), 'no pixel of the labelled images has a class'),
    ],
)
def test_images_that_cannot_be_used_are_refused(
    tmp_path: Path,
    given: list[str],
    capsys: pytest.CaptureFixture[str],
    label: Any,
    sentence: str,
) -> None:
    for path in (tmp_path / 'learnt' / 'labels').iterdir():
        path.unlink()
        if label is not None:
            cv2.imwrite(str(path), label)
    assert label_by_images.main([*given, '--held-out', str(tmp_path / 'held_out')]) == 2
    assert sentence in ' '.join(capsys.readouterr().out.split())


def test_no_image_is_learnt_from_and_held_out(
    tmp_path: Path, given: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert label_by_images.main([*given, '--held-out', str(tmp_path / 'learnt')]) == 2
    assert '0.png is learnt from and held out' in ' '.join(capsys.readouterr().out.split())
    with pytest.raises(BadImages, match='is the only labelled image'):
        label_by_images.parted(labelled_images([tmp_path / 'learnt'])[:1])


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadImages, match=r'has no images/\*\.jpg or \.png'):
        labelled_images([tmp_path])


def shrunk_points(draw: np.random.Generator) -> tuple[Pixels, Pairs]:
    """Three classes of pixels, and points that predict them all close to the mean."""
    label = draw.integers(0, 3, 4000).astype(np.uint8)
    pixel = np.eye(3, COMPONENTS)[label] + 0.05 * draw.normal(size=(4000, COMPONENTS))
    point = 0.1 * pixel + np.eye(3, COMPONENTS)[0] + 0.002 * draw.normal(size=pixel.shape)
    unit = [F.normalize(torch.from_numpy(each).float(), dim=1) for each in (point, pixel)]
    return Pixels(unit[1].numpy(), label), Pairs(unit[0], unit[1], torch.ones(4000))


def test_points_that_predict_too_little_are_matched_to_pixels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(image_head, 'STEPS', 150)
    pixels, pairs = shrunk_points(np.random.default_rng(0))
    probe = fit_head(pixels, 3, 0)
    front = matched(probe, pairs, 0)
    with torch.no_grad():
        plain = probe(pairs.point).argmax(1).numpy()
        better = probe(front(pairs.point)).argmax(1).numpy()
    assert np.mean(plain == pixels.label) < 0.5
    assert np.mean(better == pixels.label) > 0.98


@pytest.mark.parametrize('with_front', [False, True])
def test_what_is_folded_answers_as_what_it_was_folded_from(with_front: bool) -> None:
    pixels, pairs = shrunk_points(np.random.default_rng(1))
    probe = fit_head(pixels, 3, 0)
    front = matched(probe, pairs, 0) if with_front else None
    teacher = load_teacher_space()
    head = SegmentationHead(4, 3, image_head.HIDDEN, teacher)
    fold(probe, head, front)
    embedding = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        seen = F.normalize(teacher(embedding), dim=1)
        wanted = probe(seen if front is None else front(seen))
        torch.testing.assert_close(head(embedding), wanted, rtol=1e-4, atol=1e-4)


def load_teacher_space() -> TeacherSpace:
    torch.manual_seed(0)
    return TeacherSpace(4, Teacher('any', '0', 32, 16, 10, COMPONENTS, 0))
