# SPDX-License-Identifier: Apache-2.0
"""A head that names what an image teacher's features show, and that reads points as well.

It is learnt from labelled images alone, in the space that the network has learnt to predict for
each point (Cross4D-JEPA, arXiv 2607.00514, section 3). What points predict is drawn towards the
mean, as every regression is, and rare classes drown in it. Unlabelled sweeps with images make up
for that: a linear map in front of the head is learnt so that a point is answered as its pixel is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from cross4d_jepa_ros.correspondence import correspond
from cross4d_jepa_ros.model.heads import TeacherSpace
from cross4d_jepa_ros.segmentation_scores import UNKNOWN, SegmentationScores
from offline_training.label_map import LabelMap
from offline_training.naming.answers import Answers
from offline_training.naming.labelled_images import BadImages, LabelledImage
from offline_training.probes import Probe, ProbeConfig, fit_probe
from offline_training.teachers import ImageTeacher, sample_patches

# What scored best on images of unseen towns: 0.56 mIoU linear, 0.63 so, 0.64 twice as wide.
HIDDEN = 128
PIXELS_PER_IMAGE = 500
# Of the fit, whatever the number of images.
STEPS = 1500
# Pixels are scored at every so manieth row and column.
SCORED_EVERY = 2
# Of an index: sweeps that the head is matched on, and points of each of their views.
MATCHED_SWEEPS, POINTS_PER_VIEW = 64, 1024
MATCH_STEPS, MATCH_BATCH, MATCH_RATE = 600, 2048, 3e-3


@dataclass(frozen=True)
class Pixels:
    """Labelled pixels in the teacher's space.

    Attributes:
        features: (N, P) float32 of unit length.
        label: (N,) uint8 class id, never 255.

    """

    features: NDArray[np.float32]
    label: NDArray[np.uint8]


@dataclass(frozen=True)
class Pairs:
    """Points and the pixels that they project to, of recordings without labels.

    Attributes:
        point: (N, P) of unit length, what the network predicts for each point.
        pixel: (N, P) of unit length, what the teacher sees there.
        weight: (N,) how sure it is that they belong together.

    """

    point: Tensor
    pixel: Tensor
    weight: Tensor


class TeacherView:
    """What a teacher sees in images, in the space that a network has learnt to predict.

    Args:
        teacher: Frozen.
        space: Of the network, on the CPU.

    """

    def __init__(self, teacher: ImageTeacher, space: TeacherSpace) -> None:
        self.teacher = teacher
        self._space = space

    @torch.inference_mode()
    def patches(self, image_rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Project the map of patches of an (H, W, 3) image: (h, w, P)."""
        seen = self.teacher([image_rgb]).patches[0].float().cpu()  # (h, w, C)
        # Projected before pixels are read off: both are linear, and P is less than C.
        projected: NDArray[np.float32] = self._space.project(seen).numpy()  # (h, w, P)
        return projected

    def pixels(
        self, patches: NDArray[np.float32], uv: NDArray[np.float32], width: int, height: int
    ) -> Tensor:
        """Read a projected map at (V, 2) pixels, as `sample_patches`: (V, P) of unit length."""
        found = sample_patches(patches, uv, width, height, bilinear=True)  # (V, P)
        return F.normalize(torch.from_numpy(found), dim=1)  # (V, P)


def drawn_pixels(
    view: TeacherView,
    images: Iterable[LabelledImage],
    label_map: LabelMap,
    seed: int,
    on_image: Callable[[], None] = lambda: None,
) -> Pixels:
    """Draw labelled pixels of images, rare classes of an image likelier than their share of it.

    Args:
        view: What the teacher sees.
        images: With labels.
        label_map: From the labels' values to classes.
        seed: Of the draw.
        on_image: Called after each image.

    Raises:
        BadImages: An image cannot be read, or no pixel of any has a class.
        BadLabels: A value is not in the map.

    """
    draw = np.random.default_rng(seed)
    features: list[NDArray[np.float32]] = []
    labels: list[NDArray[np.uint8]] = []
    for labelled in images:
        image, label = labelled.read(label_map)
        row, column = np.nonzero(label != UNKNOWN)
        if len(row):
            known = label[row, column]
            # As probes weigh classes: with the root of how rare they are.
            weight = 1 / np.sqrt(np.bincount(known)[known])
            count = min(PIXELS_PER_IMAGE, len(row))
            chosen = draw.choice(len(row), count, replace=False, p=weight / weight.sum())
            uv = np.stack((column[chosen], row[chosen]), 1).astype(np.float32)
            height, width = label.shape
            features.append(view.pixels(view.patches(image), uv, width, height).numpy())
            labels.append(known[chosen])
        on_image()
    if not labels:
        msg = 'no pixel of the labelled images has a class: is it the right label map?'
        raise BadImages(msg)
    return Pixels(np.concatenate(features), np.concatenate(labels))


