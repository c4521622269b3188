# SPDX-License-Identifier: Apache-2.0
"""A lifecycle node that answers requests it cannot fulfil and says what a transition raised."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Protocol, TypeVar

from rclpy._rclpy_pybind11 import RCLError
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn


class Refusing(Protocol):
    """A node that says why it did not make a transition."""

    def refuse(self, sentence: str) -> None:
        """Say so."""


AnyNode = TypeVar('AnyNode', bound=Refusing)
Transition = Callable[[AnyNode, LifecycleState], TransitionCallbackReturn]


def told(transition: Transition[AnyNode]) -> Transition[AnyNode]:
    """Name what a transition raises, which rclpy keeps to itself on the way to `on_error`."""

    @wraps(transition)
    def attempted(node: AnyNode, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return transition(node, state)
        except Exception as error:
            name = transition.__name__.removeprefix('on_')
            node.refuse(f'{name} failed: {error!r}: configure and activate the node again')
            raise

    return attempted


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
