# SPDX-License-Identifier: Apache-2.0
"""Calibration files: what is read, what is refused and how, and the round trip."""

from __future__ import annotations

import numpy as np
import pytest

from cross4d_jepa_ros.sensing.cameras import CameraModel
from cross4d_jepa_ros.sensing.extrinsics import (
    BadExtrinsics,
    CameraExtrinsics,
    Extrinsics,
    StaticTransform,
    load_extrinsics,
    save_extrinsics,
)
from cross4d_jepa_ros.sensing.poses import matrix_from_quaternion

KALIBR = """
cam0:
  camera_model: pinhole
  intrinsics: [458.654, 457.296, 367.215, 248.375]
  distortion_model: radtan
  distortion_coeffs: [-0.28, 0.07, 1e-4, 1.8e-05]
  resolution: [752, 480]
  rostopic: /cam0/image_raw
  frame_id: /cam0_optical_frame
  T_cam_lidar:
  - [0.0, -1.0, 0.0, 0.1]
  - [0.0, 0.0, -1.0, 0.2]
  - [1.0, 0.0, 0.0, 0.3]
  - [0.0, 0.0, 0.0, 1.0]
  T_cam_imu: whatever
  timeshift_cam_imu: 0.001
  timeshift_cam_lidar: -0.015
  cam_overlaps: [1]
cam1:
  camera_model: pinhole
  intrinsics: [400, 400, 320, 240]
  distortion_model: equidistant
  distortion_coeffs: [0.01, 0.02, 0.03, 0.04]
  resolution: [640, 480]
  T_cn_cnm1: [[1, 0, 0, -0.11], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
cam2:
  T_cn_cnm1: [[1, 0, 0, -0.5], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
transforms:
- {parent: /base_link, child: lidar, translation: [1, 0, 1.9], rotation_xyzw: [0, 0, 1, 0]}
"""
ROTATION = 'T_cam_lidar: [[{}, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, {}]]'


@pytest.fixture
def load(tmp_path):
    def load_text(text):
        path = tmp_path / 'rig.yaml'
        path.write_text(text, encoding='utf-8')
        return load_extrinsics(path)

    return load_text


def test_reads_a_kalibr_camchain(load):
    extrinsics = load(KALIBR)
    first, second, _ = extrinsics.cameras
    assert (first.name, first.rostopic) == ('cam0', '/cam0/image_raw')
    assert first.frame_id == 'cam0_optical_frame'
    assert first.time_offset_s == -0.015
    assert first.model == CameraModel(
        width=752,
        height=480,
        fx=458.654,
        fy=457.296,
        cx=367.215,
        cy=248.375,
        distortion='plumb_bob',
        coefficients=(-0.28, 0.07, 1e-4, 1.8e-5, 0.0),
    )
    assert np.allclose(first.camera_from_lidar @ (10, 2, 3, 1), (-1.9, -2.8, 10.3, 1))
    assert second.model.distortion == 'equidistant'
    assert second.model.coefficients == (0.01, 0.02, 0.03, 0.04)
    assert (second.rostopic, second.frame_id, second.time_offset_s) == (None, None, 0)
    (transform,) = extrinsics.transforms
    assert (transform.parent, transform.child) == ('base_link', 'lidar')
    assert np.allclose(transform.parent_from_child @ (1, 2, 3, 1), (0, -2, 4.9, 1))


def test_chains_from_camera_to_camera(load):
    first, second, third = load(KALIBR).cameras
    for camera, x in ((second, 0.1 - 0.11), (third, 0.1 - 0.11 - 0.5)):
        wanted = first.camera_from_lidar.copy()
        wanted[0, 3] = x
        assert np.allclose(camera.camera_from_lidar, wanted)
    assert third.model is None


@pytest.mark.parametrize(
    'text',
    [
        'cam0: {T_cn_cnm1: [[1,0,0,0],[0,1,0,0],[0,0,1,0],[0,0,0,1]]}',
        'cam0: {' + ROTATION.format(1, 1) + '}\n'
        'cam2: {T_cn_cnm1: [[1,0,0,0],[0,1,0,0],[0,0,1,0],[0,0,0,1]]}',
    ],
)
def test_a_chain_without_a_beginning_gives_no_pose(load, text):
    assert load(text).cameras[-1].camera_from_lidar is None


