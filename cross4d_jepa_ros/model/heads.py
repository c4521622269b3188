# SPDX-License-Identifier: Apache-2.0
"""What is read off the embeddings: the teacher's features, classes, likeness, colours, a sweep."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cross4d_jepa_ros.model.config import Teacher

# Of the mean variance, added to that of each direction before whitening.
SHRINKAGE = 10.0


class TeacherSpace(nn.Module):
    """Maps point embeddings to where the features of an image network's patches lie.

    What is read off images in that space can so be read off points. Cross4D-JEPA (arXiv
    2607.00514, section 3) has a linear head; a hidden layer is the habit of later work.
    """

    mean: Tensor
    components: Tensor

    def __init__(self, point_width: int, teacher: Teacher) -> None:
        super().__init__()
        self.register_buffer('mean', torch.zeros(teacher.channels))
        self.register_buffer('components', _identity(teacher.channels, teacher.components))
        inner = teacher.hidden or point_width
        self.hidden = nn.Linear(point_width, inner) if teacher.hidden else None
        self.out = nn.Linear(inner, teacher.components)

    def forward(self, embedding: Tensor) -> Tensor:
        """Map (K, C) embeddings to (K, P)."""
        if self.hidden is not None:
            embedding = F.gelu(self.hidden(embedding))  # (K, hidden)
        mapped: Tensor = self.out(embedding)  # (K, P)
        return mapped

    def project(self, features: Tensor) -> Tensor:
        """Map (N, channels) features of the teacher's patches to (N, P)."""
        return (features - self.mean) @ self.components  # (N, P)

    @torch.no_grad()
    def fit(self, features: Tensor) -> None:
        """Take the P principal components of (N, channels) features, each scaled to 1."""
        wide = features.double()  # (N, channels)
        mean = wide.mean(0)  # (channels,)
        scale = 1 / wide.std(0, correction=0).clamp_min(1e-6)  # (channels,)
        components = principal_components((wide - mean) * scale, self.out.out_features)
        self.mean.copy_(mean)
        self.components.copy_(scale[:, None] * components)  # (channels, P)


