# SPDX-License-Identifier: Apache-2.0
"""Build the MuJoCo model of one toy scene: table, rack, objects, one arm, right-side camera. Units m, kg, rad."""

from __future__ import annotations

import mujoco
import numpy as np

from chatvla_control.robot_spec import RobotSpec
from chatvla_sim.arms.panda import panda_actuators_xml, panda_body_xml
from chatvla_sim.camera import PinholeCamera
from chatvla_sim.toy_placement.kinds import KINDS
from chatvla_sim.toy_placement.layout import Place, standing_pose
from chatvla_sim.toy_placement.objects import COLOURS, kind_of
from chatvla_sim.toy_placement.rack import (
    DECK_M,
    DECK_THICK_M,
    DECK_TOP_M,
    LEG_M,
    RACK_SIZE_M,
    TRAY_FRONT_M,
    TRAY_TOP_M,
    leg_places,
)
from chatvla_sim.toy_placement.shapes import Kind, Part
from chatvla_sim.toy_placement.trial import Look, Trial

__all__ = ["RIGHT_CAMERA", "TIME_STEP_S", "build_model", "set_camera", "trial_camera"]

TIME_STEP_S = 0.002
LAMP = 0.45
"""Brightness of the lamp at `Look.light` 1, no unit."""
RIGHT_CAMERA = PinholeCamera(position=(0.95, -0.56, 0.66), target=(0.53, 0.01, 0.07), fovy_deg=38.0)
"""On the robot's right, in front of it, looking back across the table."""
OTHER_COLOURS = {
    "black": (0.07, 0.07, 0.08),
    "brown": (0.36, 0.21, 0.10),
    "cream": (0.90, 0.82, 0.66),
    "glass": (0.55, 0.78, 0.90),
    "leaf": (0.16, 0.42, 0.12),
    "orange": (0.95, 0.42, 0.04),
    "steel": (0.62, 0.64, 0.67),
    "white": (0.93, 0.93, 0.92),
}
"""Colours of parts that are not the object's own colour."""
HEAD = f"""
<mujoco model="toy_placement">
  <compiler angle="radian" eulerseq="xyz" autolimits="true"/>
  <option timestep="{TIME_STEP_S}" integrator="implicitfast" cone="elliptic" impratio="10" jacobian="dense"/>
  <size memory="16M"/>
  <visual>
    <headlight ambient=".42 .42 .42" diffuse=".28 .28 .28" specular="0 0 0"/>
    <quality shadowsize="512" offsamples="0"/>
    <map znear=".05" zfar="20" shadowclip="1"/>
    <global offwidth="960" offheight="720"/>
  </visual>
  <default>
    <geom contype="1" conaffinity="3" friction=".7 .01 .001" solref=".006 1"/>
    <!-- The arm touches everything but itself. -->
    <default class="arm"><geom contype="2" conaffinity="0" friction=".4 .01 .001"/></default>
    <default class="core"><geom type="box" condim="4" rgba="0 0 0 0" group="3"/></default>
    <default class="visual"><geom contype="0" conaffinity="0" mass="0" group="1"/></default>
  </default>
  <asset>
    <texture name="sky" type="skybox" builtin="gradient" rgb1=".75 .8 .86" rgb2=".45 .5 .56" width="64" height="64"/>
    <material name="wood" rgba=".72 .55 .36 1" specular=".1"/>
    <material name="tray" rgba=".82 .70 .52 1" specular=".1"/>
  </asset>
"""


def numbers(values: tuple[float, ...] | list[float]) -> str:
    return " ".join(f"{value:.6g}" for value in values)


def part_xml(part: Part, colour: tuple[float, float, float], half_height: float, shade: float) -> str:
    """Return one visible geom of an object whose body's origin is `half_height` above its bottom."""
    rgb = {"main": colour, "shade": tuple(0.45 * c for c in colour)}.get(part.colour) or OTHER_COLOURS[part.colour]
    size = part.size[:2] if part.shape == "cylinder" else part.size
    x, y, z = part.at
    turn = f' euler="{numbers(part.turn)}"' if any(part.turn) else ""
    return (
        f'<geom class="visual" type="{part.shape}" size="{numbers(size)}" pos="{x:.6g} {y:.6g} {z - half_height:.6g}"'
        f'{turn} rgba="{numbers([min(1.0, c * shade) for c in rgb])} 1"/>'
    )


