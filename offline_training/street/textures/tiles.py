# SPDX-License-Identifier: Apache-2.0
"""The textures of the street, all drawn from one generator.

A tile is (256, 256, 4) uint8. Its RGB is multiplied by the part's tint x 1.6 where alpha is 255,
taken as it is where alpha is 0, and mixed in between; row 0 is v = 0.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from offline_training.street.textures import fittings, fronts, surfaces, walls

VARIANTS: dict[str, int] = {
    'plain': 2,
    'asphalt': 3,
    'road': 4,
    'crossing': 2,
    'paving': 5,
    'kerb': 1,
    'grass': 3,
    'soil': 1,
    'brick': 3,
    'plaster': 3,
    'concrete': 2,
    'facade': 16,
    'shopfront': 8,
    'rooftiles': 3,
    'leaves': 6,
    'bark': 2,
    'metal': 2,
    'glass': 2,
    'car_body': 2,
    'wheel': 4,
    'headlight': 1,
    'taillight': 1,
    'grille': 2,
    'plate': 2,
    'tyre': 1,
    'cloth': 8,
    'denim': 2,
    'skin': 2,
    'hair': 2,
    'face': 2,
    'sign': 10,
    'wood': 2,
    'sky': 3,
}

_PAINTERS: dict[str, Callable[[np.random.Generator, int], NDArray[np.uint8]]] = {
    'plain': walls.plain,
    'asphalt': surfaces.asphalt,
    'road': surfaces.road,
    'crossing': surfaces.crossing,
    'paving': surfaces.paving,
    'kerb': surfaces.kerb,
    'grass': surfaces.grass,
    'soil': surfaces.soil,
    'brick': walls.brick,
    'plaster': walls.plaster,
    'concrete': walls.concrete,
    'facade': fronts.facade,
    'shopfront': fronts.shopfront,
    'rooftiles': walls.rooftiles,
    'leaves': surfaces.leaves,
    'bark': surfaces.bark,
    'metal': walls.metal,
    'glass': walls.glass,
    'car_body': fittings.car_body,
    'wheel': fittings.wheel,
    'headlight': fittings.headlight,
    'taillight': fittings.taillight,
    'grille': fittings.grille,
    'plate': fittings.plate,
    'tyre': fittings.tyre,
    'cloth': fittings.cloth,
    'denim': fittings.denim,
    'skin': fittings.skin,
    'hair': fittings.hair,
    'face': fittings.face,
    'sign': fittings.sign,
    'wood': surfaces.wood,
    'sky': surfaces.sky,
}


def draw_tiles(random: np.random.Generator) -> dict[str, NDArray[np.uint8]]:
    """Draw every variant of every texture.

    Args:
        random: The same state gives the same tiles.

    Returns:
        Name to (variants, 256, 256, 4) RGBA, in the order of `VARIANTS`.

    """
    return {
        name: np.stack([_PAINTERS[name](random, variant) for variant in range(count)])
        for name, count in VARIANTS.items()
    }
