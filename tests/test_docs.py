# SPDX-License-Identifier: Apache-2.0
"""What the pages name is there: links, files, commands, parameters, sentences, rooms."""

from __future__ import annotations

import ast
import re
import shlex
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from rclpy.parameter import Parameter as RosParameter

from cross4d_jepa_ros.health import findings
from cross4d_jepa_ros.ledger import Drop
from cross4d_jepa_ros.ros.parameters import PARAMETERS, refused
from cross4d_jepa_ros.sensing import point_clouds
from cross4d_jepa_ros.sensing.extrinsics import load_extrinsics
from tests.test_health import CASES
from tests.test_training_docs import understood

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *sorted((ROOT / 'docs').glob('*.md'))]
# Those whose every command, name and file is looked up; the others have tests of their own.
OWN = {
    path.stem: path.read_text()
    for path in PAGES
    if path.stem in ('CONTRIBUTING', 'architecture', 'objectives', 'own_sensor', 'troubleshooting')
}
SOURCES = [
    *(ROOT / 'cross4d_jepa_ros').rglob('*.py'),
    *(ROOT / 'offline_training').rglob('*.py'),
]
DECLARED = {parameter.name: parameter for parameter in PARAMETERS}
MAKEFILE = (ROOT / 'Makefile').read_text()
# Names of the middleware's and of the repository's own.
ELSEWHERE = {'RMW_IMPLEMENTATION', *(path.name for path in ROOT.iterdir())}
FOLDERS = ('cross4d_jepa_ros', 'offline_training', 'config', 'constraints', 'docs', 'tests')


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def blocks(page: str, kind: str) -> list[str]:
    found = re.findall(r'^```(\w*)\n(.*?)^```', OWN[page], re.S | re.M)
    return [block for kind_of, block in found if kind_of == kind]


def commands(page: str) -> list[str]:
    lines = [
        line
        for block in blocks(page, '')
        if '|\n' not in block
        for line in block.replace('\\\n', ' ').splitlines()
    ]
    return [' '.join(line.split()) for line in lines]


def spans(text: str) -> list[str]:
    """What stands in backticks, on one line each."""
    prose = re.sub(r'^```.*?^```', '', text, flags=re.S | re.M)
    return [' '.join(span.split()) for span in re.findall(r'`([^`]+)`', prose)]


def rows(page: str, head: str) -> list[list[str]]:
    """Cells of all tables of a page whose first head is this one."""
    found = []
    for table in re.findall(rf'^\| {re.escape(head)} \|.*?(?=\n\n|\Z)', OWN[page], re.S | re.M):
        for line in table.splitlines()[2:]:
            found.append([cell.strip() for cell in line.strip('|').split(' | ')])
    assert found, head
    return found


def files(name: str) -> list[Path]:
    """Expand the braces and stars of a path below the root; none where one of them is missing."""
    parts = [part.split(',') for part in re.split(r'[{}]', name)]
    found = [list(ROOT.glob(''.join(one).rstrip('/'))) for one in product(*parts)]
    return [path for paths in found for path in paths] if all(found) else []


# Links and files


@cache
def anchors(path: Path) -> frozenset[str]:
    """Where a link may lead within a page, by GitHub's rule."""
    prose = re.sub(r'^```.*?^```', '', path.read_text(), flags=re.S | re.M)
    heads = re.findall(r'^#+ (.*)$', prose, re.M)
    return frozenset(re.sub(r'[^\w\- ]', '', head.lower()).replace(' ', '-') for head in heads)


@pytest.mark.parametrize('path', PAGES, ids=lambda path: path.name)
def test_pages_are_finished_and_their_links_lead_somewhere(path: Path) -> None:
    text = path.read_text()
    assert not re.findall(r'\b(?:[A-Z]+_TABLE|TODO|TBD)\b', text)
    for link in re.findall(r'\]\(([^):]+)\)', text):
        name, _, anchor = link.partition('#')
        target = path.parent / name if name else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_linked_from_the_readme() -> None:
    readme = PAGES[0].read_text()
    for page in PAGES[1:]:
        assert f']({page.relative_to(ROOT)})' in readme


@pytest.mark.parametrize('page', OWN)
def test_files_that_are_quoted_exist(page: str) -> None:
    for span in spans(OWN[page]):
        if span.startswith(tuple(f'{folder}/' for folder in FOLDERS)) and ' ' not in span:
            assert files(span), span


@cache
def words() -> frozenset[str]:
    configs = [*(ROOT / 'config').rglob('*.yaml'), *(ROOT / 'launch').glob('*.py')]
    paths = [*SOURCES, *configs, *ROOT.glob('*.toml'), ROOT / 'setup.py', ROOT / 'Makefile']
    found = {path.stem for path in [*paths, *(ROOT / 'tests').rglob('*.py')]}
    for path in paths:
        found.update(re.findall(r'\w+', path.read_text()))
    return frozenset(found)


