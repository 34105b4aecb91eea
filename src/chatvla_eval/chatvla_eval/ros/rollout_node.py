# SPDX-License-Identifier: Apache-2.0
"""Evaluate whatever policy is launched, through ROS and in real time; write results.json after every trial.

A trial in which a node falls silent, goes away or is restarted ends with that as its cause; the next one waits until
all parts are there again, each once. The beginning of a trial is tried anew for as long as the run waits for nodes.

Exit code: 0 when all trials ran, whatever their scores; 1 on an error; 130 when told to stop.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import rclpy
from rclpy.exceptions import ParameterException
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import try_shutdown

from chatvla_control.robot_spec import robot_spec
from chatvla_control.ros.parameters import declare
from chatvla_control.ros.spin import spin_until, stop_on_signals
from chatvla_eval.demonstrations import DEMONSTRATION_WARNING
from chatvla_eval.film import TrialFilm
from chatvla_eval.policies import EXPERT, policy_name, system_name
from chatvla_eval.results import RunInfo, results_dict, source_commit, write_results
from chatvla_eval.ros.graph_wait import GraphCrowdedError, GraphIncompleteError, wait_for_parts
from chatvla_eval.ros.ros_session import RosSession, RosSessionError, StoppedError
from chatvla_eval.session import TrialSettings, TrialSetup
from chatvla_eval.summary_table import summary_table, trial_line
from chatvla_eval.tasks import TASKS, Task, task_by_name
from chatvla_eval.trial import run_trial, trial_seed
from chatvla_eval.trial_result import TrialResult
from chatvla_sim.benches import bench_robot

__all__ = ["RolloutSettings", "main"]

STOPPED = 130
_SPLITS = tuple(sorted({split for task in TASKS.values() for split in task.splits}))


@dataclass(frozen=True, kw_only=True)
class RolloutSettings:
    """The parameters of the node."""

    task: str
    trials: int
    split: str
    seed: int
    out: Path
    policy: str
    robot: str
    view: str
    swap: bool
    force: str
    timeout_s: float
    wait_s: float

    @classmethod
    def declare(cls, node: Node) -> RolloutSettings:
        """Declare the parameters on `node` and return their values. Raises ParameterError."""
        task = declare(node, "task", "math_match", "Task to evaluate.", choices=sorted(TASKS))
        policy = declare(node, "policy", EXPERT, "Name of the policy that is launched: a checkpoint, or expert.")
        split = declare(node, "split", "open_world", "Split to draw trials from.", choices=_SPLITS)
        seed = declare(node, "seed", 100, "Seed of the run; the same seed gives the same trials.", low=0, high=10**12)
        out = declare(
            node,
            "out",
            "",
            "Folder for results.json and the film; empty for one under runs/eval named by what is asked.",
        )
        swap = declare(node, "swap", False, "Permute the cards against the same seeds.")
        force = declare(node, "force", "", "Reasoning to act on instead of the policy's own; empty for its own.")
        name = "_".join(
            [task, policy_name(policy), split, str(seed), *["swap"] * swap, *["force"] * bool(force), "ros"]
        )
        return cls(
            task=task,
            trials=declare(node, "trials", 10, "Number of trials, count.", low=1, high=99_999),
            split=split,
            seed=seed,
            out=Path(out) if out else Path("runs") / "eval" / name,
            policy=policy,
            robot=declare(node, "robot", "", "Robot the bench holds, a RobotSpec name; empty: the bench's own.")
            or bench_robot(task),
            view=declare(node, "view", "top", "Camera whose pictures the film shows, a view of the bench."),
            swap=swap,
            force=force,
            timeout_s=declare(node, "timeout", TASKS[task].timeout_s, "Longest trial, s.", low=1.0, high=600.0),
            wait_s=declare(node, "wait", 60.0, "Longest wait for the other nodes, s.", low=1.0, high=3600.0),
        )


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until all trials ran, an error, or SIGINT or SIGTERM; return the exit code."""
    rclpy.init(args=None if args is None else list(args), signal_handler_options=SignalHandlerOptions.NO)
    stopped = stop_on_signals()
    node = Node("rollout")
    # A hostile or broken message from another node must not end the run: it is reported, and waits have their limits.
    spinner = threading.Thread(target=spin_until, args=(node, stopped), daemon=True)
    session: RosSession | None = None
    try:
        settings = RolloutSettings.declare(node)
        session = RosSession(
            node, robot_spec(settings.robot), policy=settings.policy, view=settings.view, stopped=stopped
        )
        spinner.start()
        return _evaluate(session, settings, stopped)
    except StoppedError:
        return STOPPED
    except (GraphCrowdedError, GraphIncompleteError, RosSessionError, ParameterException, ValueError, OSError) as error:
        print(f"rollout: {error}", file=sys.stderr, flush=True)
        return 1
    finally:
        stopped.set()
        if spinner.is_alive():
            spinner.join(timeout=2.0)
        if session is not None:
            session.destroy()
        node.destroy_node()
        try_shutdown()


