# SPDX-License-Identifier: Apache-2.0
"""Say what a checkpoint knows of each robot it drives: spec, cameras, statistics, how its chunks are meant."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from chatvla_control.contracts import ActionMode
from chatvla_control.robot_spec import RobotSpec
from chatvla_policy.checkpoint.errors import CheckpointError
from chatvla_policy.model.action.config import ActionConfig
from chatvla_policy.processing.statistics import RobotStatistics, StatisticsError
from chatvla_policy.strict_json import StrictJsonError, from_plain

__all__ = ["RobotSetup", "check_expert", "setups_from_plain", "setups_to_plain"]

_VIEW = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")


@dataclass(frozen=True, kw_only=True)
class RobotSetup:
    """One robot of a checkpoint."""

    spec: RobotSpec
    cameras: tuple[str, ...]
    """View names in the order in which the model sees them."""
    statistics: RobotStatistics
    mode: ActionMode = ActionMode.JOINT_POSITION
    step_period_s: float = 0.02

    def __post_init__(self) -> None:
        """Raise CheckpointError when statistics and spec do not belong together."""
        if not self.cameras:
            raise CheckpointError(f"robot {self.spec.name} has no camera; name at least one view")
        strange = next((view for view in self.cameras if not _VIEW.fullmatch(view)), None)
        if strange is not None or len(set(self.cameras)) != len(self.cameras):
            raise CheckpointError(
                f"robot {self.spec.name} has cameras {', '.join(map(repr, self.cameras))!s:.200}; "
                "a view is named once, in letters, digits and _"
            )
        if self.step_period_s <= 0:
            raise CheckpointError(f"step_period_s is {self.step_period_s}, must be positive")
        if self.statistics.state.names != self.spec.joint_names:
            raise CheckpointError(
                f"state statistics name {', '.join(self.statistics.state.names)}; "
                f"robot {self.spec.name} has {', '.join(self.spec.joint_names)}"
            )
        if self.mode is ActionMode.JOINT_POSITION and self.statistics.action.names != self.spec.joint_names:
            raise CheckpointError(
                f"action statistics name {', '.join(self.statistics.action.names)}; "
                f"robot {self.spec.name} has {', '.join(self.spec.joint_names)}"
            )


def check_expert(action: ActionConfig, setups: tuple[RobotSetup, ...]) -> None:
    """Raise CheckpointError when an action expert cannot drive each of the robots over its range."""
    for setup in setups:
        try:
            embodiment = action.embodiment(setup.spec.name)
        except ValueError as error:
            raise CheckpointError(str(error)) from error
        widths = (len(setup.statistics.state.names), len(setup.statistics.action.names))
        if widths != (embodiment.state_width, embodiment.action_width):
            raise CheckpointError(
                f"robot {setup.spec.name} has {widths} state and action values, "
                f"its heads take {(embodiment.state_width, embodiment.action_width)}"
            )
        if action.clip_sample and setup.statistics.action.method == "mean_std":
            raise CheckpointError(
                f"actions of robot {setup.spec.name} are normalised by mean_std and its action expert clips chunks to "
                "[-1, 1], one standard deviation about the mean; train with quantile or min_max, or without clip_sample"
            )


@dataclass(frozen=True, kw_only=True)
class _Chunks:
    """The part of robot_spec.json that is not the spec itself."""

    cameras: tuple[str, ...]
    mode: str
    step_period_s: float


def setups_to_plain(setups: tuple[RobotSetup, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the contents of robot_spec.json and statistics.json, both keyed by robot."""
    specs = {
        setup.spec.name: {
            "spec": setup.spec.to_dict(),
            "chunks": {"cameras": setup.cameras, "mode": setup.mode.name, "step_period_s": setup.step_period_s},
        }
        for setup in setups
    }
    return specs, {setup.spec.name: setup.statistics.to_dict() for setup in setups}


def setups_from_plain(specs: Any, statistics: Any) -> tuple[RobotSetup, ...]:
    """Return what `setups_to_plain` made. Raises CheckpointError naming the first mismatch."""
    if not isinstance(specs, dict) or not isinstance(statistics, dict) or not specs:
        raise CheckpointError("robot_spec.json and statistics.json must name at least one robot")
    if set(specs) != set(statistics):
        raise CheckpointError(f"robot_spec.json names {sorted(specs)}, statistics.json {sorted(statistics)}")
    return tuple(_setup(name, specs[name], statistics[name]) for name in specs)


def _setup(name: str, data: Any, statistics: Any) -> RobotSetup:
    """Return one robot's setup."""
    try:
        if not isinstance(data, dict) or set(data) != {"spec", "chunks"}:
            raise CheckpointError(f"robot_spec.json of {name} must hold spec and chunks")
        spec = RobotSpec.from_dict(data["spec"])
        chunks = from_plain(_Chunks, data["chunks"], where=f"robot_spec.{name}")
        if spec.name != name or chunks.mode not in ActionMode.__members__:
            raise CheckpointError(f"robot_spec.json of {name} has name {spec.name!r} and mode {chunks.mode!r}")
        return RobotSetup(
            spec=spec,
            cameras=chunks.cameras,
            statistics=RobotStatistics.from_dict(statistics),
            mode=ActionMode[chunks.mode],
            step_period_s=chunks.step_period_s,
        )
    except (StrictJsonError, StatisticsError) as error:
        raise CheckpointError(f"robot {name}: {error}") from error
    except ValueError as error:
        raise error if isinstance(error, CheckpointError) else CheckpointError(f"robot {name}: {error}") from error
