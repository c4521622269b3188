# SPDX-License-Identifier: Apache-2.0
"""The recipe for a robot brings what the package imports, and no line of it is out of date."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / 'docs' / 'install.md').read_text()
BLOCKS = re.findall(r'^```bash\n(.*?)^```', PAGE, re.S | re.M)
SETUP = (ROOT / 'setup.py').read_text()
MANIFEST = ET.parse(ROOT / 'package.xml').getroot()
# What rosdep and pip call a module where it is not by its own name. ROS packages are.
KEYS = {
    'cv2': 'python3-opencv',
    'matplotlib': 'python3-matplotlib',
    'numpy': 'python3-numpy',
    'rich': 'python3-rich',
    'rosbags': 'python3-rosbags-pip',
    'torch': 'python3-pytorch-pip',
    'yaml': 'python3-yaml',
}
WHEELS = {'cv2': 'opencv-python-headless', 'yaml': 'PyYAML'}
# rosdep knows no key for these.
KEYLESS = {'mcap', 'safetensors', 'zstandard'}
# Not imported: the command that starts the launch files.
BY_NAME = {'ros2launch'}


def lines() -> list[list[str]]:
    return [shlex.split(line) for line in BLOCKS[0].splitlines()]


def line(*words: str) -> list[str]:
    """What follows these words on the only line that begins with them."""
    (found,) = (given for given in lines() if given[: len(words)] == list(words))
    return found[len(words) :]


def imports(*folders: str) -> set[str]:
    """Modules of others that a folder's files import."""
    found = set()
    for path in (path for folder in folders for path in (ROOT / folder).rglob('*.py')):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split('.')[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.split('.')[0])
    return found - set(sys.stdlib_module_names) - {'cross4d_jepa_ros', 'offline_training'}


def keys(kind: str = 'exec_depend') -> set[str]:
    return {found.text or '' for found in MANIFEST.findall(kind)}


def required(what: str) -> set[str]:
    """Names in a list of setup.py."""
    return set(re.findall(r"'([^']+)'", SETUP.partition(what)[2].partition(']')[0]))


def test_what_the_package_imports_has_a_key_or_no_key_exists() -> None:
    wanted = {KEYS.get(name, name) for name in imports('cross4d_jepa_ros', 'launch') - KEYLESS}
    assert keys() - BY_NAME == wanted


def test_what_the_package_imports_is_required_by_pip_too() -> None:
    wheels = imports('cross4d_jepa_ros') & (KEYS.keys() | KEYLESS)
    assert required('install_requires=') == {WHEELS.get(name, name) for name in wheels}


def test_pip_brings_what_rosdep_does_not() -> None:
    skipped = set(line('rosdep', 'install')[-1].split())
    assert line('rosdep', 'install')[-2] == '--skip-keys'
    assert skipped == {key for key in keys() if key.endswith('-pip')}
    modules = {module for module, key in KEYS.items() if key in skipped}
    assert set(line('python3', '-m', 'pip', 'install')) == KEYLESS | modules


def test_pip_brings_nothing_that_hides_what_apt_brings() -> None:
    given = {word for block in BLOCKS for word in block.split()}
    assert not given & {'numpy', 'opencv-python', 'opencv-python-headless', 'matplotlib'}


def test_training_has_what_its_extra_has() -> None:
    (extra,) = (block for block in BLOCKS if 'tensorboard' in block)
    assert set(extra.split()[4:]) == required("'training':")


def test_the_environment_exists_before_colcon_runs_in_it() -> None:
    order = [' '.join(words) for words in lines()]
    steps = (
        'python3 -m venv --system-site-packages .venv',
        'touch .venv/COLCON_IGNORE',
        'source .venv/bin/activate',
        'python3 -m colcon build',
        'source install/setup.bash',
    )
    places = [order.index(step) for step in steps]
    assert places == sorted(places)
    assert order[-1].startswith('ros2 launch cross4d_jepa_ros perception.launch.py points:=')
    assert BLOCKS[1].splitlines()[-1] == order[-1]


def test_launch_files_need_nothing_from_the_environment() -> None:
    """They run in the interpreter of `ros2`, which knows no virtual environment."""
    found = set()
    for path in (ROOT / 'launch').glob('*.py'):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or '').startswith('cross4d'):
                found.add(node.module)
    code = f'import sys, {", ".join(sorted(found))}; print(*sys.modules)'
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert 'cross4d_jepa_ros' in done.stdout.split(), done.stderr
    assert not set(done.stdout.split()) & ({*KEYS, *KEYLESS} - {'yaml'})
