# SPDX-License-Identifier: Apache-2.0
"""The tree of frames of a recording, for people: chains frame by frame, and where they break."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from itertools import islice
from typing import Any

import numpy as np

from cross4d_jepa_ros.bag_setup import BagSetup, readable
from cross4d_jepa_ros.bag_transforms import child_and_parent
from cross4d_jepa_ros.bags import Bag, moving_transforms, static_transforms
from cross4d_jepa_ros.health import Finding, Level
from cross4d_jepa_ros.sensing.extrinsics import StaticTransform
from cross4d_jepa_ros.sensing.transforms import TransformBuffer, TransformError

BASE_FRAMES = ('base_link', 'base_footprint')
# A LiDAR that leans more than this is to be told so.
LEAN_DEG = 3.0
FIRST_TRANSFORMS = 5000
_SHOWN = 8


class Chains:
    """Who is whose parent, and by whom.

    Args:
        edges: (child, parent, source) in order: of each child the first counts. Sources are words
            for people.

    """

    def __init__(self, edges: Iterable[tuple[str, str, str]]) -> None:
        self._parents: dict[str, tuple[str, str]] = {}
        for child, parent, source in edges:
            self._parents.setdefault(child.lstrip('/'), (parent.lstrip('/'), source))

    @property
    def frames(self) -> list[str]:
        """All frames, sorted."""
        return sorted(self._parents.keys() | {parent for parent, _ in self._parents.values()})

    def up(self, frame: str) -> list[str]:
        """The frame, its parent and so on to the root."""
        chain = [frame.lstrip('/')]
        while chain[-1] in self._parents and len(chain) <= len(self._parents):
            chain.append(self._parents[chain[-1]][0])
        return chain

    def between(self, target: str, source: str) -> str:
        """Write the chain from one frame to another; '' where there is none.

        Returns:
            Such as `camera <- base_link <- lidar (static)`.

        """
        from_target, from_source = self.up(target), self.up(source)
        common = next((frame for frame in from_target if frame in from_source), '')
        if not common:
            return ''
        down = from_target[: from_target.index(common)]
        below = from_source[: from_source.index(common)]
        chain = ' <- '.join((*down, common, *reversed(below)))
        sources = sorted({self._parents[frame][1] for frame in (*down, *below)})
        return f'{chain} ({", ".join(sources)})' if sources else chain

    def broken(self, target: str, source: str) -> str:
        """Say where the chain between two frames breaks; '' where it does not."""
        if self.between(target, source):
            return ''
        known = self.frames
        for frame in (source.lstrip('/'), target.lstrip('/')):
            if frame not in known:
                near = difflib.get_close_matches(frame, known, n=1)
                guess = (
                    f"; is it {near[0]!r}? Then correct the driver's frame_id, else" if near else ''
                )
                some = ', '.join(known[:_SHOWN]) + (', ...' if len(known) > _SHOWN else '')
                what = (
                    f'no transform names it (known: {some})' if known else 'no transform is known'
                )
                return (
                    f'the chain breaks at {frame!r}, {what}{guess or ":"} publish it on /tf_static'
                )
        one, other = self.up(source), self.up(target)
        return (
            f'the chain breaks between two trees, {" <- ".join(reversed(one))} and '
            f'{" <- ".join(reversed(other))}: publish {one[-1]!r} to {other[-1]!r} on /tf_static'
        )

    def optical_hint(self, frame: str) -> str:
        """Name the optical frame that hangs below one that is not; '' where there is none."""
        frame = frame.lstrip('/')
        below = [
            child
            for child, (parent, _) in sorted(self._parents.items())
            if parent == frame and 'optical' in child
        ]
        if 'optical' in frame or not below:
            return ''
        return (
            f'images are stamped with {frame!r}, below which hangs {below[0]!r}: the optical one '
            "belongs there; correct the driver's frame_id, or give frame_id with --extrinsics"
        )


def chains_of(bag: Bag, setup: BagSetup, given: Iterable[StaticTransform]) -> Chains:
    """Collect all edges of a recording, those of the user's file first."""
    moving = list(islice(moving_transforms(bag), FIRST_TRANSFORMS))
    odometry = next(readable(bag, setup.odometry), None) if setup.odometry in bag.topics else None
    recorded = [*map(child_and_parent, static_transforms(bag))]
    return Chains(
        [
            *(
                (edge.child, edge.parent, 'extrinsics file')
                for edge in given
                if (edge.child, edge.parent) not in recorded
            ),
            *((child, parent, '/tf_static') for child, parent in recorded),
            *((*child_and_parent(edge), '/tf') for edge in moving),
            *([(*child_and_parent(odometry), setup.odometry)] if odometry is not None else []),
        ]
    )


def base_frame(
    chains: Chains, transforms: TransformBuffer, sensor: str, stamp_ns: int
) -> tuple[Finding, dict[str, Any]]:
    """Judge how the LiDAR stands in the robot, and say whether `base_frame` is to be set.

    Args:
        chains: All transforms that are known, by name.
        transforms: Likewise, with their numbers.
        sensor: Frame of the LiDAR.
        stamp_ns: Of one of its sweeps.

    """
    about = 'base frame'
    if not sensor:
        text = 'the driver leaves frame_id of the sweeps empty: no transform is found for them'
        return Finding(Level.ERROR, about, text), {}
    known = chains.frames
    base = next((frame for frame in BASE_FRAMES if chains.between(frame, sensor)), '')
    if not base:
        there = next((frame for frame in BASE_FRAMES if frame in known), '')
        missing = chains.broken(there, sensor) if there else f'no {" or ".join(BASE_FRAMES)}'
        text = f'{missing}: {sensor!r} itself is taken for upright (base_frame: empty)'
        return Finding(Level.WARN if there else Level.OK, about, text), {}
    chain = chains.between(base, sensor)
    try:
        base_from_sensor = transforms.lookup(base, sensor, stamp_ns)
    except TransformError as error:
        return Finding(Level.WARN, about, f'{chain}, but {error}'), {}
    lean = float(np.degrees(np.arccos(np.clip(base_from_sensor[2, 2], -1, 1))))
    height = base_from_sensor[2, 3]
    said = f'{chain}; the LiDAR stands {height:.2f} m above it and leans by {lean:.0f} degrees'
    if lean <= LEAN_DEG:
        return Finding(Level.OK, about, said), {}
    text = f'{said}: the parameter file sets base_frame: {base}, so that up is up'
    return Finding(Level.OK, about, text), {'base_frame': base}
