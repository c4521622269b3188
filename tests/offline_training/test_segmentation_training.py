# SPDX-License-Identifier: Apache-2.0
"""Heads on frozen networks, fine-tuning and few labels, on small recordings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from cross4d_jepa_ros.model.checkpoint import Contract, load_checkpoint, save_checkpoint
from cross4d_jepa_ros.model.config import BadConfig, ModelConfig, Teacher
from cross4d_jepa_ros.model.heads import SegmentationHead
from cross4d_jepa_ros.model.network import Network
from cross4d_jepa_ros.model.tokenizer import input_features
from offline_training import segmentation_training
from offline_training.augmentation import AS_RECORDED
from offline_training.frozen_head import HeadTraining, fold, labelled_embeddings
from offline_training.labelled_sweeps import LabelledSweep, SweepFiles, write_sweeps
from offline_training.probes import Probe
from offline_training.segmentation_run import answered, sweep_input
from offline_training.segmentation_training import LabelledData, train_on
from offline_training.training_settings import Training
from offline_training.warm_start import take_over
from tests.interrupted import interrupt_call
from tests.tiny_drives import MODEL
from tests.tiny_street import street

QUIET = Console(quiet=True)
PLAIN = replace(MODEL, colour=False)
NAMES, PALETTE = ('floor', 'wall', 'pole'), ((1, 2, 3), (4, 5, 6), (7, 8, 9))
TEACHER = Teacher('lite0', '0' * 64, 384, 32, 16, 8, 0)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Two threads that meet after every tiny step wait for each other where cores are busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def recording(path: Path, seed: int, sweeps: int) -> Path:
    written = []
    for number in range(sweeps):
        xyz, labels = street(1000 * seed + number)
        xyz[:, 2] += 1.8
        classes = np.select([labels == 0, labels == 2], [0, 1], 2).astype(np.uint8)
        pose = np.eye(4)
        pose[0, 3] = 0.1 * number
        written.append(
            LabelledSweep(
                stamp_ns=number * 200_000_000,
                xyz=xyz,
                intensity=None,
                rgb=np.zeros((len(xyz), 4), np.float32),
                label=classes,
                moving=np.full(len(xyz), 255, np.uint8),
                fixed_from_base=pose,
            )
        )
    write_sweeps(path, written)
    return path


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> LabelledData:
    folder = tmp_path_factory.mktemp('streets')
    return LabelledData(
        learnt=SweepFiles([recording(folder / f'learnt_{seed}', seed, 4) for seed in range(2)]),
        held_out=SweepFiles([recording(folder / 'held_out', 9, 2)]),
        class_names=NAMES,
        palette=PALETTE,
        source='two streets',
    )


def drawn(
    model: ModelConfig, classes: int, seed: int = 0, teacher: Teacher | None = None
) -> Network:
    network = Network(model, classes, teacher)
    network.initialise(torch.Generator().manual_seed(seed))
    return network.eval()


def saved(
    path: Path, network: Network, teacher: Teacher | None = None, kind: str = 'pretrained'
) -> Path:
    classes = 0 if network.segmentation is None else network.segmentation.out_features
    contract = Contract(
        model=network.config,
        features=input_features(network.config),
        base_height_m=0.0,
        class_names=NAMES[:classes],
        palette=PALETTE[:classes],
        training={'kind': kind},
        teacher=teacher,
    )
    save_checkpoint(path, contract, network)
    return path


@pytest.fixture
def pretrained(tmp_path: Path) -> Path:
    return saved(tmp_path / 'start.safetensors', drawn(PLAIN, 0, teacher=TEACHER), TEACHER)


def settings(start: Path | None, method: str = 'fine_tune', **changes: Any) -> Training:
    given: dict[str, Any] = {
        'seed': 0,
        'method': method,
        'warm_start': None if start is None else str(start),
        'work': '',
        'steps': 300,
        'batch': 256,
        'learning_rate': 0.01,
        'weight_decay': 0.0,
        'hidden': 16 if method == 'mlp_head' else 0,
    }
    if method == 'fine_tune':
        given |= {'steps': 16, 'batch': 1, 'encoder_learning_rate': 0.003}
    else:
        given['points_per_sweep'] = 500
    return Training(**{**given, **changes})


@pytest.mark.parametrize(
    ('method', 'kind'),
    [('linear_probe', 'linear_probe'), ('mlp_head', 'mlp_head'), ('fine_tune', 'fine_tuned')],
)
def test_each_method_learns_and_runs(
    data: LabelledData, pretrained: Path, tmp_path: Path, method: str, kind: str
) -> None:
    trained = train_on(settings(pretrained, method), data, command='do it', console=QUIET)
    assert trained.rows[-1]['miou'] > 0.7
    out = tmp_path / 'out.safetensors'
    save_checkpoint(out, trained.contract, trained.network, trained.prototypes)
    loaded = load_checkpoint(out)
    contract, before = loaded.contract, load_checkpoint(pretrained)
    assert contract.model == PLAIN
    assert (contract.class_names, contract.palette) == (NAMES, PALETTE)
    assert contract.segmentation.hidden == (16 if method == 'mlp_head' else 0)
    assert contract.training == {
        'kind': kind,
        'data': 'two streets',
        'command': 'do it',
        'seed': 0,
        'steps': 16 if method == 'fine_tune' else 300,
        'label_fraction': 1.0,
        'warm_start': str(pretrained),
        'warm_start_sha256': before.sha256,
        'miou': round(trained.rows[-1]['miou'], 4),
    }
    old, new = before.network.state_dict(), loaded.network.state_dict()
    same = [name for name in old if name in new and torch.equal(old[name], new[name])]
    if method == 'fine_tune':
        assert contract.teacher is None
        assert not any(name.endswith('weight') and 'encoder' in name for name in same)
        assert new['normalisation.mean'].abs().max() > 0
    else:
        # Everything but the head is what it was, to the bit.
        assert contract.teacher == TEACHER
        assert same == list(old)


def test_a_frozen_head_repeats_itself_and_depends_on_the_seed(
    data: LabelledData, pretrained: Path
) -> None:
    weights = []
    for seed in (0, 0, 1):
        config = settings(pretrained, 'linear_probe', seed=seed, steps=20)
        trained = train_on(config, data, command='', console=QUIET)
        weights.append(trained.network.segmentation.weight)  # type: ignore[union-attr]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize('hidden', [(), (5,)])
def test_a_folded_head_answers_as_the_standardised_one(hidden: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(3)
    mean = torch.tensor([100.0, -3.0, 0.0, 7.0])
    deviation = torch.tensor([20.0, 0.01, 1.0, 3.0])
    probe = Probe(mean, deviation, hidden, 3)
    head = SegmentationHead(4, 3, *hidden)
    fold(probe, head)
    embedding = mean + deviation * torch.randn(50, 4, generator=generator)
    torch.testing.assert_close(head(embedding), probe(embedding), atol=2e-3, rtol=1e-3)
    logits, class_id = probe(embedding), head.classify(embedding)[0]
    top = logits.topk(2, dim=1).values
    clear = top[:, 0] - top[:, 1] > 0.01
    assert clear.sum() > 30
    assert torch.equal(class_id[clear].long(), logits.argmax(1)[clear])


@pytest.mark.parametrize('positions', [[0, 1, 2, 3, 4, 5, 6, 7], [1, 6, 7], [5]])
def test_embeddings_are_those_of_a_stream(data: LabelledData, positions: list[int]) -> None:
    network = drawn(PLAIN, 0, seed=5)
    got, label = labelled_embeddings(
        network, data.learnt, positions, points_per_sweep=10**6, seed=0
    )
    stream = list(answered(network, data.learnt))
    expected = torch.cat([stream[position][2] for position in positions])
    torch.testing.assert_close(torch.from_numpy(got), expected)
    truth = [stream[position][0].label[stream[position][1]] for position in positions]
    np.testing.assert_array_equal(label, np.concatenate(truth))


def test_fewer_points_are_some_of_them(data: LabelledData) -> None:
    network = drawn(PLAIN, 0)
    some = labelled_embeddings(network, data.learnt, [2], points_per_sweep=50, seed=1)
    everything = labelled_embeddings(network, data.learnt, [2], points_per_sweep=10**6, seed=1)
    assert len(some[1]) == 50
    assert {row.tobytes() for row in some[0]} <= {row.tobytes() for row in everything[0]}


def test_colour_comes_in_without_changing_an_answer(data: LabelledData) -> None:
    start = drawn(PLAIN, 3, seed=1)
    network = drawn(MODEL, 3, seed=2)
    path = saved(data.learnt.paths[0].parent / 'plain.safetensors', start)
    taken = take_over(network, load_checkpoint(path), NAMES)
    assert 'segmentation.weight' in taken
    assert not network.tokenizer.point_in.weight[:, 10:].any()
    for sweep in data.learnt.window(3, 3):
        coloured = replace(sweep, rgb=np.ones_like(sweep.rgb))
        with torch.inference_mode():
            before = start.forward_window([sweep_input(start, sweep)])[0][1]
            after = network.forward_window([sweep_input(network, coloured)])[0][1]
        torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)
    # And it is learnt from: gradients reach the new weights.
    after = network.forward_window([sweep_input(network, coloured)])[0][1]
    after.square().sum().backward()
    assert network.tokenizer.point_in.weight.grad[:, 10:].any()


def test_a_head_of_other_classes_is_not_taken_over(data: LabelledData) -> None:
    path = saved(data.learnt.paths[0].parent / 'other.safetensors', drawn(PLAIN, 3, seed=1))
    names = ('floor', 'wall', 'water')
    taken = take_over(drawn(PLAIN, 3, seed=2), load_checkpoint(path), names)
    assert not any(name.startswith('segmentation') for name in taken)
    assert 'tokenizer.lift.weight' in taken


def test_a_start_of_another_size_is_refused(data: LabelledData) -> None:
    path = saved(data.learnt.paths[0].parent / 'wide.safetensors', drawn(PLAIN, 3))
    narrow = drawn(replace(PLAIN, point_width=8), 3)
    sentence = r'warm_start: its tokenizer\.\S+ is .*, the model has .*: start from a checkpoint'
    with pytest.raises(BadConfig, match=sentence):
        take_over(narrow, load_checkpoint(path), NAMES)


def test_a_new_head_begins_with_what_a_probe_knows(
    data: LabelledData, pretrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = HeadTraining(200, None, 50, 256, 0.01, 0.0, 0)
    monkeypatch.setattr(segmentation_training, 'FIRST_HEAD', quick)
    config = settings(pretrained, steps=1, learning_rate=1e-9, encoder_learning_rate=0.0)
    trained = train_on(config, data, command='', console=QUIET)
    assert trained.rows[-1]['miou'] > 0.5
    # An encoder that learns nothing stays what it was.
    old, new = load_checkpoint(pretrained).network.state_dict(), trained.network.state_dict()
    for name in old:
        if name.startswith(('encoder.', 'tokenizer.')):
            assert torch.equal(old[name], new[name])


@pytest.mark.parametrize('start', [None, 'supervised', 'linear_probe'])
def test_what_only_labels_have_shaped_stays_supervised(
    data: LabelledData, tmp_path: Path, start: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segmentation_training, 'load_model_config', lambda _: PLAIN)
    monkeypatch.setattr(segmentation_training, 'shared_file', Path)
    path = tmp_path / 'start.safetensors'
    if start:
        saved(path, drawn(PLAIN, 3), kind=start)
    config = settings(path if start else None, model='tiny.yaml', steps=1)
    trained = train_on(config, data, command='', console=QUIET)
    kind = trained.contract.training['kind']
    assert kind == ('fine_tuned' if start == 'linear_probe' else 'supervised')
    assert ('warm_start' in trained.contract.training) == (start is not None)


def test_few_labels_end_windows_and_score_every_so_many_steps(
    data: LabelledData, pretrained: Path
) -> None:
    config = settings(pretrained, label_fraction=0.25, steps=5, score_every=2)
    trained = train_on(config, data, command='', console=QUIET)
    # Two of eight sweeps have labels, each of them ends a window.
    assert [(row['step'], row['epoch']) for row in trained.rows] == [(2, 1), (4, 2), (5, 2.5)]
    assert trained.contract.training['label_fraction'] == 0.25


def test_an_interrupted_run_by_steps_ends_with_the_same_weights(
    data: LabelledData, pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Interrupted within an epoch of four windows.
    config = settings(
        pretrained, steps=7, score_every=3, augmentation=replace(AS_RECORDED, turn_deg=9.0)
    )
    whole = train_on(config, data, command='', console=QUIET)
    calls = interrupt_call(monkeypatch, segmentation_training, 'score', 2)
    with pytest.raises(KeyboardInterrupt):
        train_on(config, data, command='', console=QUIET, state=tmp_path)
    resumed = train_on(config, data, command='', console=QUIET, state=tmp_path)
    assert len(calls) == 4
    assert resumed.rows == whole.rows
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name


def test_motion_is_for_towns(data: LabelledData, pretrained: Path) -> None:
    with pytest.raises(BadConfig, match='motion_weight is for towns'):
        train_on(settings(pretrained, motion_weight=1.0), data, command='', console=QUIET)


@pytest.mark.parametrize(
    ('changes', 'sentence'),
    [
        ({'method': 'svm'}, "method is 'svm': give linear_probe, mlp_head, fine_tune"),
        ({'method': 'fine_tune', 'hidden': 8}, 'hidden means nothing to fine_tune'),
        ({'steps': None}, 'epochs is None and steps is None: give one of the two'),
        ({'epochs': 2}, 'epochs is 2 and steps is 300'),
        ({'label_fraction': 0.0}, 'label_fraction is 0.0'),
        ({'warm_start': None}, r'linear_probe learns a head for a checkpoint: give warm_start'),
        (
            {'method': 'fine_tune', 'warm_start': None},
            'model is null: give a file of config/models',
        ),
        ({'model': 'nano.yaml'}, 'model means nothing to linear_probe'),
        ({'encoder_learning_rate': 0.1}, 'encoder_learning_rate means nothing'),
        ({'augmentation': replace(AS_RECORDED, turn_deg=1.0)}, 'augmentation means nothing'),
        ({'hidden': 4}, 'hidden is 4: give channels to mlp_head, none to linear_probe'),
        ({'method': 'mlp_head'}, 'hidden is 0: give channels to mlp_head'),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(BadConfig, match=sentence):
        replace(settings(tmp_path / 'x', 'linear_probe', points_per_sweep=2000), **changes)
