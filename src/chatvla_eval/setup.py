# SPDX-License-Identifier: Apache-2.0
"""Install the evaluation package the ament_python way."""

from setuptools import find_packages, setup

NAME = "chatvla_eval"

setup(
    name=NAME,
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    package_data={NAME: ["py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
    ],
    install_requires=["numpy", "pillow", "imageio[ffmpeg]", "markdown-it-py", "pyyaml", "rosbags", "tqdm"],
    zip_safe=True,
    maintainer="ChatVLA for ROS 2 developers",
    maintainer_email="maintainers@chatvla.example.org",
    description="Tasks, scores, rollouts, results and bags of the ChatVLA evaluations.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": ["rollout_node = chatvla_eval.ros.rollout_node:main"],
        "lmms_eval.models": ["chatvla = chatvla_eval.understanding.adapters.lmms_eval:manifest"],
    },
)
