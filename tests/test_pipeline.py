# SPDX-License-Identifier: Apache-2.0
"""The pipeline as node, replay and evaluation use it, on the shipped checkpoint."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cross4d_jepa_ros.model.checkpoint import (
    BadCheckpoint,
    load_checkpoint,
    save_checkpoint,
)
from cross4d_jepa_ros.model.config import BadConfig
from cross4d_jepa_ros.model.network import Network, SweepInput
from cross4d_jepa_ros.model.prototypes import Prototypes
from cross4d_jepa_ros.pipeline import Output, Perception, Pipeline
from cross4d_jepa_ros.sensing.cameras import CameraModel
from cross4d_jepa_ros.sensing.frames import CameraView, SensorFrame
from cross4d_jepa_ros.sensing.point_clouds import Sweep
from cross4d_jepa_ros.sensing.point_colours import sample_colours
from tests.checkpoints import MEMORY, SHIPPED, fresh_checkpoint

# Looks along the base frame's x axis from 1 m above the ground.
CAMERA_FROM_BASE = np.array(
    [[0, -1, 0, 0], [0, 0, -1, 1], [1, 0, 0, 0], [0, 0, 0, 1]], dtype=np.float64
)
CAMERA = CameraModel(40, 30, 20.0, 20.0, 20.0, 15.0, 'none', ())


@pytest.fixture(scope='module')
def pipeline() -> Pipeline:
    return Pipeline(SHIPPED, device='cpu', precision='fp32')


def points(count: int, seed: int = 0) -> NDArray[np.float32]:
    """Points of a flat world and two walls, up to 40 m away."""
    draw = np.random.default_rng(seed)
    xyz = draw.uniform((-40, -10, 0), (40, 10, 0.05), (count, 3))
    walls = slice(0, count // 3)
    xyz[walls, 1] = np.sign(xyz[walls, 1]) * 9
    xyz[walls, 2] = draw.uniform(0, 6, count // 3)
    return xyz.astype(np.float32)


def frame_of(
    xyz: NDArray[np.float32],
    *,
    index: NDArray[np.int64] | None = None,
    size: tuple[int, int] | None = None,
    intensity: NDArray[np.float32] | None = None,
    views: tuple[CameraView, ...] = (),
    base_from_sensor: NDArray[np.float64] | None = None,
) -> SensorFrame:
    height, width = size or (1, len(xyz))
    sweep = Sweep(
        stamp_ns=123,
        frame_id='lidar',
        height=height,
        width=width,
        xyz=xyz,
        intensity=intensity,
        ring=None,
        time_offset_ns=None,
        index=np.arange(len(xyz)) if index is None else index,
    )
    pose = np.eye(4) if base_from_sensor is None else base_from_sensor
    return SensorFrame(123, sweep, xyz, pose, None, views)


def view_of(image: NDArray[np.uint8], camera: int = 0) -> CameraView:
    return CameraView(camera, image, 120, CAMERA, CAMERA_FROM_BASE)


def image(seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (30, 40, 3), dtype=np.uint8)


def assert_same(found: Perception, expected: Perception) -> None:
    assert np.array_equal(found.class_id, expected.class_id)
    for name in ('probability', 'token_xyz', 'token_embedding', 'frame_embedding'):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), abs=1e-4)


def custom(path: Path, **changes: object) -> Pipeline:
    """The shipped sizes with changes and fresh weights for two classes."""
    fresh_checkpoint(path, **changes)
    return Pipeline(path, device='cpu', precision='fp32')


def drive(count: int) -> list[SensorFrame]:
    """Sweeps of one street from a car at 10 m/s."""
    street = points(6000)
    frames = []
    for step in range(count):
        pose = np.eye(4)
        pose[0, 3] = step
        xyz = (street[step::2] - pose[:3, 3]).astype(np.float32)
        frame = frame_of(xyz, intensity=np.full(len(xyz), 0.3, np.float32))
        stamp = 10**9 + step * 10**8
        sweep = replace(frame.sweep, stamp_ns=stamp)
        frames.append(replace(frame, stamp_ns=stamp, sweep=sweep, fixed_from_base=pose))
    return frames


def test_an_answer_has_the_shape_of_its_message(pipeline: Pipeline) -> None:
    xyz = points(900)
    index = np.sort(np.random.default_rng(0).permutation(1200)[:900])
    seen = pipeline.step(frame_of(xyz, index=index, size=(30, 40)), Output.ALL)
    dense = pipeline.step(frame_of(xyz), Output.ALL)
    assert (seen.stamp_ns, seen.window_length) == (123, 1)
    holes = np.setdiff1d(np.arange(1200), index)
    for name, kind, hole in (
        ('class_id', np.uint8, 255),
        ('probability', np.float32, 0),
        ('embedding_rgb', np.uint8, 0),
    ):
        values = getattr(seen, name)
        assert values.dtype == kind
        assert len(values) == 1200
        assert (values[holes] == hole).all()
        assert np.array_equal(values[index], getattr(dense, name))
    assert seen.embedding_rgb.shape == (1200, 3)
    assert seen.token_xyz.shape == (seen.token_count, 3)
    assert seen.token_embedding.shape == (seen.token_count, 64)
    assert seen.frame_embedding.shape == (64,)
    assert {a.dtype for a in (seen.token_xyz, seen.token_embedding, seen.frame_embedding)} == {
        np.dtype(np.float32)
    }
    assert (seen.class_id[index] < 7).all()
    assert (seen.probability[index] > 1 / 7 - 1e-6).all()
    assert len(np.unique(seen.class_id[index])) > 1
    assert seen.frame_embedding == pytest.approx(seen.token_embedding.mean(0), abs=1e-5)


def test_permuted_points_give_permuted_answers(pipeline: Pipeline) -> None:
    xyz, order = points(2000), np.random.default_rng(1).permutation(2000)
    intensity = np.random.default_rng(2).random(2000, dtype=np.float32)
    views = (view_of(image()),)
    straight = pipeline.step(frame_of(xyz, intensity=intensity, views=views), Output.ALL)
    permuted = pipeline.step(
        frame_of(xyz[order], intensity=intensity[order], views=views), Output.ALL
    )
    assert permuted.probability == pytest.approx(straight.probability[order], abs=1e-4)
    assert (permuted.class_id == straight.class_id[order]).mean() > 0.999
    difference = permuted.embedding_rgb.astype(int) - straight.embedding_rgb[order]
    assert np.abs(difference).max() <= 1
    assert permuted.token_embedding == pytest.approx(straight.token_embedding, abs=1e-4)


def test_points_that_cannot_be_seen_influence_nothing(pipeline: Pipeline) -> None:
    xyz = points(1000)
    bad = np.array([[np.nan, 0, 0], [0, np.inf, 0], [60.5, 0, 0], [0, 0, -1e30]], np.float32)
    mixed = np.insert(xyz, [0, 10, 500, 1000], bad, axis=0)
    where = np.array([0, 11, 502, 1003])
    clean = pipeline.step(frame_of(xyz, views=(view_of(image()),)), Output.ALL)
    dirty = pipeline.step(frame_of(mixed, views=(view_of(image()),)), Output.ALL)
    assert (dirty.class_id[where] == 255).all()
    assert (dirty.probability[where] == 0).all()
    assert (dirty.embedding_rgb[where] == 0).all()
    rest = np.setdiff1d(np.arange(1004), where)
    assert np.array_equal(dirty.class_id[rest], clean.class_id)
    assert np.array_equal(dirty.probability[rest], clean.probability)
    assert np.array_equal(dirty.token_embedding, clean.token_embedding)
    assert np.array_equal(dirty.frame_embedding, clean.frame_embedding)


@pytest.mark.parametrize('size', [(0, 0), (1, 0), (2, 50)])
def test_a_sweep_without_points_is_answered(pipeline: Pipeline, size: tuple[int, int]) -> None:
    nothing = np.zeros((0, 3), np.float32)
    intensity = np.zeros(0, np.float32)
    frame = frame_of(nothing, size=size, intensity=intensity, views=(view_of(image()),))
    seen = pipeline.step(frame, Output.ALL)
    count = size[0] * size[1]
    assert seen.class_id.tolist() == [255] * count
    assert seen.probability.tolist() == [0] * count
    assert seen.embedding_rgb.shape == (count, 3)
    assert (seen.token_xyz.shape, seen.token_embedding.shape) == ((0, 3), (0, 64))
    assert seen.frame_embedding.tolist() == [0] * 64
    assert seen.token_count == 0
    assert list(seen.stage_ms) == list(Pipeline.STAGES)


def test_one_point_is_answered(pipeline: Pipeline) -> None:
    seen = pipeline.step(frame_of(np.array([[1, 2, 0.5]], np.float32)), Output.ALL)
    assert seen.class_id[0] < 7
    assert seen.token_xyz == pytest.approx(np.array([[1, 2, 0.5]]))


@pytest.mark.parametrize(
    ('outputs', 'fields'),
    [
        (Output(0), set()),
        (Output.SEGMENTATION, {'class_id', 'probability'}),
        (Output.EMBEDDINGS, {'token_xyz', 'token_embedding'}),
        (Output.EMBEDDINGS_RGB, {'embedding_rgb'}),
        (Output.FRAME_EMBEDDING, {'frame_embedding'}),
        (
            Output.SEGMENTATION | Output.FRAME_EMBEDDING,
            {'class_id', 'probability', 'frame_embedding'},
        ),
    ],
)
def test_only_what_is_asked_for_is_computed(
    pipeline: Pipeline, outputs: Output, fields: set[str]
) -> None:
    frame = frame_of(points(300))
    seen = pipeline.step(frame, outputs)
    everything = pipeline.step(frame, Output.ALL)
    optional = {
        'class_id',
        'probability',
        'token_xyz',
        'token_embedding',
        'embedding_rgb',
        'frame_embedding',
    }
    for name in optional:
        if name in fields:
            assert np.array_equal(getattr(seen, name), getattr(everything, name))
        else:
            assert getattr(seen, name) is None
    per_point = bool(fields & {'class_id', 'embedding_rgb'})
    assert list(seen.stage_ms) == ['tokenise', 'spatial', 'temporal', 'point_decoder', 'head']
    assert seen.stage_ms['tokenise'] > 0
    assert seen.stage_ms['spatial'] > 0
    assert (seen.stage_ms['temporal'] > 0) == (pipeline.sweeps > 1)
    assert (seen.stage_ms['point_decoder'] > 0) == per_point


def test_the_threshold_hides_classes_but_not_probabilities(pipeline: Pipeline) -> None:
    frame = frame_of(points(1000))
    free = pipeline.step(frame, Output.SEGMENTATION)
    pipeline.probability_threshold = float(np.median(free.probability))
    try:
        strict = pipeline.step(frame, Output.SEGMENTATION)
    finally:
        pipeline.probability_threshold = 0.0
    hidden = free.probability < np.median(free.probability)
    assert 0 < hidden.sum() < 1000
    assert np.array_equal(strict.class_id, np.where(hidden, 255, free.class_id))
    assert np.array_equal(strict.probability, free.probability)


def test_tokens_lie_in_the_sensor_frame(pipeline: Pipeline) -> None:
    angle = 0.3
    base_from_sensor = np.array(
        [
            [np.cos(angle), 0, np.sin(angle), 1.0],
            [0, 1, 0, 2.0],
            [-np.sin(angle), 0, np.cos(angle), 1.7],
            [0, 0, 0, 1],
        ]
    )
    # Two clusters of the sensor frame, each within one voxel of the base frame.
    sensor = np.array([[5.0, 1, 0], [5.1, 1, 0.1], [9.0, -3, 1]])
    base = sensor @ base_from_sensor[:3, :3].T + base_from_sensor[:3, 3]
    cells = np.floor(base / 0.8)
    assert (cells[0] == cells[1]).all()
    frame = frame_of(base.astype(np.float32), base_from_sensor=base_from_sensor)
    seen = pipeline.step(frame, Output.EMBEDDINGS)
    expected = np.array([sensor[:2].mean(0), sensor[2]])
    assert seen.token_xyz[np.argsort(seen.token_xyz[:, 0])] == pytest.approx(expected, abs=1e-5)


def test_capped_points_are_answered_like_one_of_their_patch(tmp_path: Path) -> None:
    pipeline = custom(tmp_path / 'capped.safetensors', max_tokens=50, max_points=700)
    free = custom(tmp_path / 'free.safetensors')
    xyz = points(3000)
    seen = pipeline.step(frame_of(xyz), Output.ALL)
    voxels = free.step(frame_of(xyz), Output.ALL).token_count
    assert (seen.token_count, seen.capped_tokens) == (50, voxels - 50)
    assert seen.capped_points >= 2300
    assert (seen.class_id < 2).all()
    assert (seen.probability >= 0.5 - 1e-6).all()
    assert 50 < len(np.unique(seen.probability)) <= 3000 - seen.capped_points
    order = np.random.default_rng(3).permutation(3000)
    permuted = pipeline.step(frame_of(xyz[order]), Output.ALL)
    assert (permuted.class_id == seen.class_id[order]).mean() > 0.999
    assert permuted.probability == pytest.approx(seen.probability[order], abs=1e-4)


def test_nothing_is_capped_within_the_caps(pipeline: Pipeline) -> None:
    seen = pipeline.step(frame_of(points(500)), Output(0))
    assert (seen.capped_points, seen.capped_tokens) == (0, 0)


REDUCED = [('cpu', 'bf16')]
if torch.cuda.is_available():
    REDUCED += [('cuda', 'fp32'), ('cuda', 'bf16'), ('cuda', 'fp16')]


@pytest.mark.parametrize(('device', 'precision'), REDUCED)
@pytest.mark.parametrize('changes', [{}, MEMORY], ids=['shipped', 'memory'])
def test_precisions_agree_and_repeat(
    pipeline: Pipeline, tmp_path: Path, changes: dict[str, object], device: str, precision: str
) -> None:
    path = SHIPPED
    exact = pipeline
    if changes:
        path = tmp_path / 'memory.safetensors'
        exact = custom(path, **changes)
    exact.reset()
    reduced, again = (Pipeline(path, device=device, precision=precision) for _ in range(2))
    assert reduced.precision == precision
    for frame in drive(8):
        expected, found = exact.step(frame, Output.ALL), reduced.step(frame, Output.ALL)
        repeated = again.step(frame, Output.ALL)
        sure = expected.probability > 0.55
        assert sure.mean() > 0.3
        assert (found.class_id == expected.class_id)[sure].mean() > 0.99
        assert np.abs(found.probability - expected.probability).mean() < 0.02
        for name in ('token_embedding', 'frame_embedding'):
            want, got = getattr(expected, name), getattr(found, name)
            assert got.dtype == np.float32
            assert np.linalg.norm(got - want) < 0.05 * np.linalg.norm(want)
            if device == 'cpu':
                assert np.array_equal(getattr(repeated, name), got)
        assert found.probability.dtype == np.float32
        assert len(np.unique(found.probability)) > 500
        assert found.window_length == expected.window_length
        if device == 'cpu':
            assert np.array_equal(repeated.probability, found.probability)
    assert expected.window_length == exact.sweeps


def test_breaks_of_the_stream_show(tmp_path: Path) -> None:
    pipeline = custom(tmp_path / 'memory.safetensors', **MEMORY)
    frames = drive(8)
    seen = [pipeline.step(frame, Output(0)) for frame in frames]
    assert [one.window_length for one in seen] == [1, 1, 2, 2, 3, 3, 4, 4]
    assert {one.reset for one in seen} == {pipeline.last_reset} == {''}
    back = pipeline.step(frames[3], Output(0))
    assert 'went back' in back.reset
    assert (back.window_length, pipeline.last_reset) == (1, back.reset)
    assert pipeline.step(frames[4], Output(0)).reset == ''
    elsewhere = replace(frames[5], sweep=replace(frames[5].sweep, frame_id='other'))
    assert "'other'" in pipeline.step(elsewhere, Output(0)).reset
    assert "'other'" in pipeline.last_reset
    pipeline.reset('the clock jumped')
    assert pipeline.last_reset == 'the clock jumped'
    pipeline.reset()
    assert pipeline.last_reset == 'the clock jumped'
    assert pipeline.step(frames[0], Output(0)).reset == ''


def test_steps_give_the_newest_row_of_the_window(tmp_path: Path) -> None:
    changes = {'sweeps': 3, 'sweep_stride': 2, 'neighbours': 16, 'neighbour_radius_m': 1.0}
    pipeline = custom(tmp_path / 'm', **changes, latents=2, temporal_blocks=2)
    network = load_checkpoint(tmp_path / 'm').network
    inputs = []
    for step, frame in enumerate(drive(9)):
        if step == 6:
            pipeline.reset()
            inputs.clear()
        seen = pipeline.step(frame, Output.ALL)
        patches = network.tokenizer.group(torch.from_numpy(frame.xyz_base))
        kept = patches.kept_point
        assert frame.sweep.intensity is not None
        intensity = torch.from_numpy(frame.sweep.intensity)[kept]
        no_colour = torch.zeros(len(kept), 4)
        inputs.append(
            SweepInput(patches, intensity, no_colour, frame.stamp_ns, frame.fixed_from_base)
        )
        window = inputs[::-1][:5:2][::-1]
        assert seen.window_length == len(window) == min(3, 1 + (step % 6) // 2)
        with torch.inference_mode():
            token, embedding = network.forward_window(window)[-1]
            assert network.segmentation is not None
            probability = network.segmentation.classify(embedding)[1]
        assert seen.token_embedding == pytest.approx(token.numpy(), abs=1e-5)
        assert seen.probability is not None
        assert seen.probability[kept.numpy()] == pytest.approx(probability.numpy(), abs=1e-5)


def headless(path: Path) -> Pipeline:
    shipped = load_checkpoint(SHIPPED)
    contract = replace(shipped.contract, class_names=(), palette=())
    network = Network(contract.model, 0)
    kept = {k: v for k, v in shipped.network.state_dict().items() if 'segmentation' not in k}
    network.load_state_dict(kept)
    save_checkpoint(path, contract, network)
    return Pipeline(path, device='cpu', precision='fp32')


def test_a_checkpoint_without_a_head_gives_embeddings(tmp_path: Path) -> None:
    seen = headless(tmp_path / 'm').step(frame_of(points(200)), Output.ALL)
    assert (seen.class_id, seen.probability) == (None, None)
    assert seen.token_embedding.shape == (seen.token_count, 64)
    assert seen.embedding_rgb.shape == (200, 3)


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


def test_colour_matters_only_to_a_network_with_colour(pipeline: Pipeline, tmp_path: Path) -> None:
    blind = custom(tmp_path / 'blind.safetensors', colour=False)
    xyz = points(500)
    bare = frame_of(xyz)
    seen = frame_of(xyz, views=(view_of(image(1)),))
    assert (sample_colours(xyz, seen.views)[:, 3] > 0).any()
    assert not blind.contract.colour
    assert_same(blind.step(seen, Output.ALL), blind.step(bare, Output.ALL))
    assert pipeline.contract.colour
    difference = (
        pipeline.step(seen, Output.EMBEDDINGS).token_embedding
        - pipeline.step(bare, Output.EMBEDDINGS).token_embedding
    )
    assert np.abs(difference).max() > 1e-3


def test_intensity_matters(pipeline: Pipeline) -> None:
    xyz = points(500)
    answers = [
        pipeline.step(frame_of(xyz, intensity=intensity), Output.FRAME_EMBEDDING).frame_embedding
        for intensity in (None, np.zeros(500, np.float32), np.ones(500, np.float32))
    ]
    for i, j in ((0, 1), (1, 2)):
        assert np.abs(answers[i] - answers[j]).max() > 1e-4


def test_read_only_sweeps_are_taken_silently(pipeline: Pipeline) -> None:
    xyz, intensity = points(100), np.ones(100, np.float32)
    xyz.flags.writeable = intensity.flags.writeable = False
    before = xyz.copy()
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        pipeline.step(frame_of(xyz, intensity=intensity), Output.ALL)
    assert np.array_equal(xyz, before)


def test_steps_and_warm_up_leave_no_trace(pipeline: Pipeline) -> None:
    frame = frame_of(points(800))
    first = pipeline.step(frame, Output.ALL)
    pipeline.warm_up()
    pipeline.step(frame_of(points(900, seed=4)), Output.ALL)
    assert_same(pipeline.step(frame, Output.ALL), first)
    pipeline.reset()
    assert_same(pipeline.step(frame, Output.ALL), first)


def test_answers_outlive_the_next_step(pipeline: Pipeline) -> None:
    first = pipeline.step(frame_of(points(400)), Output.ALL)
    kept = [value.copy() for value in (first.class_id, first.token_embedding)]
    pipeline.step(frame_of(points(400, seed=9)), Output.ALL)
    assert np.array_equal(first.class_id, kept[0])
    assert np.array_equal(first.token_embedding, kept[1])


def test_points_of_another_count_are_refused(pipeline: Pipeline) -> None:
    frame = replace(frame_of(points(10)), xyz_base=points(11))
    with pytest.raises(ValueError, match=r'xyz_base is \(11, 3\), the sweep is \(10, 3\)'):
        pipeline.step(frame, Output.ALL)


def test_identity_and_device(pipeline: Pipeline) -> None:
    loaded = load_checkpoint(SHIPPED)
    assert pipeline.model_sha256 == loaded.sha256
    assert pipeline.contract == loaded.contract
    assert pipeline.device == torch.device('cpu')
    expected = 'cuda' if torch.cuda.is_available() else 'cpu'
    assert Pipeline(SHIPPED).device.type == expected


@pytest.mark.parametrize('name', ['gpu', 'cuda:99', 'meta', 'cpu:x', ''])
def test_devices_that_are_not_here_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match='device'):
        Pipeline(SHIPPED, device=name)


def test_threads_are_set() -> None:
    before = torch.get_num_threads()
    try:
        Pipeline(SHIPPED, device='cpu', threads=1)
        assert torch.get_num_threads() == 1
        Pipeline(SHIPPED, device='cpu', threads=0)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_a_bad_checkpoint_is_named(tmp_path: Path) -> None:
    path = tmp_path / 'cut.safetensors'
    path.write_bytes(SHIPPED.read_bytes()[:10000])
    with pytest.raises(BadCheckpoint, match=r'cut\.safetensors'):
        Pipeline(path)


def classes_of(answer: Perception) -> set[int]:
    assert answer.class_id is not None
    return set(np.unique(answer.class_id).tolist())


def test_an_example_names_what_resembles_it_in_the_very_next_answer() -> None:
    pipeline = Pipeline(SHIPPED, device='cpu', precision='fp32')
    # The message's frame lies 2 m beside the base frame.
    pose = np.eye(4)
    pose[1, 3] = 2.0
    xyz = points(4000)
    frame = replace(frame_of(xyz, base_from_sensor=pose), xyz_base=xyz + pose[:3, 3])
    pipeline.teaching = True
    before = pipeline.step(frame, Output(0))
    assert before.class_id is None
    assert pipeline.newest is not None and pipeline.newest.frame_id == 'lidar'
    before = pipeline.step(frame, Output.SEGMENTATION)
    example = pipeline.embedding_at(xyz[17] + [0.01, 0, 0])
    pipeline.prototypes = pipeline.prototypes.added('kerb', example)
    pipeline.teaching = False
    after = pipeline.step(frame, Output.SEGMENTATION)
    assert pipeline.newest is None
    assert pipeline.contract.answer_names == (*pipeline.contract.class_names, 'kerb')
    assert len(pipeline.contract.answer_palette) == 8
    assert after.class_id[17] == 7
    assert after.probability[17] > 0.9
    # What resembles nothing that was taught keeps the answer of the head.
    other = after.class_id != 7
    assert 0 < other.sum() < len(xyz)
    assert np.array_equal(after.class_id[other], before.class_id[other])
    assert np.array_equal(after.probability[other], before.probability[other])
    pipeline.prototypes = Prototypes.none(32)
    assert_same(pipeline.step(frame, Output.SEGMENTATION), before)


def test_examples_of_a_class_that_the_head_knows_are_that_class() -> None:
    pipeline = Pipeline(SHIPPED, device='cpu', precision='fp32')
    pipeline.teaching = True
    frame = frame_of(points(4000))
    before = pipeline.step(frame, Output.SEGMENTATION)
    car = pipeline.contract.class_names.index('car')
    assert before.class_id[17] != car
    taught = pipeline.prototypes.added('car', pipeline.embedding_at(frame.sweep.xyz[17]))
    pipeline.prototypes = taught
    assert pipeline.step(frame, Output.SEGMENTATION).class_id[17] == car
    assert pipeline.contract.answer_names == pipeline.contract.class_names


def test_a_model_without_a_head_knows_what_it_was_taught_and_nothing_else(tmp_path: Path) -> None:
    pipeline = headless(tmp_path / 'm')
    frame = frame_of(points(4000))
    pipeline.teaching = True
    assert pipeline.step(frame, Output.SEGMENTATION).class_id is None
    pipeline.answers_unknown = True
    assert classes_of(pipeline.step(frame, Output.SEGMENTATION)) == {255}
    example = pipeline.embedding_at(frame.sweep.xyz[17])
    pipeline.prototypes = pipeline.prototypes.added('kerb', example)
    answer = pipeline.step(frame, Output.SEGMENTATION)
    assert classes_of(answer) == {0, 255}
    assert answer.class_id[17] == 0
    assert answer.probability[answer.class_id == 0].min() > 0.5
    assert answer.probability[answer.class_id == 255].max() < 0.5


def test_no_example_where_no_point_is() -> None:
    pipeline = Pipeline(SHIPPED, device='cpu', precision='fp32')
    pipeline.teaching = True
    with pytest.raises(ValueError, match='no sweep was answered'):
        pipeline.embedding_at(np.zeros(3))
    pipeline.step(frame_of(np.array([[5, 0, 0], [8, 0, 0]], np.float32)), Output(0))
    assert pipeline.embedding_at(np.array([5.0, 0, 0.49])).norm() == pytest.approx(1)
    with pytest.raises(ValueError, match=r'is 0\.51 m away, the most is 0\.5 m'):
        pipeline.embedding_at(np.array([5.0, 0, 0.51]))
    with pytest.raises(ValueError, match='nan m away'):
        pipeline.embedding_at(np.array([5.0, np.nan, 0]))
    pipeline.step(frame_of(np.zeros((0, 3), np.float32)), Output.ALL)
    with pytest.raises(ValueError, match='saw no point'):
        pipeline.embedding_at(np.zeros(3))
    pipeline.reset()
    with pytest.raises(ValueError, match='no sweep was answered'):
        pipeline.embedding_at(np.zeros(3))


def test_a_class_has_a_threshold_of_its_own() -> None:
    pipeline = Pipeline(SHIPPED, device='cpu', precision='fp32', probability_threshold=0.3)
    frame = frame_of(points(2000))
    pipeline.probability_threshold = 0.0
    free = pipeline.step(frame, Output.SEGMENTATION)
    first, second = sorted(classes_of(free))[:2]
    names = pipeline.contract.class_names
    pipeline.probability_threshold = 0.6
    pipeline.class_thresholds = {names[first]: 0.0, names[second]: 1.01, 'never taught': 1.0}
    strict = pipeline.step(frame, Output.SEGMENTATION)
    assert np.array_equal(strict.probability, free.probability)
    rest = np.where(free.probability >= 0.6, free.class_id, 255)
    expected = np.where(free.class_id == first, first, rest)
    expected[free.class_id == second] = 255
    assert np.array_equal(strict.class_id, expected)
    pipeline.class_thresholds = {}
    assert np.array_equal(pipeline.step(frame, Output.SEGMENTATION).class_id, rest)


def test_more_classes_than_ids_are_refused_and_change_nothing() -> None:
    pipeline = Pipeline(SHIPPED, device='cpu', precision='fp32')
    many = pipeline.prototypes
    for number in range(249):
        many = many.added(f'class {number}', torch.ones(32))
    with pytest.raises(BadConfig, match='256 classes, taught ones included'):
        pipeline.prototypes = many
    assert pipeline.prototypes.names == () and pipeline.contract.prototypes is None
