# SPDX-License-Identifier: Apache-2.0
"""Sizes of the network, and a strict reader that turns mappings into frozen dataclasses."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from cross4d_jepa_ros.reading import BadYaml, read_yaml

T = TypeVar('T')

TOKENIZERS = ('voxel', 'fps_knn')
SPACES = ('point', 'teacher')
# What the look-up in the memory offers to choose from.
MAX_NEIGHBOURS = 32
# Cells of the look-up between the sensor and the end of its range.
MAX_CELLS = 500


class BadConfig(ValueError):
    """A key or value of a configuration is wrong; the sentence names it."""


@dataclass(frozen=True)
class ModelConfig:
    """All dimensions of the encoder and of its input grid.

    Attributes:
        size: Name of the size, such as `nano`.
        tokenizer: `voxel` (one patch a voxel; for sweeps) or `fps_knn` (nearest points of spread
            centres; for objects).
        voxel_m: Edge of a voxel, m; of `fps_knn` the unit of lengths.
        range_m: Points farther than this from the base frame's origin are not seen, m.
        max_points: Most points of a sweep that are looked at one by one; the others share an
            answer with one that is.
        max_tokens: Most tokens of a sweep; of `fps_knn` the centres (N).
        patch_points: Points of a patch (K) of `fps_knn`; 0 for `voxel`, which takes all in it.
        width: Channels of a token (D).
        blocks: Transformer blocks over the tokens of a sweep.
        heads: Attention heads; `width / heads` must be even and at least 6.
        window: Tokens that attend to each other; all do when a sweep has no more than these.
        point_width: Channels of a point's embedding (C).
        colour: Whether points carry the colour of the synchronised images.
        sweeps: Sweeps that an answer depends on, the newest included (T).
        sweep_stride: Steps between two sweeps that are read together.
        neighbours: Remembered tokens that a token of the newest sweep reads, of all sweeps (k).
        neighbour_radius_m: How far these may be away, m.
        latents: Vectors that stand for a whole remembered sweep, wherever it was (P).
        temporal_blocks: Transformer blocks that read the memory; 0 where `sweeps` is 1.

    """

    size: str
    tokenizer: str
    voxel_m: float
    range_m: float
    max_points: int
    max_tokens: int
    patch_points: int
    width: int
    blocks: int
    heads: int
    window: int
    point_width: int
    colour: bool
    sweeps: int
    sweep_stride: int
    neighbours: int
    neighbour_radius_m: float
    latents: int
    temporal_blocks: int

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be built.

        Raises:
            BadConfig: A size is out of its bounds.

        """
        bounds: dict[str, tuple[float, float]] = {
            'voxel_m': (0.005, 100),
            'range_m': (0.1, 1000),
            'max_points': (1, 1 << 24),
            'max_tokens': (1, 1 << 20),
            'width': (6, 4096),
            'blocks': (1, 64),
            'heads': (1, 64),
            'window': (8, 4096),
            'point_width': (4, 1024),
            'sweeps': (1, 64),
            'sweep_stride': (1, 16),
        }
        if self.tokenizer not in TOKENIZERS:
            msg = f'tokenizer is {self.tokenizer!r}: give {" or ".join(TOKENIZERS)}'
            raise BadConfig(msg)
        farthest_points = self.tokenizer == 'fps_knn'
        bounds['patch_points'] = (1, 4096) if farthest_points else (0, 0)
        if farthest_points:
            # Sampling takes max_tokens passes over all points.
            bounds |= {'max_points': (1, 1 << 15), 'max_tokens': (1, 1 << 10)}
        remembers = self.sweeps > 1
        bounds['neighbours'] = (1, MAX_NEIGHBOURS) if remembers else (0, 0)
        bounds['neighbour_radius_m'] = (0.01, 100) if remembers else (0, 0)
        bounds['latents'] = (1, 64) if remembers else (0, 0)
        bounds['temporal_blocks'] = (1, 16) if remembers else (0, 0)
        for key, (low, high) in bounds.items():
            value = getattr(self, key)
            if not low <= value <= high:
                msg = f'{key} is {value}, but must lie between {low} and {high}'
                raise BadConfig(msg)
        head_width = self.width / self.heads
        if head_width % 2 or head_width < 6:
            msg = (
                f'width {self.width} over {self.heads} heads gives {head_width:g} channels a head, '
                'which must be even and at least 6: change width or heads'
            )
            raise BadConfig(msg)
        if remembers and self.range_m / self.neighbour_radius_m > MAX_CELLS:
            msg = (
                f'neighbour_radius_m {self.neighbour_radius_m} is less than 1/{MAX_CELLS} of '
                f'range_m {self.range_m}: raise it'
            )
            raise BadConfig(msg)
        if self.range_m / self.voxel_m > 1 << 16:
            msg = (
                f'range_m {self.range_m} is over {1 << 16} voxels of {self.voxel_m}: raise voxel_m'
            )
            raise BadConfig(msg)

    def without_memory(self) -> ModelConfig:
        """Return the same network for single sweeps."""
        return replace(
            self,
            sweeps=1,
            sweep_stride=1,
            neighbours=0,
            neighbour_radius_m=0.0,
            latents=0,
            temporal_blocks=0,
        )


