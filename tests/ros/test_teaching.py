# SPDX-License-Identifier: Apache-2.0
"""Clicks become examples, are kept, and come back; whatever cannot be used is refused by name."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from geometry_msgs.msg import PointStamped
from nav_msgs.msg import Odometry
from rclpy.parameter import Parameter
from sensor_msgs.msg import PointCloud2
from std_srvs.srv import Trigger

from cross4d_jepa_ros import pipeline as pipelines
from cross4d_jepa_ros.model.checkpoint import load_checkpoint, save_checkpoint
from cross4d_jepa_ros.model.network import Network
from cross4d_jepa_ros.pipeline import Output, Pipeline
from cross4d_jepa_ros.ros.teaching import NOT_NORMALISED, Teaching, TeachingSetup, default_file
from cross4d_jepa_ros.sensing.frames import SensorFrame
from cross4d_jepa_ros.sensing.point_clouds import Sweep, structured_view
from cross4d_jepa_ros.sensing.transforms import TransformBuffer
from tests.bench import Bench, cloud, stamped
from tests.checkpoints import SHIPPED, fresh_checkpoint

SECOND = 10**9
START = 1_000 * SECOND
STAMP = 123 * SECOND


class FakeNode:
    """Keeps what is logged and which services there are."""

    def __init__(self) -> None:
        self.logged: list[str] = []
        self.services: dict[str, Callable[[Any, Any], Any]] = {}

    def get_logger(self) -> Any:
        return SimpleNamespace(warning=self.logged.append, info=self.logged.append)

    def create_service(self, _: type, name: str, callback: Callable[[Any, Any], Any]) -> None:
        self.services[name] = callback

    def call(self, name: str) -> Trigger.Response:
        return self.services[f'~/teach/{name}'](Trigger.Request(), Trigger.Response())


def clicked(*xyz: float, frame: str = 'lidar') -> PointStamped:
    message = stamped(PointStamped(), STAMP, frame)
    message.point.x, message.point.y, message.point.z = map(float, xyz)
    return message


def frame_of(xyz: np.ndarray) -> SensorFrame:
    sweep = Sweep(STAMP, 'lidar', 1, len(xyz), xyz, None, None, None, np.arange(len(xyz)))
    return SensorFrame(STAMP, sweep, xyz, np.eye(4), None, ())


XYZ = np.random.default_rng(0).uniform((-20, -20, 0), (20, 20, 3), (500, 3)).astype(np.float32)


class Desk:
    """Teaching around a pipeline, without a node."""

    def __init__(self, model: Path, file: Path) -> None:
        self.node = FakeNode()
        self.teaching = Teaching(self.node)  # type: ignore[arg-type]
        self.pipeline = Pipeline(model, device='cpu', precision='fp32')
        self.pipeline.teaching = True
        self.transforms = TransformBuffer()
        self.teaching.begin(TeachingSetup(self.pipeline, self.transforms, model, file, 0))

    def sweep(self) -> None:
        self.teaching.apply()
        self.pipeline.step(frame_of(XYZ), Output(0))

    @property
    def taught(self) -> dict[str, int]:
        taught = self.pipeline.prototypes
        return dict(zip(taught.names, taught.counts, strict=True))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / 'model.safetensors'
    fresh_checkpoint(path)
    fresh = load_checkpoint(path)
    fresh.network.normalisation.fit(torch.eye(fresh.contract.model.point_width))
    save_checkpoint(path, fresh.contract, fresh.network)
    return path


@pytest.fixture
def desk(model: Path, tmp_path: Path) -> Desk:
    return Desk(model, tmp_path / 'home' / 'taught.safetensors')


def test_clicks_wait_for_a_sweep_and_teach_before_the_next(desk: Desk) -> None:
    desk.teaching.click('kerb', clicked(*XYZ[3]))
    desk.sweep()
    assert desk.taught == {}
    desk.teaching.click('b', clicked(*XYZ[9]))
    desk.teaching.click('kerb', clicked(*XYZ[8]))
    desk.sweep()
    assert desk.taught == {'kerb': 2, 'b': 1}
    assert 'now kerb 2, b 1' in desk.node.logged[-1]


def test_clicks_on_embeddings_that_were_never_normalised_are_warned_of_once(tmp_path: Path) -> None:
    model = tmp_path / 'model.safetensors'
    fresh_checkpoint(model)
    desk = Desk(model, tmp_path / 'taught.safetensors')
    assert desk.node.logged == []
    for point in XYZ[:2]:
        desk.teaching.click('kerb', clicked(*point))
    assert desk.node.logged == [NOT_NORMALISED]


def test_clicks_are_found_in_the_frame_that_they_name(desk: Desk) -> None:
    desk.sweep()
    odometry = stamped(Odometry(child_frame_id='lidar'), STAMP, 'odom')
    odometry.pose.pose.position.x = 100.0
    odometry.pose.pose.orientation.w = 1.0
    desk.transforms.add_odometry(odometry)
    desk.teaching.click('kerb', clicked(*(XYZ[3] + [100, 0, 0]), frame='odom'))
    desk.teaching.apply()
    expected = desk.pipeline.embedding_at(XYZ[3].astype(float))
    assert desk.pipeline.prototypes.vectors[0].numpy() == pytest.approx(expected.numpy(), abs=1e-6)


@pytest.mark.parametrize(
    ('name', 'click', 'reason'),
    [
        ('', clicked(*XYZ[3]), 'teach.class is empty'),
        ('kerb', clicked(300, 0, 0), 'm away, the most is 0.5 m'),
        ('kerb', clicked(*XYZ[3], frame='map'), "nothing says where 'map' is in 'lidar'"),
        ('kerb', clicked(*XYZ[3], frame=''), "nothing says where '' is in 'lidar'"),
        ('kerb', clicked(np.nan, 0, 0), 'It is at [nan'),
    ],
)
def test_a_click_that_says_nothing_is_refused(
    desk: Desk, name: str, click: PointStamped, reason: str
) -> None:
    desk.sweep()
    desk.teaching.click(name, click)
    desk.sweep()
    assert desk.taught == {}
    assert [reason in line and 'refused' in line for line in desk.node.logged] == [True]


def test_clicks_after_teaching_was_ended_are_refused(desk: Desk) -> None:
    desk.teaching.click('kerb', clicked(*XYZ[3]))
    desk.pipeline.teaching = False
    desk.sweep()
    desk.sweep()
    assert 'no sweep was answered since teaching began' in desk.node.logged[-1]


def test_what_was_saved_is_taken_up_by_the_next_life(
    desk: Desk, model: Path, tmp_path: Path
) -> None:
    file = tmp_path / 'home' / 'taught.safetensors'
    desk.sweep()
    desk.teaching.click('kerb', clicked(*XYZ[3]))
    desk.sweep()
    desk.teaching.click('kerb', clicked(*XYZ[5]))
    answer = desk.node.call('save')
    assert answer.success
    assert answer.message.startswith(f'{file}: saved kerb 1; not in it: 1 clicks')
    again = Desk(model, file)
    assert again.node.logged == [f'taken up from {file}: kerb 1']
    assert again.pipeline.contract.answer_names == ('a', 'b', 'kerb')
    # The file is a checkpoint of its own, and goes on being taught.
    alone = Desk(file, file)
    assert alone.taught == {'kerb': 1}
    alone.sweep()
    alone.teaching.click('b', clicked(*XYZ[5]))
    alone.sweep()
    assert alone.node.call('save').success
    assert Desk(model, file).taught == {'kerb': 1, 'b': 1}


def test_what_a_model_was_taught_is_replaced_by_the_file_that_is_named_only(
    desk: Desk, tmp_path: Path
) -> None:
    desk.sweep()
    for name in ('kerb', 'b'):
        desk.teaching.click(name, clicked(*XYZ[3]))
        desk.sweep()
        desk.node.call('save')
        shutil.copy(tmp_path / 'home' / 'taught.safetensors', tmp_path / f'{name}.safetensors')
    first, second = tmp_path / 'kerb.safetensors', tmp_path / 'b.safetensors'
    # One network, but no common file by default.
    shas = [Pipeline(path, device='cpu').model_sha256 for path in (first, second)]
    assert default_file(shas[0]) != default_file(shas[1])
    named = Desk(first, second)
    assert named.taught == {'kerb': 1, 'b': 1}
    assert f'in place of what {first} was taught: kerb 1' in named.node.logged[0]


def test_what_was_not_saved_is_named_at_the_end(desk: Desk, model: Path, tmp_path: Path) -> None:
    desk.sweep()
    desk.teaching.click('kerb', clicked(*XYZ[3]))
    desk.sweep()
    desk.node.call('save')
    again = Desk(model, tmp_path / 'home' / 'taught.safetensors')
    for each in (desk, again):
        before = len(each.node.logged)
        each.teaching.end()
        assert len(each.node.logged) == before
    lost = Desk(model, tmp_path / 'home' / 'taught.safetensors')
    lost.sweep()
    lost.teaching.click('b', clicked(*XYZ[3]))
    lost.sweep()
    lost.teaching.end()
    lost.teaching.end()
    assert lost.node.logged[-1] == 'forgotten, ~/teach/save was not called: kerb 1, b 1'
    assert len(lost.node.logged) == 3


def test_what_is_cleared_leaves_the_file_when_that_is_saved(desk: Desk, tmp_path: Path) -> None:
    file = tmp_path / 'home' / 'taught.safetensors'
    assert desk.node.call('clear').message == 'removed nothing'
    desk.sweep()
    desk.teaching.click('kerb', clicked(*XYZ[3]))
    desk.sweep()
    desk.node.call('save')
    desk.teaching.click('kerb', clicked(*XYZ[3]))
    answer = desk.node.call('clear')
    assert answer.success
    assert answer.message.startswith(f'removed kerb 1; {file} still has what was saved')
    desk.sweep()
    assert desk.taught == {}
    assert load_checkpoint(file).prototypes.names == ('kerb',)
    assert desk.node.call('save').message == f'{file}: saved nothing'
    assert load_checkpoint(file).contract.prototypes is None


def test_a_file_of_another_network_is_left_alone(model: Path, tmp_path: Path) -> None:
    other = tmp_path / 'other.safetensors'
    shutil.copy(SHIPPED, other)
    desk = Desk(model, other)
    assert f'{other} belongs to another network than {model}: give another' in desk.node.logged[0]
    answer = desk.node.call('save')
    assert not answer.success
    assert 'belongs to another network' in answer.message
    assert other.read_bytes() == SHIPPED.read_bytes()


def test_a_damaged_file_is_left_alone(model: Path, tmp_path: Path) -> None:
    damaged = tmp_path / 'damaged.safetensors'
    damaged.write_bytes(SHIPPED.read_bytes()[:-1])
    desk = Desk(model, damaged)
    assert 'nothing taught is taken up' in desk.node.logged[0]
    assert str(damaged) in desk.node.logged[0]
    assert not desk.node.call('save').success
    assert damaged.read_bytes() == SHIPPED.read_bytes()[:-1]


def test_a_file_that_cannot_even_be_looked_for_stops_nothing_but_saving(
    model: Path, tmp_path: Path
) -> None:
    desk = Desk(model, tmp_path / ('x' * 300))
    assert 'nothing taught is taken up' in desk.node.logged[0]
    answer = desk.node.call('save')
    assert not answer.success
    assert answer.message.startswith('not saved: ') and 'x' * 300 in answer.message
    assert desk.node.call('clear').message == 'removed nothing'


def test_a_model_that_was_replaced_on_disk_is_not_saved_as_what_runs(
    desk: Desk, model: Path, tmp_path: Path
) -> None:
    shutil.copy(SHIPPED, model)
    answer = desk.node.call('save')
    assert not answer.success
    assert f'{model} was changed since' in answer.message
    assert not (tmp_path / 'home').exists()


@pytest.mark.parametrize('service', ['save', 'clear'])
def test_an_unconfigured_node_teaches_nothing(service: str) -> None:
    node = FakeNode()
    Teaching(node)  # type: ignore[arg-type]
    answer = node.call(service)
    assert not answer.success
    assert answer.message == 'configure the node first'


def test_the_file_lies_in_the_folder_of_ros(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('ROS_HOME', '/somewhere')
    assert default_file('ab' * 32) == Path(
        '/somewhere/cross4d_jepa_ros/taught_abababababab.safetensors'
    )
    monkeypatch.delenv('ROS_HOME')
    assert default_file('ab' * 32).parent == Path.home() / '.ros' / 'cross4d_jepa_ros'


@pytest.mark.parametrize('head', [True, False])
def test_a_click_changes_the_very_next_sweep_of_a_node_and_outlives_it(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: bool
) -> None:
    monkeypatch.setattr(pipelines, 'WARM_UP_POINTS', 2000)
    model = tmp_path / 'model.safetensors'
    shipped = load_checkpoint(SHIPPED)
    contract, network = shipped.contract, shipped.network
    if not head:
        contract = replace(contract, class_names=(), palette=())
        network = Network(contract.model, 0)
        network.load_state_dict(shipped.network.state_dict(), strict=False)
    save_checkpoint(model, contract, network)
    settings = {'cameras': 0, 'model': str(model), 'teach__file': str(tmp_path / 'taught')}
    remap = '~/input/clicked_point:=/clicked_point'
    received: list[PointCloud2] = []
    bench.probe.create_subscription(
        PointCloud2, '/perception_node/output/segmentation', received.append, 10
    )
    points = bench.probe.create_publisher(PointCloud2, '/points', 5)
    clicks = bench.probe.create_publisher(PointStamped, '/clicked_point', 5)
    kerb = len(contract.class_names)
    xyz = structured_view(cloud(START))[0, 42]

    def ready() -> None:
        bench.sections.clear()
        bench.wait_active()
        bench.wait(lambda: points.get_subscription_count() and clicks.get_subscription_count())
        bench.wait(lambda: bench.probe.count_publishers('/perception_node/output/segmentation'))
        bench.wait(lambda: node._life.outputs.subscribed())

    def ids(stamp_ns: int) -> np.ndarray:
        answers = len(received)
        points.publish(cloud(stamp_ns))
        bench.wait(lambda: len(received) > answers)
        return structured_view(received[-1])['class_id'][0]

    def call(service: str) -> str:
        client = bench.probe.create_client(Trigger, f'/perception_node/teach/{service}')
        assert client.wait_for_service(5)
        future = client.call_async(Trigger.Request())
        bench.wait(future.done, 10)
        bench.probe.destroy_client(client)
        assert future.result().success
        return str(future.result().message)

    node = bench.perception(remap, **settings, teach__class='kerb')
    ready()
    before = ids(START)
    assert kerb not in before
    assert head or set(before) == {255}
    clicks.publish(clicked(xyz['x'], xyz['y'], xyz['z'], frame='lidar'))
    bench.wait(lambda: node._teaching._clicks)
    after = ids(START + SECOND // 10)
    assert after[42] == kerb
    assert 0 < (after == kerb).sum() < len(after)
    bench.wait(lambda: bench.sections['node'][2]['taught'] == 'kerb 1')
    assert bench.sections['node'][2]['classes'].split(', ')[-1] == 'kerb'
    colours = bench.sections['node'][2]['class_colours'].split(', ')
    assert len(colours) == kerb + 1
    accepted = node.set_parameters([Parameter('segmentation.class_thresholds', value=['kerb:1.0'])])
    assert accepted[0].successful
    assert kerb not in ids(START + 2 * SECOND // 10)
    assert 'saved kerb 1' in call('save')

    bench.stop(node)
    node = bench.perception(remap, **settings)
    ready()
    assert ids(START + 3 * SECOND // 10)[42] == kerb
    assert 'removed kerb 1' in call('clear')
    assert np.array_equal(ids(START + 4 * SECOND // 10) == 255, before == 255)
