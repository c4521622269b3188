# SPDX-License-Identifier: Apache-2.0
"""Image decoding: raw encodings, JPEG and PNG, and damaged messages."""

from __future__ import annotations

import array
import struct
import tracemalloc
import zlib
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from cross4d_jepa_ros.sensing.images import MalformedImage, decode_image


def image(
    encoding: str, pixels: np.ndarray, *, padding: int = 0, **changes: Any
) -> SimpleNamespace:
    """Return a sensor_msgs Image; each row is followed by `padding` bytes of garbage."""
    rows = [np.ascontiguousarray(row).tobytes() + b'\xa5' * padding for row in pixels]
    base = {
        'height': pixels.shape[0],
        'width': pixels.shape[1],
        'encoding': encoding,
        'is_bigendian': 0,
        'step': len(rows[0]),
        'data': b''.join(rows),
    }
    return SimpleNamespace(**{**base, **changes})


def compressed(data: bytes, text: str = 'rgb8; jpeg compressed bgr8') -> SimpleNamespace:
    return SimpleNamespace(format=text, data=data)


def encode(suffix: str, pixels: np.ndarray, *options: int) -> bytes:
    return cv2.imencode(suffix, pixels, options)[1].tobytes()


@pytest.fixture(scope='module')
def rgb() -> np.ndarray:
    """A smooth 40 x 60 picture with different channels."""
    y, x = np.mgrid[:40, :60]
    return np.stack([4 * x, 6 * y, 255 - 2 * (x + y)], axis=2).astype(np.uint8)


@pytest.mark.parametrize('padding', [0, 13])
@pytest.mark.parametrize(
    ('encoding', 'order'),
    [
        ('rgb8', [0, 1, 2]),
        ('bgr8', [2, 1, 0]),
        ('8UC3', [2, 1, 0]),
        ('RGBA8', [0, 1, 2, 0]),
        ('bgra8', [2, 1, 0, 0]),
    ],
)
def test_colour(encoding: str, order: list[int], padding: int, rgb: np.ndarray) -> None:
    msg = image(encoding, rgb[..., order], padding=padding)
    found = decode_image(msg)
    np.testing.assert_array_equal(found, rgb)
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous
    assert found.flags.writeable
    assert not np.shares_memory(found, np.frombuffer(msg.data, np.uint8))


@pytest.mark.parametrize(
    'wrap',
    [
        bytearray,
        memoryview,
        lambda data: array.array('B', data),
        lambda data: np.frombuffer(data, np.uint8),
    ],
)
def test_buffers(wrap: Any, rgb: np.ndarray) -> None:
    for encoding in ('rgb8', 'bgr8'):
        msg = image(encoding, rgb, padding=2)
        expected = decode_image(msg)
        msg.data = wrap(msg.data)
        np.testing.assert_array_equal(decode_image(msg), expected)
    png = encode('.png', rgb[..., ::-1])
    np.testing.assert_array_equal(decode_image(compressed(wrap(png))), rgb)


@pytest.mark.parametrize('padding', [0, 4])
def test_grey(padding: int, rgb: np.ndarray) -> None:
    grey = rgb[..., 0]
    expected = np.repeat(grey[..., None], 3, axis=2)
    for encoding in ('mono8', '8UC1'):
        found = decode_image(image(encoding, grey, padding=padding))
        np.testing.assert_array_equal(found, expected)
    deep = grey.astype(np.uint16) << 8 | 0x7F
    for big in (0, 1):
        data = deep.astype('>u2' if big else '<u2')
        msg = image('mono16', data, padding=padding, is_bigendian=big)
        np.testing.assert_array_equal(decode_image(msg), expected)


