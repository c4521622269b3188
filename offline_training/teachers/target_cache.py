# SPDX-License-Identifier: Apache-2.0
"""What a teacher makes of each image, kept on disk, so that training never waits for a teacher.

A folder has a `manifest.json`, which says what made its targets, with a checksum, and shards of
some images of one size each: safetensors files with `patches` (n, h, w, C) float16, `view` (n, V)
float32, `histogram` (n, 48) float32 and `crc` (n,). A shard is named by the images that it holds.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from cross4d_jepa_ros.files import write_atomically
from cross4d_jepa_ros.model.config import from_mapping
from cross4d_jepa_ros.reading import read_text
from offline_training.teachers.features import SCALING

# Raised by every change of what a shard holds.
VERSION = 1
MANIFEST = 'manifest.json'
BINS = 16
_ABOUT, _SHAPES = 'about', 'shapes'
_CHECKSUM = 'sha256'
_MAX_MANIFEST_BYTES = 100_000


# What a damaged file may raise in its reader.
_FOREIGN = (
    SafetensorError,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    ArithmeticError,
    RecursionError,
)


class BadTargets(ValueError):
    """The targets cannot be used; the sentence names the folder or file and what to do."""


@dataclass(frozen=True)
class Manifest:
    """What made the targets of a folder.

    Attributes:
        teacher: Its name.
        weights_sha256: Of its weights.
        input_height: Rows that images were scaled to.
        stride: Pixels of the scaled image per patch.
        channels: Of a patch's features.
        view_channels: Of an image's embedding.
        teacher_input: `rgb` for the cameras' images, `render` for depth renders of the points.
        scaling: How images were scaled.
        version: Of the shards.

    """

    teacher: str
    weights_sha256: str
    input_height: int
    stride: int
    channels: int
    view_channels: int
    teacher_input: str
    scaling: str = SCALING
    version: int = VERSION


class ViewKey(NamedTuple):
    """Which image: its log as the index names it, its topic and its stamp in ns."""

    log: str
    topic: str
    stamp_ns: int


@dataclass(frozen=True)
class CachedView:
    """What is kept of one image.

    Attributes:
        patches: (h, w, C) float16, one feature per patch, the first row at the top.
        view: (V,) float32, the embedding of the whole image.
        histogram: (48,) float32: shares of the pixels in 16 bins of red, then green, then blue.
        width: Of the image as recorded, pixels.
        height: Likewise.

    """

    patches: NDArray[np.float16]
    view: NDArray[np.float32]
    histogram: NDArray[np.float32]
    width: int
    height: int


def colour_histogram(image_rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Count colours of an (H, W, 3) image: (48,), shares that sum to 1 for each channel."""
    bins = image_rgb.reshape(-1, 3) // (256 // BINS)
    counts = np.stack([np.bincount(channel, minlength=BINS) for channel in bins.T])  # (3, 16)
    return (counts / len(bins)).astype(np.float32).reshape(-1)


def view_bytes(patches: tuple[int, int], channels: int, view_channels: int) -> int:
    """Bytes that one image takes.

    Args:
        patches: Rows and columns of its map.
        channels: Of a patch.
        view_channels: Of the embedding.

    """
    return 2 * patches[0] * patches[1] * channels + 4 * (view_channels + 3 * BINS) + 8


def claim_folder(folder: Path, manifest: Manifest) -> None:
    """Make a folder for targets, or make sure that an older one's are of the same make.

    Args:
        folder: For the shards.
        manifest: Of those to come.

    Raises:
        BadTargets: The folder's targets were made in another way, or nothing says how.
        OSError: The disk refuses.

    """
    path = folder / MANIFEST
    # Looked for before the manifest, which another process may be about to write.
    shards = any(folder.glob('*.safetensors'))
    if not path.exists():
        if shards:
            msg = f'{folder} holds targets but no {MANIFEST}: give another folder'
            raise BadTargets(msg)
        about = asdict(manifest)
        text = json.dumps(about | {_CHECKSUM: _sha256(about)}, indent=2) + '\n'
        # Of two processes with different teachers only one may have the folder.
        with contextlib.suppress(FileExistsError):
            write_atomically(path, text, replace=False)
            return
    found = _read_manifest(folder)
    # The same weights may lie under several names.
    for name in (field.name for field in fields(Manifest) if field.name != 'teacher'):
        old, new = getattr(found, name), getattr(manifest, name)
        if old != new:
            msg = (
                f'{folder} holds targets of {found.teacher} with {name} {old}, wanted are those '
                f'of {manifest.teacher} with {name} {new}: give another folder or delete this one'
            )
            raise BadTargets(msg)


