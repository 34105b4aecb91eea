# SPDX-License-Identifier: Apache-2.0
"""Denoise action chunks: per-robot heads around the DiT, training loss and sampling.

The heads are keyed by robot, so one expert drives several robots; the trunk is shared.
Departure: the expert may first guess the next keyframe from its conditions, o and r, and then denoise the chunk with
that guess in hand (keyframes: James and Davison 2022, "Q-attention"). A chunk's loss is mostly about when to move; a
keyframe's is about where to, and a demonstration holds it already.
Chunks and states are normalised (processing/statistics.py). A token of the trunk is a patch of consecutive chunk
steps, one unless the config says more: fewer tokens cost less.
Tensors: B batch, T chunk steps, N tokens of the trunk, A action dims, Z state dims, S image and action
tokens, V language width, D width, K denoising steps, P committed steps.
(ChatVLA-2, section 3.2; ScaleDP)
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from chatvla_policy.model.action.conditioning import LayerConditions, ReasoningTokens, make_conditioning
from chatvla_policy.model.action.config import ActionConfig, Embodiment
from chatvla_policy.model.action.dit import DenoisingPlan, DiT
from chatvla_policy.model.action.embeddings import ObservationEmbedding, TimeEmbedding
from chatvla_policy.model.action.objectives import make_objective

__all__ = ["ActionExpert", "RobotHeads"]


def _sinusoids(length: int, width: int) -> Tensor:
    """Return fixed position vectors, shape (length, width), as a start for learned ones."""
    rates = torch.exp(-math.log(10000.0) * torch.arange(width // 2, dtype=torch.float32) / (width // 2))
    angles = torch.arange(length, dtype=torch.float32)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class RobotHeads(nn.Module):
    """Input and output layers of one robot."""

    def __init__(self, embodiment: Embodiment, config: ActionConfig) -> None:
        """Build for the robot's widths and the config's steps a token; the output layers start at zero."""
        super().__init__()
        width, patch = config.width, config.patch
        self.steps, self.patch = embodiment.horizon, patch
        patch_width = patch * embodiment.action_width
        self.state_in = nn.Linear(embodiment.state_width, width)
        self.state_out = nn.Linear(width, width)
        self.action_in = nn.Linear(patch_width, width)
        self.position_ND = nn.Parameter(_sinusoids(math.ceil(embodiment.horizon / patch), width))
        self.action_out = nn.Linear(width, patch_width)
        nn.init.zeros_(self.action_out.weight)
        nn.init.zeros_(self.action_out.bias)
        self.keyframe_out: nn.Sequential | None = None
        if config.keyframe:
            self.keyframe_out = nn.Sequential(
                nn.Linear(3 * width, 2 * width), nn.GELU(), nn.Linear(2 * width, embodiment.state_width)
            )
            self.keyframe_in = nn.Linear(embodiment.state_width, width)
        self.state_skip: nn.Linear | None = None
        if config.state_skip:
            known = embodiment.state_width * (2 if config.keyframe else 1)
            self.state_skip = nn.Linear(known, embodiment.horizon * embodiment.action_width, bias=False)
            nn.init.zeros_(self.state_skip.weight)

    def guided(self, conditions: LayerConditions, state_BZ: Tensor, embedded_BD: Tensor) -> LayerConditions:
        """Return the conditions with the keyframe they tell of, and with what state and keyframe say of the chunk."""
        known_BX = state_BZ
        if self.keyframe_out is not None:
            ends = (conditions.embeddings[0], conditions.embeddings[-1], embedded_BD)
            keyframe_BZ = self.keyframe_out(torch.cat([end.to(self.dtype) for end in ends], dim=-1))
            guide_B1D = self.keyframe_in(keyframe_BZ)[:, None]
            conditions = replace(conditions, keyframe_BZ=keyframe_BZ, guide_B1D=guide_B1D)
            known_BX = torch.cat([state_BZ, keyframe_BZ], dim=-1)
        if self.state_skip is None:
            return conditions
        return replace(conditions, base_BTA=self.state_skip(known_BX).unflatten(1, (self.steps, -1)))

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights; a checkpoint may keep them finer than the trunk's."""
        return self.state_in.weight.dtype

    def state(self, state_BZ: Tensor) -> Tensor:
        """Return the embedded state, shape (B, D)."""
        return self.state_out(nn.functional.silu(self.state_in(state_BZ)))

    def tokens(self, chunk_BTA: Tensor) -> Tensor:
        """Return the chunk as tokens, shape (B, N, D); zeros fill up the last patch."""
        missing = len(self.position_ND) * self.patch - self.steps
        padded_BTA = functional.pad(chunk_BTA, (0, 0, 0, missing)) if missing else chunk_BTA
        return self.action_in(padded_BTA.unflatten(1, (-1, self.patch)).flatten(2)) + self.position_ND

    def steps_of(self, out_BND: Tensor) -> Tensor:
        """Return what the tokens say of every chunk step, shape (B, T, A)."""
        out_BNX = self.action_out(out_BND)
        return out_BNX.unflatten(2, (self.patch, -1)).flatten(1, 2)[:, : self.steps]


