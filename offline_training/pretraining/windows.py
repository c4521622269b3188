# SPDX-License-Identifier: Apache-2.0
"""Windows of sweeps to learn from: read from the logs, changed at random, with cached targets."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cross4d_jepa_ros.correspondence import Correspondence, correspond
from cross4d_jepa_ros.model.config import ModelConfig
from cross4d_jepa_ros.sensing.poses import transform_points
from offline_training.augmentation import Change, ChangedSweep
from offline_training.logs.reader import LogReader, ReadSweep
from offline_training.logs.table import BadIndex, Index, IndexedSweep, Shot
from offline_training.objectives.window import Sighting, Window, WindowSweep
from offline_training.pretraining.settings import Pretraining
from offline_training.teachers import sample_patches
from offline_training.teachers.render import correspond_render, virtual_shots
from offline_training.teachers.target_cache import BadTargets, CachedView, TargetCache

# What random numbers are for; equal seeds would give the order and a window the same ones.
ORDER, AUGMENTATION, OBJECTIVES = 1, 2, 3
# Sweeps that are kept after they were read, with what their cameras see of them.
KEPT_BYTES = 512 << 20
# Cells of a patch map that a predictor looks at.
MAP_CELLS = (8, 16)


class UnfitData(ValueError):
    """Index and cache do not hold what a run needs; the sentence says what is missing."""


@dataclass(frozen=True)
class _Prepared:
    """One sweep as read, with where the points lie in each shot's image."""

    sweep: ReadSweep
    shots: tuple[tuple[Shot, Correspondence], ...]

    @property
    def size(self) -> int:
        """Bytes, about."""
        seen = sum(len(found.point) for _, found in self.shots)
        return 28 * len(self.sweep.xyz) + 24 * seen


