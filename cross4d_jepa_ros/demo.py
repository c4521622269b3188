# SPDX-License-Identifier: Apache-2.0
"""Replays a bag over DDS into the node in another process and writes down what came back.

    python -m cross4d_jepa_ros.demo --bag drive --points /lidar --images /camera/image_raw

Three processes, as on a robot: the replay (open loop), the node, and this one, which receives the
answers. Leaves report.json, segmentation.png and embeddings.png in the output folder.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from cross4d_jepa_ros.bags import (
    BadBag,
    Bag,
    moving_transforms,
    static_transforms,
    tf_topics,
)
from cross4d_jepa_ros.files import write_atomically
from cross4d_jepa_ros.machine_load import OthersShare, own_pids
from cross4d_jepa_ros.model.checkpoint import read_contract
from cross4d_jepa_ros.pictures import draw_sweep
from cross4d_jepa_ros.replay_bag import TF_AS_ODOMETRY, write_static_tree
from cross4d_jepa_ros.ros.transport import use_large_message_profile
from cross4d_jepa_ros.sensing.extrinsics import load_extrinsics
from cross4d_jepa_ros.sensing.frames import (
    FrameAssembler,
    FrameConfig,
    SensorFrame,
    camera_info_topic,
)
from cross4d_jepa_ros.sensing.point_clouds import stamp_ns, structured_view
from cross4d_jepa_ros.sensing.synchronisation import SyncConfig
from cross4d_jepa_ros.sensing.transforms import TransformBuffer
from cross4d_jepa_ros.shared_files import shared_file

POINTS_TYPE = 'sensor_msgs/msg/PointCloud2'
IMAGE_TYPES = ('sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage')
ODOMETRY_TYPE = 'nav_msgs/msg/Odometry'
NODE = '/perception_node'
READY_TIMEOUT_S = 120.0
SETTLE_TIMEOUT_S = 30.0
WHOLE_BAG_S = 1e6


class CannotRun(Exception):
    """The demo cannot run with these arguments; the sentence says what to change."""


@dataclass(frozen=True)
class Plan:
    """What is replayed, and how the node is told of it."""

    bag: Path
    points: str
    images: tuple[str, ...]
    camera_infos: tuple[str, ...]
    extrinsics: Path | None
    odometry: str
    model: Path
    rate: float
    topics: tuple[str, ...]
    out: Path


def main(argv: list[str] | None = None) -> int:
    """Run the demo; returns the exit code."""
    arguments = _parser().parse_args(argv)
    use_large_message_profile()
    os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    os.environ.setdefault('ROS_DOMAIN_ID', str(1 + os.getpid() % 99))
    console = Console()
    try:
        with Bag(arguments.bag) as bag:
            plan = _plan(bag, arguments)
            report = run(bag, plan, console)
    except (BadBag, CannotRun, ValueError, OSError) as error:
        console.print(f'[red]{error}')
        return 2
    write_atomically(plan.out / 'report.json', json.dumps(report, indent=2) + '\n')
    _print(report, plan, console)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split('\n', 1)[0] if __doc__ else '')
    parser.add_argument('--bag', type=Path, required=True, help='rosbag2 folder, .mcap or .db3')
    parser.add_argument('--points', default='', help='PointCloud2 topic; optional if unique')
    parser.add_argument('--images', nargs='*', default=[], help='image topics')
    parser.add_argument('--camera-infos', nargs='*', default=[], help='one each, else by rule')
    parser.add_argument('--extrinsics', type=Path, help='YAML; left out: /tf_static of the bag')
    parser.add_argument('--odometry', default='', help='nav_msgs/Odometry topic')
    parser.add_argument('--model', type=Path, help='checkpoint; left out: the one of the package')
    parser.add_argument('--rate', type=float, default=1.0, help='of the replay')
    parser.add_argument('--out', type=Path, default=Path('out/demo'))
    return parser


def _plan(bag: Bag, arguments: argparse.Namespace) -> Plan:
    """Settle every topic, or say which ones there are."""

    def of_type(*types: str) -> list[str]:
        return sorted(name for name, topic in bag.topics.items() if topic.msgtype in types)

    def known(topic: str, *types: str) -> str:
        if topic not in of_type(*types):
            found = ', '.join(of_type(*types)) or 'none'
            msg = f'{bag.path} has no {topic!r} of type {" or ".join(types)}; it has: {found}'
            raise CannotRun(msg)
        return topic

    clouds = of_type(POINTS_TYPE)
    points = arguments.points or (clouds[0] if len(clouds) == 1 else '')
    points = known(points, POINTS_TYPE)
    images = tuple(known(topic, *IMAGE_TYPES) for topic in arguments.images)
    infos = arguments.camera_infos or [camera_info_topic(topic) for topic in images]
    if len(infos) != len(images):
        msg = f'{len(infos)} camera infos for {len(images)} images: give one each, in that order'
        raise CannotRun(msg)
    arguments.out.mkdir(parents=True, exist_ok=True)
    odometry = known(arguments.odometry, ODOMETRY_TYPE) if arguments.odometry else ''
    odometry = odometry or _ego_motion_of(bag, points, of_type(ODOMETRY_TYPE))
    return Plan(
        bag=arguments.bag,
        points=points,
        images=images,
        camera_infos=tuple(infos),
        extrinsics=arguments.extrinsics or _extrinsics_of(bag, arguments.out),
        odometry=odometry,
        model=arguments.model or shared_file('config/demo.safetensors'),
        rate=arguments.rate,
        topics=tuple(
            topic
            for topic in dict.fromkeys([points, *images, *infos, odometry, *tf_topics(bag)])
            if topic in bag.topics
        ),
        out=arguments.out,
    )


def _ego_motion_of(bag: Bag, points: str, odometry_topics: list[str]) -> str:
    """Name the Odometry topic that moves the LiDAR; empty where `/tf` does, or nothing."""
    sweep = next(_readable(bag, points), None)
    if sweep is None:
        return ''
    statics = list(static_transforms(bag))

    def moves(feed: Callable[[TransformBuffer], None]) -> bool:
        transforms = TransformBuffer()
        transforms.add_tf_message(SimpleNamespace(transforms=statics), static=True)
        feed(transforms)
        sources = {
            transforms.motion_source(frame, sweep.header.frame_id) for frame in transforms.frames()
        }
        return bool(sources & {'tf', 'odometry'})

    first = list(islice(moving_transforms(bag), 500))
    if moves(lambda b: b.add_tf_message(SimpleNamespace(transforms=first), static=False)):
        return '' if _installed('tf2_msgs') else TF_AS_ODOMETRY
    for topic in odometry_topics:
        message = next(_readable(bag, topic), None)
        if message is not None and moves(partial(TransformBuffer.add_odometry, msg=message)):
            return topic
    return ''


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _extrinsics_of(bag: Bag, out: Path) -> Path | None:
    """Write the static tree of the bag where the node can read it."""
    path = out / 'extrinsics_from_bag.yaml'
    return path if write_static_tree(bag, path) else None


def run(bag: Bag, plan: Plan, console: Console) -> dict[str, Any]:
    """Replay, collect, draw.

    Args:
        bag: Opened recording.
        plan: Topics and files.
        console: Where progress goes.

    Returns:
        The report (see the package's README for its keys).

    Raises:
        CannotRun: The node did not become active; the sentence carries its own reason.

    """
    import rclpy
    from rclpy.executors import SingleThreadedExecutor

    from cross4d_jepa_ros.ros.answer_client import AnswerClient, sent_sweep

    console.print(
        f'{bag.path}: {bag.topics[plan.points].count} sweeps on {plan.points}, '
        f'{len(plan.images)} cameras, domain {os.environ["ROS_DOMAIN_ID"]}'
    )
    sweeps = [sent_sweep(message) for message in _readable(bag, plan.points)]
    if not sweeps:
        msg = f'{bag.path} has no readable sweep on {plan.points}'
        raise CannotRun(msg)
    labelled = bool(read_contract(plan.model).class_names)
    names = ('segmentation', 'embeddings_rgb') if labelled else ('embeddings_rgb',)
    rclpy.init()
    client = AnswerClient(NODE, names, keep_near_ns=sweeps[len(sweeps) // 2].stamp_ns)
    for sweep in sweeps:
        client.expect(sweep)
    client.watch(names[0])
    executor = SingleThreadedExecutor()
    executor.add_node(client)

    def spin_until(done: Callable[[], bool], timeout_s: float) -> bool:
        end = time.monotonic() + timeout_s
        while not done() and time.monotonic() < end:
            executor.spin_once(timeout_sec=0.1)
        return done()

    try:
        with _process(_node_command(plan), plan.out / 'node.log') as node:
            ready = spin_until(
                lambda: (
                    node.poll() is not None
                    or client.levels.get('node', (0, ''))[0] == 2
                    or (
                        client.value('node', 'state') == 'active'
                        and len(client.advertised()) == len(names)
                    )
                ),
                READY_TIMEOUT_S,
            )
            if not ready or client.value('node', 'state') != 'active':
                reason = client.levels.get('node', (0, 'no word from it'))[1]
                msg = f'the node did not become active: {reason} (see {plan.out / "node.log"})'
                raise CannotRun(msg)
            spin_until(lambda: False, 0.5)
            with _process(_replay_command(plan), None) as replay:
                others = OthersShare(own_pids(node.pid, replay.pid))
                spin_until(lambda: replay.poll() is not None, float('inf'))
                others_share = others.share()
            if replay.returncode:
                msg = f'the replay ended with code {replay.returncode}'
                raise CannotRun(msg)
            quiet = [time.monotonic(), -1]

            def settled() -> bool:
                if client.received != quiet[1]:
                    quiet[:] = [time.monotonic(), client.received]
                idle = client.value('points', 'in_flight', '1') == '0'
                return idle and time.monotonic() - quiet[0] > 2.5

            spin_until(settled, SETTLE_TIMEOUT_S)
    finally:
        executor.shutdown()
        client.destroy_node()
        rclpy.try_shutdown()
    report = _report(client, plan, others_share)
    _draw(bag, plan, client)
    return report


def _readable(bag: Bag, topic: str) -> Iterator[Any]:
    for message in bag.messages([topic]):
        try:
            yield bag.deserialise(message)
        except BadBag:
            continue


@contextmanager
def _process(command: list[str], log: Path | None) -> Iterator[subprocess.Popen[bytes]]:
    """Run a child; interrupt it at the end, as Ctrl-C would, and then insist."""
    stream = log.open('wb') if log else None
    child = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT if log else None)
    try:
        yield child
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGINT)
        try:
            child.wait(timeout=15)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        if stream:
            stream.close()


def _node_command(plan: Plan) -> list[str]:
    remaps = [('~/input/points', plan.points)]
    remaps += [(f'~/input/image{i}', topic) for i, topic in enumerate(plan.images)]
    remaps += [(f'~/input/camera_info{i}', topic) for i, topic in enumerate(plan.camera_infos)]
    remaps += [('~/input/odometry', plan.odometry)] if plan.odometry else []
    values = {'cameras': str(len(plan.images)), 'model': str(plan.model), 'use_sim_time': 'true'}
    # Waits run on the steady clock: a slowed replay needs longer ones for the same images.
    values['sync.timeout'] = str(SyncConfig(offsets_s=()).timeout_s / min(plan.rate, 1.0))
    if plan.extrinsics:
        values['extrinsics_file'] = str(plan.extrinsics)
    command = [sys.executable, '-m', 'cross4d_jepa_ros.perception_node', '--ros-args']
    for source, target in remaps:
        command += ['-r', f'{source}:={target}']
    for name, value in values.items():
        command += ['-p', f'{name}:={value}']
    return command


def _replay_command(plan: Plan) -> list[str]:
    command = [sys.executable, '-m', 'cross4d_jepa_ros.replay_bag', str(plan.bag)]
    command += ['--topics', *plan.topics, '--rate', str(plan.rate), '--clock']
    return [*command, '--wait-node', NODE, '--report', str(plan.out / 'replay.json')]


def _report(client: Any, plan: Plan, others_share: float | None) -> dict[str, Any]:
    replay = json.loads((plan.out / 'replay.json').read_text())

    def count(key: str) -> int:
        return int(client.value('points', key, '0'))

    dropped = {
        key.removeprefix('dropped.'): int(value)
        for key, value in client.values.get('points', {}).items()
        if key.startswith('dropped.')
    }
    # Age in wall time: how long after the instant of the stamp the answer was in hand.
    ages = [
        (received - replay['anchor_steady_ns']) - (stamp - replay['anchor_bag_ns']) / replay['rate']
        for stamp, received in client.arrivals
    ]
    age_ms = np.percentile(ages, (50, 95)) / 1e6 if ages else np.array([np.nan, np.nan])
    offsets = {
        topic: {
            key: _number(client.value(f'image{camera}', f'offset_{key}_ms'))
            for key in ('median', 'min', 'max')
        }
        | {'missing': int(client.value(f'image{camera}', 'missing', '0'))}
        for camera, topic in enumerate(plan.images)
    }
    return {
        'bag': str(plan.bag),
        'points': plan.points,
        'sweeps_in': count('received'),
        'sweeps_out': count('answered'),
        'dropped': dropped,
        'in_flight': count('in_flight'),
        'latency_ms': {
            key: _number(client.value('latency', f'latency_{key}_ms')) for key in ('p50', 'p95')
        },
        'age_ms': {'p50': _number(age_ms[0]), 'p95': _number(age_ms[1])},
        'stage_ms': {
            key.removesuffix('_ms'): _number(value)
            for key, value in client.values.get('latency', {}).items()
            if not key.startswith('latency_')
        },
        'rate': replay['rate'],
        'replay_lateness_ms': _number(replay['max_lateness_ms']),
        'sync_offset_ms': offsets,
        'answers': dict(client.wrong),
        'answers_received': client.received,
        'ego_motion': client.value('node', 'ego_motion', 'none'),
        'transport': {'sent': replay['sent'].get(plan.points, 0), 'received': count('received')},
        'model_sha256': client.value('node', 'model_sha256'),
        'model_training': client.value('node', 'model_training'),
        'others_cpu_share': _number(others_share),
        'problems': replay['problems'],
        'diagnostics': {name: text for name, (_, text) in sorted(client.levels.items())},
    }


def _number(value: Any) -> float | None:
    """A float that JSON can hold, rounded; None where there is no figure."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return round(number, 3) if np.isfinite(number) else None


def _draw(bag: Bag, plan: Plan, client: Any) -> None:
    """Draw the kept answers over the sweep and images that they belong to."""
    contract = read_contract(plan.model)
    untrained = ' (untrained weights)' if contract.training['kind'] == 'untrained' else ''
    legend = [*zip(contract.class_names, contract.palette, strict=True), ('unknown', (110,) * 3)]
    for name, picture, entries in (
        ('segmentation', 'segmentation.png', legend),
        ('embeddings_rgb', 'embeddings.png', ()),
    ):
        answer = client.kept.get(name)
        if answer is None:
            continue
        frame = _frame_of(bag, plan, stamp_ns(answer))
        columns = structured_view(answer)
        if name == 'segmentation':
            table = np.full((256, 3), 110, dtype=np.uint8)
            table[: len(contract.palette)] = contract.palette
            rgb: NDArray[np.uint8] = table[columns['class_id'].reshape(-1)]
        else:
            packed = np.ascontiguousarray(columns['rgb'].reshape(-1)).view(np.uint32)
            rgb = np.stack([packed >> 16, packed >> 8, packed], axis=1).astype(np.uint8)
        title = f'{name.removesuffix("_rgb")}{untrained}, {plan.bag.name}, stamp {stamp_ns(answer)}'
        draw_sweep(plan.out / picture, frame, rgb[frame.sweep.index], title=title, legend=entries)


def _frame_of(bag: Bag, plan: Plan, wanted_ns: int) -> SensorFrame:
    """Put the sweep of a stamp together with its nearest images, straight from the bag."""
    transforms = TransformBuffer(keep_s=WHOLE_BAG_S)
    extrinsics = load_extrinsics(plan.extrinsics) if plan.extrinsics else None
    assembler = FrameAssembler(FrameConfig(), transforms, extrinsics, plan.images)
    transforms.add_tf_message(
        SimpleNamespace(transforms=list(moving_transforms(bag))), static=False
    )
    if plan.odometry in bag.topics:
        for message in _readable(bag, plan.odometry):
            transforms.add_odometry(message)
    for camera, topic in enumerate(plan.camera_infos):
        if topic in bag.topics:
            assembler.set_camera_info(next(iter(_readable(bag, topic))), camera)
    points = next(m for m in _readable(bag, plan.points) if stamp_ns(m) == wanted_ns)
    tolerance_ns = SyncConfig(offsets_s=()).tolerance_s * 1e9
    images = []
    for topic in plan.images:
        nearest = min(
            _readable(bag, topic), key=lambda m: abs(stamp_ns(m) - wanted_ns), default=None
        )
        near = nearest is not None and abs(stamp_ns(nearest) - wanted_ns) <= tolerance_ns
        images.append(nearest if near else None)
    return assembler.assemble(points, images, views=True)


def _print(report: dict[str, Any], plan: Plan, console: Console) -> None:
    table = Table(title='demo', show_header=False)
    dropped = {cause: n for cause, n in report['dropped'].items() if n} or 'none'
    table.add_row('sweeps', f'{report["sweeps_out"]} of {report["sweeps_in"]} answered')
    table.add_row('dropped', str(dropped))
    table.add_row('wrong answers', str(sum(report['answers'].values())))
    latency, age = report['latency_ms'], report['age_ms']
    table.add_row('latency p50 / p95', f'{latency["p50"]} / {latency["p95"]} ms')
    table.add_row('age p50 / p95', f'{age["p50"]} / {age["p95"]} ms at rate {report["rate"]}')
    for topic, offset in report['sync_offset_ms'].items():
        spread = f'{offset["median"]} ms ({offset["min"]} .. {offset["max"]})'
        table.add_row(f'{topic} after sweep', f'{spread}, missing {offset["missing"]}')
    table.add_row('ego-motion', report['ego_motion'])
    table.add_row('model', f'{plan.model.name} ({report["model_training"]})')
    console.print(table)
    for problem in report['problems']:
        console.print(f'[yellow]{problem}')
    console.print(f'pictures and report.json in {plan.out}')


if __name__ == '__main__':
    sys.exit(main())
