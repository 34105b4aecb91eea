# SPDX-License-Identifier: Apache-2.0
"""Build the MuJoCo model of the math bench: table, board with lip, cards, two arms, top camera. Units m, kg, rad."""

from __future__ import annotations

import mujoco
import numpy as np

from chatvla_control.robot_spec import RobotSpec
from chatvla_sim.arms.x5 import arm_actuators_xml, arm_body_xml
from chatvla_sim.math_match.geometry import (
    ARM_BASES,
    BOARD_LIP_Z_M,
    BOARD_SIZE_M,
    CARD_SIZE_M,
    LIP_HEIGHT_M,
    MAX_CARDS,
    board_pose,
)
from chatvla_sim.math_match.textures import BOARD_TEXTURE, CARD_TEXTURE

__all__ = ["TIME_STEP_S", "build_model", "spare_position"]

TIME_STEP_S = 0.002
CARD_MASS_KG = 0.040
FACE_HALF_M = 0.0004

HEAD = f"""
<mujoco model="math_match">
  <compiler angle="radian" autolimits="true"/>
  <option timestep="{TIME_STEP_S}" integrator="implicitfast" cone="elliptic" impratio="10" jacobian="dense"/>
  <size memory="16M"/>
  <visual>
    <headlight ambient=".45 .45 .45" diffuse=".22 .22 .22" specular="0 0 0"/>
    <quality shadowsize="512" offsamples="0"/>
    <map znear=".05" zfar="20" shadowclip="1"/>
    <global offwidth="960" offheight="720"/>
  </visual>
  <default>
    <geom contype="1" conaffinity="7" friction=".6 .01 .001" solref=".006 1"/>
    <!-- An arm touches everything but itself. -->
    <default class="left"><geom contype="2" conaffinity="4" friction=".4 .01 .001"/></default>
    <default class="right"><geom contype="4" conaffinity="2" friction=".4 .01 .001"/></default>
    <default class="visual"><geom contype="0" conaffinity="0" group="1"/></default>
  </default>
"""


def spare_position(index: int) -> tuple[float, float, float]:
    """Where card `index` lies while a trial does not use it: behind the robot, out of the camera's view."""
    return (-0.35, -0.2 + 0.1 * index, CARD_SIZE_M[2] / 2)


def assets_xml() -> str:
    textures = [("board", BOARD_TEXTURE)] + [(f"card_{i}", CARD_TEXTURE) for i in range(MAX_CARDS)]
    xml = '<texture name="sky" type="skybox" builtin="gradient" rgb1=".75 .8 .86"'
    xml += ' rgb2=".45 .5 .56" width="64" height="64"/>'
    for name, (width, height) in textures:
        xml += f'<texture name="{name}" type="2d" builtin="flat" rgb1="1 1 1" width="{width}" height="{height}"/>'
        xml += f'<material name="{name}" texture="{name}" texuniform="false" texrepeat="1 1" specular="0.05"/>'
    return xml


def board_xml() -> str:
    pose = board_pose()
    quaternion = np.zeros(4)
    mujoco.mju_mat2Quat(quaternion, pose[:3, :3].flatten())
    width, length = BOARD_SIZE_M
    numbers = " ".join(f"{v:.6g}" for v in quaternion)
    x, y, z = pose[:3, 3]
    return f"""
    <body name="board" pos="{x:.6g} {y:.6g} {z:.6g}" quat="{numbers}">
      <geom name="board" type="box" size="{width / 2} {length / 2} .006" pos="0 {length / 2} -.006" friction=".4 .01
        .001"
        rgba=".9 .9 .9 1"/>
      <geom name="board_face" class="visual" type="box" size="{width / 2} {length / 2} {FACE_HALF_M}" pos="0 {
        length / 2
    } 0"
        material="board"/>
      <geom name="lip" type="box" size="{width / 2} .005 {(LIP_HEIGHT_M + 0.012) / 2}"
        pos="0 -.005 {(LIP_HEIGHT_M - 0.012) / 2}" friction=".4 .01 .001" rgba=".55 .57 .6 1"/>
    </body>
    <geom class="visual" type="box" size=".006 .02 .055" pos="{x + 0.125:.4g} .19 .055" rgba=".4 .42 .45 1"/>
    <geom class="visual" type="box" size=".006 .02 .055" pos="{x + 0.125:.4g} -.19 .055" rgba=".4 .42 .45 1"/>
    <geom type="box" size=".008 .22 {BOARD_LIP_Z_M / 2}" pos="{x:.4g} 0 {BOARD_LIP_Z_M / 2}" rgba=".4 .42 .45 1"/>"""


def card_xml(index: int) -> str:
    x, y, z = (edge / 2 for edge in CARD_SIZE_M)
    px, py, pz = spare_position(index)
    return f"""
    <body name="card_{index}" pos="{px:.4g} {py:.4g} {pz:.4g}">
      <freejoint name="card_{index}"/>
      <geom name="card_{index}" type="box" size="{x} {y} {z}" mass="{CARD_MASS_KG}" condim="4" friction=".5 .01 .001"/>
      <geom name="card_{index}_face" class="visual" type="box" size="{x - 0.0008} {y - 0.0008} {FACE_HALF_M}" pos="0 0
        {z}"
        material="card_{index}" mass="0"/>
    </body>"""


def build_model(spec: RobotSpec) -> mujoco.MjModel:
    """Return the model. Bodies and free joints `card_<k>`; actuators named like the joints of `spec`; camera `top`."""
    parts = [arm_actuators_xml(spec, arm) for arm in spec.arms]
    xml = HEAD + f"<asset>{assets_xml()}</asset><worldbody>"
    xml += """
    <light name="lamp" pos="0.1 0 1.6" dir=".2 0 -1" directional="true" diffuse=".4 .4 .4" specular=".1 .1 .1"/>
    <camera name="top" pos="0 0 1" mode="fixed"/>
    <geom name="table" type="box" size=".6 .75 .02" pos=".15 0 -.02" rgba=".4 .4 .4 1"/>
    <geom name="floor" type="plane" size="3 3 .1" pos="0 0 -.75" rgba=".62 .62 .6 1"/>
    <geom class="visual" type="box" size=".5 .65 .355" pos=".15 0 -.395" rgba=".3 .3 .32 1"/>"""
    xml += board_xml()
    xml += "".join(card_xml(index) for index in range(MAX_CARDS))
    xml += "".join(arm_body_xml(spec, arm, ARM_BASES[arm.name]) for arm in spec.arms)
    actuators, tendons, equalities = ("".join(part) for part in zip(*parts, strict=True))
    xml += f"</worldbody><actuator>{actuators}</actuator><tendon>{tendons}</tendon>"
    xml += f"<equality>{equalities}</equality></mujoco>"
    return mujoco.MjModel.from_xml_string(xml)
