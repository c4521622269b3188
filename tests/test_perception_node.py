# SPDX-License-Identifier: Apache-2.0
"""The node over real DDS: every sweep answered as documented, every drop counted, any lifecycle."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from nav_msgs.msg import Odometry
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2, PointField

from cross4d_jepa_ros.ledger import Drop, Place
from cross4d_jepa_ros.pipeline import Output, Pipeline
from cross4d_jepa_ros.ros.inputs import Inputs
from cross4d_jepa_ros.ros.subscriptions import PlainSubscriber, Subscriber
from cross4d_jepa_ros.sensing.point_clouds import stamp_ns, structured_view
from tests.bench import Bench, camera_info, cloud, image, stamped
from tests.checkpoints import MEMORY, fresh_checkpoint

SECOND = 10**9
PERIOD = SECOND // 10
START = 1_000 * SECOND
BEST_EFFORT = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
POINT_TOPICS = ('segmentation', 'segmentation_rgb', 'embeddings_rgb')
FIELDS = {
    'segmentation': [('class_id', PointField.UINT8, 1), ('probability', PointField.FLOAT32, 1)],
    'segmentation_rgb': [('rgb', PointField.FLOAT32, 1)],
    'embeddings_rgb': [('rgb', PointField.FLOAT32, 1)],
}


def listen(bench: Bench, *names: str) -> dict[str, list[PointCloud2]]:
    received: dict[str, list[PointCloud2]] = {name: [] for name in names}
    for name in names:
        bench.probe.create_subscription(
            PointCloud2, f'/perception_node/output/{name}', received[name].append, 10
        )
    return received


def counts(bench: Bench) -> dict[str, int]:
    values = bench.sections.get('points', (0, '', {}))[2]
    return {key: int(value) for key, value in values.items() if value.isdigit()}


def settled(bench: Bench, sent: int) -> Callable[[], bool]:
    return lambda: counts(bench).get('received') == sent and counts(bench).get('in_flight') == 0


def request(bench: Bench, transition: int) -> bool:
    asked = ChangeState.Request(transition=Transition(id=transition))
    return bool(bench.call(ChangeState, '/perception_node/change_state', asked).success)


def lifecycle_state(bench: Bench) -> str:
    answer = bench.call(GetState, '/perception_node/get_state', GetState.Request())
    return str(answer.current_state.label)


def slow_down(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Have every step of the pipeline take longer."""
    step = Pipeline.step

    def slow(self: Pipeline, frame: Any, outputs: Output) -> Any:
        time.sleep(seconds)
        return step(self, frame, outputs)

    monkeypatch.setattr(Pipeline, 'step', slow)


def test_every_sweep_is_answered_in_its_own_order_and_header(bench: Bench) -> None:
    received = listen(bench, *POINT_TOPICS, 'embeddings', 'frame_embedding')
    node = bench.perception(cameras=0)
    points = bench.probe.create_publisher(PointCloud2, '/points', 5)
    bench.wait_active()
    bench.wait(lambda: points.get_subscription_count())
    bench.wait(lambda: bench.probe.count_publishers('/perception_node/output/embeddings'))
    sent = [cloud(START + i * PERIOD, 640, seed=i, invalid=7) for i in range(8)]
    for message in sent:
        message.height, message.width, message.row_step = 16, 40, 640
    time.sleep(0.5)
    bench.publish({points: lambda i: sent[i]}, len(sent), 0.15)
    bench.wait(settled(bench, 8))

    assert counts(bench)['answered'] == 8
    dim = node._life.pipeline.contract.model.width
    for name in POINT_TOPICS:
        assert [stamp_ns(m) for m in received[name]] == [stamp_ns(m) for m in sent]
        for answer, sweep in zip(received[name], sent, strict=True):
            assert (answer.height, answer.width) == (16, 40)
            assert answer.header.frame_id == 'lidar'
            assert not answer.is_dense
            extra = [(f.name, f.datatype, f.count) for f in answer.fields[3:]]
            assert [f.name for f in answer.fields[:3]] == ['x', 'y', 'z']
            assert extra == FIELDS[name]
            for axis in 'xyz':
                want, got = structured_view(sweep)[axis], structured_view(answer)[axis]
                np.testing.assert_array_equal(got, want)
    labels = structured_view(received['segmentation'][0])
    flat = labels.reshape(-1)
    assert (flat['class_id'][:7] == 255).all()
    assert (flat['probability'][:7] == 0).all()
    known = flat['class_id'][7:]
    assert (known < 7).all()
    assert (flat['probability'][7:] > 1 / 7 - 1e-6).all()
    tokens = received['embeddings'][0]
    assert [(f.name, f.count) for f in tokens.fields][3:] == [('embedding', dim)]
    assert 1 < tokens.width <= 640
    assert np.isfinite(structured_view(tokens)['embedding']).all()
    pooled = structured_view(received['frame_embedding'][0])['embedding']
    assert pooled.shape == (1, 1, dim)
    assert np.abs(pooled).max() > 0


