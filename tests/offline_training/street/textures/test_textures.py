# SPDX-License-Identifier: Apache-2.0
"""The textures: complete, reproducible, seamless, and as bright as tints expect them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from offline_training.street.textures.tiles import VARIANTS, draw_tiles

Tiles = dict[str, NDArray[np.uint8]]

UNTINTED = {
    'glass', 'wheel', 'headlight', 'taillight', 'grille', 'plate', 'tyre', 'sign', 'sky',
}  # fmt: skip
MIXED = {'road', 'crossing', 'facade', 'shopfront', 'face'}
TINTED = VARIANTS.keys() - UNTINTED - MIXED
ALONG_U_ONLY = {'road', 'crossing', 'facade'}
SEAMLESS = TINTED | {'glass', 'sky', 'tyre'}


@pytest.fixture(scope='module')
def tiles() -> Tiles:
    """One draw."""
    return draw_tiles(np.random.default_rng(3))


@pytest.fixture(scope='module')
def other_tiles() -> Tiles:
    """Another draw."""
    return draw_tiles(np.random.default_rng(4))


def test_every_variant_is_an_rgba_tile(tiles: Tiles) -> None:
    assert list(tiles) == list(VARIANTS)
    for name, count in VARIANTS.items():
        assert tiles[name].shape == (count, 256, 256, 4), name
        assert tiles[name].dtype == np.uint8, name


def test_same_state_same_bytes(tiles: Tiles) -> None:
    again = draw_tiles(np.random.default_rng(3))
    assert all(tiles[name].tobytes() == again[name].tobytes() for name in VARIANTS)


def test_other_state_other_tiles(tiles: Tiles, other_tiles: Tiles) -> None:
    for name in VARIANTS.keys() - {'headlight', 'taillight'}:  # lamps are all alike
        for here, there in zip(tiles[name], other_tiles[name], strict=True):
            assert (here != there).any(axis=-1).mean() > 0.05, name


@pytest.mark.parametrize('name', sorted(TINTED))
def test_tinted_tiles_are_of_mean_160(name: str, tiles: Tiles, other_tiles: Tiles) -> None:
    for drawn in (tiles, other_tiles):
        assert (drawn[name][..., 3] == 255).all()
        np.testing.assert_allclose(drawn[name][..., :3].mean(axis=(1, 2, 3)), 160, atol=2)


@pytest.mark.parametrize('name', sorted(UNTINTED))
def test_untinted_tiles_take_no_tint(name: str, tiles: Tiles) -> None:
    assert (tiles[name][..., 3] == 0).all()


@pytest.mark.parametrize('name', sorted(MIXED))
def test_mixed_tiles_are_tinted_in_part(name: str, tiles: Tiles) -> None:
    share = (tiles[name][..., 3] > 127).mean(axis=(1, 2))
    assert ((share > 0.1) & (share < 0.999)).all()


def test_only_the_paint_of_a_road_is_untinted(tiles: Tiles) -> None:
    for name in ('road', 'crossing'):
        paint = tiles[name][tiles[name][..., 3] < 20]
        assert len(paint) > 100
        assert paint[:, :3].min() > 180
    assert (tiles['crossing'][..., 3] < 128).mean() > 0.25


def _steps(tile: NDArray[np.uint8], axis: int) -> tuple[float, NDArray[np.float64]]:
    """Mean step over the wrap edge along `axis`, and those between all neighbours inside."""
    values = np.moveaxis(tile.astype(np.float64), axis, 0)
    inside = np.abs(np.diff(values, axis=0)).mean(axis=(1, 2))
    return float(np.abs(values[0] - values[-1]).mean()), inside


@pytest.mark.parametrize('name', sorted(SEAMLESS | ALONG_U_ONLY))
def test_no_seam(name: str, tiles: Tiles, other_tiles: Tiles) -> None:
    for tile in (*tiles[name], *other_tiles[name]):
        for axis in (1,) if name in ALONG_U_ONLY else (0, 1):
            over_edge, inside = _steps(tile, axis)
            assert over_edge <= inside.max() * 1.4 + 0.5, (name, axis)


def test_grain_and_joints_survive_distance(tiles: Tiles) -> None:
    """Leaves and paving keep contrast at a few pixels per tile; even surfaces do not."""

    def contrast(name: str) -> float:
        luma = tiles[name][..., 0].astype(np.float64)
        coarse = luma.reshape(len(luma), 32, 8, 32, 8).mean(axis=(2, 4))
        return float(coarse.std(axis=(1, 2)).min())

    assert contrast('leaves') > 15
    assert contrast('paving') > 8
    assert contrast('plain') < contrast('asphalt') < contrast('paving')
