# SPDX-License-Identifier: Apache-2.0
"""A spinning LiDAR of 64 beams that drives through the town while it turns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from offline_training.street.motion import Ego
from offline_training.street.scene import SKY, Floats, Hits, Scene
from offline_training.street.vectors import dot

SWEEP_S = 0.1
POSITION = (0.9, 0.0, 1.8)  # base_link, m; its axes are those of base_link
LOWEST_DEG, HIGHEST_DEG = -24.8, 5.5
LEAST_RANGE, MOST_RANGE = 1.0, 100.0  # m
BEAM_RADIUS = 0.0012  # rad
EDGE_M = 0.25
RANGE_NOISE_M = 0.015
LOST = 0.01
LOST_IN_GLASS = 0.75


@dataclass(frozen=True)
class LidarSweep:
    """One sweep with its truth, in firing order.

    Attributes:
        xyz: (N, 3) float32, each point in the LiDAR's pose of its own firing, m.
        intensity: (N,) float32 in [0, 1].
        ring: (N,) uint16, 0 is the lowest beam.
        time: (N,) float32, s since the sweep's start.
        class_id: (N,) uint8.
        instance: (N,) uint32, 0 for ground.
        speed: (N,) float32 of the thing that was hit, m/s.

    """

    xyz: NDArray[np.float32]
    intensity: NDArray[np.float32]
    ring: NDArray[np.uint16]
    time: NDArray[np.float32]
    class_id: NDArray[np.uint8]
    instance: NDArray[np.uint32]
    speed: NDArray[np.float32]


class Lidar:
    """Fires once per column and beam; columns run clockwise from behind over the left.

    Args:
        scene: The town.
        ego: What carries it.
        beams: Evenly spread between LOWEST_DEG and HIGHEST_DEG.
        columns: Firings per turn.

    """

    def __init__(self, scene: Scene, ego: Ego, beams: int, columns: int) -> None:
        self._scene = scene
        self._ego = ego
        self._beams, self._columns = beams, columns
        self._since = (np.arange(columns) / columns * SWEEP_S).astype(np.float32)
        self._azimuth = np.pi - 2 * np.pi * np.arange(columns) / columns
        elevation = np.deg2rad(np.linspace(LOWEST_DEG, HIGHEST_DEG, beams))
        level = np.cos(elevation)
        rays = np.empty((columns, beams, 3))
        rays[..., 0] = np.cos(self._azimuth)[:, None] * level
        rays[..., 1] = np.sin(self._azimuth)[:, None] * level
        rays[..., 2] = np.sin(elevation)
        self._rays = rays.astype(np.float32)  # (C, B, 3) in the LiDAR's frame

    def sweep(self, time_s: float, random: np.random.Generator) -> LidarSweep:
        """Turn once, starting at `time_s`."""
        columns, beams = self._columns, self._beams
        position, turn = self._ego.pose(time_s + self._since)  # (C, 3), (C, 3, 3)
        origin = position + turn @ np.array(POSITION)  # (C, 3)
        jitter = random.normal(0, BEAM_RADIUS / 4, (columns, beams, 3)).astype(np.float32)
        turned = turn.transpose(0, 2, 1).astype(np.float32)
        direction = ((self._rays + jitter) @ turned).reshape(-1, 3)
        origins = np.repeat(origin.astype(np.float32), beams, axis=0)
        times = np.repeat((time_s + self._since).astype(np.float32), beams)
        middle = columns // 2
        yaw = np.arctan2(turn[middle, 1, 0], turn[middle, 0, 0])

        def select(place: NDArray[np.float64], radius: float) -> NDArray[np.intp]:
            offset = place - origin[middle]
            distance = np.hypot(offset[0], offset[1])
            if distance < radius + 2.0:
                return np.arange(columns * beams)
            azimuth = np.arctan2(offset[1], offset[0]) - yaw
            # Wide enough for what vehicle and thing move during half a turn.
            width = np.arcsin(min(radius / distance, 1.0)) + 0.12
            gap = np.abs(np.mod(self._azimuth - azimuth + np.pi, 2 * np.pi) - np.pi)
            column = np.flatnonzero(gap < width)
            return (column[:, None] * beams + np.arange(beams)).ravel()

        hits = self._scene.trace(origins, direction, times, select, MOST_RANGE)
        measured = self._spread(hits, origins, direction, random)
        return self._returns(hits, direction, measured, random)

    def _spread(
        self, hits: Hits, origin: Floats, direction: Floats, random: np.random.Generator
    ) -> Floats:
        """Ranges as measured: at an edge the beam hits two surfaces and may report between."""
        image = hits.distance.reshape(self._columns, self._beams)
        near = np.minimum(image, MOST_RANGE)
        step = np.zeros_like(near)
        step[1:] = np.abs(np.diff(near, axis=0))
        step[:-1] = np.maximum(step[:-1], step[1:])
        edge = np.flatnonzero(((step > EDGE_M) & (image < MOST_RANGE)).ravel())
        aside = random.normal(0, BEAM_RADIUS / 2, (len(edge), 3)).astype(np.float32)
        second, _ = self._scene.static_hit(origin[edge], direction[edge] + aside)
        gap = second - hits.distance[edge]
        # Surfaces closer than a pulse's length melt into one return.
        mixed = (np.abs(gap) < 1.2) & (random.random(len(edge)) < 0.5) & (hits.yaw[edge] == 0)
        share = random.uniform(0, 1, len(edge)).astype(np.float32)
        measured = hits.distance.copy()
        measured[edge[mixed]] += share[mixed] * gap[mixed]
        return measured

    def _returns(
        self, hits: Hits, direction: Floats, measured: Floats, random: np.random.Generator
    ) -> LidarSweep:
        met = (hits.triangle != SKY) & (hits.distance > LEAST_RANGE)
        met &= hits.distance < MOST_RANGE
        ray = np.flatnonzero(met)
        hits = hits.of(ray)
        parts, planes = self._scene.parts, self._scene.planes(hits)
        part, distance = planes.part, hits.distance
        towards = direction[ray]
        cosine = np.abs(dot(planes.normal, towards))
        u = distance * dot(planes.u_axis, towards) + planes.u_start
        v = distance * dot(planes.v_axis, towards) + planes.v_start
        level = np.full(len(ray), 4, np.int32)
        texel = self._scene.atlas.look_up(parts.tile[part], level, u, v)
        brightness = texel[:, 1].astype(np.float32) / 160
        intensity = parts.reflectivity[part] * (0.3 + 0.7 * cosine) * (0.4 + 0.6 * brightness)
        intensity *= np.exp(-distance / 150)
        intensity += random.normal(0, 0.012, len(ray)).astype(np.float32)
        lost = LOST + LOST_IN_GLASS * (parts.gloss[part] > 0.5)
        lost = lost + np.where(intensity < 0.03 * distance / 50, 0.5, 0.0)
        kept = random.random(len(ray)) >= lost
        ray, part = ray[kept], part[kept]
        column, beam = np.divmod(ray, self._beams)
        noise = random.normal(0, RANGE_NOISE_M, len(ray)).astype(np.float32)
        reach = measured[ray] + noise * (1 + distance[kept] / 60)
        return LidarSweep(
            self._rays[column, beam] * reach[:, None],
            np.clip(intensity[kept], 0, 1),
            beam.astype(np.uint16),
            self._since[column],
            parts.class_id[part],
            parts.instance[part],
            hits.speed[kept],
        )
