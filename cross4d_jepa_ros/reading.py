# SPDX-License-Identifier: Apache-2.0
"""Reads files that may be anything: an endless pipe, 100 GB of nothing, YAML that explodes."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

import yaml

# Calibrations and settings have a few thousand bytes; PyYAML takes some ten seconds for so many.
MAX_YAML_BYTES = 1_000_000
# Counted as often as aliases repeat them.
MAX_YAML_VALUES = 100_000
# PyYAML multiplies numbers such as 1:30:00 out, in a time that grows with the square of the length.
MAX_YAML_NUMBER = 400


class BadYaml(ValueError):
    """Text is not YAML, or far too much of it."""


def open_regular(path: Path, limit: int) -> BinaryIO:
    """Open a file for reading without waiting for anybody.

    Args:
        path: Of a regular file, or a link to one.
        limit: Bytes that it may hold.

    Raises:
        OSError: It is not there, is a folder, pipe or device, or is larger; names the file.

    """
    # Not blocking: to open a pipe that nobody writes would take for ever.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        about = os.fstat(handle)
        if stat.S_ISDIR(about.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(about.st_mode):
            raise OSError(errno.EINVAL, 'is a pipe or device: give a file', str(path))
        if about.st_size > limit:
            raise OSError(errno.EFBIG, f'larger than {limit} bytes', str(path))
        return os.fdopen(handle, 'rb')
    except OSError:
        os.close(handle)
        raise


def read_text(path: Path, limit: int) -> str:
    """Read a file of UTF-8.

    Raises:
        OSError: As `open_regular`.
        UnicodeDecodeError: It is not text.

    """
    with open_regular(path, limit) as stream:
        return stream.read().decode()


def read_yaml(path: Path) -> Any:
    """Read a file of plain YAML: mappings, lists, text, numbers, dates.

    Raises:
        BadYaml: As `parse_yaml`.
        OSError: As `open_regular`.

    """
    try:
        text = read_text(path, MAX_YAML_BYTES)
    except UnicodeDecodeError as error:
        msg = f'cannot be read as UTF-8 ({error})'
        raise BadYaml(msg) from error
    return parse_yaml(text)


def parse_yaml(text: str) -> Any:
    """Parse plain YAML.

    Raises:
        BadYaml: It is not YAML, or has too many values or too long a number. Names no file.

    """
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _count(node, {})
        return loader.construct_document(node)
    except BadYaml:
        raise
    except RecursionError:
        msg = 'is nested too deeply'
        raise BadYaml(msg) from None
    # Beside its own errors: what constructors run into where a tag does not fit its text.
    except (
        yaml.YAMLError,
        ValueError,
        LookupError,
        AttributeError,
        TypeError,
        ArithmeticError,
    ) as error:
        msg = f'cannot be read as YAML ({error})'
        raise BadYaml(msg) from error


def _count(node: yaml.Node, known: dict[int, int]) -> int:
    """Count the values at and below a node, as often as aliases repeat them."""
    found = known.get(id(node))
    if found == 0:
        msg = f'{node.start_mark}: holds itself'
        raise BadYaml(msg)
    if found is not None:
        return found
    known[id(node)] = 0
    count = 1
    if isinstance(node, yaml.ScalarNode):
        if node.tag != 'tag:yaml.org,2002:str' and len(node.value) > MAX_YAML_NUMBER:
            msg = f'{node.start_mark}: a number of {len(node.value)} characters: quote it as text'
            raise BadYaml(msg)
    else:
        for entry in node.value:
            for part in entry if isinstance(entry, tuple) else (entry,):
                count += _count(part, known)
                if count > MAX_YAML_VALUES:
                    msg = f'has more than {MAX_YAML_VALUES} values once its aliases are followed'
                    raise BadYaml(msg)
    known[id(node)] = count
    return count