@dataclass(frozen=True)
class Teacher:
    """The image network whose feature space a network has learnt, and how to get there.

    Attributes:
        name: `lite0`, or a name or folder that `transformers` loads.
        weights_sha256: Of its weights.
        input_height: Rows that images are scaled to before it sees them; the columns follow.
        stride: Pixels of the scaled image per patch.
        channels: Of a patch's features.
        components: Of the space that is learnt, after centring, scaling and projection.
        hidden: Channels of the head's hidden layer; 0 for a linear head.

    """

    name: str
    weights_sha256: str
    input_height: int
    stride: int
    channels: int
    components: int
    hidden: int

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be built.

        Raises:
            BadConfig: A size is out of its bounds.

        """
        for key, low, high in (
            ('input_height', 16, 1 << 14),
            ('stride', 1, 256),
            ('channels', 1, 1 << 14),
            ('components', 1, 1 << 14),
            ('hidden', 0, 1 << 14),
        ):
            if not low <= getattr(self, key) <= high:
                msg = f'{key} is {getattr(self, key)}, but must lie between {low} and {high}'
                raise BadConfig(msg)


@dataclass(frozen=True)
class Segmentation:
    """What the segmentation head reads of a point.

    Attributes:
        space: `point` (its embedding) or `teacher` (what the teacher space makes of that, at unit
            length: a head for it can be learnt from images alone).
        hidden: Channels of the head's hidden layer; 0 for a linear head.

    """

    space: str = 'point'
    hidden: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be built.

        Raises:
            BadConfig: A value is out of its bounds.

        """
        if self.space not in SPACES:
            msg = f'space is {self.space!r}: give {" or ".join(SPACES)}'
            raise BadConfig(msg)
        if not 0 <= self.hidden <= 1 << 14:
            msg = f'hidden is {self.hidden}, but must lie between 0 and {1 << 14}'
            raise BadConfig(msg)


# A linear layer on point embeddings.
LINEAR = Segmentation()


@dataclass(frozen=True)
class Taught:
    """Which classes a checkpoint has been taught by examples.

    Attributes:
        names: In the order in which they were taught first.
        counts: Examples of each.

    """

    names: tuple[str, ...]
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        """Refuse a record that contradicts itself.

        Raises:
            BadConfig: Says which part.

        """
        names = self.names
        if not names or '' in names or len(set(names)) != len(names):
            msg = f'names are {list(names)[:10]}: they must be distinct and not empty'
            raise BadConfig(msg)
        if len(self.counts) != len(names) or not all(0 < n < 1 << 24 for n in self.counts):
            msg = f'counts are {list(self.counts)[:10]}: give one above 0 for each of the names'
            raise BadConfig(msg)


def load_model_config(path: Path) -> ModelConfig:
    """Read a file of `config/models/`.

    Raises:
        BadConfig: It is not YAML, or a key is unknown, missing or of the wrong type; names the
            file.
        OSError: It cannot be read.

    """
    return read_config(ModelConfig, path)


def read_config(kind: type[T], path: Path) -> T:
    """Build a frozen dataclass from a YAML file, as `from_mapping` does.

    Raises:
        BadConfig: As `from_mapping`, or it is not YAML; names the file.
        OSError: It cannot be read.

    """
    try:
        return from_mapping(kind, read_yaml(path))
    except (BadConfig, BadYaml) as error:
        msg = f'{path}: {error}'
        raise BadConfig(msg) from error


def from_mapping(kind: type[T], mapping: Any) -> T:
    """Build a frozen dataclass from parsed YAML or JSON, believing nothing.

    Args:
        kind: A dataclass whose fields are bool, int, float, str, None, tuples, dicts or such
            dataclasses.
        mapping: Key to value; lists stand for tuples.

    Raises:
        BadConfig: A key is unknown (the nearest valid one is named) or missing, or a value has
            the wrong type.

    """
    known = {field.name: field for field in fields(typing.cast(Any, kind))}
    hints = typing.get_type_hints(kind)
    if not isinstance(mapping, Mapping):
        msg = f'expected the keys {", ".join(known)}, found {_brief(mapping)}'
        raise BadConfig(msg)
    for key in mapping:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.0)[0]
            msg = f'unknown key {_brief(key)}: did you mean {near!r}?'
            raise BadConfig(msg)
    missing = [key for key, field in known.items() if key not in mapping and _required(field)]
    if missing:
        msg = f'missing key {", ".join(missing)}'
        raise BadConfig(msg)
    return kind(**{key: _checked(key, hints[key], value) for key, value in mapping.items()})


def _required(field: Any) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _checked(key: str, hint: Any, value: Any) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is float and type(value) in (int, float):
        return float(value)
    if hint in (bool, int, str, types.NoneType) and type(value) is hint:
        return value
    if origin is dict and isinstance(value, dict):
        return {name: _checked(f'{key}.{name}', arguments[1], item) for name, item in value.items()}
    if isinstance(hint, types.UnionType):
        if type(value) in arguments:
            return value
        dataclasses = [one for one in arguments if hasattr(one, '__dataclass_fields__')]
        if len(dataclasses) == 1 and isinstance(value, Mapping):
            return _checked(key, dataclasses[0], value)
    if origin is tuple and isinstance(value, list | tuple):
        if arguments[-1] is Ellipsis:
            arguments = (arguments[0],) * len(value)
        if len(arguments) == len(value):
            pairs = enumerate(zip(arguments, value, strict=True))
            return tuple(_checked(f'{key}[{i}]', item_hint, item) for i, (item_hint, item) in pairs)
    if isinstance(hint, type) and hasattr(hint, '__dataclass_fields__'):
        try:
            return from_mapping(hint, value)
        except BadConfig as error:
            msg = f'{key}: {error}'
            raise BadConfig(msg) from error
    expected = hint.__name__ if isinstance(hint, type) and origin is None else str(hint)
    msg = f'{key} is {_brief(value)}, expected {expected}'
    raise BadConfig(msg)


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f'{text[:57]}...'
