# SPDX-License-Identifier: Apache-2.0
"""The launch files under the real launch and launch_ros: what flows, what is refused, the end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rclpy.serialization import serialize_message
from sensor_msgs.msg import PointCloud2

from cross4d_jepa_ros.bags import BagWriter
from cross4d_jepa_ros.children import child_process
from tests.bench import Bench, cloud
from tests.test_processes import environment

pytest.importorskip('launch_ros', reason='no launch and launch_ros here')

ROOT = Path(__file__).resolve().parents[2]
NAME = 'cross4d_jepa_ros'
# What `ros2 launch` does with a file and its arguments.
LAUNCH = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import AnyLaunchDescriptionSource

file, *given = sys.argv[1:]
pairs = [word.split(':=', 1) for word in given]
source = AnyLaunchDescriptionSource(file)
service = LaunchService(argv=given)
service.include_launch_description(
    LaunchDescription([IncludeLaunchDescription(source, launch_arguments=pairs)])
)
sys.exit(service.run())
"""
END_S = 10.0
RUN_S = 60.0


@pytest.fixture(autouse=True)
def prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Lay this checkout out as colcon installs it, before anything else that is installed."""
    prefix = tmp_path / 'prefix'
    share, scripts = prefix / 'share' / NAME, prefix / 'lib' / NAME
    marker = prefix / 'share/ament_index/resource_index/packages' / NAME
    for folder in (share, scripts, marker.parent):
        folder.mkdir(parents=True)
    marker.touch()
    for name in ('launch', 'config', 'package.xml'):
        (share / name).symlink_to(ROOT / name)
    entries = re.findall(r"f'(\w+) = \{NAME\}\.([\w.]+):main'", (ROOT / 'setup.py').read_text())
    for name, module in entries:
        script = scripts / name
        script.write_text(
            f'#!{sys.executable}\nimport sys\n'
            f'from {NAME}.{module} import main\n\nsys.exit(main())\n'
        )
        script.chmod(0o755)
    others = os.environ.get('AMENT_PREFIX_PATH')
    path = os.pathsep.join((str(prefix), others) if others else (str(prefix),))
    monkeypatch.setenv('AMENT_PREFIX_PATH', path)
    yield prefix


def launched(domain: int, file: str, *arguments: str) -> Any:
    command = [sys.executable, '-c', LAUNCH, str(ROOT / 'launch' / file), *arguments]
    return child_process(
        command,
        env=environment(domain),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def answers(bench: Bench) -> list[PointCloud2]:
    received: list[PointCloud2] = []
    bench.probe.create_subscription(
        PointCloud2, '/perception_node/output/segmentation', received.append, 10
    )
    return received


def test_perception_answers_and_ctrl_c_ends_it(bench: Bench) -> None:
    received = answers(bench)
    points = bench.probe.create_publisher(PointCloud2, '/lidar/points', 5)
    with launched(bench.domain, 'perception.launch.py', 'points:=/lidar/points') as launch:
        bench.wait(lambda: bench.state() == 'active', RUN_S)
        bench.wait(points.get_subscription_count)
        bench.publishing({points: lambda i: cloud(10**12 + i * 10**8)})
        bench.wait(lambda: len(received) >= 3)
        # As a terminal does it: to launch and to the node at once.
        os.killpg(launch.pid, signal.SIGINT)
        output, _ = launch.communicate(timeout=END_S)

    assert launch.returncode == 0, output
    assert 'Traceback' not in output
    assert 'finished cleanly' in output
    assert {answer.width for answer in received} == {600}


def test_replay_answers_and_ends_with_the_recording(bench: Bench, tmp_path: Path) -> None:
    with BagWriter(tmp_path / 'drive') as writer:
        for stamp_ns in range(10**12, 10**12 + 2 * 10**9, 10**8):
            raw = serialize_message(cloud(stamp_ns))
            writer.write('/lidar/points', 'sensor_msgs/msg/PointCloud2', stamp_ns, raw)
    received = answers(bench)
    given = (f'bag:={tmp_path / "drive"}', 'points:=/lidar/points', 'rate:=0.5')
    with launched(bench.domain, 'replay.launch.py', *given) as launch:
        output, _ = launch.communicate(timeout=RUN_S)

    assert launch.returncode == 0, output
    assert 'Traceback' not in output
    assert 'the recording has ended' in output
    assert 15 < len(received) <= 20


def test_a_recording_that_cannot_be_played_ends_all(ros_domain: int, tmp_path: Path) -> None:
    (tmp_path / 'empty').mkdir()
    given = (f'bag:={tmp_path / "empty"}', 'points:=/lidar/points')
    with launched(ros_domain, 'replay.launch.py', *given) as launch:
        output, _ = launch.communicate(timeout=RUN_S)

    assert launch.returncode == 1, output
    assert 'replay_bag ended with exit code 2' in output


@pytest.mark.parametrize(
    ('file', 'given', 'sentence'),
    [
        ('perception', '', 'say which cloud to take: points:=/your/pointcloud2/topic'),
        ('perception', 'points:=/lidar/', 'points:=/lidar/ is no topic'),
        ('perception', 'points:=/p images:=[/a/b', 'images:=[/a/b is no list of topics'),
        ('perception', 'points:=/p images:={a:b}', 'is no list of topics: write images:=[/one/'),
        ('perception', 'points:=/p images:=[/1]', 'images:=[/1] is no list of topics'),
        ('perception', 'points:=/p images:=[/a] camera_infos:=[/b,/c]', '2 camera_infos for 1 im'),
        ('perception', 'points:=/p params_file:=none.yaml', 'params_file:=none.yaml is no file'),
        ('perception', 'points:=/p use_sim_time:=yes', 'Argument "use_sim_time" provided value "y'),
        ('perception', 'image:=[/a]', 'there is no argument image'),
        ('replay', 'points:=/p', 'say what to play: bag:=/path/to/recording'),
        ('replay', 'points:=/p bag:=none', 'bag:=none is not there'),
        ('replay', 'bag:=.', 'say which cloud to take'),
    ],
)
def test_what_is_wrong_is_refused_before_anything_starts(
    ros_domain: int, file: str, given: str, sentence: str
) -> None:
    with launched(ros_domain, f'{file}.launch.py', *given.split()) as launch:
        output, _ = launch.communicate(timeout=RUN_S)

    assert launch.returncode == 1
    assert sentence in output
    assert 'process started' not in output


def test_arguments_of_both_files_are_shown_and_described() -> None:
    from launch.launch_description_sources import get_launch_description_from_any_launch_file

    found = {}
    for file in ('perception', 'replay'):
        path = str(ROOT / 'launch' / f'{file}.launch.py')
        shown = get_launch_description_from_any_launch_file(path).get_launch_arguments()
        assert all(argument.description for argument in shown)
        found[file] = {argument.name for argument in shown}

    assert found['replay'] - found['perception'] == {'bag', 'rate', 'loop'}
