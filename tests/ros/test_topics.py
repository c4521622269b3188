# SPDX-License-Identifier: Apache-2.0
"""The rows of the README's table of topics are those that the node is made of."""

from __future__ import annotations

from cross4d_jepa_ros.pipeline import Pipeline
from cross4d_jepa_ros.ros.outputs import stage_names
from cross4d_jepa_ros.ros.tables import TOPICS
from tests.bench import Bench

# rclpy's own, of every lifecycle node.
RCLPY_TOPICS = {'/rosout', '/parameter_events', '/perception_node/transition_event'}


def full(name: str) -> str:
    return name.replace('~', '/perception_node')


def test_a_node_has_the_topics_of_the_table_and_no_others(bench: Bench) -> None:
    node = bench.perception(cameras=2, autostart=False)
    node.trigger_configure()
    own = (node.get_name(), node.get_namespace())
    stages = stage_names(Pipeline.STAGES)
    wanted = {
        full(row.name.format(stage=stage)): list(row.types)
        for row in TOPICS['out']
        for stage in stages
    }
    published = dict(node.get_publisher_names_and_types_by_node(*own))
    assert {name: published[name] for name in published.keys() - RCLPY_TOPICS} == wanted
    services = dict(node.get_service_names_and_types_by_node(*own))
    triggered = {name for name, types in services.items() if types == ['std_srvs/srv/Trigger']}
    assert triggered == {full(row.name) for row in TOPICS['service']}

    assert node._life is not None
    listening = {f'~/input/{topic.name}' for topic in node._life.inputs._topics}
    names = {row.name for row in TOPICS['in'] if row.name.startswith('~')}
    assert listening == {name.format(i=i) for name in names for i in range(2)}
