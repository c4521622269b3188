# SPDX-License-Identifier: Apache-2.0
"""Image and CompressedImage messages to RGB arrays, without cv_bridge.

Messages are duck-typed: live ones, bag ones and plain objects with the same attributes all work.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_MAX_PIXELS = 100_000_000
# What a byte can hold at most: deflate reaches 1032:1, a block of a JPEG takes a bit.
_DEFLATE_RATIO, _JPEG_PIXELS_PER_BYTE = 1032, 1024
# A progressive JPEG has about ten. Each costs the time of the whole picture, but few bytes.
_MAX_SCANS, _MAX_SCANNED_PIXELS = 100, 10 * _MAX_PIXELS

_COLOUR = {
    'rgb8': (3, None),
    'bgr8': (3, cv2.COLOR_BGR2RGB),
    '8uc3': (3, cv2.COLOR_BGR2RGB),
    'rgba8': (4, cv2.COLOR_RGBA2RGB),
    'bgra8': (4, cv2.COLOR_BGRA2RGB),
    'mono8': (1, cv2.COLOR_GRAY2RGB),
    '8uc1': (1, cv2.COLOR_GRAY2RGB),
    'bayer_rggb8': (1, cv2.COLOR_BayerRGGB2RGB),
    'bayer_bggr8': (1, cv2.COLOR_BayerBGGR2RGB),
    'bayer_gbrg8': (1, cv2.COLOR_BayerGBRG2RGB),
    'bayer_grbg8': (1, cv2.COLOR_BayerGRBG2RGB),
    'yuv422': (2, cv2.COLOR_YUV2RGB_UYVY),
    'uyvy': (2, cv2.COLOR_YUV2RGB_UYVY),
    'yuv422_yuy2': (2, cv2.COLOR_YUV2RGB_YUY2),
    'yuyv': (2, cv2.COLOR_YUV2RGB_YUY2),
}
_GREY = {'mono16': 'u2', '16uc1': 'u2', '32fc1': 'f4'}

# Channels of PNG's colour types: grey, RGB, palette, grey and RGB with alpha.
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PNG = b'\x89PNG\r\n\x1a\n'
_JPEG = b'\xff\xd8\xff'
# Start-of-frame markers: C0 to CF but for the Huffman, arithmetic and reserved ones.
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_BARE = frozenset((0x01, *range(0xD0, 0xD9)))


class MalformedImage(ValueError):
    """The message cannot be read as an image; the sentence says why, with the numbers seen."""


def decode_image(msg: Any) -> NDArray[np.uint8]:
    """Read a sensor_msgs Image or CompressedImage.

    `8UC3` is taken as BGR, `mono16` keeps its upper 8 bits, and `16UC1` and `32FC1` (depth,
    thermal) are stretched to grey between the 1st and 99th percentile of their finite positive
    values, everything else black. JPEG and PNG are recognised by their bytes; the `format` only
    tells a 16-bit depth image (`16UC1; ...`) from a 16-bit grey one. An orientation noted in a
    JPEG is not applied, because calibrations refer to the pixels as stored.

    The arrays on the way take at most 5 times the bytes of an uncompressed image, and 12 bytes a
    pixel of a compressed one (beside OpenCV's own 6 for a progressive JPEG), whose header is
    believed up to what its bytes can hold: 8256 pixels a byte for a PNG of 1 bit, 344 for one of
    RGB, 1024 for a JPEG.

    Args:
        msg: The message; its `data` is anything with the buffer protocol, read-only or not.

    Returns:
        (H, W, 3) RGB, contiguous, independent of the message's buffer.

    Raises:
        MalformedImage: Unknown encoding or container, an impossible or too large size (above 100
            megapixels when compressed), or data that is short or damaged.
    """
    try:
        data = np.frombuffer(msg.data, np.uint8) if len(msg.data) else np.empty(0, np.uint8)
    except (TypeError, ValueError, BufferError) as error:
        text = f'The image data is a {type(msg.data).__name__} that is not one block of bytes.'
        raise MalformedImage(text) from error
    try:
        if hasattr(msg, 'encoding'):
            return _decode_raw(msg, data)
        return _decode_compressed(str(msg.format), data)
    except cv2.error as error:
        text = f'The image cannot be converted: {str(error).strip()[-200:]}'
        raise MalformedImage(text) from error


def _decode_raw(msg: Any, data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    encoding = str(msg.encoding).lower()
    if encoding in _GREY:
        kind = np.dtype(('>' if msg.is_bigendian else '<') + _GREY[encoding])
        values = _pixels(msg, data, kind, 1)[..., 0]
        if encoding == 'mono16':
            return _grey_to_rgb((values >> 8).astype(np.uint8))
        return _grey_to_rgb(_stretch(values))
    if encoding not in _COLOUR:
        text = f'The image encoding {encoding[:40]!r} is not one of {", ".join(_COLOUR)}, ' + (
            f'{", ".join(_GREY)}; convert it upstream.'
        )
        raise MalformedImage(text)
    channels, conversion = _COLOUR[encoding]
    pixels = _pixels(msg, data, np.dtype(np.uint8), channels)
    if conversion is None:
        return np.array(pixels, order='C')
    if channels == 2 and pixels.shape[1] % 2:
        text = f'The {encoding} image is {pixels.shape[1]} pixels wide, but must be even.'
        raise MalformedImage(text)
    rgb: NDArray[np.uint8] = cv2.cvtColor(np.ascontiguousarray(pixels), conversion)
    return rgb


def _pixels(
    msg: Any, data: NDArray[np.uint8], kind: np.dtype[Any], channels: int
) -> NDArray[np.uint8]:
    """Look at raw data as (height, width, channels), without a copy."""
    height, width = int(msg.height), int(msg.width)
    row_bytes = width * channels * kind.itemsize
    # One row has no padding to speak of, and some drivers leave the step at zero.
    step = row_bytes if height == 1 or not msg.step else int(msg.step)
    if min(height, width) < 1 or step < row_bytes:
        text = f'The image is {width} x {height} pixels with rows of {step} bytes' + (
            f', but {msg.encoding} needs {row_bytes}.' if row_bytes > 0 else '.'
        )
        raise MalformedImage(text)
    needed = (height - 1) * step + row_bytes
    if needed > data.size:
        text = (
            f'The image promises {width} x {height} pixels of {msg.encoding} in {needed} bytes, '
            f'but its data holds {data.size}.'
        )
        raise MalformedImage(text)
    strides = (step, channels * kind.itemsize, kind.itemsize)
    return np.ndarray((height, width, channels), kind, buffer=data, strides=strides)


def decode_picture(raw: bytes, flags: int, hint: str = '') -> NDArray[Any]:
    """Decode a JPEG or PNG whose header promises no more than its bytes can hold.

    Args:
        raw: The file's bytes.
        flags: Of `cv2.imdecode`.
        hint: What a message calls the format, for the sentence.

    Raises:
        MalformedImage: It is neither, promises too much, or is damaged.

    """
    if raw.startswith(_PNG):
        name, size, densest = 'PNG', _png_size(raw), _png_density(raw)
    elif raw.startswith(_JPEG):
        name, size, densest = 'JPEG', _jpeg_size(raw), _JPEG_PIXELS_PER_BYTE
    else:
        text = (
            f'The compressed image (format {hint[:40]!r}, {len(raw)} bytes) begins with '
            f'{raw[:4].hex(" ")!r}, which is neither JPEG nor PNG.'
        )
        raise MalformedImage(text)
    if size is None or min(size) < 1:
        text = f'The {name} image has no readable size in its header ({len(raw)} bytes).'
        raise MalformedImage(text)
    if size[0] * size[1] > _MAX_PIXELS:
        text = f'The {name} image is {size[0]} x {size[1]} pixels, above 100 megapixels.'
        raise MalformedImage(text)
    if size[0] * size[1] > densest * len(raw):
        text = f'The {name} image promises {size[0]} x {size[1]} pixels in {len(raw)} bytes.'
        raise MalformedImage(text)
    scans = raw.count(b'\xff\xda') if name == 'JPEG' else 0
    if scans > _MAX_SCANS or scans * size[0] * size[1] > _MAX_SCANNED_PIXELS:
        text = (
            f'The JPEG image has {scans} scans of {size[0]} x {size[1]} pixels: more than '
            f'{_MAX_SCANS}, or {_MAX_SCANNED_PIXELS} pixels in all, are not read.'
        )
        raise MalformedImage(text)
    whole = _png_essentials(raw) if name == 'PNG' else raw
    image = cv2.imdecode(np.frombuffer(whole, np.uint8), flags) if whole else None
    if image is None:
        text = f'The {name} image of {size[0]} x {size[1]} pixels is damaged or cut short.'
        raise MalformedImage(text)
    return np.asarray(image)


def _decode_compressed(hint: str, data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    flags = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    image = decode_picture(data.tobytes(), flags, hint)
    if image.dtype == np.uint16:
        depth = image.ndim == 2 and hint.lower().startswith('16uc1')
        if not depth:
            image >>= 8
        image = _stretch(image) if depth else image.astype(np.uint8)
    if image.ndim == 2:
        return _grey_to_rgb(image)
    rgb: NDArray[np.uint8] = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return rgb


def _png_size(raw: bytes) -> tuple[int, int] | None:
    if len(raw) < 24 or raw[12:16] != b'IHDR':
        return None
    return int.from_bytes(raw[16:20], 'big'), int.from_bytes(raw[20:24], 'big')


def _png_density(raw: bytes) -> float:
    """Most pixels that a byte can hold; 0 for a kind of pixel that PNG does not have."""
    depth, colour = raw[24:26] if len(raw) > 25 else (0, 0)
    bits = depth * _PNG_CHANNELS.get(colour, 0)
    return 8 * _DEFLATE_RATIO / bits if bits else 0.0


def _png_essentials(raw: bytes) -> bytes | None:
    """Keep the chunks that make the picture; None where their lengths do not add up.

    OpenCV believes the length of a chunk before it sees the data: one wrong bit in a small file
    costs it gigabytes and seconds.
    """
    kept, at = [_PNG], len(_PNG)
    while at + 12 <= len(raw):
        kind = raw[at + 4 : at + 8]
        end = at + 12 + int.from_bytes(raw[at : at + 4], 'big')
        if end > len(raw):
            return None
        if kind in (b'IHDR', b'PLTE', b'IDAT', b'IEND'):
            kept.append(raw[at:end])
        if kind == b'IEND':
            return b''.join(kept)
        at = end
    return None


def _jpeg_size(raw: bytes) -> tuple[int, int] | None:
    """Find (width, height) in the frame header; None where 1000 segments do not hold one."""
    at = 2
    for _ in range(1000):
        if at + 9 > len(raw) or raw[at] != 0xFF:
            return None
        marker = raw[at + 1]
        if marker in _JPEG_FRAMES:
            height, width = raw[at + 5 : at + 7], raw[at + 7 : at + 9]
            return int.from_bytes(width, 'big'), int.from_bytes(height, 'big')
        if marker == 0xFF:
            at += 1
        elif marker in _JPEG_BARE:
            at += 2
        else:
            at += 2 + int.from_bytes(raw[at + 2 : at + 4], 'big')
    return None


@np.errstate(over='ignore', invalid='ignore')
def _stretch(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Map (H, W) numbers to grey between the percentiles of those that are finite and positive."""
    values = values.astype(np.float32)
    usable = np.isfinite(values) & (values > 0)
    if not usable.any():
        return np.zeros(values.shape, np.uint8)
    low, high = np.percentile(values[usable], (1, 99), overwrite_input=True)
    values[~usable] = low
    values -= np.float32(low)
    values *= np.float32(255 / max(high - low, 1e-30))
    np.clip(values, 0, 255, out=values)
    grey: NDArray[np.uint8] = np.rint(values, out=values).astype(np.uint8)
    return grey


def _grey_to_rgb(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    rgb: NDArray[np.uint8] = cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)
    return rgb
