# SPDX-License-Identifier: Apache-2.0
"""Install the simulated benches and their nodes."""

from setuptools import find_packages, setup

PACKAGE = "chatvla_sim"

setup(
    name=PACKAGE,
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    package_data={PACKAGE: ["py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
    ],
    install_requires=["setuptools"],
    zip_safe=False,
    maintainer="ChatVLA for ROS 2 developers",
    maintainer_email="maintainers@chatvla.example.org",
    description="Simulated benches (MuJoCo) with cameras, splits, scene truth and a scripted expert.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "sim_node = chatvla_sim.ros.sim_node:main",
            "expert_node = chatvla_sim.ros.expert_node:main",
        ],
    },
)