@pytest.mark.parametrize('page', OWN)
def test_names_that_are_quoted_exist(page: str) -> None:
    for span in spans(OWN[page]):
        if re.fullmatch(r'[A-Za-z][\w.]*\w(:=\S*)?', span) and span not in ELSEWHERE:
            name = span.partition(':=')[0]
            assert set(name.split('.')) <= words() | {'log', 'csv', 'json', 'md'}, span
            if name.startswith(('points.', 'sync.', 'qos.', 'segmentation.', 'teach.')):
                assert name in DECLARED, span


# Commands


def launch_arguments(name: str) -> set[str]:
    (table,) = (
        node.value
        for node in tree(ROOT / 'launch' / name).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == 'ARGUMENTS'
    )
    found = {argument for argument, _, _ in ast.literal_eval(table)}
    return found | (launch_arguments('perception.launch.py') if 'replay' in name else set())


def check_value(name: str, value: Any) -> None:
    row = DECLARED[name]
    assert type(value) is type(row.default), name
    assert refused([RosParameter(name, value=value)], '') == ''
    numbers = value if isinstance(value, list) else [value]
    assert not row.bounds or all(row.bounds[0] <= one <= row.bounds[1] for one in numbers), name


def check_launch(given: list[str]) -> None:
    known = launch_arguments(given[3])
    for argument in given[4:]:
        name, assigned, value = argument.partition(':=')
        assert assigned and value
        assert name in known, argument
    assert any(argument.startswith('points:=') for argument in given[4:])


def check_run(given: list[str]) -> None:
    assert f"'{given[3]} = " in (ROOT / 'setup.py').read_text().replace("f'", "'")
    assert given[4] == '--ros-args'
    inputs = re.findall(r'`(~/\w+/\w+)', PAGES[0].read_text())
    for option, argument in zip(given[5::2], given[6::2], strict=True):
        name, _, value = argument.partition(':=')
        assert value
        if option == '-p':
            check_value(name, yaml.safe_load(value))
        else:
            assert option == '-r'
            assert name in inputs


def check_make(given: list[str]) -> None:
    for word in given:
        variable, assigned, _ = word.partition('=')
        if assigned:
            assert re.search(rf'\$\({variable}\)', MAKEFILE), word
        elif word != 'make':
            assert re.search(rf'^{word}:', MAKEFILE, re.M), word


