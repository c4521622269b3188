# SPDX-License-Identifier: Apache-2.0
"""Each point is asked for the image teacher's feature at the pixel it projects to."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cross4d_jepa_ros.model.tokenizer import Patches
from offline_training.objectives.losses import cosine_distance
from offline_training.objectives.passes import Pass, Term, term


class DenseObjective(nn.Module):
    """Cross4D-JEPA (arXiv 2607.00514, section 3): a head per point, a frozen target, no masking.

    The head is the network's own: labels in the teacher's space will be read off points. Every
    sweep of the window is asked, each from itself and those before it.
    """

    def forward(self, given: Pass) -> Term | None:
        """Compare all points that the network sees and a camera saw; None where there are none."""
        embeddings, targets, weights = [], [], []
        for number, sweep in enumerate(given.sweeps):
            if not sweep.sightings:
                continue
            row = answering_rows(given.inputs[number].patches, len(sweep.xyz))  # (N,)
            embedding = given.rows[number][1]  # (L, C)
            for sighting in sweep.sightings:
                asked = row[sighting.point]  # (V,)
                known = asked >= 0  # (V,)
                embeddings.append(embedding.index_select(0, asked[known]))  # (V', C)
                targets.append(sighting.target[known])  # (V', P)
                weights.append(sighting.weight[known])  # (V',)
        if not sum(len(weight) for weight in weights):
            return None
        head = given.network.teacher_space
        assert head is not None
        prediction = head(torch.cat(embeddings))  # (n, P)
        target = torch.cat(targets)  # (n, P)
        weight = torch.cat(weights)  # (n,)
        loss = (weight * cosine_distance(prediction, target)).sum() / weight.sum()  # ()
        return term(loss, prediction, target)


def answering_rows(patches: Patches, points: int) -> Tensor:
    """Find for each of a sweep's points the one that is looked at and answers for it.

    Args:
        patches: Of the sweep; L points are looked at.
        points: Of the sweep (N).

    Returns:
        (N,) int64 rows of the L; -1 for points that are out of range.

    """
    row = torch.full((points,), -1, device=patches.point.device)  # (N,)
    looked_at = torch.arange(len(patches.xyz), device=row.device)  # (L,)
    row[patches.point] = patches.spread(looked_at)
    return row
