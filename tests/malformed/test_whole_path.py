# SPDX-License-Identifier: Apache-2.0
"""From messages to answers: what is refused leaves no trace in the answers that follow.

Each example is a good sweep, one with something malformed about it, and a good one again. The last
answer must be that of a stream in which what was refused never came.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header

from cross4d_jepa_ros.pipeline import Output, Perception, Pipeline
from cross4d_jepa_ros.ros.messages import answer_clouds
from cross4d_jepa_ros.sensing.frames import FrameAssembler, FrameConfig, NoTransform, SensorFrame
from cross4d_jepa_ros.sensing.point_clouds import MalformedCloud
from tests.checkpoints import MEMORY, fresh_checkpoint
from tests.malformed import messages
from tests.malformed.mutations import Change, changed, changes
from tests.malformed.readers import good_transforms
from tests.malformed.verdicts import NO_WARNINGS, verdict
from tests.tries import TRIED, tries

pytestmark = NO_WARNINGS

STEP_NS = 20_000_000
# What a step of the tiny network takes for a few points.
STEP_BYTES = 20_000_000
DROPPED = (MalformedCloud, NoTransform)
OUTPUTS = ('segmentation', 'segmentation_rgb', 'embeddings', 'embeddings_rgb', 'frame_embedding')
CONFIGS = (FrameConfig(), FrameConfig(base_frame='camera', base_height_m=1.0))
TINY = {**MEMORY, 'width': 24, 'blocks': 1, 'heads': 2, 'point_width': 8, 'sweep_stride': 1}
# Last answers of streams in which something never came.
EXPECTED: dict[tuple[FrameConfig, str], Perception] = {}
PIECES: dict[str, list[Any]] = {
    'cloud': [messages.cloud(messages.STAMP_NS + STEP_NS, seed=1)],
    'image': [messages.image(), *map(messages.packed, ('jpeg', 'png'))],
    'camera info': [messages.camera_info()],
    'odometry': [messages.odometry(messages.STAMP_NS + STEP_NS)],
    'tf': [messages.tf(edges=(('mast', 'odom'),)), messages.tf(edges=(('lidar', 'rear'),))],
}


@pytest.fixture(scope='module')
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    path: Path = tmp_path_factory.mktemp('model') / 'tiny.safetensors'
    fresh_checkpoint(path, **TINY)
    yield Pipeline(path, device='cpu', precision='fp32')


class Stream:
    """Everything between the messages and the answers, as the node sets it up."""

    def __init__(self, pipeline: Pipeline, config: FrameConfig) -> None:
        pipeline.reset()
        self.pipeline = pipeline
        self.transforms = good_transforms()
        self.assembler = FrameAssembler(
            config, self.transforms, image_topics=('/camera/image_raw',)
        )
        self.assembler.set_camera_info(messages.camera_info(), 0)

    def sweep(self, place: int, image: Any = None) -> Perception:
        stamp_ns = messages.STAMP_NS + place * STEP_NS
        return self.answer(messages.cloud(stamp_ns, seed=place), image)[1]

    def answer(self, cloud: Any, image: Any) -> tuple[SensorFrame, Perception]:
        frame = self.assembler.assemble(cloud, [image], views=True)
        return frame, self.pipeline.step(frame, Output.ALL)


def assert_sound(cloud: SimpleNamespace, frame: SensorFrame, seen: Perception) -> None:
    assert np.isfinite(frame.xyz_base).all()
    assert np.isfinite(frame.base_from_sensor).all()
    for values in vars(seen).values():
        if isinstance(values, np.ndarray):
            assert np.isfinite(values).all()
    message = copy(cloud)
    message.header = Header()
    clouds = answer_clouds(OUTPUTS, message, seen, ((0, 0, 0), (1, 1, 1)))
    assert clouds.keys() == set(OUTPUTS)
    for name in ('segmentation', 'segmentation_rgb', 'embeddings_rgb'):
        arrived = deserialize_message(serialize_message(clouds[name]), PointCloud2)
        assert (arrived.height, arrived.width) == (cloud.height, cloud.width)
        assert arrived.row_step == clouds[name].row_step
        assert len(arrived.data) == arrived.height * arrived.row_step
        assert len(arrived.data) == cloud.height * cloud.width * arrived.point_step


def assert_same(seen: Perception, expected: Perception) -> None:
    for name, values in vars(expected).items():
        if isinstance(values, np.ndarray):
            assert np.array_equal(getattr(seen, name), values), name
    assert (seen.window_length, seen.reset) == (expected.window_length, expected.reset)


def play(pipeline: Pipeline, config: FrameConfig, kind: str, piece: Any, what: Any = '') -> str:
    """Play one example; returns what came of the malformed piece."""
    stream = Stream(pipeline, config)
    stream.sweep(0, messages.image())
    cloud, image = messages.cloud(messages.STAMP_NS + STEP_NS, seed=1), messages.image()
    if kind == 'cloud':
        cloud = piece
    elif kind == 'image':
        image = piece
    elif kind == 'camera info':
        stream.assembler.set_camera_info(piece, 0)
    elif kind == 'odometry':
        stream.transforms.add_odometry(piece)
    else:
        stream.transforms.add_tf_message(piece, static=False)
    made = verdict(
        f'whole path, {kind}', lambda: stream.answer(cloud, image), DROPPED, STEP_BYTES, what
    )
    ceiling = 0.0
    refused = 'dropped' if isinstance(made, DROPPED) else ''
    if not refused:
        assert_sound(cloud, *made)
        ceiling = made[0].sweep.intensity_ceiling
        if kind in ('image', 'camera info') and 'image0' in stream.assembler.notes:
            refused = 'without image'
        if stream.transforms.rejected and len(getattr(piece, 'transforms', '1')) == 1:
            refused = 'without pose'
    stream.assembler.set_camera_info(messages.camera_info(), 0)
    last_cloud = messages.cloud(messages.STAMP_NS + 2 * STEP_NS, seed=2)
    last = stream.answer(last_cloud, messages.image())
    assert_sound(last_cloud, *last)
    if refused:
        if (config, refused) not in EXPECTED:
            EXPECTED[config, refused] = without(pipeline, config, refused)
        assert_same(last[1], EXPECTED[config, refused])
    elif kind == 'cloud' and ceiling == 255:
        assert last[0].sweep.intensity_ceiling == 255
    return refused or 'used'


def without(pipeline: Pipeline, config: FrameConfig, refused: str) -> Perception:
    """The last answer of a stream in which what was refused never came."""
    stream = Stream(pipeline, config)
    stream.sweep(0, messages.image())
    if refused != 'dropped':
        stream.sweep(1, None if refused == 'without image' else messages.image())
    return stream.sweep(2, messages.image())


EXAMPLES = {'cloud': 160, 'image': 80, 'camera info': 60, 'odometry': 60, 'tf': 60}


@pytest.mark.parametrize('kind', list(PIECES))
def test_what_is_refused_leaves_no_trace(pipeline: Pipeline, kind: str) -> None:
    pieces = PIECES[kind]
    before = TRIED[f'whole path, {kind}']
    verdicts = set()

    @settings(max_examples=tries(EXAMPLES[kind]))
    @given(
        config=st.sampled_from(CONFIGS),
        piece=st.integers(0, len(pieces) - 1),
        changes=changes,
    )
    def attack(config: FrameConfig, piece: int, changes: list[Change]) -> None:
        verdicts.add(play(pipeline, config, kind, changed(pieces[piece], changes), changes))

    attack()
    assert len(verdicts) == 2, verdicts  # both are tried
    assert TRIED[f'whole path, {kind}'] - before >= tries(EXAMPLES[kind]) * 9 // 10


def test_a_dropped_sweep_teaches_no_range_of_intensities(pipeline: Pipeline) -> None:
    config = CONFIGS[1]
    bright = messages.cloud(messages.STAMP_NS + STEP_NS)
    bright.header.frame_id = 'nowhere'
    bright.data = bright.data[:12] + np.float32(60_000).tobytes() + bright.data[16:]
    assert play(pipeline, config, 'cloud', bright) == 'dropped'


@pytest.mark.parametrize('value', [3e38, 65536.0, float('inf')])
def test_an_intensity_of_no_sensor_darkens_nothing(pipeline: Pipeline, value: float) -> None:
    stream = Stream(pipeline, CONFIGS[0])
    cloud = messages.cloud()
    cloud.data = cloud.data[:12] + np.float32(value).tobytes() + cloud.data[16:]
    frame, _ = stream.answer(cloud, None)
    assert frame.sweep.intensity_ceiling == 255
    assert frame.sweep.intensity is not None
    assert frame.sweep.intensity[0] == 1


def test_a_sweep_of_another_frame_does_not_choose_the_fixed_frame(pipeline: Pipeline) -> None:
    def sweeps(frames: list[str]) -> list[SensorFrame]:
        stream = Stream(pipeline, CONFIGS[0])
        afloat = messages.odometry()
        afloat.header.frame_id, afloat.child_frame_id = 'shore', 'boat'
        stream.transforms.add_odometry(afloat)
        found = []
        for place, frame_id in enumerate(frames):
            cloud = messages.cloud(messages.STAMP_NS + place * STEP_NS)
            cloud.header.frame_id = frame_id
            found.append(stream.answer(cloud, None)[0])
        return found

    boat, *lidar = sweeps(['boat', 'lidar', 'lidar'])
    assert boat.fixed_from_base is not None
    for frame, expected in zip(lidar, sweeps(['lidar'] * 3)[1:], strict=True):
        assert frame.fixed_from_base is not None
        np.testing.assert_array_equal(frame.fixed_from_base, expected.fixed_from_base)


@pytest.mark.parametrize('sizes', [(0, 2**32 - 1), (2**32 - 1, 0)])
def test_an_answer_to_no_points_keeps_absurd_sizes(
    pipeline: Pipeline, sizes: tuple[int, int]
) -> None:
    cloud = messages.cloud()
    cloud.height, cloud.width, cloud.data = *sizes, b''
    assert_sound(cloud, *Stream(pipeline, CONFIGS[0]).answer(cloud, None))


def test_an_image_of_the_year_2500_is_left_out(pipeline: Pipeline) -> None:
    image = messages.image()
    image.header.stamp.sec = 16_725_225_600
    assert play(pipeline, CONFIGS[0], 'image', image) == 'without image'
