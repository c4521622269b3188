# SPDX-License-Identifier: Apache-2.0
"""Replays a bag over DDS into the node in another process and writes down what came back.

    python -m cross4d_jepa_ros.demo --bag drive --points /lidar --images /camera/image_raw

Three processes, as on a robot: the replay (open loop), the node, and this one, which receives the
answers. Leaves report.json, segmentation.png and embeddings.png in the output folder.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from cross4d_jepa_ros.bag_frames import truth_class_names, truth_topic
from cross4d_jepa_ros.bag_setup import (
    BagSetup,
    add_topic_arguments,
    readable,
    settle_arguments,
)
from cross4d_jepa_ros.bags import BadBag, Bag, note
from cross4d_jepa_ros.children import child_process
from cross4d_jepa_ros.files import write_atomically
from cross4d_jepa_ros.machine_load import OthersShare, own_pids
from cross4d_jepa_ros.model.checkpoint import read_contract
from cross4d_jepa_ros.pictures import PICTURES, draw_answers
from cross4d_jepa_ros.progress import Bars
from cross4d_jepa_ros.ros.transport import use_large_message_profile, use_own_domain
from cross4d_jepa_ros.segmentation_scores import SegmentationScores, ids_by_name
from cross4d_jepa_ros.sensing.point_clouds import stamp_ns, structured_view
from cross4d_jepa_ros.sensing.synchronisation import SyncConfig
from cross4d_jepa_ros.shared_files import DEMO_CHECKPOINT, shared_file

NODE = '/perception_node'
READY_TIMEOUT_S = 120.0
SETTLE_TIMEOUT_S = 30.0
# Stamps this far from the recording's clock are from another one: an age means nothing.
FOREIGN_CLOCK_NS = 60 * 10**9


class CannotRun(Exception):
    """The demo cannot run with these arguments; the sentence says what to change."""


@dataclass(frozen=True)
class Plan:
    """What is replayed into which model, how fast, and where the results go."""

    setup: BagSetup
    model: Path
    rate: float
    out: Path


def main(argv: list[str] | None = None) -> int:
    """Run the demo; returns the exit code."""
    arguments = _parser().parse_args(argv)
    use_large_message_profile()
    use_own_domain()
    console = Console()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in ('report.json', *PICTURES.values()):
        (arguments.out / name).unlink(missing_ok=True)
    try:
        with Bag(arguments.bag) as bag:
            setup = settle_arguments(bag, arguments, arguments.out)
            model = arguments.model or shared_file(DEMO_CHECKPOINT)
            plan = Plan(setup, model, arguments.rate, arguments.out)
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
    add_topic_arguments(parser, images=[])
    parser.add_argument('--model', type=Path, help='checkpoint; left out: the one of the package')
    parser.add_argument('--rate', type=float, default=0.5, help='speed of the replay; 1: real time')
    parser.add_argument('--out', type=Path, default=Path('out/demo'))
    return parser


def run(bag: Bag, plan: Plan, console: Console) -> dict[str, Any]:
    """Replay, collect, draw.

    Args:
        bag: Opened recording.
        plan: Topics and files.
        console: Where progress goes.

    Returns:
        The report (docs/own_bag.md has its keys).

    Raises:
        CannotRun: The node did not become active; the sentence carries its own reason.

    """
    import rclpy
    from rclpy.executors import SingleThreadedExecutor

    from cross4d_jepa_ros.ros.answer_client import AnswerClient, sent_sweep

    console.print(
        f'{bag.path}: {bag.topics[plan.setup.points].count} sweeps on {plan.setup.points}, '
        f'{len(plan.setup.images)} cameras, domain {os.environ["ROS_DOMAIN_ID"]}'
    )
    if plan.setup.extrinsics:
        console.print(f'the node reads static transforms from {plan.setup.extrinsics}')
    total = bag.topics[plan.setup.points].count
    with Bars(console, 'sweeps') as progress:
        clouds = progress.track(
            readable(bag, plan.setup.points), total, description='reading the sweeps'
        )
        sweeps = [sent_sweep(message) for message in clouds]
    if not sweeps:
        msg = f'{bag.path} has no readable sweep on {plan.setup.points}'
        raise CannotRun(msg)
    contract = read_contract(plan.model)
    names = ('segmentation', 'embeddings_rgb') if contract.answer_names else ('embeddings_rgb',)
    truth = truth_topic(bag)
    rclpy.init()
    client = AnswerClient(
        NODE,
        names,
        keep_near_ns=sweeps[len(sweeps) // 2].stamp_ns,
        keep_class_ids=bool(truth),
    )
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
        with (
            (plan.out / 'node.log').open('wb') as log,
            child_process(_node_command(plan), stdout=log, stderr=log) as node,
        ):
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
            with child_process(_replay_command(bag, plan)) as replay:
                others = OthersShare(own_pids(node.pid, replay.pid))
                client.collecting = True
                spin_until(lambda: replay.poll() is not None, float('inf'))
                client.collecting = False
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
    scores = truth_scores(bag, truth, client.class_ids, contract.answer_names) if truth else {}
    report = _report(bag, client, plan, others_share) | scores
    try:
        console.print('drawing')
        stamps = [sweep.stamp_ns for sweep in sweeps]
        draw_answers(plan.out, bag, plan.setup, contract, client.kept, truth, stamps)
    except Exception as error:  # the figures stand without the pictures
        report['problems'].append(f'no pictures: {error!r}')
    return report


def _node_command(plan: Plan) -> list[str]:
    setup = plan.setup
    remaps = [('~/input/points', setup.points)]
    remaps += [(f'~/input/image{i}', topic) for i, topic in enumerate(setup.images)]
    remaps += [(f'~/input/camera_info{i}', topic) for i, topic in enumerate(setup.camera_infos)]
    remaps += [('~/input/odometry', setup.odometry)] if setup.odometry else []
    # Waits run on the steady clock: a slowed replay needs longer ones for the same images.
    timeout_s = SyncConfig(offsets_s=()).timeout_s / min(plan.rate, 1.0)
    values = {
        'cameras': str(len(setup.images)),
        'model': str(plan.model),
        'sync.timeout': str(timeout_s),
        'use_sim_time': 'true',
        # Not what its user taught the node elsewhere.
        'teach.file': str(plan.out / 'taught.safetensors'),
    }
    if setup.extrinsics:
        values['extrinsics_file'] = str(setup.extrinsics)
    command = [sys.executable, '-m', 'cross4d_jepa_ros.perception_node', '--ros-args']
    for source, target in remaps:
        command += ['-r', f'{source}:={target}']
    for name, value in values.items():
        command += ['-p', f'{name}:={value}']
    return command


def _replay_command(bag: Bag, plan: Plan) -> list[str]:
    command = [sys.executable, '-m', 'cross4d_jepa_ros.replay_bag', str(bag.path)]
    command += ['--topics', *plan.setup.replayed(bag), '--rate', str(plan.rate), '--clock']
    return [*command, '--wait-node', NODE, '--report', str(plan.out / 'replay.json')]


def _report(bag: Bag, client: Any, plan: Plan, others_share: float | None) -> dict[str, Any]:
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
    ages = [age for age in ages if abs(age) < FOREIGN_CLOCK_NS]
    age_ms = np.percentile(ages, (50, 95)) / 1e6 if ages else np.array([np.nan, np.nan])
    offsets = {
        topic: {
            key: _number(client.value(f'image{camera}', f'offset_{key}_ms'))
            for key in ('median', 'min', 'max')
        }
        | {'missing': int(client.value(f'image{camera}', 'missing', '0'))}
        for camera, topic in enumerate(plan.setup.images)
    }
    return {
        'bag': str(bag.path),
        'points': plan.setup.points,
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
        'ego_motion': next((name for name, _ in client.ego_motion.most_common(1)), 'none'),
        'ego_motion_note': client.value('node', 'ego_motion_note'),
        'transport': {
            'sent': replay['sent'].get(plan.setup.points, 0),
            'received': count('received'),
        },
        'model_sha256': client.value('node', 'model_sha256'),
        'model_training': client.value('node', 'model_training'),
        'others_cpu_share': _number(others_share),
        'problems': list(dict.fromkeys([*bag.problems, *replay['problems']])),
        'diagnostics': [f'{section}: {text}' for (section, _), text in client.found.items()],
    }


def truth_scores(
    bag: Bag,
    truth: str,
    answers: Mapping[int, NDArray[np.uint8]],
    class_names: tuple[str, ...],
) -> dict[str, Any]:
    """Hold answers against the ground truth of the recording, point by point.

    Args:
        bag: The recording; `problems` says what of it cannot be scored.
        truth: Topic of the truth clouds.
        answers: (P,) class ids by the stamp of the sweep in ns.
        class_names: Of these ids.

    Returns:
        What the report says of it; empty where classes have no names.

    """
    wanted = truth_class_names(bag)
    if not (wanted and class_names):
        reason = 'its custom data has no class_names' if class_names else 'the model has no classes'
        note(bag.problems, f'the truth on {truth} is not scored: {reason}')
        return {}
    unknown = [name for name in wanted if name not in class_names]
    if len(unknown) == len(wanted):
        names = f'{", ".join(wanted)} against {", ".join(class_names)}'
        note(bag.problems, f'the truth on {truth} is not scored: no class name is shared: {names}')
        return {}
    if unknown:
        note(
            bag.problems, f'the model has no class {", ".join(unknown)}: all of it scores as wrong'
        )
    translate = ids_by_name(class_names, wanted)
    scores = SegmentationScores(wanted)
    for message in readable(bag, truth):
        answer = answers.get(stamp_ns(message))
        if answer is None:
            continue
        try:
            scores.add(structured_view(message)['class_id'].reshape(-1), translate[answer])
        except ValueError as error:
            note(bag.problems, f'{truth} at {stamp_ns(message)} ns is not scored: {error}')
    return {
        'miou': _number(scores.miou()),
        'class_iou': {name: _number(iou) for name, iou in scores.class_iou().items()},
        'classes_absent': list(scores.absent()),
        'points_scored': scores.points,
    }


def _number(value: Any) -> float | None:
    """A float that JSON can hold, rounded; None where there is no figure."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return round(number, 3) if np.isfinite(number) else None


