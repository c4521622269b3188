# SPDX-License-Identifier: Apache-2.0
"""The latent of one modality, predicted from the other's and from how the camera looked."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cross4d_jepa_ros.model.config import ModelConfig
from offline_training.objectives import settings
from offline_training.objectives.future import wavelengths
from offline_training.objectives.losses import latent_loss, normalised
from offline_training.objectives.passes import Pass, Term, term
from offline_training.objectives.predictor import LatentPredictor, at_age
from offline_training.objectives.window import Sighting

# Intrinsics, two columns of a rotation, translation, offset; and the histogram.
CONDITION_CHANNELS = 4 + 6 + 3 + 1
HISTOGRAM_CHANNELS = 48
TRANSLATION_M = 10.0
OFFSET_S = 0.1
NEAR_M = 0.1
# Positions in an image are told in its width and height.
IMAGE_WAVELENGTHS = (0.25, 4.0)


class Condition(nn.Module):
    """What a predictor is told of a view, so that the encoder need not know it."""

    def __init__(self, width: int, *, histogram: bool) -> None:
        super().__init__()
        self._histogram = histogram
        channels = CONDITION_CHANNELS + (HISTOGRAM_CHANNELS if histogram else 0)
        self.inner = nn.Linear(channels, width)
        self.out = nn.Linear(width, width)

    def forward(self, sighting: Sighting) -> Tensor:
        """Embed a view: (1, W)."""
        pose = sighting.camera_from_base  # (4, 4)
        parts = [
            sighting.intrinsics,  # (4,)
            pose[:3, 0],  # (3,)
            pose[:3, 1],  # (3,)
            pose[:3, 3] / TRANSLATION_M,  # (3,)
            pose.new_tensor([sighting.offset_s / OFFSET_S]),  # (1,)
        ]
        if self._histogram:
            parts.append(sighting.histogram)  # (48,)
        inner = nn.functional.gelu(self.inner(torch.cat(parts)[None]))  # (1, W)
        embedded: Tensor = self.out(inner)  # (1, W)
        return embedded


class ViewObjective(nn.Module):
    """CrossJEPA (arXiv 2511.18424): points to the frozen embedding of an image of them.

    The other direction is CrossJEPA as it was described to this project: from the image's patches
    to the moving average's latent of the points in view. It trains the predictor alone.

    Args:
        given: Direction, loss, and what the predictor is told.
        sizes: Of the predictor.
        model: Of the network.
        patch_channels: Of the teacher's patches.
        view_channels: Of its embedding of an image.

    """

    def __init__(
        self,
        given: settings.LatentView,
        sizes: settings.Predictor,
        model: ModelConfig,
        patch_channels: int,
        view_channels: int,
    ) -> None:
        super().__init__()
        self._settings = given
        self.condition = Condition(sizes.width, histogram=given.histogram)
        self._from_points = given.direction == 'points_to_image'
        self.predictor = (
            LatentPredictor(sizes, model.width, view_channels, 'cross', wavelengths(model))
            if self._from_points
            else LatentPredictor(sizes, patch_channels, model.width, 'cross', IMAGE_WAVELENGTHS)
        )

    def forward(self, given: Pass) -> Term | None:
        """Compare the views of the newest sweep; None where there are none, or no tokens."""
        predictions, targets = [], []
        for sighting in given.window.sweeps[-1].sightings:
            if not len(given.inputs[-1].patches.centre):
                return None
            compare = self._image if self._from_points else self._points
            answer = compare(given, sighting)
            if answer is not None:
                predictions.append(answer[0])  # (1, d)
                targets.append(answer[1])  # (1, d)
        if not predictions:
            return None
        prediction, target = torch.cat(predictions), torch.cat(targets)  # (v, d), (v, d)
        return term(latent_loss(self._settings.loss, prediction, target), prediction, target)

    def _image(self, given: Pass, sighting: Sighting) -> tuple[Tensor, Tensor] | None:
        """Predict the view's embedding: (1, D') and its target."""
        token = given.encoded[-1][0]  # (M, D)
        place = in_camera(given.inputs[-1].patches.centre, sighting)  # (M, 3)
        prediction = self._predicted(sighting, token, at_age(place, 0))  # (1, D')
        return prediction, normalised(sighting.view[None])

    def _points(self, given: Pass, sighting: Sighting) -> tuple[Tensor, Tensor] | None:
        """Predict the mean latent of what is in view: (1, D) and its target."""
        seen = in_view(given.inputs[-1].patches.centre, sighting)  # (M,)
        if sighting.patch_map is None or not bool(seen.any()):
            return None
        rows, columns, _ = sighting.patch_map.shape
        context = normalised(sighting.patch_map.flatten(0, 1))  # (h w, C)
        v = (torch.arange(rows, device=context.device) + 0.5) / rows  # (h,)
        u = (torch.arange(columns, device=context.device) + 0.5) / columns  # (w,)
        place = torch.cartesian_prod(v, u).flip(1)  # (h w, 2)
        prediction = self._predicted(sighting, context, nn.functional.pad(place, (0, 2)))  # (1, D)
        newest = given.target_rows[len(given.target_inputs) - 1][0]  # (M, D)
        return prediction, normalised(newest[seen].mean(0, keepdim=True))

    def _predicted(self, sighting: Sighting, context: Tensor, place: Tensor) -> Tensor:
        here = place.new_zeros(1, place.shape[1])  # (1, 4)
        predicted: Tensor = self.predictor(here, context, place, self.condition(sighting))
        return predicted  # (1, d)


def in_camera(position: Tensor, sighting: Sighting) -> Tensor:
    """Move (n, 3) positions of the base frame, m, into the camera's."""
    # In double precision, which a run in bf16 leaves alone.
    pose = sighting.camera_from_base.double()  # (4, 4)
    return (position.double() @ pose[:3, :3].T + pose[:3, 3]).float()  # (n, 3)


def in_view(position: Tensor, sighting: Sighting) -> Tensor:
    """Tell which (n, 3) positions of the base frame, m, lie in the view's frustum: (n,)."""
    x, y, z = in_camera(position, sighting).unbind(1)  # (n,) each
    fx, fy, cx, cy = sighting.intrinsics  # () each
    ahead = z > NEAR_M  # (n,)
    depth = z.clamp_min(NEAR_M)  # (n,)
    u, v = fx * x / depth + cx, fy * y / depth + cy  # (n,), (n,)
    inside: Tensor = ahead & (u >= 0) & (u <= 1) & (v >= 0) & (v <= 1)  # (n,)
    return inside
