# SPDX-License-Identifier: Apache-2.0
"""Textured triangles: what every shape of the street is made of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import trimesh
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Part:
    """How a surface looks.

    Attributes:
        tile: Name of a texture, a key of `textures.tiles.VARIANTS`.
        variant: Which of that texture's variants.
        tint: RGB in [0, 1] that the tinted texels of the tile are multiplied by.
        reflectivity: LiDAR intensity at normal incidence where the tile is at its mean, in [0, 1].

    """

    tile: str
    variant: int
    tint: tuple[float, float, float]
    reflectivity: float


@dataclass(frozen=True)
class Mesh:
    """Triangles with texture coordinates.

    Attributes:
        corners: (T, 3, 3) m, counter-clockwise seen from outside.
        uv: (T, 3, 2) in tiles: 1 is one repetition of the texture; v grows downwards in it.
        part: (T,) index into `parts`.
        parts: Surfaces.

    """

    corners: NDArray[np.float32]
    uv: NDArray[np.float32]
    part: NDArray[np.int32]
    parts: tuple[Part, ...]

    def moved(self, position: ArrayLike, yaw: float = 0.0) -> Mesh:
        """Turn about z by `yaw` (rad), then shift by `position` (3,) m."""
        cos, sin = np.cos(yaw), np.sin(yaw)
        turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
        corners = self.corners @ turn.T + np.asarray(position)
        return Mesh(corners.astype(np.float32), self.uv, self.part, self.parts)


def join(meshes: Iterable[Mesh]) -> Mesh:
    """Put meshes together, without moving them."""
    meshes = list(meshes)
    first_part = np.cumsum([0] + [len(mesh.parts) for mesh in meshes])
    return Mesh(
        np.concatenate([mesh.corners for mesh in meshes]),
        np.concatenate([mesh.uv for mesh in meshes]),
        np.concatenate([m.part + n for m, n in zip(meshes, first_part, strict=False)]).astype(
            np.int32
        ),
        tuple(part for mesh in meshes for part in mesh.parts),
    )


def from_trimesh(
    solid: trimesh.Trimesh,
    part: Part,
    metres_per_tile: float,
    origin: ArrayLike = (0.0, 0.0, 0.0),
) -> Mesh:
    """Texture a solid from the side that each triangle faces most (box mapping).

    Args:
        solid: Vertices in m, z up.
        part: Surface of all its triangles.
        metres_per_tile: Edge of one repetition of the texture.
        origin: (3,) m, where u and v are 0.

    """
    corners = np.asarray(solid.triangles, np.float32)  # (T, 3, 3)
    from_origin = (corners - np.asarray(origin, np.float32)) / np.float32(metres_per_tile)
    facing = np.abs(solid.face_normals).argmax(axis=1)  # (T,)
    # Walls keep v upright: u runs along y or x, v along -z; floors take x and y.
    axes = np.array([[1, 2], [0, 2], [0, 1]])[facing]  # (T, 2)
    uv = np.take_along_axis(from_origin, axes[:, None, :].repeat(3, axis=1), axis=2)
    uv[..., 1] *= -1
    return Mesh(corners, uv.astype(np.float32), np.zeros(len(corners), np.int32), (part,))


def quads(
    corners: ArrayLike,
    part: Part,
    uv: ArrayLike = ((0, 1), (1, 1), (1, 0), (0, 0)),
) -> Mesh:
    """Build flat four-cornered faces.

    Args:
        corners: (Q, 4, 3) m, counter-clockwise seen from outside, from the lower left one on.
        part: Surface.
        uv: (4, 2) or (Q, 4, 2) texture coordinates; left out: one whole tile on each.

    """
    corners = np.asarray(corners, np.float32).reshape(-1, 4, 3)
    uv = np.broadcast_to(np.asarray(uv, np.float32), (len(corners), 4, 2))
    halves = np.array([[0, 1, 2], [0, 2, 3]])
    return Mesh(
        corners[:, halves].reshape(-1, 3, 3),
        uv[:, halves].reshape(-1, 3, 2),
        np.zeros(2 * len(corners), np.int32),
        (part,),
    )


def loft(rings: ArrayLike, part: Part, metres_per_tile: float, *, caps: bool = True) -> Mesh:
    """Skin a row of closed rings, such as the cross-sections of a limb or of a car's body.

    Args:
        rings: (S, K, 3) m, each counter-clockwise seen against the direction of the row.
        part: Surface.
        metres_per_tile: Edge of one repetition of the texture (see `from_trimesh`).
        caps: Whether the first and last ring are closed.

    """
    rings = np.asarray(rings, np.float64)
    count, around = rings.shape[:2]
    index = np.arange(count * around).reshape(count, around)
    here, there = index[:-1], index[1:]
    a, b = here.ravel(), np.roll(here, -1, axis=1).ravel()
    d, c = there.ravel(), np.roll(there, -1, axis=1).ravel()
    faces = [np.stack([a, b, c], 1), np.stack([a, c, d], 1)]
    if caps:
        fan = np.stack(
            [np.zeros(around - 2, int), np.arange(1, around - 1), np.arange(2, around)], 1
        )
        faces += [index[0][fan[:, ::-1]], index[-1][fan]]
    solid = trimesh.Trimesh(rings.reshape(-1, 3), np.concatenate(faces), process=False)
    return from_trimesh(solid, part, metres_per_tile)
