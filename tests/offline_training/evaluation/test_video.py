# SPDX-License-Identifier: Apache-2.0
"""What is seen in a video, and that there is a whole one or none."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from offline_training.evaluation import video, video_picture
from offline_training.evaluation.pictures import Shown
from offline_training.evaluation.video import Video
from offline_training.evaluation.video_picture import WIDEST, arranged
from tests.offline_training.evaluation.made_up import shown

COLOURS = {'wall': (255, 0, 0), 'tree': (0, 255, 0)}
RED, GREEN, BLUE = 0, 1, 2


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoding takes longer than all the rest."""
    monkeypatch.setattr(video_picture, 'WIDEST', 900)


def filmed(path: Path, sweeps: list[Shown], colours: dict[str, tuple[int, int, int]]) -> Video:
    with Video(path, 'model.safetensors', colours, ('wall', 'tree'), len(sweeps)) as film:
        for number, each in enumerate(sweeps):
            frame = replace(each.swept.frame, stamp_ns=number * 50_000_000)
            film.add(replace(each, swept=replace(each.swept, first=not number, frame=frame)))
    return film


def read(path: Path) -> tuple[list[NDArray[Any]], float]:
    reader = cv2.VideoCapture(str(path))
    rate = reader.get(cv2.CAP_PROP_FPS)
    frames = []
    while (read := reader.read())[0]:
        frames.append(read[1][..., ::-1].astype(int))
    return frames, rate


def of_colour(image: NDArray[Any], channel: int) -> int:
    """Count the pixels that are red, green or blue and nothing else, as well as MPEG-4 tells."""
    others = np.delete(image, channel, axis=-1)
    return int(((image[..., channel] > 180) & (others.max(-1) < 70)).sum())


def test_answers_and_truth_are_painted_in_the_palette(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video_picture, 'WIDEST', WIDEST)
    path = tmp_path / 'new' / 'film.mp4'
    film = filmed(path, [shown(camera=True, classes=True, ahead_m=12.0)] * 3, COLOURS)
    frames, rate = read(path)
    assert (len(frames), rate) == (3, pytest.approx(20, abs=0.01))
    assert '3 pictures, 20.00 a second' in film.told
    layout = arranged({0: 0.5}, True, [(name, COLOURS[name]) for name in COLOURS])
    height, width, _ = frames[0].shape
    assert width == layout.width and width % 2 == height % 2 == 0
    photo, labelled = (
        frames[1][tile.y : tile.y + tile.height, tile.x : tile.x + tile.width]
        for tile in layout.tiles
    )
    assert of_colour(photo, RED) == 0 and of_colour(labelled, RED) > 1000
    answer, truth = (frames[1][y : y + layout.side, x : x + layout.side] for x, y in layout.squares)
    assert of_colour(answer, RED) > 20 and of_colour(answer, GREEN) == 0
    assert of_colour(truth, GREEN) > 20 and of_colour(truth, RED) == 0
    below = frames[1][layout.squares[0][1] + layout.side :]
    assert of_colour(below, RED) > 100 and of_colour(below, GREEN) > 100  # the legend


def test_embeddings_without_a_camera_are_seen_from_above(tmp_path: Path) -> None:
    alone = shown(camera=False, classes=False)
    filmed(tmp_path / 'film.mp4', [replace(alone, cameras=())], {})
    frames, rate = read(tmp_path / 'film.mp4')
    assert (len(frames), rate) == (1, pytest.approx(10, abs=0.01))
    assert of_colour(frames[0], BLUE) > 20
    assert abs(frames[0].shape[0] - frames[0].shape[1]) < 80


def test_a_camera_that_starts_late_has_its_place_from_the_beginning(tmp_path: Path) -> None:
    blind, seeing = (shown(camera=camera, classes=True) for camera in (False, True))
    filmed(tmp_path / 'film.mp4', [blind] * 12 + [seeing], COLOURS)
    frames, _ = read(tmp_path / 'film.mp4')
    assert len(frames) == 13
    left = slice(0, frames[0].shape[1] // 3)
    first, last = (frame[60:-60, left] for frame in (frames[0], frames[-1]))
    assert of_colour(first, RED) == 0 and of_colour(last, RED) > 100


def test_half_a_video_is_not_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / 'film.mp4'
    path.write_text('old')
    sweeps = [shown(camera=False, classes=True)] * 11
    with pytest.raises(AttributeError):
        filmed(path, [*sweeps, None], COLOURS)  # type: ignore[list-item]

    monkeypatch.setattr(video.cv2.VideoWriter, 'write', lambda *_: None)
    with pytest.raises(OSError, match=r'film.mp4: 0 of 11 pictures came out: is the disk full'):
        filmed(path, sweeps, COLOURS)
    monkeypatch.setattr(video.cv2.VideoWriter, 'isOpened', lambda _: False)
    with pytest.raises(OSError, match='leave out --video'):
        filmed(path, sweeps, COLOURS)
    assert 'no sweep was answered' in filmed(path, [], COLOURS).told
    assert [each.name for each in tmp_path.iterdir()] == ['film.mp4']
    assert path.read_text() == 'old'


@pytest.mark.parametrize('truth', [False, True])
@pytest.mark.parametrize(
    'aspects', [[], [0.3], [1.4], [0.56, 0.56], [0.56, 0.75, 0.3], [0.56] * 6, [1.4] * 9]
)
def test_everything_has_a_place_of_its_own(
    monkeypatch: pytest.MonkeyPatch, aspects: list[float], truth: bool
) -> None:
    monkeypatch.setattr(video_picture, 'WIDEST', WIDEST)
    names = [(f'class {number}', (number, 0, 0)) for number in range(20)]
    layout = arranged(dict(enumerate(aspects)), truth, names)
    boxes = [(tile.x, tile.y, tile.width, tile.height) for tile in layout.tiles]
    boxes += [(x, y, layout.side, layout.side) for x, y in layout.squares]
    boxes += [(x, y, 100, video_picture.LEGEND_ROW) for y, x, _, _ in layout.legend]
    assert len(boxes) == max(len(aspects), 2 * (aspects == [0.3])) + 1 + truth + 20
    assert layout.width <= WIDEST and layout.width % 2 == layout.height % 2 == 0
    for x, y, width, height in boxes:
        assert min(x, y) >= 0 and width > 99 and height > 30
        assert x + width <= layout.width and y + height <= layout.height
    for one, other in combinations(boxes, 2):
        apart = (
            one[k] + one[k + 2] <= other[k] or other[k] + other[k + 2] <= one[k] for k in (0, 1)
        )
        assert any(apart)
