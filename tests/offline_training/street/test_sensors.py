# SPDX-License-Identifier: Apache-2.0
"""LiDAR and cameras against hand-made scenes whose answer is known."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from offline_training.street import camera
from offline_training.street.atlas import Atlas
from offline_training.street.camera import Camera, Weather, base_from_camera, pixel_rays
from offline_training.street.classes import BUILDING, CAR, ROAD
from offline_training.street.lidar import POSITION, Lidar
from offline_training.street.motion import STEP_S, Ego, Track
from offline_training.street.road import Road
from offline_training.street.scene import Scene, Thing
from offline_training.street.shapes.mesh import Part, quads

EGO_SPEED = 10.0
WALL_M = 15.0
NOON = Weather(
    np.float32([0, 0, 1]),
    np.float32([0.5, 0.5, 0.5]),
    np.float32([0.5, 0.5, 0.5]),
    np.float32([0.5, 0.5, 0.5]),
    0.0,
    0,
    1.0,
)

FLOOR = quads(
    [[[-300, -300, 0], [300, -300, 0], [300, 300, 0], [-300, 300, 0]]],
    Part('plain', 1, (0.3, 0.3, 0.3), 0.3),
)


class FlatRoad(Road):
    """Straight along x, on flat land."""

    def __init__(self) -> None:
        super().__init__(np.random.default_rng(0), -50.0, 100.0)
        self._x, self._y = self._along, np.zeros(len(self._along))
        self._heading = np.zeros(len(self._along))
        self._amplitude = np.zeros(5)


def wall(tint: tuple[float, float, float], reflectivity: float = 0.8) -> np.ndarray:
    part = Part('plain', 0, tint, reflectivity)
    return quads([[[0, 3, 0.2], [0, -3, 0.2], [0, -3, 4], [0, 3, 4]]], part)


def world(speed: float) -> tuple[Scene, Ego]:
    """A red wall that moves along x at `speed`, WALL_M ahead of the start, over a grey floor."""
    time = np.arange(-1.0, 3.0, STEP_S)
    position = np.stack([WALL_M + speed * time, 0 * time, 0 * time], axis=1)
    track = Track(-1.0, position, np.zeros(len(time)))
    red = Thing(wall((1.0, 0.02, 0.02)), CAR, 7, track)
    things = [Thing(FLOOR, ROAD, 0), red]
    ego = Ego(FlatRoad(), 0.0, time, EGO_SPEED * time)
    return Scene(things, Atlas(np.random.default_rng(0))), ego


def pixels_of(xyz_camera: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Column, row and whether it lies in the image, of each point (N, 3), by OpenCV."""
    pixels, _ = cv2.projectPoints(
        xyz_camera, np.zeros(3), np.zeros(3), camera.matrix(), np.array(camera.DISTORTION)
    )
    u, v = np.round(pixels[:, 0]).astype(int).T
    return u, v, (u >= 0) & (u < camera.WIDTH) & (v >= 0) & (v < camera.HEIGHT)


@pytest.mark.parametrize('speed', [0.0, 20.0])
def test_sweeps_are_distorted_by_the_motion_and_times_undo_it(speed):
    scene, ego = world(speed)
    sweep = Lidar(scene, ego, 32, 720).sweep(0.5, np.random.default_rng(0))
    hit = sweep.instance == 7
    assert hit.sum() > 300
    assert (sweep.class_id[hit] == CAR).all()
    assert sweep.speed[hit] == pytest.approx(speed, abs=0.01)
    fired = 0.5 + sweep.time[hit].astype(float)
    wall_x = WALL_M + speed * fired
    lidar_x = EGO_SPEED * fired + POSITION[0]
    assert sweep.xyz[hit, 0] == pytest.approx(wall_x - lidar_x, abs=0.12)
    assert np.median(sweep.xyz[hit, 0] - (wall_x - lidar_x)) == pytest.approx(0, abs=0.01)
    # Whoever takes all points for measured at the start is wrong by what both have moved since.
    ignored = sweep.xyz[hit, 0] - (WALL_M + speed * 0.5 - EGO_SPEED * 0.5 - POSITION[0])
    assert np.median(ignored) == pytest.approx((speed - EGO_SPEED) * 0.05, abs=0.03)
    # The floor lies a LiDAR's height below it.
    ground = (sweep.class_id == ROAD) & (np.hypot(*sweep.xyz[:, :2].T) < 20)
    assert np.median(sweep.xyz[ground, 2]) == pytest.approx(-POSITION[2], abs=0.01)