def check(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = shlex.split(command, comments=True)
    if command.startswith('python -m offline_training.'):
        understood(command, monkeypatch)
    elif command.startswith('ros2 launch cross4d_jepa_ros '):
        check_launch(given)
    elif command.startswith('ros2 run cross4d_jepa_ros '):
        check_run(given)
    elif command.startswith('.venv/bin/python -m pytest -q '):
        assert files(given[4]), given[4]
    elif command.startswith('export '):
        variable, _, file = command.removeprefix('export ').partition('=')
        assert variable in (ROOT / 'cross4d_jepa_ros' / 'ros' / 'transport.py').read_text()
        assert files(file.rpartition(')/')[2])
    elif command == 'pre-commit install':
        assert (ROOT / '.pre-commit-config.yaml').is_file()
    elif command.startswith('ros2 topic '):
        options = {word for word in given[4:] if word.startswith('-')}
        assert given[2] in ('echo', 'hz', 'info')
        assert given[3].startswith('/') or given[3] == '--verbose'
        assert options <= {'--field', '--once'}
    else:
        assert given[0] == 'make', f'no rule for {command}'
        check_make(given)


@pytest.mark.parametrize(
    ('page', 'command'), [(page, command) for page in OWN for command in commands(page)]
)
def test_commands_are_understood(page: str, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check(command, monkeypatch)


@pytest.mark.parametrize(
    'command',
    [
        'ros2 launch cross4d_jepa_ros perception.launch.py points:=/lidar image:=[/a]',
        'ros2 launch cross4d_jepa_ros replay.launch.py bag:=drive',
        'ros2 run cross4d_jepa_ros perception_node --ros-args -p base_height:=2',
        'ros2 run cross4d_jepa_ros perception_node --ros-args -p base_hight:=2.0',
        'ros2 run cross4d_jepa_ros node --ros-args -p base_height:=2.0',
        'ros2 topic eco /diagnostics',
        'make lnit',
        'make demo BUG=drive',
        'export FASTDDS_PROFILES=$(x)/config/fastdds_large_data.xml',
        '.venv/bin/python -m pytest -q tests/senses',
        'sudo reboot',
    ],
)
def test_a_wrong_command_would_be_noticed(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises((AssertionError, KeyError)):
        check(command, monkeypatch)


@pytest.mark.parametrize('text', blocks('own_sensor', 'yaml'))
def test_files_that_are_shown_can_be_given(text: str, tmp_path: Path) -> None:
    content = yaml.safe_load(text)
    if '/**' in content:
        for name, value in content['/**']['ros__parameters'].items():
            check_value(name, value)
        return
    path = tmp_path / 'calibration.yaml'
    path.write_text(text)
    shown = load_extrinsics(path)
    assert shown.cameras[0].model is not None
    assert shown.transforms


# Sensors


def test_every_parameter_about_sensors_is_on_their_page() -> None:
    about = ('base_', 'points.', 'sync.', 'qos.', 'fixed_frame', 'max_', 'deskew', 'extrinsics_')
    for name in DECLARED:
        if name.startswith(about):
            assert name in OWN['own_sensor'], name


@pytest.mark.parametrize(
    ('what', 'names'),
    [
        ('intensity', point_clouds.FIELD_NAMES['intensity']),
        ('ring', point_clouds.FIELD_NAMES['ring']),
        ('time of a point', point_clouds.FIELD_NAMES['time']),
    ],
)
def test_names_of_fields_are_those_that_are_known(what: str, names: tuple[str, ...]) -> None:
    (row,) = (row for row in rows('own_sensor', 'what') if row[0] == what)
    assert tuple(spans(row[1])) == names


# Sentences


@cache
def sentences() -> frozenset[str]:
    """All text of the sources, with … for what is filled in."""
    found = set()
    for path in SOURCES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
            elif isinstance(node, ast.JoinedStr):
                parts = (
                    str(part.value) if isinstance(part, ast.Constant) else '…'
                    for part in node.values
                )
                found.add(''.join(parts))
    return frozenset(found)


DIAGNOSED = [row[0].strip('`') for row in rows('troubleshooting', '`/diagnostics` says')]
TRAINED = [row[0].strip('`') for row in rows('troubleshooting', 'training says')]


def test_every_quoted_sentence_begins_one_of_the_sources() -> None:
    elsewhere = [span for span in spans(OWN['troubleshooting']) if '…' in span]
    for quote in {*DIAGNOSED, *TRAINED, *elsewhere}:
        assert any(sentence.startswith(quote) for sentence in sentences()), quote


@pytest.mark.parametrize('case', sorted(CASES.keys() - {'qos', 'untrained'}))
def test_every_finding_of_the_node_has_a_row(case: str) -> None:
    """The two left out have sentences from elsewhere, of which their test has a stand-in."""
    patterns = ['.*'.join(map(re.escape, quote.split('…'))) for quote in DIAGNOSED]
    said = findings(CASES[case][0])[0].sentence
    assert any(re.match(pattern, said) for pattern in patterns), said


def test_every_cause_of_a_drop_has_a_row() -> None:
    shown = [row[0].strip('`') for row in rows('troubleshooting', 'cause')]
    assert sorted(shown) == sorted(Drop)


# Objectives


def test_every_preset_is_explained() -> None:
    presets = {path.stem for path in (ROOT / 'config' / 'pretraining').glob('*.yaml')}
    shown = set(spans(OWN['objectives']))
    assert presets - {'demo'} <= shown
    taken = rows('objectives', 'you have')
    assert {span for row in taken for span in spans(row[1]) if '/' not in span} <= presets


# Rooms


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.update(f'{node.module}.{alias.name}' for alias in node.names)
    return found


def test_every_module_has_a_room() -> None:
    rooms = {path for row in rows('architecture', 'room') for path in files(row[0].strip('`'))}
    for path in SOURCES:
        if path != ROOT / 'cross4d_jepa_ros' / '__init__.py':
            assert rooms & {path, *path.parents}, f'{path} is in no row of docs/architecture.md'


@pytest.mark.parametrize('row', rows('architecture', 'room'), ids=lambda row: row[0])
def test_a_room_imports_nothing_that_it_must_not(row: list[str]) -> None:
    forbidden = spans(row[2])
    paths = [
        module
        for path in files(row[0].strip('`'))
        for module in (path.rglob('*.py') if path.is_dir() else [path])
    ]
    assert forbidden
    assert paths
    for path in paths:
        for name in imported(path):
            assert not [one for one in forbidden if f'{name}.'.startswith(f'{one}.')], path


@pytest.mark.parametrize('row', rows('architecture', 'to add'), ids=lambda row: row[0])
def test_a_place_for_a_change_is_where_it_is_said_to_be(row: list[str]) -> None:
    quoted = spans(' '.join(row[1:]))
    places = [path for span in quoted if '/' in span for path in files(span)]
    assert places
    text = '\n'.join(path.read_text() for path in places if path.is_file())
    for name in quoted:
        if re.fullmatch(r'\w+', name):
            assert re.search(rf'\b{name}\b', text), name


def test_the_picture_names_files_that_exist() -> None:
    (picture,) = (block for block in blocks('architecture', '') if '|\n' in block)
    named = re.findall(r'[\w/]+\.py\b', picture)
    assert len(named) > 8
    for name in named:
        assert (ROOT / 'cross4d_jepa_ros' / name).is_file(), name


# Contributing


def test_the_hooks_are_what_make_lint_runs() -> None:
    (repository,) = yaml.safe_load((ROOT / '.pre-commit-config.yaml').read_text())['repos']
    assert repository['repo'] == 'local'
    hooks = [hook['entry'].split(' --')[0].split('/')[-1] for hook in repository['hooks']]
    recipe = MAKEFILE.partition('\nlint:')[2].partition('\n\n')[0]
    run = re.findall(r'\$\(BIN\)/(\w+(?: check| format)?)', recipe)
    assert hooks == run
