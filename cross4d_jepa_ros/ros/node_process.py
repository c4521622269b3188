# SPDX-License-Identifier: Apache-2.0
"""The process of a node: signals, the executor, and the exit code."""

from __future__ import annotations

import contextlib
import gc
import signal
import sys
from collections.abc import Callable
from typing import Any

import rclpy
from rclpy._rclpy_pybind11 import RCLError
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor


def run_node(make: Callable[[], Any], name: str, args: list[str] | None) -> int:
    """Run a node until it is interrupted.

    Args:
        make: Makes it: an rclpy node with `close`, which frees what it holds.
        name: What a refused parameter is told under.
        args: For ROS; None for those of the command line.

    Returns:
        Exit code: 0, or 2 where a parameter was refused.

    """
    # rclpy hands signals on to these: like Ctrl-C, SIGTERM does not wait for a model to be loaded.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    rclpy.init(args=args)
    node = None
    try:
        executor = SingleThreadedExecutor()
        node = make()
        executor.add_node(node)
        _spin(executor, node)
    except (ValueError, InvalidParameterTypeException, InvalidParameterValueException) as error:
        print(f'{name}: {error}', file=sys.stderr)
        return 2
    except (KeyboardInterrupt, Exception) as error:
        # A signal ends the context, which lets whatever is being made at that moment fail.
        if rclpy.ok() and not isinstance(error, KeyboardInterrupt):
            raise
    finally:
        if node is not None:
            node.close()
            node.destroy_node()
        _shut_down()
        # Else the interpreter looks through all of PyTorch before it ends: a second on a busy CPU.
        gc.freeze()
    return 0


def _spin(executor: SingleThreadedExecutor, node: Any) -> None:
    """Serve callbacks until the context ends; one that fails is told, and the next one served."""
    while rclpy.ok():
        try:
            executor.spin()
        except ExternalShutdownException:
            return
        except Exception as error:
            if rclpy.ok():
                node.get_logger().error(f'a callback failed: {error!r}')


def _shut_down() -> None:
    # It asks and then does: the thread that handles signals may be faster.
    with contextlib.suppress(RCLError):
        rclpy.try_shutdown()
