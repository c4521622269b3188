# SPDX-License-Identifier: Apache-2.0
"""What the node logs comes back exactly, and a node's recording is replayed to the same bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rclpy.parameter import Parameter
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from cross4d_jepa_ros.bags import BagWriter
from cross4d_jepa_ros.frame_log import FrameLog, LoggedRun, Settings, digests
from cross4d_jepa_ros.logged_frames import BadFrameLog, read_log, rebuilt
from cross4d_jepa_ros.model.prototypes import Prototypes
from cross4d_jepa_ros.pipeline import Perception
from cross4d_jepa_ros.sensing.cameras import CameraModel
from cross4d_jepa_ros.sensing.deskewing import in_base
from cross4d_jepa_ros.sensing.frames import CameraView, SensorFrame
from cross4d_jepa_ros.sensing.images import decode_image
from cross4d_jepa_ros.sensing.point_clouds import CloudConfig, CloudDecoder
from offline_training import evaluate
from tests import bench as live
from tests import tiny_recording as tiny
from tests.bench import Bench
from tests.checkpoints import SHIPPED

RUN = LoggedRun('ab', '1', 'cpu', 'fp32', 1, CloudConfig(time_unit='ms'), '/lidar', ('/camera',))
NOTHING = Prototypes.none(3)
SETTINGS = Settings(0.25, {'car': 0.1 + 0.2}, False, NOTHING)
MODEL = CameraModel(8, 6, 4.1, 4.2, 4.0, 3.0, 'plumb_bob', (0.1, 1 / 3, 0, 0, 0))


def frame() -> tuple[SensorFrame, Any, Any]:
    """Make a frame whose numbers no short decimal tells, and the messages it is of."""
    draw = np.random.default_rng(0)
    xyz = draw.normal(0, 5, (50, 3)).astype(np.float32)
    strength = np.linspace(0, 200, 50, dtype=np.float32)
    time_ms = np.linspace(0, 100, 50, dtype=np.float32)
    message = tiny.sweep(7, xyz, intensity=strength, time=time_ms)
    image = tiny.image(9, draw.integers(0, 255, (6, 8, 3)).astype(np.uint8))
    sweep = CloudDecoder(RUN.cloud).decode(message)
    poses = [np.eye(4) + draw.normal(0, 0.1, (4, 4)) * (np.arange(4) < 3)[:, None] for _ in '123']
    knots = draw.normal(0, 1, (17, 4, 4)).astype(np.float32)[:, :3]
    made = SensorFrame(
        7,
        sweep,
        in_base(sweep, poses[0], knots),
        poses[0],
        poses[1],
        (CameraView(0, decode_image(image), 11, MODEL, poses[2]),),
        knots,
    )
    return made, message, image


def perception(class_id: list[int]) -> Perception:
    empty = dict.fromkeys(('token_embedding', 'embedding_rgb', 'frame_embedding'))
    return Perception(
        stamp_ns=7,
        class_id=np.array(class_id, np.uint8),
        probability=None,
        token_xyz=np.zeros((0, 3), np.float32),
        token_count=0,
        window_length=1,
        reset='a gap',
        capped_points=0,
        capped_tokens=0,
        stage_ms={},
        **empty,  # type: ignore[arg-type]
    )


@pytest.fixture
def log(tmp_path: Path) -> Iterator[FrameLog]:
    """Lend a log with the line of a run."""
    lent = FrameLog(tmp_path / 'new' / 'log.jsonl')
    assert lent.begin(RUN) == ''
    yield lent
    lent.close()


def path_of(log: FrameLog) -> Path:
    return Path(log._file.name)


def test_a_frame_comes_back_bit_for_bit(log: FrameLog) -> None:
    made, message, image = frame()
    log.reset('activated')
    assert log.add(made, (9,), perception([1, 2]), SETTINGS) == ''
    assert log.add(replace(made, fixed_from_base=None, views=()), (None,), None, SETTINGS) == ''
    (first, second), torn = read_log(path_of(log))
    assert torn == 0
    assert (first.run, first.reset, first.images_ns) == (RUN, 'activated', (9,))
    assert first.settings.class_thresholds == {'car': 0.30000000000000004}
    assert first.digests == digests(perception([1, 2]))
    assert set(first.digests) == {'class_id', 'token_xyz'}
    back = rebuilt(first, message, {0: image})
    for name in ('xyz_base', 'base_from_sensor', 'fixed_from_base', 'stamp_from_knot'):
        np.testing.assert_array_equal(getattr(back, name), getattr(made, name))
    np.testing.assert_array_equal(back.sweep.intensity, made.sweep.intensity)
    (view,), (wanted,) = back.views, made.views
    assert (view.camera, view.stamp_ns) == (MODEL, 11)
    np.testing.assert_array_equal(view.image, wanted.image)
    np.testing.assert_array_equal(view.camera_from_base, wanted.camera_from_base)

    assert (second.reset, second.images_ns, second.digests) == (None, (None,), {})
    assert second.fixed_from_base is None and not second.views


def test_what_is_taught_is_logged_when_it_changes(log: FrameLog) -> None:
    made, *_ = frame()
    taught = NOTHING.added('box', torch.tensor([1.0, 2.0, 1 / 3]))
    for prototypes in (NOTHING, NOTHING, taught, taught):
        log.add(made, (), None, replace(SETTINGS, prototypes=prototypes))
    log.begin(RUN)
    log.add(made, (), None, replace(SETTINGS, prototypes=taught))
    lines = [json.loads(line) for line in path_of(log).read_text().splitlines()]
    assert ['taught' in line for line in lines] == [False, True, False, True, False, False, True]
    sweeps, _ = read_log(path_of(log))
    found = [sweep.settings.prototypes for sweep in sweeps]
    assert [each.names for each in found] == [(), (), ('box',), ('box',), ('box',)]
    for each in found[2:]:
        assert torch.equal(each.vectors, taught.vectors)
        assert torch.equal(each.class_of, taught.class_of)


@pytest.mark.parametrize('lost', [0, 2])
def test_what_builds_on_a_damaged_line_is_left_out(log: FrameLog, lost: int) -> None:
    """Its sweeps would be taken for those of the run before, or for answered without a class."""
    made, *_ = frame()
    log.close()
    path = path_of(log)
    path.unlink()
    log = FrameLog(path)
    taught = NOTHING.added('box', torch.tensor([1.0, 2.0, 1 / 3]))
    for run in (RUN, replace(RUN, device='cuda')):
        log.begin(run)
        for prototypes in (NOTHING, taught, taught):
            log.add(made, (), None, replace(SETTINGS, prototypes=prototypes))
    log.close()
    lines = path.read_bytes().splitlines(keepends=True)
    damaged = bytearray(lines[4 + lost])
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(b''.join([*lines[: 4 + lost], damaged, *lines[5 + lost :]]))
    sweeps, torn = read_log(path)
    assert [sweep.run.device for sweep in sweeps] == ['cpu'] * 3 + ['cuda'] * (lost // 2)
    assert [sweep.settings.prototypes.names for sweep in sweeps[:3]] == [(), ('box',), ('box',)]
    assert torn == 4 - lost


def test_torn_lines_are_counted_and_not_written_into(log: FrameLog) -> None:
    made, *_ = frame()
    for _ in range(2):
        log.add(made, (), None, SETTINGS)
    whole = path_of(log).read_bytes()
    path_of(log).write_bytes(whole[:-30])
    sweeps, torn = read_log(path_of(log))
    assert (len(sweeps), torn) == (1, 1)
    again = FrameLog(path_of(log))
    again.begin(RUN)
    again.add(made, (), None, SETTINGS)
    again.close()
    sweeps, torn = read_log(path_of(log))
    assert (len(sweeps), torn) == (2, 1)


def test_a_full_disk_ends_the_log_and_says_so_once() -> None:
    full = FrameLog(Path('/dev/full'))
    assert 'frame_log: /dev/full cannot be written' in full.begin(RUN)
    made, *_ = frame()
    assert full.add(made, (), None, SETTINGS) == ''
    full.close()


def test_a_closed_log_takes_no_more_and_raises_nothing(log: FrameLog) -> None:
    log.close()
    assert 'logging has ended' in log.begin(RUN)


def test_a_log_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    (tmp_path / 'file').write_text('')
    with pytest.raises(OSError, match=r"frame_log: .*file/log\.jsonl'"):
        FrameLog(tmp_path / 'file' / 'log.jsonl')


def test_sweeps_of_a_run_whose_first_line_is_torn_are_torn(log: FrameLog) -> None:
    made, *_ = frame()
    for _ in range(3):
        log.add(made, (), None, SETTINGS)
    run, first, *rest = path_of(log).read_bytes().splitlines(keepends=True)
    whole = run + first
    path_of(log).write_bytes(whole + run + first[:-30] + b'\n' + b''.join(rest))
    sweeps, torn = read_log(path_of(log))
    assert (len(sweeps), torn) == (1, 3)


@pytest.mark.parametrize(
    ('text', 'sentence'),
    [
        ('', 'is no frame log'),
        ('{"kind": "sweep"}\n', 'is no frame log'),
        ('{"kind":"run","version":99,"package_version":"9.9"}\n', 'use the package version 9.9'),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / 'log.jsonl'
    path.write_text(text)
    with pytest.raises(BadFrameLog, match=sentence):
        read_log(path)


def test_the_log_of_a_node_is_replayed_to_the_same_bytes(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sweeps with images and without, and another threshold in between."""
    sent: list[tuple[int, str, Any]] = []
    log = tmp_path / 'log.jsonl'
    node = bench.perception(
        frame_log=str(log),
        threads=1,
        sync__timeout=1.0,
        extrinsics_file=str(Path(__file__).with_name('extrinsics.yaml')),
    )
    publishers = {
        '/points': bench.probe.create_publisher(PointCloud2, '/points', 5),
        '/camera/image': bench.probe.create_publisher(Image, '/camera/image', 5),
        '/camera/camera_info': bench.probe.create_publisher(CameraInfo, '/camera/camera_info', 5),
    }
    received: list[PointCloud2] = []
    topic = '/perception_node/output/segmentation'
    bench.probe.create_subscription(PointCloud2, topic, received.append, 10)
    bench.wait_active()
    bench.wait(lambda: all(each.get_subscription_count() for each in publishers.values()))
    bench.wait(lambda: bench.probe.count_publishers(topic))

    def answer(number: int) -> None:
        at_ns = tiny.START_NS + number * 100 * tiny.MS
        messages: dict[str, Any] = {'/camera/camera_info': live.camera_info(at_ns)}
        if number:
            messages['/camera/image'] = live.image(at_ns)
        messages['/points'] = live.cloud(at_ns, 640, seed=number, invalid=number)
        for name, message in messages.items():
            publishers[name].publish(message)
            sent.append((at_ns, name, message))
        bench.wait(lambda: len(received) == number + 1)

    for number in range(6):
        if number == 3:
            node.set_parameters([Parameter('segmentation.threshold', value=0.6)])
        answer(number)
    bench.wait(lambda: log.read_text().count('"sweep"') == 6)
    logged, _ = read_log(log)
    assert not logged[0].views and any(each.views for each in logged)
    assert [each.reset for each in logged] == ['', *[None] * 5]
    thresholds = [each.settings.probability_threshold for each in logged]
    assert thresholds == [0, 0, 0, 0.6, 0.6, 0.6]
    monkeypatch.setattr('cross4d_jepa_ros.pipeline.WARM_UP_POINTS', 1000)
    monkeypatch.setattr(evaluate, 'draw', lambda *_: None)
    bag = tmp_path / 'bag'
    with BagWriter(bag) as writer:
        for at_ns, name, message in sent:
            kind = f'sensor_msgs/msg/{type(message).__name__}'
            writer.write(name, kind, at_ns, serialize_message(message))
    out = tmp_path / 'out'
    words = [str(bag), str(SHIPPED), '--frame-log', str(log), '--out', str(out)]
    assert evaluate.main(words) == 0
    found = json.loads((out / 'report.json').read_text())['frame_log']
    assert (found['sweeps'], found['compared'], found['identical']) == (6, 6, 6)
