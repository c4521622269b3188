# SPDX-License-Identifier: Apache-2.0
"""The picture of points over the photo, and the distance between edges of depth and image."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from cross4d_jepa_ros.correspondence import Correspondence
from cross4d_jepa_ros.correspondence_picture import Panel, draw, edge_distance_px

HEIGHT, WIDTH = 120, 400
# Three bright posts 5 m away; all else is dark and 20 m away.
POSTS = ((60, 80), (190, 220), (310, 325))


def photo() -> NDArray[np.uint8]:
    image = np.full((HEIGHT, WIDTH, 3), 60, np.uint8)
    for left, right in POSTS:
        image[:, left:right] = 200
    return image


def points(moved_px: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Pixels and depths of rows of points, projected `moved_px` too far to the right."""
    v, u = np.mgrid[5:HEIGHT:8, 20 : WIDTH - 20].reshape(2, -1).astype(np.float32)
    depth = np.full(len(u), 20, np.float32)
    for left, right in POSTS:
        depth[(u >= left) & (u < right)] = 5
    return np.stack((u + np.float32(moved_px), v), 1), depth


@pytest.mark.parametrize('moved_px', [0.0, 3.0, -6.0])
def test_the_distance_between_edges_tells_how_far_points_are_off(moved_px: float) -> None:
    distance = edge_distance_px(photo(), *points(moved_px))

    assert distance == pytest.approx(abs(moved_px), abs=1)


@pytest.mark.parametrize('beside_px', [8, -8])
def test_the_near_side_of_a_depth_edge_is_what_counts(beside_px: int) -> None:
    image = np.full((HEIGHT, WIDTH, 3), 60, np.uint8)
    image[:, 200:] = 200
    v = np.arange(4, HEIGHT, 8, dtype=np.float32)
    near, far = (np.stack((np.full_like(v, u), v), 1) for u in (200, 200 + beside_px))
    depth = np.repeat(np.array([5, 20], np.float32), len(v))

    distance = edge_distance_px(image, np.concatenate((near, far)), depth)

    assert distance is not None
    assert distance <= 1


def test_the_shifted_image_tells_what_chance_gives() -> None:
    right = edge_distance_px(photo(), *points(0), shifted=True)
    wrong = edge_distance_px(photo(), *points(6), shifted=True)

    assert right is not None
    assert right > 10
    assert right == pytest.approx(wrong, rel=0.3)


def test_a_dim_photo_has_the_same_edges() -> None:
    dim = (photo() // 5).astype(np.uint8)

    assert edge_distance_px(dim, *points(3)) == edge_distance_px(photo(), *points(3))


def test_the_order_of_the_points_changes_nothing() -> None:
    uv, depth = points(2)
    order = np.random.default_rng(0).permutation(len(uv))

    assert edge_distance_px(photo(), uv[order], depth[order]) == edge_distance_px(
        photo(), uv, depth
    )


def test_without_edges_there_is_no_distance() -> None:
    uv, depth = points(0)

    assert edge_distance_px(np.full_like(photo(), 90), uv, depth) is None
    assert edge_distance_px(photo(), uv, np.full_like(depth, 20)) is None
    assert edge_distance_px(photo(), uv[:0], depth[:0]) is None


def test_the_ground_has_no_edges() -> None:
    uv, _ = points(0)

    assert edge_distance_px(photo(), uv, 300 / (uv[:, 1] + 10)) is None


@pytest.mark.parametrize('cameras', [1, 2])
def test_points_are_drawn_over_their_photo_by_depth(tmp_path: Path, cameras: int) -> None:
    grey = np.full((HEIGHT, WIDTH, 3), 60, np.uint8)
    uv = np.array([(100, 60), (300, 60)], np.float32)
    found = Correspondence(
        point=np.arange(2), uv=uv, depth=np.array([2, 60], np.float32), weight=np.ones(2, 'f4')
    )
    nothing = Correspondence(np.arange(0), uv[:0], found.depth[:0], found.weight[:0])
    panels = [Panel('left', grey, found), Panel('right', grey, nothing)][:cameras]

    draw(tmp_path / 'new' / 'drive.png', panels, title='drive')

    picture = cv2.imread(str(tmp_path / 'new' / 'drive.png'))
    assert picture is not None
    photos = picture[:, : int(0.85 * picture.shape[1])].astype(int)  # without the colour bar
    red = np.argwhere((photos[..., 2] - photos[..., 0]) > 60)
    blue = np.argwhere((photos[..., 0] - photos[..., 2]) > 10)
    assert len(red) > 0
    assert len(blue) > 0
    assert red[:, 1].max() < blue[:, 1].min()
    assert np.ptp(red, axis=0).max() < 12  # one small point
