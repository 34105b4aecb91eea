# SPDX-License-Identifier: Apache-2.0
"""Declare a node's parameters with type, default, range and description in one call each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar, cast

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import InvalidParameterTypeException, ParameterException
from rclpy.node import Node

__all__ = ["ParameterError", "declare"]

Value = TypeVar("Value", bool, int, float, str)


class ParameterError(ValueError):
    """A parameter's value is not allowed; the message names the parameter, the value and what is allowed."""


def declare(
    node: Node,
    name: str,
    default: Value,
    description: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: Sequence[str] = (),
    read_only: bool = True,
) -> Value:
    """Declare a parameter, which may not change later unless `read_only` is False, and return its value.

    `low` and `high` bound numbers and go together; `choices` lists the allowed texts. Raises ParameterError for a value
    of the wrong type, out of range or not among `choices`.
    """
    descriptor = ParameterDescriptor(description=description, read_only=read_only)
    if choices:
        descriptor.additional_constraints = "one of: " + ", ".join(choices)
    if low is not None and high is not None:
        if isinstance(default, float):
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=float(low), to_value=float(high), step=0.0)
            ]
        else:
            descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high), step=1)]
    try:
        value = cast(Value, node.declare_parameter(name, default, descriptor).value)
    except (ParameterException, InvalidParameterTypeException) as error:
        bounds = "" if low is None else f" from {low} to {high}"
        raise ParameterError(f"parameter {name} must be of type {type(default).__name__}{bounds}: {error}") from error
    if choices and value not in choices:
        raise ParameterError(f"parameter {name} is {value!r}, expected one of: {', '.join(choices)}")
    return value
