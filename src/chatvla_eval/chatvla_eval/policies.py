# SPDX-License-Identifier: Apache-2.0
"""Get a policy by name: "expert", or a checkpoint that chatvla_policy loads. Imports only what the name needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from chatvla_control.contracts import Policy
from chatvla_control.robot_spec import RobotSpec
from chatvla_control.scene import SceneTruth

__all__ = [
    "EXPERT",
    "PolicyUnavailableError",
    "check_device",
    "check_fits",
    "keep_text",
    "load_checkpoint_policy",
    "make_policy",
    "policy_name",
    "system_name",
]

EXPERT = "expert"
SHIPPED_FOR = {"math_match": "tiny", "toy_placement": "tiny_toys"}
"""The checkpoint that comes with the package for a task."""


class PolicyUnavailableError(ValueError):
    """The policy cannot be had; the message says why and what there is."""


def make_policy(
    name: str, *, task: str, spec: RobotSpec, truth: Callable[[], SceneTruth], device: str = "cpu"
) -> Policy:
    """Return the policy called `name`: "expert" (privileged: it alone gets `truth`), or a checkpoint folder or name.

    A checkpoint computes on `device`, a name of torch's.

    Raises PolicyUnavailableError.
    """
    if name == EXPERT:
        return import_module("chatvla_sim.expert").make_expert(task, spec, truth)
    policy = load_checkpoint_policy(name, device)
    try:
        import_module("chatvla_policy.systems.driving").check_can_drive(policy)
    except ValueError as error:
        raise PolicyUnavailableError(f"policy {name!r} cannot act: {error}") from error
    return policy


def check_fits(policy: Policy, *, task: str, spec: RobotSpec, cameras: Sequence[str]) -> None:
    """Raise PolicyUnavailableError when `policy` drives another robot, or by cameras that the bench does not have."""
    setup: Any = getattr(policy, "setup", None)
    if setup is None or (setup.spec.joint_names == spec.joint_names and set(setup.cameras) <= set(cameras)):
        return
    example = f", such as {SHIPPED_FOR[task]}" if task in SHIPPED_FOR else ""
    raise PolicyUnavailableError(
        f"{policy.name} drives {setup.spec.name} by camera {', '.join(setup.cameras)}; {task} has {spec.name} and "
        f"camera {', '.join(cameras)}: give a policy of this bench{example}"
    )


def check_device(device: str) -> None:
    """Raise PolicyUnavailableError for a device that torch does not know or does not see."""
    torch = import_module("torch")
    try:
        wanted = torch.device(device)
    except RuntimeError:
        raise PolicyUnavailableError(f"{device!r} is no device of torch; give cpu, cuda or cuda:1") from None
    seen = torch.cuda.device_count() if wanted.type == "cuda" and torch.cuda.is_available() else 0
    if wanted.type == "cuda" and (wanted.index or 0) >= seen:
        raise PolicyUnavailableError(f"torch sees {seen} CUDA devices, not {device}; give cpu or another device")


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
def load_checkpoint_policy(name: str, device: str = "cpu") -> Policy:
    """Return the checkpoint's policy on `device`, loaded once per process. Raises PolicyUnavailableError."""
    try:
        systems = import_module("chatvla_policy.systems")
    except ImportError as error:
        raise PolicyUnavailableError(
            f"policy {name!r} is a checkpoint, and chatvla_policy cannot be imported ({error}); there is: {EXPERT}"
        ) from error
    _use_one_thread()
    try:
        return systems.load_policy(name, device=device)
    except (OSError, ValueError) as error:
        raise PolicyUnavailableError(
            f"policy {name!r} cannot be loaded: {error}; without a checkpoint there is: {EXPERT}"
        ) from error


def _use_one_thread() -> None:
    """Compute on one thread: sums then do not depend on how many trials run side by side."""
    import_module("torch").set_num_threads(1)
