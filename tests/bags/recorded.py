# SPDX-License-Identifier: Apache-2.0
"""Recordings of images that are known, and what reading them must give."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cross4d_jepa_ros.bags import (
    BadBag,
    Bag,
    BagWriter,
    message_class,
)

START_NS = 1_600_000_000_000_000_000
IMAGE = 'sensor_msgs/msg/CompressedImage'
STRING = 'std_msgs/msg/String'
STORAGES = ['mcap', 'sqlite3']


def image(index: int, size: int = 20_000):
    stamp = message_class('builtin_interfaces/msg/Time')(1_600_000_000, index)
    header = message_class('std_msgs/msg/Header')(stamp, 'camera')
    data = np.random.default_rng(index).integers(0, 256, size, dtype=np.uint8)
    return message_class(IMAGE)(header, 'jpeg', data)


def write_images(path: Path, storage: str = 'mcap', count: int = 200) -> Path:
    """A recording of `count` images of 20 kB, 10 ms apart, and a text beside every tenth."""
    with BagWriter(path, storage=storage) as bag:
        for index in range(count):
            stamp_ns = START_NS + index * 10_000_000
            bag.write('/image', IMAGE, stamp_ns, image(index))
            if index % 10 == 0:
                bag.write('/text', STRING, stamp_ns + 5, message_class(STRING)(f'text {index}'))
    return path


def nanosecs(bag: Bag, topic: str = '/image') -> list[int]:
    """Indices of the readable images, each checked against what was written, and found alone."""
    found = []
    for message in bag.messages([topic]):
        decoded = bag.deserialise(message)
        index = decoded.header.stamp.nanosec
        assert np.array_equal(decoded.data, image(index).data)
        assert message.bag_stamp_ns == START_NS + index * 10_000_000
        found.append(index)
    for index in found[::-1]:
        (message,) = bag.messages_at(topic, START_NS + index * 10_000_000)
        assert bag.deserialise(message).header.stamp.nanosec == index
    return found


def storage_of(bag: Path) -> Path:
    return next(path for path in bag.iterdir() if path.suffix in {'.mcap', '.db3'})


def read_all(path: Path) -> None:
    """Read a damaged file to its end; only BadBag may come out."""
    try:
        bag = Bag(path)
    except BadBag:
        return
    with bag:
        for message in bag.messages():
            try:
                bag.deserialise(message)
            except BadBag:
                continue


def read_damaged(good: bytes, path: Path, seed: int, header: int, flips: int) -> None:
    """Change some bytes behind the header, cut the end off, and read it; a dozen times."""
    random = np.random.default_rng(seed)
    for _ in range(12):
        data = bytearray(good)
        for position in random.integers(header, len(data), flips):
            data[position] = random.integers(256)
        path.write_bytes(data[: random.integers(header + 1, len(data) + 1)])
        read_all(path)
