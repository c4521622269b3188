# SPDX-License-Identifier: Apache-2.0
"""Points of a town land on the pixels that show the same thing, through the whole of sensing.

Truth decides what is visible: a ray from the true camera to the true place of the point.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from cross4d_jepa_ros.sensing.frames import FrameAssembler, FrameConfig, SensorFrame
from cross4d_jepa_ros.sensing.poses import transform_points
from cross4d_jepa_ros.sensing.transforms import TransformBuffer
from offline_training.street.camera import POSES, base_from_camera
from offline_training.street.lidar import POSITION, SWEEP_S
from offline_training.street.messages import clouds, image, odometry, static_tree
from offline_training.street.rig import Rig, Turn
from offline_training.street.town import Town, make_town

EDGE_PX = 3


def frame_of(turn: Turn, rig: Rig, *, ego_motion: bool) -> SensorFrame:
    transforms = TransformBuffer()
    transforms.add_tf_message(static_tree(), static=True)
    for step in (-1, 0, 1, 2):
        for _, topic, message in odometry(rig.ego, turn.start_s + step * SWEEP_S):
            if topic == '/tf' and ego_motion:
                transforms.add_tf_message(message, static=False)
    topics = [f'/{name}/image_raw/compressed' for name in POSES]
    assembler = FrameAssembler(FrameConfig(), transforms, None, topics)
    images = []
    for number, (name, (exposed_s, picture)) in enumerate(turn.pictures.items()):
        entries = {topic: message for _, topic, message in image(picture, exposed_s, name)}
        assembler.set_camera_info(entries[f'/{name}/camera_info'], number)
        images.append(entries[f'/{name}/image_raw/compressed'])
    points = clouds(turn.sweep, turn.start_s)[0][2]
    frame = assembler.assemble(points, images, views=True)
    assert len(frame.views) == len(POSES)
    return frame


def visible(turn: Turn, town: Town, name: str) -> np.ndarray:
    """Which points (N,) the camera truly sees, of all that stands still."""
    sweep = turn.sweep
    exposed_s = turn.pictures[name][0]
    position, rotation = town.ego.pose(turn.start_s + sweep.time)
    odom = position + np.einsum('nij,nj->ni', rotation, sweep.xyz + np.array(POSITION))
    eye = (town.ego.matrix(exposed_s) @ base_from_camera(name))[:3, 3]
    towards = odom - eye
    distance = np.linalg.norm(towards, axis=1)
    origin = np.broadcast_to(eye, odom.shape).astype(np.float32)
    time_s = np.full(len(odom), exposed_s, np.float32)
    ahead = (towards / distance[:, None]).astype(np.float32)
    hits = town.scene.trace(origin, ahead, time_s, lambda *_: np.arange(len(odom)), 300.0)
    return (np.abs(hits.distance - distance) < 0.15) & (sweep.speed == 0)


def agreement(town: Town, rig: Rig, turns: list[Turn], *, ego_motion: bool) -> float:
    """Share of visible points, away from edges, whose class is that of their pixel."""
    right = total = 0
    for turn in turns:
        frame = frame_of(turn, rig, ego_motion=ego_motion)
        for view, (name, (_, picture)) in zip(frame.views, turn.pictures.items(), strict=True):
            uv, inside = view.camera.project(
                transform_points(view.camera_from_base, frame.xyz_base)
            )
            seen = np.flatnonzero(inside & visible(turn, town, name))
            column, row = np.floor(uv[seen] + 0.5).astype(int).T
            column, row = column.clip(0, view.camera.width - 1), row.clip(0, view.camera.height - 1)
            shown = picture.class_id
            around = np.ones((2 * EDGE_PX + 1, 2 * EDGE_PX + 1), np.uint8)
            flat = cv2.erode(shown, around) == cv2.dilate(shown, around)
            kept = flat[row, column]
            right += (shown[row, column] == turn.sweep.class_id[seen])[kept].sum()
            total += kept.sum()
    assert total > 2000 * len(turns)
    return right / total


@pytest.fixture(scope='module', params=[2, 3])
def town(request):
    return request.param, make_town(request.param, 3.0)


def test_points_land_on_pixels_of_their_class(town):
    seed, drive = town
    rig = Rig(drive, seed, 64, 720)
    turns = [rig.turn(start_s) for start_s in (0.3, 2.0)]
    assert agreement(drive, rig, turns, ego_motion=True) > 0.97


def test_whoever_ignores_the_motion_of_a_fast_vehicle_misses(town):
    seed, drive = town
    fast = replace(drive, ego=replace(drive.ego, along=2.5 * drive.ego.along))
    speed = np.gradient(fast.ego.along, fast.ego.time)
    assert np.interp(0.3, fast.ego.time, speed) > 15
    rig = Rig(fast, seed, 64, 720)
    turns = [rig.turn(0.3)]
    assert agreement(fast, rig, turns, ego_motion=True) > 0.97
    assert agreement(fast, rig, turns, ego_motion=False) < 0.90