@pytest.mark.parametrize('kind', ['<u2', '>u2', '<f4', '>f4'])
def test_depth_is_stretched_between_percentiles(kind: str) -> None:
    # Five columns of 1000, a ramp, five of 2000: those two are the percentiles.
    ramp = np.concatenate([[1000] * 5, 1000 + 10 * np.arange(1, 100), [2000] * 5])
    depth = np.tile(ramp, (10, 1)).astype(kind)
    depth[0, :2] = (0, 65000)  # a hole and an outlier
    if kind.endswith('f4'):
        depth[1, :3] = (np.nan, np.inf, -5)
    encoding = '16UC1' if kind.endswith('u2') else '32FC1'
    found = decode_image(image(encoding, depth, is_bigendian=kind[0] == '>'))
    assert found.shape == (10, 109, 3)
    assert (found[..., 0] == found[..., 2]).all()
    grey = found[..., 0].astype(int)
    assert grey[0, :2].tolist() == [0, 255]
    if kind.endswith('f4'):
        assert grey[1, :3].tolist() == [0, 0, 0]
    np.testing.assert_allclose(grey[5], (ramp - 1000) / 1000 * 255, atol=0.51)


def test_depth_without_contrast() -> None:
    assert decode_image(image('16UC1', np.zeros((2, 3), np.uint16))).tolist() == [[[0] * 3] * 3] * 2
    assert not decode_image(image('32FC1', np.full((2, 3), np.nan, np.float32))).any()
    assert decode_image(image('32FC1', np.full((2, 3), 4.5, np.float32))).shape == (2, 3, 3)


@pytest.mark.parametrize('pattern', ['rggb', 'bggr', 'gbrg', 'grbg'])
def test_bayer(pattern: str) -> None:
    colour = {'r': 200, 'g': 120, 'b': 30}
    mosaic = np.empty((8, 10), np.uint8)
    for i, letter in enumerate(pattern):
        mosaic[i // 2 :: 2, i % 2 :: 2] = colour[letter]
    found = decode_image(image(f'bayer_{pattern}8', mosaic, padding=3))
    assert (found == (200, 120, 30)).all()


def test_bayer_too_small_is_no_crash() -> None:
    assert decode_image(image('bayer_rggb8', np.zeros((1, 1), np.uint8))).shape == (1, 1, 3)


@pytest.mark.parametrize(
    ('encoding', 'order'),
    [('yuv422', 'uyvy'), ('UYVY', 'uyvy'), ('yuv422_yuy2', 'yuyv'), ('yuyv', 'yuyv')],
)
def test_yuv422(encoding: str, order: str) -> None:
    # BT.601 studio range: red is (81, 90, 240), and grey 128 is y = 16 + 219 * 128 / 255 = 126.
    values = {'red': {'y': 81, 'u': 90, 'v': 240}, 'grey': {'y': 126, 'u': 128, 'v': 128}}
    quad = {name: [yuv[letter] for letter in order] for name, yuv in values.items()}
    row = np.array([quad['red'] * 2 + quad['grey'] * 3], np.uint8).reshape(1, 10, 2)
    found = decode_image(image(encoding, np.repeat(row, 4, axis=0), padding=6))
    assert found.shape == (4, 10, 3)
    assert abs(found[:, :4].astype(int) - (255, 0, 0)).max() <= 2
    assert abs(found[:, 4:].astype(int) - 128).max() <= 2


def test_missing_step_and_short_last_row(rgb: np.ndarray) -> None:
    msg = image('rgb8', rgb, step=0)
    np.testing.assert_array_equal(decode_image(msg), rgb)
    msg = image('rgb8', rgb, padding=9)
    msg.data = msg.data[:-9]
    np.testing.assert_array_equal(decode_image(msg), rgb)
    row = image('rgb8', rgb[:1], step=10**9)
    np.testing.assert_array_equal(decode_image(row), rgb[:1])


@pytest.mark.parametrize('text', ['rgb8; png compressed bgr8', 'jpeg', '', 'nonsense'])
def test_png(text: str, rgb: np.ndarray) -> None:
    bgr = rgb[..., ::-1]
    grey = np.repeat(rgb[..., :1], 3, axis=2)
    alpha = np.dstack([bgr, rgb[..., 0]])
    for pixels, expected in (
        (bgr, rgb),
        (bgr.astype(np.uint16) << 8 | 0x12, rgb),
        (rgb[..., 0], grey),
        (rgb[..., 0].astype(np.uint16) << 8 | 0xFF, grey),
        (alpha, rgb),
    ):
        found = decode_image(compressed(encode('.png', pixels), text))
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == np.uint8


def test_png_with_palette_and_foreign_chunks(rgb: np.ndarray) -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        checksum = struct.pack('>I', zlib.crc32(kind + body))
        return struct.pack('>I', len(body)) + kind + body + checksum

    indices = np.arange(12, dtype=np.uint8).reshape(3, 4) % 5
    palette = np.random.default_rng(2).integers(0, 256, (5, 3), np.uint8)
    lines = b''.join(b'\0' + row.tobytes() for row in indices)
    png = b'\x89PNG\r\n\x1a\n' + b''.join(
        (
            chunk(b'IHDR', struct.pack('>IIBBBBB', 4, 3, 8, 3, 0, 0, 0)),
            chunk(b'tEXt', b'Comment\0IEND'),
            chunk(b'PLTE', palette.tobytes()),
            chunk(b'tRNS', b'\0\x80'),
            chunk(b'IDAT', zlib.compress(lines)[:9]),
            chunk(b'IDAT', zlib.compress(lines)[9:]),
            chunk(b'IEND', b''),
        )
    )
    np.testing.assert_array_equal(decode_image(compressed(png + b'tail')), palette[indices])


def test_png_depth_is_stretched() -> None:
    depth = np.tile(np.arange(1000, 1101, dtype=np.uint16), (4, 1))
    found = decode_image(compressed(encode('.png', depth), '16UC1; png compressed '))
    raw = decode_image(image('16UC1', depth))
    np.testing.assert_array_equal(found, raw)
    assert found.max() == 255


def test_jpeg(rgb: np.ndarray) -> None:
    bgr = np.ascontiguousarray(rgb[..., ::-1])
    for options in ((), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1), (cv2.IMWRITE_JPEG_RST_INTERVAL, 2)):
        found = decode_image(compressed(encode('.jpg', bgr, *options), 'png'))
        assert abs(found.astype(int) - rgb).mean() < 3
    grey = decode_image(compressed(encode('.jpg', rgb[..., 0])))
    assert abs(grey.astype(int) - rgb[..., :1]).mean() < 3


