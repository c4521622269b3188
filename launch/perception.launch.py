# SPDX-License-Identifier: Apache-2.0
"""Live perception.

ros2 launch cross4d_jepa_ros perception.launch.py points:=/lidar images:=[/camera/image_raw]
"""

import difflib
import re
from pathlib import Path

import yaml
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.conditions import IfCondition
from launch.logging import get_logger
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
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
    (
        'fastdds_profile',
        '',
        "Fast DDS profile; left out: the environment's, else the large-message one of the package",
    ),
)


SWITCH = ('true', 'false', 'True', 'False')
TOPIC = re.compile(r'(~?/)?[A-Za-z_]\w*(/[A-Za-z_]\w*)*', re.ASCII)


def _topic(name: str, text: str) -> str:
    if not TOPIC.fullmatch(text):
        raise RuntimeError(f'{name}:={text} is no topic: write {name}:=/your/topic')
    return text


def _topics(name: str, text: str) -> list[str]:
    try:
        value = yaml.safe_load(text) or []
    except yaml.YAMLError:
        value = None
    topics = [value] if isinstance(value, str) else value
    if not isinstance(topics, list) or not all(TOPIC.fullmatch(str(topic)) for topic in topics):
        raise RuntimeError(
            f'{name}:={text} is no list of topics: write {name}:=[/one/topic,/another/topic]'
        )
    return [str(topic) for topic in topics]


def _warn_of_mistyped(context) -> None:
    """Name arguments that look like ours. Launch takes any, as some may be a parent file's."""
    known = [name for name, _, _ in ARGUMENTS]
    for name in (word.partition(':=')[0] for word in context.argv):
        near = difflib.get_close_matches(name, known, 1, 0.65)
        if near and name not in known:
            get_logger('perception.launch.py').warning(
                f'there is no argument {name}: it does nothing here; did you mean {near[0]}:=?'
            )


def _nodes(context) -> list[Node]:
    def argument(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    _warn_of_mistyped(context)
    if not argument('points'):
        raise RuntimeError('say which cloud to take: points:=/your/pointcloud2/topic')
    share = Path(FindPackageShare('cross4d_jepa_ros').perform(context))
    default = str(share / 'config' / 'perception.param.yaml')
    params_file = Path(argument('params_file') or default).expanduser()
    if not params_file.is_file():
        raise RuntimeError(f'params_file:={params_file} is no file; left out: {default}')
    images, infos = (_topics(name, argument(name)) for name in ('images', 'camera_infos'))
    if infos and len(infos) != len(images):
        raise RuntimeError(
            f'{len(infos)} camera_infos for {len(images)} images: give one for each, or none'
        )
    single = {name: argument(name) for name in ('points', 'clicked_point', 'odometry')}
    remappings = [(f'~/input/{name}', _topic(name, text)) for name, text in single.items() if text]
    remappings += [(f'~/input/image{i}', topic) for i, topic in enumerate(images)]
    remappings += [(f'~/input/camera_info{i}', topic) for i, topic in enumerate(infos)]
    use_sim_time = {'use_sim_time': argument('use_sim_time').lower() == 'true'}
    overrides = {'cameras': len(images), **use_sim_time}
    for name, parameter in (('model', 'model'), ('extrinsics', 'extrinsics_file')):
        if argument(name):
            overrides[parameter] = ParameterValue(argument(name), value_type=str)
    return [
        # First: where it is not installed, launch gives up and leaves running what it has started.
        Node(
            package='rviz2',
            executable='rviz2',
            arguments=['-d', str(share / 'config' / 'perception.rviz')],
            parameters=[use_sim_time],
            condition=IfCondition(LaunchConfiguration('rviz')),
        ),
        Node(
            package='cross4d_jepa_ros',
            executable='perception_node',
            name='perception_node',
            output='screen',
            parameters=[str(params_file), overrides],
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
                DeclareLaunchArgument(
                    name,
                    default_value=default,
                    description=description,
                    choices=SWITCH if default in SWITCH else None,
                )
                for name, default, description in ARGUMENTS
            ),
            OpaqueFunction(function=_profile),
            OpaqueFunction(function=_nodes),
        ]
    )
