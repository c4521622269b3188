# SPDX-License-Identifier: Apache-2.0
"""The stated factors between a message and what is allocated for it, on the worst of each kind."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest

from cross4d_jepa_ros.sensing.images import decode_image
from cross4d_jepa_ros.sensing.point_clouds import CloudConfig, CloudDecoder
from tests.malformed import messages
from tests.malformed.readers import BYTES_PER_PIXEL, CLOUD_FACTOR, IMAGE_FACTOR

POINTS = 200_000
SIDE = 1200


def peak(read: Callable[[], Any]) -> int:
    """Bytes that numpy and Python allocate at most at a time."""
    read()  # late imports
    tracemalloc.start()
    read()
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found


@pytest.mark.parametrize('hole', [False, True])
@pytest.mark.parametrize('datatype', [2, 7, 8])
def test_clouds(datatype: int, hole: bool) -> None:
    message = messages.cloud()
    size = {2: 1, 7: 4, 8: 8}[datatype]
    for field in message.fields:  # all of them the same bytes: no cloud has fewer for its points
        field.offset, field.datatype = 0, datatype
    values = np.full(POINTS, 5, f'{"u" if size == 1 else "f"}{size}')
    values[0] = 0 if hole else 5
    message.height, message.width, message.point_step = 1, POINTS, size
    message.data = values.tobytes()
    decoder = CloudDecoder(CloudConfig())
    assert peak(lambda: decoder.decode(message)) < CLOUD_FACTOR * POINTS


@pytest.mark.parametrize('encoding', list(messages.ENCODINGS))
def test_images(encoding: str) -> None:
    message = messages.image(encoding)
    size = SIDE * SIDE * messages.ENCODINGS[encoding]
    message.height, message.width, message.step = SIDE, SIDE, size // SIDE
    message.data = np.random.default_rng(0).integers(1, 63, size, np.uint8).tobytes()
    assert peak(lambda: decode_image(message)) < IMAGE_FACTOR * size


@pytest.mark.parametrize(
    ('suffix', 'shape', 'kind', 'options'),
    [
        ('.png', (SIDE, SIDE), np.uint8, (cv2.IMWRITE_PNG_BILEVEL, 1)),
        ('.png', (SIDE, SIDE), np.uint8, ()),
        ('.png', (SIDE, SIDE, 3), np.uint8, ()),
        ('.png', (SIDE, SIDE, 4), np.uint8, ()),
        ('.png', (SIDE, SIDE), np.uint16, ()),
        ('.png', (SIDE, SIDE, 3), np.uint16, ()),
        ('.png', (SIDE, SIDE, 4), np.uint16, ()),
        ('.jpg', (SIDE, SIDE), np.uint8, ()),
        ('.jpg', (SIDE, SIDE, 3), np.uint8, (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)),
    ],
)
def test_compressed_images(
    suffix: str, shape: tuple[int, ...], kind: type, options: tuple[int, ...]
) -> None:
    pixels = np.full(shape, 7, kind)
    data = cv2.imencode(suffix, pixels, options)[1].tobytes()
    message = messages.packed()
    message.data, message.format = data, '16UC1; png'
    most = BYTES_PER_PIXEL * SIDE * SIDE + 4 * len(data)
    assert peak(lambda: decode_image(message)) < most
    assert 8256 * len(data) > SIDE * SIDE
