# SPDX-License-Identifier: Apache-2.0
from setuptools import find_packages, setup

package_name = "chatvla_cli"

setup(
    name=package_name,
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    package_data={package_name: ["py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{package_name}"]),
        (f"share/{package_name}", ["package.xml"]),
    ],
    install_requires=["setuptools"],
    zip_safe=False,
    maintainer="ChatVLA for ROS 2 developers",
    maintainer_email="maintainers@chatvla.example.org",
    description="Entry point of ChatVLA for ROS 2: environment, verbs, launch graphs without ROS's own launch.",
    license="Apache-2.0",
    entry_points={"console_scripts": ["chatvla = chatvla_cli.main:main"]},
)
