# SPDX-License-Identifier: Apache-2.0
"""Which pictures there are, and what of a sweep is seen in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from offline_training.evaluation.pictures import PICTURES, draw
from offline_training.evaluation.scores import StreamScores
from tests.offline_training.evaluation.made_up import shown

COLOURS = {'wall': (255, 0, 0), 'tree': (0, 255, 0)}


def of_colour(path: Path, channel: int) -> int:
    """Count the pixels that are red (0), green (1) or blue (2) and nothing else."""
    image: NDArray[Any] = cv2.imread(str(path))[..., ::-1].astype(int)
    others = np.delete(image, channel, axis=-1)
    return int(((image[..., channel] > 150) & (others.max(-1) < 60)).sum())


def test_answer_and_truth_are_drawn_in_their_colours(tmp_path: Path) -> None:
    scores = StreamScores(('tree', 'wall'))
    report = {'scores': scores.report()}  # of nothing: there is nothing to divide by
    draw(tmp_path, report, shown(camera=True, classes=True), COLOURS, ('tree', 'wall'))
    assert all((tmp_path / name).is_file() for name in PICTURES)
    above = tmp_path / 'topdown.png'
    # The truth's second class is the answer's first, whose colour both have.
    assert of_colour(above, 0) > 60 and of_colour(above, 1) == 0
    assert of_colour(tmp_path / 'camera.png', 0) > 1000


@pytest.mark.parametrize('anything', [True, False])
def test_what_cannot_be_drawn_is_not_left_from_before(tmp_path: Path, anything: bool) -> None:
    for name in PICTURES:
        (tmp_path / name).write_text('old')
    draw(tmp_path, {}, shown(camera=False, classes=False) if anything else None, {}, ())
    left = {path.name for path in tmp_path.iterdir()}
    assert left == ({'topdown.png'} if anything else set())
    if anything:
        assert of_colour(tmp_path / 'topdown.png', 2) > 60
