# SPDX-License-Identifier: Apache-2.0
"""A bag instead of a robot: replays it, once the node is active, and runs perception on it.

ros2 launch cross4d_jepa_ros replay.launch.py bag:=drive points:=/lidar rviz:=true

Ends with the recording; RViz stays until Ctrl-C. Where it cannot be played, the exit code is 1.
"""

from pathlib import Path

from launch.actions import (
    DeclareLaunchArgument,
    IncludeLaunchDescription,
    LogInfo,
    OpaqueFunction,
    Shutdown,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription

ARGUMENTS = (
    ('bag', '', 'rosbag2 folder, .mcap or .db3 (required)'),
    ('rate', '1.0', 'speed of the replay'),
    ('loop', 'false', 'true plays it again and again'),
)
SWITCH = ('true', 'false', 'True', 'False')


def _check(context) -> None:
    bag = LaunchConfiguration('bag').perform(context)
    if not bag:
        raise RuntimeError('say what to play: bag:=/path/to/recording')
    if not Path(bag).exists():
        raise RuntimeError(f'bag:={bag} is not there: give a rosbag2 folder, .mcap or .db3')


def _ended(event, context) -> list:
    if context.is_shutdown:
        return []
    if event.returncode:
        raise RuntimeError(f'replay_bag ended with exit code {event.returncode}: it says why above')
    if LaunchConfiguration('rviz').perform(context).lower() == 'true':
        return []
    return [LogInfo(msg='the recording has ended'), Shutdown()]


def _player(context) -> list[Node]:
    bag = LaunchConfiguration('bag').perform(context)
    options = ['--clock', '--rate', LaunchConfiguration('rate').perform(context)]
    if LaunchConfiguration('loop').perform(context).lower() == 'true':
        options.append('--loop')
    return [
        Node(
            package='cross4d_jepa_ros',
            executable='replay_bag',
            output='screen',
            arguments=[bag, *options, '--wait-node', '/perception_node'],
            on_exit=_ended,
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments; those of perception.launch.py are taken as well."""
    perception = PathJoinSubstitution(
        [FindPackageShare('cross4d_jepa_ros'), 'launch', 'perception.launch.py']
    )
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(
                    name,
                    default_value=default,
                    description=description,
                    choices=SWITCH if default in SWITCH else None,
                )
                for name, default, description in ARGUMENTS
            ),
            OpaqueFunction(function=_check),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(perception),
                launch_arguments={'use_sim_time': 'true'}.items(),
            ),
            OpaqueFunction(function=_player),
        ]
    )
