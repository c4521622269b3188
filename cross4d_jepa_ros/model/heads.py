# SPDX-License-Identifier: Apache-2.0
"""What is read off the embeddings: classes, the teacher's features, colours, one vector a sweep."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cross4d_jepa_ros.model.config import Teacher


class SegmentationHead(nn.Linear):
    """A linear probe on point embeddings."""

    def classify(self, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """Label (K, C) embeddings: (K,) uint8 class and (K,) its probability, float32."""
        embedding = embedding.to(self.weight.dtype)  # (K, C)
        # A row a class: reductions over rows run along memory.
        logits = torch.addmm(self.bias[:, None], self.weight, embedding.T)  # (classes, K)
        best = logits.amax(dim=0)  # (K,)
        numbers = torch.arange(len(logits), dtype=torch.uint8, device=logits.device)  # (classes,)
        class_id = ((logits == best) * numbers[:, None]).amax(dim=0)  # (K,)
        return class_id, 1 / (logits - best).exp().sum(dim=0)  # (K,), (K,)


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
        self.register_buffer('components', torch.eye(teacher.channels, teacher.components))
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


class ColourBasis(nn.Module):
    """A fixed projection of point embeddings to RGB: a colour means the same in every sweep."""

    mean: Tensor
    components: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, point_width: int) -> None:
        super().__init__()
        self.register_buffer('mean', torch.zeros(point_width))
        self.register_buffer('components', torch.eye(point_width, 3))
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