def object_xml(name: str, label: str, kind: Kind, place: Place, shade: float) -> str:
    """Return the free body of one object."""
    pose, half = standing_pose(kind, place), kind.size[2] / 2
    colour = COLOURS[label.partition(" ")[0]]
    volumes = np.array([np.prod(core.size) for core in kind.cores])
    xml = (
        f'<body name="{name}" pos="{numbers(pose[:3, 3].tolist())}" euler="0 0 {place.yaw_rad:.6g}">'
        f'<freejoint name="{name}"/>'
    )
    for core, mass in zip(kind.cores, kind.mass_kg * volumes / volumes.sum(), strict=True):
        x, y, z = core.at
        xml += (
            f'<geom class="core" size="{numbers(core.size)}" pos="{x:.6g} {y:.6g} {z - half:.6g}" mass="{mass:.6g}"/>'
        )
    return xml + "".join(part_xml(part, colour, half, shade) for part in kind.parts) + "</body>"


def rack_xml(middle: tuple[float, float]) -> str:
    """Return the fixed rack whose deck's middle is at `middle` [m]."""
    x, y = middle
    z = DECK_TOP_M - DECK_THICK_M / 2
    legs = (DECK_TOP_M - DECK_THICK_M) / 2
    xml = f'<body name="rack" pos="{x:.6g} {y:.6g} 0">'
    xml += f'<geom type="box" size="{DECK_M[0] / 2} {DECK_M[1] / 2} {DECK_THICK_M / 2}" pos="0 0 {z}" material="wood"/>'
    xml += (
        f'<geom type="box" size="{RACK_SIZE_M[0] / 2} {RACK_SIZE_M[1] / 2} {TRAY_TOP_M / 2}"'
        f' pos="{-TRAY_FRONT_M / 2} 0 {TRAY_TOP_M / 2}" material="tray"/>'
    )
    for leg_x, leg_y in leg_places():
        xml += (
            f'<geom type="box" size="{LEG_M / 2} {LEG_M / 2} {legs}" pos="{leg_x:.6g} {leg_y:.6g} {legs}"'
            ' material="wood"/>'
        )
    return xml + "</body>"


def build_model(spec: RobotSpec, trial: Trial | None) -> mujoco.MjModel:
    """Return the model of `trial`, or of an empty table.

    Bodies and free joints `thing_<k>` in the trial's order; actuators named like the joints of `spec`; cameras
    `right` and `left`, and `wrist` on the hand.
    """
    table = (0.4, 0.38, 0.36) if trial is None else trial.look.table
    light = 1.0 if trial is None else trial.look.light
    direction = (-0.2, 0.2, -1.0) if trial is None else trial.look.light_direction
    xml = (
        HEAD
        + f"""<worldbody>
    <light name="lamp" pos="0.4 0 1.8" dir="{numbers(direction)}" directional="true"
      diffuse="{numbers([LAMP * light] * 3)}" specular=".1 .1 .1"/>
    <camera name="right" pos="0 0 1" mode="fixed"/>
    <camera name="left" pos="0 0 1" mode="fixed"/>
    <geom name="table" type="box" size=".55 .65 .02" pos=".35 0 -.02" rgba="{numbers(table)} 1"/>
    <geom name="floor" type="plane" size="3 3 .1" pos="0 0 -.75" rgba=".62 .62 .6 1"/>
    <geom class="visual" type="box" size=".45 .55 .355" pos=".35 0 -.395" rgba=".3 .3 .32 1"/>"""
    )
    if trial is not None:
        if trial.rack is not None:
            xml += rack_xml(trial.rack)
        for index, thing in enumerate(trial.things):
            xml += object_xml(f"thing_{index}", thing.label, KINDS[kind_of(thing.label)], thing.place, trial.look.shade)
    xml += "".join(panda_body_xml(spec, arm) for arm in spec.arms)
    parts = [panda_actuators_xml(spec, arm) for arm in spec.arms]
    actuators, tendons, equalities = ("".join(part) for part in zip(*parts, strict=True))
    xml += f"</worldbody><actuator>{actuators}</actuator><tendon>{tendons}</tendon>"
    return mujoco.MjModel.from_xml_string(xml + f"<equality>{equalities}</equality></mujoco>")


def trial_camera(look: Look, width: int = 320, height: int = 240, *, left: bool = False) -> PinholeCamera:
    """Return the right camera, or the left, as it stands in a trial that looks like `look`."""
    side = np.array([1.0, -1.0 if left else 1.0, 1.0])
    return PinholeCamera(
        position=tuple((side * RIGHT_CAMERA.position + look.camera_shift_m).tolist()),
        target=tuple((side * RIGHT_CAMERA.target + look.camera_turn_m).tolist()),
        fovy_deg=RIGHT_CAMERA.fovy_deg,
        width=width,
        height=height,
    )


def set_camera(model: mujoco.MjModel, name: str, pinhole: PinholeCamera) -> None:
    """Put the model's camera where `pinhole` is; the model is changed in place."""
    right, down, forward = pinhole.axes
    camera = model.camera(name)
    camera.pos = pinhole.position
    camera.fovy = pinhole.fovy_deg
    mujoco.mju_mat2Quat(camera.quat, np.column_stack([right, -down, -forward]).flatten())