class Windows(torch.utils.data.Dataset[Window | UnfitData]):
    """The windows of an index; each process reads the logs for itself.

    Args:
        index: Of the logs.
        targets: Cached features of the teacher; None where no objective asks for them.
        config: The run.
        model: The network that is trained.

    Raises:
        UnfitData: There is no window, or targets are missing.

    """

    def __init__(
        self, index: Index, targets: TargetCache | None, config: Pretraining, model: ModelConfig
    ) -> None:
        self._index, self._targets, self._config, self._model = index, targets, config, model
        self._reader: tuple[int, LogReader] | None = None
        self._kept: OrderedDict[int, _Prepared] = OrderedDict()
        self._kept_bytes = 0
        # Of the teacher's features to the space that is learnt: (C,) and (C, P); None until known.
        self.teacher_space: tuple[Tensor, Tensor] | None = None
        segments = index.segments()
        self._rows = [row for rows in segments for row in rows]
        self._segment = [number for number, rows in enumerate(segments) for _ in rows]
        self._newest = self._usable()

    def __len__(self) -> int:
        return len(self._newest)

    def _usable(self) -> list[int]:
        """Rows that can be the newest of a window."""
        objectives = self._config.objectives
        if not self._rows:
            msg = 'the index has no usable sweep: see its report for what is wrong with the logs'
            raise UnfitData(msg)
        everything = list(range(len(self._rows)))
        if self._targets is None:
            return everything
        shots = [(row.log, shot) for row in self._rows for shot in self._shots_of(row)]
        if not shots:
            msg = (
                'no sweep of the index has an image, and the objectives need them: see the '
                "index's report for the reason, or learn with masked_latent alone (3d_jepa.yaml)"
            )
            raise UnfitData(msg)
        absent = sum(not self._targets.has(log, s.topic, s.stamp_ns) for log, s in shots)
        if absent:
            msg = (
                f'{absent} of {len(shots)} views of the index have no targets in the cache: run '
                'cache_targets on this index'
            )
            raise UnfitData(msg)
        if objectives.needs_target_encoder:
            return everything
        return [
            newest
            for newest in everything
            if any(self._shots_of(self._rows[row]) for row in self._window_rows(newest))
        ]

    def _shots_of(self, row: IndexedSweep) -> tuple[Shot, ...]:
        """Views of a sweep that a teacher has looked at."""
        if self._config.objectives.dense_correspondence.teacher_input == 'render':
            return virtual_shots(row)
        return tuple(shot for shot in row.shots if shot is not None)

    def _window_rows(self, position: int) -> list[int]:
        """Rows of the window whose newest is at `position`, oldest first."""
        stride = self._model.sweep_stride
        rows = [position - stride * back for back in range(self._config.sweeps)]
        return [row for row in reversed(rows) if self._joined(row, position)]

    def _joined(self, first: int, second: int) -> bool:
        count = len(self._rows)
        if not (0 <= first < count and 0 <= second < count):
            return False
        return self._segment[first] == self._segment[second]

    @property
    def views(self) -> float:
        """Images that a window has, on average."""
        shots = [len(self._shots_of(row)) for row in self._rows]
        return sum(shots[row] for new in self._newest for row in self._window_rows(new)) / len(self)

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Draw the order of the windows in one epoch: one permutation from seed and epoch."""
        draw = np.random.default_rng((self._config.seed, epoch, ORDER))
        return draw.permutation(len(self)).astype(np.int64)

    def __getitem__(self, sample: tuple[int, int]) -> Window | UnfitData:
        """Build a window, in whichever process this is.

        Args:
            sample: Epoch and position; the same pair always gives the same window.

        Returns:
            The window, or why it cannot be had: to raise that here would bury it.

        """
        try:
            return self.window(*sample)
        except (BadIndex, BadTargets, OSError) as error:
            return UnfitData(str(error))

    def window(self, epoch: int, position: int) -> Window:
        """Build a window.

        Args:
            epoch: Of the run.
            position: Of the window; the same pair always gives the same one.

        Raises:
            BadIndex: A log is gone or has changed since it was indexed.
            BadTargets: Targets are damaged.
            OSError: A file cannot be read.

        """
        seeds = (self._config.seed, epoch, AUGMENTATION, position)
        draw = np.random.default_rng(seeds)
        newest = self._newest[position]
        rows = self._window_rows(newest)
        change = Change(self._config.augmentation, len(rows), draw)
        sweeps = tuple(self._changed(row, change, draw) for row in rows)
        ahead = newest + self._config.objectives.dense_correspondence.horizon * (
            self._model.sweep_stride
        )
        future = None
        if ahead > newest and self._joined(newest, ahead):
            future = self._changed(ahead, change, draw, views=False)
        seed = np.random.default_rng((*seeds, OBJECTIVES)).integers(1 << 62)
        return Window(
            sweeps=sweeps,
            future=future,
            seed=int(seed),
            forgotten=frozenset(range(len(rows))) - set(change.remembered),
            without_intensity=not change.strong,
            without_poses=not change.posed,
        )

    def _changed(
        self, row: int, change: Change, draw: np.random.Generator, *, views: bool = True
    ) -> WindowSweep:
        indexed, prepared = self._rows[row], self._prepared(row)
        read = prepared.sweep
        changed = change(read.xyz, read.intensity, indexed.fixed_from_base, draw)
        sightings: list[Sighting] = []
        for shot, found in prepared.shots if views else ():
            assert self._targets is not None
            view = self._targets.read(indexed.log, shot.topic, shot.stamp_ns)
            sightings.append(self._sighting(shot, found, view, changed, change, draw))
        return WindowSweep(
            stamp_ns=indexed.stamp_ns,
            xyz=torch.from_numpy(changed.xyz),
            intensity=None if changed.intensity is None else torch.from_numpy(changed.intensity),
            fixed_from_base=changed.fixed_from_base,
            sightings=tuple(sightings),
        )

    def _sighting(
        self,
        shot: Shot,
        found: Correspondence,
        view: CachedView,
        changed: ChangedSweep,
        change: Change,
        draw: np.random.Generator,
    ) -> Sighting:
        place = np.searchsorted(changed.kept, found.point)  # (V,) among the kept
        place = np.minimum(place, max(len(changed.kept) - 1, 0))
        there = np.flatnonzero(changed.kept[place] == found.point) if len(changed.kept) else []
        chosen = np.sort(_range_balanced(found.depth[there], self._points_per_view, draw))
        chosen = np.asarray(there, np.int64)[chosen]  # (V',)
        target = self._target(shot, found.uv[chosen], view)  # (V', P)
        camera = shot.camera
        patch_map = None
        if self._config.objectives.needs_patch_maps:
            patch_map = _pooled(view.patches)  # (h, w, C)
        return Sighting(
            point=torch.from_numpy(place[chosen].astype(np.int64)),
            target=target,
            weight=torch.from_numpy(found.weight[chosen]),
            view=torch.from_numpy(view.view),
            histogram=torch.from_numpy(view.histogram),
            patch_map=patch_map,
            intrinsics=torch.tensor(
                [
                    camera.fx / camera.width,
                    camera.fy / camera.height,
                    camera.cx / camera.width,
                    camera.cy / camera.height,
                ]
            ),
            camera_from_base=torch.from_numpy(
                (shot.camera_from_base @ np.linalg.inv(change.placement)).astype(np.float32)
            ),
            offset_s=shot.offset_ns / 1e9,
        )

    @property
    def _points_per_view(self) -> int:
        objectives = self._config.objectives
        dense = 'dense_correspondence' in objectives.weights
        return objectives.dense_correspondence.points_per_view if dense else 0

    def _target(self, shot: Shot, uv: NDArray[np.float32], view: CachedView) -> Tensor:
        """Features (V, P) of the teacher at pixels, in the space that is learnt."""
        camera, dense = shot.camera, self._config.objectives.dense_correspondence
        features = torch.from_numpy(  # (V, C)
            sample_patches(view.patches, uv, camera.width, camera.height, bilinear=dense.bilinear)
        )
        if self.teacher_space is None:
            return features
        mean, components = self.teacher_space
        return (features - mean) @ components  # (V, P)

    def _prepared(self, row: int) -> _Prepared:
        if row in self._kept:
            self._kept.move_to_end(row)
            return self._kept[row]
        indexed = self._rows[row]
        read = self._log_reader().sweep(indexed)
        read = _near(read, self._model.range_m)
        if self._config.view_only:
            read = _in_view(read, indexed.shots)
        shots = [
            (shot, self._seen_in(shot, read))
            for shot in (self._shots_of(indexed) if self._targets is not None else ())
        ]
        prepared = _Prepared(read, tuple(shots))
        self._kept[row] = prepared
        self._kept_bytes += prepared.size
        while self._kept_bytes > KEPT_BYTES and len(self._kept) > 1:
            self._kept_bytes -= self._kept.popitem(last=False)[1].size
        return prepared

    def _seen_in(self, shot: Shot, read: ReadSweep) -> Correspondence:
        """Find the points that a shot's image shows."""
        if self._config.objectives.dense_correspondence.teacher_input == 'render':
            return correspond_render(read.xyz, shot)
        return correspond(
            read.xyz,
            shot.camera,
            shot.camera_from_base,
            shot.offset_ns,
            read.time_offset_ns,
            patch_px=self._patch_px(shot),
        )

    def _patch_px(self, shot: Shot) -> float:
        """Side of a teacher's patch in pixels of the camera's own image."""
        assert self._targets is not None
        manifest = self._targets.manifest
        return manifest.stride * shot.camera.height / manifest.input_height

    def _log_reader(self) -> LogReader:
        """Open the logs once in each process: file positions must not be shared."""
        if self._reader is None or self._reader[0] != os.getpid():
            self._reader = os.getpid(), LogReader(self._index)
        return self._reader[1]

    def teacher_features(self, sweeps: int, points: int) -> Tensor:
        """Collect raw features (V, C) of the teacher at visible points, evenly over the index.

        Args:
            sweeps: At most so many are looked at.
            points: At most so many of each view.

        Raises:
            UnfitData: No point of these sweeps is visible.

        """
        assert self._targets is not None
        found = []
        seen = [row for row in range(len(self._rows)) if self._shots_of(self._rows[row])]
        for number in np.unique(np.linspace(0, len(seen) - 1, sweeps).astype(int)):
            indexed, prepared = self._rows[seen[number]], self._prepared(seen[number])
            for shot, visible in prepared.shots:
                view = self._targets.read(indexed.log, shot.topic, shot.stamp_ns)
                some = np.unique(np.linspace(0, len(visible.uv) - 1, points).astype(int))
                if len(visible.uv):
                    camera = shot.camera
                    found.append(
                        sample_patches(
                            view.patches,
                            visible.uv[some],
                            camera.width,
                            camera.height,
                            bilinear=True,
                        )
                    )
        if not found:
            msg = (
                'no point of any sweep is visible in an image: look at the pictures beside the '
                'index, extrinsics or time offsets are wrong'
            )
            raise UnfitData(msg)
        return torch.from_numpy(np.concatenate(found))