def test_pixel_rays_invert_the_distortion():
    rays = pixel_rays()[::24, ::40].reshape(-1, 3).astype(np.float64)
    pixels, _ = cv2.projectPoints(
        rays, np.zeros(3), np.zeros(3), camera.matrix(), np.array(camera.DISTORTION)
    )
    v, u = np.mgrid[0 : camera.HEIGHT : 24, 0 : camera.WIDTH : 40]
    assert np.allclose(pixels[:, 0], np.stack([u.ravel(), v.ravel()], axis=1), atol=0.05)


@pytest.mark.parametrize('name', ['camera_left', 'camera_right'])
@pytest.mark.parametrize('speed', [0.0, 20.0])
def test_the_camera_sees_the_wall_where_it_is(name, speed):
    scene, ego = world(speed)
    random = np.random.default_rng(0)
    picture = Camera(name, scene, ego, NOON, random).take(0.5, random)
    red = picture.class_id == CAR
    assert red.sum() > 2000
    assert (picture.instance[red] == 7).all()
    # Its colour is red there and nowhere else, but for the blur at its outline.
    shade = picture.rgb.astype(int)
    reddish = shade[..., 0] > shade[..., 1] + 60
    assert (reddish != red).sum() < 0.03 * red.sum()
    odom_from_camera = ego.matrix(0.5) @ base_from_camera(name)
    camera_from_odom = np.linalg.inv(odom_from_camera)
    y, z = np.meshgrid(np.linspace(-2.9, 2.9, 40), np.linspace(0.3, 3.9, 30))
    front = np.stack([np.full(y.size, WALL_M + speed * 0.5), y.ravel(), z.ravel()], axis=1)
    seen = front @ camera_from_odom[:3, :3].T + camera_from_odom[:3, 3]
    u, v, inside = pixels_of(seen)
    assert inside.sum() > 100
    assert red[v[inside], u[inside]].all()
    want = np.linalg.norm(seen[inside], axis=1)
    assert picture.distance[v[inside], u[inside]] == pytest.approx(want, abs=0.08)
    outside = np.ones_like(red)
    outside[max(v.min() - 6, 0) : v.max() + 7, max(u.min() - 12, 0) : u.max() + 13] = False
    assert not red[outside].any()


def test_things_cast_shadows():
    """The floor before a wall is darker than without the wall when the sun stands behind it."""
    with_wall, ego = world(0.0)
    without = Scene([Thing(FLOOR, ROAD, 0)], with_wall.atlas)
    behind = replace(NOON, sun=np.array([0.8, 0.0, 0.6], np.float32))
    camera_from_base = np.linalg.inv(base_from_camera('camera_left'))
    spots = np.array([[WALL_M - 2.0, y, 0.0] for y in np.linspace(0, 2, 9)])
    in_camera = spots @ camera_from_base[:3, :3].T + camera_from_base[:3, 3]
    u, v, inside = pixels_of(in_camera)
    assert inside.sum() > 3
    shown = []
    for scene in (without, with_wall):
        random = np.random.default_rng(0)
        picture = Camera('camera_left', scene, ego, behind, random).take(0.0, random)
        shown.append(picture.rgb[v[inside], u[inside]].mean())
    assert shown[1] < 0.85 * shown[0]


def test_a_building_hides_what_is_behind_it():
    part = Part('plain', 0, (0.5, 0.5, 0.5), 0.5)
    near = quads([[[8, 9, 0], [8, -9, 0], [8, -9, 9], [8, 9, 9]]], part)
    scene, ego = world(0.0)
    hidden = Scene(
        [Thing(near, BUILDING, 1), Thing(wall((1, 0, 0)).moved((WALL_M, 0, 0)), CAR, 7)],
        scene.atlas,
    )
    sweep = Lidar(hidden, ego, 32, 360).sweep(0.0, np.random.default_rng(0))
    assert set(sweep.class_id) == {BUILDING}
