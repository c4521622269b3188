# SPDX-License-Identifier: Apache-2.0
"""The transforms of a recording, for nodes that cannot subscribe to TF."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from cross4d_jepa_ros.bags import Bag, note, static_transforms
from cross4d_jepa_ros.sensing.extrinsics import StaticTransform
from cross4d_jepa_ros.sensing.transforms import TransformBuffer


class OdometryBridge:
    """Picks the moving edges that a node without tf2_msgs needs, to be sent as Odometry.

    Only edges below the fixed frame are kept: a localisation's corrections of `map` to `odom`
    would be jumps in the ego-motion. Where the recording does not know the fixed frame, all are.

    Args:
        fixed_frame: Root of the wanted chain, such as `odom`.
        static: The recording's static geometry_msgs/TransformStamped.
        carried: (parent, child) edges that a played Odometry topic carries already.

    """

    def __init__(self, fixed_frame: str, static: list[Any], carried: set[tuple[str, str]]) -> None:
        self._fixed_frame = fixed_frame
        self._carried = carried
        self._parents: dict[str, str] = dict(map(child_and_parent, static))

    def select(self, transforms: list[Any]) -> list[Any]:
        """Return those of a TFMessage's transforms that are to be sent."""
        edges = [child_and_parent(transform) for transform in transforms]
        self._parents.update(edges)
        return [
            transform
            for transform, (child, parent) in zip(transforms, edges, strict=True)
            if (parent, child) not in self._carried and self._wanted(parent)
        ]

    def _wanted(self, frame: str) -> bool:
        known = self._fixed_frame in self._parents or self._fixed_frame in self._parents.values()
        if not known:
            return True
        for _ in range(len(self._parents) + 1):  # bounded: a broken recording may hold a loop
            if frame == self._fixed_frame:
                return True
            if frame not in self._parents:
                return False
            frame = self._parents[frame]
        return False


def child_and_parent(transform: Any) -> tuple[str, str]:
    """Names of the two frames of a TransformStamped- or Odometry-like message."""
    return transform.child_frame_id.lstrip('/'), transform.header.frame_id.lstrip('/')


def static_tree(bag: Bag) -> tuple[StaticTransform, ...]:
    """Read the recording's `/tf_static`, the last word on each child frame.

    A malformed transform is left out and said in `bag.problems`.
    """
    tree: dict[str, StaticTransform] = {}
    for transform in static_transforms(bag):
        child, parent = child_and_parent(transform)
        alone = TransformBuffer()
        alone.add_tf_message(SimpleNamespace(transforms=[transform]), static=True)
        if alone.rejected:
            note(bag.problems, f'/tf_static: {alone.last_rejection}')
            continue
        tree[child] = StaticTransform(parent, child, alone.lookup(parent, child, 0))
    return tuple(tree.values())
