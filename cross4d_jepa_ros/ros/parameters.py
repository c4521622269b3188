# SPDX-License-Identifier: Apache-2.0
"""Every parameter of the perception node: one table, from which declaration and README are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter

from cross4d_jepa_ros.compute import PRECISIONS
from cross4d_jepa_ros.sensing.frames import FrameConfig
from cross4d_jepa_ros.sensing.point_clouds import CloudConfig
from cross4d_jepa_ros.sensing.synchronisation import SyncConfig

MAX_CAMERAS = 8
CLASS_THRESHOLDS = 'segmentation.class_thresholds'


@dataclass(frozen=True)
class Parameter:
    """One row of the table. `live` ones may change at any time, the others while unconfigured."""

    name: str
    default: Any
    unit: str
    description: str
    bounds: tuple[float, float] | None = None
    choices: tuple[str, ...] = ()
    live: bool = False

    @property
    def type(self) -> str:
        """Name of the ROS parameter type."""
        if isinstance(self.default, list):
            return 'string_array' if isinstance(self.default[0], str) else 'double_array'
        names = {bool: 'bool', int: 'integer', float: 'double', str: 'string'}
        return names[type(self.default)]

    @property
    def range(self) -> str:
        """What values are taken, for people."""
        if self.choices:
            return ' \\| '.join(f'`{choice}`' for choice in self.choices)
        return f'{self.bounds[0]:g} .. {self.bounds[1]:g}' if self.bounds else ''


PARAMETERS = (
    Parameter('autostart', True, '', 'configure and activate by itself at start'),
    Parameter(
        'model', '', 'path', 'checkpoint (.safetensors); empty: the demo checkpoint of the package'
    ),
    Parameter(
        'device',
        'auto',
        '',
        'where the encoder runs; auto: the GPU where there is one',
        choices=('auto', 'cpu', 'cuda'),
    ),
    Parameter(
        'precision',
        'auto',
        '',
        'of the encoder; auto: bf16 on a GPU that multiplies it, else fp16 on a GPU, fp32 on a CPU',
        choices=('auto', *PRECISIONS),
    ),
    Parameter(
        'threads', 0, 'threads', 'CPU threads of the encoder; 0: what PyTorch chooses', (0, 256)
    ),
    Parameter(
        'cameras',
        1,
        '',
        'number of inputs `~/input/image0` ..; 0: LiDAR only',
        (0, MAX_CAMERAS),
    ),
    Parameter(
        'extrinsics_file',
        '',
        'path',
        'YAML (Kalibr-shaped): calibrations, static transforms; wins over CameraInfo and TF',
    ),
    Parameter(
        'base_frame',
        '',
        'frame',
        'gravity-aligned frame the network sees; empty: the sensor frame itself, taken as upright',
    ),
    Parameter(
        'base_height',
        -1.0,
        'm',
        'height of that frame above the ground; -1: measured from the first sweeps',
        (-1, 100),
    ),
    Parameter(
        'fixed_frame',
        '',
        'frame',
        'world-fixed frame for ego-motion; empty: odom, map or world, whichever moves',
    ),
    Parameter(
        'max_extrapolation',
        0.15,
        's',
        'how far poses are continued beyond the newest one',
        (0, 2),
    ),
    Parameter('deskew', True, '', 'undo the motion within a sweep where points carry their time'),
    Parameter(
        'points.sweep_stamp',
        'start',
        '',
        'the instant of the sweep that header.stamp names',
        choices=('start', 'middle', 'end'),
    ),
    Parameter(
        'points.time_unit',
        'auto',
        '',
        'unit of the per-point time field',
        choices=('auto', 's', 'ms', 'us', 'ns'),
    ),
    Parameter(
        'points.intensity_scale',
        0.0,
        '',
        'factor that brings raw intensity to 0..1; 0: from what the sensor sends',
        (0, 1e6),
    ),
    Parameter(
        'sync.offsets',
        [0.0],
        's',
        'per camera: image stamp minus sweep stamp to aim at (the last one serves the rest)',
        (-5, 5),
    ),
    Parameter('sync.tolerance', 0.1, 's', 'farthest an image may lie from that', (0, 5)),
    Parameter(
        'sync.timeout',
        0.1,
        's',
        'longest wait of a sweep for its images (steady clock)',
        (0, 5),
    ),
    Parameter(
        'sync.stamp_source',
        'header',
        '',
        'match by header stamps, or by arrival (for drivers that leave stamps at zero)',
        choices=('header', 'arrival'),
    ),
    Parameter(
        'qos.reliability',
        'auto',
        '',
        'of the input subscriptions; auto: what the publisher offers',
        choices=('auto', 'reliable', 'best_effort'),
    ),
    Parameter('qos.depth', 5, 'messages', 'queue of the input subscriptions', (1, 100)),
    Parameter(
        'segmentation.threshold',
        0.0,
        'probability',
        'points below it are labelled 255 (unknown)',
        (0, 1),
        live=True,
    ),
    Parameter(
        CLASS_THRESHOLDS,
        [''],
        'name:probability',
        'the same for single classes, in its place: `["car:0.6", "person:0.3"]`',
        live=True,
    ),
    Parameter(
        'teach.class',
        '',
        'name',
        'class that a clicked point (`~/input/clicked_point`) is an example of; empty: refused',
        live=True,
    ),
    Parameter(
        'teach.file',
        '',
        'path',
        'where `~/teach/save` writes, read again at configure in place of what the model was '
        'taught; empty: `~/.ros/cross4d_jepa_ros/taught_*.safetensors`, one for each model',
    ),
    Parameter(
        'frame_log',
        '',
        'path',
        'JSON lines, appended: what was done with each sweep, for `evaluate --frame-log`; '
        'empty: none',
    ),
)
_BY_NAME = {parameter.name: parameter for parameter in PARAMETERS}


@dataclass(frozen=True)
class NodeConfig:
    """The parameters of one configured life of the node."""

    model: Path | None
    device: str
    precision: str
    threads: int
    cameras: int
    extrinsics_file: Path | None
    teach_file: Path | None
    frame_log: Path | None
    reliability: str
    depth: int
    frame: FrameConfig
    sync: SyncConfig


def declare(node: Node) -> None:
    """Declare the table on a node, with types, ranges and descriptions."""
    for parameter in PARAMETERS:
        unit = f' [{parameter.unit}]' if parameter.unit else ''
        descriptor = ParameterDescriptor(description=parameter.description + unit)
        if parameter.choices:
            descriptor.additional_constraints = 'one of ' + ', '.join(parameter.choices)
        if parameter.bounds and parameter.type == 'integer':
            first, last = (int(bound) for bound in parameter.bounds)
            descriptor.integer_range = [IntegerRange(from_value=first, to_value=last)]
        elif parameter.bounds and parameter.type == 'double':
            low, high = (float(bound) for bound in parameter.bounds)
            descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
        node.declare_parameter(parameter.name, parameter.default, descriptor)
    refusal = refused(node.get_parameters([parameter.name for parameter in PARAMETERS]), '')
    if refusal:
        raise ValueError(refusal)


def refused(
    changes: list[RosParameter], state: str, class_names: Sequence[str] | None = None
) -> str:
    """Say why a set of parameter changes cannot be taken; empty where it can.

    Args:
        changes: Proposed parameters, together.
        state: Lifecycle state, e.g. `unconfigured`; empty: whichever.
        class_names: That thresholds may be given for; None while no model is loaded.

    """
    for change in changes:
        row = _BY_NAME.get(change.name)
        if row is None:
            continue
        if row.choices and change.value not in row.choices:
            return f'{row.name} is {change.value!r}; take one of {", ".join(row.choices)}'
        if row.type == 'double_array' and row.bounds:
            low, high = row.bounds
            if any(not low <= value <= high for value in change.value):
                return f'{row.name} is {list(change.value)}; each lies between {low:g} and {high:g}'
        if row.name == 'teach.class' and change.value != change.value.replace(',', '').strip():
            return f'{row.name} is {change.value!r}: give one name, without commas or spaces around'
        if row.name == CLASS_THRESHOLDS:
            try:
                class_thresholds(change.value, class_names)
            except ValueError as error:
                return str(error)
        if not row.live and state in ('inactive', 'active'):
            return f'{row.name} is read in configure: clean the node up first (it is {state})'
    return ''


def check(
    changes: list[RosParameter], state: str, class_names: Sequence[str] | None
) -> SetParametersResult:
    """Answer a parameter request with the reason of a refusal."""
    reason = refused(changes, state, class_names)
    return SetParametersResult(successful=not reason, reason=reason)


def class_thresholds(entries: Sequence[str], class_names: Sequence[str] | None) -> dict[str, float]:
    """Read thresholds of single classes.

    Args:
        entries: `name:probability` each; empty ones are passed over.
        class_names: Classes there are; None: not known yet.

    Raises:
        ValueError: An entry has another form, or names no class, or one for the second time.

    """
    thresholds: dict[str, float] = {}
    for entry in filter(None, entries):
        name, _, number = entry.rpartition(':')
        try:
            threshold = float(number)
        except ValueError:
            threshold = -1.0
        if not name or not 0 <= threshold <= 1:
            msg = f'{CLASS_THRESHOLDS} has {entry!r}: write name:probability, such as car:0.6'
            raise ValueError(msg)
        if class_names is not None and name not in class_names:
            known = ', '.join(class_names) or 'none'
            msg = f'{CLASS_THRESHOLDS} names {name!r}; the classes are {known}'
            raise ValueError(msg)
        if name in thresholds:
            msg = f'{CLASS_THRESHOLDS} names {name!r} twice'
            raise ValueError(msg)
        thresholds[name] = threshold
    return thresholds


def resolved(name: str, path: str) -> Path | None:
    """Say where a path leads: absolute, without `~`, `..` and links; None where there is none.

    Raises:
        ValueError: Nowhere; names the parameter.

    """
    try:
        return Path(path).expanduser().resolve() if path else None
    except (OSError, RuntimeError, ValueError) as error:
        msg = f'{name} is {path!r}, which leads nowhere ({error})'
        raise ValueError(msg) from error


def read(node: Node) -> NodeConfig:
    """Collect the declared parameters into the configurations of the parts they belong to.

    Raises:
        ValueError: A path cannot be one; names the parameter.

    """
    value = {parameter.name: node.get_parameter(parameter.name).value for parameter in PARAMETERS}
    for parameter in PARAMETERS:
        if parameter.unit == 'path':
            value[parameter.name] = resolved(parameter.name, value[parameter.name])
    offsets = list(value['sync.offsets']) or [0.0]
    cameras = value['cameras']
    offsets += [offsets[-1]] * (cameras - len(offsets))
    return NodeConfig(
        model=value['model'],
        device=value['device'],
        precision=value['precision'],
        threads=value['threads'],
        cameras=cameras,
        extrinsics_file=value['extrinsics_file'],
        teach_file=value['teach.file'],
        frame_log=value['frame_log'],
        reliability=value['qos.reliability'],
        depth=value['qos.depth'],
        frame=FrameConfig(
            cloud=CloudConfig(
                intensity_scale=value['points.intensity_scale'],
                time_unit=value['points.time_unit'],
                sweep_stamp=value['points.sweep_stamp'],
            ),
            base_frame=value['base_frame'],
            base_height_m=None if value['base_height'] < 0 else value['base_height'],
            fixed_frame=value['fixed_frame'],
            max_extrapolation_s=value['max_extrapolation'],
            deskew=value['deskew'],
        ),
        sync=SyncConfig(
            offsets_s=tuple(offsets[:cameras]),
            tolerance_s=value['sync.tolerance'],
            timeout_s=value['sync.timeout'],
            stamp_source=value['sync.stamp_source'],
        ),
    )
