# SPDX-License-Identifier: Apache-2.0
"""Static transforms of a recording: what is none is left out and said, up to 100 times."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cross4d_jepa_ros.bag_transforms import static_tree
from cross4d_jepa_ros.bags import MAX_PROBLEMS, TF_TYPE, Bag, BagWriter
from tests.malformed import messages
from tests.malformed.mutations import changed
from tests.malformed.test_cdr import as_bag
from tests.malformed.verdicts import NO_WARNINGS

pytestmark = NO_WARNINGS


def recorded(folder: Path, *transforms: Any) -> Path:
    with BagWriter(folder / 'bag') as bag:
        for place, message in enumerate(transforms):
            bag.write('/tf_static', TF_TYPE, 1 + place, as_bag(message, TF_TYPE))
    return folder / 'bag'


@pytest.mark.parametrize(
    ('part', 'values', 'reason'),
    [
        ('translation', {'x': 1e300}, 'its translation is'),
        ('translation', {'y': float('nan')}, 'its translation is'),
        ('rotation', {'w': 0.0}, 'norm 0.6 instead of 1'),
        ('rotation', {'z': float('inf')}, 'norm inf instead of 1'),
    ],
)
def test_what_is_no_transform_is_left_out(
    tmp_path: Path, part: str, values: dict[str, float], reason: str
) -> None:
    bad = changed(messages.tf(edges=(('lidar', 'bad'),)), [])
    vars(getattr(bad.transforms[0].transform, part)).update(values)
    with Bag(recorded(tmp_path, messages.tf(), bad)) as bag:
        (only,) = static_tree(bag)
        assert (only.parent, only.child) == ('lidar', 'camera')
        np.testing.assert_allclose(only.parent_from_child[:3, 3], [0.1, 0.2, 0.3])
        assert [reason in problem for problem in bag.problems] == [True]


def test_many_of_them_are_not_all_listed(tmp_path: Path) -> None:
    endless = [
        messages.tf(edges=((f'{place}' + 'x' * 1000, 'camera'),))
        for place in range(MAX_PROBLEMS + 50)
    ]
    with Bag(recorded(tmp_path, *endless)) as bag:
        assert static_tree(bag) == ()
        assert len(bag.problems) == MAX_PROBLEMS + 1
        assert max(map(len, bag.problems)) < 500
