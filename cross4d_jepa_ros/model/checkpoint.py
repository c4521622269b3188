# SPDX-License-Identifier: Apache-2.0
"""One safetensors file with the network's contract in its header. Nothing is unpickled.

The checksum in the contract covers the contract and every tensor, so damage is refused.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from cross4d_jepa_ros.files import write_atomically
from cross4d_jepa_ros.model.config import (
    LINEAR,
    BadConfig,
    ModelConfig,
    Segmentation,
    Taught,
    Teacher,
    from_mapping,
)
from cross4d_jepa_ros.model.heads import EmbeddingNormalisation
from cross4d_jepa_ros.model.network import Network
from cross4d_jepa_ros.model.prototypes import Prototypes, named_together, taught_colour
from cross4d_jepa_ros.model.tokenizer import InputFeature, input_features
from cross4d_jepa_ros.reading import open_regular

SCHEMA_VERSION = 2
# Room for the contract and the names of a few thousand tensors.
MAX_HEADER_BYTES = 16 << 20
# `base`, the largest size, has 70 MB.
MAX_BYTES = 2 << 30


class BadCheckpoint(ValueError):
    """A file is not a usable checkpoint; the sentence names the file and the reason."""


@dataclass(frozen=True)
class Contract:
    """What a checkpoint promises to whoever runs it.

    Attributes:
        model: Architecture, tokenizer and temporal sizes.
        features: Input channels with units and normalisation, in order.
        base_height_m: Height of the base frame's origin above the ground that the network expects.
        class_names: Of the segmentation head; empty where there is none. Ids are positions.
        palette: RGB of each class.
        teacher: Of a network that was distilled from one; None where there was none.
        segmentation: What the segmentation head reads.
        prototypes: Classes taught by examples; `save_checkpoint` fills it in. None without.
        training: How the weights came about; `kind` is always there.

    """

    model: ModelConfig
    features: tuple[InputFeature, ...]
    base_height_m: float
    class_names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    training: dict[str, str | int | float]
    teacher: Teacher | None = None
    segmentation: Segmentation = LINEAR
    prototypes: Taught | None = None
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        """Refuse a contract that contradicts itself or this code.

        Raises:
            BadConfig: Says which part.

        """
        if self.schema_version != SCHEMA_VERSION:
            msg = (
                f'its schema version is {self.schema_version}, this package reads '
                f'{SCHEMA_VERSION}: use the package version that wrote it'
            )
            raise BadConfig(msg)
        if self.features != input_features(self.model):
            msg = 'its input features are not those that this package computes'
            raise BadConfig(msg)
        names = self.class_names
        if len(set(names)) != len(names) or len(names) > 255:
            msg = f'its {len(names)} class names must be distinct and at most 255'
            raise BadConfig(msg)
        if len(self.palette) != len(names):
            msg = f'it has {len(names)} classes but {len(self.palette)} palette colours'
            raise BadConfig(msg)
        if not all(0 <= value <= 255 for colour in self.palette for value in colour):
            msg = 'its palette has a value outside 0..255'
            raise BadConfig(msg)
        if 'kind' not in self.training:
            msg = 'its training record has no kind'
            raise BadConfig(msg)
        if self.segmentation.space == 'teacher' and self.teacher is None:
            msg = 'its segmentation reads the space of a teacher, but it has none'
            raise BadConfig(msg)
        if len(self.answer_names) > 255:
            msg = f'its {len(self.answer_names)} classes, taught ones included, are more than 255'
            raise BadConfig(msg)

    @property
    def answer_names(self) -> tuple[str, ...]:
        """Classes of an answer: those of the head, then those that were taught beside them."""
        taught = self.prototypes.names if self.prototypes else ()
        return named_together(self.class_names, taught)

    @property
    def answer_palette(self) -> tuple[tuple[int, int, int], ...]:
        """RGB of each of `answer_names`."""
        beside = len(self.answer_names) - len(self.class_names)
        return (*self.palette, *(taught_colour(number) for number in range(beside)))

    @property
    def colour(self) -> bool:
        """Whether the network looks at the synchronised images."""
        return self.model.colour


@dataclass(frozen=True)
class Checkpoint:
    """A loaded file.

    Attributes:
        network: On the CPU, in eval mode.
        prototypes: What it has been taught, on the CPU.
        sha256: Of the file, hexadecimal.

    """

    contract: Contract
    network: Network
    prototypes: Prototypes
    sha256: str


def save_checkpoint(
    path: Path, contract: Contract, network: Network, prototypes: Prototypes | None = None
) -> None:
    """Write atomically; equal content gives equal bytes.

    Args:
        path: Target.
        contract: What the network is; its record of prototypes is made anew.
        network: On any device.
        prototypes: What it has been taught; None or empty: nothing.

    Raises:
        BadCheckpoint: The network is not the one that the contract describes.
        OSError: The disk refuses.

    """
    tensors = {name: value.contiguous().cpu() for name, value in network.state_dict().items()}
    taught = prototypes.record if prototypes is not None else None
    if prototypes is not None and taught is not None:
        tensors['prototypes.vectors'] = prototypes.vectors.contiguous().cpu()  # (n, C)
        tensors['prototypes.class_of'] = prototypes.class_of.cpu()  # (n,)
    contract = replace(contract, prototypes=taught)
    _check_tensors(path, contract, tensors)
    plain = json.loads(json.dumps(asdict(contract)))
    metadata = {'contract': _canonical({**plain, 'checksum': _checksum(plain, tensors)})}
    write_atomically(path, save_tensors(tensors, metadata))


def load_checkpoint(path: Path) -> Checkpoint:
    """Read and verify a checkpoint.

    Raises:
        BadCheckpoint: It cannot be read, is damaged, or does not fit this package.

    """
    content = _read(path)
    contract, given = _verified(path, content)
    prototypes = Prototypes.none(contract.model.point_width)
    if contract.prototypes is not None:
        names = contract.prototypes.names
        prototypes = Prototypes(
            names, given.pop('prototypes.vectors'), given.pop('prototypes.class_of')
        )
    network = _built(contract)
    network.load_state_dict(given)
    sha256 = hashlib.sha256(content).hexdigest()
    return Checkpoint(contract, network.eval(), prototypes, sha256)


def network_sha256(checkpoint: Checkpoint) -> str:
    """Digest of a network and its contract, whatever it was taught; needs it as it was loaded."""
    plain = json.loads(json.dumps(asdict(replace(checkpoint.contract, prototypes=None))))
    return _checksum(plain, checkpoint.network.state_dict())


def read_contract(path: Path) -> Contract:
    """Read the contract and verify the file, without making the network.

    Raises:
        BadCheckpoint: As `load_checkpoint`.

    """
    return _verified(path, _read(path))[0]


def _verified(path: Path, content: bytes) -> tuple[Contract, dict[str, Tensor]]:
    """Parse a file and compare its content with its checksum."""
    contract, plain, checksum = _parsed_contract(path, _header(path, content))
    try:
        tensors = load_tensors(content)
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        msg = f'{path}: damaged or truncated ({error})'
        raise BadCheckpoint(msg) from error
    given = _unnormalised(contract) | tensors
    _check_tensors(path, contract, given)
    if _checksum(plain, tensors) != checksum:
        msg = f'{path}: damaged: the checksum of its content is not the one in its header'
        raise BadCheckpoint(msg)
    return contract, given


def _read(path: Path) -> bytes:
    try:
        with open_regular(path, MAX_BYTES) as stream:
            return stream.read()
    except OSError as error:
        msg = f'{path}: cannot be read ({error.strerror})'
        raise BadCheckpoint(msg) from error


def _header(path: Path, content: bytes) -> dict[str, Any]:
    length = int.from_bytes(content[:8], 'little')
    if len(content) < 8 or length > MAX_HEADER_BYTES or content[8:9] != b'{':
        msg = f'{path}: not a safetensors file'
        raise BadCheckpoint(msg)
    if length > len(content) - 8:
        msg = f'{path}: truncated: it promises a header of {length} bytes, has {len(content) - 8}'
        raise BadCheckpoint(msg)
    return _json(path, content[8 : 8 + length], 'its header')


def _json(path: Path, text: str | bytes, what: str) -> dict[str, Any]:
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError) as error:
        msg = f'{path}: damaged: {what} is not JSON'
        raise BadCheckpoint(msg) from error
    if not isinstance(parsed, dict):
        msg = f'{path}: damaged: {what} is not a JSON object'
        raise BadCheckpoint(msg)
    return parsed


def _parsed_contract(path: Path, header: dict[str, Any]) -> tuple[Contract, dict[str, Any], str]:
    metadata = header.get('__metadata__')
    text = metadata.get('contract') if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        msg = f'{path}: has no contract in its header; it was not written by this package'
        raise BadCheckpoint(msg)
    plain = _json(path, text, 'its contract')
    # Text that means the same but reads differently was changed after it was written.
    if text != _canonical(plain):
        msg = f'{path}: damaged: its contract is not as it was written'
        raise BadCheckpoint(msg)
    checksum = str(plain.pop('checksum', ''))
    if plain.get('schema_version') != SCHEMA_VERSION:
        # The version speaks first: another version's keys would read as unknown ones.
        msg = (
            f'{path}: its schema version is {plain.get("schema_version")!r}, this package reads '
            f'{SCHEMA_VERSION}: use the package version that wrote it'
        )
        raise BadCheckpoint(msg)
    try:
        return from_mapping(Contract, plain), plain, checksum
    except BadConfig as error:
        msg = f'{path}: {error}'
        raise BadCheckpoint(msg) from error


def _built(contract: Contract) -> Network:
    classes = len(contract.class_names)
    return Network(contract.model, classes, contract.teacher, contract.segmentation)


def _unnormalised(contract: Contract) -> dict[str, Tensor]:
    """Normalisation that changes nothing but lengths: files from before there was one lack it."""
    start = EmbeddingNormalisation(contract.model.point_width).state_dict()
    return {f'normalisation.{name}': value for name, value in start.items()}


def _check_tensors(path: Path, contract: Contract, tensors: dict[str, Tensor]) -> None:
    with torch.device('meta'):
        expected = _built(contract).state_dict()
        if contract.prototypes is not None:
            examples = sum(contract.prototypes.counts)
            expected['prototypes.vectors'] = torch.zeros(examples, contract.model.point_width)
            expected['prototypes.class_of'] = torch.zeros(examples, dtype=torch.int64)
    for problem, names in (
        ('lacks the tensor', expected.keys() - tensors.keys()),
        ('has the unexpected tensor', tensors.keys() - expected.keys()),
    ):
        if names:
            more = f' and {len(names) - 1} more' if len(names) > 1 else ''
            msg = f'{path}: {problem} {min(names)}{more}'
            raise BadCheckpoint(msg)
    # In an order of its own: safetensors hands them over in any.
    for name, tensor in sorted(tensors.items()):
        wanted = expected[name]
        if (tensor.shape, tensor.dtype) != (wanted.shape, wanted.dtype):
            msg = (
                f'{path}: {name} is {tuple(tensor.shape)} {tensor.dtype}, '
                f'expected {tuple(wanted.shape)} {wanted.dtype}'
            )
            raise BadCheckpoint(msg)
        if not tensor.isfinite().all():
            bad = int((~tensor.isfinite()).sum())
            msg = f'{path}: {name} holds {bad} values that are not finite'
            raise BadCheckpoint(msg)
    if contract.prototypes is not None:
        _check_prototypes(path, contract.prototypes, tensors)


def _check_prototypes(path: Path, taught: Taught, tensors: dict[str, Tensor]) -> None:
    numbers = tensors['prototypes.class_of']  # (n,)
    classes = len(taught.names)
    known = bool(((numbers >= 0) & (numbers < classes)).all())
    if not known or tuple(torch.bincount(numbers, minlength=classes).tolist()) != taught.counts:
        msg = f'{path}: prototypes.class_of is not what its counts {taught.counts} say'
        raise BadCheckpoint(msg)
    lengths = tensors['prototypes.vectors'].norm(dim=1)  # (n,)
    if ((lengths - 1).abs() > 1e-3).any():
        msg = f'{path}: prototypes.vectors has rows that are not of unit length'
        raise BadCheckpoint(msg)


def _canonical(plain: dict[str, Any]) -> str:
    return json.dumps(plain, sort_keys=True, separators=(',', ':'))


def _checksum(plain: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(_canonical(plain).encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()
