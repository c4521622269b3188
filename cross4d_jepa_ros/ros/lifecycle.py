# SPDX-License-Identifier: Apache-2.0
"""A lifecycle node that answers requests it cannot fulfil."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy._rclpy_pybind11 import RCLError
from rclpy.lifecycle import LifecycleNode


def answer_illegal_requests(node: LifecycleNode) -> None:
    """Refuse a transition that the state does not allow, where rclpy would end the process."""
    service = node._service_change_state
    change_state: Callable[[Any, Any], Any] = service.callback

    def answered(request: Any, response: Any) -> Any:
        before = node._state_machine.current_state[1]
        try:
            return change_state(request, response)
        except RCLError:
            asked = request.transition.label or request.transition.id
            labels = [label for _, label, *_ in node._state_machine.available_transitions]
            node.get_logger().warning(
                f'transition {asked!r} refused: the node is {before} and allows {", ".join(labels)}'
            )
            response.success = False
            return response

    service.callback = answered