@pytest.mark.parametrize(('suffix', 'size'), [('.png', 3000), ('.jpg', 2000)])
def test_highly_compressible_image_is_no_bomb(suffix: str, size: int) -> None:
    data = encode(suffix, np.zeros((size, size), np.uint8))
    assert len(data) < size * size / 80
    assert decode_image(compressed(data)).shape == (size, size, 3)


def test_jpeg_orientation_is_not_applied(rgb: np.ndarray) -> None:
    plain = encode('.jpg', rgb)
    # A TIFF directory with one entry: orientation (0x0112), short, 1 value, 6 = turn by 90 degrees.
    tiff = b'II*\0' + struct.pack('<IHHHIII', 8, 1, 0x0112, 3, 1, 6, 0)
    segment = b'Exif\0\0' + tiff
    exif = b'\xff\xe1' + struct.pack('>H', len(segment) + 2) + segment
    turned = plain[:2] + exif + plain[2:]
    array_ = np.frombuffer(turned, np.uint8)
    assert cv2.imdecode(array_, cv2.IMREAD_COLOR).shape == (60, 40, 3)  # what must not happen
    np.testing.assert_array_equal(decode_image(compressed(turned)), decode_image(compressed(plain)))


def test_jpeg_header_with_fill_bytes_and_comments(rgb: np.ndarray) -> None:
    plain = encode('.jpg', rgb)
    comment = b'\xff\xff\xff\xfe' + struct.pack('>H', 6) + b'\xff\xc0\xff\xd9'
    np.testing.assert_array_equal(
        decode_image(compressed(plain[:2] + comment * 3 + plain[2:])),
        decode_image(compressed(plain)),
    )


def png_header(width: int, height: int) -> bytes:
    body = b'IHDR' + struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    checksum = struct.pack('>I', zlib.crc32(body))
    return b'\x89PNG\r\n\x1a\n' + struct.pack('>I', 13) + body + checksum


def jpeg_header(width: int, height: int) -> bytes:
    return (
        b'\xff\xd8\xff\xc0' + struct.pack('>HBHHB', 17, 8, height, width, 3) + b'\x01\x11\x00' * 3
    )


