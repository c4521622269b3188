# SPDX-License-Identifier: Apache-2.0
"""The pipeline as node, replay and evaluation use it, on the shipped checkpoint."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cross4d_jepa_ros.model.checkpoint import (
    BadCheckpoint,
    load_checkpoint,
    save_checkpoint,
)
from cross4d_jepa_ros.model.network import Network, SweepInput
from cross4d_jepa_ros.pipeline import Output, Perception, Pipeline
from cross4d_jepa_ros.sensing.frames import SensorFrame
from cross4d_jepa_ros.sensing.point_colours import sample_colours
from tests.checkpoints import MEMORY, SHIPPED, fresh_checkpoint
from tests.drawn_frames import frame_of, image, points, view_of


@pytest.fixture(scope='module')
def pipeline() -> Pipeline:
    return Pipeline(SHIPPED, device='cpu', precision='fp32')


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
