# SPDX-License-Identifier: Apache-2.0
"""Install the UR5e driver the ament_python way."""

from setuptools import find_packages, setup

NAME = "ur5e_driver"

setup(
    name=NAME,
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    package_data={NAME: ["py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        (f"share/{NAME}/config", ["config/ur5e.yaml"]),
    ],
    install_requires=["numpy"],
    zip_safe=True,
    maintainer="ChatVLA for ROS 2 developers",
    maintainer_email="maintainers@chatvla.example.org",
    description="Driver of the UR5e with a Robotiq gripper, real or simulated.",
    license="Apache-2.0",
    entry_points={"console_scripts": [f"driver_node = {NAME}.driver_node:main"]},
)
