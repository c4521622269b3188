# SPDX-License-Identifier: Apache-2.0
"""Two cameras with plumb_bob lenses: sun and shadow, textures, haze and noise.

Surfaces are traced once for every 2 x 2 pixels, and for each pixel where two of them meet;
textures are looked up for every pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from offline_training.street.motion import Ego
from offline_training.street.scene import SKY, Floats, Hits, Planes, Scene
from offline_training.street.vectors import dot, rotated

WIDTH, HEIGHT = 960, 384
FOCAL = 540.0  # px
DISTORTION = (-0.12, 0.03, 0.0006, -0.0004, 0.0)  # plumb_bob
POSES = {  # name: position in base_link (m), yaw (rad)
    'camera_left': ((1.4, 0.35, 1.5), np.deg2rad(28.0)),
    'camera_right': ((1.4, -0.35, 1.5), np.deg2rad(-28.0)),
}
FAR = 250.0  # m
TEXELS = 256
# A texel of 160 of 255 shows the tint itself.
TINT_GAIN = 1.6
NO_CLASS = 255

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Weather:
    """Light of one recording.

    Attributes:
        sun: (3,) direction towards it, odom.
        sun_light: (3,) RGB on a surface that faces it.
        sky_light: (3,) RGB on a surface that looks up.
        ground_light: (3,) RGB on one that looks down.
        haze: Share of the haze's colour per m.
        sky_tile: Variant of the sky's texture.
        exposure: Gain of the cameras.

    """

    sun: Floats
    sun_light: Floats
    sky_light: Floats
    ground_light: Floats
    haze: float
    sky_tile: int
    exposure: float

    @property
    def horizon(self) -> Floats:
        """Colour (3,) of the haze, and of the sky where it meets the land."""
        horizon: Floats = self.sky_light * 1.2 + 0.25 * self.sun_light
        return horizon

    @staticmethod
    def draw(random: np.random.Generator) -> Weather:
        """Draw anything from a clear morning to an overcast noon."""
        height, turn = np.deg2rad(random.uniform(22, 65)), random.uniform(0, 2 * np.pi)
        sun = np.array(
            [np.cos(height) * np.cos(turn), np.cos(height) * np.sin(turn), np.sin(height)]
        )
        clear = random.uniform(0.15, 1.0)
        warmth = random.uniform(-0.08, 0.10)
        return Weather(
            sun.astype(np.float32),
            np.array([1 + warmth, 1.0, 1 - warmth], np.float32) * np.float32(clear),
            np.array([0.52, 0.56, 0.62], np.float32) * np.float32(1.25 - 0.55 * clear),
            np.array([0.30, 0.29, 0.27], np.float32) * np.float32(1.1 - 0.4 * clear),
            float(random.uniform(0.0004, 0.004)),
            int(random.integers(3)),
            float(random.uniform(0.85, 1.15)),
        )


@dataclass(frozen=True)
class Picture:
    """What a camera saw.

    Attributes:
        rgb: (H, W, 3) uint8.
        class_id: (H, W) uint8, 255 for the sky.
        instance: (H, W) uint32.
        distance: (H, W) float32 along each pixel's ray, m; inf for the sky.

    """

    rgb: NDArray[np.uint8]
    class_id: NDArray[np.uint8]
    instance: NDArray[np.uint32]
    distance: NDArray[np.float32]


@dataclass(frozen=True)
class _Samples:
    """Light of what the samples hit.

    Attributes:
        light: (S, 3) RGB that falls on it.
        tint: (S, 3) RGB that a white texel sends back where it takes the tint.
        mirror: (S,) share of the sky's light.
        level: (S,) halvings of its texture.

    """

    light: Floats
    tint: Floats
    mirror: Floats
    level: NDArray[np.int32]


def matrix() -> Array:
    """Return K (3, 3) of both cameras, in pixels."""
    return np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]])


def base_from_camera(name: str) -> Array:
    """Pose (4, 4) of a camera's optical frame (z forward, x right) in base_link."""
    position, yaw = POSES[name]
    cos, sin = np.cos(yaw), np.sin(yaw)
    pose = np.eye(4)
    turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    pose[:3, :3] = turn @ np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0]])
    pose[:3, 3] = position
    return pose


def pixel_rays() -> NDArray[np.float32]:
    """Unit directions (H, W, 3) in the optical frame of the pixels' centres."""
    u, v = np.meshgrid(np.arange(WIDTH, dtype=float), np.arange(HEIGHT, dtype=float))
    seen = np.stack([u, v], axis=-1).reshape(-1, 1, 2)
    ideal = cv2.undistortPoints(seen, matrix(), np.array(DISTORTION)).reshape(HEIGHT, WIDTH, 2)
    rays = np.concatenate([ideal, np.ones((HEIGHT, WIDTH, 1))], axis=-1)
    return (rays / np.linalg.norm(rays, axis=-1, keepdims=True)).astype(np.float32)


