# SPDX-License-Identifier: Apache-2.0
"""Recordings: read rosbag2 folders and files, damaged ones included, and write small ones.

The rosbags library reads what is sound; where it gives up, the storage is streamed from its start
for what is left, and `Bag.problems` says what is missing. Messages stay CDR until asked for. What
an mcap file has checksums for is compared with them; sqlite3 has none, nor have recorders that
leave them out: there a changed message looks like any other.
"""

from cross4d_jepa_ros.bags.message_types import message_class
from cross4d_jepa_ros.bags.messages import MAX_PROBLEMS, BadBag, BagMessage, BagTopic, note
from cross4d_jepa_ros.bags.reading import Bag
from cross4d_jepa_ros.bags.tf import TF_TYPE, moving_transforms, static_transforms, tf_topics
from cross4d_jepa_ros.bags.writing import BagWriter

__all__ = [
    'MAX_PROBLEMS',
    'TF_TYPE',
    'BadBag',
    'Bag',
    'BagMessage',
    'BagTopic',
    'BagWriter',
    'message_class',
    'moving_transforms',
    'note',
    'static_transforms',
    'tf_topics',
]
