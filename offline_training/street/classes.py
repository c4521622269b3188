# SPDX-License-Identifier: Apache-2.0
"""The classes of the street and the colours that they are drawn in."""

PALETTE = {
    'road': (150, 90, 160),
    'sidewalk': (244, 50, 232),
    'building': (205, 170, 125),
    'vegetation': (85, 165, 50),
    'pole': (250, 230, 60),
    'car': (60, 130, 255),
    'person': (255, 45, 60),
}
CLASS_NAMES = tuple(PALETTE)
ROAD, SIDEWALK, BUILDING, VEGETATION, POLE, CAR, PERSON = range(len(CLASS_NAMES))
