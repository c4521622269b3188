# SPDX-License-Identifier: Apache-2.0
"""How much of a teacher's features can be read off other features with one linear map.

The map is a ridge regression in closed form: nothing about it is trained, so that two encoders can
be compared by it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cross4d_jepa_ros.model.heads import principal_components

# A feature or target whose deviation is a smaller share of its size than this does not vary.
CONSTANT_SHARE = 1e-9


@dataclass(frozen=True)
class Ridge:
    """A linear map of standardised features.

    Attributes:
        mean: (F,) float64, of the features that it was fitted to.
        scale: (F,) float64, 1 / their deviation; 0 for those that do not vary.
        weight: (F, P) float64.
        bias: (P,) float64, the targets' mean.

    """

    mean: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """Map (n, F) features to (n, P) float64."""
        return (features.double() - self.mean) * self.scale @ self.weight + self.bias  # (n, P)


class RidgeSums:
    """What a ridge regression has to know of its samples, which may come batch by batch."""

    def __init__(self) -> None:
        """Start without samples; the first ones settle the sizes."""
        self._count = 0
        self._shift = self._total = self._products = torch.zeros(0)
        self._features = 0

    def add(self, features: Tensor, targets: Tensor) -> None:
        """Take in some samples.

        Args:
            features: (n, F)
            targets: (n, P)

        """
        rows = torch.cat((features.double(), targets.double()), dim=1)  # (n, F + P)
        if not len(rows):
            return
        if not self._count:
            self._features = features.shape[1]
            # Without it, products of values far from 0 would lose the digits that vary.
            self._shift = rows.mean(0)  # (F + P,)
            self._total = torch.zeros_like(self._shift)  # (F + P,)
            self._products = rows.new_zeros(rows.shape[1], rows.shape[1])  # (F + P, F + P)
        rows = rows - self._shift  # (n, F + P)
        self._count += len(rows)
        self._total += rows.sum(0)
        self._products += rows.T @ rows

    def solve(self, strength: float) -> Ridge:
        """Fit the map.

        Args:
            strength: What the squares of the weights of standardised features cost, against the
                sum of squared errors over all samples; above 0.

        Raises:
            ValueError: There are no samples.

        """
        if not self._count:
            msg = 'a regression needs samples, and there are none: no point is visible'
            raise ValueError(msg)
        count, split = self._count, self._features
        offset = self._total / count  # (F + P,)
        products = self._products - count * offset[:, None] * offset  # (F + P, F + P), centred
        mean = self._shift + offset  # (F + P,)
        deviation = (products.diagonal() / count).clamp_min(0).sqrt()[:split]  # (F,)
        varies = deviation > CONSTANT_SHARE * mean[:split].abs().clamp_min(1e-30)  # (F,)
        scale = torch.where(varies, 1 / deviation.clamp_min(1e-300), 0.0)  # (F,)
        between = products[:split, :split] * scale[:, None] * scale  # (F, F)
        onto = products[:split, split:] * scale[:, None]  # (F, P)
        penalty = strength * torch.eye(split, dtype=between.dtype, device=between.device)  # (F, F)
        weight = torch.linalg.solve(between + penalty, onto)  # (F, P)
        return Ridge(mean[:split], scale, weight, mean[split:])


def fit_ridge(features: Tensor, targets: Tensor, strength: float) -> Ridge:
    """Fit the map to (N, F) features and (N, P) targets at once; see `RidgeSums`."""
    sums = RidgeSums()
    sums.add(features, targets)
    return sums.solve(strength)


def r2(prediction: Tensor, target: Tensor) -> Tensor:
    """Tell the share of each target component's variance that is predicted.

    The mean over components is what `r2` means in reports: components of a teacher's space count
    the same however little they vary, as if it had been whitened.

    Args:
        prediction: (N, P)
        target: (N, P)

    Returns:
        (P,) float64; 1 where all is right, 0 for as good as the mean of `target`, which a
        component that does not vary gets too.

    """
    squared_error, variation = _errors(prediction, target)  # (P,), (P,)
    constant = variation == 0  # (P,)
    return torch.where(constant, 0.0, 1 - squared_error / variation.masked_fill(constant, 1.0))


def weighted_r2(prediction: Tensor, target: Tensor) -> float:
    """Tell the share of the whole variance: R² with each component's variance as its weight.

    Args:
        prediction: (N, P)
        target: (N, P), not constant.

    """
    squared_error, variation = _errors(prediction, target)  # (P,), (P,)
    return float(1 - squared_error.sum() / variation.sum())


def _errors(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    wanted = target.double()  # (N, P)
    squared_error = (prediction.double() - wanted).square().sum(0)  # (P,)
    return squared_error, (wanted - wanted.mean(0)).square().sum(0)  # (P,), (P,)


def whitened_components(features: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Find the principal components of a teacher's features, each scaled to deviation 1.

    The features are standardised first. Read others with `(features - mean) @ components`.

    Args:
        features: (N, C), N > 1.
        count: Components (P); at most C.

    Returns:
        Mean (C,) and components (C, P), float64. A component that does not vary is 0.

    """
    wide = features.double()  # (N, C)
    mean = wide.mean(0)  # (C,)
    deviation = wide.std(0, correction=0)  # (C,)
    standardised = (wide - mean) / deviation.clamp_min(1e-6)  # (N, C)
    components = principal_components(standardised, count)  # (C, P)
    spread = (standardised @ components).std(0, correction=0)  # (P,)
    whitening = torch.where(spread > 1e-6 * spread.max(), 1 / spread.clamp_min(1e-300), 0.0)  # (P,)
    return mean, components * whitening / deviation.clamp_min(1e-6)[:, None]  # (C,), (C, P)
