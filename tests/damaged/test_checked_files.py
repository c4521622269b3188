# SPDX-License-Identifier: Apache-2.0
"""Files that carry checksums: whatever is damaged is refused by name, or was not touched."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from torch import Tensor

from cross4d_jepa_ros.frame_log import FrameLog
from cross4d_jepa_ros.logged_frames import BadFrameLog, read_log
from cross4d_jepa_ros.model.checkpoint import (
    BadCheckpoint,
    Contract,
    load_checkpoint,
    read_contract,
    save_checkpoint,
)
from cross4d_jepa_ros.model.network import Network
from cross4d_jepa_ros.model.prototypes import Prototypes
from cross4d_jepa_ros.model.tokenizer import input_features
from offline_training.checked_tensors import Damaged, checked, read_about, read_tensors
from offline_training.labelled_sweeps import BadSweeps, SweepFiles, write_sweeps
from offline_training.logs.table import BadIndex, Index
from offline_training.pretraining.run_folder import RunFolder, UnfitRun
from offline_training.teachers.target_cache import (
    BadTargets,
    TargetCache,
    claim_folder,
    write_shard,
)
from tests.damaged.damage import try_damaged
from tests.model.drives import SMALL
from tests.offline_training.logs.test_table import BARE, ROW
from tests.offline_training.teachers.test_target_cache import KEYS, MANIFEST, drawn
from tests.offline_training.test_labelled_sweeps import drawn as drawn_sweep
from tests.test_frame_log import NOTHING, RUN, SETTINGS, frame, perception


def plain(value: Any) -> Any:
    """Make anything comparable, to the bit."""
    if isinstance(value, Tensor):
        value = value.numpy()
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, hashlib.sha256(value.tobytes()).hexdigest()
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return value


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Write a network of 12 channels that was taught a class."""
    network = Network(SMALL, 2)
    network.initialise(torch.Generator().manual_seed(1))
    contract = Contract(
        SMALL, input_features(SMALL), 0.0, ('a', 'b'), ((0, 0, 0), (1, 1, 1)), {'kind': 'untrained'}
    )
    taught = Prototypes.none(SMALL.point_width).added('box', torch.arange(6.0))
    save_checkpoint(tmp_path / 'tiny.safetensors', contract, network, taught)
    return tmp_path / 'tiny.safetensors'


def test_checkpoints(checkpoint: Path) -> None:
    def read() -> Any:
        loaded = load_checkpoint(checkpoint)
        return plain((loaded.contract, loaded.prototypes, dict(loaded.network.state_dict())))

    trials = try_damaged(checkpoint, read, BadCheckpoint, 650, seed=1)
    trials_of_contract = try_damaged(
        checkpoint, lambda: plain(read_contract(checkpoint)), BadCheckpoint, 350, seed=2
    )
    assert trials.same == trials_of_contract.same == 0


def test_indexes(tmp_path: Path) -> None:
    path = tmp_path / 'index.parquet'
    Index([BARE, ROW, replace(ROW, segment=4)], tmp_path).save(path)

    trials = try_damaged(path, lambda: plain(Index.load(path).rows), BadIndex, 1000, seed=3)
    assert trials.same == 0


@pytest.mark.parametrize('part', ['manifest', 'shard'])
def test_target_caches(tmp_path: Path, part: str) -> None:
    folder = tmp_path / 'targets'
    claim_folder(folder, MANIFEST)
    shard = write_shard(folder, KEYS[:2], [drawn(0), drawn(1)])
    write_shard(folder, KEYS[2:], [drawn(2), drawn(3)])

    def read() -> Any:
        cache = TargetCache(folder)
        return plain((cache.manifest, [cache.read(*key) for key in KEYS]))

    path = folder / 'manifest.json' if part == 'manifest' else shard
    trials = try_damaged(path, read, BadTargets, 500 if part == 'manifest' else 800, seed=4)
    # White space between entries may be another, and entries may have other places.
    assert trials.same < 0.02 * sum(trials.tried.values())


def test_sweep_files(tmp_path: Path) -> None:
    path = tmp_path / 'drive.safetensors'
    write_sweeps(path, [drawn_sweep(number, 9) for number in range(3)])

    def read() -> Any:
        files = SweepFiles([path])
        return plain([files[number] for number in range(len(files))])

    assert try_damaged(path, read, BadSweeps, 500, seed=5).same == 0


def test_saved_runs(tmp_path: Path) -> None:
    settings = {'seed': 0, 'data': {'index_sha256': 'aa'}}
    RunFolder(tmp_path, settings).save(7, {'a': torch.arange(30.0), 'b': torch.tensor(0.1)})

    def read() -> Any:
        return plain(RunFolder(tmp_path, settings).resumed())

    assert try_damaged(tmp_path / 'state.safetensors', read, UnfitRun, 500, seed=6).same == 0


def test_frame_logs(tmp_path: Path) -> None:
    path = tmp_path / 'log.jsonl'
    log = FrameLog(path)
    made, *_ = frame()
    taught = NOTHING.added('box', torch.tensor([1.0, 2.0, 1 / 3]))
    for run in (RUN, replace(RUN, device='cuda')):
        log.begin(run)
        for prototypes in (NOTHING, taught, taught):
            settings = replace(SETTINGS, prototypes=prototypes)
            log.add(made, (9,), perception([1, len(prototypes.names)]), settings)
    log.close()
    whole = [plain(sweep) for sweep in read_log(path)[0]]
    assert len(whole) == 6

    def read() -> Any:
        sweeps, torn = read_log(path)
        found, rest = [plain(sweep) for sweep in sweeps], iter(whole)
        assert all(sweep in rest for sweep in found), 'a sweep that was not logged'
        # The end may be missing, as if the node had ended there; all else is counted.
        return whole if torn or found == whole[: len(found)] else found

    assert sum(try_damaged(path, read, BadFrameLog, 300, seed=7).tried.values()) >= 300


def test_older_files_without_a_checksum_are_read(tmp_path: Path) -> None:
    path, columns = tmp_path / 'state.safetensors', {'a': np.arange(5)}
    save_file(columns, path, {'rows': '[{"loss": 0.5}]', 'done': '3'})
    tensors, about = read_tensors(path, older=('rows', 'done'))
    assert about == {'rows': [{'loss': 0.5}], 'done': 3}
    assert torch.equal(tensors['a'], torch.arange(5))
    with pytest.raises(Damaged, match='it has no checksum'):
        read_about(path, older=('rows', 'steps'))


@pytest.mark.parametrize('change', ['about', 'tensor', 'type', 'shape', 'name', 'no checksum'])
def test_a_well_formed_file_with_other_content_is_refused(tmp_path: Path, change: str) -> None:
    path = tmp_path / 'a.safetensors'
    path.write_bytes(checked({'a': np.arange(6, dtype=np.int32)}, {'done': 3}))
    with safe_open(path, 'np') as file:
        about, values = json.loads(file.metadata()['about']), file.get_tensor('a')
    assert read_about(path, older=()) == {'done': 3}
    if change == 'about':
        about['done'] = 4
    elif change == 'tensor':
        values = values + 1
    elif change == 'type':
        values = values.view(np.uint32)
    elif change == 'shape':
        values = values.reshape(2, 3)
    elif change == 'no checksum':
        del about['checksum']
    name = 'b' if change == 'name' else 'a'
    save_file({name: values}, path, {'about': json.dumps(about)})
    with pytest.raises(Damaged):
        read_about(path, older=())