def _evaluate(session: RosSession, settings: RolloutSettings, stopped: threading.Event) -> int:
    if _info(session, settings).on_demonstrations():
        _say(f"rollout: {DEMONSTRATION_WARNING}")
    _wait_for_parts(session, settings, stopped)
    task = task_by_name(settings.task)
    info = _info(session, settings)
    results: list[TrialResult] = []
    try:
        for index in range(settings.trials):
            result = _trial(session, task, settings, index, stopped)
            results.append(result)
            name = session.policy_name
            # Only the one that was asked for can be looked up by its folder.
            system = system_name(settings.policy if name == policy_name(settings.policy) else name)
            info = replace(info, policy=name, system=system, privileged=session.privileged)
            write_results(settings.out, info, results)
            _say(trial_line(result.to_dict(), number=index + 1, count=settings.trials, measures=task.measures))
    finally:
        session.close()
        if results:
            _say(summary_table(results_dict(info, results)))
            _say(f"  results   {settings.out / 'results.json'}")
    return 0


def _wait_for_parts(session: RosSession, settings: RolloutSettings, stopped: threading.Event) -> None:
    """Raises GraphIncompleteError, and StoppedError when told to stop."""
    if not wait_for_parts(session.parts(), timeout_s=settings.wait_s, report=_say, stopped=stopped.is_set):
        raise StoppedError("stopped while waiting for other nodes")


def _trial(
    session: RosSession, task: Task, settings: RolloutSettings, index: int, stopped: threading.Event
) -> TrialResult:
    """Return the result of trial `index`.

    Raises RosSessionError when it cannot begin within `settings.wait_s`, and GraphCrowdedError.
    """
    setup = TrialSetup(
        index=index,
        split=settings.split,
        seed=trial_seed(settings.seed, index),
        swap=settings.swap,
        forced_reasoning=settings.force,
    )
    limits = TrialSettings(timeout_s=settings.timeout_s)
    until_s = time.monotonic() + settings.wait_s
    while True:
        _wait_for_parts(session, settings, stopped)
        session.check_alone()
        film = TrialFilm() if index == 0 else None
        try:
            result = run_trial(session, task, setup, settings=limits, on_frame=film.add if film else None)
        except RosSessionError as error:
            if time.monotonic() > until_s:
                raise
            session.close()
            _say(f"trial {index + 1} did not begin: {error}; trying it again")
            continue
        if film is not None:
            film.write(settings.out, f"trial_{index:03d}", result, session.policy_name)
        return result


def _info(session: RosSession, settings: RolloutSettings) -> RunInfo:
    return RunInfo(
        task=settings.task,
        split=settings.split,
        seed=settings.seed,
        trials=settings.trials,
        policy=session.policy_name,
        privileged=session.privileged,
        simulation=session.simulation,
        swap=settings.swap,
        forced_reasoning=settings.force,
        transport="ros",
        commit=source_commit(),
    )


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