def test_outputs_are_computed_only_for_subscribers(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Output] = []
    step = Pipeline.step

    def recorded(self: Pipeline, frame: Any, outputs: Output) -> Any:
        asked.append(outputs)
        return step(self, frame, outputs)

    bench.perception(cameras=0)
    points = bench.probe.create_publisher(PointCloud2, '/points', 5)
    bench.wait_active()
    monkeypatch.setattr(Pipeline, 'step', recorded)
    bench.wait(lambda: points.get_subscription_count())
    bench.publish({points: lambda i: cloud(START + i * PERIOD)}, 3)
    bench.wait(settled(bench, 3))
    assert set(asked) == {Output(0)}

    listen(bench, 'embeddings')
    time.sleep(1.0)
    asked.clear()
    bench.publish({points: lambda i: cloud(START + (3 + i) * PERIOD)}, 3)
    bench.wait(settled(bench, 6))
    assert set(asked) == {Output.EMBEDDINGS}


@pytest.mark.parametrize('compressed', [False, True])
def test_images_are_matched_with_no_word_on_their_type(bench: Bench, compressed: bool) -> None:
    topic = '/camera/image/compressed' if compressed else '/camera/image'
    remap = [f'~/input/image0:={topic}'] if compressed else []
    if compressed:
        remap.append('~/input/camera_info0:=/camera/camera_info')
    extrinsics = Path(__file__).parent / 'extrinsics.yaml'
    node = bench.perception(*remap, extrinsics_file=str(extrinsics))
    points = bench.probe.create_publisher(PointCloud2, '/points', 5)
    kind = CompressedImage if compressed else Image
    images = bench.probe.create_publisher(kind, topic, BEST_EFFORT)
    infos = bench.probe.create_publisher(CameraInfo, '/camera/camera_info', 5)
    bench.wait_active()
    for publisher in (points, images, infos):
        bench.wait(publisher.get_subscription_count)

    def picture(i: int) -> Any:
        if not compressed:
            return image(START + i * PERIOD + 12_000_000)
        ok, png = cv2.imencode('.png', np.full((8, 12, 3), 90, np.uint8))
        assert ok
        message = CompressedImage(format='png', data=png.tobytes())
        return stamped(message, START + i * PERIOD + 12_000_000, 'camera')

    bench.publish(
        {
            infos: lambda i: camera_info(START + i * PERIOD),
            points: lambda i: cloud(START + i * PERIOD),
            images: picture,
        },
        8,
    )
    bench.wait(settled(bench, 8))
    values = bench.sections['image0'][2]

    assert values['matched'] == '8'
    assert float(values['offset_median_ms']) == pytest.approx(12, abs=0.01)
    assert node._life.assembler.notes.get('image0') is None


def test_bad_clouds_are_dropped_by_cause_and_the_rest_answered(bench: Bench) -> None:
    bench.perception(cameras=0)
    points = bench.probe.create_publisher(PointCloud2, '/points', 10)
    bench.wait_active()
    bench.wait(points.get_subscription_count)

    def sweep(i: int) -> PointCloud2:
        message = cloud(START + i * PERIOD)
        if i == 2:
            message.data = message.data[:100]
        if i == 4:
            message.fields = message.fields[1:]
        if i == 6:
            stamped(message, START + 5 * PERIOD, 'lidar')
        if i == 8:
            stamped(message, START + 5 * PERIOD + 1, 'lidar')
        return message

    bench.publish({points: sweep}, 10, 0.12)
    bench.wait(settled(bench, 10))
    seen = counts(bench)

    assert seen['dropped.malformed'] == 2
    assert seen['dropped.duplicate'] == 1
    assert seen['dropped.out_of_order'] == 1
    assert seen['answered'] + sum(seen[f'dropped.{cause}'] for cause in Drop) == 10


