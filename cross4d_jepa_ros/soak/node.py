# SPDX-License-Identifier: Apache-2.0
"""The node under test: `perception_node` as it is, and memory that runs out on command.

SIGUSR1 lets the next step fail, SIGUSR2 the next three. The last line on stdout are the counts.
"""

from __future__ import annotations

import faulthandler
import json
import signal
import sys
import threading

import torch

from cross4d_jepa_ros.perception_node import PerceptionNode, main
from cross4d_jepa_ros.pipeline import Output, Perception, Pipeline
from cross4d_jepa_ros.sensing.frames import SensorFrame
from cross4d_jepa_ros.soak.processes import COUNTS


class Shortage:
    """Lets steps of the pipeline fail as a GPU's allocator does. Thread-safe."""

    def __init__(self) -> None:
        """Take the place of `Pipeline.step`."""
        self._lock = threading.Lock()
        self._left = 0
        step = Pipeline.step

        def starved(pipeline: Pipeline, frame: SensorFrame, outputs: Output) -> Perception:
            with self._lock:
                short, self._left = self._left > 0, max(0, self._left - 1)
            if short:
                raise torch.OutOfMemoryError('out of memory (made up by the soak)')
            return step(pipeline, frame, outputs)

        Pipeline.step = starved  # type: ignore[method-assign, assignment]

    def ask(self, steps: int) -> None:
        """Let so many of the next steps fail."""
        with self._lock:
            self._left = steps


def count_at_the_end() -> None:
    """Have the node print its counts when it has closed."""
    close = PerceptionNode.close

    def closed(node: PerceptionNode) -> None:
        close(node)
        print(COUNTS + json.dumps(node.counts().as_dict()), flush=True)

    PerceptionNode.close = closed  # type: ignore[method-assign, assignment]


if __name__ == '__main__':
    faulthandler.enable()
    shortage = Shortage()
    signal.signal(signal.SIGUSR1, lambda *_: shortage.ask(1))
    signal.signal(signal.SIGUSR2, lambda *_: shortage.ask(3))
    count_at_the_end()
    sys.exit(main())