def write_shard(folder: Path, keys: Sequence[ViewKey], views: Sequence[CachedView]) -> Path:
    """Write some images of one size, atomically.

    Args:
        folder: That `claim_folder` made.
        keys: One per image.
        views: Likewise.

    Returns:
        The file.

    Raises:
        BadTargets: A feature is not finite, or too large for float16.
        OSError: The disk refuses; when it is full the sentence says how much is needed.

    """
    for key, view in zip(keys, views, strict=True):
        if not (np.isfinite(view.patches).all() and np.isfinite(view.view).all()):
            msg = f'the teacher gives features beyond float16 for {key}: it cannot be used'
            raise BadTargets(msg)
    columns: dict[str, NDArray[Any]] = {
        'patches': np.stack([view.patches for view in views]),
        'view': np.stack([view.view for view in views]),
        'histogram': np.stack([view.histogram for view in views]),
        'crc': np.array([_crc(*entry) for entry in zip(keys, views, strict=True)], np.int64),
    }
    about: dict[str, Any] = {'width': views[0].width, 'height': views[0].height, 'keys': list(keys)}
    about[_SHAPES] = {name: columns[name].shape[1:] for name in ('patches', 'view', 'histogram')}
    # One entry: several have no order, and the same images would make other bytes.
    content = save(columns, {_ABOUT: json.dumps(about)})
    path = folder / f'{_shard_name(keys)}.safetensors'
    try:
        write_atomically(path, content)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        msg = f'{folder}: the disk is full; the next shard needs {len(content):,} bytes'
        raise OSError(errno.ENOSPC, msg) from error
    return path


