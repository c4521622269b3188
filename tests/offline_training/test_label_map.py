# SPDX-License-Identifier: Apache-2.0
"""Label maps: what becomes of numbers and names, and which maps are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from cross4d_jepa_ros.model.config import BadConfig
from offline_training.label_map import BadLabels, LabelMap, load_label_map
from offline_training.street.classes import CLASS_NAMES, PALETTE

MAPS = Path(__file__).parents[2] / 'config' / 'label_maps'
MAP = LabelMap(
    ('road', 'car'),
    ((1, 2, 3), (4, 5, 6)),
    {0: 'ignore', 40: 'road', 10: 'car', 252: 'car', 'asphalt': 'road', 'sky': 'ignore'},
)


def test_numbers_become_classes() -> None:
    labels = np.array([[40, 0], [252, 10]], np.uint16)
    assert MAP.mapped(labels, 'x').tolist() == [[0, 255], [1, 1]]
    assert MAP.mapped(labels[:0], 'x').shape == (0, 2)
    assert MAP.table.shape == (65536,)
    assert (MAP.table[[40, 0, 252, 10, 7, 65535]] == [0, 255, 1, 1, 255, 255]).all()


def test_names_are_looked_up_where_the_source_has_them() -> None:
    labels = np.array([0, 1, 255], np.uint8)
    assert MAP.mapped(labels, 'x', ('sky', 'asphalt')).tolist() == [255, 0, 255]
    numbers = LabelMap(MAP.names, MAP.palette, {0: 'road', 1: 'car', 255: 'ignore'})
    assert numbers.mapped(labels, 'x', ('sky', 'asphalt')).tolist() == [0, 1, 255]


@pytest.mark.parametrize(
    ('number', 'names', 'label'), [(7, (), '7'), (1, ('sky', 'ice'), 'ice'), (2, ('sky',), '2')]
)
def test_what_is_not_listed_is_named(number: int, names: tuple[str, ...], label: str) -> None:
    labels = np.array([0, number], np.uint16)
    with pytest.raises(BadLabels, match=f"^drive/3 has the label {label}, .* '{label}: ignore'"):
        MAP.mapped(labels, 'drive/3', names)
    lenient = LabelMap(MAP.names, MAP.palette, MAP.ids, others_ignored=True)
    assert lenient.mapped(labels, 'drive/3', names).tolist() == [255, 255]


def test_the_street_maps_to_itself() -> None:
    street = load_label_map(MAPS / 'street.yaml')
    assert dict(zip(street.names, street.palette, strict=True)) == PALETTE
    labels = np.array([*range(len(CLASS_NAMES)), 255], np.uint8)
    for names in ((), CLASS_NAMES):
        np.testing.assert_array_equal(street.mapped(labels, 'x', names), labels)


@pytest.mark.parametrize('name', ['semantic_kitti', 'semantic_kitti_street'])
def test_semantic_kitti_is_listed_whole(name: str) -> None:
    loaded = load_label_map(MAPS / f'{name}.yaml')
    assert len(loaded.ids) == 34
    assert not loaded.others_ignored
    assert len(loaded.names) == {'semantic_kitti': 19, 'semantic_kitti_street': 7}[name]
    assert len(set(loaded.palette)) == len(loaded.names)
    assert set(loaded.ids.values()) == {*loaded.names, 'ignore'}
    # What moves is what it is.
    pairs = ((252, 10), (253, 31), (254, 30), (255, 32), (256, 16), (257, 13), (258, 18), (259, 20))
    for moving, standing in pairs:
        assert loaded.ids[moving] == loaded.ids[standing]


CLASSES, LABELS = {'road': [1, 2, 3]}, {0: 'road'}


@pytest.mark.parametrize(
    ('content', 'sentence'),
    [
        ({'classes': CLASSES}, 'expected the keys classes, labels and perhaps others, found cl'),
        ({'classes': CLASSES, 'labels': LABELS, 'x': 1}, 'found classes, labels, x'),
        ([1], 'found \\[1\\]'),
        ({'classes': CLASSES, 'labels': {}}, 'labels is no list'),
        ({'classes': {'road': [1, 2]}, 'labels': LABELS}, r'classes.road is \[1, 2\]: give red'),
        ({'classes': {'road': [1, 2, 256]}, 'labels': LABELS}, 'classes.road is'),
        ({'classes': {'ignore': [1, 2, 3]}, 'labels': LABELS}, "'ignore' is no class"),
        (
            {'classes': CLASSES, 'labels': {0: 'rod'}},
            "labels.0 is 'rod', which is no class: .*road",
        ),
        ({'classes': CLASSES, 'labels': {True: 'road'}}, 'True is neither a number nor a name'),
        ({'classes': CLASSES, 'labels': {65536: 'road'}}, 'number 65536: give 0 to 65535'),
        ({'classes': CLASSES, 'labels': LABELS, 'others': 'road'}, "others is 'road': give ignore"),
    ],
)
def test_maps_that_lead_nowhere_are_refused(tmp_path: Path, content: object, sentence: str) -> None:
    path = tmp_path / 'map.yaml'
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(BadConfig, match=f'map.yaml: .*{sentence}'):
        load_label_map(path)
