# SPDX-License-Identifier: Apache-2.0
"""Install the fault campaign the ament_python way."""

from setuptools import find_packages, setup

NAME = "chatvla_torture"

setup(
    name=NAME,
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    package_data={NAME: ["py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
    ],
    install_requires=["numpy", "tqdm"],
    zip_safe=True,
    maintainer="ChatVLA for ROS 2 developers",
    maintainer_email="maintainers@chatvla.example.org",
    description="A campaign of faults against the whole suite: what was tried and what held.",
    license="Apache-2.0",
    entry_points={"console_scripts": ["audited_driver_node = chatvla_torture.ros.audited_driver_node:main"]},
)