SMALL = np.zeros((4, 6, 3), np.uint8)
PNG = encode('.png', np.random.default_rng(0).integers(0, 255, (30, 30, 3), np.uint8))
JPEG = encode('.jpg', np.random.default_rng(0).integers(0, 255, (30, 30, 3), np.uint8))


@pytest.mark.parametrize(
    ('msg', 'sentence'),
    [
        (image('rgb8', SMALL, data=bytes(71)), 'in 72 bytes, but its data holds 71'),
        (image('rgb8', SMALL, data=b''), 'holds 0'),
        (image('rgb8', SMALL, data=[0] * 72), 'a list that is not one block of bytes'),
        (image('rgb8', SMALL, height=2**32 - 1), 'promises 6 x 4294967295'),
        (image('rgb8', SMALL, width=2**32 - 1), 'needs 12884901885'),
        (image('rgb8', SMALL, step=17), 'rows of 17 bytes, but rgb8 needs 18'),
        (image('rgb8', SMALL, step=2**32 - 1), 'but its data holds 72'),
        (image('rgb8', SMALL, height=0), '6 x 0 pixels'),
        (image('rgb8', SMALL, width=0), '0 x 4 pixels'),
        (image('rgb8', SMALL, width=-3, height=-1), '-3 x -1 pixels'),
        (image('32FC1', SMALL[..., 0]), 'but 32FC1 needs 24'),
        (image('yuyv', SMALL[:, :5, :2]), 'yuyv image is 5 pixels wide'),
        (image('rgb16', SMALL), "'rgb16' is not one of rgb8, bgr8"),
        (image('', SMALL), "encoding '' is not one of"),
        (compressed(b''), 'neither JPEG nor PNG'),
        (compressed(b'GIF89a' + bytes(50), 'gif'), "format 'gif', 56 bytes.*'47 49 46 38'"),
        (compressed(b'\0' * 12 + PNG, '16UC1; compressedDepth png'), 'compressedDepth'),
        (compressed(PNG[:20]), 'no readable size'),
        (compressed(PNG[:-30]), 'PNG image of 30 x 30 pixels is damaged'),
        (compressed(PNG[:33] + b'\x7f\xff\xff\xf0' + PNG[37:]), 'damaged or cut short'),
        (compressed(PNG[:8] + bytes(100)), 'no readable size'),
        (compressed(png_header(0, 5)), 'no readable size'),
        (compressed(png_header(20_000, 20_000)), 'PNG image is 20000 x 20000 pixels, above 100'),
        (compressed(jpeg_header(60_000, 60_000)), 'JPEG image is 60000 x 60000 pixels, above'),
        (compressed(PNG[:16] + b'\0\0\x20\0' * 2 + PNG[24:]), 'promises 8192 x 8192 pixels in'),
        (compressed(jpeg_header(9_000, 9_000)), 'promises 9000 x 9000 pixels in 21 bytes'),
        (compressed(jpeg_header(60, 60)), 'JPEG image of 60 x 60 pixels is damaged'),
        (compressed(JPEG[:4]), 'no readable size'),
        (compressed(b'\xff\xd8' + b'\xff' * 3_000_000), 'no readable size'),
        (compressed(b'\xff\xd8' + b'\xff\xe0\0\0' * 700_000), 'no readable size'),
    ],
)
def test_malformed(msg: Any, sentence: str) -> None:
    tracemalloc.start()
    with pytest.raises(MalformedImage, match=sentence):
        decode_image(msg)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8_000_000


def test_damaged_bytes_raise_nothing_else() -> None:
    rng = np.random.default_rng(1)
    decoded = 0
    for base in (PNG, JPEG):
        for _ in range(60):
            damaged = bytearray(base)
            for at in rng.integers(2, len(base), 3):
                damaged[at] = int(rng.integers(256))
            try:
                found = decode_image(compressed(bytes(damaged[: int(rng.integers(20, len(base)))])))
            except MalformedImage:
                continue
            assert found.dtype == np.uint8
            assert found.ndim == 3
            decoded += 1
    assert decoded < 120
