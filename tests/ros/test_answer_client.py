# SPDX-License-Identifier: Apache-2.0
"""What the receiving end remembers of the answers."""

from __future__ import annotations

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from sensor_msgs.msg import PointCloud2

from cross4d_jepa_ros.ros.answer_client import AnswerClient, sent_sweep
from cross4d_jepa_ros.ros.messages import segmentation_cloud
from tests.bench import Bench, cloud


@pytest.mark.parametrize('keep', [False, True])
def test_class_ids_are_kept_by_stamp_if_asked_for(bench: Bench, keep: bool) -> None:
    client = AnswerClient(
        '/node',
        ('segmentation',),
        keep_near_ns=10**9,
        keep_class_ids=keep,
        context=bench.context,
    )
    client.watch('segmentation')
    bench.spin(client)
    expected = {}
    publisher = bench.probe.create_publisher(PointCloud2, client.topics['segmentation'], 10)
    bench.wait(publisher.get_subscription_count)
    for number in range(1, 4):
        class_id = np.arange(number, number + 50, dtype=np.uint8)
        expected[number * 10**9] = class_id
        probability = np.ones(50, np.float32)
        publisher.publish(segmentation_cloud(cloud(number * 10**9, 50), class_id, probability))
    bench.wait(lambda: client.received == 3)

    assert set(client.class_ids) == (set(expected) if keep else set())
    for stamp, class_id in client.class_ids.items():
        np.testing.assert_array_equal(class_id, expected[stamp])
        assert class_id.dtype == np.uint8


def test_silence_after_the_last_sweep_is_no_finding(bench: Bench) -> None:
    client = AnswerClient('/node', (), keep_near_ns=0, keep_class_ids=False, context=bench.context)
    bench.spin(client)
    publisher = bench.probe.create_publisher(DiagnosticArray, '/diagnostics', 10)
    bench.wait(publisher.get_subscription_count)
    for stamp in (1, 2):
        client.expect(sent_sweep(cloud(stamp * 10**9, 5)))
    client.collecting = True

    def told(received: int, message: str) -> None:
        counts = {'answered': str(received), 'received': str(received)}
        values = [KeyValue(key=key, value=value) for key, value in counts.items()]
        status = DiagnosticStatus(
            level=DiagnosticStatus.WARN, name='node: points', hardware_id='/node', message=message
        )
        status.values = values
        publisher.publish(DiagnosticArray(status=[status]))
        bench.wait(lambda: client.levels.get('points', (0, ''))[1] == message)

    told(1, 'nothing arrived for 2.1 s')
    told(2, 'the bag is over')
    assert list(client.found.values()) == ['nothing arrived for 2.1 s']
