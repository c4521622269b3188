# SPDX-License-Identifier: Apache-2.0
"""Commands and writers that are killed at random moments, against the same undisturbed.

    python -m tests.damaged.killed FOLDER SEED

A process of its own, with one thread, so that it can fork: what takes seconds to import is there.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import torch

from cross4d_jepa_ros import files
from cross4d_jepa_ros.files import write_atomically
from cross4d_jepa_ros.model.checkpoint import Contract, load_checkpoint, save_checkpoint
from cross4d_jepa_ros.model.network import Network
from cross4d_jepa_ros.model.tokenizer import input_features
from offline_training import cache_targets, index_bags, pretrain, train_segmentation
from offline_training.labelled_sweeps import SweepFiles, write_sweeps
from offline_training.logs.table import Index
from offline_training.pretraining.run_folder import RunFolder
from offline_training.teachers.target_cache import TargetCache, claim_folder, write_shard
from tests.model.drives import SMALL
from tests.offline_training.logs.test_table import ROW
from tests.offline_training.teachers.test_target_cache import KEYS, MANIFEST, drawn
from tests.offline_training.test_labelled_sweeps import drawn as drawn_sweep
from tests.tiny_labels import labelled_bag

CONFIG = Path(__file__).parents[2] / 'config'
WRITERS_KILLED = 15
LONGEST_S = 300.0
MODEL = ['batch=2', 'components=8', 'sweeps=2', 'save_every=2', 'epochs=1']
MODEL += ['objectives.predictor={width: 24, depth: 1, heads: 2}']
MODEL += ['objectives.dense_correspondence.hidden=16']
MODEL += ['objectives.dense_correspondence.points_per_view=64']
STEPS = ['steps=4', 'score_every=1', 'batch=1', 'work=work']

Command = tuple[Callable[[Sequence[str]], int], list[str], list[str]]


def settings(changes: Sequence[str]) -> list[str]:
    return [word for change in changes for word in ('--set', change)]


# Where each begins is a folder of its own; what is compared there in the end.
COMMANDS: dict[str, Command] = {
    'index': (
        index_bags.main,
        ['../one', '../two', '--out', 'index.parquet'],
        ['index.parquet', 'index_pictures/*.png'],
    ),
    'cache': (
        cache_targets.main,
        ['index.parquet', '--out', 'targets', '--teacher', 'lite0-random', '--input-height', '64'],
        ['targets/*.safetensors', 'targets/manifest.json'],
    ),
    'pretraining': (
        pretrain.main,
        [
            *(str(CONFIG / 'pretraining' / 'combined.yaml'), '--index', 'index.parquet'),
            *('--targets', 'targets', '--out', 'run', '--resume', '--device', 'cpu'),
            *settings(MODEL),
        ],
        ['run/model.safetensors', 'run/state.safetensors'],
    ),
    'segmentation': (
        train_segmentation.main,
        [
            *(str(CONFIG / 'training' / 'fine_tune.yaml'), 'out.safetensors'),
            *('--index', 'index.parquet', '--start', 'run/model.safetensors'),
            *('--labels', str(CONFIG / 'label_maps' / 'street.yaml')),
            *settings(STEPS),
        ],
        ['out.safetensors', 'work/state_*.safetensors', 'work/sweeps/*.safetensors'],
    ),
}


def forked(folder: Path, run: Callable[[], int]) -> int:
    """Begin something in a process of its own; what it says goes into a file."""
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        os.setsid()
        os.chdir(folder)
        with Path('said.txt').open('a') as said:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
        code = run()
    finally:
        os._exit(code)


def ended(child: int, after_s: float) -> int | None:
    """Wait so long for a process, then kill it; its exit code if it ended by itself."""
    deadline = time.monotonic() + after_s
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            end_group(child)
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    end_group(child)
    return None


def end_group(child: int) -> None:
    """End what a process had forked: it would not outlive it for long."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)


def killed_after(
    number: int, main: Callable[[Sequence[str]], int], words: list[str]
) -> Callable[[], int]:
    """Have a command killed once it has written so many files."""
    written = itertools.count(1)

    def keep_name(_: Path) -> None:
        if next(written) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def run() -> int:
        files._keep_name = keep_name
        return main(words)

    return run


def contents(folder: Path, patterns: Sequence[str]) -> dict[str, bytes]:
    found = {path for pattern in patterns for path in folder.glob(pattern)}
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(found)}


