# SPDX-License-Identifier: Apache-2.0
"""Colours and reflectivities: drawn so that neither tells what a thing is."""

from __future__ import annotations

import colorsys
from dataclasses import replace

from numpy.random import Generator

from offline_training.street.shapes.mesh import Part
from offline_training.street.textures.tiles import VARIANTS

# Hue that a material often has: foliage green, wood and walls brown. The other draws, and all
# other materials, take any.
USUAL_HUE = {
    'leaves': (0.24, 0.05),
    'bark': (0.07, 0.03),
    'wood': (0.08, 0.03),
    'facade': (0.09, 0.05),
    'plaster': (0.10, 0.05),
    'brick': (0.05, 0.03),
    'rooftiles': (0.03, 0.03),
}
USUAL = 0.6


def random_part(
    random: Generator, tile: str, tint: tuple[float, float, float] | None = None
) -> Part:
    """Draw how a surface looks.

    Args:
        random: Source of all draws.
        tile: Name of a texture, a key of `textures.tiles.VARIANTS`.
        tint: RGB in [0, 1]; left out: drawn too.

    """
    hue, vividness, lightness, reflectivity, usual = random.random(5).tolist()
    saturation = 0.75 * vividness**1.5
    mean, spread = USUAL_HUE.get(tile, (0.0, 0.0))
    if spread and usual < USUAL:
        hue, saturation = (mean + spread * (4 * hue - 2)) % 1.0, 0.1 + 0.45 * vividness
    variant = int(random.integers(VARIANTS[tile]))
    drawn = colorsys.hsv_to_rgb(hue, saturation, 0.12 + 0.75 * lightness)
    return Part(tile, variant, tint or drawn, 0.05 + 0.75 * reflectivity)


def shade(part: Part, factor: float) -> Part:
    """Make a surface lighter or darker."""
    red, green, blue = (min(1.0, factor * channel) for channel in part.tint)
    return replace(part, tint=(red, green, blue))
