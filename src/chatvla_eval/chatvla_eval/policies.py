# SPDX-License-Identifier: Apache-2.0
"""Get a policy by name: "expert", or a checkpoint that chatvla_policy loads. Imports only what the name needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from importlib import import_module
from pathlib import Path

from chatvla_control.contracts import Policy
from chatvla_control.robot_spec import RobotSpec
from chatvla_control.scene import SceneTruth

__all__ = [
    "EXPERT",
    "PolicyUnavailableError",
    "keep_text",
    "load_checkpoint_policy",
    "make_policy",
    "policy_name",
    "system_name",
]

EXPERT = "expert"


class PolicyUnavailableError(ValueError):
    """The policy cannot be had; the message says why and what there is."""


def make_policy(name: str, *, task: str, spec: RobotSpec, truth: Callable[[], SceneTruth]) -> Policy:
    """Return the policy called `name`: "expert" (privileged: it alone gets `truth`), or a checkpoint folder or name.

    Raises PolicyUnavailableError.
    """
    if name == EXPERT:
        return import_module("chatvla_sim.expert").make_expert(task, spec, truth)
    policy = load_checkpoint_policy(name)
    try:
        import_module("chatvla_policy.systems.driving").check_can_drive(policy)
    except ValueError as error:
        raise PolicyUnavailableError(f"policy {name!r} cannot act: {error}") from error
    return policy


def keep_text(policy: Policy) -> None:
    """Let `policy` go on with its text and look anew, as the policy node does by default; nothing where it has none.

    A score or a time in this process and one through ROS then mean the same.
    """
    settings = getattr(policy, "settings", None)
    if hasattr(settings, "reuse"):
        policy.settings = replace(settings, reuse=type(settings.reuse)("refresh"))  # type: ignore


def policy_name(name: str) -> str:
    """Return what results call a policy: "expert", else its checkpoint's name."""
    if name == EXPERT:
        return EXPERT
    try:
        return import_module("chatvla_policy.naming").policy_name(name)
    except ImportError:
        return Path(name).name


def system_name(name: str) -> str:
    """Return the system of a policy by its name or folder, such as "chatvla2"; empty where it cannot be found out."""
    if name == EXPERT:
        return EXPERT
    try:
        return import_module("chatvla_policy.systems").system_of(name)
    except (ImportError, OSError, ValueError):
        return ""


@cache
def load_checkpoint_policy(name: str) -> Policy:
    """Return the checkpoint's policy, loaded once per process. Raises PolicyUnavailableError."""
    try:
        systems = import_module("chatvla_policy.systems")
    except ImportError as error:
        raise PolicyUnavailableError(
            f"policy {name!r} is a checkpoint, and chatvla_policy cannot be imported ({error}); there is: {EXPERT}"
        ) from error
    _use_one_thread()
    try:
        return systems.load_policy(name)
    except (OSError, ValueError) as error:
        raise PolicyUnavailableError(
            f"policy {name!r} cannot be loaded: {error}; without a checkpoint there is: {EXPERT}"
        ) from error


def _use_one_thread() -> None:
    """Compute on one thread: sums then do not depend on how many trials run side by side."""
    import_module("torch").set_num_threads(1)
