# SPDX-License-Identifier: Apache-2.0
"""Average precision: how well a rating puts what is true before what is not."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def average_precision(truth: NDArray[np.bool_], rating: NDArray[np.floating]) -> float:
    """Return the mean, over all that is true, of the precision among what is rated as high.

    Equally rated samples are found together, so that their order does not count; a rating that is
    the same for all gives the share of what is true.

    Args:
        truth: (N,)
        rating: (N,), higher where it is more likely to be true.

    Raises:
        ValueError: Nothing is true, or there is not one rating for each.

    """
    if truth.shape != rating.shape or not truth.any():
        msg = f'{truth.shape} samples, {truth.sum()} of them true, have {rating.shape} ratings'
        raise ValueError(msg)
    order = np.argsort(-rating, kind='stable')
    found = np.cumsum(truth[order])
    # Last of each run of equal ratings.
    ends = np.append(np.flatnonzero(np.diff(rating[order])), len(order) - 1)
    precision = found[ends] / (ends + 1)
    return float((np.diff(found[ends], prepend=0) * precision).sum() / found[-1])
