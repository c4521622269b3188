# SPDX-License-Identifier: Apache-2.0
"""A file that somebody else named may be anything; nothing waits for it or is filled by it."""

from __future__ import annotations

import os
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cross4d_jepa_ros.frame_log import FrameLog
from cross4d_jepa_ros.model.checkpoint import BadCheckpoint, load_checkpoint, read_contract
from cross4d_jepa_ros.model.config import BadConfig, load_model_config
from cross4d_jepa_ros.reading import (
    MAX_YAML_BYTES,
    MAX_YAML_NUMBER,
    MAX_YAML_VALUES,
    BadYaml,
    open_regular,
    parse_yaml,
    read_text,
    read_yaml,
)
from cross4d_jepa_ros.ros.parameters import resolved
from cross4d_jepa_ros.sensing.extrinsics import BadExtrinsics, load_extrinsics
from offline_training.label_map import LabelMap, load_label_map
from offline_training.naming.clicks import BadClicks, read_clicks
from offline_training.naming.clusters import read_names
from offline_training.naming.labelled_images import BadImages, LabelledImage
from offline_training.training_settings import load_training
from tests.bench import Bench
from tests.checkpoints import SHIPPED

REFUSED = (OSError, BadYaml, BadConfig, BadExtrinsics, BadCheckpoint, BadClicks, BadImages)
READERS: dict[str, Callable[[Path], Any]] = {
    'checkpoint': load_checkpoint,
    'contract': read_contract,
    'extrinsics': load_extrinsics,
    'model settings': load_model_config,
    'training settings': load_training,
    'label map': load_label_map,
    'names of clusters': lambda path: read_names(path, 3),
    'clicks': read_clicks,
    'YAML': read_yaml,
}

LABELS = LabelMap(('road',), ((0, 0, 0),), {0: 'road'})


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to('/dev/zero')


def endless(path: Path) -> None:
    path.write_bytes(b'')
    os.truncate(path, 100 << 30)


@pytest.mark.parametrize('made', [pipe, device, endless, Path.mkdir, lambda path: None])
@pytest.mark.parametrize('read', READERS.values(), ids=list(READERS))
def test_what_is_no_file_of_a_reasonable_size_is_refused_at_once(
    read: Callable[[Path], Any], made: Callable[[Path], None], tmp_path: Path
) -> None:
    path = tmp_path / 'given'
    made(path)
    start = time.monotonic()
    with pytest.raises(REFUSED, match=str(path)):
        read(path)
    assert time.monotonic() - start < 2


def test_a_link_to_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / 'file').write_text('a: 1')
    (tmp_path / 'link').symlink_to('file')
    assert read_yaml(tmp_path / 'link') == {'a': 1}


def test_a_limit_is_to_the_byte(tmp_path: Path) -> None:
    (tmp_path / 'file').write_text('12345')
    assert read_text(tmp_path / 'file', 5) == '12345'
    with pytest.raises(OSError, match='larger than 4 bytes'):
        open_regular(tmp_path / 'file', 4)


def bomb(first: str, entry: str) -> str:
    """Eleven lines, each of which names the one before ten times."""
    lines = [f'a0: &a0 {first}']
    for i in range(1, 12):
        lines.append(f'a{i}: &a{i} ' + entry.format(', '.join([f'*a{i - 1}'] * 10)))
    return '\n'.join(lines)