def test_newest_sweep_wins_when_the_pipeline_is_slow(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    received = listen(bench, 'frame_embedding')
    bench.perception(cameras=0)
    points = bench.probe.create_publisher(PointCloud2, '/points', 5)
    bench.wait_active()
    slow_down(monkeypatch, 0.3)
    bench.wait(points.get_subscription_count)
    time.sleep(0.5)
    bench.publish({points: lambda i: cloud(START + i * PERIOD)}, 40)
    bench.finding('too slow', 'of', 'ms a sweep', 'device:=cuda')
    bench.wait(settled(bench, 40))
    seen = counts(bench)

    assert seen['dropped.superseded'] > 15
    assert seen['answered'] + seen['dropped.superseded'] == 40
    assert stamp_ns(received['frame_embedding'][-1]) == START + 39 * PERIOD
    assert float(bench.sections['latency'][2]['latency_p95_ms']) < 2 * 330


def test_follows_the_reliability_that_is_offered(bench: Bench) -> None:
    bench.perception(cameras=0)
    bench.wait_active()
    total = 0
    for qos in (BEST_EFFORT, QoSProfile(depth=5), BEST_EFFORT):
        points = bench.probe.create_publisher(PointCloud2, '/points', qos)
        bench.wait(points.get_subscription_count)
        time.sleep(0.5)
        start = START + total * PERIOD
        bench.publish({points: lambda i, start=start: cloud(start + i * PERIOD)}, 5)
        total += 5
        bench.wait(settled(bench, total))
        offered = bench.probe.get_subscriptions_info_by_topic('/points')
        assert {info.qos_profile.reliability for info in offered} == {qos.reliability}
        bench.probe.destroy_publisher(points)
        bench.wait(lambda: not bench.probe.count_publishers('/points'))


def test_a_latched_camera_info_sent_before_the_node_started_arrives(bench: Bench) -> None:
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    infos = bench.probe.create_publisher(CameraInfo, '/camera/camera_info', latched)
    infos.publish(camera_info(START))
    images = bench.probe.create_publisher(Image, '/camera/image', 5)
    points = bench.probe.create_publisher(PointCloud2, '/points', 5)
    extrinsics = Path(__file__).parent / 'extrinsics.yaml'
    node = bench.perception(extrinsics_file=str(extrinsics))
    bench.wait_active()
    bench.wait(lambda: points.get_subscription_count() and images.get_subscription_count())
    time.sleep(0.5)
    bench.publish(
        {
            points: lambda i: cloud(START + i * PERIOD),
            images: lambda i: image(START + i * PERIOD),
        },
        4,
    )
    bench.wait(settled(bench, 4))

    assert 'image0' not in node._life.assembler.notes


def test_odometry_gives_ego_motion(bench: Bench) -> None:
    bench.perception('~/input/odometry:=/odom', cameras=0)
    points = bench.probe.create_publisher(PointCloud2, '/points', 5)
    odometry = bench.probe.create_publisher(Odometry, '/odom', 50)
    bench.wait_active()
    bench.wait(lambda: points.get_subscription_count() and odometry.get_subscription_count())

    def pose(i: int) -> Odometry:
        message = stamped(Odometry(child_frame_id='lidar'), START + i * PERIOD, 'odom')
        message.pose.pose.position.x = 0.5 * i
        message.pose.pose.orientation.w = 1.0
        return message

    bench.publish({odometry: pose, points: lambda i: cloud(START + i * PERIOD)}, 15)
    bench.wait(lambda: bench.sections['node'][2].get('ego_motion') == 'odometry', 5)


def test_the_memory_fills_and_says_what_it_lacks(bench: Bench, tmp_path: Path) -> None:
    model = tmp_path / 'memory.safetensors'
    fresh_checkpoint(model, **MEMORY, max_points=500)
    bench.perception('~/input/odometry:=/odom', cameras=0, model=str(model))
    points = bench.probe.create_publisher(PointCloud2, '/points', 5)
    odometry = bench.probe.create_publisher(Odometry, '/odom', 50)
    bench.wait_active()
    bench.wait(lambda: points.get_subscription_count() and odometry.get_subscription_count())

    def values() -> dict[str, str]:
        return bench.sections['node'][2]

    bench.publish({points: lambda i: cloud(START + i * PERIOD)}, 10)
    bench.finding('no ego-motion', 'reduced to 12 latents', 'Publish odometry', 'fixed_frame')
    bench.finding('100 points a sweep are over max_points 500')
    assert values()['window_length'] == values()['window_length_full'] == '4'
    assert values()['capped_points'] == '100'
    assert values()['last_reset'] == ''

    later = START + 30 * PERIOD

    def pose(i: int) -> Odometry:
        message = stamped(Odometry(child_frame_id='lidar'), later + i * PERIOD, 'odom')
        message.pose.pose.position.x = 0.5 * i
        message.pose.pose.orientation.w = 1.0
        return message

    bench.publish({odometry: pose, points: lambda i: cloud(later + i * PERIOD)}, 12)
    bench.wait(lambda: values()['ego_motion'] == 'odometry' and values()['window_length'] == '4', 5)
    assert 'without a sweep' in values()['last_reset']
    bench.wait(lambda: 'latents' not in bench.sections['node'][1], 5)


def starve(monkeypatch: pytest.MonkeyPatch, steps: int, error: Exception) -> None:
    """Have the next steps of the pipeline run out of memory."""
    step = Pipeline.step
    left = [error] * steps

    def starved(self: Pipeline, frame: Any, outputs: Output) -> Any:
        if left:
            raise left.pop()
        return step(self, frame, outputs)

    monkeypatch.setattr(Pipeline, 'step', starved)


ON_A_GPU = torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB')
ON_THE_HOST = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes\n#0 f()")


@pytest.mark.parametrize('error', [ON_A_GPU, ON_THE_HOST])
def test_a_sweep_without_memory_is_dropped_and_the_next_answered(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    bench.perception(cameras=0)
    points = bench.probe.create_publisher(PointCloud2, '/points', 5)
    bench.wait_active()
    starve(monkeypatch, 2, error)
    bench.wait(points.get_subscription_count)
    time.sleep(0.3)
    bench.publish({points: lambda i: cloud(START + i * PERIOD)}, 5, 0.15)
    bench.wait(settled(bench, 5))

    assert counts(bench)['dropped.out_of_memory'] == 2
    assert counts(bench)['answered'] == 3
    assert bench.sections['node'][2]['last_reset'] == 'memory ran out'


def test_repeated_want_of_memory_deactivates_with_the_reason(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = bench.perception(cameras=0)
    points = bench.probe.create_publisher(PointCloud2, '/points', 5)
    bench.wait_active()
    with monkeypatch.context() as patched:
        starve(patched, 100, ON_A_GPU)
        bench.wait(points.get_subscription_count)
        time.sleep(0.3)
        bench.publish({points: lambda i: cloud(START + i * PERIOD)}, 8, 0.15)
        text = bench.finding('inactive', 'memory ran out', 'Tried to allocate 2.00 GiB')
    assert 'max_points' in text
    assert node.counts().dropped[Drop.OUT_OF_MEMORY] >= 3
    assert node.counts().in_flight == 0

    assert request(bench, Transition.TRANSITION_ACTIVATE)
    bench.wait(lambda: bench.state() == 'active' and points.get_subscription_count())
    time.sleep(0.3)
    before = node.counts().answered
    bench.publish({points: lambda i: cloud(START + (20 + i) * PERIOD)}, 3, 0.15)
    bench.wait(lambda: node.counts().answered == before + 3)
    assert lifecycle_state(bench) == 'active'


def test_a_model_that_does_not_fit_is_refused_with_the_knob(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    starve(monkeypatch, 1, ON_THE_HOST)
    bench.perception(cameras=0)
    bench.wait(bench.state)
    text = bench.finding('configure failed', "can't allocate memory", 'take a smaller model')
    assert '\n' not in text


def test_cleanup_lets_go_of_the_model(bench: Bench) -> None:
    node = bench.perception(cameras=0)
    bench.wait_active()
    pipeline = weakref.ref(node._life.pipeline)

    assert request(bench, Transition.TRANSITION_DEACTIVATE)
    assert request(bench, Transition.TRANSITION_CLEANUP)
    gc.collect()

    assert pipeline() is None


def test_lifecycle_in_any_order_and_illegal_requests(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('cross4d_jepa_ros.pipeline.WARM_UP_POINTS', 2000)
    node = bench.perception(cameras=0, autostart=False)
    points = bench.probe.create_publisher(PointCloud2, '/points', 5)
    assert lifecycle_state(bench) == 'unconfigured'
    configure, activate = Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE
    deactivate, cleanup = Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP
    sent = 0
    for transition, allowed, state in (
        (activate, False, 'unconfigured'),
        (cleanup, False, 'unconfigured'),
        (configure, True, 'inactive'),
        (configure, False, 'inactive'),
        (cleanup, True, 'unconfigured'),
        (99, False, 'unconfigured'),
        (configure, True, 'inactive'),
        (activate, True, 'active'),
        (activate, False, 'active'),
        (deactivate, True, 'inactive'),
        (activate, True, 'active'),
        (deactivate, True, 'inactive'),
        (cleanup, True, 'unconfigured'),
        (configure, True, 'inactive'),
        (activate, True, 'active'),
    ):
        assert request(bench, transition) is allowed, (transition, state)
        assert lifecycle_state(bench) == state
        if state != 'active':
            # Else the last life's subscription passes for the next one's.
            bench.wait(lambda: not points.get_subscription_count())
        elif allowed:
            bench.wait(points.get_subscription_count)
            time.sleep(0.3)
            for _ in range(3):
                # One by one: a busy machine may let sweeps overtake each other.
                points.publish(cloud(START + sent * PERIOD))
                sent += 1
                bench.wait(lambda sent=sent: node.counts().answered == sent)


def test_deactivate_under_load_loses_nothing_from_the_books(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = bench.perception(cameras=0)
    points = bench.probe.create_publisher(PointCloud2, '/points', 5)
    bench.wait_active()
    slow_down(monkeypatch, 0.25)
    bench.wait(points.get_subscription_count)
    bench.publishing({points: lambda i: cloud(START + i * PERIOD)})
    time.sleep(1.0)

    start = time.monotonic()
    assert request(bench, Transition.TRANSITION_DEACTIVATE)
    assert time.monotonic() - start < 0.25 + 1.0 + 0.3
    after = node.counts()
    time.sleep(0.5)

    assert after.in_flight == 0
    assert after.dropped[Drop.INACTIVE] + after.dropped[Drop.ERROR] <= 2
    assert node.counts() == after


def test_a_worker_that_does_not_end_is_never_joined_by_a_second(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two would share one pipeline, and the old one would answer into the new life."""
    monkeypatch.setattr('cross4d_jepa_ros.intake.JOIN_S', 0.2)
    node = bench.perception(cameras=0)
    points = bench.probe.create_publisher(PointCloud2, '/points', 5)
    bench.wait_active()
    released, step = threading.Event(), Pipeline.step

    def held(self: Pipeline, frame: Any, outputs: Output) -> Any:
        assert released.wait(60)
        return step(self, frame, outputs)

    monkeypatch.setattr(Pipeline, 'step', held)
    bench.wait(points.get_subscription_count)
    time.sleep(0.3)
    bench.publish({points: lambda i: cloud(START + i * PERIOD)}, 3)
    bench.wait(lambda: node.counts().received == 3)
    assert request(bench, Transition.TRANSITION_DEACTIVATE)
    assert node.counts().in_flight == node.counts().places[Place.WORKING] == 1
    assert not request(bench, Transition.TRANSITION_ACTIVATE)
    assert lifecycle_state(bench) == 'inactive'
    bench.finding('activate failed', 'still busy')
    released.set()
    bench.wait(lambda: node.counts().in_flight == 0)
    assert request(bench, Transition.TRANSITION_ACTIVATE)
    bench.wait(points.get_subscription_count)
    time.sleep(0.3)
    bench.publish({points: lambda i: cloud(START + (10 + i) * PERIOD)}, 1)
    bench.wait(lambda: node.counts().answered == 1)

    assert node.counts().dropped[Drop.INACTIVE] >= 1
    assert node.counts().received == 4


def test_a_transition_that_raises_leaves_a_node_that_can_begin_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = bench.perception(cameras=0)
    bench.wait_active()
    errors = [OSError('made up')]
    close = Inputs.close

    def failing(self: Inputs) -> None:
        if errors:
            raise errors.pop()
        close(self)

    monkeypatch.setattr(Inputs, 'close', failing)
    assert not request(bench, Transition.TRANSITION_DEACTIVATE)
    bench.finding('unconfigured', 'deactivate failed', 'made up')
    assert not any(thread.name == 'perception_worker' for thread in threading.enumerate())
    assert request(bench, Transition.TRANSITION_CONFIGURE)
    assert request(bench, Transition.TRANSITION_ACTIVATE)
    bench.wait_active()
    assert node.counts().in_flight == 0


def test_refused_model_is_named_and_can_be_corrected(bench: Bench, tmp_path: Path) -> None:
    wrong = tmp_path / 'wrong.safetensors'
    wrong.write_bytes(b'nothing of the kind')
    node = bench.perception(cameras=0, model=str(wrong))

    text = bench.finding('unconfigured', str(wrong))
    assert 'configure failed' in text
    assert node.set_parameters([Parameter('model', value='')])[0].successful
    assert request(bench, Transition.TRANSITION_CONFIGURE)
    assert request(bench, Transition.TRANSITION_ACTIVATE)
    bench.wait_active()


def test_parameters_are_checked_and_the_live_one_acts(bench: Bench) -> None:
    received = listen(bench, 'segmentation')
    node = bench.perception(cameras=0)
    points = bench.probe.create_publisher(PointCloud2, '/points', 5)
    bench.wait_active()
    bench.wait(points.get_subscription_count)
    time.sleep(0.5)

    def answer(name: str, value: Any) -> Any:
        return node.set_parameters([Parameter(name, value=value)])[0]

    refused = answer('model', 'other.safetensors')
    assert not refused.successful
    assert 'clean the node up first' in refused.reason
    assert not answer('segmentation.threshold', 1.5).successful
    assert not answer('segmentation.threshold', float('nan')).successful
    assert 'take one of' in answer('device', 'tpu').reason
    assert 'take one of' in answer('precision', 'int8').reason
    bench.publish({points: lambda i: cloud(START + i * PERIOD)}, 1)
    bench.wait(settled(bench, 1))
    free = structured_view(received['segmentation'][-1]).copy()
    assert answer('segmentation.threshold', 1.0).successful
    first = int(free['class_id'][0, 0])
    names = node._life.pipeline.contract.class_names
    for entry, reason in (
        ('tree:0.5', "names 'tree'; the classes are road, sidewalk, "),
        ('road:half', "has 'road:half': write name:probability"),
        ('road:1.5', "has 'road:1.5'"),
        ('road', "has 'road'"),
        (':0.5', "has ':0.5'"),
        ('road:nan', "has 'road:nan'"),
    ):
        refused = answer('segmentation.class_thresholds', [f'{names[first]}:0.0', entry])
        assert not refused.successful
        assert reason in refused.reason
    assert 'give one name' in answer('teach.class', 'kerb, hedge').reason
    assert 'give one name' in answer('teach.class', ' kerb').reason
    assert "'road' twice" in answer('segmentation.class_thresholds', ['road:0', 'road:1']).reason
    assert answer('segmentation.class_thresholds', [f'{names[first]}:0.0']).successful
    bench.publish({points: lambda i: cloud(START + PERIOD + i * PERIOD)}, 1)
    bench.wait(settled(bench, 2))
    labels = structured_view(received['segmentation'][-1])

    assert set(np.unique(labels['class_id'])) == {first, 255}
    assert (labels['probability'] > 0).any()
    assert answer('segmentation.class_thresholds', ['']).successful
    bench.publish({points: lambda i: cloud(START + 2 * PERIOD + i * PERIOD)}, 1)
    bench.wait(settled(bench, 3))
    labels = structured_view(received['segmentation'][-1])
    assert (labels['class_id'] == 255).all()


def test_subscriber_is_that_of_message_filters_where_installed() -> None:
    try:
        import message_filters
    except ImportError:
        assert Subscriber is PlainSubscriber
    else:
        assert Subscriber is message_filters.Subscriber