def fit_head(pixels: Pixels, classes: int, seed: int) -> Probe:
    """Fit a head with one hidden layer to labelled pixels."""
    config = ProbeConfig(hidden=(HIDDEN,), epochs=1, least_steps=STEPS)
    return fit_probe(config, pixels.features, pixels.label, classes, seed)


@torch.inference_mode()
def score_images(
    probes: Sequence[Probe],
    view: TeacherView,
    images: Iterable[LabelledImage],
    label_map: LabelMap,
    on_image: Callable[[], None] = lambda: None,
) -> list[SegmentationScores]:
    """Compare the answers of some heads with the labels of images, pixel by pixel.

    Returns:
        Of each head, over every SCORED_EVERYth row and column of all images.

    """
    scores = [SegmentationScores(label_map.names) for _ in probes]
    for labelled in images:
        image, label = labelled.read(label_map)
        height, width = label.shape
        row, column = np.mgrid[0:height:SCORED_EVERY, 0:width:SCORED_EVERY]
        uv = np.stack((column.ravel(), row.ravel()), 1).astype(np.float32)
        features = view.pixels(view.patches(image), uv, width, height).numpy()
        for probe, score in zip(probes, scores, strict=True):
            score.add(label[::SCORED_EVERY, ::SCORED_EVERY].ravel(), probe.answer(features))
        on_image()
    return scores


@torch.inference_mode()
def paired(
    answers: Answers,
    view: TeacherView,
    space: TeacherSpace,
    seed: int,
    on_sweep: Callable[[], None] = lambda: None,
) -> Pairs:
    """Collect points and their pixels, evenly over unlabelled recordings.

    Raises:
        BadImages: No point is visible in an image.

    """
    draw = np.random.default_rng(seed)
    points, pixels, weights = [], [], []
    for place in answers.spread(MATCHED_SWEEPS):
        sweep = answers.answer(place)
        answering = sweep.answering()
        for number, shot in enumerate(sweep.row.shots):
            if shot is None:
                continue
            found = correspond(
                sweep.read.xyz,
                shot.camera,
                shot.camera_from_base,
                shot.offset_ns,
                sweep.read.time_offset_ns,
                patch_px=view.teacher.stride * shot.camera.height / view.teacher.input_height,
            )
            seen = np.flatnonzero(answering[found.point] >= 0)
            chosen = np.sort(draw.permutation(seen)[:POINTS_PER_VIEW])
            row = torch.from_numpy(answering[found.point[chosen]])  # (V,)
            points.append(F.normalize(space(sweep.embedding[row]), dim=1))  # (V, P)
            patches = view.patches(answers.reader.image(sweep.row, number))
            size = shot.camera.width, shot.camera.height
            pixels.append(view.pixels(patches, found.uv[chosen], *size))  # (V, P)
            weights.append(torch.from_numpy(found.weight[chosen]))  # (V,)
        on_sweep()
    if not sum(map(len, weights)):
        msg = 'no point of the index is visible in an image: see the pictures beside the index'
        raise BadImages(msg)
    return Pairs(torch.cat(points), torch.cat(pixels), torch.cat(weights))


def matched(probe: Probe, pairs: Pairs, seed: int) -> nn.Linear:
    """Learn what to do to a point's prediction so that the head answers as it does for its pixel.

    Args:
        probe: Stays as it is.
        pairs: Without labels.
        seed: Of the batches.

    Returns:
        A linear map (P to P). It begins with what makes mean and spread of both alike.

    """
    with torch.inference_mode():
        wanted = probe(pairs.pixel).softmax(1)  # (N, classes)
    wanted = wanted.clone()
    share = (pairs.weight @ wanted / pairs.weight.sum()).clamp_min(1e-3)  # (classes,)
    wanted = wanted * share.rsqrt()  # (N, classes), rare classes count more
    width = pairs.point.shape[1]
    front = nn.Linear(width, width)
    with torch.no_grad():
        spread, mean = torch.std_mean(pairs.point, 0, correction=0)  # (P,), (P,)
        pixel_spread, pixel_mean = torch.std_mean(pairs.pixel, 0, correction=0)  # (P,), (P,)
        scale = pixel_spread / spread.clamp_min(1e-6)  # (P,)
        front.weight.copy_(scale.diag())
        front.bias.copy_(pixel_mean - mean * scale)
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(front.parameters(), lr=MATCH_RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, MATCH_STEPS)
    for _ in range(MATCH_STEPS):
        chosen = torch.randint(len(pairs.point), (MATCH_BATCH,), generator=generator)  # (B,)
        answer = probe(front(pairs.point[chosen])).log_softmax(1)  # (B, classes)
        each = -(wanted[chosen] * answer).sum(1)  # (B,)
        weight = pairs.weight[chosen]  # (B,)
        loss = (weight * each).sum() / (weight * wanted[chosen].sum(1)).sum()  # ()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
    return front
