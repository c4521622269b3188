# SPDX-License-Identifier: Apache-2.0
"""What is seen in the pictures, pixel by pixel where it matters."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from cross4d_jepa_ros import pictures
from cross4d_jepa_ros.bags import Bag, message_class
from cross4d_jepa_ros.pictures import Paint, draw_answers, draw_sweep
from cross4d_jepa_ros.ros.messages import UNKNOWN_COLOUR, segmentation_cloud
from cross4d_jepa_ros.sensing.cameras import CameraModel
from cross4d_jepa_ros.sensing.frames import BODY_FROM_OPTICAL, CameraView, SensorFrame
from cross4d_jepa_ros.sensing.point_clouds import Sweep
from cross4d_jepa_ros.sensing.poses import invert
from tests import tiny_recording as tiny
from tests.bench import cloud

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
LEGEND = [('tall_thing', RED), ('low_thing', GREEN)]


def wall(distance_m: float) -> NDArray[np.float32]:
    """Points of a wall across the view of the camera, 5 cm apart."""
    y, z = np.meshgrid(np.arange(-2, 2, 0.05), np.arange(-1, 1, 0.05))
    return np.stack([np.full(y.size, distance_m), y.ravel(), z.ravel()], axis=1).astype(np.float32)


def frame(xyz: NDArray[np.float32], *, camera: bool) -> SensorFrame:
    pose = np.eye(4)
    count = len(xyz)
    sweep = Sweep(0, 'lidar', 1, count, xyz, None, None, None, np.arange(count, dtype=np.int64))
    model = CameraModel(160, 80, 80.0, 80.0, 80.0, 40.0)
    white = np.full((80, 160, 3), 255, np.uint8)
    view = CameraView(0, white, 12_000_000, model, invert(BODY_FROM_OPTICAL))
    return SensorFrame(0, sweep, xyz, pose, None, (view,) if camera else ())


def drawn(path: Path, seen: SensorFrame, paint: Paint) -> NDArray[np.int64]:
    draw_sweep(path, seen, paint, title='a wall', camera_names=['/camera'], faces_x=False)
    image = cv2.imread(str(path))
    assert image is not None
    return image[:, :, ::-1].astype(np.int64)


def pixels(image: NDArray[np.int64], colour: tuple[int, int, int]) -> int:
    """Count those that are of this colour and no other, however dark the ground beneath."""
    strong = np.array(colour) > 0
    return int(
        ((image[..., strong] > 150) & (image[..., ~strong].max(-1, keepdims=True) < 60)).sum()
    )


def test_a_wall_behind_a_wall_is_not_painted_through_it(tmp_path: Path) -> None:
    xyz = np.concatenate([wall(4.0), wall(8.0)])
    rgb = np.repeat(np.array([RED, GREEN], np.uint8), len(xyz) // 2, axis=0)
    above = drawn(tmp_path / 'above.png', frame(xyz, camera=False), Paint(rgb))
    both = drawn(tmp_path / 'both.png', frame(xyz, camera=True), Paint(rgb))

    assert pixels(above, GREEN) > 30
    camera_side = both[:, both.shape[1] // 2 :]
    assert pixels(camera_side, RED) > 10 * pixels(camera_side, GREEN)
    alone = drawn(
        tmp_path / 'alone.png', frame(wall(8.0), camera=True), Paint(rgb[len(rgb) // 2 :])
    )
    assert pixels(alone[:, alone.shape[1] // 2 :], GREEN) > 1000


@pytest.mark.parametrize('with_truth', [False, True])
def test_the_truth_is_drawn_where_there_is_one(tmp_path: Path, with_truth: bool) -> None:
    xyz = wall(10.0)
    rgb, truth_rgb = (np.full((len(xyz), 3), colour, np.uint8) for colour in (RED, BLUE))
    paint = Paint(rgb, truth_rgb if with_truth else None, LEGEND)
    image = drawn(tmp_path / 'new' / 'truth.png', frame(xyz, camera=False), paint)

    assert pixels(image, RED) > 100
    assert (pixels(image, BLUE) > 30) == with_truth


def test_rare_classes_are_drawn_larger(tmp_path: Path) -> None:
    xyz = wall(20.0)
    rgb = np.full((len(xyz), 3), GREEN, np.uint8)
    rgb[len(xyz) // 2] = RED
    plain = drawn(tmp_path / 'plain.png', frame(xyz, camera=False), Paint(rgb))
    classes = drawn(tmp_path / 'classes.png', frame(xyz, camera=False), Paint(rgb, None, LEGEND))
    half = slice(0, int(0.9 * len(plain)))  # the legend is below

    assert pixels(classes[half], RED) > pixels(plain[half], RED)


def drive(path: Path, velocity: tuple[float, float]) -> list[int]:
    """Record 21 sweeps of three points with truth; returns their stamps."""
    entries: list[tuple[int, str, Any]] = []
    stamps = [tiny.START_NS + 100 * tiny.MS * number for number in range(21)]
    for number, at_ns in enumerate(stamps):
        xyz = np.array([[4, 0, 0], [5, 1, 0], [6, 2, 0]], np.float32)
        place = message_class('geometry_msgs/msg/Vector3')(
            *(0.1 * number * v for v in velocity), 0.0
        )
        level = message_class('geometry_msgs/msg/Quaternion')(0.0, 0.0, 0.0, 1.0)
        pose = message_class('geometry_msgs/msg/Transform')(place, level)
        moved = message_class('geometry_msgs/msg/TransformStamped')
        transform = moved(tiny.header(at_ns, 'odom'), 'lidar', pose)
        entries += [
            (at_ns, '/tf', message_class('tf2_msgs/msg/TFMessage')([transform])),
            (at_ns + tiny.MS, tiny.POINTS, tiny.sweep(at_ns, xyz)),
            (at_ns + tiny.MS, tiny.TRUTH, tiny.truth(at_ns, np.array([0, 1, 2], np.uint8))),
        ]
    tiny.write(path, entries, class_names='low_thing,lagoon,tall_thing')
    return stamps


@pytest.mark.parametrize(
    ('velocity', 'faces_x'), [((5.0, 0.5), True), ((0.0, 5.0), False), ((0.0, 0.0), False)]
)
def test_answer_and_truth_share_the_colours_of_the_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, velocity: tuple[float, float], faces_x: bool
) -> None:
    stamps = drive(tmp_path / 'street', velocity)
    shown: dict[str, Any] = {}
    monkeypatch.setattr(
        pictures, 'draw_sweep', lambda *place, **more: shown.update(more, paint=place[2])
    )
    contract: Any = SimpleNamespace(
        training={'kind': 'supervised'},
        answer_names=tuple(name for name, _ in LEGEND),
        answer_palette=tuple(colour for _, colour in LEGEND),
    )
    answer = segmentation_cloud(
        cloud(stamps[10], 3), np.array([0, 0, 1], np.uint8), np.ones(3, np.float32)
    )
    with Bag(tmp_path / 'street') as bag:
        answers = {'segmentation': answer}
        draw_answers(tmp_path, bag, tiny.SETUP, contract, answers, tiny.TRUTH, stamps)

    assert shown['paint'].rgb.tolist() == [[*RED], [*RED], [*GREEN]]
    assert shown['paint'].truth_rgb.tolist() == [[*GREEN], [*UNKNOWN_COLOUR], [*RED]]
    assert shown['paint'].legend == [*LEGEND, ('unknown', UNKNOWN_COLOUR)]
    assert shown['title'] == 'What the network says about the sweep at 1.0 s of street'
    assert shown['faces_x'] == faces_x
