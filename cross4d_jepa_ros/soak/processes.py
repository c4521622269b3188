# SPDX-License-Identifier: Apache-2.0
"""The processes of a soak: lives of the node, and sensors that take commands."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cross4d_jepa_ros.children import end_child
from cross4d_jepa_ros.soak.sensors import Settings

COUNTS = 'soak counts: '
CRASH_SIGNS = ('Traceback', 'Fatal Python error', 'Segmentation fault', 'a callback failed')


@dataclass(frozen=True)
class First:
    """The first message of a topic after a command; steady clock, and its own stamp."""

    at_ns: int
    stamp_ns: int


class Process:
    """A Python module that runs beside this process, and ends with it."""

    def __init__(self, module: str, *arguments: str, **options: Any) -> None:
        """Start `python -m module arguments`; options are those of `subprocess.Popen`."""
        command = [sys.executable, '-m', f'cross4d_jepa_ros.soak.{module}', *arguments]
        self._child = subprocess.Popen(command, **options)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._child.pid

    def poll(self) -> int | None:
        """Exit code; None while it runs."""
        return self._child.poll()

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self._child.send_signal(number)

    def close(self) -> None:
        """Interrupt it, stopped or not, and then insist."""
        if self.poll() is None:
            self.signal(signal.SIGCONT)
        end_child(self._child)


class Life(Process):
    """One life of a node, from its start to its exit. What it prints goes to a file."""

    def __init__(self, name: str, log: Path, arguments: list[str]) -> None:
        """Start a node.

        Args:
            name: Of the node.
            log: Where its output goes.
            arguments: For ROS, after `--ros-args`.

        """
        self.name = f'/{name}'
        self.log = log
        with log.open('wb') as stream:
            ros = ['--ros-args', '-r', f'__node:={name}', *arguments]
            super().__init__('node', *ros, stdout=stream, stderr=stream)

    def memory(self) -> tuple[float, int]:
        """Resident MB and threads; zeros once it is gone."""
        try:
            text = Path(f'/proc/{self.pid}/status').read_text()
        except OSError:
            return 0.0, 0
        found = dict(re.findall(r'^(VmRSS|Threads):\s+(\d+)', text, re.MULTILINE))
        return int(found.get('VmRSS', 0)) / 1024, int(found.get('Threads', 0))

    def counts(self) -> dict[str, Any] | None:
        """What it counted in all, once it has ended; None where it did not get to say."""
        for line in reversed(self.log.read_text(errors='replace').splitlines()):
            if line.startswith(COUNTS):
                counts: dict[str, Any] = json.loads(line.removeprefix(COUNTS))
                return counts
        return None

    def crash(self) -> str:
        """What its end or its log shows of a crash; empty where there was none."""
        code = self.poll()
        text = self.log.read_text(errors='replace')
        sign = next((sign for sign in CRASH_SIGNS if sign in text), '')
        if sign:
            return f'{self.log}: {sign}'
        return f'{self.log}: exit code {code}' if code else ''


class SensorProcess(Process):
    """Sensors in a process of their own."""

    def __init__(
        self, name: str, settings: Settings, sent: Callable[[dict[str, Any]], None]
    ) -> None:
        """Start them.

        Args:
            name: Of their node.
            settings: To begin with.
            sent: Called with the facts of each sweep, just before it goes out, from a thread.

        """
        arguments = (name, json.dumps(asdict(settings)))
        pipe = subprocess.PIPE
        super().__init__('sensors', *arguments, stdin=pipe, stdout=pipe, text=True)
        self.settings = settings
        self.set_ns: dict[int, int] = {}
        self.firsts: dict[tuple[int, str], First] = {}
        self._number = 0
        self._sent = sent
        self._thread = threading.Thread(target=self._read, name=f'{name} events', daemon=True)
        self._thread.start()

    def command(self, settings: Settings) -> int:
        """Change what they do; returns the number that events will carry."""
        assert self._child.stdin is not None
        self._number += 1
        self.settings = settings
        self._child.stdin.write(json.dumps({'number': self._number, **asdict(settings)}) + '\n')
        self._child.stdin.flush()
        return self._number

    def close(self) -> None:
        """End them and their reader."""
        super().close()
        self._thread.join()
        for stream in (self._child.stdin, self._child.stdout):
            assert stream is not None
            stream.close()

    def _read(self) -> None:
        assert self._child.stdout is not None
        for line in self._child.stdout:
            event = json.loads(line)
            if event['event'] == 'sweep':
                self._sent(event['sweep'])
            elif event['event'] == 'set':
                self.set_ns[event['number']] = event['at_ns']
            else:
                first = First(event['at_ns'], event['stamp_ns'])
                self.firsts |= {(number, event['topic']): first for number in event['numbers']}


def seconds_since(at_ns: int) -> float:
    """Of the steady clock."""
    return (time.monotonic_ns() - at_ns) / 1e9
