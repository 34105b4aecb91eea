# SPDX-License-Identifier: Apache-2.0
"""Which runs' scenes demonstrations may have is known to the evaluation, which cannot ask the recorder."""

import re
from pathlib import Path

import pytest

from chatvla_control.scene import SEEDS_PER_RUN
from chatvla_eval.demonstrations import DEMONSTRATION_SEEDS, shows_demonstrations
from chatvla_training.demos.collect import ATTEMPTS, SEED_STRIDE, CollectError, collect
from chatvla_training.demos.episode import DemoSettings


def test_every_scene_that_a_failed_trial_goes_on_with_is_known_as_the_demonstrations(tmp_path: Path):
    assert SEED_STRIDE == 10 * SEEDS_PER_RUN
    with pytest.raises(CollectError) as failed:
        collect(tmp_path / "set", episodes=1, seed=0, jobs=1, settings=DemoSettings(limit_s=0.02, frame_hz=1.0))
    tried = [int(seed) for seed in re.findall(r"seed (\d+): not solved", str(failed.value))]
    assert len(tried) == ATTEMPTS
    assert {seed // SEEDS_PER_RUN for seed in tried} == set(DEMONSTRATION_SEEDS)
    assert all(shows_demonstrations("in_domain", [seed]) for seed in tried)
    assert not shows_demonstrations("in_domain", [SEEDS_PER_RUN * ATTEMPTS])