class Camera:
    """One of `POSES`.

    Args:
        name: Which.
        scene: The town.
        ego: What carries it.
        weather: The light.
        random: Draws the sensor's noise.

    """

    def __init__(
        self, name: str, scene: Scene, ego: Ego, weather: Weather, random: np.random.Generator
    ) -> None:
        self._base_from_camera = base_from_camera(name)
        self._scene, self._ego, self._weather = scene, ego, weather
        self._rays = pixel_rays()  # (H, W, 3)
        blocks = self._rays.reshape(HEIGHT // 2, 2, WIDTH // 2, 2, 3).mean(axis=(1, 3))
        blocks /= np.linalg.norm(blocks, axis=-1, keepdims=True)
        self._blocks = blocks.reshape(-1, 3)
        ideal = self._blocks[:, :2] / self._blocks[:, 2:]
        self._columns = ideal.reshape(HEIGHT // 2, WIDTH // 2, 2)[HEIGHT // 4, :, 0]
        self._rows = ideal.reshape(HEIGHT // 2, WIDTH // 2, 2)[:, WIDTH // 4, 1]
        offset = (np.indices((HEIGHT, WIDTH)) - [[[HEIGHT / 2]], [[WIDTH / 2]]]) / (WIDTH / 2)
        self._vignette = (1 - 0.18 * (offset**2).sum(axis=0)).astype(np.float32)[..., None]
        self._noise = random.normal(0, 1, (2 * HEIGHT, 2 * WIDTH)).astype(np.float32)
        self._sky_start = scene.atlas.start('sky', weather.sky_tile)

    def take(self, time_s: float, random: np.random.Generator) -> Picture:
        """Expose at `time_s`; the shutter is global."""
        pose = self._ego.matrix(time_s) @ self._base_from_camera
        turn = pose[:3, :3].astype(np.float32)
        origin = pose[:3, 3].astype(np.float32)

        def trace(rays: Floats, select_from: NDArray[np.intp] | None) -> tuple[Hits, Floats]:
            direction = rotated(rays, turn)
            hits = self._scene.trace(
                np.broadcast_to(origin, direction.shape).copy(),
                direction,
                np.full(len(direction), time_s, np.float32),
                lambda place, radius: self._window(place, radius, pose, select_from),
                FAR,
            )
            return hits, direction

        hits, direction = trace(self._blocks, None)
        sample = self._refined(hits)  # (H, W) which sample each pixel shows, -1: to be traced
        pixel = np.flatnonzero(sample.ravel() < 0)
        if len(pixel):
            row, column = np.divmod(pixel, WIDTH)
            block = (row // 2) * (WIDTH // 2) + column // 2
            more, more_direction = trace(self._rays.reshape(-1, 3)[pixel], block)
            sample.ravel()[pixel] = len(hits.distance) + np.arange(len(pixel))
            hits = hits.joined(more)
            direction = np.concatenate([direction, more_direction])
        return self._shade(hits, direction, sample, origin, turn, time_s, random)

    def _window(
        self, place: Array, radius: float, pose: Array, select_from: NDArray[np.intp] | None
    ) -> NDArray[np.intp]:
        """Choose the blocks (or the rays in blocks `select_from`) that may see a sphere."""
        x, y, z = (place - pose[:3, 3]) @ pose[:3, :3]
        if z < -radius:
            return np.empty(0, np.intp)
        if z < radius + 0.5:
            rows, columns = np.ones(HEIGHT // 2, bool), np.ones(WIDTH // 2, bool)
        else:
            # The lens bends lines of constant x / z by less than this margin.
            rows = np.abs(self._rows * z - y) < (radius + 0.06 * z) * 1.5
            columns = np.abs(self._columns * z - x) < (radius + 0.06 * z) * 1.5
        if select_from is None:
            chosen = np.flatnonzero(rows)[:, None] * (WIDTH // 2) + np.flatnonzero(columns)
            return chosen.ravel()
        row, column = np.divmod(select_from, WIDTH // 2)
        return np.flatnonzero(rows[row] & columns[column])

    def _refined(self, hits: Hits) -> NDArray[np.int32]:
        """Give each pixel its block's sample, or -1 where neighbouring blocks see other things."""
        shape = (HEIGHT // 2, WIDTH // 2)
        instance = self._scene.instance_and_class(hits.triangle).reshape(shape)
        differs = np.zeros(shape, bool)
        across, down = np.diff(instance, axis=1) != 0, np.diff(instance, axis=0) != 0
        differs[:, 1:] |= across
        differs[:, :-1] |= across
        differs[1:] |= down
        differs[:-1] |= down
        sample = np.where(differs, -1, np.arange(differs.size).reshape(shape)).astype(np.int32)
        return sample.repeat(2, axis=0).repeat(2, axis=1)

    def _shade(
        self,
        hits: Hits,
        direction: Floats,
        sample: NDArray[np.int32],
        origin: Floats,
        turn: Floats,
        time_s: float,
        random: np.random.Generator,
    ) -> Picture:
        """Colour all pixels.

        Args:
            hits: What the samples hit.
            direction: (S, 3) of the samples' rays, odom.
            sample: (H, W) which sample each pixel shows.
            origin: (3,) of all rays, odom.
            turn: (3, 3) odom from camera.
            time_s: Of the exposure.
            random: Draws the noise.

        """
        scene, weather, s = self._scene, self._weather, sample.ravel()
        planes, sky = scene.planes(hits), hits.triangle == SKY
        part = planes.part
        distance = np.where(sky, FAR, hits.distance)
        samples = self._lit(planes, distance, sky, direction, origin, time_s)

        view = rotated(self._rays.reshape(-1, 3), turn)  # (P, 3)
        reached = distance[s]
        slant = dot(planes.normal[s], view)
        with np.errstate(divide='ignore', invalid='ignore'):
            reach = planes.offset[s] / slant
        # Where a plane is seen edge on, its sample's distance stands for it.
        np.clip(reach, 0.8 * reached, 1.25 * reached, out=reach)
        np.copyto(reach, reached, where=np.isnan(reach))
        u = reach * dot(planes.u_axis[s], view) + planes.u_start[s]
        v = reach * dot(planes.v_axis[s], view) + planes.v_start[s]
        texel = scene.atlas.look_up(scene.parts.tile[part][s], samples.level[s], u, v)
        own = texel[:, 3].astype(np.float32) / 255  # how much of the tint it takes
        base = texel[:, :3].astype(np.float32) / 255
        colour = base * (samples.light[s] + own[:, None] * (samples.tint - samples.light)[s])
        fog = (1 - np.exp(-weather.haze * reached)).astype(np.float32)
        mixed = fog + samples.mirror[s] * (1 - fog)
        colour += mixed[:, None] * (weather.horizon - colour)
        blue = sky[s]
        colour[blue] = self._sky(view[blue].T)
        class_id = np.where(blue, np.uint8(NO_CLASS), scene.parts.class_id[part][s])
        return Picture(
            self._developed(colour.reshape(HEIGHT, WIDTH, 3), random),
            class_id.reshape(HEIGHT, WIDTH),
            np.where(blue, 0, scene.parts.instance[part][s]).reshape(HEIGHT, WIDTH),
            np.where(blue, np.float32(np.inf), reach).reshape(HEIGHT, WIDTH),
        )

    def _lit(
        self,
        planes: Planes,
        distance: Floats,
        sky: NDArray[np.bool_],
        direction: Floats,
        origin: Floats,
        time_s: float,
    ) -> _Samples:
        """Let sun, sky and ground shine on what the samples hit."""
        weather, parts, part = self._weather, self._scene.parts, planes.part
        cosine = dot(planes.normal, direction)
        normal = planes.normal * -np.sign(cosine)[:, None]
        facing = dot(normal, weather.sun)
        lit = np.flatnonzero(~sky & (facing > 0))
        point = origin + distance[lit, None] * direction[lit] + 0.01 * normal[lit]
        shade = self._scene.shaded(point, weather.sun, time_s)
        sun = np.zeros(len(sky), np.float32)
        sun[lit] = facing[lit] * ~shade
        up = (0.5 + 0.5 * normal[:, 2:]).astype(np.float32)
        light = sun[:, None] * weather.sun_light + up * weather.sky_light
        light += (1 - up) * weather.ground_light
        # Halvings of the texture so that a texel is about as large as a pixel.
        step = np.linalg.norm(planes.u_axis, axis=1)
        texels = step * distance * (TEXELS / FOCAL) / np.sqrt(np.maximum(np.abs(cosine), 0.02))
        return _Samples(
            light,
            light * parts.tint[part] * np.float32(TINT_GAIN),
            parts.gloss[part] * (0.15 + 0.85 * (1 - np.abs(cosine)) ** 3),
            np.clip(np.ceil(np.log2(np.maximum(texels, 1e-3))), 0, 8).astype(np.int32),
        )

    def _developed(self, light: Floats, random: np.random.Generator) -> NDArray[np.uint8]:
        """Make an image (H, W, 3) of the light that falls in: lens, gamma and noise."""
        image = light * (self._vignette * np.float32(self._weather.exposure))
        image = cv2.GaussianBlur(image, (3, 3), 0.55)
        image = np.sqrt(np.clip(image, 0, 1))  # as a display's gamma
        row, column = random.integers(HEIGHT), random.integers(WIDTH)
        image += 0.012 * self._noise[row : row + HEIGHT, column : column + WIDTH, None]
        return (np.clip(image, 0, 1) * 255).astype(np.uint8)

    def _sky(self, view: Floats) -> Floats:
        """Colour (N, 3) of the sky in directions (3, N)."""
        height = np.maximum(view[2], 0.02)
        u, v = 0.25 * view[0] / (height + 0.15), 0.25 * view[1] / (height + 0.15)
        start = np.full(len(u), self._sky_start, np.int32)
        texel = self._scene.atlas.look_up(start, np.zeros(len(u), np.int32), u, v)
        cloud = (texel[:, :3].astype(np.float32) / 255) ** 2
        low = np.exp(-4 * view[2])[:, None].astype(np.float32)
        return (1 - low) * cloud * 1.15 + low * self._weather.horizon
