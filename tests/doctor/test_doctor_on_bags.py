# SPDX-License-Identifier: Apache-2.0
"""What the doctor names in recordings with one thing wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from cross4d_jepa_ros.bag_setup import INFO_TYPE
from cross4d_jepa_ros.bags import BagWriter, message_class
from cross4d_jepa_ros.doctor import __main__ as doctor
from cross4d_jepa_ros.doctor.clouds import fields
from cross4d_jepa_ros.health import Level
from cross4d_jepa_ros.ros.parameters import PARAMETERS
from cross4d_jepa_ros.sensing.extrinsics import CameraExtrinsics, Extrinsics, save_extrinsics
from tests.tiny_recording import (
    CLOUD_TYPE,
    IMAGE,
    INFO,
    MS,
    POINTS,
    START_NS,
    camera_at_lidar,
    camera_info,
    header,
    sweep,
    write,
)
from tests.tiny_walls import (
    HEIGHT,
    LATE,
    WIDTH,
    XYZ,
    calibrated,
    drive,
    moving,
    pictured,
    stamp_of,
    swept,
    timed,
)

Entry = tuple[int, str, Any]


def seen(folder: Path, entries: list[Entry] | Path, *words: str) -> tuple[int, dict[str, Any]]:
    """Run the doctor; returns its exit code and report (empty where it stopped)."""
    bag = entries if isinstance(entries, Path) else write(folder / 'bag', entries)
    code = doctor.main(['--bag', str(bag), '--out', str(folder / 'out'), *words])
    path = folder / 'out/report.json'
    return code, json.loads(path.read_text()) if path.exists() else {}


def said(report: dict[str, Any], about: str) -> tuple[str, str]:
    """Level and sentence of the one finding about something."""
    (found,) = [entry for entry in report['findings'] if entry['about'] == about]
    return found['level'], found['sentence']


def complaints(report: dict[str, Any]) -> set[str]:
    """What is not well with the recording, the machine left out."""
    machine = ('interpreter', 'packages', 'ROS', 'GPU', 'DDS')
    return {
        entry['about']
        for entry in report['findings']
        if entry['level'] != 'ok' and entry['about'] not in machine
    }


def test_a_sound_recording_is_fine_and_gets_its_command(tmp_path: Path) -> None:
    code, report = seen(tmp_path, [*drive(9), *moving(9)])

    assert code == 0
    # Its images are of one colour.
    assert complaints(report) == {f'projection {IMAGE}'}
    assert said(report, f'projection {IMAGE}')[1].startswith('cannot tell from these images')
    assert report['parameters'] == {'sync.offsets': [LATE / 1e9]}
    assert report['cameras'][IMAGE]['offset_ms']['median'] == LATE / MS
    command = report['launch']
    assert command.startswith('ros2 launch cross4d_jepa_ros perception.launch.py points:=/lidar ')
    assert f"'images:=[{IMAGE}]'" in command
    assert f'params_file:={tmp_path / "out/perception.yaml"}' in command
    assert 'odometry' not in command
    assert report['replay'].startswith(
        f'ros2 launch cross4d_jepa_ros replay.launch.py bag:={tmp_path / "bag"} points:=/lidar '
    )
    assert (tmp_path / 'out/projection_camera.png').stat().st_size > 10_000


def test_the_parameter_file_holds_what_the_node_declares(tmp_path: Path) -> None:
    seen(tmp_path, [calibrated(), *map(timed, range(9)), *map(pictured, range(9))])

    content = yaml.safe_load((tmp_path / 'out/perception.yaml').read_text())
    given = content['/**']['ros__parameters']
    declared = {parameter.name: type(parameter.default) for parameter in PARAMETERS}
    assert {name: type(value) for name, value in given.items()} == {
        name: declared[name] for name in given
    }
    assert (given['points.time_unit'], given['points.sweep_stamp']) == ('s', 'start')
    assert given['sync.offsets'] == [LATE / 1e9]


def test_no_camera_info_is_named_with_where_it_was_looked_for(tmp_path: Path) -> None:
    code, report = seen(tmp_path, [entry for entry in drive(9) if entry[1] != INFO])

    assert code == 1
    level, sentence = said(report, f'CameraInfo {IMAGE}')
    assert level == 'error'
    assert f'nothing is on {INFO}' in sentence
    assert '--camera-infos' in sentence
    assert complaints(report) == {f'CameraInfo {IMAGE}', 'ego-motion'}


def test_a_camera_info_of_another_size_is_named(tmp_path: Path) -> None:
    entries = [(START_NS + MS, INFO, camera_info(START_NS, 2 * WIDTH, HEIGHT)), *drive(9)[1:]]
    code, report = seen(tmp_path, entries)

    assert code == 1
    assert 'another aspect ratio' in said(report, f'transform {IMAGE}')[1]


@pytest.mark.parametrize(
    ('reliability', 'code'), [('auto', 0), ('best_effort', 0), ('reliable', 1)]
)
def test_best_effort_against_reliable_is_named(tmp_path: Path, reliability: str, code: int) -> None:
    with BagWriter(tmp_path / 'bag') as bag:
        bag.add_topic(POINTS, CLOUD_TYPE, best_effort=True)
        bag.write('/tf_static', 'tf2_msgs/msg/TFMessage', START_NS, camera_at_lidar())
        for at_ns, topic, message in sorted(drive(9), key=lambda entry: entry[0]):
            bag.write(topic, message.__msgtype__, at_ns, message)
    found, report = seen(tmp_path, tmp_path / 'bag', '--reliability', reliability)

    assert found == code
    level, sentence = said(report, f'topic {POINTS}')
    assert 'recorded as best_effort' in sentence
    assert (level == 'error') == (f'incompatible QoS on {POINTS}' in sentence) == bool(code)
    assert 'QoS not recorded' in said(report, f'topic {IMAGE}')[1]


@pytest.mark.parametrize(('latched', 'level'), [(False, 'warning'), (True, 'ok')])
def test_a_camera_info_that_is_sent_once_has_to_be_latched(
    tmp_path: Path, latched: bool, level: str
) -> None:
    with BagWriter(tmp_path / 'bag') as bag:
        bag.add_topic(INFO, INFO_TYPE, transient_local=latched)
        bag.write('/tf_static', 'tf2_msgs/msg/TFMessage', START_NS, camera_at_lidar())
        for at_ns, topic, message in sorted(drive(9), key=lambda entry: entry[0]):
            bag.write(topic, message.__msgtype__, at_ns, message)
    _, report = seen(tmp_path, tmp_path / 'bag')

    assert said(report, f'topic {INFO}')[0] == level


BACKWARDS = np.array([[0, 1, 0, 0], [0, 0, -1, 0], [-1, 0, 0, 0], [0, 0, 0, 1]], float)
AS_LIDAR = np.eye(4)
OPTICAL_FROM_LIDAR = np.array([[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]], float)


@pytest.mark.parametrize(
    ('camera_from_lidar', 'words'),
    [
        (AS_LIDAR, 'an optical frame looks along z'),
        (BACKWARDS, 'only 0% of the points lie in front of it'),
    ],
    ids=['not optical', 'looks back'],
)
def test_wrong_extrinsics_are_named(
    tmp_path: Path, camera_from_lidar: np.ndarray, words: str
) -> None:
    path = tmp_path / 'wrong.yaml'
    entry = CameraExtrinsics('cam0', IMAGE, None, camera_from_lidar, 0.0, None)
    save_extrinsics(path, Extrinsics((entry,), ()))
    # Nothing behind: what is there would be seen.
    ahead = XYZ[XYZ[:, 0] > 1]
    sweeps = [
        (at_ns, topic, sweep(stamp_of(number), ahead, intensity=ahead[:, 0]))
        for number, (at_ns, topic, _) in enumerate(map(swept, range(9)))
    ]
    entries = [calibrated(), *sweeps, *map(pictured, range(9))]
    code, report = seen(tmp_path, entries, '--extrinsics', str(path))

    assert code == 1
    level, sentence = said(report, f'projection {IMAGE}')
    assert level == 'error'
    assert sentence.startswith('wrong extrinsics?')
    assert words in sentence


def test_a_missing_transform_is_named(tmp_path: Path) -> None:
    entries = [
        calibrated(),
        *(swept(number, frame_id='roof') for number in range(9)),
        *map(pictured, range(9)),
    ]
    code, report = seen(tmp_path, entries)

    assert code == 1
    sentence = said(report, f'transform {IMAGE}')[1]
    assert "no transform from 'roof' to camera frame 'camera'" in sentence
    assert (
        "breaks at 'roof', no transform names it (known: camera, lidar): publish it on" in sentence
    )


def test_a_recording_without_any_transform_is_named(tmp_path: Path) -> None:
    with BagWriter(tmp_path / 'bag') as bag:
        for at_ns, topic, message in sorted(drive(9), key=lambda entry: entry[0]):
            bag.write(topic, message.__msgtype__, at_ns, message)
    code, report = seen(tmp_path, tmp_path / 'bag')

    assert code == 1
    level, sentence = said(report, f'transform {IMAGE}')
    assert level == 'error'
    assert "breaks at 'lidar', no transform is known: publish it on /tf_static" in sentence
    assert 'give it with --extrinsics' in sentence


@pytest.mark.parametrize(
    ('frames', 'level', 'words'),
    [
        (('camera', 'camera'), 'ok', "frame 'camera'"),
        (('camera', 'left'), 'warning', "its CameraInfo has the frame 'left'"),
        (('', 'camera'), 'error', 'the driver leaves frame_id empty'),
    ],
)
def test_a_wrong_frame_id_of_images_is_named(
    tmp_path: Path, frames: tuple[str, str], level: str, words: str
) -> None:
    entries = drive(5)
    for _, topic, message in entries:
        if topic in (IMAGE, INFO):
            message.header.frame_id = frames[topic == INFO]
    _, report = seen(tmp_path, entries)

    found, sentence = said(report, f'image {IMAGE}')
    assert found == level
    assert words in sentence


def test_a_compressed_image_of_an_unknown_format_is_named(tmp_path: Path) -> None:
    kind = 'sensor_msgs/msg/CompressedImage'
    entries = [entry for entry in drive(5) if entry[1] != IMAGE]
    for number in range(5):
        data = np.frombuffer(b'\x00\x00\x00\x01' + bytes(100), np.uint8)
        message = message_class(kind)(header(stamp_of(number), 'camera'), 'h264', data)
        entries.append((stamp_of(number) + MS, f'{IMAGE}/compressed', message))
    code, report = seen(tmp_path, entries)

    assert code == 1
    level, sentence = said(report, f'image {IMAGE}/compressed')
    assert level == 'error'
    assert "format 'h264'" in sentence
    assert 'neither JPEG nor PNG. Publish JPEG or PNG' in sentence


def test_a_late_camera_its_gap_and_two_offsets_are_named(tmp_path: Path) -> None:
    """A camera of 15 Hz beside a LiDAR of 10 Hz, which is 0.79 s late and loses one image."""
    sweeps = [swept(number) for number in range(40)]
    images = [pictured(0, 793 * MS + k * 66_666_667) for k in range(48) if k != 1]
    code, report = seen(tmp_path, [calibrated(), *sweeps, *images])

    assert code == 0
    level, sentence = said(report, f'sync {IMAGE}')
    assert level == 'warning'
    assert 'usually -7.0 ms' in sentence
    assert 'or +26.3 ms' in sentence
    assert 'starts 0.79 s after the sweeps' in sentence
    assert report['parameters'] == {'sync.offsets': [0.0]}
    assert 'one gap of 133 ms, 0.00 s after its first message' in sentence
    assert '15.0 Hz, jitter 0.0 ms' in sentence
    assert said(report, f'stamps {IMAGE}')[0] == 'ok'


def test_stamps_of_another_clock_are_named(tmp_path: Path) -> None:
    images = [pictured(n, -3000 * MS, recorded_after_ns=3005 * MS) for n in range(9)]
    code, report = seen(tmp_path, [calibrated(), *map(swept, range(9)), *images])

    assert code == 1
    level, sentence = said(report, f'sync {IMAGE}')
    assert level == 'error'
    assert 'its clock is +2.975 s behind that of the sweeps' in sentence
    assert 'sync.stamp_source: arrival' in sentence
    assert report['parameters']['sync.stamp_source'] == 'arrival'


@pytest.mark.parametrize(
    ('stamps', 'words'),
    [
        ([0] * 9, 'all 9 are zero'),
        ([0, *map(stamp_of, range(1, 9))], '1 are zero'),
        ([stamp_of(max(1, n)) for n in range(9)], '1 are the same as the one before'),
        ([stamp_of(n if n != 4 else 1) for n in range(9)], '1 go back'),
    ],
)
def test_stamps_that_cannot_be_used_are_named(
    tmp_path: Path, stamps: list[int], words: str
) -> None:
    entries = [calibrated(), *map(pictured, range(9))]
    entries += [swept(number, stamp_ns=stamp) for number, stamp in enumerate(stamps)]
    _, report = seen(tmp_path, entries)

    level, sentence = said(report, f'stamps {POINTS}')
    assert level != 'ok'
    assert words in sentence


def test_two_clouds_are_listed_and_nothing_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = [(at_ns, '/rear', message) for at_ns, _, message in map(swept, range(3))]
    code, report = seen(tmp_path, [*drive(3), *other])

    assert code == 2
    assert not report
    shown = capsys.readouterr().out
    assert 'several clouds, say which to take: /lidar, /rear' in shown
    assert 'topic /rear: sensor_msgs/msg/PointCloud2, 3 messages' in shown


def test_a_model_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / 'bad.safetensors').write_bytes(b'nothing')
    code, report = seen(tmp_path, drive(3), '--model', str(tmp_path / 'bad.safetensors'))

    assert code == 1
    assert said(report, 'model')[0] == 'error'


@pytest.mark.parametrize(
    ('times', 'unit', 'sweep_stamp'),
    [
        (np.linspace(0, 0.1, 9, dtype=np.float32), 's', 'start'),
        (np.linspace(-0.05, 0.05, 9, dtype=np.float32), 's', 'middle'),
        (np.linspace(-100, 0, 9, dtype=np.float32), 'ms', 'end'),
        (np.linspace(0, 100_000, 9).astype(np.uint32), 'us', 'start'),
        (np.linspace(0, 100_000_000, 9).astype(np.uint32), 'ns', 'start'),
    ],
)
def test_the_time_of_points_is_read_as_the_node_reads_it(
    times: np.ndarray, unit: str, sweep_stamp: str
) -> None:
    xyz = np.ones((9, 3), np.float32)
    finding, parameters = fields(POINTS, sweep(START_NS, xyz, time=times))

    assert f'time in {unit}, relative, over 100.0 ms' in finding.sentence
    assert parameters == {'points.time_unit': unit, 'points.sweep_stamp': sweep_stamp}


def test_a_cloud_without_intensity_ring_and_time_is_named() -> None:
    finding, parameters = fields(POINTS, sweep(START_NS, np.ones((9, 3), np.float32)))

    assert finding.level == Level.WARN
    assert 'no intensity' in finding.sentence
    assert 'no ring' in finding.sentence
    assert 'no per-point time' in finding.sentence
    assert not parameters


@pytest.mark.parametrize(
    ('last', 'odd'), [(100_000_000, False), (50_000_000, False), (1_000_000, True)]
)
def test_a_time_of_points_in_an_odd_unit_is_named(last: int, odd: bool) -> None:
    """Sweeps of 100 ms, one of them with times in steps of 100 ns."""
    times = np.linspace(0, last, 9).astype(np.uint32)
    xyz = np.ones((9, 3), np.float32)
    cloud = sweep(START_NS, xyz, time=times, intensity=xyz[:, 0])
    finding, _ = fields(POINTS, cloud, 100.0 * MS)

    assert (finding.level == Level.WARN) == odd
    assert ('is it in an odd unit?' in finding.sentence) == odd
