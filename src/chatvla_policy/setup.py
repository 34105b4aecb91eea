# SPDX-License-Identifier: Apache-2.0
"""Install the policy package the ament_python way."""

from setuptools import find_packages, setup

NAME = "chatvla_policy"

setup(
    name=NAME,
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    package_data={NAME: ["py.typed", "checkpoints/**"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
    ],
    install_requires=["numpy", "torch>=2.11", "transformers>=5.17,<6", "safetensors", "tokenizers", "pillow"],
    zip_safe=False,
    maintainer="ChatVLA for ROS 2 developers",
    maintainer_email="maintainers@chatvla.example.org",
    description="The ChatVLA-2 model: Qwen2-VL with a mixture of experts, action expert and reasoning-following.",
    license="Apache-2.0",
    entry_points={"console_scripts": ["policy_node = chatvla_policy.ros.policy_node:main"]},
)
