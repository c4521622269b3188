# SPDX-License-Identifier: Apache-2.0
"""Live perception.

ros2 launch cross4d_jepa_ros perception.launch.py points:=/lidar images:=[/camera/image_raw]
"""

from pathlib import Path

import yaml
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from cross4d_jepa_ros.ros.transport import profile_variable
from launch import LaunchDescription

ARGUMENTS = (
    ('points', '', 'PointCloud2 topic (required)'),
    ('images', '[]', 'image topics, raw or compressed: [/a/image_raw, /b/image_raw/compressed]'),
    (
        'camera_infos',
        '[]',
        'CameraInfo topics, one per image; left out: sibling camera_info',
    ),
    ('odometry', '', 'nav_msgs/Odometry topic, where /tf has no ego-motion'),
    (
        'clicked_point',
        '/clicked_point',
        'PointStamped topic of clicks that teach, such as those of RViz',
    ),
    ('model', '', 'checkpoint (.safetensors); left out: the demo checkpoint'),
    ('extrinsics', '', 'YAML with calibrations, where TF and CameraInfo have none'),
    ('params_file', '', 'parameter file; left out: config/perception.param.yaml of the package'),
    ('use_sim_time', 'false', 'true while a bag plays with --clock'),
    ('rviz', 'false', 'true starts RViz with the layout of the package'),
    ('rviz_frame', 'base_link', "RViz's fixed frame; without any TF: the frame of the sweeps"),
    (
        'fastdds_profile',
        '',
        "Fast DDS profile; left out: the environment's, else the large-message one of the package",
    ),
)


def _topics(text: str) -> list[str]:
    value = yaml.safe_load(text) or []
    return [str(topic) for topic in ([value] if isinstance(value, str) else value)]


def _nodes(context) -> list[Node]:
    def argument(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    if not argument('points'):
        raise RuntimeError('say which cloud to take: points:=/your/pointcloud2/topic')
    share = Path(FindPackageShare('cross4d_jepa_ros').perform(context))
    images, infos = _topics(argument('images')), _topics(argument('camera_infos'))
    remappings = [(f'~/input/{name}', argument(name)) for name in ('points', 'clicked_point')]
    remappings += [(f'~/input/image{i}', topic) for i, topic in enumerate(images)]
    remappings += [(f'~/input/camera_info{i}', topic) for i, topic in enumerate(infos)]
    if argument('odometry'):
        remappings.append(('~/input/odometry', argument('odometry')))
    overrides = {
        'cameras': len(images),
        'use_sim_time': argument('use_sim_time').lower() == 'true',
    }
    for name, parameter in (('model', 'model'), ('extrinsics', 'extrinsics_file')):
        if argument(name):
            overrides[parameter] = argument(name)
    # Other names than ~/input, which in RViz would be its own; a compressed image shows as such.
    shown = [('/perception_node/input/points', argument('points'))]
    shown += [
        (f'/perception_node/input/image{i}{"/compressed" * topic.endswith("/compressed")}', topic)
        for i, topic in enumerate(images)
    ]
    shown.append(('/clicked_point', argument('clicked_point')))
    return [
        # First: where it is not installed, launch gives up and leaves running what it has started.
        Node(
            package='rviz2',
            executable='rviz2',
            arguments=[
                *('-d', str(share / 'config' / 'perception.rviz')),
                *('-f', argument('rviz_frame')),
            ],
            remappings=shown,
            condition=IfCondition(LaunchConfiguration('rviz')),
        ),
        Node(
            package='cross4d_jepa_ros',
            executable='perception_node',
            name='perception_node',
            output='screen',
            parameters=[
                argument('params_file') or str(share / 'config' / 'perception.param.yaml'),
                overrides,
            ],
            remappings=remappings,
        ),
    ]


def _profile(context) -> list[SetEnvironmentVariable]:
    share = Path(FindPackageShare('cross4d_jepa_ros').perform(context))
    variable = profile_variable()
    chosen = LaunchConfiguration('fastdds_profile').perform(context)
    profile = chosen or context.environment.get(variable)
    profile = profile or str(share / 'config' / 'fastdds_large_data.xml')
    return [SetEnvironmentVariable(variable, profile)]


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments; start the node and, if asked, RViz."""
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=default, description=description)
                for name, default, description in ARGUMENTS
            ),
            OpaqueFunction(function=_profile),
            OpaqueFunction(function=_nodes),
        ]
    )