def _print(report: dict[str, Any], plan: Plan, console: Console) -> None:
    table = Table(title='demo', show_header=False)
    dropped = ', '.join(f'{n} {cause}' for cause, n in report['dropped'].items() if n) or 'none'
    table.add_row('sweeps', f'{report["sweeps_out"]} of {report["sweeps_in"]} answered')
    table.add_row('dropped', dropped)
    table.add_row('wrong answers', str(sum(report['answers'].values())))
    latency, age = report['latency_ms'], report['age_ms']
    table.add_row('latency p50 / p95', f'{latency["p50"]} / {latency["p95"]} ms')
    table.add_row('age p50 / p95', f'{age["p50"]} / {age["p95"]} ms at rate {report["rate"]}')
    for topic, offset in report['sync_offset_ms'].items():
        name = topic.removesuffix('/compressed').removesuffix('/image_raw')
        spread = f'{offset["median"]} ms ({offset["min"]} .. {offset["max"]}) after the sweep'
        table.add_row(name, f'{spread}, {offset["missing"]} missing')
    if 'miou' in report:
        table.add_row('mIoU', f'{report["miou"]} over {report["points_scored"]} points')
        known = [f'{name} {iou}' for name, iou in report['class_iou'].items() if iou is not None]
        table.add_row('IoU', ', '.join(known) or 'none')
    table.add_row('ego-motion', report['ego_motion'])
    table.add_row('model', f'{plan.model.name} ({report["model_training"]})')
    console.print(table)
    for problem in (*report['problems'], *report['diagnostics']):
        console.print(problem, style='yellow', markup=False, highlight=False)
    console.print(f'pictures and report.json in {plan.out}')


if __name__ == '__main__':
    sys.exit(main())
