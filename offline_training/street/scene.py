# SPDX-License-Identifier: Apache-2.0
"""What rays hit: one Embree scene for all that stands, a small one for each thing that moves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from numpy.typing import NDArray

from offline_training.street.atlas import Atlas
from offline_training.street.motion import Track
from offline_training.street.shapes.mesh import Mesh
from offline_training.street.vectors import dot, rotated, yawed

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
# Chooses the rays (indices) that may hit a sphere, given its centre in odom and radius in m.
Select = Callable[[NDArray[np.float64], float], NDArray[np.intp]]

SKY = -1
GLOSSY = {'glass': 0.55, 'car_body': 0.25, 'shopfront': 0.1}
SELF_SHADOW_M = 0.02


@dataclass(frozen=True)
class Thing:
    """One object of the town.

    Attributes:
        mesh: In odom where it stands still, else around its track's position.
        class_id: Index into `classes.CLASS_NAMES`.
        instance: 0 for ground, else a number of its own.
        track: Where it is when; None for what never moves.
        phase: For a walking person, the quarter of the walking cycle in which it looks like this.

    """

    mesh: Mesh
    class_id: int
    instance: int
    track: Track | None = None
    phase: int | None = None


@dataclass(frozen=True)
class Parts:
    """Surfaces of the scene, one row each.

    Attributes:
        tile: (S,) where its texels start in the atlas.
        tint: (S, 3) RGB.
        reflectivity: (S,) in [0, 1].
        gloss: (S,) how much sky it mirrors, in [0, 1].
        class_id: (S,).
        instance: (S,).

    """

    tile: Ints
    tint: Floats
    reflectivity: Floats
    gloss: Floats
    class_id: NDArray[np.uint8]
    instance: NDArray[np.uint32]


@dataclass
class Hits:
    """What each of N rays met first.

    Attributes:
        distance: (N,) m; inf for the sky.
        triangle: (N,) index into all triangles, SKY where none.
        origin: (N, 3) of the ray, in the frame of the thing that it hit.
        yaw: (N,) of that thing, rad.
        speed: (N,) of that thing, m/s.

    """

    distance: Floats
    triangle: Ints
    origin: Floats
    yaw: Floats
    speed: Floats

    def of(self, rays: NDArray[np.intp]) -> Hits:
        """Keep some of the rays."""
        return Hits(
            self.distance[rays],
            self.triangle[rays],
            self.origin[rays],
            self.yaw[rays],
            self.speed[rays],
        )

    def joined(self, other: Hits) -> Hits:
        """Append the rays of another."""
        return Hits(
            np.concatenate([self.distance, other.distance]),
            np.concatenate([self.triangle, other.triangle]),
            np.concatenate([self.origin, other.origin]),
            np.concatenate([self.yaw, other.yaw]),
            np.concatenate([self.speed, other.speed]),
        )


@dataclass(frozen=True)
class Planes:
    """The surfaces that N rays hit, in odom axes around each ray's origin.

    A ray in direction d meets the plane at distance `offset / (normal . d)`; at that distance t
    its texture coordinates are `t * (u_axis . d) + u_start` and likewise for v.

    Attributes:
        normal: (N, 3), of unit length.
        offset: (N,) m.
        u_axis: (N, 3) tiles per m.
        u_start: (N,) tiles.
        v_axis: (N, 3).
        v_start: (N,).
        part: (N,) index into the scene's parts.

    """

    normal: Floats
    offset: Floats
    u_axis: Floats
    u_start: Floats
    v_axis: Floats
    v_start: Floats
    part: Ints


class _Body:
    """Triangles in one frame, ready for rays."""

    def __init__(self, mesh: Mesh, first_triangle: int) -> None:
        self.first_triangle = first_triangle
        corners = np.ascontiguousarray(mesh.corners, np.float32)
        self._scene = EmbreeScene()
        faces = np.arange(3 * len(corners), dtype=np.int32).reshape(-1, 3)
        self._mesh = TriangleMesh(self._scene, corners.reshape(-1, 3), faces)
        low, high = corners.min(axis=(0, 1)), corners.max(axis=(0, 1))
        self.lift = np.array([0.0, 0.0, (low[2] + high[2]) / 2])
        self.radius = float(np.linalg.norm(high - low) / 2)

    def hit(self, origin: Floats, direction: Floats) -> tuple[Floats, Ints]:
        found = self._scene.run(origin, direction, query='INTERSECT', output=True)
        return found['tfar'], found['primID']

    def occludes(self, origin: Floats, direction: Floats) -> NDArray[np.bool_]:
        blocked: NDArray[np.bool_] = self._scene.run(origin, direction, query='OCCLUDED') >= 0
        return blocked


class Scene:
    """The town as sensors see it.

    Args:
        things: Everything in it.
        atlas: Its textures.

    """

    def __init__(self, things: Sequence[Thing], atlas: Atlas) -> None:
        self.atlas = atlas
        standing = [thing for thing in things if thing.track is None]
        self._movers = [thing for thing in things if thing.track is not None]
        ordered = [*standing, *self._movers]
        part_counts = [len(thing.mesh.parts) for thing in ordered]
        first_part = np.cumsum([0, *part_counts])
        parts = [part for thing in ordered for part in thing.mesh.parts]
        self.parts = Parts(
            np.array([atlas.start(part.tile, part.variant) for part in parts], np.int32),
            np.array([part.tint for part in parts], np.float32),
            np.array([part.reflectivity for part in parts], np.float32),
            np.array([GLOSSY.get(part.tile, 0.0) for part in parts], np.float32),
            np.repeat([thing.class_id for thing in ordered], part_counts).astype(np.uint8),
            np.repeat([thing.instance for thing in ordered], part_counts).astype(np.uint32),
        )
        rows = [_rows(t.mesh, first_part[i]) for i, t in enumerate(ordered)]
        self._table = np.concatenate([table for table, _ in rows])  # (T, 12)
        self._part = np.concatenate([part for _, part in rows])  # (T,)
        triangles = sum(len(thing.mesh.corners) for thing in standing)
        still = Mesh(np.concatenate([thing.mesh.corners for thing in standing]), *_NOTHING)
        self._still = _Body(still, 0)
        self._bodies = []
        for thing in self._movers:
            self._bodies.append(_Body(thing.mesh, triangles))
            triangles += len(thing.mesh.corners)

    def trace(
        self, origin: Floats, direction: Floats, time_s: Floats, select: Select, reach: float
    ) -> Hits:
        """Follow rays to what they meet first.

        Args:
            origin: (N, 3) m, odom.
            direction: (N, 3) of unit length or any: the distance counts in its length.
            time_s: (N,) when each ray is sent.
            select: Which rays may meet a moving thing.
            reach: Moving things farther than this from the first ray's origin are left out, m.

        """
        distance, triangle = self.static_hit(origin, direction)
        hits = Hits(
            distance,
            triangle,
            origin.copy(),
            np.zeros(len(origin), np.float32),
            np.zeros(len(origin), np.float32),
        )
        middle_s = float(time_s[len(time_s) // 2])
        for thing, body in zip(self._movers, self._bodies, strict=True):
            assert thing.track is not None
            if thing.phase not in (None, thing.track.phase(middle_s)):
                continue
            place = thing.track.position(middle_s) + body.lift
            if np.linalg.norm(place - origin[0]) > reach:
                continue
            rays = select(place, body.radius + 1.0)
            if not len(rays):
                continue
            position, yaw, speed = thing.track.at(time_s[rays])
            local_origin = yawed(origin[rays] - position.astype(np.float32), -yaw)
            found, triangle = body.hit(local_origin, yawed(direction[rays], -yaw))
            closer = (triangle >= 0) & (found < hits.distance[rays])
            ray = rays[closer]
            hits.distance[ray] = found[closer]
            hits.triangle[ray] = triangle[closer] + body.first_triangle
            hits.origin[ray] = local_origin[closer]
            hits.yaw[ray] = yaw[closer]
            hits.speed[ray] = speed[closer]
        return hits

    def static_hit(self, origin: Floats, direction: Floats) -> tuple[Floats, Ints]:
        """Distance (N,) to what stands still and its triangle, SKY and inf where there is none."""
        distance, triangle = self._still.hit(origin, direction)
        return np.where(triangle >= 0, distance, np.float32(np.inf)), triangle

    def instance_and_class(self, triangle: Ints) -> NDArray[np.int64]:
        """Number (N,) that tells things and classes apart; -1 for the sky."""
        part = self._part[triangle]
        number = self.parts.instance[part].astype(np.int64) * 256 + self.parts.class_id[part]
        return np.where(triangle == SKY, -1, number)

    def planes(self, hits: Hits) -> Planes:
        """Describe the surfaces that were hit; rays into the sky get those of some triangle."""
        rows = self._table[hits.triangle]  # (N, 12)
        origin = hits.origin
        normal, u_axis, v_axis = rows[:, 0:3], rows[:, 4:7], rows[:, 8:11]
        offset = rows[:, 3] - dot(normal, origin)
        u_start = rows[:, 7] + dot(u_axis, origin)
        v_start = rows[:, 11] + dot(v_axis, origin)
        turned = np.flatnonzero(hits.yaw)
        if len(turned):
            yaw = hits.yaw[turned]
            for axis in (normal, u_axis, v_axis):
                axis[turned] = yawed(axis[turned], yaw)
        return Planes(normal, offset, u_axis, u_start, v_axis, v_start, self._part[hits.triangle])

    def shaded(self, point: Floats, sun: Floats, time_s: float) -> NDArray[np.bool_]:
        """Tell which points (N, 3) in odom the sun in direction (3,) does not reach."""
        towards = np.broadcast_to(sun, point.shape).astype(np.float32)
        start = point + SELF_SHADOW_M * towards
        blocked = self._still.occludes(start, towards)
        # Seen from the sun: a thing can only shade what lies within its outline, and below it.
        across = np.cross(sun, (1.0, 0.0, 0.0) if abs(sun[2]) > 0.9 else (0.0, 0.0, 1.0))
        across /= np.linalg.norm(across)
        from_sun = np.stack([across, np.cross(across, sun), sun]).astype(np.float32)
        seen = rotated(start, from_sun).T  # (3, N)
        for thing, body in zip(self._movers, self._bodies, strict=True):
            assert thing.track is not None
            if thing.phase not in (None, thing.track.phase(time_s)):
                continue
            place = thing.track.position(time_s) + body.lift
            left, up, depth = from_sun @ place
            near = (np.abs(seen[0] - left) < body.radius) & (np.abs(seen[1] - up) < body.radius)
            rays = np.flatnonzero(near)
            rays = rays[(seen[2, rays] < depth + body.radius) & ~blocked[rays]]
            if len(rays):
                position, yaw, _ = thing.track.at(np.full(len(rays), time_s, np.float32))
                local = yawed(start[rays] - position.astype(np.float32), -yaw)
                blocked[rays] = body.occludes(local, yawed(towards[rays], -yaw))
        return blocked


_NOTHING = (np.zeros((0, 3, 2), np.float32), np.zeros(0, np.int32), ())


def _rows(mesh: Mesh, first_part: int) -> tuple[Floats, Ints]:
    """Plane and texture axes (T, 12) and part (T,) of each triangle."""
    corners = mesh.corners.astype(np.float64)
    edge = corners[:, 1:] - corners[:, :1]  # (T, 2, 3)
    normal = np.cross(edge[:, 0], edge[:, 1])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    # The axes lie in the triangle and reproduce the texture coordinates of its corners.
    gram = edge @ edge.transpose(0, 2, 1)  # (T, 2, 2)
    det = gram[:, 0, 0] * gram[:, 1, 1] - gram[:, 0, 1] ** 2
    det = np.where(np.abs(det) < 1e-14, np.inf, det)
    inverse = np.empty_like(gram)
    inverse[:, 0, 0], inverse[:, 1, 1] = gram[:, 1, 1] / det, gram[:, 0, 0] / det
    inverse[:, 0, 1] = inverse[:, 1, 0] = -gram[:, 0, 1] / det
    uv = mesh.uv.astype(np.float64)
    change = (uv[:, 1:] - uv[:, :1]).transpose(0, 2, 1)  # (T, 2 texture axes, 2 edges)
    axes = change @ inverse @ edge  # (T, 2, 3)
    start = uv[:, 0] - np.einsum('tij,tj->ti', axes, corners[:, 0])
    rows = np.concatenate(
        [
            normal,
            np.einsum('ij,ij->i', normal, corners[:, 0])[:, None],
            axes[:, 0],
            start[:, :1],
            axes[:, 1],
            start[:, 1:],
        ],
        axis=1,
    )
    return rows.astype(np.float32), (mesh.part + first_part).astype(np.int32)
