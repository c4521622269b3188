# SPDX-License-Identifier: Apache-2.0
"""A video of an evaluation: every sweep in its cameras and from above, at the sweeps' own rate."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import cv2
import numpy as np

from cross4d_jepa_ros.ros.messages import UNKNOWN_COLOUR
from offline_training.evaluation.pictures import Colour, Shown, paint_of
from offline_training.evaluation.video_picture import Layout, Picture, Scene, arranged, painted

SUFFIX = '.mp4'
# What every OpenCV writes. VP9, which browsers play as well, takes 40 times as long.
CODEC = 'mp4v'
# So many sweeps tell the rate and which cameras there are; a camera may start late.
FEWEST_AHEAD, MOST_AHEAD = 10, 30
USUAL_RATE, RATE_LIMITS = 10.0, (1.0, 60.0)


class Video:
    """An MP4 of what was answered; a context manager. The file is there once all is well.

    Args:
        path: Of the file; an old one is replaced.
        model: What answered, for the headline.
        colours: RGB of the answered classes, in the order of their ids; empty for embeddings.
        label_names: Classes of the labels.
        total: Sweeps that there are to be.

    Raises:
        OSError: At the end: the video could not be written.

    """

    def __init__(
        self,
        path: Path,
        model: str,
        colours: Mapping[str, Colour],
        label_names: tuple[str, ...],
        total: int,
    ) -> None:
        self._path, self._model, self._total = path, model, total
        self._colours, self._label_names = colours, label_names
        self._waiting: list[Scene] = []
        self._log, self._began_ns, self._sweeps = '', 0, 0
        self._ends = ExitStack()
        self._file: _File | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._ends:
            if kind is None and self._sweeps:
                self._write_waiting()
                assert self._file is not None
                self._file.finish()

    @property
    def told(self) -> str:
        """What has been written, for the terminal."""
        if self._file is None:
            return f'{self._path} is not written: no sweep was answered'
        size_mb = self._path.stat().st_size / 1e6
        return (
            f'{self._path}: {self._sweeps} pictures, {self._file.rate:.2f} a second, '
            f'{size_mb:.1f} MB'
        )

    def add(self, shown: Shown) -> None:
        """Show one more sweep."""
        self._waiting.append(self._scene(shown))
        seen = {view.camera_index for scene in self._waiting for view in scene.views}
        ahead = FEWEST_AHEAD if len(seen) >= len(shown.cameras) else MOST_AHEAD
        if self._file is not None or len(self._waiting) >= ahead:
            self._write_waiting()

    def _scene(self, shown: Shown) -> Scene:
        swept, frame = shown.swept, shown.swept.frame
        if swept.first or swept.log != self._log:
            self._log, self._began_ns = swept.log, frame.stamp_ns
        self._sweeps += 1
        after_s = (frame.stamp_ns - self._began_ns) / 1e9
        return Scene(
            f'{swept.log}   sweep {self._sweeps} of {self._total}   {after_s:.2f} s',
            f'{self._model}   stamp {frame.stamp_ns / 1e9:.3f} s',
            frame.stamp_ns,
            frame.xyz_base,
            paint_of(shown, self._colours, self._label_names),
            frame.views,
            shown.cameras,
        )

    def _write_waiting(self) -> None:
        if self._file is None:
            self._layout = self._arranged()
            rate = _rate([scene.stamp_ns for scene in self._waiting])
            self._file = self._ends.enter_context(
                _File(self._path, rate, self._layout.width, self._layout.height)
            )
        for scene in self._waiting:
            self._file.write(painted(self._layout, scene))
        self._waiting.clear()

    def _arranged(self) -> Layout:
        aspects = {
            view.camera_index: view.image.shape[0] / view.image.shape[1]
            for scene in self._waiting
            for view in scene.views
        }
        truth = any(scene.paint.truth_rgb is not None for scene in self._waiting)
        legend = [(name.replace('_', ' '), colour) for name, colour in self._colours.items()]
        return arranged(aspects, truth, [*legend, ('unknown', UNKNOWN_COLOUR)] if legend else [])


def _rate(stamps: Sequence[int]) -> float:
    """Sweeps per second, as most follow one another."""
    steps = np.diff(stamps)
    steps = steps[steps > 0]
    if not len(steps):
        return USUAL_RATE
    return float(np.clip(1e9 / np.median(steps), *RATE_LIMITS))


class _File:
    """A video that takes the place of its path once it is finished; a context manager."""

    def __init__(self, path: Path, rate: float, width: int, height: int) -> None:
        self.rate = rate
        self._path, self._pictures = path, 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._folder = tempfile.TemporaryDirectory(dir=path.parent, prefix=f'.{path.name}.')
        self._unfinished = Path(self._folder.name) / path.name
        code = cv2.VideoWriter.fourcc(*CODEC)
        self._writer = cv2.VideoWriter(str(self._unfinished), code, rate, (width, height))
        if not self._writer.isOpened():
            self._folder.cleanup()
            msg = f'{path}: this OpenCV writes no {CODEC}: leave out --video'
            raise OSError(msg)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.release()
        self._folder.cleanup()

    def write(self, picture: Picture) -> None:
        """Add a picture, RGB."""
        self._writer.write(np.ascontiguousarray(picture[..., ::-1]))
        self._pictures += 1

    def finish(self) -> None:
        """Put the file where it belongs.

        Raises:
            OSError: It is not whole, which OpenCV does not say while it writes.

        """
        self._writer.release()
        reader = cv2.VideoCapture(str(self._unfinished))
        written = max(0, int(reader.get(cv2.CAP_PROP_FRAME_COUNT)))
        reader.release()
        if written != self._pictures:
            msg = (
                f'{self._path}: {written} of {self._pictures} pictures came out: is the disk full?'
            )
            raise OSError(msg)
        self._unfinished.replace(self._path)
