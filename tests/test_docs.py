# SPDX-License-Identifier: Apache-2.0
"""What the pages name is there: links, files, parameters, sentences, rooms."""

from __future__ import annotations

import ast
import re
from functools import cache
from itertools import product
from pathlib import Path

import pytest
import yaml

from cross4d_jepa_ros.health import findings
from cross4d_jepa_ros.ledger import Drop
from cross4d_jepa_ros.sensing import point_clouds
from cross4d_jepa_ros.sensing.extrinsics import load_extrinsics
from tests.doc_commands import DECLARED, MAKEFILE, PAGES, ROOT, check_value, fenced, spans
from tests.test_health import CASES

# Those whose every name and file is looked up; the others have tests of their own.
OWN = {
    path.stem: path.read_text()
    for path in PAGES
    if path.stem in ('CONTRIBUTING', 'architecture', 'objectives', 'own_sensor', 'troubleshooting')
}
SOURCES = [
    *(ROOT / 'cross4d_jepa_ros').rglob('*.py'),
    *(ROOT / 'offline_training').rglob('*.py'),
]
# Names of the middleware's and of the repository's own.
ELSEWHERE = {'RMW_IMPLEMENTATION', *(path.name for path in ROOT.iterdir())}
FOLDERS = ('cross4d_jepa_ros', 'offline_training', 'config', 'constraints', 'docs', 'tests')


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


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


def test_pictures_are_small_and_shown() -> None:
    shown = ' '.join(path.read_text() for path in PAGES)
    pictures = [*(ROOT / 'docs').glob('*.jpg'), *(ROOT / 'docs').glob('*.png')]
    assert pictures
    for path in pictures:
        assert path.stat().st_size <= 250_000, path
        assert f'{path.name})' in shown, path


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


@pytest.mark.parametrize('text', fenced(OWN['own_sensor'], 'yaml'))
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


@pytest.mark.parametrize(
    'symptom', ['Nothing comes out', 'Labels lag', 'Points miss the image', 'The loss is stuck']
)
def test_a_symptom_leads_to_something_to_do(symptom: str) -> None:
    section = re.search(rf'^## {symptom}.*?(?=^## |\Z)', OWN['troubleshooting'], re.S | re.M)
    assert section
    found = re.findall(r'^\|(?!---)(.*)\|$', section[0], re.M)
    told = [[cell.strip() for cell in line.split(' | ')] for line in found]
    assert [row for row in told if row[2] == 'what to do']
    assert all(len(row) == 3 and all(row) for row in told), symptom


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
    (picture,) = (block for block in fenced(OWN['architecture'], '') if '|\n' in block)
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
