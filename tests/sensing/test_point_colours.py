# SPDX-License-Identifier: Apache-2.0
"""The colour of a point is that of its pixel, in the first image that sees it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from cross4d_jepa_ros.sensing.point_colours import sample_colours
from tests.drawn_frames import CAMERA_FROM_BASE, image, points, view_of


def test_colours_are_those_of_the_pixels() -> None:
    picture = image()
    # u = 20 - 20 y / x, v = 15 + 20 (1 - z) / x.
    xyz = np.array(
        [
            [10, 0, 1],  # (20, 15)
            [10, 5, 1],  # (10, 15)
            [10, 0, 3.7],  # (20, 9.6) -> row 10
            [10, -4.8, 1.2],  # (29.6, 14.6) -> (30, 15)
            [-10, 0, 1],  # behind
            [10, 30, 1],  # left of the image
            [10, 0, -20],  # below the image
        ],
        np.float32,
    )
    found = sample_colours(xyz, (view_of(picture),))
    expected = picture[[15, 15, 10, 15], [20, 10, 20, 30]] / 255
    assert found.dtype == np.float32
    assert found[:4, :3] == pytest.approx(expected)
    assert found[:, 3].tolist() == [1, 1, 1, 1, 0, 0, 0]
    assert (found[4:] == 0).all()


def test_the_pose_of_the_camera_counts() -> None:
    picture = image()
    moved = CAMERA_FROM_BASE.copy()
    moved[2, 3] = 5.0  # the image was taken 5 m further back
    view = replace(view_of(picture), camera_from_base=moved)
    found = sample_colours(np.array([[5, 5, 1]], np.float32), (view,))
    assert found[0, :3] == pytest.approx(picture[15, 10] / 255)


def test_the_first_camera_that_sees_a_point_wins() -> None:
    backward = CAMERA_FROM_BASE @ np.diag([-1.0, -1.0, 1.0, 1.0])
    first, second, third = (np.full((30, 40, 3), value, np.uint8) for value in (51, 102, 153))
    views = (
        view_of(first),
        view_of(second, 1),
        replace(view_of(third, 2), camera_from_base=backward),
    )
    xyz = np.array([[10, 0, 1], [-10, 0, 1], [0, 10, 1]], np.float32)
    found = sample_colours(xyz, views)
    assert found == pytest.approx(np.array([[0.2, 0.2, 0.2, 1], [0.6, 0.6, 0.6, 1], [0, 0, 0, 0]]))


def test_no_views_give_no_colours() -> None:
    assert (sample_colours(points(5), ()) == np.zeros((5, 4))).all()


@pytest.mark.parametrize(
    'wrong',
    [
        np.zeros((40, 30, 3), np.uint8),
        np.zeros((30, 40), np.uint8),
        np.zeros((30, 40, 4), np.uint8),
        np.zeros((30, 40, 3), np.float32),
    ],
)
def test_an_image_that_does_not_fit_its_camera_is_refused(wrong: NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match=r'image of camera 0 is .* calibration says \(30, 40, 3\)'):
        sample_colours(points(5), (view_of(wrong),))