@pytest.mark.parametrize(
    ('text', 'reason'),
    [
        (bomb('[lol]', '[{}]'), 'values once its aliases'),
        (bomb('{k: v}', '{{<<: [{}]}}'), 'values once its aliases'),
        (bomb('{k: v}', '{{k: [{}]}}'), 'values once its aliases'),
        ('- &a [' + 'x,' * 999 + 'x]\n' + '- *a\n' * (MAX_YAML_VALUES // 1000), 'values once its'),
        ('&a [*a]', 'holds itself'),
        ('&a {b: {c: *a}}', 'holds itself'),
        ('[' * 100_000, 'nested too deeply'),
        ('{a: ' * 100_000, 'nested too deeply'),
        ('- ' * 100_000, 'nested too deeply'),
        ('9' * (MAX_YAML_NUMBER + 1), 'a number of 401 characters'),
        ('1' + ':10' * 100_000, 'a number of'),
        ('!!int "' + '1:' * 300 + '1"', 'a number of'),
        ('!!bool maybe', 'cannot be read'),
        ('!!int ""', 'cannot be read'),
        ('!!float ""', 'cannot be read'),
        ('!!timestamp noon', 'cannot be read'),
        ('2026-99-99', 'cannot be read'),
        ('1' + ':59' * 100 + ':59.5e999', 'cannot be read|^$'),
        ('!!python/object/apply:os.getcwd []', 'cannot be read'),
        ('!!python/name:os.system', 'cannot be read'),
        ('{[1]: 2}', 'cannot be read'),
        ('*nowhere', 'cannot be read'),
        ('a\0b', 'cannot be read'),
        ('---\na\n---\nb', 'cannot be read'),
        ('%YAML 9.9\n---\na', 'cannot be read'),
    ],
)
def test_yaml_that_explodes_or_lies_is_refused_quickly(text: str, reason: str) -> None:
    start = time.monotonic()
    try:
        parse_yaml(text)
    except BadYaml as error:
        assert any(word in str(error) for word in reason.split('|'))
    else:
        assert reason.endswith('^$')
    assert time.monotonic() - start < 10


def test_aliases_of_a_reasonable_number_are_followed() -> None:
    assert parse_yaml('a: &a [1, 2]\nb: *a\nc: {<<: {d: *a}}') == {
        'a': [1, 2],
        'b': [1, 2],
        'c': {'d': [1, 2]},
    }


@pytest.mark.parametrize(
    'content', [b'', b'\xff\xfe' * 9, b'#' * (MAX_YAML_BYTES + 1)], ids=['empty', 'binary', 'large']
)
@pytest.mark.parametrize('name', [name for name in READERS if name != 'YAML'])
def test_what_is_another_kind_of_file_is_refused_by_its_name(
    name: str, content: bytes, tmp_path: Path
) -> None:
    (tmp_path / 'given').write_bytes(content)
    with pytest.raises(REFUSED, match=str(tmp_path / 'given')):
        READERS[name](tmp_path / 'given')


@pytest.mark.parametrize(
    'row', ['"' + 'x' * 200_000 + '"', '1,"' + 'x\n' * 70_000, '1,2\0,3,4,a', '9' * 5000]
)
def test_a_csv_with_endless_fields_is_refused(row: str, tmp_path: Path) -> None:
    path = tmp_path / 'clicks.csv'
    path.write_text(f'stamp_ns,x,y,z,class\n{row}\n')
    with pytest.raises(BadClicks, match='clicks'):
        read_clicks(path)


def png(width: int, height: int) -> bytes:
    """Make a grey PNG that promises a size and holds next to nothing."""
    found = b'\x89PNG\r\n\x1a\n'
    header = struct.pack('>IIBBBBB', width, height, 8, 0, 0, 0, 0)
    for kind, data in ((b'IHDR', header), (b'IDAT', zlib.compress(bytes(99))), (b'IEND', b'')):
        found += struct.pack('>I', len(data)) + kind + data
        found += struct.pack('>I', zlib.crc32(kind + data))
    return found


@pytest.mark.parametrize(
    ('content', 'reason'),
    [
        (png(30_000, 30_000), 'above 100 megapixels'),
        (png(9_000, 9_000), 'promises 9000 x 9000 pixels in'),
        (png(8, 8)[:-30], 'damaged or cut short'),
        (b'BM' + bytes(99), 'neither JPEG nor PNG'),
        (b'', 'neither JPEG nor PNG'),
    ],
)
def test_a_label_image_is_believed_no_more_than_a_message(
    content: bytes, reason: str, tmp_path: Path
) -> None:
    (tmp_path / 'image.png').write_bytes(png(9, 9))
    (tmp_path / 'label.png').write_bytes(content)
    with pytest.raises(BadImages, match=rf'label\.png.*{reason}'):
        LabelledImage(tmp_path / 'image.png', tmp_path / 'label.png').read(LABELS)


@pytest.mark.parametrize('made', [pipe, device, endless])
def test_a_label_image_that_is_no_file_is_refused(
    made: Callable[[Path], None], tmp_path: Path
) -> None:
    made(tmp_path / 'image.png')
    with pytest.raises(BadImages, match=r'image\.png'):
        LabelledImage(tmp_path / 'image.png', tmp_path / 'image.png').read(LABELS)


def test_paths_are_resolved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'link').symlink_to('real')
    assert resolved('model', '') is None
    assert resolved('model', '~/a/../b') == tmp_path / 'b'
    assert resolved('model', 'link/c') == tmp_path / 'real' / 'c'
    assert resolved('model', '$(reboot)') == tmp_path / '$(reboot)'


@pytest.mark.parametrize('path', ['~nobody-here/x', 'a\0b'])
def test_a_path_that_leads_nowhere_is_named(path: str) -> None:
    with pytest.raises(ValueError, match=r'teach\.file is .* leads nowhere'):
        resolved('teach.file', path)


def test_a_log_into_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / 'log')
    with pytest.raises(OSError, match='frame_log: is a pipe'):
        FrameLog(tmp_path / 'log')


@pytest.mark.parametrize('parameter', ['model', 'extrinsics_file', 'frame_log'])
def test_the_node_says_which_file_is_a_pipe(parameter: str, bench: Bench, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / 'pipe')
    bench.perception(**{parameter: f'{tmp_path}/./x/../pipe'})
    bench.finding('configure failed', str(tmp_path / 'pipe'), timeout_s=15)


def test_diagnostics_say_where_the_files_are(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / 'model').symlink_to(SHIPPED)
    log = f'{tmp_path}/new/../log.jsonl'
    bench.perception(model=str(tmp_path / 'model'), frame_log=log)
    bench.wait(lambda: bench.state() in ('inactive', 'active'), 30)
    values = bench.sections['node'][2]
    assert values['model_file'] == str(SHIPPED)
    assert values['frame_log'] == str(tmp_path / 'log.jsonl')
    assert values['extrinsics_file'] == ''
