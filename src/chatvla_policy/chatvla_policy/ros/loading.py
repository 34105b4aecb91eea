# SPDX-License-Identifier: Apache-2.0
"""Load the checkpoint that the parameters name, and give its memory back."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from typing import Any

import torch
from rclpy.node import Node

from chatvla_control.contracts import Policy
from chatvla_policy.ros.live_graph import MismatchError, check_live_graph, check_spec
from chatvla_policy.ros.parameters import READ_WHEN_CONFIGURING, PolicyParameters
from chatvla_policy.runtime.view_window import Window
from chatvla_policy.systems import load_policy
from chatvla_policy.systems.driving import check_can_drive

__all__ = ["Loading", "check_setup", "load", "release_memory", "settle_memory"]


def load(parameters: PolicyParameters) -> Policy:
    """Return the policy of the parameter `checkpoint`. Raises CheckpointError and MismatchError."""
    name = parameters.value("checkpoint")
    if not name:
        raise MismatchError("parameter checkpoint is empty; give the folder or the name of a checkpoint")
    device = parameters.value("device")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise MismatchError(f"device is {device!r}, but torch sees no CUDA device; use device:=cpu")
    try:
        torch.device(device)
    except RuntimeError as error:
        raise MismatchError(f"device is {device!r}, expected cpu, cuda or cuda:N") from error
    policy = load_policy(name, device=device, seed=parameters.seed, robot=parameters.value("robot") or None)
    check_can_drive(policy)
    return policy


class Loading:
    """Loads with `loader`, once for the same parameters: waiting for inputs does not load a checkpoint again."""

    def __init__(self, loader: Callable[[PolicyParameters], Policy], parameters: PolicyParameters) -> None:
        self._loader, self._parameters = loader, parameters
        self._kept: tuple[tuple[Any, ...], Policy] | None = None

    def policy(self) -> Policy:
        """Return the policy of the present parameters. Raises what the loader raises."""
        wanted = tuple(self._parameters.value(name) for name in READ_WHEN_CONFIGURING)
        if self._kept is None or self._kept[0] != wanted:
            self._kept = None
            self._kept = wanted, self._loader(self._parameters)
        return self._kept[1]

    def forget(self) -> None:
        """Load anew next time."""
        self._kept = None


def check_setup(
    node: Node, policy: Policy, parameters: PolicyParameters, stopped: Callable[[], bool]
) -> dict[str, Window]:
    """Return which part of each view's images is taken; the live graph fits the policy.

    Raises MismatchError, InputsMissingError and ParameterError.
    """
    setup = policy.setup  # type: ignore[attr-defined]
    check_spec(setup.spec)
    check_statistics(setup, parameters.value("statistics_hash"))
    return check_live_graph(
        node,
        setup.spec,
        setup.cameras,
        wait_s=parameters.graph_wait_s,
        stopped=stopped,
        model_size=getattr(policy, "image_size", None),
        view_heights_deg={view: parameters.view_height_deg(view) for view in setup.cameras},
    )


def check_statistics(setup: Any, wanted: str) -> None:
    """Raise MismatchError when the checkpoint's statistics are not the wanted ones; "" wants none in particular."""
    statistics = getattr(setup, "statistics", None)
    found = "" if statistics is None else statistics.sha256()
    if wanted and wanted != found:
        raise MismatchError(
            f"the checkpoint's statistics have SHA-256 {found or 'none'}, parameter statistics_hash wants {wanted}"
        )


def settle_memory() -> None:
    """Leave what exists now out of garbage collection: looking through all of torch would stop the node for 50 ms."""
    gc.collect()
    gc.freeze()


def release_memory() -> None:
    """Give freed memory back to the device and the system."""
    gc.unfreeze()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except OSError:
        return  # Another C library: it decides by itself.