def _range_balanced(
    depth: NDArray[np.float32], count: int, draw: np.random.Generator
) -> NDArray[np.int64]:
    """Draw at most `count` rows of (V,) depths, m, far ones the likelier, as they are the rarer."""
    if len(depth) <= count or not count:
        return np.arange(min(len(depth), count))
    # The largest of u^(1/w) are a draw without replacement with weights w (Efraimidis, Spirakis).
    rating = np.log(draw.random(len(depth))) / np.maximum(depth, 1)
    return np.argpartition(rating, len(depth) - count)[len(depth) - count :]


def _pooled(patches: NDArray[np.float16]) -> Tensor:
    """Average (h, w, C) features over a grid of at most MAP_CELLS."""
    rows = min(patches.shape[0], MAP_CELLS[0])
    columns = min(patches.shape[1], MAP_CELLS[1])
    whole = torch.from_numpy(patches.astype(np.float32)).permute(2, 0, 1)  # (C, h, w)
    pooled = torch.nn.functional.adaptive_avg_pool2d(whole, (rows, columns))  # (C, h', w')
    return pooled.permute(1, 2, 0).contiguous()  # (h', w', C)


def _near(read: ReadSweep, range_m: float) -> ReadSweep:
    """Leave out the points that the network does not see."""
    return _part(read, np.einsum('ij,ij->i', read.xyz, read.xyz) <= range_m**2)


def _in_view(read: ReadSweep, shots: Sequence[Shot | None]) -> ReadSweep:
    """Leave out what lies in none of the images, hidden or not; all stays where there is none.

    So KITTI's own benchmarks do it. The encoder is then told in which direction the cameras look,
    by where the points end.
    """
    taken = [shot for shot in shots if shot is not None]
    if not taken:
        return read
    inside = np.zeros(len(read.xyz), np.bool_)  # (N,)
    for shot in taken:
        inside |= shot.camera.project(transform_points(shot.camera_from_base, read.xyz))[1]
    return _part(read, inside)


def _part(read: ReadSweep, kept: NDArray[np.bool_]) -> ReadSweep:
    columns = {
        name: value[kept] for name, value in vars(read).items() if isinstance(value, np.ndarray)
    }
    return replace(read, **columns)
