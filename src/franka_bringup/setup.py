# SPDX-License-Identifier: Apache-2.0
"""Install the Franka's driver the ament_python way."""

from glob import glob

from setuptools import find_packages, setup

NAME = "chatvla_franka_bringup"

setup(
    name=NAME,
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    package_data={NAME: ["py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        (f"share/{NAME}/config", sorted(glob("config/*.yaml"))),
    ],
    install_requires=["numpy"],
    zip_safe=True,
    maintainer="ChatVLA for ROS 2 developers",
    maintainer_email="maintainers@chatvla.example.org",
    description="Driver of the Franka Emika Panda with a Robotiq gripper: simulator, ros2_control and MoveIt.",
    license="Apache-2.0",
    entry_points={"console_scripts": [f"driver_node = {NAME}.driver_node:main", f"plan_node = {NAME}.plan_node:main"]},
)