class TargetCache:
    """The targets of a folder, read image by image.

    Files are opened for each reading only, so that a cache can be handed to other processes.

    Args:
        folder: That `cache_targets` wrote.

    Attributes:
        manifest: What made the targets.

    Raises:
        BadTargets: There is no such folder, its manifest or a shard is damaged or of another
            version.

    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = _read_manifest(folder)
        if self.manifest.version != VERSION:
            msg = (
                f'{folder} has targets of version {self.manifest.version}, this program reads '
                f'{VERSION}: make them again with python -m offline_training.cache_targets'
            )
            raise BadTargets(msg)
        self._places: dict[ViewKey, tuple[Path, int]] = {}
        for path in sorted(folder.glob('*.safetensors')):
            for row, key in enumerate(_keys(path)):
                self._places[key] = path, row

    def __len__(self) -> int:
        return len(self._places)

    def check_input(self, teacher_input: str) -> None:
        """Refuse targets of other images.

        Args:
            teacher_input: `rgb` or `render`, as wanted.

        Raises:
            BadTargets: The targets were made from the other.

        """
        if self.manifest.teacher_input != teacher_input:
            msg = (
                f'{self.folder} holds targets made from {self.manifest.teacher_input}, but '
                f'teacher_input is {teacher_input}: make others with '
                f'python -m offline_training.cache_targets --teacher-input {teacher_input}'
            )
            raise BadTargets(msg)

    def has(self, log: str, topic: str, stamp_ns: int) -> bool:
        """Whether there are targets of an image."""
        return (log, topic, stamp_ns) in self._places

    def read(self, log: str, topic: str, stamp_ns: int) -> CachedView:
        """Read the targets of an image.

        Args:
            log: As the index names it.
            topic: Of the image.
            stamp_ns: Likewise.

        Raises:
            BadTargets: There are none, or they are damaged.

        """
        key = ViewKey(log, topic, stamp_ns)
        if key not in self._places:
            msg = (
                f'{self.folder} has no targets of {topic} at {stamp_ns} ns in {log}: '
                'run python -m offline_training.cache_targets on this index again'
            )
            raise BadTargets(msg)
        path, row = self._places[key]
        try:
            with safe_open(str(path), 'np') as file:
                about = _about(file)
                view = CachedView(
                    patches=file.get_slice('patches')[row],
                    view=file.get_slice('view')[row],
                    histogram=file.get_slice('histogram')[row],
                    width=about['width'],
                    height=about['height'],
                )
                crc = int(file.get_slice('crc')[row : row + 1][0])
            _check_shapes(view, about.get(_SHAPES))
        except _FOREIGN as error:
            raise _damaged(path, str(error)) from error
        if _crc(key, view) != crc:
            raise _damaged(path, f'the checksum of {topic} at {stamp_ns} ns is wrong')
        return view


def _check_shapes(view: CachedView, due: Mapping[str, Sequence[int]] | None) -> None:
    """Compare types, and shapes where the shard tells them, as its checksums are of bytes alone.

    Raises:
        ValueError: They differ.

    """
    for name, dtype in (('patches', np.float16), ('view', np.float32), ('histogram', np.float32)):
        values = getattr(view, name)
        shape = values.shape if due is None else tuple(due[name])
        if values.shape != shape or values.dtype != dtype:
            msg = f'its {name} are {values.dtype} {values.shape}, not {np.dtype(dtype)} {shape}'
            raise ValueError(msg)


def _crc(key: ViewKey, view: CachedView) -> int:
    """Check sum of an image's targets and of what they are targets of."""
    crc = zlib.crc32(json.dumps([*key, view.width, view.height]).encode())
    for values in (view.patches, view.view, view.histogram):
        crc = zlib.crc32(np.ascontiguousarray(values).data, crc)
    return crc


def _about(file: Any) -> dict[str, Any]:
    about: dict[str, Any] = json.loads(file.metadata()[_ABOUT])
    # Older shards tell no shapes.
    if about.keys() | {_SHAPES} != {'width', 'height', 'keys', _SHAPES}:
        msg = f'it tells {", ".join(about)}'
        raise ValueError(msg)
    return about


def _shard_name(keys: Sequence[ViewKey]) -> str:
    return hashlib.sha256(json.dumps(keys).encode()).hexdigest()[:16]


def _sha256(about: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def _keys(path: Path) -> list[ViewKey]:
    try:
        with safe_open(str(path), 'np') as file:
            keys = [ViewKey(*key) for key in _about(file)['keys']]
    except _FOREIGN as error:
        raise _damaged(path, str(error)) from error
    if _shard_name(keys) != path.stem:
        raise _damaged(path, 'it does not hold the images that its name stands for')
    return keys


def _damaged(path: Path, reason: str) -> BadTargets:
    return BadTargets(
        f'{path} is damaged ({reason}): delete it and run '
        'python -m offline_training.cache_targets again'
    )


def _read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST
    if not path.exists():
        msg = f'there are no targets at {folder}: make some with ' + (
            'python -m offline_training.cache_targets'
        )
        raise BadTargets(msg)
    try:
        found = json.loads(read_text(path, _MAX_MANIFEST_BYTES))
        wanted = {field.name for field in fields(Manifest)}
        if not isinstance(found, dict) or wanted - set(found):
            msg = f'it lacks {min(wanted - set(found))}' if isinstance(found, dict) else 'no object'
            raise ValueError(msg)
        about = {name: found[name] for name in sorted(found) if name != _CHECKSUM}
        # Manifests from before there was a checksum have neither it nor anything else.
        if _CHECKSUM in found and found[_CHECKSUM] != _sha256(about):
            msg = 'it does not have the checksum that it was written with'
            raise ValueError(msg)
        return from_mapping(Manifest, about)
    except (ValueError, OSError, RecursionError) as error:
        msg = f'{path} is no manifest of targets or a damaged one ({error}): give another folder'
        raise BadTargets(msg) from error
