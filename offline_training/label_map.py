# SPDX-License-Identifier: Apache-2.0
"""Label maps: from the numbers or names that a data set calls its classes by to one's own classes.

    classes: {road: [150, 90, 160], car: [60, 130, 255]}  # name: colour, in the order of the ids
    labels: {0: ignore, 40: road, 10: car, 252: car}      # number or name there: class here
    others: ignore                                        # left out: what is not listed is refused

The same file serves label clouds, SemanticKITTI's `.label` files and label images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cross4d_jepa_ros.model.config import BadConfig
from cross4d_jepa_ros.reading import BadYaml, read_yaml
from cross4d_jepa_ros.segmentation_scores import UNKNOWN

IGNORE = 'ignore'
_NUMBERS = 1 << 16
_KEYS = ('classes', 'labels', 'others')
# What a label is where the map does not list it; no class has this number in 16 bits.
_UNLISTED = -1


class BadLabels(ValueError):
    """Labels that a map does not account for; the sentence names one and what to add."""


@dataclass(frozen=True)
class LabelMap:
    """A map from foreign labels to classes.

    Attributes:
        names: Of the classes; ids are positions.
        palette: RGB of each class.
        ids: Number (0 to 65535) or name of a foreign label to the name of a class, or IGNORE.
        others_ignored: Whether what is not listed is ignored; else it is refused.

    """

    names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    ids: Mapping[int | str, str]
    others_ignored: bool = False

    def __post_init__(self) -> None:
        """Refuse a map that leads nowhere.

        Raises:
            BadConfig: Says which part.

        """
        if not 0 < len(self.names) < UNKNOWN or len(set(self.names)) != len(self.names):
            msg = f'classes are {len(self.names)}: give 1 to {UNKNOWN - 1} different names'
            raise BadConfig(msg)
        if IGNORE in self.names:
            msg = f'{IGNORE!r} is no class: it stands for labels that are left out'
            raise BadConfig(msg)
        if len(self.palette) != len(self.names):
            msg = f'{len(self.names)} classes have {len(self.palette)} colours: give one each'
            raise BadConfig(msg)
        for label, name in self.ids.items():
            if isinstance(label, int) and not 0 <= label < _NUMBERS:
                msg = f'labels has the number {label}: give 0 to {_NUMBERS - 1}'
                raise BadConfig(msg)
            if name not in (*self.names, IGNORE):
                known = ', '.join((*self.names, IGNORE))
                msg = f'labels.{label} is {name!r}, which is no class: give one of {known}'
                raise BadConfig(msg)

    @cached_property
    def table(self) -> NDArray[np.uint8]:
        """Class id of each number, (65536,); 255 where it is ignored or not listed."""
        return _seen(self._listed())

    def mapped(
        self, labels: NDArray[Any], source: str, source_names: Sequence[str] = ()
    ) -> NDArray[np.uint8]:
        """Turn foreign labels into class ids.

        Args:
            labels: Of any shape, integers of up to 16 bits.
            source: Where they are from, for the sentence.
            source_names: What the source calls its classes, by number. Where it does and this map
                lists names, these are looked up; else the numbers are.

        Returns:
            Class ids of the same shape, 255 where ignored.

        Raises:
            BadLabels: A label is not listed.

        """
        by_name = bool(source_names) and any(isinstance(label, str) for label in self.ids)
        table = self._listed(tuple(source_names) if by_name else None)
        found = table[labels]
        if not self.others_ignored and (found == _UNLISTED).any():
            number = int(labels[found == _UNLISTED].flat[0])
            named = by_name and number < len(source_names)
            label = source_names[number] if named else number
            msg = (
                f'{source} has the label {label}, which the label map does not list: add '
                f"'{label}: {IGNORE}' or a class, or 'others: {IGNORE}'"
            )
            raise BadLabels(msg)
        return _seen(found)

    def _listed(self, source_names: tuple[str, ...] | None = None) -> NDArray[np.int16]:
        """Class id of each number, (65536,); 255 where ignored, _UNLISTED where not listed."""
        table = np.full(_NUMBERS, _UNLISTED, np.int16)
        ids = {name: number for number, name in enumerate(self.names)} | {IGNORE: UNKNOWN}
        if source_names is None:
            for label, name in self.ids.items():
                if isinstance(label, int):
                    table[label] = ids[name]
            return table
        # That of a point without a class, whatever its classes are called.
        table[UNKNOWN] = UNKNOWN
        for number, called in enumerate(source_names):
            if called in self.ids:
                table[number] = ids[self.ids[called]]
        return table


def load_label_map(path: Path) -> LabelMap:
    """Read a file of `config/label_maps/` or one like it.

    Raises:
        BadConfig: It is not YAML, or a key is unknown, missing or wrong; names the file.
        OSError: It cannot be read.

    """
    try:
        return _label_map(read_yaml(path))
    except (BadConfig, BadYaml) as error:
        msg = f'{path}: {error}'
        raise BadConfig(msg) from error


def _label_map(mapping: Any) -> LabelMap:
    if not isinstance(mapping, dict) or not {'classes', 'labels'} <= mapping.keys() <= set(_KEYS):
        found = ', '.join(map(str, mapping)) if isinstance(mapping, dict) else repr(mapping)[:60]
        msg = f'expected the keys classes, labels and perhaps others, found {found}'
        raise BadConfig(msg)
    for key in ('classes', 'labels'):
        if not isinstance(mapping[key], dict) or not mapping[key]:
            msg = f'{key} is no list of "name: value" entries'
            raise BadConfig(msg)
    if mapping.get('others', IGNORE) != IGNORE:
        msg = f'others is {mapping["others"]!r}: give {IGNORE}, or leave it out'
        raise BadConfig(msg)
    for label in (*mapping['classes'], *mapping['labels']):
        # YAML reads on, off, yes and no as truth values.
        if type(label) not in (int, str) or label == '':
            msg = f'{label!r} is neither a number nor a name: put names in quotes'
            raise BadConfig(msg)
    for name, colour in mapping['classes'].items():
        numbers = colour if isinstance(colour, list) else []
        if len(numbers) != 3 or not all(type(n) is int and 0 <= n <= 255 for n in numbers):
            msg = f'classes.{name} is {colour!r}: give red, green, blue, each 0 to 255'
            raise BadConfig(msg)
    return LabelMap(
        names=tuple(map(str, mapping['classes'])),
        palette=tuple(tuple(colour) for colour in mapping['classes'].values()),
        ids=mapping['labels'],
        others_ignored='others' in mapping,
    )


def _seen(ids: NDArray[np.int16]) -> NDArray[np.uint8]:
    return np.where(ids == _UNLISTED, UNKNOWN, ids).astype(np.uint8)
