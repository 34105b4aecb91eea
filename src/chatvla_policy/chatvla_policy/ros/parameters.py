# SPDX-License-Identifier: Apache-2.0
"""The policy node's parameters: type, default, range, description. Those marked live may change while it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from chatvla_control.ros.parameters import declare
from chatvla_policy.runtime.observation_sync import SyncSettings
from chatvla_policy.runtime.scheduler_settings import SchedulerSettings

__all__ = ["READ_WHEN_CONFIGURING", "PolicyParameters"]

REUSES = ("refresh", "draft", "never")
READ_WHEN_CONFIGURING = ("checkpoint", "robot", "device", "statistics_hash", "force")
_VIEW_HEIGHT = "view_height_deg."


class PolicyParameters:
    """Declares on construction; reads the present values."""

    def __init__(self, node: Node) -> None:
        """Raises ParameterError with one sentence for a start value that is not allowed."""
        self._node = node
        declare(node, "checkpoint", "", "Folder or name of the checkpoint; read when configuring.", read_only=False)
        declare(node, "robot", "", "Robot of the checkpoint; empty takes its first.", read_only=False)
        declare(node, "device", "cpu", "Where the model runs: cpu, cuda or cuda:N.", read_only=False)
        declare(
            node,
            "statistics_hash",
            "",
            "SHA-256 that the checkpoint's statistics must have, lower-case hex; empty takes any.",
            read_only=False,
        )
        self.autostart = declare(node, "autostart", True, "Configure and activate without being told to.")
        self.threads = declare(node, "threads", 1, "Threads of one torch operation, count.", low=1, high=64)
        self.seed = declare(node, "seed", 0, "Seed of each instruction's noise and ids.", low=0, high=2**31)
        self.timeout_s = declare(
            node, "timeout_s", 60.0, "Time-out of a goal that gives none, s.", low=1.0, high=3600.0
        )
        self.patience_s = declare(
            node, "patience_s", 5.0, "End a goal when inputs or driver fail for this long, s.", low=0.1, high=60.0
        )
        self.graph_wait_s = declare(
            node, "graph_wait_s", 3.0, "Wait for cameras and joints when configuring, s.", low=0.1, high=60.0
        )
        self.judge_after_rest_s = declare(
            node,
            "judge_after_rest_s",
            0.0,
            "Ask the model whether the task is done after the robot rested this long, s; 0 never asks.",
            low=0.0,
            high=60.0,
        )
        self.sync = SyncSettings(
            slop_s=declare(node, "slop_s", 0.05, "Largest time between parts taken together, s.", low=0.001, high=1.0),
            max_age_s=declare(node, "max_age_s", 0.5, "Oldest image and joints to act on, s.", low=0.02, high=5.0),
            frozen_after_s=declare(
                node,
                "frozen_after_s",
                2.0,
                "A picture equal to the last bit for this long while joints move is frozen, s; 0 takes any.",
                low=0.0,
                high=60.0,
            ),
        )
        declare(
            node,
            "force",
            "",
            "Text to act on from the start on, until override_reasoning releases it; empty: the policy's own.",
            read_only=False,
        )
        declare(node, "temperature", 0.0, "Of sampling text; 0 takes likeliest.", low=0.0, high=2.0, read_only=False)
        declare(
            node,
            "reason_every_s",
            10.0,
            "Write a new text after this long, s; maybe sooner.",
            low=0.0,
            high=60.0,
            read_only=False,
        )
        declare(
            node,
            "reuse",
            "refresh",
            "What happens to a text until then.",
            choices=REUSES,
            read_only=False,
        )
        declare(
            node, "denoise_steps", 0, "Denoising steps; 0 takes the checkpoint's.", low=0, high=100, read_only=False
        )
        declare(node, "chunk_period_s", 0.5, "Time between chunks, s.", low=0.02, high=5.0, read_only=False)
        declare(
            node,
            "scene_change",
            0.01,
            "Share of the image that must differ, the robot as before, for a new text before its time; above 1 never.",
            low=0.0,
            high=1.1,
            read_only=False,
        )
        declare(node, "chunking", True, "Keep what is played during inference (real-time chunking).", read_only=False)
        declare(
            node, "overlay_rate_hz", 5.0, "Rate of the overlay, Hz; 0 draws none.", low=0.0, high=30.0, read_only=False
        )

    def value(self, name: str) -> Any:
        """Return the present value of a parameter."""
        return self._node.get_parameter(name).value

    def view_height_deg(self, view: str) -> float:
        """Return how much of a camera's image is taken, as an angle; 0 takes its whole height.

        The views are known with the checkpoint: the first call declares the parameter. Raises ParameterError.
        """
        name = _VIEW_HEIGHT + view
        if not self._node.has_parameter(name):
            what = f"Height of the part that is taken of camera {view}'s images, degrees by camera_info; 0 takes all."
            declare(self._node, name, 0.0, what, low=0.0, high=170.0, read_only=False)
        return self.value(name)

    def scheduler(self) -> SchedulerSettings:
        """Return the scheduler's settings as of now."""
        return SchedulerSettings(
            chunk_period_s=self.value("chunk_period_s"),
            scene_change=self.value("scene_change"),
            chunking=self.value("chunking"),
        )

    def tuned(self, settings: Any) -> Any:
        """Return a policy's settings with the present values; a policy without such settings keeps its own."""
        if not hasattr(settings, "reuse"):
            return settings
        steps = self.value("denoise_steps")
        return replace(
            settings,
            sampling=replace(settings.sampling, temperature=self.value("temperature")),
            denoise_steps=steps or None,
            reuse=type(settings.reuse)(self.value("reuse")),
            reason_every_s=min(self.value("reason_every_s"), settings.longest_text_s),
        )

    def refusal(self, parameters: Sequence[Parameter], *, unconfigured: bool) -> SetParametersResult:
        """Return whether a change is allowed, and why not."""
        for parameter in parameters:
            if parameter.name == "reuse" and parameter.value not in REUSES:
                reason = f"reuse is {parameter.value!r}, expected one of: {', '.join(REUSES)}"
                return SetParametersResult(successful=False, reason=reason)
            early = parameter.name in READ_WHEN_CONFIGURING or parameter.name.startswith(_VIEW_HEIGHT)
            if early and not unconfigured:
                reason = f"{parameter.name} is read when configuring; clean the node up first"
                return SetParametersResult(successful=False, reason=reason)
        return SetParametersResult(successful=True)
