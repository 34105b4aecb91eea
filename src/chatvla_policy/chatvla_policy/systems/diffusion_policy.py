# SPDX-License-Identifier: Apache-2.0
"""Run a diffusion policy: pictures and joints to a chunk. It reads no instruction and writes no reasoning.

Units: rad, m, s. Shapes: H, W pixels; N views; T chunk steps; A action dims.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from chatvla_control.contracts import ActionChunk, Inference, Observation, Reasoning, ReasoningSource
from chatvla_policy.checkpoint.errors import CheckpointError
from chatvla_policy.checkpoint.parts import Parts, open_parts, save_parts
from chatvla_policy.checkpoint.setup import RobotSetup, check_expert
from chatvla_policy.checkpoint.weights import Storage, read_weights, write_weights
from chatvla_policy.model.diffusion_policy import DiffusionPolicyConfig, DiffusionPolicyModel
from chatvla_policy.naming import policy_name
from chatvla_policy.processing.images import ImageConfig, ImagePreparer
from chatvla_policy.runtime.inference import StageSeconds
from chatvla_policy.strict_json import StrictJsonError
from chatvla_policy.systems.chunk_making import decided_rows, rows_within_limits, timed_chunk
from chatvla_policy.systems.settings import PolicySettings, check_observation

__all__ = ["DiffusionPolicy", "Pictures", "save_diffusion_policy"]


class Pictures:
    """The one way of a camera image into the encoder, in training and inference alike."""

    def __init__(self, config: DiffusionPolicyConfig) -> None:
        """Scale to the config's size."""
        self._preparer = ImagePreparer(ImageConfig(width=config.image_width, height=config.image_height))

    def __call__(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """Return the views (RGB) at the stored size, shape (N, H, W, 3)."""
        return np.stack([self._preparer.place(image)[0] for image in images])


class DiffusionPolicy:
    """Policy of one checkpoint and one of its robots."""

    privileged = False
    system = "diffusion_policy"

    def __init__(
        self,
        model: DiffusionPolicyModel,
        setup: RobotSetup,
        *,
        name: str = "diffusion_policy",
        checkpoint_hash: str = "",
        seed: int = 0,
        settings: PolicySettings | None = None,
    ) -> None:
        """Run `model` for the robot of `setup`."""
        self.name, self.setup, self.checkpoint_hash = name, setup, checkpoint_hash
        self.settings = settings or PolicySettings()
        self._model = model.eval()
        self._pictures = Pictures(model.config)
        self.image_size = (model.config.image_height, model.config.image_width)
        self.stage_seconds = StageSeconds()
        self.reset(seed)

    @classmethod
    def load(
        cls, folder: Path | str, *, device: str = "cpu", seed: int = 0, robot: str | None = None, **options: Any
    ) -> DiffusionPolicy:
        """Return the policy of a checkpoint folder. Raises CheckpointError naming the first mismatch."""
        parts = open_parts(folder)
        model = load_model(parts, device=device)
        name = policy_name(folder)
        return cls(model, parts.robot(robot), name=name, checkpoint_hash=parts.sha256, seed=seed, **options)

    def reset(self, seed: int) -> None:
        """Draw further noise and ids from `seed`."""
        self._generator = torch.Generator().manual_seed(seed)
        self._ids = random.Random(seed)

    def infer(
        self,
        observation: Observation,
        forced_reasoning: str | None = None,
        previous_chunk: ActionChunk | None = None,
    ) -> Inference:
        """Return a chunk for `observation` and an empty reasoning; a forced one has nothing to act on and is ignored.

        Raises ObservationError when the input does not fit.
        """
        check_observation(observation, self.setup)
        started = time.perf_counter()
        pictures = self._pictures([observation.images[view] for view in self.setup.cameras])
        prepared = time.perf_counter()
        robot = self.setup.spec.name
        horizon = self._model.config.action.embodiment(robot).horizon
        kept = decided_rows(self.setup, observation, previous_chunk, commit_s=self.settings.commit_s, horizon=horizon)
        rows = rows_within_limits(
            self.setup, self._denoise(pictures, observation.joint_positions, kept), observation.joint_positions
        )
        reasoning = Reasoning(
            id=self._new_id(),
            text="",
            stamp_s=observation.stamp_s,
            source=ReasoningSource.GENERATED,
            policy=self.name,
            instruction=observation.instruction,
        )
        chunk = timed_chunk(
            self.setup,
            observation,
            rows,
            reasoning,
            chunk_id=self._new_id(),
            checkpoint_hash=self.checkpoint_hash,
        )
        self.stage_seconds = StageSeconds(preprocess=prepared - started, denoise=time.perf_counter() - prepared)
        return Inference(reasoning=reasoning, chunk=chunk)

    def check_forced(self, text: str) -> None:
        """Raise ValueError: there is no text that this policy would act on."""
        raise ValueError("this policy reads no text, so there is none to force; name a policy with language")

    def _denoise(
        self, pictures: NDArray[np.uint8], state: NDArray[np.float64], kept: NDArray[np.float64] | None
    ) -> NDArray[np.float32]:
        """Return the normalised chunk, shape (T, A)."""
        robot, statistics = self.setup.spec.name, self.setup.statistics
        device = next(self._model.parameters()).device
        committed = (
            None if kept is None else torch.from_numpy(statistics.normalise_actions(kept, state))[None].to(device)
        )
        with torch.inference_mode():
            conditions = self._model.condition(
                robot,
                torch.from_numpy(pictures)[None].to(device),
                torch.from_numpy(statistics.state.normalise(state))[None].to(device),
            )
            chunk_1TA = self._model.expert.sample(
                robot,
                conditions,
                generator=self._generator,
                steps=self.settings.denoise_steps,
                committed_BPA=committed,
            )
        return chunk_1TA[0].cpu().numpy()

    def _new_id(self) -> str:
        return f"{self._ids.getrandbits(64):016x}"


def load_model(parts: Parts, *, device: str = "cpu") -> DiffusionPolicyModel:
    """Return the model of an opened checkpoint, float32 on a CPU. Raises CheckpointError."""
    try:
        config = DiffusionPolicyConfig.from_plain(parts.config)
    except StrictJsonError as error:
        raise CheckpointError(f"{parts.folder}: {error}") from error
    check_expert(config.action, parts.robots)
    for setup in parts.robots:
        if len(setup.cameras) != config.action.queries:
            raise CheckpointError(
                f"robot {setup.spec.name} has {len(setup.cameras)} cameras, the model sees {config.action.queries} "
                "(queries); save the checkpoint with the cameras it was trained on"
            )
    with torch.device("meta"):
        model = DiffusionPolicyModel(config)
    dtype = torch.float32 if torch.device(device).type == "cpu" else None
    read_weights(parts.folder, parts.manifest, model, device=torch.device(device), dtype=dtype)
    return model


def save_diffusion_policy(
    folder: Path | str,
    model: DiffusionPolicyModel,
    robots: tuple[RobotSetup, ...],
    provenance: dict[str, Any],
    *,
    storage: Storage = "as_is",
) -> str:
    """Write the checkpoint folder; return its hash."""
    return save_parts(
        folder,
        config=model.config,
        robots=robots,
        provenance=provenance,
        write=lambda aside: write_weights(aside, model, storage=storage),
    )