def test_cameras_come_in_the_order_of_their_numbers(load):
    text = '\n'.join(f'cam{i}: {{rostopic: /c{i}}}' for i in (10, 2, 0))
    assert [camera.rostopic for camera in load(text).cameras] == ['/c0', '/c2', '/c10']


def test_small_rounding_errors_are_removed(load):
    matrix = load('cam0: {' + ROTATION.format(0.9998, 1) + '}').cameras[0].camera_from_lidar
    assert np.abs(matrix - np.eye(4)).max() < 1e-14


@pytest.mark.parametrize(
    ('text', 'reason'),
    [
        ('', 'the file is None'),
        ('- cam0', 'the file is'),
        ('1: 2', 'the file is'),
        ('cam0: [1', 'cannot be read as YAML'),
        ('cam0: !!python/object/apply:os.getcwd []', 'cannot be read as YAML'),
        ('[' * 5_000, 'nested too deeply'),
        ('camera0: {}', "unknown entry 'camera0': is it cam0"),
        ('transform: []', 'is it transforms'),
        ('transforms: {}', 'give a list'),
        ('cam0: 3', 'cam0 is 3'),
        ('cam0: {T_lidar_cam: 1}', "cam0 has the unknown entry 'T_lidar_cam': is it T_cam_lidar"),
        ('cam0: {intrinsic: 1}', 'is it intrinsics'),
        ('cam0: {rostopic: 3}', 'cam0.rostopic is 3'),
        ('cam0: {timeshift_cam_lidar: .nan}', 'timeshift_cam_lidar holds nan'),
        ('cam0: {timeshift_cam_lidar: [1]}', 'finite numbers'),
        ('cam0: {timeshift_cam_lidar: true}', 'holds True'),
        ('cam0: {' + ROTATION.format(1, 2) + '}', 'last row'),
        ('cam0: {' + ROTATION.format(1.01, 1) + '}', 'orthonormal'),
        ('cam0: {' + ROTATION.format(-1, 1) + '}', 'mirror'),
        ('cam0: {T_cam_lidar: [[1, 0, 0, 0]]}', '4 rows of 4'),
        ('cam0: {T_cam_lidar: [[1], [1], [1], [1]]}', 'give 4 numbers'),
        ('cam0: {camera_model: omni}', "'omni': only pinhole"),
        ('cam0: {intrinsics: [1, 1, 1, 1]}', 'no resolution'),
        ('cam0: {distortion_model: none}', 'no intrinsics'),
        ('cam0: {intrinsics: [1, 1, 1], resolution: [8, 8]}', 'cam0.intrinsics .* give 4'),
        ('cam0: {intrinsics: [0, 1, 1, 1], resolution: [8, 8]}', 'focal lengths 0.0 and 1.0'),
        ('cam0: {intrinsics: [1, 1, 1, 1], resolution: [8, 0]}', 'whole pixels'),
        ('cam0: {intrinsics: [1, 1, 1, 1], resolution: [8, 8.5]}', 'whole pixels'),
        (
            'cam0: {intrinsics: [1,1,1,1], resolution: [8,8], distortion_model: fov}',
            "'fov': use none, radtan",
        ),
        (
            'cam0: {intrinsics: [1,1,1,1], resolution: [8,8], distortion_model: radtan}',
            'distortion_coeffs of radtan .* 4 or 5 numbers',
        ),
        ('transforms: [3]', r'transforms\[0\] is 3'),
        ('transforms: [{parent: a, child: b, translation: [0, 0, 0]}]', 'no rotation_xyzw'),
        (
            'transforms: [{parent: a, child: /a, translation: [0,0,0], rotation_xyzw: [0,0,0,1]}]',
            'name two frames',
        ),
        (
            'transforms: [{parent: a, child: b, translation: [0,0,0], rotation_xyzw: [0,0,0,2]}]',
            'norm 2',
        ),
        ('transforms: [{parent: a, kid: b}]', 'is it child'),
    ],
)
def test_refuses_with_the_place_and_the_remedy(load, text, reason):
    with pytest.raises(BadExtrinsics, match=reason) as error:
        load(text)
    assert 'rig.yaml: ' in str(error.value)
    assert len(str(error.value)) < 600


