# SPDX-License-Identifier: Apache-2.0
"""YAML files of settings, with changes given on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from cross4d_jepa_ros.model.config import BadConfig, from_mapping
from cross4d_jepa_ros.reading import BadYaml, parse_yaml, read_yaml

T = TypeVar('T')


def read_settings(
    kind: type[T], path: Path, changes: Sequence[str] = ()
) -> tuple[T, dict[str, Any]]:
    """Build a frozen dataclass from a YAML file.

    Args:
        kind: As for `from_mapping`.
        path: YAML file.
        changes: `key=value` or `group.key=value`, each of which takes the place of what the file
            says.

    Returns:
        The settings, and the same as a mapping to write down.

    Raises:
        BadConfig: It is not YAML, or a key is unknown, missing or wrong; names the file.
        OSError: It cannot be read.

    """
    try:
        mapping = read_yaml(path)
        for change in changes:
            key, equals, value = change.partition('=')
            if not equals or not isinstance(mapping, dict):
                msg = f'{change!r} is no change: give key=value, such as epochs=2'
                raise BadConfig(msg)
            *groups, last = key.split('.')
            group: Any = mapping
            for name in groups:
                group = group.get(name)
                if not isinstance(group, dict):
                    msg = f'{change!r}: there is no group {name!r}'
                    raise BadConfig(msg)
            group[last] = parse_yaml(value)
        return from_mapping(kind, mapping), mapping
    except (BadConfig, BadYaml) as error:
        msg = f'{path}: {error}'
        raise BadConfig(msg) from error
