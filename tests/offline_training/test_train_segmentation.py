# SPDX-License-Identifier: Apache-2.0
"""Training on tiny recordings: learns, repeats itself, goes on where it stopped."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from rich.console import Console

from cross4d_jepa_ros.bag_setup import UnfitBag
from cross4d_jepa_ros.model.checkpoint import (
    BadCheckpoint,
    Contract,
    load_checkpoint,
    save_checkpoint,
)
from cross4d_jepa_ros.model.config import BadConfig
from cross4d_jepa_ros.model.network import Network
from cross4d_jepa_ros.model.tokenizer import input_features
from offline_training import segmentation_training, street_recordings, train_segmentation
from offline_training.labelled_sweeps import SweepFiles, read_recording
from offline_training.make_street_bag import VERSION
from offline_training.segmentation_run import read_rows
from offline_training.street.classes import CLASS_NAMES
from offline_training.train_segmentation import main, train
from offline_training.training_settings import Training, load_training
from tests import tiny_labels
from tests.interrupted import interrupt_call
from tests.tiny_drives import MODEL
from tests.tiny_street import street, write_tiny_street

TRAINING = Path(__file__).parents[2] / 'config' / 'training'
DEMO, DEMO_SWEEPS = TRAINING / 'demo.yaml', TRAINING / 'demo_sweeps.yaml'
QUIET = Console(quiet=True)

Settings = Callable[..., Training]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Two threads that meet after every tiny step wait for each other where cores are busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of a run of two small towns with two sweeps each, some of them other than said."""
    monkeypatch.setattr(street_recordings, 'write_street_bag', write_tiny_street)
    # Other processes would know nothing of the stand-in.
    monkeypatch.setattr(
        street_recordings, 'ProcessPoolExecutor', lambda count, *_, **__: ThreadPoolExecutor(count)
    )
    towns = {'count': 2, 'seconds': 0.4, 'sweep_stride': 2}

    def made(base: Path = DEMO, **changes: Any) -> Training:
        given = yaml.safe_load(base.read_text())
        given |= {
            'warm_start': None,
            'work': str(tmp_path / 'work'),
            'towns': {'first_seed': 1, **towns},
            'held_out': {'first_seed': 5, **towns, 'count': 1},
            'epochs': 2,
            'steps': None,
            'batch': 2,
            **changes,
        }
        path = tmp_path / 'tiny.yaml'
        path.write_text(yaml.safe_dump(given))
        return load_training(path)

    return made


@pytest.mark.parametrize(('base', 'sweeps', 'epochs'), [(DEMO_SWEEPS, 1, 10), (DEMO, 4, 15)])
def test_it_learns_and_says_what_it_did(
    settings: Settings, tmp_path: Path, base: Path, sweeps: int, epochs: int
) -> None:
    out = tmp_path / 'tiny.safetensors'
    config = settings(base, epochs=epochs, batch=1, learning_rate=0.003)
    contract = train(config, 'the command', out, QUIET)
    state = next((tmp_path / 'work').glob('state_*.safetensors'))
    rows = read_rows(state)
    assert [row['epoch'] for row in rows] == list(range(1, epochs + 1))
    assert rows[-1]['loss'] < 0.5 * rows[0]['loss']
    assert rows[-1]['road'] > 0.8
    assert 'car' not in rows[-1]
    assert rows[-1]['miou'] == pytest.approx(
        np.mean([rows[-1][name] for name in ('road', 'building', 'pole')])
    )
    loaded = load_checkpoint(out)
    assert loaded.contract == contract
    assert contract.class_names == CLASS_NAMES
    assert contract.training['kind'] == 'supervised'
    assert contract.training['command'] == 'the command'
    assert contract.training['miou'] == round(rows[-1]['miou'], 4)
    assert '2 towns (seeds 1 to 2) of 0.4 s, 4 sweeps' in str(contract.training['data'])
    assert contract.model.sweeps == sweeps
    assert 'warm_start' not in contract.training
    assert loaded.network.colour_basis.mean.abs().max() > 0


def test_the_same_seed_gives_the_same_bytes(settings: Settings, tmp_path: Path) -> None:
    outs = []
    for name, seed in (('a', 0), ('b', 0), ('c', 1)):
        outs.append(tmp_path / f'{name}.safetensors')
        train(settings(seed=seed, work=str(tmp_path / name)), 'x', outs[-1], QUIET)
    first, second, other = (out.read_bytes() for out in outs)
    assert first == second
    assert first != other
    assert not torch.are_deterministic_algorithms_enabled()


