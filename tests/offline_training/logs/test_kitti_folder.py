# SPDX-License-Identifier: Apache-2.0
"""KITTI-style folders, made here: what was written is what is indexed and read."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from cross4d_jepa_ros.bags import BadBag
from offline_training.logs.kitti_folder import index_kitti, is_kitti
from offline_training.logs.reader import LogReader
from offline_training.logs.report import log_report, low_coverage, sentences
from offline_training.logs.rows import LogFindings
from offline_training.logs.table import Index
from tests.tiny_walls import HEIGHT, WIDTH, XYZ

SWEEPS = 5
STEP_M = 0.4
# The camera looks along the LiDAR's x axis from 0.2 m above it.
CAMERA_FROM_LIDAR = np.array([[0, -1, 0, 0], [0, 0, -1, 0.2], [1, 0, 0, 0]], np.float64)
INTRINSICS = np.array([[WIDTH / 2, 0, WIDTH / 2], [0, WIDTH / 2, HEIGHT / 2], [0, 0, 1]])
# Camera 2 stands 6 cm to the left of camera 0.
PROJECTION = INTRINSICS @ np.hstack((np.eye(3), [[0.06], [0], [0]]))


def line(matrix: np.ndarray) -> str:
    return ' '.join(f'{number:.6e}' for number in matrix.reshape(-1))


def write_drive(path: Path) -> Path:
    """The LiDAR moves ahead by 0.4 m a sweep."""
    for folder in ('velodyne', 'image_2', 'labels'):
        (path / folder).mkdir(parents=True)
    poses = []
    for number in range(SWEEPS):
        strength = np.full((len(XYZ), 1), 0.1 * number)
        columns = np.hstack((XYZ + np.float32(number), strength)).astype(np.float32)
        columns.tofile(path / 'velodyne' / f'{number:06d}.bin')
        shade = np.full((HEIGHT, WIDTH, 3), (0, 10, 20 + number), np.uint8)
        cv2.imwrite(str(path / 'image_2' / f'{number:06d}.png'), shade)
        labels = np.arange(len(XYZ), dtype=np.uint32) % 260 + (7 << 16)
        labels.tofile(path / 'labels' / f'{number:06d}.label')
        pose = np.eye(4)[:3]
        pose[2, 3] = STEP_M * number  # ahead is z of camera 0
        poses.append(line(pose))
    (path / 'calib.txt').write_text(f'P2: {line(PROJECTION)}\nTr: {line(CAMERA_FROM_LIDAR)}\n')
    (path / 'times.txt').write_text(''.join(f'{0.1037 * n:e}\n' for n in range(SWEEPS)))
    (path / 'poses.txt').write_text('\n'.join(poses) + '\n')
    return path


def indexed(path: Path, stride: int = 1) -> LogFindings:
    return index_kitti(path, stride, path.parent, lambda done, total: None)


def test_a_drive_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = write_drive(tmp_path / 'drive')
    assert is_kitti(path)
    findings = indexed(path)
    assert findings.problems == []
    Index(findings.rows, tmp_path).save(tmp_path / 'index.parquet')
    index = Index.load(tmp_path / 'index.parquet')
    assert len(index.rows) == SWEEPS
    with LogReader(index) as reader:
        for number, row in enumerate(index.rows):
            assert (row.topic, row.frame_id, row.log) == ('velodyne', 'velodyne', 'drive')
            assert (row.stamp_ns, row.message_ns) == (10**9 + 103_700_000 * number, number)
            assert row.flags == ()
            read = reader.sweep(row)
            wanted = XYZ + np.float32(number) + row.base_from_sensor[:3, 3]
            np.testing.assert_allclose(read.xyz, wanted, atol=1e-5)
            assert read.intensity is not None
            np.testing.assert_array_equal(read.intensity, np.float32(0.1 * number))
            assert row.fixed_from_base is not None
            lidar_at = row.fixed_from_base @ row.base_from_sensor @ (0, 0, 0, 1)
            np.testing.assert_allclose(lidar_at, (STEP_M * number, 0, 0, 1), atol=1e-6)
            image = reader.image(row, 0)
            assert image.shape == (HEIGHT, WIDTH, 3)
            assert (image == (20 + number, 10, 0)).all()
            labels = reader.labels(row)
            assert labels is not None
            assert labels.dtype == np.uint16
            np.testing.assert_array_equal(labels, np.arange(len(XYZ)) % 260)


def test_points_fall_where_the_projection_says(tmp_path: Path) -> None:
    (shot,) = indexed(write_drive(tmp_path / 'drive')).rows[0].shots
    assert shot is not None
    row = indexed(tmp_path / 'drive').rows[0]
    in_lidar = np.array([12.0, 3.0, -1.0, 1.0])
    in_camera = shot.camera_from_base @ row.base_from_sensor @ in_lidar
    uv, seen = shot.camera.project(in_camera[None, :3])
    u, v, w = PROJECTION @ (*(CAMERA_FROM_LIDAR @ in_lidar), 1.0)
    assert seen.all()
    np.testing.assert_allclose(uv[0], (u / w, v / w), rtol=1e-5)
    assert shot.coverage > 0.3


@pytest.mark.parametrize(
    ('name', 'wanted', 'flag'),
    [
        ('calib.txt', 'calib.txt is missing', 'unusable_image:image_2'),
        ('poses.txt', 'poses.txt is missing: there is no ego-motion', 'no_pose'),
        ('times.txt', 'times.txt is missing: sweeps are taken to be 0.1 s apart', ''),
        ('image_2/000002.png', '', 'missing_image:image_2'),
        ('labels/000002.label', '', ''),
        ('velodyne/000002.bin', '', 'gap'),
    ],
)
def test_a_missing_file_costs_what_it_held(
    tmp_path: Path, name: str, wanted: str, flag: str
) -> None:
    path = write_drive(tmp_path / 'drive')
    (path / name).unlink()
    findings = indexed(path)
    assert bool(findings.problems) == bool(wanted)
    assert not wanted or wanted in findings.problems[0]
    assert {flag for row in findings.rows for flag in row.flags} - {'no_pose'} == (
        {flag} - {'no_pose', ''}
    )
    assert log_report(findings)['usable'] == SWEEPS - (flag == 'gap')
    assert low_coverage(findings) == ''
    lacking = [row.message_ns for row in findings.rows if not row.labels]
    assert lacking == ([2] if name.startswith('labels') else [])
    assert any('no_pose' in row.flags for row in findings.rows) == (
        name in ('calib.txt', 'poses.txt')
    )


@pytest.mark.parametrize(
    ('name', 'keep', 'wanted'),
    [
        ('poses.txt', 100, 'poses.txt: line 1 is not 12 numbers'),
        ('poses.txt', 400, 'poses.txt has 2 lines, the last sweep is 4'),
        ('calib.txt', 100, 'P2 is no 3 x 4 matrix'),
        ('velodyne/000002.bin', 1000, 'promises 1 x 63 points'),
        ('image_2/000002.png', 40, 'image_2'),
    ],
)
def test_a_cut_file_is_named(tmp_path: Path, name: str, keep: int, wanted: str) -> None:
    path = write_drive(tmp_path / 'drive')
    (path / name).write_bytes((path / name).read_bytes()[:keep])
    findings = indexed(path)
    assert wanted in ' '.join(sentences(findings))
    assert len(findings.rows) == SWEEPS
    assert log_report(findings)['usable'] == SWEEPS - name.startswith('velodyne')


def test_a_tr_that_is_no_transform_is_named(tmp_path: Path) -> None:
    path = write_drive(tmp_path / 'drive')
    (path / 'calib.txt').write_text(f'P2: {line(PROJECTION)}\nTr: {line(2 * CAMERA_FROM_LIDAR)}\n')
    assert any('Tr is no 3 x 4 matrix' in problem for problem in indexed(path).problems)


def test_labels_that_do_not_fit_are_none(tmp_path: Path) -> None:
    path = write_drive(tmp_path / 'drive')
    (path / 'labels' / '000001.label').write_bytes(bytes(4))
    rows = indexed(path).rows
    with LogReader(Index(rows, tmp_path)) as reader:
        assert reader.labels(rows[1]) is None


def test_a_stride_and_an_empty_folder(tmp_path: Path) -> None:
    path = write_drive(tmp_path / 'drive')
    assert [row.message_ns for row in indexed(path, stride=2).rows] == [0, 2, 4]
    (tmp_path / 'empty' / 'velodyne').mkdir(parents=True)
    with pytest.raises(BadBag, match=r'no numbered \.bin file'):
        indexed(tmp_path / 'empty')