class SegmentationHead(nn.Linear):
    """Names classes by a linear layer on point embeddings, or on what is made of them first.

    Args:
        point_width: Channels of a point embedding (C).
        classes: To tell apart.
        hidden: Channels of a hidden layer; 0 for none.
        space: What embeddings are mapped through, to unit length; None reads them as they are.

    """

    def __init__(
        self, point_width: int, classes: int, hidden: int = 0, space: TeacherSpace | None = None
    ) -> None:
        read = point_width if space is None else space.out.out_features
        super().__init__(hidden or read, classes)
        self.hidden = nn.Linear(read, hidden) if hidden else None
        # In a tuple it is not registered: its weights are the network's, not also the head's.
        self._space = (space,)

    def features(self, embedding: Tensor) -> Tensor:
        """Map (K, C) embeddings to what the first layer reads: (K, C), or (K, P) of unit length."""
        space = self._space[0]
        return embedding if space is None else F.normalize(space(embedding), dim=1)  # (K, P)

    def forward(self, embedding: Tensor) -> Tensor:
        """Logits of (K, C) embeddings: (K, classes)."""
        return super().forward(self._last_input(embedding))  # (K, classes)

    def classify(self, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """Label (K, C) embeddings: (K,) uint8 class and (K,) its probability, float32."""
        last = self._last_input(embedding.to(self.weight.dtype))  # (K, F)
        # A row a class: reductions over rows run along memory.
        logits = torch.addmm(self.bias[:, None], self.weight, last.T)  # (classes, K)
        best = logits.amax(dim=0)  # (K,)
        numbers = torch.arange(len(logits), dtype=torch.uint8, device=logits.device)  # (classes,)
        class_id = ((logits == best) * numbers[:, None]).amax(dim=0)  # (K,)
        return class_id, 1 / (logits - best).exp().sum(dim=0)  # (K,), (K,)

    def _last_input(self, embedding: Tensor) -> Tensor:
        features = self.features(embedding)  # (K, C or P)
        return features if self.hidden is None else F.relu(self.hidden(features))  # (K, hidden)


class EmbeddingNormalisation(nn.Module):
    """Where the cosine of two point embeddings says how alike they are.

    Raw embeddings share a large mean and a few strong directions, so that all cosines are close
    to 1. Here they are centred and whitened; prototypes and clusters live here.
    """

    mean: Tensor
    matrix: Tensor

    def __init__(self, point_width: int) -> None:
        super().__init__()
        self.register_buffer('mean', torch.zeros(point_width))
        self.register_buffer('matrix', _identity(point_width, point_width))

    @property
    def fitted(self) -> bool:
        """Whether it was ever fitted: until then it changes nothing but lengths."""
        start = torch.eye(len(self.mean), device=self.mean.device)  # (C, C)
        return not torch.equal(self.matrix, start) or bool(self.mean.any())

    def forward(self, embedding: Tensor) -> Tensor:
        """Whiten (K, C) embeddings and bring them to unit length, float32."""
        return F.normalize(self.whitened(embedding), dim=1)  # (K, C)

    def whitened(self, embedding: Tensor) -> Tensor:
        """Centre (K, C) embeddings and even out how much their directions vary, float32."""
        centred = embedding.to(self.mean.dtype) - self.mean  # (K, C)
        whitened: Tensor = centred @ self.matrix  # (K, C)
        return whitened

    def fit(self, embedding: Tensor, weight: Tensor | None = None) -> None:
        """Whiten as (K, C) embeddings ask for, of which `weight` (K,) says how much each counts.

        Weak directions are raised by no more than SHRINKAGE of the mean variance allows.
        """
        wide = embedding.double()  # (K, C)
        share = torch.ones_like(wide[:, 0]) if weight is None else weight.double()  # (K,)
        share = share / share.sum()  # (K,)
        mean = share @ wide  # (C,)
        centred = wide - mean  # (K, C)
        variance, directions = torch.linalg.eigh((centred * share[:, None]).T @ centred)
        least = (SHRINKAGE * variance.mean()).clamp_min(1e-12)  # ()
        scale = (variance.clamp_min(0) + least).rsqrt()  # (C,)
        self.mean.copy_(mean)
        self.matrix.copy_((directions * scale) @ directions.T)  # (C, C)


class ColourBasis(nn.Module):
    """A fixed projection of point embeddings to RGB: a colour means the same in every sweep."""

    mean: Tensor
    components: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, point_width: int) -> None:
        super().__init__()
        self.register_buffer('mean', torch.zeros(point_width))
        self.register_buffer('components', _identity(point_width, 3))
        self.register_buffer('low', torch.zeros(3))
        self.register_buffer('high', torch.ones(3))

    def forward(self, embedding: Tensor) -> Tensor:
        """Colour (K, C) embeddings with (K, 3) uint8 RGB; what leaves [low, high] saturates."""
        scale = 255 / (self.high - self.low).clamp_min(1e-6)  # (3,)
        shift = -(self.mean @ self.components + self.low) * scale  # (3,)
        embedding = embedding.to(self.mean.dtype)  # (K, C)
        colour = torch.addmm(shift, embedding, self.components * scale)  # (K, 3)
        return colour.clamp_(0, 255).round_().to(torch.uint8)  # (K, 3)

    def fit(self, embedding: Tensor) -> None:
        """Take the three principal components of (K, C) embeddings and their 2..98 % range."""
        wide = embedding.double()  # (K, C)
        mean = wide.mean(0)  # (C,)
        centred = wide - mean  # (K, C)
        components = principal_components(centred, 3)  # (C, 3)
        projected = centred @ components  # (K, 3)
        bounds = projected.quantile(torch.tensor([0.02, 0.98], dtype=wide.dtype), dim=0)  # (2, 3)
        for buffer, value in (
            (self.mean, mean),
            (self.components, components),
            (self.low, bounds[0]),
            (self.high, bounds[1]),
        ):
            buffer.copy_(value)


def principal_components(centred: Tensor, count: int) -> Tensor:
    """Return the `count` directions of (N, C) that vary most, (C, count), the first the most."""
    _, vectors = torch.linalg.eigh(centred.T @ centred)  # (C, C), eigenvalues ascending
    components = vectors[:, -count:].flip(1)  # (C, count)
    # Eigenvectors are defined up to their sign.
    largest = components.gather(0, components.abs().argmax(0, keepdim=True))  # (1, count)
    signed: Tensor = components * largest.sign()  # (C, count)
    return signed


def frame_embedding(token: Tensor) -> Tensor:
    """Mean of (M, D) tokens: (D,), zero where there are none."""
    return token.sum(0) / max(len(token), 1)  # (D,)


def _identity(rows: int, columns: int) -> Tensor:
    """(rows, columns) as `torch.eye`, which on `meta` imports the symbolic part of PyTorch."""
    matrix = torch.zeros(rows, columns)
    matrix.diagonal().fill_(1)
    return matrix