def remove(paths: Sequence[Path]) -> None:
    for path in sorted(paths, reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


def try_command(name: str, folder: Path, draw: random.Random) -> dict[str, object]:
    """Run a command undisturbed, and elsewhere have it killed at a random moment, then after each
    number of written files, started again each time.
    """
    main, words, compared = COMMANDS[name]
    began = time.monotonic()
    whole, killed = folder / 'whole', folder / 'killed'
    code = ended(forked(whole, lambda: main(words)), LONGEST_S)
    took_s = time.monotonic() - began
    if code != 0:
        raise SystemExit(f'{name} ended with {code}: {(whole / "said.txt").read_text()[-2000:]}')
    there = set(killed.rglob('*'))
    moment_s = draw.uniform(0, took_s)
    # It may be quicker this time. Then it is not killed, and there is nothing left to go on with.
    while ended(forked(killed, lambda: main(words)), moment_s) is not None:
        remove([path for path in killed.rglob('*') if path not in there])
        moment_s /= 2
    kills = 1
    for number in itertools.count(1):
        code = ended(forked(killed, killed_after(number, main, words)), LONGEST_S)
        if code != -signal.SIGKILL:
            break
        kills += 1
    wanted, found = contents(whole, compared), contents(killed, compared)
    differ = sorted(key for key in {*wanted, *found} if wanted.get(key) != found.get(key))
    said = (killed / 'said.txt').read_text()[-1000:]
    return {
        'kills': kills,
        'code': code,
        'files': len(wanted),
        'differ': differ,
        'took_s': round(took_s, 1),
        'said': '' if code == 0 and not differ else said,
    }


def write_for_ever(folder: Path) -> int:
    """Write two versions of each kind of file in turn, over and over."""
    for version in itertools.cycle((1, 2)):
        write_versions(folder, version)
    return 0


def write_versions(folder: Path, version: int) -> None:
    network = Network(SMALL, 0)
    for value in network.parameters():
        torch.nn.init.constant_(value, version)
    contract = Contract(SMALL, input_features(SMALL), 0.0, (), (), {'kind': str(version)})
    save_checkpoint(folder / 'a.safetensors', contract, network)
    Index([ROW] * 5 * version, folder).save(folder / 'index.parquet')
    write_sweeps(folder / 'sweeps', [drawn_sweep(version, 500 * version)])
    RunFolder(folder, {}).save(version, {'a': torch.full((5000,), float(version))})
    claim_folder(folder / 'targets', MANIFEST)
    write_shard(folder / 'targets', KEYS[:2], [drawn(version), drawn(version)])
    write_atomically(folder / 'text', str(version) * 100_000)


def complete(folder: Path) -> set[str]:
    """Read what is there; whatever is not one of the two versions raises."""
    there = set()
    for name, read in {
        'a.safetensors': lambda p: int(load_checkpoint(p).contract.training['kind']),
        'index.parquet': lambda p: len(Index.load(p).rows) // 5,
        'sweeps': lambda p: len(SweepFiles([p])[0].xyz) // 500,
        'state.safetensors': lambda p: RunFolder(p.parent, {}).resumed()[0],
        'targets': lambda p: all(TargetCache(p).read(*k) for k in KEYS[: len(TargetCache(p))]) + 0,
        'text': lambda p: int(p.read_text()[0]) if len(p.read_text()) == 100_000 else 0,
    }.items():
        if (folder / name / 'manifest.json' if name == 'targets' else folder / name).exists():
            assert read(folder / name) in (1, 2), name
            there.add(name)
    return there


def try_writers(folder: Path, draw: random.Random) -> dict[str, object]:
    """Kill a process that writes, look at what it left, and let the next one write over it."""
    there: set[str] = set()
    # What is only imported when it is first called is not to be killed over and over.
    write_versions(folder / 'first', 1)
    began = time.monotonic()
    write_versions(folder / 'first', 2)
    took_s = time.monotonic() - began
    for _ in range(WRITERS_KILLED):
        ended(forked(folder, lambda: write_for_ever(folder)), draw.uniform(0, 3 * took_s))
        there |= complete(folder)
    left = list(folder.rglob('*.tmp'))
    long_ago = time.time() - 1e5
    for path in left:
        os.utime(path, (long_ago, long_ago))
    write_versions(folder, 1)
    kept = [path.name for path in folder.rglob('*.tmp')]
    return {'there': sorted(there), 'left': len(left), 'kept': kept}


def main(folder: Path, seed: int) -> int:
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    folder, draw = folder.resolve(), random.Random(seed)
    for name in ('whole', 'killed', 'written'):
        (folder / name).mkdir(parents=True)
    for name in ('one', 'two'):
        labelled_bag(folder / name, 5)
    report = {'writers': try_writers(folder / 'written', draw)}
    report |= {name: try_command(name, folder, draw) for name in COMMANDS}
    print(json.dumps(report))
    return 0


if __name__ == '__main__':
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
