# SPDX-License-Identifier: Apache-2.0
"""The layout of RViz shows what the node publishes and the launch files remap."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
import yaml

from cross4d_jepa_ros.ros.outputs import DEPTH, OUTPUT_TOPICS

ROOT = Path(__file__).parents[1]
LAYOUT = yaml.safe_load((ROOT / 'config' / 'perception.rviz').read_text())['Visualization Manager']
INPUT, OUTPUT = '/perception_node/input/', '/perception_node/output/'
DISPLAYS = [each for each in LAYOUT['Displays'] if 'Topic' in each]
TOPICS = {each['Topic']['Value'] for each in DISPLAYS}


def started_rviz(monkeypatch: pytest.MonkeyPatch, **given: str) -> dict[str, Any]:
    """Run the launch file with stand-ins for launch; returns what the Node of RViz gets."""
    nodes: list[dict[str, Any]] = []
    parts = {name: MagicMock() for name in ('launch', 'launch_ros')}
    for name in ('actions', 'conditions', 'logging', 'substitutions'):
        parts[f'launch.{name}'] = MagicMock()
    for name in ('actions', 'parameter_descriptions', 'substitutions'):
        parts[f'launch_ros.{name}'] = MagicMock()
    parts['launch_ros.actions'].Node = lambda **words: nodes.append(words)
    parts['launch_ros.substitutions'].FindPackageShare = lambda _: SimpleNamespace(
        perform=lambda _: str(ROOT)
    )
    for name, part in parts.items():
        monkeypatch.setitem(sys.modules, name, part)
    chosen: dict[str, str] = {}
    parts['launch.substitutions'].LaunchConfiguration = lambda name: SimpleNamespace(
        perform=lambda _: chosen[name]
    )
    content = runpy.run_path(str(ROOT / 'launch' / 'perception.launch.py'))
    chosen |= {name: default for name, default, _ in content['ARGUMENTS']} | given
    content['_nodes'](SimpleNamespace(argv=[]))
    return next(node for node in nodes if node['package'] == 'rviz2')


def test_every_topic_is_one_that_the_node_has() -> None:
    assert {topic for topic in TOPICS if topic.startswith(OUTPUT)} == {
        OUTPUT + name for name in OUTPUT_TOPICS if name.endswith('_rgb')
    }
    inputs = {topic for topic in TOPICS if not topic.startswith(OUTPUT)}
    assert inputs == {f'{INPUT}points', f'{INPUT}image0', f'{INPUT}image0/compressed'}


@pytest.mark.parametrize('display', DISPLAYS, ids=lambda each: str(each['Name']))
def test_every_display_receives_what_is_offered_and_sees_it(display: dict[str, Any]) -> None:
    answer = display['Topic']['Value'].startswith(OUTPUT)
    # The node offers its answers reliably; of a sensor nobody knows what it offers.
    wanted = 'Reliable' if answer else 'Best Effort'
    assert display['Topic']['Reliability Policy'] == wanted
    assert display['Topic']['Depth'] == DEPTH
    assert display['Enabled'] == display['Value']
    if answer:
        assert display['Color Transformer'] == 'RGB8' and display['Selectable']


@pytest.mark.parametrize('image', ['/front/image_raw', '/front/image_raw/compressed'])
def test_what_the_launch_file_remaps_for_the_node_it_remaps_for_rviz(
    monkeypatch: pytest.MonkeyPatch, image: str
) -> None:
    given = {'points': '/lidar', 'images': f'[{image}]', 'clicked_point': '/pointed'}
    rviz = started_rviz(monkeypatch, **given)
    remapped = dict(rviz['remappings'])
    shown = 'image0/compressed' if image.endswith('/compressed') else 'image0'
    assert remapped == {
        f'{INPUT}points': '/lidar',
        INPUT + shown: image,
        '/clicked_point': '/pointed',
    }
    assert set(remapped) <= TOPICS | {'/clicked_point'}
    tools = {tool['Class'].split('/')[1]: tool for tool in LAYOUT['Tools']}
    assert tools['PublishPoint']['Topic']['Value'] == '/clicked_point'
    arguments = rviz['arguments']
    assert Path(arguments[arguments.index('-d') + 1]) == ROOT / 'config' / 'perception.rviz'
    frame = arguments[arguments.index('-f') + 1]
    assert frame == LAYOUT['Global Options']['Fixed Frame']
