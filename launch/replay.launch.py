# SPDX-License-Identifier: Apache-2.0
"""A bag instead of a robot: replays it, once the node is active, and runs perception on it.

ros2 launch cross4d_jepa_ros replay.launch.py bag:=drive points:=/lidar rviz:=true
"""

from pathlib import Path

from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription

ARGUMENTS = (
    ('bag', '', 'rosbag2 folder, .mcap or .db3 (required)'),
    ('rate', '1.0', 'speed of the replay'),
    ('loop', 'false', 'true plays it again and again'),
)


def _replay(context) -> list:
    bag = LaunchConfiguration('bag').perform(context)
    if not bag:
        raise RuntimeError('say what to play: bag:=/path/to/recording')
    share = Path(FindPackageShare('cross4d_jepa_ros').perform(context))
    options = ['--clock', '--rate', LaunchConfiguration('rate').perform(context)]
    if LaunchConfiguration('loop').perform(context).lower() == 'true':
        options.append('--loop')
    return [
        IncludeLaunchDescription(
            PythonLaunchDescriptionSource(str(share / 'launch' / 'perception.launch.py')),
            launch_arguments={'use_sim_time': 'true'}.items(),
        ),
        Node(
            package='cross4d_jepa_ros',
            executable='replay_bag',
            output='screen',
            arguments=[bag, *options, '--wait-node', '/perception_node'],
        ),
    ]


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments; those of perception.launch.py are taken as well."""
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=default, description=description)
                for name, default, description in ARGUMENTS
            ),
            OpaqueFunction(function=_replay),
        ]
    )
