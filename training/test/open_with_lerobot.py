# SPDX-License-Identifier: Apache-2.0
"""Open a data set with the real lerobot package and print what it sees in row 12 of episode 1, as JSON."""

import json
import sys
from pathlib import Path

from lerobot.datasets.lerobot_dataset import LeRobotDataset

data = LeRobotDataset("local/check", root=Path(sys.argv[1]), delta_timestamps={"action": [0.0, 0.02]})
row = data[int(data.meta.episodes[1]["dataset_from_index"]) + 12]
print(
    json.dumps(
        {
            "episodes": data.num_episodes,
            "frames": data.num_frames,
            "task": row["task"],
            "reasoning": row["reasoning"],
            "action": row["action"].tolist(),
            "image": list(row["observation.images.top"].shape),
            "pixel": float(row["observation.images.top"][0, 0, 0]),
        }
    )
)