def test_an_interrupted_run_ends_with_the_same_bytes(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, resumed = tmp_path / 'whole.safetensors', tmp_path / 'resumed.safetensors'
    train(settings(epochs=3), 'x', whole, QUIET)
    config = settings(epochs=3, work=str(tmp_path / 'other'))
    calls = interrupt_call(monkeypatch, segmentation_training, 'score', 3)
    with pytest.raises(KeyboardInterrupt):
        train(config, 'x', resumed, QUIET)
    assert not resumed.exists()
    train(config, 'x', resumed, QUIET)
    # One epoch was repeated, the two before it were not.
    assert len(calls) == 4
    assert resumed.read_bytes() == whole.read_bytes()


def test_a_run_goes_on_from_single_sweeps_to_windows(settings: Settings, tmp_path: Path) -> None:
    first, second = tmp_path / 'first.safetensors', tmp_path / 'second.safetensors'
    train(settings(DEMO_SWEEPS, epochs=1), 'x', first, QUIET)
    # So slow that what is started from is still to be seen.
    config = settings(epochs=1, learning_rate=1e-9, warm_start=str(first))
    contract = train(config, 'x', second, QUIET)
    before, after = load_checkpoint(first), load_checkpoint(second)
    assert contract.training['warm_start'] == str(first)
    assert contract.training['warm_start_sha256'] == before.sha256
    old, new = before.network.state_dict(), after.network.state_dict()
    shared = [name for name in old if not name.startswith(('colour_basis', 'normalisation'))]
    assert set(new) - set(old) == {name for name in new if name.startswith('temporal.')} != set()
    for name in shared:
        torch.testing.assert_close(new[name], old[name], atol=1e-6, rtol=0)
    # Weights of another start are another run.
    train(settings(DEMO_SWEEPS, epochs=1, seed=1), 'x', first, QUIET)
    train(config, 'x', second, QUIET)
    assert load_checkpoint(second).contract.training['warm_start_sha256'] != before.sha256
    assert len(list((tmp_path / 'work').glob('state_*.safetensors'))) == 4


def test_a_start_that_is_no_checkpoint_is_refused(settings: Settings, tmp_path: Path) -> None:
    config = settings(warm_start=str(tmp_path / 'absent.safetensors'))
    with pytest.raises(BadCheckpoint, match=r'absent\.safetensors: cannot be read'):
        train(config, 'x', tmp_path / 'out.safetensors', QUIET)


def test_windows_of_another_stride_are_refused(settings: Settings, tmp_path: Path) -> None:
    towns = {'first_seed': 5, 'count': 1, 'seconds': 0.4, 'sweep_stride': 1}
    sentence = r'from 5 on is 1, that of nano.yaml is 2: windows need the same'
    with pytest.raises(BadConfig, match=sentence):
        train(settings(held_out=towns), 'x', tmp_path / 'out.safetensors', QUIET)


def test_another_run_does_not_go_on_from_this_one(settings: Settings, tmp_path: Path) -> None:
    out = tmp_path / 'out.safetensors'
    for rate in (0.001, 0.002):
        train(settings(epochs=1, learning_rate=rate), 'x', out, QUIET)
    assert len(list((tmp_path / 'work').glob('state_*.safetensors'))) == 2


def test_recordings_and_sweeps_are_made_once(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def counting(path: Path, seed: int, seconds: float, **_: object) -> int:
        made.append(seed)
        return write_tiny_street(path, seed, seconds)

    monkeypatch.setattr(street_recordings, 'write_street_bag', counting)
    config = settings(epochs=1)
    # What an interrupted run left behind is no recording.
    recordings = tmp_path / 'work' / 'recordings'
    for seed in config.towns.seeds:
        left = recordings / 'unfinished' / f'street_{VERSION}_{seed}_0.4s'
        left.mkdir(parents=True)
        (left / 'left.mcap').touch()
    train(config, 'x', tmp_path / 'out.safetensors', QUIET)
    assert sorted(made) == [1, 2, 5]
    # Sweeps are kept, recordings are not.
    assert not list(recordings.glob('street_*'))
    train(config, 'x', tmp_path / 'out.safetensors', QUIET)
    assert sorted(made) == [1, 2, 5]


def test_read_sweeps_carry_colour_labels_and_the_ground_at_zero(
    settings: Settings, tmp_path: Path
) -> None:
    config = settings()
    poses = []
    sweeps = train_segmentation.sweep_files(config, config.towns, 8.0, QUIET)
    assert isinstance(sweeps, SweepFiles)
    assert len(sweeps) == 4
    assert sweeps.label_counts().sum() == sum(len(sweeps[i].label) for i in range(4))
    for number in range(4):
        got = sweeps[number]
        xyz, labels = street(1000 * (1 + number // 2) + 2 * (number % 2))
        xyz[:, 2] += 1.8
        near = np.linalg.norm(xyz, axis=1) <= 8
        np.testing.assert_allclose(got.xyz, xyz[near], atol=0.02)
        np.testing.assert_array_equal(got.label, labels[near])
        assert got.intensity is not None
        np.testing.assert_allclose(got.intensity, 0.3, atol=0.003)
        lit = got.rgb[:, 3] == 1
        assert (got.xyz[lit, 0] > 0).all()
        assert 0 < lit.sum() < len(lit)
        np.testing.assert_allclose(got.rgb[lit, :3], 80 * (number % 2) / 255, atol=1e-3)
        assert not got.rgb[~lit].any()
        assert not got.moving.any()
        assert got.fixed_from_base is not None
        poses.append(got.fixed_from_base[:2, 3].tolist())
    assert np.allclose(poses, [[0, 0], [0.2, 0]] * 2)
    assert sweeps[1].stamp_ns - sweeps[0].stamp_ns == 200_000_000
    with pytest.raises(IndexError, match='sweep 4 of 4'):
        sweeps[4]


def test_a_recording_of_other_classes_is_refused(tmp_path: Path) -> None:
    write_tiny_street(tmp_path / 'bag', 1, 0.1, class_names='water, ice')
    with pytest.raises(UnfitBag, match='water, ice; wanted are road'):
        list(read_recording(tmp_path / 'bag', CLASS_NAMES, stride=1, range_m=60.0))


@pytest.mark.parametrize(
    ('changes', 'sentence'),
    [
        ({'epoch': 3}, "unknown key 'epoch'"),
        ({'held_out': {'first_seed': 2, 'count': 1, 'seconds': 1, 'sweep_stride': 1}}, 'town 2'),
        (
            {'held_out': {'first_seed': 9, 'count': 0, 'seconds': 1, 'sweep_stride': 1}},
            'count is 0',
        ),
        ({'held_out': {'first_seed': 9, 'count': 1, 'seconds': -2, 'sweep_stride': 1}}, 'seconds'),
        ({'learning_rate': -1.0}, 'learning_rate is -1'),
        ({'batch': 0}, 'batch is 0'),
        ({'warm_up': 5.0}, 'warm_up is 5.0'),
        ({'sweeps': 0}, 'sweeps is 0'),
        ({'sweeps': 1}, 'sweeps is 1, which leaves nothing to remember'),
        ({'motion_weight': -1.0}, 'motion_weight is -1'),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    settings: Settings, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(BadConfig, match=sentence):
        settings(**changes)


def test_the_command_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / 'broken.yaml'
    broken.write_text('seed: 1\nsede: 2\n')
    assert main([str(broken), str(tmp_path / 'out.safetensors')]) == 2
    assert "unknown key 'sede': did you mean 'seed'?" in ' '.join(capsys.readouterr().out.split())


def test_the_demo_leaves_its_own_town_alone() -> None:
    configs = [load_training(path) for path in (DEMO, DEMO_SWEEPS)]
    demo = re.search(r'make_street_bag .*--seed (\d+)', (DEMO.parents[2] / 'Makefile').read_text())
    assert demo is not None
    for config in configs:
        assert int(demo[1]) not in {*config.towns.seeds, *config.held_out.seeds}


@pytest.fixture
def pretrained(tmp_path: Path) -> Path:
    """A checkpoint without classes, of a network with drawn weights."""
    model = replace(MODEL, colour=False)
    network = Network(model, 0)
    network.initialise(torch.Generator().manual_seed(0))
    contract = Contract(model, input_features(model), 0.0, (), (), {'kind': 'pretrained'})
    save_checkpoint(tmp_path / 'start.safetensors', contract, network)
    return tmp_path / 'start.safetensors'


def words(tmp_path: Path, preset: str, **changes: object) -> list[str]:
    given = {'work': tmp_path / 'work', 'batch': 64, **changes}
    out = str(tmp_path / 'out.safetensors')
    return [
        *(str(TRAINING / f'{preset}.yaml'), out),
        *(f'--set={key}={value}' for key, value in given.items()),
    ]


@pytest.mark.parametrize('preset', ['linear_probe', 'mlp_head', 'fine_tune'])
def test_an_index_and_a_label_map_become_a_checkpoint(
    tmp_path: Path, pretrained: Path, preset: str, capsys: pytest.CaptureFixture[str]
) -> None:
    index = tiny_labels.indexed(tmp_path, tiny_labels.labelled_bag(tmp_path / 'bag', 8))
    labels = TRAINING.parent / 'label_maps' / 'street.yaml'
    length = {'steps': 6, 'score_every': 6, 'batch': 1} if preset == 'fine_tune' else {'steps': 200}
    command = [
        *words(tmp_path, preset, **length),
        *('--index', str(index), '--labels', str(labels), '--start', str(pretrained)),
    ]
    assert main(command) == 0
    said = ' '.join(capsys.readouterr().out.split())
    assert 'no --held-out is given: the last 15% of each log are held out' in said
    contract = load_checkpoint(tmp_path / 'out.safetensors').contract
    assert contract.class_names == CLASS_NAMES
    assert contract.training['miou'] > 0.5
    source = (
        r'index\.parquet \(\w{12}\), 7 labelled sweeps of 1 logs; the last 15% of each log held'
    )
    assert re.match(source, str(contract.training['data']))
    assert contract.training['command'] == shlex.join(
        ['python', '-m', 'offline_training.train_segmentation', *command]
    )
    # Held out elsewhere: all of the first index is learnt from.
    assert main([*command, '--held-out', str(index)]) == 2
    assert 'is learnt from and held out' in ' '.join(capsys.readouterr().out.split())
    (tmp_path / 'other').mkdir()
    bag = tiny_labels.labelled_bag(tmp_path / 'other' / 'bag')
    other = tiny_labels.indexed(tmp_path / 'other', bag)
    assert main([*command, '--held-out', str(other)]) == 0
    contract = load_checkpoint(tmp_path / 'out.safetensors').contract
    assert '8 labelled sweeps of 1 logs; index.parquet (' in str(contract.training['data'])


@pytest.mark.parametrize(
    ('preset', 'more', 'sentence'),
    [
        ('demo', ['--index', 'i', '--labels', 'm'], 'there are an index and towns: leave out'),
        ('linear_probe', ['--index', 'i'], '--index and --labels go together'),
        ('linear_probe', ['--held-out', 'i'], '--held-out only with them'),
        ('linear_probe', [], 'there is nothing to learn from: give --index and --labels, or towns'),
    ],
)
def test_what_labels_come_from_is_said_once(
    tmp_path: Path,
    pretrained: Path,
    preset: str,
    more: list[str],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    labels = str(TRAINING.parent / 'label_maps' / 'street.yaml')
    more = [labels if word == 'm' else word for word in more]
    start = str(pretrained)
    model = ['--set=model=null', '--set=sweeps=null'] if preset == 'demo' else []
    towns = {'first_seed': 1, 'count': 1, 'seconds': 0.4, 'sweep_stride': 1}
    if preset == 'demo':
        model += [f'--set=towns={towns}', f'--set=held_out={towns | {"first_seed": 2}}']
    assert main([*words(tmp_path, preset), '--start', start, *model, *more]) == 2
    assert sentence in ' '.join(capsys.readouterr().out.split())


def test_linear_probes_learn_from_towns_too(
    settings: Settings, tmp_path: Path, pretrained: Path
) -> None:
    towns = {'first_seed': 1, 'count': 2, 'seconds': 0.4, 'sweep_stride': 1}
    config = settings(
        TRAINING / 'linear_probe.yaml',
        warm_start=str(pretrained),
        towns=towns,
        held_out=towns | {'first_seed': 5, 'count': 1},
        epochs=20,
        batch=256,
    )
    contract = train(config, 'x', tmp_path / 'out.safetensors', QUIET)
    assert contract.training['kind'] == 'linear_probe'
    assert contract.training['miou'] > 0.5
    assert '2 towns (seeds 1 to 2) of 0.4 s, 8 sweeps' in str(contract.training['data'])