class ActionExpert(nn.Module):
    """The action half of the model."""

    def __init__(self, config: ActionConfig, language_width: int) -> None:
        """Build for action tokens and reasoning of `language_width`."""
        super().__init__()
        self.config = config
        self.objective = make_objective(config)
        self.time = TimeEmbedding(config.width)
        self.observation = ObservationEmbedding(language_width, config)
        self.conditioning = make_conditioning(config, language_width)
        self.trunk = DiT(config, cross_attends=self.conditioning.cross_attends)
        self.robots = nn.ModuleDict({item.name: RobotHeads(item, config) for item in config.embodiments})

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights but the robots' own."""
        return self.time.linear_in.weight.dtype

    def heads(self, robot: str) -> RobotHeads:
        """Return the heads of `robot`. Raises ValueError, listing those that exist."""
        self.config.embodiment(robot)
        heads = self.robots[robot]
        assert isinstance(heads, RobotHeads)
        return heads

    def condition(
        self, robot: str, tokens_BSV: Tensor, state_BZ: Tensor, reasoning: ReasoningTokens
    ) -> LayerConditions:
        """Return what each layer is conditioned on, from the language model's outputs and the normalised state.

        `tokens` are the action tokens; for an expert that looks (`sight`), the image tokens stand before them.
        """
        heads = self.heads(robot)
        state_BZ, tokens_BSV = state_BZ.to(heads.dtype), tokens_BSV.to(self.dtype)
        embedded_BD = heads.state(state_BZ)
        observation_BD = self.observation(tokens_BSV, embedded_BD.to(self.dtype))
        cast = replace(reasoning, hidden_BLV=reasoning.hidden_BLV.to(self.dtype))
        conditions = self.conditioning(observation_BD, cast, tokens_BSV[:, : -self.config.queries])
        return heads.guided(conditions, state_BZ, embedded_BD)

    def predict(self, robot: str, noisy_BTA: Tensor, plan: DenoisingPlan, level: int) -> Tensor:
        """Return the predicted noise, velocity or clean chunk, shape (B, T, A), float32."""
        heads = self.heads(robot)
        tokens_BND = heads.tokens(noisy_BTA.to(heads.dtype))
        if plan.guide_B1D is not None:
            tokens_BND = tokens_BND + plan.guide_B1D
        out_BND = self.trunk(tokens_BND.to(self.dtype), plan, level)
        chunk_BTA = heads.steps_of(out_BND.to(heads.dtype))
        return (chunk_BTA if plan.base_BTA is None else chunk_BTA + plan.base_BTA).float()

    def losses(
        self,
        robot: str,
        conditions: LayerConditions,
        clean_BTA: Tensor,
        *,
        noise_BTA: Tensor,
        uniform_B: Tensor,
    ) -> Tensor:
        """Return the prediction's errors, squared or absolute as the objective says, shape (B, T, A).

        `noise` and `uniform`, the levels in [0, 1), are given.
        """
        noisy_BTA, target_BTA, time_B = self.objective.corrupt(clean_BTA, noise_BTA, uniform_B)
        plan = self.trunk.prepare(self.time(time_B)[None], conditions)
        return self.objective.error(self.predict(robot, noisy_BTA, plan, 0) - target_BTA)

    @torch.no_grad()
    def sample(
        self,
        robot: str,
        conditions: LayerConditions,
        *,
        generator: torch.Generator | None = None,
        noise_BTA: Tensor | None = None,
        steps: int | None = None,
        committed_BPA: Tensor | None = None,
        shared_modulations: bool = True,
    ) -> Tensor:
        """Return clean normalised chunks, shape (B, T, A), float32.

        `committed_BPA` holds the first P steps at given values: they are noised to each level's amount while the
        rest is denoised, so the rest joins them smoothly (real-time chunking by inpainting).
        `shared_modulations=False` makes each step's modulations in that step; same result, slower.
        """
        reference = conditions.embeddings[0]
        if noise_BTA is None:
            noise_BTA = self._noise(robot, reference, generator)
        run = self.objective.sampling(steps or self.config.sample_steps, noise_BTA.device)
        time_K1D = self.time(run.times_K)[:, None]
        plan = self.trunk.prepare(time_K1D, conditions) if shared_modulations else None
        chunk_BTA = noise_BTA
        for step in range(len(run.times_K)):
            if committed_BPA is not None:
                chunk_BTA = _held(chunk_BTA, run.noised(step, committed_BPA, noise_BTA[:, : committed_BPA.shape[1]]))
            now = plan if plan is not None else self.trunk.prepare(time_K1D[step : step + 1], conditions)
            chunk_BTA = run.advance(
                step, chunk_BTA, self.predict(robot, chunk_BTA, now, step if plan is not None else 0)
            )
        return chunk_BTA if committed_BPA is None else _held(chunk_BTA, committed_BPA)

    def _noise(self, robot: str, like: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return Gaussian noise in the robot's chunk shape, drawn on the generator's device."""
        embodiment = self.config.embodiment(robot)
        shape = (like.shape[0], embodiment.horizon, embodiment.action_width)
        device = generator.device if generator is not None else like.device
        return torch.randn(shape, generator=generator, device=device, dtype=torch.float32).to(like.device)


def _held(chunk_BTA: Tensor, first_BPA: Tensor) -> Tensor:
    """Return the chunk with its first P steps replaced."""
    return torch.cat([first_BPA, chunk_BTA[:, first_BPA.shape[1] :]], dim=1)
