# SPDX-License-Identifier: Apache-2.0
"""Rows of hand-made recordings: which image, which pose, and a flag for every defect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from cross4d_jepa_ros.bag_setup import UnfitBag
from cross4d_jepa_ros.bags import BadBag, BagWriter
from offline_training.logs.bag_index import BagChoice, index_bag
from offline_training.logs.report import doubts, log_report, low_coverage, sentences
from offline_training.logs.rows import LogFindings
from tests.tiny_recording import (
    IMAGE,
    INFO,
    MS,
    POINTS,
    START_NS,
    TRUTH,
    camera_info,
    image,
    lidar_at,
    sweep,
    truth,
    write,
)
from tests.tiny_walls import (
    HEIGHT,
    LATE,
    PERIOD,
    WIDTH,
    XYZ,
    Entry,
    calibrated,
    drive,
    moving,
    pictured,
    stamp_of,
    swept,
    timed,
)

MISSING = f'missing_image:{IMAGE}'


def indexed(path: Path, entries: Sequence[Entry], **choice: Any) -> LogFindings:
    write(path / 'bag', list(entries))
    return index_bag(path / 'bag', BagChoice(**choice), path, lambda done, total: None)


def flags(findings: LogFindings) -> list[tuple[str, ...]]:
    """Flags of each row but the one that tells of a recording that does not move."""
    return [tuple(f for f in row.flags if f != 'no_pose') for row in findings.rows]


def offsets(findings: LogFindings) -> list[int | None]:
    return [shot and shot.offset_ns // MS for row in findings.rows for shot in row.shots]


def test_every_sweep_has_a_row_with_its_image(tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    write(tmp_path / 'bag', drive(5))
    findings = index_bag(
        tmp_path / 'bag', BagChoice(), tmp_path, lambda done, total: steps.append((done, total))
    )
    assert steps == [(number, 5) for number in range(1, 6)]
    assert findings.problems == []
    for number, row in enumerate(findings.rows):
        assert (row.log, row.topic, row.frame_id) == ('bag', POINTS, 'lidar')
        assert (row.stamp_ns, row.message_ns) == (stamp_of(number), stamp_of(number) + 30 * MS)
        assert (row.points, row.segment, row.labels) == (len(XYZ), 0, '')
        assert row.flags == ('no_pose',)
        assert row.base_from_sensor[2, 3] == pytest.approx(1.8, abs=0.01)
        assert row.intensity_ceiling == (1 if number == 0 else 255)
        (shot,) = row.shots
        assert shot is not None
        assert (shot.topic, shot.offset_ns) == (IMAGE, LATE)
        assert (shot.stamp_ns, shot.message_ns) == (
            stamp_of(number) + LATE,
            stamp_of(number) + LATE + 5 * MS,
        )
        assert (shot.camera.width, shot.camera.fx) == (WIDTH, WIDTH / 2)
        # 10 m ahead of the LiDAR, which is 1.8 m above the base frame.
        np.testing.assert_allclose(
            shot.camera_from_base @ (10, 0, 1.8, 1), (0, 0, 10, 1), atol=0.01
        )
        assert 0.3 < shot.coverage < 0.7
        assert row.coverage == shot.coverage
    (camera,) = findings.cameras
    assert camera.images == 5
    report = log_report(findings)
    assert report['cameras'][0]['offset_ms'] == {'median': 12.0, 'min': 12.0, 'max': 12.0}
    assert (report['sweeps'], report['usable'], report['seconds']) == (5, 5, 0.4)


@pytest.mark.parametrize(
    ('late_ms', 'wanted'),
    [
        ((12,), 12),
        ((-20, 15), 15),  # the later one is nearer
        ((-10, 40), -10),
        ((50,), 50),
        ((51,), None),
        ((-50,), -50),
        ((-51,), None),
        ((), None),
    ],
)
def test_the_nearest_image_within_50_ms(
    tmp_path: Path, late_ms: tuple[int, ...], wanted: int | None
) -> None:
    entries = [calibrated(), swept(5), *(pictured(5, late * MS) for late in late_ms)]
    findings = indexed(tmp_path, [*entries, pictured(0)])
    assert offsets(findings) == [wanted]
    assert flags(findings) == [() if wanted is not None else (MISSING,)]


def test_an_image_that_the_node_would_miss_is_found(tmp_path: Path) -> None:
    entries = [calibrated(), *map(swept, range(8))]
    entries += [pictured(number, recorded_after_ns=600 * MS) for number in range(8)]
    assert offsets(indexed(tmp_path, entries)) == [12] * 8


def test_the_calibrations_time_offset_counts(tmp_path: Path) -> None:
    entries = [calibrated(), swept(5), pictured(5, 90 * MS), pictured(5, -5 * MS)]
    path = tmp_path / 'extrinsics.yaml'
    path.write_text(yaml.safe_dump({'cam0': {'rostopic': IMAGE, 'timeshift_cam_lidar': -0.08}}))
    findings = indexed(tmp_path, entries, extrinsics=path)
    assert offsets(findings) == [10]
    (shot,) = findings.rows[0].shots
    assert shot is not None
    assert shot.stamp_ns == stamp_of(5) + 10 * MS
    assert shot.message_ns == stamp_of(5) + 95 * MS


def test_poses_are_known_on_both_sides_and_never_extrapolated(tmp_path: Path) -> None:
    poses = [(stamp_of(n) + 400 * MS, '/tf', lidar_at(stamp_of(n), 0.5 * n)) for n in range(1, 4)]
    findings = indexed(tmp_path, [*drive(6), *poses])
    got = [row.fixed_from_base for row in findings.rows]
    assert [pose is None for pose in got] == [True, False, False, False, True, True]
    assert [row.flags for row in findings.rows] == [
        ('no_pose',),
        (),
        (),
        ('no_pose',),  # that of the image, 12 ms later, is not known
        ('no_pose',),
        ('no_pose',),
    ]
    np.testing.assert_allclose([pose[0, 3] for pose in got if pose is not None], (0.5, 1, 1.5))
    (shot,) = findings.rows[1].shots
    assert shot is not None
    # The camera has moved on by 12 % of 0.5 m.
    np.testing.assert_allclose(shot.camera_from_base @ (10, 0, 1.8, 1), (0, 0, 9.94, 1), atol=1e-2)


def test_points_with_times_are_moved_where_the_motion_is_known(tmp_path: Path) -> None:
    entries = [calibrated(), timed(0), timed(1), timed(40)]
    findings = indexed(tmp_path, [*entries, *moving(1)])
    assert [row.stamp_from_knot is None for row in findings.rows] == [False, False, True]
    assert 'no_deskew' in findings.rows[2].flags
    motion = findings.rows[0].stamp_from_knot
    assert motion is not None
    np.testing.assert_allclose(motion[[0, -1], 0, 3], (0, 0.09), atol=1e-6)


def short(number: int) -> Entry:
    at_ns, topic, message = swept(number)
    message.width += 10
    return at_ns, topic, message


def nowhere(number: int) -> Entry:
    at_ns, topic, _ = swept(number)
    return at_ns, topic, sweep(stamp_of(number), np.full((30, 3), np.nan, np.float32))


@pytest.mark.parametrize(
    ('third', 'wanted', 'usable', 'segments'),
    [
        (lambda: short(3), 'truncated_cloud', False, [0, 0, 0, 0, 0, 0]),
        (lambda: nowhere(3), 'empty_cloud', False, [0, 0, 0, 0, 0, 0]),
        (lambda: swept(3, stamp_ns=stamp_of(2)), 'duplicate_stamp', False, [0, 0, 0, 0, 0, 0]),
        (
            lambda: swept(3, stamp_ns=stamp_of(2) - 50 * MS),
            'stamp_regression',
            True,
            [0, 0, 0, 1, 1, 1],
        ),
        (lambda: swept(3, frame_id='other'), 'frame_change', True, [0, 0, 0, 1, 2, 2]),
    ],
)
def test_a_defect_of_one_sweep(
    tmp_path: Path, third: Any, wanted: str, usable: bool, segments: list[int]
) -> None:
    entries = [calibrated(), *(swept(n) for n in range(6) if n != 3), third()]
    findings = indexed(tmp_path, entries, images=())
    assert wanted in findings.rows[3].flags
    assert [row.usable for row in findings.rows] == [True] * 3 + [usable] + [True] * 2
    assert [row.segment for row in findings.rows] == segments
    assert all(wanted not in f for f in [*flags(findings)[:3], *flags(findings)[5:]])
    report = log_report(findings)
    assert report['flags'][wanted] >= 1
    assert report['usable'] == 5 + usable


def test_a_message_that_does_not_deserialise(tmp_path: Path) -> None:
    with BagWriter(tmp_path / 'bag') as bag:
        for number in range(3):
            at_ns, topic, message = swept(number)
            broken = b'\0\1\0\0' + bytes(5)
            msgtype = message.__msgtype__
            bag.write(topic, msgtype, at_ns, broken if number == 1 else message)
    findings = index_bag(tmp_path / 'bag', BagChoice(), tmp_path, lambda done, total: None)
    assert [row.usable for row in findings.rows] == [True, False, True]
    assert findings.rows[1].flags == ('truncated_cloud',)
    assert 'does not deserialise' in findings.notes['truncated_cloud'][0]


@pytest.mark.parametrize(
    ('numbers', 'segments', 'late'),
    [
        ((0, 1, 2, 5, 6), [0, 0, 0, 0, 0], 3),
        ((0, 1, 2, 14, 15), [0, 0, 0, 1, 1], 3),
        ((0, 1, 2, 3, 4), [0, 0, 0, 0, 0], None),
    ],
)
def test_gaps(
    tmp_path: Path, numbers: tuple[int, ...], segments: list[int], late: int | None
) -> None:
    findings = indexed(tmp_path, [swept(number) for number in numbers], images=())
    assert [row.segment for row in findings.rows] == segments
    assert flags(findings) == [('gap',) if place == late else () for place in range(5)]


def test_a_clock_that_jumps_back_begins_a_segment(tmp_path: Path) -> None:
    again = [
        (at_ns + 20 * PERIOD, topic, message)
        for at_ns, topic, message in [*map(swept, range(3)), *map(pictured, range(3))]
    ]
    findings = indexed(tmp_path, [*drive(3), *again])
    assert [row.segment for row in findings.rows] == [0, 0, 0, 1, 1, 1]
    assert flags(findings)[3] == ('stamp_regression',)
    shots = [row.shots[0] for row in findings.rows]
    assert [shot.message_ns - START_NS > 15 * PERIOD for shot in shots if shot] == [
        *[False] * 3,
        *[True] * 3,
    ]


def test_a_pose_that_jumps_begins_a_segment(tmp_path: Path) -> None:
    entries = [swept(number) for number in range(5)]
    for number in range(-1, 7):
        place = 0.1 * number + (50.0 if number >= 3 else 0.0)
        entries.append((START_NS + 2 * MS, '/tf', lidar_at(stamp_of(number), place)))
    findings = indexed(tmp_path, entries, images=())
    assert [row.segment for row in findings.rows] == [0, 0, 0, 1, 1]
    assert findings.rows[3].flags == ('pose_jump',)


def test_a_damaged_image_costs_itself_only(tmp_path: Path) -> None:
    entries = [e for e in drive(3) if e[:2] != pictured(1)[:2]]
    at_ns, topic, message = pictured(1)
    message.data = message.data[:-7]
    findings = indexed(tmp_path, [*entries, (at_ns, topic, message)])
    assert flags(findings) == [(), (f'unusable_image:{IMAGE}',), ()]
    assert 'its data holds' in findings.cameras[0].sentence
    assert low_coverage(findings) == ''


def test_a_recording_without_images_says_so(tmp_path: Path) -> None:
    findings = indexed(tmp_path, [swept(number) for number in range(3)])
    assert len(findings.rows) == 3
    assert all(row.shots == () for row in findings.rows)
    assert low_coverage(findings) == ''
    assert any('it has no images' in sentence for sentence in sentences(findings))


@pytest.mark.parametrize(
    ('lacks', 'wanted'),
    [(INFO, 'no CameraInfo'), ('transform', "no transform from 'lidar' to camera frame 'nowhere'")],
)
def test_images_without_calibration_are_named_and_the_sweeps_kept(
    tmp_path: Path, lacks: str, wanted: str
) -> None:
    entries = [entry for entry in drive(3) if entry[1] != lacks]
    for _, topic, message in entries:
        if topic == IMAGE and lacks == 'transform':
            message.header.frame_id = 'nowhere'
    findings = indexed(tmp_path, entries)
    assert all(row.usable for row in findings.rows)
    assert flags(findings) == [(f'unusable_image:{IMAGE}',)] * 3
    assert low_coverage(findings) == ''
    said = ' '.join(sentences(findings))
    assert wanted in said
    assert '--extrinsics' in said


BACKWARDS = [[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, -30], [0, 0, 0, 1]]
SIDEWAYS = [[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]
SKYWARDS = [[0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, -1.9], [0, 0, 0, 1]]


@pytest.mark.parametrize(
    ('camera_from_lidar', 'late_ms', 'wanted'),
    [
        (BACKWARDS, 12, 'lie in front of it: is its transform inverted'),
        (SKYWARDS, 12, 'in the image: is it turned the wrong way'),
        (None, 450, 'its nearest image is 250 ms from a sweep, usually 350 ms'),
        (None, 2500, 'none of its images was recorded within 1 s'),
    ],
)
def test_too_little_coverage_names_its_cause(
    tmp_path: Path, camera_from_lidar: Any, late_ms: int, wanted: str
) -> None:
    path = None
    if camera_from_lidar is not None:
        path = tmp_path / 'extrinsics.yaml'
        path.write_text(yaml.safe_dump({'cam0': {'T_cam_lidar': camera_from_lidar}}))
    entries = [calibrated(), *map(swept, range(3))]
    entries += [pictured(number, late_ms * MS) for number in range(3)]
    stop = low_coverage(indexed(tmp_path, entries, extrinsics=path))
    assert wanted in stop
    assert IMAGE in stop


def test_a_cut_recording_gives_what_is_readable(tmp_path: Path) -> None:
    path = write(tmp_path / 'bag', drive(30))
    storage = next(path.glob('*.mcap'))
    storage.write_bytes(storage.read_bytes()[: int(storage.stat().st_size * 0.5)])
    findings = index_bag(path, BagChoice(), tmp_path, lambda done, total: None)
    assert 10 <= len(findings.rows) <= 16
    assert any('cut short' in sentence for sentence in sentences(findings))


@pytest.mark.parametrize('content', ['nothing', 'no cloud'])
def test_what_has_no_sweep_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / 'bag'
    if content == 'no cloud':
        write(path, [pictured(0)])
    with pytest.raises((BadBag, UnfitBag)) as caught:
        index_bag(path, BagChoice(), tmp_path, lambda done, total: None)
    assert str(path) in str(caught.value)


def test_a_recording_without_messages_has_no_rows(tmp_path: Path) -> None:
    with BagWriter(tmp_path / 'bag') as bag:
        bag.add_topic(POINTS, 'sensor_msgs/msg/PointCloud2')
    findings = index_bag(tmp_path / 'bag', BagChoice(), tmp_path, lambda done, total: None)
    assert findings.rows == []
    assert sentences(findings)[0] == 'no sweep of it is usable'


def test_of_each_camera_one_colour_topic_is_taken(tmp_path: Path) -> None:
    depth = image(START_NS, np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    depth.encoding = '16UC1'
    raw, grey = '/b/image_raw', '/c/image_raw'
    entries = [calibrated(), swept(0), pictured(0)]
    for topic in ('/depth/image_raw', raw, f'{raw}/compressed', grey):
        message = depth if 'depth' in topic else pictured(0)[2]
        entries.append((START_NS + MS, topic, message))
    entries.append((START_NS, '/b/camera_info', camera_info(START_NS, WIDTH, HEIGHT)))
    findings = indexed(tmp_path, entries)
    assert [camera.topic for camera in findings.cameras] == [raw, grey, IMAGE]
    assert any('/depth/image_raw is left out: 16uc1' in problem for problem in findings.problems)


def test_a_stride_leaves_the_geometry_as_it_is(tmp_path: Path) -> None:
    every = indexed(tmp_path / 'all', drive(7))
    some = indexed(tmp_path / 'some', drive(7), stride=3)
    assert [row.stamp_ns for row in some.rows] == [stamp_of(number) for number in (0, 3, 6)]
    for row, whole in zip(some.rows, every.rows[::3], strict=True):
        assert row.intensity_ceiling == whole.intensity_ceiling
        np.testing.assert_array_equal(row.base_from_sensor, whole.base_from_sensor)


def test_sweeps_with_truth_say_where_it_is(tmp_path: Path) -> None:
    labels = np.zeros(len(XYZ), np.uint8)
    entries = [*drive(3), *((stamp_of(n), TRUTH, truth(stamp_of(n), labels)) for n in (0, 2))]
    findings = indexed(tmp_path, entries)
    assert [row.labels for row in findings.rows] == [TRUTH, '', TRUTH]
    assert log_report(findings)['with_labels'] == 2


def test_findings_of_nothing_are_reported() -> None:
    report = log_report(replace(LogFindings('bag', []), problems=['it is gone']))
    assert (report['sweeps'], report['usable'], report['coverage']) == (0, 0, None)
    assert report['sentences'][0] == 'no sweep of it is usable'
    assert 'it is gone' in report['sentences']


@pytest.mark.parametrize(
    ('edges', 'chance', 'doubted'), [(2.0, 6.5, False), (8.7, 7.4, True), (None, None, False)]
)
def test_edges_that_meet_by_chance_cast_doubt(
    edges: float | None, chance: float | None, doubted: bool
) -> None:
    said = doubts([{'topic': IMAGE, 'edge_distance_px': edges, 'edge_chance_px': chance}])
    assert bool(said) == doubted
    assert not doubted or IMAGE in said[0]
