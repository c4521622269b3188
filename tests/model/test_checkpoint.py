# SPDX-License-Identifier: Apache-2.0
"""Checkpoints come back as they were saved, and anything else is refused with its reason."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from cross4d_jepa_ros.model.checkpoint import (
    BadCheckpoint,
    Contract,
    load_checkpoint,
    read_contract,
    save_checkpoint,
)
from cross4d_jepa_ros.model.checkpoint import _checksum as checksum
from cross4d_jepa_ros.model.config import BadConfig, ModelConfig, Segmentation, Taught, Teacher
from cross4d_jepa_ros.model.network import Network
from cross4d_jepa_ros.model.prototypes import Prototypes
from cross4d_jepa_ros.model.tokenizer import input_features


@pytest.fixture
def contract(config: ModelConfig) -> Contract:
    return Contract(
        model=config,
        features=input_features(config),
        base_height_m=0.0,
        class_names=('road', 'Fußweg', 'car "a"'),
        palette=((1, 2, 3), (0, 0, 0), (255, 255, 255)),
        training={'kind': 'untrained', 'seed': 1, 'rate': 0.5},
    )


@pytest.fixture
def path(tmp_path: Path, contract: Contract, network: Network) -> Path:
    path = tmp_path / 'tiny.safetensors'
    save_checkpoint(path, contract, network)
    return path


Change = Callable[[dict[str, Any], dict[str, Tensor]], None]


def rewrite(path: Path, change: Change) -> None:
    """Change contract and tensors, and write a well-formed file with the old checksum."""
    with safetensors.safe_open(path, 'pt') as opened:
        plain = json.loads(opened.metadata()['contract'])
    tensors = safetensors.torch.load_file(path)
    change(plain, tensors)
    text = json.dumps(plain, sort_keys=True, separators=(',', ':'))
    safetensors.torch.save_file(tensors, path, {'contract': text})


def test_round_trip(path: Path, contract: Contract, network: Network) -> None:
    loaded = load_checkpoint(path)
    assert loaded.contract == read_contract(path) == contract
    assert loaded.contract.colour is True
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert not loaded.network.training
    saved = network.state_dict()
    for name, value in loaded.network.state_dict().items():
        assert torch.equal(value, saved[name])


def test_equal_content_gives_equal_bytes(
    tmp_path: Path, path: Path, contract: Contract, network: Network
) -> None:
    again = tmp_path / 'again' / 'other_name.safetensors'
    save_checkpoint(again, contract, network)
    assert again.read_bytes() == path.read_bytes()
    assert [file.name for file in again.parent.iterdir()] == ['other_name.safetensors']


def test_any_safetensors_reader_reads_it(path: Path, network: Network) -> None:
    with safetensors.safe_open(path, 'pt') as opened:
        assert set(opened.keys()) == set(network.state_dict())
        assert json.loads(opened.metadata()['contract'])['schema_version'] == 2


def test_a_head_is_optional(tmp_path: Path, contract: Contract, config: ModelConfig) -> None:
    path = tmp_path / 'headless.safetensors'
    save_checkpoint(path, replace(contract, class_names=(), palette=()), Network(config, 0))
    loaded = load_checkpoint(path)
    assert loaded.contract.class_names == ()
    assert loaded.network.segmentation is None


def test_a_head_in_teacher_space_comes_back(
    tmp_path: Path, contract: Contract, config: ModelConfig
) -> None:
    contract = replace(
        contract,
        teacher=Teacher('lite0', 'ab' * 32, 64, 16, channels=9, components=5, hidden=7),
        segmentation=Segmentation('teacher', 6),
    )
    network = Network(config, 3, contract.teacher, contract.segmentation)
    network.initialise(torch.Generator().manual_seed(1))
    save_checkpoint(tmp_path / 'headed', contract, network)
    loaded = load_checkpoint(tmp_path / 'headed')
    assert loaded.contract == contract
    embedding = torch.randn(9, config.point_width)
    assert torch.equal(loaded.network.segmentation(embedding), network.segmentation(embedding))
    with pytest.raises(BadConfig, match='space of a teacher'):
        replace(contract, teacher=None)


def taught(width: int) -> Prototypes:
    """Three examples of two classes."""
    draw = torch.Generator().manual_seed(3)
    prototypes = Prototypes.none(width)
    for name in ('kerb', 'road', 'kerb'):
        prototypes = prototypes.added(name, torch.randn(width, generator=draw))
    return prototypes


@pytest.fixture
def taught_path(tmp_path: Path, contract: Contract, network: Network) -> Path:
    path = tmp_path / 'tiny.safetensors'
    save_checkpoint(path, contract, network, taught(contract.model.point_width))
    return path


def test_prototypes_come_back_and_answer_the_same(
    tmp_path: Path, taught_path: Path, contract: Contract
) -> None:
    before, loaded = taught(contract.model.point_width), load_checkpoint(taught_path)
    assert loaded.contract == replace(contract, prototypes=Taught(('kerb', 'road'), (2, 1)))
    assert loaded.prototypes.names == before.names
    embedding = loaded.network.normalisation(torch.randn(50, contract.model.point_width))
    pairs = zip(loaded.prototypes.answer(embedding), before.answer(embedding), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)
    # What is not taught any more leaves the file.
    save_checkpoint(tmp_path / 'forgotten', loaded.contract, loaded.network)
    forgotten = load_checkpoint(tmp_path / 'forgotten')
    assert forgotten.contract.prototypes is None
    assert forgotten.prototypes.counts == ()


@pytest.mark.parametrize(
    ('change', 'reason'),
    [
        (lambda plain, _: plain['prototypes']['counts'].pop(), 'counts are'),
        (lambda plain, _: plain['prototypes'].update(counts=[1, 2]), r'class_of is not .*\(1, 2\)'),
        (lambda plain, _: plain['prototypes'].update(counts=[3, 1]), r'class_of is \(3,\)'),
        (lambda plain, _: plain['prototypes'].update(counts=[2, 0]), 'above 0'),
        (lambda plain, _: plain['prototypes'].update(names=['a', 'a']), 'distinct'),
        (lambda plain, _: plain['prototypes'].update(names=['kerb', 'raod']), 'checksum'),
        (lambda plain, _: plain.update(prototypes=None), 'unexpected tensor prototypes.class_of'),
        (lambda plain, _: plain.update(segmentation={'space': 'image'}), 'space is'),
        (lambda plain, _: plain.update(segmentation={'space': 'teacher'}), 'has none'),
        (lambda plain, _: plain['segmentation'].update(hidden=-1), 'hidden is -1'),
        (lambda _, tensors: tensors['prototypes.class_of'].fill_(9), 'class_of is not'),
        (lambda _, tensors: tensors['prototypes.class_of'].fill_(-1), 'class_of is not'),
        (lambda _, tensors: tensors['prototypes.vectors'].mul_(2), 'unit length'),
        (lambda _, tensors: tensors['prototypes.vectors'].neg_(), 'checksum'),
        (
            lambda _, tensors: tensors['prototypes.vectors'].fill_(float('nan')),
            'prototypes.vectors holds .* not finite',
        ),
    ],
)
def test_damaged_prototypes_are_refused(taught_path: Path, change: Change, reason: str) -> None:
    rewrite(taught_path, change)
    with pytest.raises(BadCheckpoint, match=rf'tiny\.safetensors: .*({reason})'):
        load_checkpoint(taught_path)


def test_a_file_from_before_the_normalisation_is_read_without(path: Path) -> None:
    with safetensors.safe_open(path, 'pt') as opened:
        plain = json.loads(opened.metadata()['contract'])
    del plain['checksum'], plain['segmentation']
    tensors = safetensors.torch.load_file(path)
    tensors = {name: value for name, value in tensors.items() if 'normalisation' not in name}
    text = json.dumps(
        {**plain, 'checksum': checksum(plain, tensors)}, sort_keys=True, separators=(',', ':')
    )
    safetensors.torch.save_file(tensors, path, {'contract': text})
    normalisation = load_checkpoint(path).network.normalisation
    assert torch.equal(normalisation.matrix, torch.eye(len(normalisation.mean)))


def test_a_network_that_breaks_its_contract_is_not_saved(
    tmp_path: Path, contract: Contract, config: ModelConfig
) -> None:
    with pytest.raises(BadCheckpoint, match=r'segmentation\.bias is \(2,\).*expected \(3,\)'):
        save_checkpoint(tmp_path / 'x.safetensors', contract, Network(config, 2))
    assert list(tmp_path.iterdir()) == []


def test_every_flipped_bit_is_refused(path: Path) -> None:
    content = bytearray(path.read_bytes())
    header = 8 + int.from_bytes(content[:8], 'little')
    draw = random.Random(0)
    places = [*range(64), len(content) - 1]
    places += draw.sample(range(64, header), 250) + draw.sample(range(header, len(content)), 150)
    for place in places:
        bit = 1 << draw.randrange(8)
        content[place] ^= bit
        path.write_bytes(content)
        with pytest.raises(BadCheckpoint, match=r'tiny\.safetensors'):
            load_checkpoint(path)
        content[place] ^= bit
    path.write_bytes(content)
    load_checkpoint(path)


@pytest.mark.parametrize('part', [0.0, 0.0001, 0.001, 0.1, 0.3, 0.6, 0.9, 0.9999])
def test_truncated_files_are_refused(path: Path, part: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(BadCheckpoint, match=r'tiny\.safetensors: (not a|damaged|truncated)'):
        load_checkpoint(path)


def test_appended_bytes_are_refused(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b'\0')
    with pytest.raises(BadCheckpoint, match='damaged'):
        load_checkpoint(path)


def headed(header: bytes) -> bytes:
    return len(header).to_bytes(8, 'little') + header


@pytest.mark.parametrize(
    ('content', 'reason'),
    [
        (b'', 'not a safetensors file'),
        (b'PK\x03\x04' + b'\0' * 100, 'not a safetensors file'),
        (b'\x80\x02}q\x00.' * 40, 'not a safetensors file'),
        ((1 << 62).to_bytes(8, 'little') + b'{}', 'not a safetensors file'),
        (headed(b'{}'), 'no contract'),
        (headed(b'{"__metadata__": 3}'), 'no contract'),
        (headed(b'{"__metadata__": {"contract": 3}}'), 'no contract'),
        (headed(b'{"__metadata__": {"contract": "["}}'), 'its contract is not JSON'),
        (headed(b'{"__metadata__": {"contract": "[]"}}'), 'not a JSON object'),
        (headed(b'{"__metadata__": {"contract": "{}"}}'), 'schema version is None'),
        (headed(b'{' * 50000), 'its header is not JSON'),
        (headed(b'{"a":' + b'[' * 200000), 'its header is not JSON'),
        (headed(b'{\xff\xfe}'), 'its header is not JSON'),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / 'other.safetensors'
    path.write_bytes(content)
    for read in (load_checkpoint, read_contract):
        with pytest.raises(BadCheckpoint, match=f'other.safetensors: .*{reason}'):
            read(path)


def test_unreadable_paths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadCheckpoint, match=r'nowhere\.safetensors: cannot be read \(No such file'):
        load_checkpoint(tmp_path / 'nowhere.safetensors')
    with pytest.raises(BadCheckpoint, match='cannot be read'):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ('change', 'reason'),
    [
        (lambda plain, _: plain.update(schema_version=3), 'schema version is 3.* reads 2'),
        (lambda plain, _: plain.update(schema_version='2'), "schema version is '2'"),
        (lambda plain, _: plain.update(pallete=[]), "unknown key 'pallete'.* 'palette'"),
        (lambda plain, _: plain.pop('features'), 'missing key features'),
        (lambda plain, _: plain['model'].update(depth=4), "model: unknown key 'depth'"),
        (lambda plain, _: plain['model'].update(width=14), 'width|expected'),
        (lambda plain, _: plain['model'].update(blocks=1 << 40), 'model: blocks is'),
        (lambda plain, _: plain['features'].pop(), 'input features'),
        (lambda plain, _: plain['features'][0].update(divisor=2.0), 'input features'),
        (lambda plain, _: plain.update(class_names=['a', 'b', 'a']), 'distinct'),
        (lambda plain, _: plain['palette'].pop(), '3 classes but 2 palette colours'),
        (lambda plain, _: plain['palette'][0].pop(), r'palette\[0\] is \[1, 2\]'),
        (lambda plain, _: plain.update(palette=[[0, 0, 256]] * 3), r'outside 0\.\.255'),
        (lambda plain, _: plain.update(teacher='dino'), "teacher is 'dino'"),
        (lambda plain, _: plain.update(training={}), 'no kind'),
        (lambda plain, _: plain.update(training={'kind': [1]}), r'training\.kind is \[1\]'),
        (lambda plain, _: plain.pop('checksum'), 'checksum'),
        (lambda plain, _: plain.update(base_height_m=1.0), 'checksum'),
        (lambda _, tensors: tensors.pop('encoder.norm.bias'), 'lacks the tensor encoder.norm.bias'),
        (lambda _, tensors: tensors.update(extra=torch.zeros(1)), 'unexpected tensor extra'),
        (
            lambda _, tensors: tensors.update({'encoder.norm.bias': torch.zeros(13)}),
            r'encoder.norm.bias is \(13,\)',
        ),
        (
            lambda _, tensors: tensors.update({'encoder.norm.bias': torch.zeros(12).half()}),
            r'float16, expected \(12,\) torch.float32',
        ),
        (
            lambda _, tensors: tensors['encoder.norm.bias'].fill_(float('nan')),
            'encoder.norm.bias holds 12 values that are not finite',
        ),
        (lambda _, tensors: tensors['encoder.norm.bias'].add_(1e-3), 'checksum'),
    ],
)
def test_changed_content_is_refused(path: Path, change: Change, reason: str) -> None:
    rewrite(path, change)
    with pytest.raises(BadCheckpoint, match=rf'tiny\.safetensors: .*({reason})'):
        load_checkpoint(path)


def test_unchanged_content_is_accepted(path: Path, contract: Contract) -> None:
    rewrite(path, lambda _plain, _tensors: None)
    assert load_checkpoint(path).contract == contract


def test_a_contract_written_otherwise_is_refused(path: Path) -> None:
    with safetensors.safe_open(path, 'pt') as opened:
        text = opened.metadata()['contract'].replace('"sweeps":1', '"sweeps": 1')
    safetensors.torch.save_file(safetensors.torch.load_file(path), path, {'contract': text})
    with pytest.raises(BadCheckpoint, match='not as it was written'):
        load_checkpoint(path)


def test_a_contract_checks_itself(contract: Contract) -> None:
    with pytest.raises(BadConfig, match='3 classes but 0 palette colours'):
        replace(contract, palette=())
