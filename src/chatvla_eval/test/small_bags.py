# SPDX-License-Identifier: Apache-2.0
"""Bags of two seconds, made by hand: recorded texts, truths and a rollout's marks."""

import json
from dataclasses import asdict, replace

import numpy as np
from rclpy.serialization import serialize_message
from std_msgs.msg import String

from chatvla_control.arm_port import JointState
from chatvla_control.contracts import Reasoning, ReasoningSource
from chatvla_control.robot_spec import robot_spec
from chatvla_control.ros.convert import joint_state_to_msg, reasoning_to_msg
from chatvla_control.ros.convert_scene import scene_truth_to_msg
from chatvla_control.ros.images import image_to_msg
from chatvla_eval.bags.bag_writer import BagWriter
from chatvla_eval.bags.message_types import MessageTypes
from chatvla_eval.bags.metadata import TopicInfo
from chatvla_eval.bags.topics import TRIAL_TOPIC
from chatvla_eval.cli import main
from chatvla_eval.tasks.example_scene import GOOD_TEXT, scene

SPEC = robot_spec("arx_r5")
START_S = 1_700_000_000.0
KINDS = {
    "reasoning": "chatvla_msgs/msg/Reasoning",
    "joint_states": "sensor_msgs/msg/JointState",
    "sim/bench_state": "chatvla_msgs/msg/BenchState",
    "camera/top/image_raw": "sensor_msgs/msg/Image",
    TRIAL_TOPIC: "std_msgs/msg/String",
}


def write_bag(folder, *, texts=((0.5, GOOD_TEXT),), truths=(), marks=(), robot=False, source=ReasoningSource.GENERATED):
    """Write a bag of two seconds; `robot` adds camera and joints."""
    writer = BagWriter(folder, MessageTypes())
    for name, kind in KINDS.items():
        writer.add_topic(TopicInfo(name=f"/chatvla/{name}", msgtype=kind))
    messages = []
    for after_s, text in texts:
        reasoning = Reasoning(id="r", text=text, stamp_s=START_S + after_s, source=source, policy="tiny")
        messages.append((after_s, "reasoning", reasoning_to_msg(reasoning)))
    for truth in truths:
        messages.append((truth.stamp_s - START_S, "sim/bench_state", scene_truth_to_msg(truth, real_time_factor=1.0)))
    messages += [(after_s, TRIAL_TOPIC, String(data=json.dumps(mark))) for after_s, mark in marks]
    rng, still = np.random.default_rng(0), np.zeros(SPEC.width)
    for tick in range(100 if robot else 0):
        after_s = 0.02 * (tick + 1)
        state = JointState(positions=np.array(SPEC.home), velocities=still, efforts=still, stamp_s=START_S + after_s)
        messages.append((after_s, "joint_states", joint_state_to_msg(SPEC.joint_names, state)))
        if tick % 2 == 0:
            image = rng.integers(0, 255, (48, 64, 3), np.uint8)
            messages.append((after_s, "camera/top/image_raw", image_to_msg(image, START_S + after_s, "camera")))
    for after_s, name, message in sorted(messages, key=lambda item: item[0]):
        writer.write(f"/chatvla/{name}", round((START_S + after_s) * 1e9), serialize_message(message))
    writer.close()
    return folder


def scored(out, *bags, more=()):
    code = main(["--bag", *map(str, bags), "--out", str(out), *more])
    return code, json.loads((out / "results.json").read_text()) if code == 0 else {}


def rollouts(*setups, task="math_match"):
    """Return truths, texts and marks of trials of half a second, as a rollout of each of `setups` leaves them."""
    truths, texts, marks = [], [], []
    for number, setup in enumerate(setups):
        from_s = 0.1 + 0.6 * number
        seen = scene(trial=number, seed=setup.seed, split=setup.split, swap=setup.swap, task=task)
        truths += [replace(seen, stamp_s=START_S + from_s + part) for part in (0.0, 0.25, 0.5)]
        texts.append((from_s + 0.2, setup.forced_reasoning or GOOD_TEXT))
        mark = {"event": "begin", "setup": asdict(setup), "trial": number, "stamp_s": START_S + from_s}
        end = {"event": "end", "stamp_s": START_S + from_s + 0.5, "elapsed_s": 0.5, "texts": 1, "timed_out": True}
        marks += [(from_s, mark), (from_s + 0.5, mark | end)]
    return {"truths": truths, "texts": texts, "marks": marks}
