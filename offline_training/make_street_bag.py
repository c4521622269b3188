# SPDX-License-Identifier: Apache-2.0
"""Make a recording of a synthetic street: LiDAR, two cameras, transforms, odometry and truth.

    python -m offline_training.make_street_bag out/street --seed 0 --seconds 20
    python -m offline_training.make_street_bag out/street --label-images out/street_labels

Every seed gives another town. A vehicle drives through it, turns and brakes, while a LiDAR of 64
beams turns on its roof and two cameras expose a few milliseconds after each sweep has begun.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import cv2
from rich.console import Console

from cross4d_jepa_ros.bags import BadBag, BagWriter
from cross4d_jepa_ros.files import write_atomically
from cross4d_jepa_ros.progress import Bars
from offline_training.street import camera
from offline_training.street.camera import Picture
from offline_training.street.classes import CLASS_NAMES
from offline_training.street.lidar import SWEEP_S
from offline_training.street.messages import START_NS, clouds, image, jpeg, odometry, static_tree
from offline_training.street.rig import Rig
from offline_training.street.town import make_town

# Raised by every change of what a seed gives; figures of different versions do not compare.
VERSION = 1
LABELLED_EVERY = 5


def write_street_bag(
    path: Path,
    seed: int,
    seconds: float,
    *,
    beams: int = 64,
    columns: int = 1920,
    storage: Literal['mcap', 'sqlite3'] = 'mcap',
    label_images: Path | None = None,
) -> int:
    """Write the recording.

    Args:
        path: Folder to create.
        seed: Same seed and length, same recording.
        seconds: Length; a sweep every 0.1 s.
        beams: LiDAR beams.
        columns: LiDAR firings per turn.
        storage: Storage plugin.
        label_images: Folder that gets the images of every LABELLED_EVERY-th sweep below `images`
            and what each of their pixels shows, PNG of class ids (255: sky), of the same name
            below `labels`.

    Returns:
        Number of sweeps.

    Raises:
        BadBag: The folder exists already or cannot be made.
        OSError: The disk refuses; nothing of the recording is left.

    """
    sweeps = max(1, round(seconds / SWEEP_S))
    with (
        ExitStack() as whole,  # else nothing is left of it
        BagWriter(path, storage=storage) as bag,
        Bars(Console(stderr=True), 'sweeps') as progress,
    ):
        whole.callback(shutil.rmtree, path, ignore_errors=True)
        task = progress.add_task('street', total=sweeps, note='laying out the town')
        rig = Rig(make_town(seed, seconds), seed, beams, columns)
        _add_topics(bag, seed)
        bag.write('/tf_static', 'tf2_msgs/msg/TFMessage', START_NS, static_tree())
        for sweep in range(sweeps):
            turn = rig.turn(sweep * SWEEP_S)
            messages = [*odometry(rig.ego, turn.start_s), *clouds(turn.sweep, turn.start_s)]
            for name, (exposed_s, picture) in turn.pictures.items():
                messages += image(picture, exposed_s, name)
                if label_images is not None and sweep % LABELLED_EVERY == 0:
                    _label(label_images, f'{path.name}_{name}_{sweep:05}', picture)
            for stamp_ns, topic, msg in sorted(messages, key=lambda entry: entry[0]):
                bag.write(topic, msg.__msgtype__, stamp_ns, msg)
            progress.update(task, advance=1, note='')
        whole.pop_all()
    return sweeps


def _label(folder: Path, name: str, picture: Picture) -> None:
    for below, ending, content in (
        ('images', '.jpg', jpeg(picture)),
        ('labels', '.png', cv2.imencode('.png', picture.class_id)[1]),
    ):
        (folder / below).mkdir(parents=True, exist_ok=True)
        write_atomically(folder / below / f'{name}{ending}', content.tobytes())


def _add_topics(bag: BagWriter, seed: int) -> None:
    bag.note('generator', f'street {VERSION}')
    bag.note('seed', str(seed))
    bag.note('class_names', ','.join(CLASS_NAMES))
    bag.add_topic('/tf_static', 'tf2_msgs/msg/TFMessage', transient_local=True)
    bag.add_topic('/tf', 'tf2_msgs/msg/TFMessage')
    bag.add_topic('/odom', 'nav_msgs/msg/Odometry')
    bag.add_topic('/lidar/points', 'sensor_msgs/msg/PointCloud2', best_effort=True)
    bag.add_topic('/lidar/truth', 'sensor_msgs/msg/PointCloud2', best_effort=True)
    for name in camera.POSES:
        compressed = f'/{name}/image_raw/compressed'
        bag.add_topic(compressed, 'sensor_msgs/msg/CompressedImage', best_effort=True)
        bag.add_topic(f'/{name}/camera_info', 'sensor_msgs/msg/CameraInfo')


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('out', type=Path, help='folder to create')
    parser.add_argument('--seed', type=int, default=0, help='which town, for this length')
    parser.add_argument('--seconds', type=float, default=20.0, help='length, (0, 3600]')
    parser.add_argument('--storage', choices=('mcap', 'sqlite3'), default='mcap')
    parser.add_argument(
        '--label-images', type=Path, help='folder for images and their labels, pixel by pixel'
    )
    arguments = parser.parse_args(argv)
    if not 0 < arguments.seconds <= 3600:
        parser.error(f'--seconds must lie in (0, 3600], not {arguments.seconds:g}')
    if arguments.seed < 0:
        parser.error(f'--seed must not be negative, but is {arguments.seed}')
    try:
        sweeps = write_street_bag(
            arguments.out,
            arguments.seed,
            arguments.seconds,
            storage=arguments.storage,
            label_images=arguments.label_images,
        )
    except (BadBag, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    print(f'{arguments.out}: {sweeps} sweeps of town {arguments.seed}, street version {VERSION}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
