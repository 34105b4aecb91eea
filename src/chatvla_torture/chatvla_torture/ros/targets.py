# SPDX-License-Identifier: Apache-2.0
"""Topics, services and actions to attack: each makes a sound message, spoils it and sends it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rcl_interfaces.msg import Parameter, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.action.client import ActionClient
from rclpy.qos import DurabilityPolicy, QoSProfile
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger

from chatvla_control.contracts import ActionChunk, ActionMode
from chatvla_control.robot_spec import robot_spec
from chatvla_control.ros.convert import action_chunk_to_msg
from chatvla_control.ros.images import image_to_msg
from chatvla_msgs.action import FollowInstruction
from chatvla_msgs.msg import BenchObject, BenchState, Reasoning
from chatvla_msgs.srv import Ask, OverrideReasoning, ResetBench
from chatvla_torture.files.texts import hostile_text
from chatvla_torture.ros.mutate import mutate, raw_bytes
from chatvla_torture.ros.rig import NAMESPACE, Rig

__all__ = ["SPEC", "Target", "actions", "services", "sound_chunk", "topics"]

SPEC = robot_spec("arx_r5")
_MOST_WAITING = 8
_PATIENCE_S = 2.0
_PARAMETERS = ("port", "rate_hz", "camera_rate_hz", "checkpoint", "tool_speed_m_s", "max_age_s", "", "x\x00y")
Maker = Callable[[Rig, np.random.Generator], Any]


def sound_chunk(rig: Rig, random: np.random.Generator, *, now_s: float | None = None) -> ActionChunk:
    """Return a chunk that the driver takes: a slow wave about where the arms are commanded now."""
    now_s = rig.now_s() if now_s is None else now_s
    positions = rig.commanded if rig.commanded is not None else np.array(SPEC.home)
    steps = np.arange(50)[:, None] * 0.02
    reach = 0.01 * (SPEC.upper - SPEC.lower)
    rows = positions + reach * np.sin(steps * random.uniform(0.5, 2.0, SPEC.width))
    return ActionChunk(
        id=f"sound-{random.integers(10**9)}",
        actions=np.clip(rows, SPEC.lower, SPEC.upper),
        joint_names=SPEC.joint_names,
        robot=SPEC.name,
        mode=ActionMode.JOINT_POSITION,
        stamp_s=now_s,
        start_s=now_s,
        step_period_s=0.02,
        valid_until_s=now_s + 1.0,
        policy="torture",
    )


def _stamp(rig: Rig) -> Time:
    return rig.node.get_clock().now().to_msg()


def _chunk(rig: Rig, random: np.random.Generator) -> Any:
    return action_chunk_to_msg(sound_chunk(rig, random))


def _joints(rig: Rig, random: np.random.Generator) -> Any:
    positions = rig.commanded if rig.commanded is not None else np.array(SPEC.home)
    msg = JointState(name=list(SPEC.joint_names), position=positions.tolist(), velocity=[0.0] * SPEC.width)
    msg.header.stamp = _stamp(rig)
    return msg


def _image(rig: Rig, random: np.random.Generator) -> Any:
    size = (240, 320, 3) if random.random() < 0.1 else (12, 16, 3)
    encoding = str(random.choice(["rgb8", "bgr8", "mono8", "bgra8"]))
    pixels = random.integers(0, 255, size, np.uint8)
    return image_to_msg(pixels, rig.now_s(), "camera", encoding)


def _diagnostics(rig: Rig, random: np.random.Generator) -> Any:
    values = {"accepted": "3", "refused.jump": "2", "last_refusal": "jump: far", "phase": "playing"}
    status = DiagnosticStatus(
        name=str(random.choice(["/elsewhere/driver: arm", f"/{NAMESPACE}/another_driver: arm"])),
        hardware_id=str(random.choice([SPEC.name, "", "other"])),
        level=bytes([int(random.integers(0, 4))]),
        message="",
        values=[KeyValue(key=key, value=value) for key, value in values.items()],
    )
    return DiagnosticArray(status=[status])


def _bench(rig: Rig, random: np.random.Generator) -> Any:
    items = [BenchObject(name=f"card{k}", label=str(k), role="card", place="left") for k in range(3)]
    msg = BenchState(task="math_match", split="in_domain", phase=1, instruction="Pick the card.", objects=items)
    msg.header.stamp = _stamp(rig)
    return msg


def _reasoning(rig: Rig, random: np.random.Generator) -> Any:
    msg = Reasoning(id="1", policy="torture", text=hostile_text(random)[:3000], source=int(random.integers(0, 6)))
    msg.header.stamp = _stamp(rig)
    return msg


def _clock(rig: Rig, random: np.random.Generator) -> Any:
    """Return a clock that mostly runs on, and now and then jumps both ways, by up to decades."""
    state = rig.__dict__.setdefault("clock_s", 1.7e9)
    if random.random() < 0.02:
        jump_s = float(random.choice([-1e9, -3600.0, -1.0, -0.2, 0.2, 1.0, 3600.0, 3e8]))
        state = min(max(state + jump_s, 0.0), 2.1e9)
    state += 0.001
    rig.clock_s = state  # type: ignore[attr-defined]
    return Clock(clock=Time(sec=int(state), nanosec=int((state % 1.0) * 1e9) % 10**9))


@dataclass(kw_only=True)
class Target:
    """One thing to send to, and what came of it."""

    name: str
    send: Callable[[np.random.Generator], bool]
    """Sends one and returns True, or False when too many calls wait for their answers."""
    sent: int = 0
    given_up: int = 0
    """Calls without an answer: rclpy gives none where a request breaks its own handler."""
    waiting: list[tuple[float, Any]] = field(default_factory=list)
    stop: Callable[[], None] = lambda: None
    """Leaves the topic."""

    def room(self) -> bool:
        """Forget calls that were answered or given up; return whether another one may wait."""
        now_s = time.monotonic()
        open_calls = [(at_s, future) for at_s, future in self.waiting if not future.done()]
        self.waiting[:] = [(at_s, future) for at_s, future in open_calls if now_s - at_s < _PATIENCE_S]
        self.given_up += len(open_calls) - len(self.waiting)
        return len(self.waiting) < _MOST_WAITING


def _table() -> dict[str, tuple[Any, Maker]]:
    from chatvla_msgs.msg import ActionChunk as ActionChunkMsg

    return {
        "action_chunk": (ActionChunkMsg, _chunk),
        "sim/joint_states": (JointState, _joints),
        "sim/joint_command": (JointState, _joints),
        "joint_states": (JointState, _joints),
        "sim/bench_state": (BenchState, _bench),
        "/diagnostics": (DiagnosticArray, _diagnostics),
        "camera/top/image_raw": (Image, _image),
        "instruction": (String, lambda rig, random: String(data=hostile_text(random))),
        "reasoning": (Reasoning, _reasoning),
        "/clock": (Clock, _clock),
    }


def topics(rig: Rig, names: tuple[str, ...], *, sound: float = 0.1, raw: float = 0.1) -> list[Target]:
    """Return targets for topics: a share `sound` goes out unspoilt, a share `raw` as broken bytes."""
    return [_topic(rig, name, *_table()[name], sound=sound, raw=raw) for name in names]


def _topic(rig: Rig, name: str, kind: Any, make: Maker, *, sound: float, raw: float) -> Target:
    # Latched, so that latched and other subscriptions both hear it.
    qos = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    publisher = rig.node.create_publisher(kind, name, qos)
    last: list[Any] = []

    def send(random: np.random.Generator) -> bool:
        message = make(rig, random)
        draw = random.random()
        if name == "/clock" or draw < sound:
            publisher.publish(message)
        elif draw < sound + raw:
            publisher.publish(raw_bytes(message, random))
        elif draw < sound + raw + 0.05 and last:
            publisher.publish(last[0])
        else:
            spoilt = mutate(message, random)
            last[:] = [spoilt]
            publisher.publish(spoilt)
        return True

    return Target(name=name, send=send, stop=lambda: rig.node.destroy_publisher(publisher) and None)


def services(rig: Rig, names: tuple[str, ...]) -> list[Target]:
    """Return targets for services; at most eight calls of one wait for their answers."""
    kinds: dict[str, tuple[Any, Callable[[np.random.Generator], Any]]] = {
        "driver/stop": (Trigger, lambda random: Trigger.Request()),
        "driver/clear_fault": (Trigger, lambda random: Trigger.Request()),
        "sim/reset_bench": (
            ResetBench,
            lambda random: ResetBench.Request(
                # Few that are sound: a new scene takes a quarter of a second.
                split=str(random.choice(["moon", "in_domain\x00", hostile_text(random)[:500]]))
                if random.random() < 0.99
                else "in_domain",
                seed=(0, 2**63, 2**64 - 1, 2**31)[int(random.integers(4))],
            ),
        ),
        "override_reasoning": (
            OverrideReasoning,
            lambda random: OverrideReasoning.Request(
                scope=int(random.integers(0, 256)) if random.random() < 0.3 else int(random.integers(0, 3)),
                text=hostile_text(random),
            ),
        ),
        "ask": (Ask, lambda random: Ask.Request(question=hostile_text(random))),
    }
    return [_service(rig, name, *kinds.get(name, (SetParameters, _parameters))) for name in names]


def _parameters(random: np.random.Generator) -> Any:
    """Return a request that sets one to three parameters, known or not, to values of any type."""
    kinds = (
        ParameterValue(type=1, bool_value=bool(random.integers(2))),
        ParameterValue(type=2, integer_value=int(random.integers(-(2**62), 2**62))),
        ParameterValue(type=3, double_value=float(random.choice([np.nan, np.inf, -1e308, 0.0, 1e9]))),
        ParameterValue(type=4, string_value=hostile_text(random)[:1000]),
        # A type that does not exist breaks rclpy's own handler: it gives no answer.
        ParameterValue(type=int(random.integers(10, 256)) if random.random() < 0.05 else 0),
        ParameterValue(type=8, double_array_value=[float("nan")] * 100),
    )
    # Not use_sim_time, which any node takes at any time: a driver without a clock plays nothing more.
    names = random.choice(_PARAMETERS, int(random.integers(1, 4)))
    return SetParameters.Request(
        parameters=[Parameter(name=str(name), value=kinds[int(random.integers(len(kinds)))]) for name in names]
    )


def _service(rig: Rig, name: str, kind: Any, make: Callable[[np.random.Generator], Any]) -> Target:
    client = rig.node.create_client(kind, name)
    target = Target(name=name, send=lambda random: False)

    def send(random: np.random.Generator) -> bool:
        if not target.room():
            return False
        target.waiting.append((time.monotonic(), client.call_async(make(random))))
        return True

    target.send = send
    return target


def actions(rig: Rig) -> list[Target]:
    """Return the target for follow_instruction: hostile goals, each of which takes the place of the one before."""
    client = ActionClient(rig.node, FollowInstruction, "follow_instruction")
    target = Target(name="follow_instruction", send=lambda random: False)

    def send(random: np.random.Generator) -> bool:
        if not target.room():
            return False
        seconds = float(random.choice([0.0, -1.0, np.nan, np.inf, 1e30, 5.0]))
        goal = FollowInstruction.Goal(instruction=hostile_text(random), timeout_s=min(seconds, 3.4e38))
        target.waiting.append((time.monotonic(), client.send_goal_async(goal)))
        return True

    target.send = send
    return [target]
