# SPDX-License-Identifier: Apache-2.0
"""safetensors files with a checksum over all that they hold, as the format itself has none."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from safetensors.torch import load_file
from torch import Tensor

_ABOUT, _CHECKSUM = 'about', 'checksum'


class Damaged(ValueError):
    """The file is not as it was written; the sentence says why, but names no file."""


def checked(columns: Mapping[str, NDArray[Any]], about: Mapping[str, Any]) -> bytes:
    """Make the content of a file; equal content gives equal bytes.

    Args:
        columns: By name.
        about: What belongs to them, as plain as JSON.

    """
    plain = json.loads(json.dumps(about))
    checksum = _sha256(plain, sorted(columns.items()))
    # One entry: several have no order.
    return save(dict(columns), {_ABOUT: _text(plain | {_CHECKSUM: checksum})})


def read_about(path: Path, older: Collection[str]) -> dict[str, Any]:
    """Compare all of a file with its checksum; the columns are read one after the other.

    Args:
        path: File of `checked`, or from before there was a checksum: such a file cannot be told
            from a damaged one.
        older: Entries of the metadata of those.

    Returns:
        What belongs to the columns.

    Raises:
        Damaged: It is not there, or not as it was written.

    """
    try:
        # Anything but a file might never end.
        if not path.is_file():
            msg = 'it is not there' if not path.exists() else 'it is no file'
            raise Damaged(msg)
        with safe_open(str(path), 'np') as file:
            metadata = file.metadata() or {}
            if set(metadata) == set(older):
                return {name: json.loads(text) for name, text in metadata.items()}
            if set(metadata) != {_ABOUT}:
                msg = 'it has no checksum'
                raise Damaged(msg)
            about = json.loads(metadata[_ABOUT])
            checksum = about.pop(_CHECKSUM)
            columns = ((name, file.get_tensor(name)) for name in sorted(file.keys()))
            if not isinstance(about, dict) or _sha256(about, columns) != checksum:
                msg = 'its content does not have the checksum that it was written with'
                raise Damaged(msg)
            return about
    except Damaged:
        raise
    except (
        SafetensorError,
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:
        raise Damaged(str(error)) from error


def read_tensors(path: Path, older: Collection[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read all of a file, compared as by `read_about`.

    Returns:
        The columns, and what belongs to them.

    Raises:
        Damaged: As `read_about`.

    """
    about = read_about(path, older)
    try:
        return load_file(path), about
    except (SafetensorError, OSError, ValueError, LookupError) as error:
        raise Damaged(str(error)) from error


def _sha256(about: Mapping[str, Any], columns: Iterable[tuple[str, NDArray[Any]]]) -> str:
    digest = hashlib.sha256(_text(about).encode())
    for name, values in columns:
        digest.update(f'{name} {values.dtype} {values.shape}\n'.encode())
        digest.update(np.ascontiguousarray(values).reshape(-1).view(np.uint8))
    return digest.hexdigest()


def _text(about: Mapping[str, Any]) -> str:
    return json.dumps(about, sort_keys=True, separators=(',', ':'))
