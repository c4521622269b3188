# SPDX-License-Identifier: Apache-2.0
"""Play a recording onto topics, paced by its own time and never waiting for an answer.

Example: `python -m cross4d_jepa_ros.replay_bag recording --clock --wait-node /perception_node`

Exit codes: 0 played, 2 nothing to play or a bad argument, 3 nobody listened in time, 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import math
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from cross4d_jepa_ros.bag_transforms import static_tree
from cross4d_jepa_ros.bags import BadBag, Bag
from cross4d_jepa_ros.replay_bag.playing import Replay
from cross4d_jepa_ros.replay_bag.publishers import CLOCK_TYPE, QUEUE_DEPTH, BagPublishers
from cross4d_jepa_ros.replay_bag.report import ReplayReport
from cross4d_jepa_ros.replay_bag.waiting import NobodyListens, wait_for_listeners
from cross4d_jepa_ros.ros.message_types import message_type
from cross4d_jepa_ros.ros.transport import use_large_message_profile
from cross4d_jepa_ros.sensing.extrinsics import Extrinsics, save_extrinsics


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='replay_bag', description=(__doc__ or '').split('\n')[0])
    parser.add_argument('bag', type=Path, help='rosbag2 folder, .mcap or .db3 file')
    parser.add_argument('--topics', nargs='+', metavar='TOPIC', help='play only these')
    parser.add_argument('--rate', type=float, default=1.0, help='bag seconds per second')
    parser.add_argument('--loop', action='store_true', help='start over at the end, until Ctrl-C')
    parser.add_argument('--start', type=float, default=0.0, help='seconds to leave out first')
    parser.add_argument('--clock', action='store_true', help='publish /clock at 100 Hz')
    parser.add_argument('--wait-node', metavar='NODE', help='lifecycle node that must be active')
    parser.add_argument('--wait-timeout', type=float, default=60.0, help='seconds')
    parser.add_argument('--no-wait', action='store_true', help='do not wait for subscribers')
    parser.add_argument(
        '--reliability', choices=('recorded', 'reliable', 'best_effort'), default='recorded'
    )
    parser.add_argument('--fixed-frame', default='odom', help='root of the ego-motion')
    parser.add_argument('--write-extrinsics', type=Path, metavar='FILE', help='from /tf_static')
    parser.add_argument('--report', type=Path, metavar='FILE', help='JSON: what was sent')
    arguments = parser.parse_args(argv)
    if not (math.isfinite(arguments.rate) and arguments.rate > 0):
        parser.error(f'--rate must be above 0, not {arguments.rate:g}')
    if not (math.isfinite(arguments.start) and arguments.start >= 0):
        parser.error(f'--start must be 0 or more seconds, not {arguments.start:g}')
    if arguments.no_wait and arguments.wait_node:
        parser.error('--wait-node and --no-wait exclude each other')
    return arguments


def _check_topics(bag: Bag, topics: list[str] | None) -> None:
    for name in topics or []:
        if name not in bag.topics:
            near = difflib.get_close_matches(name, bag.topics, 3, 0.3) or sorted(bag.topics)
            msg = f'{bag.path} has no topic {name}; did you mean {", ".join(near)}?'
            raise BadBag(msg)


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    ros_at = argv.index('--ros-args') if '--ros-args' in argv else len(argv)
    arguments = _arguments(argv[:ros_at])
    use_large_message_profile()
    import rclpy
    from rclpy.signals import SignalHandlerOptions

    context = rclpy.Context()
    rclpy.init(args=argv[ros_at:], context=context, signal_handler_options=SignalHandlerOptions.NO)
    # SIGINT as well: a shell that starts a process in the background has it ignored.
    before = {
        number: signal.signal(number, _interrupt) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        return _run(arguments, context)
    except KeyboardInterrupt:
        return 130
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        rclpy.try_shutdown(context=context)


def _run(arguments: argparse.Namespace, context: Any) -> int:
    import rclpy
    from rclpy.executors import SingleThreadedExecutor

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    stopped = threading.Event()
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(stopped.set)
        try:
            bag = cleanup.enter_context(Bag(arguments.bag))
            for problem in bag.problems:
                say(problem)
            _check_topics(bag, arguments.topics)
            if arguments.write_extrinsics:
                tree = Extrinsics(cameras=(), transforms=static_tree(bag))
                save_extrinsics(arguments.write_extrinsics, tree)
            node = rclpy.create_node('replay_bag', context=context)
            cleanup.callback(node.destroy_node)
            # `problems` is the bag's own list: damage found while playing lands in both.
            report = ReplayReport(rate=arguments.rate, problems=bag.problems)
            publishers = BagPublishers(
                bag,
                node,
                report,
                topics=arguments.topics or list(bag.topics),
                reliability=arguments.reliability,
                fixed_frame=arguments.fixed_frame,
                own_clock=arguments.clock,
                say=say,
            )
            clock = None
            if arguments.clock:
                clock = node.create_publisher(message_type(CLOCK_TYPE), '/clock', QUEUE_DEPTH)
            replay = Replay(bag, publishers, report, skipped_s=arguments.start, clock=clock)
        except BadBag as error:
            say(str(error))
            return 2
        if arguments.report:
            cleanup.callback(lambda: report.write(arguments.report))
        if not arguments.no_wait:
            executor = SingleThreadedExecutor(context=context)
            executor.add_node(node)
            cleanup.callback(executor.shutdown)
            try:
                wait_for_listeners(
                    node,
                    executor,
                    publishers.of_sensors(),
                    lifecycle_node=arguments.wait_node,
                    timeout_s=arguments.wait_timeout,
                    tick=replay.tick,
                    say=say,
                )
            except NobodyListens as error:
                say(str(error))
                report.problems.append(str(error))
                return 3
        replay.play(stopped, loop=arguments.loop)
        publishers.drain()
    return 0


if __name__ == '__main__':
    sys.exit(main())
