# SPDX-License-Identifier: Apache-2.0
"""What the receiving end remembers of the answers."""

from __future__ import annotations

import numpy as np
import pytest
from sensor_msgs.msg import PointCloud2

from cross4d_jepa_ros.ros.answer_client import AnswerClient
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
