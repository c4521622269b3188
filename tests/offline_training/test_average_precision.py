# SPDX-License-Identifier: Apache-2.0
"""Average precision against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from offline_training.average_precision import average_precision


@pytest.mark.parametrize(
    ('truth', 'rating', 'expected'),
    [
        ([1, 1, 0, 0], [4, 3, 2, 1], 1),
        ([0, 0, 1, 1], [4, 3, 2, 1], (1 / 3 + 2 / 4) / 2),
        ([1, 0, 1, 0, 1], [5, 4, 3, 2, 1], (1 + 2 / 3 + 3 / 5) / 3),
        ([1, 0, 0, 0], [7, 7, 7, 7], 1 / 4),
        # One first, then three at once of which one is true.
        ([1, 0, 1, 0], [2.0, 1.0, 1.0, 1.0], (1 + 2 / 4) / 2),
        # Order of the samples, scale and sign of the rating.
        ([0, 1, 0, 1], [-0.1, -0.3, -0.2, 0.5], (1 + 2 / 4) / 2),
    ],
)
def test_it_is_what_a_hand_gets(truth: list[int], rating: list[float], expected: float) -> None:
    got = average_precision(np.array(truth, bool), np.array(rating, np.float32))
    assert got == pytest.approx(expected)


@pytest.mark.parametrize('truth', [[False, False], [True]])
def test_what_has_no_precision_is_refused(truth: list[bool]) -> None:
    with pytest.raises(ValueError, match='samples'):
        average_precision(np.array(truth), np.zeros(2))
