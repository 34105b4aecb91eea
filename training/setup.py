# SPDX-License-Identifier: Apache-2.0
"""Install the training package the ament_python way."""

from setuptools import find_packages, setup

NAME = "chatvla_training"

setup(
    name=NAME,
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    package_data={NAME: ["py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
    ],
    install_requires=[
        "accelerate",
        "numpy",
        "peft",
        "pillow",
        "pyarrow",
        "rosbags",
        "safetensors",
        "torch>=2.11",
        "tqdm",
    ],
    zip_safe=True,
    maintainer="ChatVLA for ROS 2 developers",
    maintainer_email="maintainers@chatvla.example.org",
    description="Demonstrations, data sets and training of ChatVLA-2; needs no ROS.",
    license="Apache-2.0",
    entry_points={"console_scripts": []},
)
