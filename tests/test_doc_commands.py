# SPDX-License-Identifier: Apache-2.0
"""Every command that a page shows is understood, and something runs it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.doc_commands import MAKEFILE, MODULE, PAGES, ROOT, SETUP, check, commands

SHOWN = [(path, command) for path in PAGES for command in commands(path.read_text())]

# What runs each kind of command, on something small.
TRAINING = 'tests/offline_training'
RUN_BY = {
    'cross4d_jepa_ros.doctor': 'tests/doctor/test_doctor_on_bags.py::'
    'test_a_sound_recording_is_fine_and_gets_its_command',
    'cross4d_jepa_ros.perception_node': 'tests/test_processes.py::'
    'test_signals_end_the_node_cleanly',
    'cross4d_jepa_ros.replay_bag': 'tests/test_replay_bag.py::test_it_waits_for_the_lifecycle_node',
    'offline_training.cache_targets': f'{TRAINING}/test_cache_targets.py::'
    'test_the_command_tells_what_the_cache_saves',
    'offline_training.evaluate': f'{TRAINING}/evaluation/test_evaluate.py::'
    'test_a_labelled_recording_is_scored_drawn_and_answered_the_same_every_time',
    'offline_training.index_bags': f'{TRAINING}/test_index_bags.py::'
    'test_two_recordings_and_one_that_is_none',
    'offline_training.label_by_clicks': f'{TRAINING}/test_label_by_clicks.py::'
    'test_an_example_is_what_the_live_node_would_take',
    'offline_training.label_by_clusters': f'{TRAINING}/test_label_by_clusters.py::'
    'test_the_command_gives_the_same_bytes_twice',
    'offline_training.label_by_images': f'{TRAINING}/test_label_by_images.py::'
    'test_a_head_is_learnt_and_scored_on_other_images',
    'offline_training.make_street_bag': 'make demo',
    'offline_training.near_future_check': f'{TRAINING}/test_near_future_check.py::'
    'test_a_drive_is_learnt_and_judged',
    'offline_training.pretrain': f'{TRAINING}/test_pretrain.py::'
    'test_every_objective_gives_a_checkpoint_that_the_node_runs',
    'offline_training.results': f'{TRAINING}/results/test_results.py::'
    'test_what_was_measured_is_not_measured_again',
    'offline_training.train_segmentation': f'{TRAINING}/test_train_segmentation.py::'
    'test_an_index_and_a_label_map_become_a_checkpoint',
    'ros2 launch perception.launch.py': 'make test-ros',
    'ros2 launch replay.launch.py': 'make test-ros',
}


@pytest.mark.parametrize(
    ('path', 'command'), SHOWN, ids=[f'{path.stem}: {command}' for path, command in SHOWN]
)
def test_a_command_is_understood_and_run(
    path: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    family = check(command, monkeypatch)
    assert family in {*RUN_BY, 'make', 'others'}, f'{path.name}: what runs {family}?'


@pytest.mark.parametrize('family', RUN_BY)
def test_what_runs_a_command_is_there(family: str) -> None:
    by = RUN_BY[family]
    if by.startswith('make '):
        recipe = re.search(rf'^{by[5:]}:(?s:.*?)\n\n', MAKEFILE, re.M)
        assert recipe
        assert 'tests/full_ros' in recipe[0] or f'-m {family} ' in recipe[0]
    else:
        file, _, test = by.partition('::')
        text = (ROOT / file).read_text()
        assert f'\ndef {test}(' in text
        assert family.rpartition('.')[2] in text


def test_nothing_is_declared_that_no_page_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = ' '.join(command for _, command in SHOWN)
    for family in RUN_BY:
        name = family.rpartition('.' if family.startswith(('cross4d', 'offline')) else ' ')[2]
        assert name in shown, family


def test_the_page_of_commands_has_all() -> None:
    page = (ROOT / 'docs' / 'commands.md').read_text()
    targets, installed, modules = (
        re.findall(r'^\| `([\w-]+)` \|', part, re.M) for part in page.split('\n## ')[1:]
    )
    (phony,) = re.findall(r'^\.PHONY: (.*)$', MAKEFILE, re.M)
    assert sorted(targets) == sorted(phony.split())
    assert sorted(installed) == sorted(re.findall(r"f'(\w+) = {NAME}\.", SETUP))
    runnable = {
        path.parent.name if path.stem == '__main__' else path.stem
        for path in (ROOT / 'offline_training').rglob('*.py')
        if '\ndef main(' in path.read_text()
    }
    of_make = {'motion_check', 'pretrain_demo', 'street_check'}
    assert sorted(modules) == sorted(runnable - of_make)
    assert all(f'-m offline_training.{name} ' in MAKEFILE for name in of_make)


@pytest.mark.parametrize('path', PAGES, ids=lambda path: path.stem)
def test_a_page_says_which_python_it_means(path: Path) -> None:
    text = path.read_text()
    if any(MODULE.search(command) for command in commands(text)):
        assert '. .venv/bin/activate' in text, 'python is that of .venv'


@pytest.mark.parametrize(
    'command',
    [
        'ros2 launch cross4d_jepa_ros perception.launch.py points:=/lidar image:=[/a]',
        'ros2 launch cross4d_jepa_ros perception.launch.xml points:=/lidar',
        'ros2 run cross4d_jepa_ros perception_node --ros-args -p base_height:=2',
        'ros2 run cross4d_jepa_ros perception_node --ros-args -p base_hight:=2.0',
        "ros2 run cross4d_jepa_ros perception_node --ros-args -r '~/input/point:=/lidar'",
        'ros2 run cross4d_jepa_ros node --ros-args -p base_height:=2.0',
        'ros2 run cross4d_jepa_ros replay_bag drive --clocks',
        'ros2 topic eco /diagnostics',
        'make lnit',
        'make demo BUG=drive',
        'make bench DEVICE=cuda --fast',
        'export FASTDDS_PROFILES=$(x)/config/fastdds_large_data.xml',
        'sudo apt remove python3',
        'python -m offline_training.pretrain x.yaml --index i --ot runs',
        'python -m offline_training.pretrain config/pretraining/none.yaml --index i --out runs',
        'python -m offline_training.index_bag drive --out out/index.parquet',
        'python -m cross4d_jepa_ros.doctor --bags drive',
        'torchrun --processes 2 -m offline_training.index_bags drive --out out/index.parquet',
        '.venv/bin/python -m pytest -q tests/senses',
        'sudo reboot',
    ],
)
def test_a_wrong_command_would_be_noticed(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises((AssertionError, LookupError, OSError, SystemExit, ValueError, ImportError)):
        check(command, monkeypatch)