def test_alias_bombs_are_refused_quickly(load):
    lines = ['a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]']
    lines += [f'a{i}: &a{i} [{", ".join([f"*a{i - 1}"] * 9)}]' for i in range(1, 30)]
    with pytest.raises(BadExtrinsics, match='more than 100000 values'):
        load('\n'.join(lines))


def test_refuses_files_that_cannot_be_read(tmp_path):
    with pytest.raises(BadExtrinsics, match=r'missing\.yaml'):
        load_extrinsics(tmp_path / 'missing.yaml')
    (tmp_path / 'binary.yaml').write_bytes(b'\xff\xfe\x00\x80' * 9)
    with pytest.raises(BadExtrinsics, match='cannot be read'):
        load_extrinsics(tmp_path / 'binary.yaml')
    (tmp_path / 'huge.yaml').write_bytes(b'#' * 4_000_001)
    with pytest.raises(BadExtrinsics, match='larger than'):
        load_extrinsics(tmp_path / 'huge.yaml')


def rig():
    pose = matrix_from_quaternion((1e-5, -2.0, 1 / 3), np.array([0.5, -0.5, 0.5, -0.5]))
    model = CameraModel(
        width=640,
        height=480,
        fx=400.125,
        fy=1 / 3 * 1e3,
        cx=320.0,
        cy=240.0,
        distortion='rational_polynomial',
        coefficients=(0.1, 1e-7, 0.0, 0.0, 1e-3, 0.2, 0.3, 0.4),
    )
    return Extrinsics(
        cameras=(
            CameraExtrinsics('cam0', '/left/image', 'left', pose, -0.012, model),
            CameraExtrinsics('cam1', None, None, None, 0.0, None),
        ),
        transforms=(StaticTransform('base', 'lidar', pose),),
    )


def test_round_trip(tmp_path):
    path = tmp_path / 'rig.yaml'
    save_extrinsics(path, rig())
    found = load_extrinsics(path)
    (first, second), (wanted, empty) = found.cameras, rig().cameras
    assert first.model == wanted.model
    assert (first.name, first.rostopic, first.frame_id) == ('cam0', '/left/image', 'left')
    assert first.time_offset_s == wanted.time_offset_s
    assert np.abs(first.camera_from_lidar - wanted.camera_from_lidar).max() < 1e-15
    assert second == empty
    (transform,) = found.transforms
    assert (transform.parent, transform.child) == ('base', 'lidar')
    assert np.abs(transform.parent_from_child - wanted.camera_from_lidar).max() < 1e-15
    assert [entry.name for entry in tmp_path.iterdir()] == ['rig.yaml']


def test_round_trip_of_nothing(tmp_path):
    save_extrinsics(tmp_path / 'rig.yaml', Extrinsics((), ()))
    assert load_extrinsics(tmp_path / 'rig.yaml') == Extrinsics((), ())


def test_a_failed_save_leaves_the_old_file(tmp_path):
    path = tmp_path / 'rig.yaml'
    save_extrinsics(path, rig())
    before = path.read_bytes()
    bad = CameraExtrinsics('left', None, None, None, 0.0, None)
    with pytest.raises(BadExtrinsics, match="named 'left'"):
        save_extrinsics(path, Extrinsics((bad,), ()))
    assert path.read_bytes() == before
    blocked = tmp_path / 'folder.yaml'
    blocked.mkdir()
    with pytest.raises(OSError):
        save_extrinsics(blocked, rig())
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ['folder.yaml', 'rig.yaml']


def test_a_projection_with_a_translation_cannot_be_saved(tmp_path):
    model = CameraModel(8, 8, 1.0, 1.0, 4.0, 4.0, 'none', (), (-0.1, 0.0, 0.0))
    camera = CameraExtrinsics('cam0', None, None, None, 0.0, model)
    with pytest.raises(BadExtrinsics, match='translation'):
        save_extrinsics(tmp_path / 'rig.yaml', Extrinsics((camera,), ()))
    assert list(tmp_path.iterdir()) == []
