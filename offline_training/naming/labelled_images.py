# SPDX-License-Identifier: Apache-2.0
"""Images with a class for each pixel: FOLDER/images/NAME.(jpg|png) and FOLDER/labels/NAME.png."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from cross4d_jepa_ros.reading import open_regular
from cross4d_jepa_ros.sensing.images import MalformedImage, decode_picture
from offline_training.label_map import LabelMap

IMAGES, LABELS = 'images', 'labels'
_ENDINGS = ('.jpg', '.jpeg', '.png')
# 100 megapixels, which is the most that is decoded, of 16 bits.
MAX_BYTES = 200_000_000


class BadImages(ValueError):
    """Labelled images that cannot be used; the sentence names the file and what to do."""


@dataclass(frozen=True)
class LabelledImage:
    """Where an image and its labels lie."""

    image: Path
    label: Path

    def read(self, label_map: LabelMap) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Read both.

        Returns:
            (H, W, 3) RGB, and (H, W) class ids, 255 where ignored.

        Raises:
            BadImages: One is damaged, labels have colours, or the sizes differ.
            BadLabels: A value is not in the map.

        """
        # As stored: labels are not turned either.
        bgr = _read(self.image, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        values = _read(self.label, cv2.IMREAD_UNCHANGED)
        if values.ndim != 2 or values.dtype not in (np.uint8, np.uint16):
            msg = (
                f'{self.label} has colours or a palette: save the number of the class as the grey '
                'value of each pixel'
            )
            raise BadImages(msg)
        if bgr.shape[:2] != values.shape:
            msg = (
                f'{self.label} is {values.shape[1]} x {values.shape[0]}, its image '
                f'{bgr.shape[1]} x {bgr.shape[0]}: make them alike'
            )
            raise BadImages(msg)
        image: NDArray[np.uint8] = np.ascontiguousarray(bgr[:, :, ::-1], np.uint8)
        return image, label_map.mapped(values, str(self.label))


def labelled_images(folders: Sequence[Path]) -> list[LabelledImage]:
    """Find the images of some folders with their labels, by folder and name.

    Raises:
        BadImages: A folder has none, or an image has no labels.

    """
    found: list[LabelledImage] = []
    for folder in folders:
        images = sorted(
            path for path in (folder / IMAGES).glob('*') if path.suffix.lower() in _ENDINGS
        )
        if not images:
            msg = f'{folder} has no {IMAGES}/*.jpg or .png: give a folder of labelled images'
            raise BadImages(msg)
        for image in images:
            label = folder / LABELS / f'{image.stem}.png'
            if not label.is_file():
                msg = f'{image} has no labels at {label}: add them, or take the image away'
                raise BadImages(msg)
            found.append(LabelledImage(image, label))
    return found


def _read(path: Path, flags: int) -> NDArray[np.generic]:
    try:
        with open_regular(path, MAX_BYTES) as stream:
            return decode_picture(stream.read(), flags)
    except (OSError, MalformedImage, cv2.error) as error:
        msg = f'{path} cannot be read ({error})'
        raise BadImages(msg) from error
